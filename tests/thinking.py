"""Rollouts with thoughts, made the slow way: the whole sequence through a model at every step."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from rsp_rl.draws.record import SoftPromptRecord
from rsp_rl.thoughts.embedding import TableEmbedding
from rsp_rl.thoughts.law import InputLaw, Moment
from rsp_rl.thoughts.noise import Noise
from rsp_rl.thoughts.record import ThoughtRecord
from rsp_rl.thoughts.replay import Scores, replay_inputs, replay_scores
from rsp_rl.thoughts.rows import Kind, Rows, concatenate

PLACEHOLDER = 3


def soft_prompt_of(record: SoftPromptRecord | None, width: int):
    """As `replay_inputs` takes it."""
    return None if record is None else (record.start, record.draw(width))


@torch.no_grad()
def think(
    model: torch.nn.Module,
    prompt: Sequence[int],
    law: InputLaw,
    kinds: str,
    seed: int,
    soft_prompt: SoftPromptRecord | None = None,
) -> ThoughtRecord:
    """A rollout.

    Args:
        model: Any.
        prompt: Token ids, placeholders included.
        law: Of the thoughts.
        kinds: What each position is: `t`hought, `f`orced token, or `a`nswer's.
        seed: Of all noise.
        soft_prompt: The prompt's.
    """
    table = model.get_input_embeddings()
    embedding = TableEmbedding.of(table)
    given = soft_prompt_of(soft_prompt, table.weight.shape[1])
    rows: list[Rows] = []
    for at, kind in enumerate(kinds):
        noise = Noise.of([seed], [len(prompt) + at])
        logits_NV = _logits(model, prompt, law, seed, rows, embedding, given)
        made = law.step(Moment(logits_NV.float(), noise, embedding))
        if kind != "t":
            single = Kind.FORCED if kind == "f" else Kind.TOKEN
            made = Rows.tokens(single, made.ids_NK[:, 0], like=made)
        rows.append(made)
    return ThoughtRecord(law, seed, len(prompt), concatenate(rows))


def _logits(model, prompt, law, seed, rows, embedding, given) -> torch.Tensor:
    """Of the next position, [1, V]."""
    if rows:
        record = ThoughtRecord(law, seed, len(prompt), concatenate(rows))
        tokens = record.rows.emitted_N.tolist()
        inputs = replay_inputs(prompt, tokens, record, embedding, given)
    else:
        like = law.step(Moment(torch.zeros(1, table_rows(model)), Noise.of([0], [0]), embedding))
        nothing = ThoughtRecord(law, seed, len(prompt), like[:0])
        inputs = replay_inputs(prompt, [], nothing, embedding, given)
    return model(inputs_embeds=inputs[None], use_cache=False).logits[:, -1]


def table_rows(model: torch.nn.Module) -> int:
    """V."""
    return len(model.get_input_embeddings().weight)


def replayed(
    model: torch.nn.Module,
    prompt: Sequence[int],
    record: ThoughtRecord,
    soft_prompt: SoftPromptRecord | None = None,
    *,
    detached: bool = False,
    as_tokens: bool = False,
) -> Scores:
    """Log-probs of a rollout in plain torch, with gradients.

    Args:
        model: Any.
        prompt: Its.
        record: Its.
        soft_prompt: Its prompt's.
        detached: Whether mixtures as inputs are constants.
        as_tokens: Whether the inputs are those of the emitted tokens, as a trainer has them that
            knows nothing of thoughts.
    """
    table = model.get_input_embeddings()
    embedding = TableEmbedding.of(table)
    given = soft_prompt_of(soft_prompt, table.weight.shape[1])
    tokens = record.rows.emitted_N.tolist()
    inputs_D = replay_inputs(prompt, tokens, record, embedding, given)
    plain = Rows.tokens(Kind.TOKEN, tokens, like=record.rows)
    of_tokens = ThoughtRecord(record.law, record.seed, record.start, plain)
    tokens_D = replay_inputs(prompt, tokens, of_tokens, embedding, given)
    if as_tokens:
        inputs_D = tokens_D
    elif detached:
        kinds = record.rows.kind_N.tolist()
        thinks = torch.tensor([False] * len(prompt) + [not Kind(kind).is_token for kind in kinds])
        inputs_D = torch.where(thinks[:, None], inputs_D.detach(), tokens_D)
    logits = model(inputs_embeds=inputs_D[None], use_cache=False).logits[0]
    return replay_scores(record, logits[len(prompt) - 1 : -1], embedding)
