"""A tool, and a parser that finds a call to it in whatever the model says first.

A tiny model writes no tool calls. Loaded by verl as `rollout.multi_turn.function_tool_path`; runs
inside its processes.
"""

import json

from verl.experimental.agent_loop.tool_parser import FunctionCall, ToolParser
from verl.tools.function_tool import function_tool

_ARGUMENTS = json.dumps({"expression": "1+2"})


@function_tool
def calculator(expression: str) -> str:
    """Compute.

    Args:
        expression: What to compute.
    """
    return f"{expression}=3"


@ToolParser.register("first_answer_calls")
class FirstAnswerCalls(ToolParser):
    """The first answer of each rollout calls the tool, the second is final."""

    _called = False  # verl makes one parser a rollout

    async def extract_tool_calls(self, responses_ids, tools=None):
        """See `ToolParser.extract_tool_calls`."""
        text = self.tokenizer.decode(responses_ids)
        calls = [] if self._called else [FunctionCall(name="calculator", arguments=_ARGUMENTS)]
        self._called = True
        return text, calls
