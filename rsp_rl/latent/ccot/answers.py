"""Answers: what psi is trained on, and what it writes.

The paper's answer begins with a token <ANS> that psi is given. Ours is the mark before an answer
(`rsp_rl.data.step_problems.MARK`), whose first token psi is given; it predicts what follows.

Shapes: B rows, A tokens of answers, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from rsp_rl.basics.errors import ConfigError
from rsp_rl.data.step_problems import MARK
from rsp_rl.latent.ccot.adapters import Adapters, exact
from rsp_rl.latent.ccot.batches import Rows
from rsp_rl.latent.ccot.stream import Stream

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Written:
    """An answer.

    Attributes:
        token_ids: Opening included, the token that ends it left out.
        ended: Whether that token came.
    """

    token_ids: tuple[int, ...]
    ended: bool


def opening_of(tokenizer: PreTrainedTokenizerBase) -> int:
    """The token that an answer begins with.

    Raises:
        ConfigError: If the tokenizer makes nothing of the mark.
    """
    tokens = tokenizer(MARK, add_special_tokens=False).input_ids
    if not tokens:
        raise ConfigError(f"the tokenizer has no tokens for {MARK}, which begins an answer")
    return tokens[0]


def answer_loss(adapters: Adapters, stream: Stream, answer: Rows) -> torch.Tensor:
    """Mean cross-entropy over all tokens of all answers but their first ones, in nats.

    Args:
        adapters: The model.
        stream: Question and thoughts; the answers are added to it.
        answer: With opening and end-of-text token.
    """
    embeddings = adapters.model.get_input_embeddings()(answer.ids_BT[:, :-1])
    real_BA = answer.real_BT[:, 1:]
    # An input whose next token is padding is a row's end, or padding itself: nothing looks at it.
    states = stream.feed("psi", embeddings, real_BA, {adapters.layers})
    logits_NV = _logits(adapters, states[adapters.layers][real_BA])
    return torch.nn.functional.cross_entropy(logits_NV, answer.ids_BT[:, 1:][real_BA])


@torch.no_grad()
def write(
    adapters: Adapters, stream: Stream, rows: int, opening: int, end: int, max_new_tokens: int
) -> list[Written]:
    """Most likely answers.

    Args:
        adapters: The model.
        stream: Question and thoughts; the answers are added to it.
        rows: B.
        opening: First token, given.
        end: Token that ends an answer.
        max_new_tokens: The most tokens after the opening.

    Returns:
        Of each, token ids and whether it ended.
    """
    answers: list[list[int]] = [[opening] for _ in range(rows)]
    token_B = torch.full((rows,), opening, device=adapters.device)
    writes_B = torch.ones(rows, dtype=torch.bool, device=adapters.device)
    for _ in range(max_new_tokens):
        embeddings = adapters.model.get_input_embeddings()(token_B)[:, None]
        states = stream.feed("psi", embeddings, writes_B[:, None], {adapters.layers})
        token_B = _logits(adapters, states[adapters.layers][:, 0]).argmax(dim=-1)
        writes_B = writes_B & (token_B != end)
        for row in writes_B.nonzero()[:, 0].tolist():
            answers[row].append(int(token_B[row]))
        if not writes_B.any():
            break
    return [
        Written(tuple(ids), not writes)
        for ids, writes in zip(answers, writes_B.tolist(), strict=True)
    ]


def _logits(adapters: Adapters, states_Nd: torch.Tensor) -> torch.Tensor:
    return exact(adapters.model.get_output_embeddings()(states_Nd))
