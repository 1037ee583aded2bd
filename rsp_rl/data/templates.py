"""Prompt templates: how a problem is put to the model, and where a soft prompt goes in it.

`TextTemplate` is literal text around the question, the same for every tokenizer: SimpleRL-Zoo's
way. `ChatTemplate` is the tokenizer's own chat template.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rsp_rl.basics.errors import ConfigError
from rsp_rl.placement.chat import answer_end, place_in_chat, question_in_chat
from rsp_rl.placement.dates import date_argument
from rsp_rl.placement.prompt import INSTRUCTION, PlacedPrompt, Position, added_tokens, encode
from rsp_rl.placement.text import place_in_turn, question_in_turn

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Template(ABC):
    """How a question becomes a prompt."""

    @abstractmethod
    def place(
        self,
        tokenizer: PreTrainedTokenizerBase,
        question: str,
        length: int = 0,
        position: Position = "suffix",
    ) -> PlacedPrompt:
        """Tokens of a question's prompt, with L placeholders in it.

        Args:
            tokenizer: The model's tokenizer.
            question: The problem's question.
            length: L; 0 gives exactly the plain prompt.
            position: See `rsp_rl.placement`.

        Raises:
            PlacementError: If the tokenizer does not suit the template.
        """

    @abstractmethod
    def find_question(self, tokenizer: PreTrainedTokenizerBase, question: str) -> PlacedPrompt:
        """Tokens of a question's plain prompt, with the place of those of the user's turn.

        Args:
            tokenizer: The model's tokenizer.
            question: The problem's question; what the template adds to the turn counts as well.

        Raises:
            PlacementError: If they cannot be told from what is around them.
        """

    @abstractmethod
    def end_of_turn(self, tokenizer: PreTrainedTokenizerBase) -> int | None:
        """Token that closes the model's turn; None if template or tokenizer know none.

        Generation mostly stops there even where the model's configuration does not say so (see
        `rsp_rl.models.stop_tokens`): Qwen2.5's base models name `<|endoftext|>` alone, and after
        `<|im_end|>` would go on with turns of their own.
        """


@dataclass(frozen=True)
class TextTemplate(Template):
    """Literal text around the question.

    Attributes:
        opening: What stands before the question.
        instruction: What follows it within the user's turn.
        closing: What closes the user's turn and opens the assistant's; empty without turns.
    """

    opening: str
    instruction: str
    closing: str

    def text(self, question: str) -> str:
        """The plain prompt of a question (SimpleRL-Zoo's `construct_prompt`)."""
        return self.opening + question + self.instruction + self.closing

    def place(
        self,
        tokenizer: PreTrainedTokenizerBase,
        question: str,
        length: int = 0,
        position: Position = "suffix",
    ) -> PlacedPrompt:
        """See `Template.place`; the tokens are those that vLLM makes of the text."""
        pieces = (self.opening, question, self.instruction, self.closing)
        return place_in_turn(tokenizer, *pieces, length, position)

    def find_question(self, tokenizer: PreTrainedTokenizerBase, question: str) -> PlacedPrompt:
        """See `Template.find_question`."""
        return question_in_turn(tokenizer, self.opening, question, self.instruction, self.closing)

    def end_of_turn(self, tokenizer: PreTrainedTokenizerBase) -> int | None:
        """See `Template.end_of_turn`: all of a literal template's turns are closed alike."""
        closing = self.closing.lstrip()
        is_token = closing.startswith(added_tokens(tokenizer))
        return encode(tokenizer, closing)[0] if is_token else None


@dataclass(frozen=True)
class ChatTemplate(Template):
    """The tokenizer's own chat template.

    Attributes:
        system: System turn, None for whatever the template puts there by itself.
        instruction: What follows the question in the user's turn.
        options: Passed on to the chat template.
    """

    system: str | None = None
    instruction: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)

    def place(
        self,
        tokenizer: PreTrainedTokenizerBase,
        question: str,
        length: int = 0,
        position: Position = "suffix",
    ) -> PlacedPrompt:
        """See `Template.place`."""
        messages = self._messages(question)
        # A plain prompt needs no end-of-turn token, and a prefix asks for none.
        position = position if length else "prefix"
        return place_in_chat(tokenizer, messages, length, position, **self.arguments(tokenizer))

    def find_question(self, tokenizer: PreTrainedTokenizerBase, question: str) -> PlacedPrompt:
        """See `Template.find_question`."""
        arguments = self.arguments(tokenizer)
        return question_in_chat(tokenizer, self._messages(question), **arguments)

    def _messages(self, question: str) -> list[dict[str, str]]:
        messages = [] if self.system is None else [{"role": "system", "content": self.system}]
        return [*messages, {"role": "user", "content": question + self.instruction}]

    def end_of_turn(self, tokenizer: PreTrainedTokenizerBase) -> int | None:
        """See `Template.end_of_turn`."""
        return answer_end(tokenizer, **self.arguments(tokenizer))

    def arguments(self, tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
        """The chat template's, the date pinned where it takes one."""
        return {**date_argument(tokenizer, **self.options), **self.options}


TEMPLATES: dict[str, Template] = {
    "qwen-boxed": TextTemplate(
        opening="<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n",
        instruction=f"\n{INSTRUCTION}",
        closing="<|im_end|>\n<|im_start|>assistant\n",
    ),
    "qwen25-math-cot": TextTemplate(
        opening=f"<|im_start|>system\n{INSTRUCTION}<|im_end|>\n<|im_start|>user\n",
        instruction="",
        closing="<|im_end|>\n<|im_start|>assistant\n",
    ),
    "abel": TextTemplate(
        opening="Question:\n", instruction="\nAnswer:\nLet's think step by step.\n", closing=""
    ),
    # Soft Tokens, Hard Truths (arXiv 2509.19170, appendix B): the turn's format, then the turn.
    "soft-tokens": TextTemplate(
        opening="The following is a conversation between a user and an assistant in this format:\n"
        "User: [question] Assistant: [reasoning] The final answer is: \\boxed{[answer]}.\nUser: ",
        instruction=" Assistant:",
        closing="",
    ),
    "raw": TextTemplate(opening="", instruction=f"\n{INSTRUCTION}", closing=""),
    # Llama-3.1's template writes a date into the system turn; the later ones today's.
    "llama-chat": ChatTemplate(system=INSTRUCTION, options={"date_string": "26 Jul 2024"}),
    "chat": ChatTemplate(instruction=f"\n{INSTRUCTION}"),
    "plain-chat": ChatTemplate(),
}


def get_template(name: str) -> Template:
    """A template by its name.

    Raises:
        ConfigError: If it is unknown.
    """
    if not isinstance(name, str) or name not in TEMPLATES:
        raise ConfigError(f"unknown template {name!r}; use one of {', '.join(TEMPLATES)}")
    return TEMPLATES[name]
