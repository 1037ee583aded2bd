r"""Which tokens of a trajectory are the question, and which are reasoning.

Both are found by characters, through the offsets that fast tokenizers give: a token belongs to a
stretch of text if it has a character in it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rsp_rl.basics.errors import ConfigError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from rsp_rl.analysis.teacher_forcing import Trajectory
    from rsp_rl.inference.requests import Request

#: What a final answer stands in.
BOX = "\\boxed"


def reasoning_length(trajectory: Trajectory) -> int:
    r"""Output tokens before the final `\boxed` span; all of them if there is none."""
    end = trajectory.sample["output"].rfind(BOX)
    if end < 0:
        return len(trajectory.output_ids)
    return sum(last <= end for _, last in trajectory.spans)


def question_positions(
    tokenizer: PreTrainedTokenizerBase, request: Request, question: str
) -> list[int]:
    """Positions of the question's tokens in a prompt.

    The prompt is read as the placement made it: the tokens before the soft prompt and those after
    it are two texts; where noise is added to the question, the prompt is one.

    Args:
        tokenizer: The prompt's.
        request: The prompt.
        question: The problem's question.

    Raises:
        ConfigError: If neither text holds the question, or its tokens are not those that the
            tokenizer makes of it.
    """
    record = request.record
    cut = (len(request.token_ids),) * 2
    if record and not record.added_to:
        cut = (record.start, record.start + record.length)
    for first, ids in ((0, request.token_ids[: cut[0]]), (cut[1], request.token_ids[cut[1] :])):
        text = tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        begin = text.find(question.strip())
        if begin < 0:
            continue
        end = begin + len(question.strip())
        encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        if encoded.input_ids == ids:
            spans = encoded.offset_mapping
            return [first + i for i, (a, b) in enumerate(spans) if a < end and b > begin]
    raise ConfigError(
        f"the tokens of the question {question!r:.60} cannot be told from the rest of its prompt: "
        "the template or the tokenizer changes its text"
    )
