"""One parallel forward over recorded inputs, and how likely what is recorded was.

A trainer or a check makes the inputs of a whole output from its record, runs the model over them
once, and scores each position from the logits of the one before: thoughts by their law, tokens by
their log-prob. No noise is drawn anew, and nothing is fed back: differences do not grow.

Shape suffixes: `_P` prompt, `_T` output, `_TV` with the vocabulary, `_TK` with the law's draws,
`_LD` the soft prompt, `_D` the hidden size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from rsp_rl.thoughts.law import Embedding
from rsp_rl.thoughts.record import ThoughtRecord
from rsp_rl.thoughts.rows import Kind


@dataclass(frozen=True)
class Scores:
    """Log-probs of an output of T positions.

    Attributes:
        log_probs_T: Of each position, float32, with a gradient into the logits; 0 where there is
            none.
        draws_TK: The same apart, for laws with independent draws at a position; the first column
            alone is set where there is one number.
        scored_T: Whether there is a log-prob: not at tokens that nobody chose, and not at thoughts
            of a law without a score.
        forced_T: Tokens that nobody chose: no part of any loss.
    """

    log_probs_T: torch.Tensor
    draws_TK: torch.Tensor
    scored_T: torch.Tensor
    forced_T: torch.Tensor


def replay_inputs(
    prompt_ids: Sequence[int],
    token_ids: Sequence[int],
    record: ThoughtRecord,
    embedding: Embedding,
    soft_prompt: tuple[int, torch.Tensor] | None = None,
) -> torch.Tensor:
    """Input embeddings of prompt and output, [P + T, d] in the model's dtype.

    Args:
        prompt_ids: The prompt, placeholders of a soft prompt included.
        token_ids: The output, T.
        record: Of this output.
        embedding: The model's.
        soft_prompt: Where in the prompt it starts, and its rows [L, d].

    Raises:
        ValueError: If the record is of another output or prompt, or the soft prompt lies outside.
    """
    record.check(token_ids)
    if record.start != len(prompt_ids):
        raise ValueError(
            f"the record begins at position {record.start}, and the prompt has {len(prompt_ids)}"
        )
    rows = record.rows
    device = rows.ids_NK.device
    prompt_P = torch.tensor(list(prompt_ids), dtype=torch.long, device=device)
    inputs_D = embedding.rows(torch.cat([prompt_P, rows.emitted_N.long()]))
    if soft_prompt is not None:
        start, rows_LD = soft_prompt
        if start < 0 or start + len(rows_LD) > len(prompt_ids):
            raise ValueError(
                f"a soft prompt at {start} to {start + len(rows_LD)} lies outside a prompt of "
                f"{len(prompt_ids)} tokens"
            )
        places = torch.arange(start, start + len(rows_LD), device=inputs_D.device)
        inputs_D = inputs_D.index_copy(0, places, rows_LD.to(inputs_D))
    thoughts = rows.thought_N.nonzero()[:, 0]
    if not len(thoughts):
        return inputs_D
    mixed = record.law.embed(rows[thoughts], embedding).to(inputs_D.dtype)
    return inputs_D.index_copy(0, thoughts + len(prompt_ids), mixed)


def replay_scores(
    record: ThoughtRecord,
    logits_TV: torch.Tensor,
    embedding: Embedding,
    temperature: float = 1.0,
) -> Scores:
    """Log-probs of a recorded output.

    Args:
        record: Its.
        logits_TV: Of the position before each of its own, without a temperature: of the forward's
            logits those from P - 1 to P + T - 2.
        embedding: Of the model that made the logits.
        temperature: Of ordinary tokens, above 0. Those that a `token` law drew are ordinary too,
            and so is the one by which a law ended its thoughts: vLLM's log-prob of it is at the
            law's temperature.

    Raises:
        ValueError: If there are not as many logits as positions.
    """
    rows, law = record.rows, record.law
    if len(logits_TV) != len(rows):
        raise ValueError(f"{len(logits_TV)} rows of logits for {len(rows)} positions")
    logits_TV = logits_TV.float()
    forced_T = ~record.chosen
    draws_TK = logits_TV.new_zeros(rows.ids_NK.shape)
    tokens = (rows.kind_N == Kind.TOKEN).nonzero()[:, 0]
    scored_T = rows.kind_N == Kind.TOKEN
    if len(tokens):
        scores_NV = logits_TV[tokens] / temperature
        emitted_N1 = rows.emitted_N[tokens].long()[:, None]
        log_N = scores_NV.gather(1, emitted_N1)[:, 0] - scores_NV.logsumexp(1)
        draws_TK = draws_TK.index_put((tokens, torch.zeros_like(tokens)), log_N)
    thoughts = rows.thought_N.nonzero()[:, 0]
    log = law.log_prob(rows[thoughts], logits_TV[thoughts], embedding) if len(thoughts) else None
    if log is not None:
        scored_T = scored_T.index_fill(0, thoughts, True)
        if log.ndim == 2:
            draws_TK = draws_TK.index_put((thoughts,), log)
        else:
            draws_TK = draws_TK.index_put((thoughts, torch.zeros_like(thoughts)), log)
    return Scores(draws_TK.sum(1), draws_TK, scored_T, forced_T)
