"""Greedy answers of a model that thinks, a batch at a time: one loop, a key-value cache.

Shapes: B problems, T columns, d width.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from transformers import DynamicCache

from rsp_rl.basics.errors import ConfigError
from rsp_rl.latent.folder import Thinker, Thinking
from rsp_rl.latent.layout import Row, collate, prefix
from rsp_rl.latent.methods import NOTHING, THOUGHTS, get_method
from rsp_rl.latent.settings import CLASSIFIER
from rsp_rl.latent.thinking import decoder_states


@dataclass(frozen=True)
class Answer:
    """What a model gave to a problem.

    Attributes:
        text: After the thoughts.
        written: Its tokens, the end-of-text token left out.
        thoughts: How many came before.
        ended: Whether the end-of-text token came, within the limit.
        seconds: Of its batch, by the number of problems in it.
    """

    text: str
    written: int
    thoughts: int
    ended: bool
    seconds: float

    @property
    def tokens(self) -> int:
        """Sequential steps that the answer took: thoughts and tokens, as the paper counts them."""
        return self.thoughts + self.written


def check_room(
    questions: Sequence[Sequence[int]], thinking: Thinking, context: int | None, place: str
) -> None:
    """Make sure that a model's context holds questions, thoughts and the longest answer.

    Args:
        questions: Their tokens, one at least.
        thinking: How the model answers.
        context: Positions of the model, or None where it has no limit.
        place: What the error calls the problems: their file.

    Raises:
        ConfigError: Naming the longest.
    """
    longest = max(range(len(questions)), key=lambda number: len(questions[number]))
    question, markers = len(questions[longest]), 2 * get_method(thinking.method).markers
    needed = question + markers + thinking.thoughts + thinking.max_new_tokens
    if context is not None and needed > context:
        raise ConfigError(
            f"{place}, problem {longest}: {question} tokens of question, {markers} markers, "
            f"{thinking.thoughts} thoughts and {thinking.max_new_tokens} tokens of answer "
            f"(max_new_tokens of the training) are {needed}, the model's context is {context}; "
            "take fewer thoughts, leave the problem out, or train with fewer max_new_tokens"
        )


def answer(
    thinker: Thinker,
    questions: Sequence[Sequence[int]],
    *,
    batch_size: int = 64,
    thoughts: int | None = None,
    max_new_tokens: int | None = None,
) -> Iterator[Answer]:
    """Greedy answers, in the order of the questions.

    Args:
        thinker: The model, in evaluation mode while it answers.
        questions: Their tokens.
        batch_size: Problems at a time.
        thoughts: How many; as the model was trained for if None. With a classifier, the most.
        max_new_tokens: Likewise.
    """
    thinking = thinker.thinking
    assert thinking is not None
    thoughts = thinking.thoughts if thoughts is None else thoughts
    limit = thinking.max_new_tokens if max_new_tokens is None else max_new_tokens
    training = thinker.model.training
    thinker.model.eval()
    try:
        for start in range(0, len(questions), batch_size):
            yield from _answer_batch(
                thinker, questions[start : start + batch_size], thoughts, limit
            )
    finally:
        thinker.model.train(training)


@torch.no_grad()
def _answer_batch(
    thinker: Thinker, questions: Sequence[Sequence[int]], thoughts: int, limit: int
) -> list[Answer]:
    begun = time.monotonic()
    model, method, markers = thinker.model, thinker.method, thinker.markers
    thinks = method.filler == THOUGHTS and thoughts > 0
    if method.filler == NOTHING:
        thoughts = 0
    rows = []
    for question in questions:
        tokens, first = prefix(question, method, 0 if thinks else thoughts, markers)
        # The end marker follows the thoughts, which are not there yet.
        tokens = tokens[:first] if thinks else tokens
        rows.append(Row(tuple(tokens), len(tokens), 0, len(tokens), 0))
    embedding = model.get_input_embeddings()
    batch = collate(rows, thinker.pad).to(embedding.weight.device)
    cache = DynamicCache(config=model.config)
    width = batch.token_ids_BT.shape[1]
    inputs_BTd = embedding(batch.token_ids_BT)
    states_Bd = decoder_states(model, inputs_BTd, batch, 0, width, cache)[:, -1]
    count = len(rows)
    thinking_B = torch.full((count,), thinks, device=states_Bd.device)
    thoughts_B = torch.zeros(count, dtype=torch.long, device=states_Bd.device)
    written: list[list[int]] = [[] for _ in rows]
    ended = [False] * count
    mask_BT, positions_B = batch.mask_BT, batch.positions_BT[:, -1]
    eos = thinker.tokenizer.eos_token_id
    while not all(ended[row] or len(written[row]) >= limit for row in range(count)):
        stops_B = thinking_B & _stops(thinker, states_Bd, thoughts_B, thoughts)
        goes_on_B = thinking_B & ~stops_B
        tokens_B = model.get_output_embeddings()(states_Bd).argmax(-1)
        tokens_B = torch.where(stops_B, markers.end, tokens_B)
        for row, (token, thinks_, stops) in enumerate(
            zip(tokens_B.tolist(), goes_on_B.tolist(), stops_B.tolist(), strict=True)
        ):
            if thinks_ or stops or ended[row] or len(written[row]) >= limit:
                continue
            if token == eos:
                ended[row] = True
            else:
                written[row].append(token)
        inputs_Bd = torch.where(goes_on_B[:, None], states_Bd, embedding(tokens_B))
        thoughts_B, thinking_B = thoughts_B + goes_on_B, goes_on_B
        mask_BT = torch.cat([mask_BT, torch.ones_like(mask_BT[:, :1])], dim=1)
        positions_B = positions_B + 1
        states_Bd = model.base_model(
            inputs_embeds=inputs_Bd[:, None],
            attention_mask=mask_BT,
            position_ids=positions_B[:, None],
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state[:, -1]
    seconds = (time.monotonic() - begun) / count
    decode = thinker.tokenizer.decode
    return [
        Answer(
            decode(ids, skip_special_tokens=True),
            len(ids),
            int(thoughts_B[row]),
            ended[row],
            seconds,
        )
        for row, ids in enumerate(written)
    ]


def _stops(
    thinker: Thinker, states_Bd: torch.Tensor, thoughts_B: torch.Tensor, most: int
) -> torch.Tensor:
    """Which rows' thoughts end here: the number is reached, or the classifier says so."""
    stops_B = thoughts_B >= most
    if thinker.thinking is not None and thinker.thinking.ends == CLASSIFIER:
        assert thinker.classifier is not None
        said_B = thinker.classifier(states_Bd.float())[:, 0] > 0
        stops_B = stops_B | (said_B & (thoughts_B > 0))
    return stops_B
