"""Actor side: a micro-batch's thoughts, from the records that its samples carry.

Shape suffixes: `_N` thoughts of a micro-batch, `_T` its packed tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from tensordict import TensorDict

from rsp_rl.thoughts.law import Embedding, InputLaw
from rsp_rl.thoughts.record import THOUGHT_FIELD, ThoughtRecord
from rsp_rl.thoughts.samples import SampleThoughts
from rsp_rl.training.verl_plugin.draws_loss import ABSENT

#: Fields of a sample, [T] each: `InputLaw.gap`, and 1 for a thought whose likeliest token is
#: another than the rollout's (of dense laws alone). NaN where there is no thought: an actor that
#: lost them must not seem to have made no gap.
GAP_FIELD, FLIP_FIELD = "rsp_thought_gaps", "rsp_thought_flips"

#: Setting of a batch: which of them to compute.
GAP_KEY = "rsp_thought_fields"

#: Field of a sample, [T]: what the first of these fields, or else the log-prob, would be of an
#: actor with tokens in the place of its thoughts; NaN where nobody asked, or the inputs before are
#: the same. And a batch's setting that asks for it, in each rank's first micro-batch: a forward.
FORGOTTEN_FIELD, FORGOTTEN_KEY = "rsp_forgotten", "rsp_with_forgotten"

#: Share of a mixture that others than its token have, below which it is that token.
_LEAST_MIXED = 0.01

#: Fields of a sample: log-probs by draw, [T * K], of the whole sequence as the actor gives them,
#: and of the response before the update, for `draws_loss`; a batch's setting that asks for them, K.
#: Flat: what tensordict makes of nested tensors with a dimension more is wrong once it was pickled
#: (see verl's `maybe_fix_3d_position_ids`).
DRAWS_FIELD, OLD_DRAWS_FIELD, DRAWS_KEY = "rsp_draws", "rsp_old_draws", "rsp_with_draws"

#: Setting of a batch: whether no gradient flows through thoughts as inputs.
DETACH_KEY = "rsp_detach_inputs"

#: Laws whose authors detach them (SofT-GRPO), unless the setting says otherwise.
DETACHED = ("gumbel",)


def gap_fields(law: InputLaw) -> tuple[str, ...]:
    """Which fields tell how far rollout and actor are apart; none where log-probs do."""
    if type(law).gap is InputLaw.gap:
        return ()
    return (GAP_FIELD, FLIP_FIELD) if law.dense else (GAP_FIELD,)


@dataclass(frozen=True)
class ThoughtReplay:
    """Thoughts of a micro-batch, and where its samples have them.

    Attributes:
        thoughts: Of all samples.
        prompts: Length of each sample's prompt.
        lengths: Of each sample.
        detached: See `DETACH_KEY`.
    """

    thoughts: SampleThoughts
    prompts: list[int]
    lengths: list[int]
    detached: bool

    @classmethod
    def of(cls, micro_batch: TensorDict, detached: bool | None = None) -> ThoughtReplay | None:
        """Of a micro-batch on the CPU, whose tokens are checked; None if nobody thinks.

        Args:
            micro_batch: verl's, nested.
            detached: `DETACH_KEY`'s; None for what the law's authors do.

        Raises:
            ValueError: Where a sample's tokens and record do not belong together.
        """
        if THOUGHT_FIELD not in micro_batch:
            return None
        thoughts = SampleThoughts.of(decode_thoughts(micro_batch))
        if thoughts is None:
            return None
        lengths = micro_batch["input_ids"].offsets().diff()
        prompts = lengths - micro_batch["responses"].offsets().diff()
        if detached is None:
            detached = thoughts.law.name in DETACHED
        return cls(thoughts, prompts.tolist(), lengths.tolist(), detached)

    def positions(self, starts: Sequence[int]) -> torch.Tensor:
        """Flat positions of the thoughts in a layout, int64 [N] on the CPU.

        Args:
            starts: Where the layout has each sample's first token.
        """
        return self.thoughts.places([s + p for s, p in zip(starts, self.prompts, strict=True)])

    def starts(self, width: int | None = None) -> list[int]:
        """Where samples begin: packed, or each in a row of this width."""
        if width is None:
            return [0, *accumulate(self.lengths)][:-1]
        return [number * width for number in range(len(self.lengths))]

    @property
    def response_starts(self) -> list[int]:
        """Where samples would begin if their responses alone were packed."""
        sizes = [n - prompt for n, prompt in zip(self.lengths, self.prompts, strict=True)]
        before = [0, *accumulate(sizes)][:-1]
        return [at - prompt for at, prompt in zip(before, self.prompts, strict=True)]

    @property
    def mattering_N(self) -> torch.Tensor:
        """Which thoughts follow one of their sample's that is not just its token, bool.

        The others have the same inputs before them in an actor that forgets thoughts.
        """
        rows, law = self.thoughts.rows, self.thoughts.law
        if law.dense:
            mixed_N = torch.ones(len(rows), dtype=torch.int64)
        else:
            own_NK = rows.ids_NK == rows.ids_NK[:, :1]
            own_N = (law.weights(rows) * own_NK).sum(1)
            mixed_N = (own_N < 1 - _LEAST_MIXED).long()
        before_N = mixed_N.cumsum(0) - mixed_N
        _, counts = self.thoughts.sample_N.unique_consecutive(return_counts=True)
        firsts = counts.cumsum(0) - counts
        return before_N > before_N[firsts].repeat_interleave(counts)

    def scores(
        self, logits_TV: torch.Tensor, at_N: torch.Tensor, embedding: Embedding, *, gaps: bool
    ) -> Scores:
        """Log-probs of the thoughts.

        Args:
            logits_TV: In any layout, flat, without a temperature and as long as the tokenizer.
            at_N: Which of them predict the thoughts, on the CPU.
            embedding: Of the model that made them.
            gaps: Whether to compare with the rollout, see `GAP_FIELD`.
        """
        logits_NV = logits_TV[at_N.to(logits_TV.device)]
        logs = self.thoughts.log_probs(logits_NV, embedding)
        draws_NK = logs[:, None] if logs.ndim == 1 else logs
        beside: dict[str, torch.Tensor] = {}
        if gaps and (found := self.thoughts.gaps(logits_NV, embedding)) is not None:
            beside[GAP_FIELD] = found
            if self.thoughts.law.dense:
                beside[FLIP_FIELD] = self.thoughts.flips(logits_NV).float()
        return Scores(draws_NK, beside, (self.positions(self.starts()) - 1).to(logs.device))


@dataclass(frozen=True)
class Scores:
    """Log-probs of a micro-batch's thoughts.

    Attributes:
        draws_NK: Of each position's independent draws.
        beside: More numbers of each, [N], by field.
        at_N: Where verl has a position's log-prob: packed, one before its token.
    """

    draws_NK: torch.Tensor
    beside: dict[str, torch.Tensor]
    at_N: torch.Tensor

    def put(self, model_output: dict[str, torch.Tensor]) -> None:
        """Into verl's output, nested [B, T]: log-probs in the place of the tokens'; and fields."""
        log_probs = model_output["log_probs"]
        values_T, offsets = log_probs.values(), log_probs.offsets()

        def placed(onto_T: torch.Tensor, own_N: torch.Tensor) -> torch.Tensor:
            made_T = onto_T.index_copy(0, self.at_N, own_N.to(onto_T.dtype))
            return torch.nested.nested_tensor_from_jagged(made_T, offsets)

        model_output["log_probs"] = placed(values_T, self.draws_NK.sum(1))
        for field, own_N in self.beside.items():
            model_output[field] = placed(torch.full_like(values_T, torch.nan).detach(), own_N)


def forgotten(replay: ThoughtReplay | None, found: torch.Tensor) -> torch.Tensor:
    """`FORGOTTEN_FIELD` of a micro-batch, nested [B, T].

    Args:
        replay: Its thoughts; None if nothing was asked, or nobody thinks.
        found: What an actor that forgets them makes, in verl's layout.
    """
    values_T = found.values()
    made_T = torch.full_like(values_T, torch.nan)
    if replay is not None:
        at_N = (replay.positions(replay.starts()) - 1)[replay.mattering_N].to(values_T.device)
        made_T = made_T.index_copy(0, at_N, values_T[at_N])
    return torch.nested.nested_tensor_from_jagged(made_T, found.offsets())


def by_draw(log_probs: torch.Tensor, scores: Scores | None, draws: int) -> torch.Tensor:
    """Log-probs of positions by draw: nested [B, T, K], `ABSENT` where there is none.

    Args:
        log_probs: Of positions, nested [B, T].
        scores: Of the thoughts among them, if any.
        draws: K.
    """
    values_T = log_probs.values()
    rest_TK = values_T.new_full((len(values_T), draws - 1), ABSENT)
    made_TK = torch.cat([values_T[:, None], rest_TK], dim=1)
    if scores is not None:
        made_TK = made_TK.index_copy(0, scores.at_N, scores.draws_NK.to(made_TK.dtype))
    return torch.nested.nested_tensor_from_jagged(made_TK, log_probs.offsets())


def flat_draws(by_draw: torch.Tensor) -> torch.Tensor:
    """As a field: nested [B, T * K] of nested [B, T, K]."""
    values_TK = by_draw.values()
    offsets = by_draw.offsets() * values_TK.shape[1]
    return torch.nested.nested_tensor_from_jagged(values_TK.flatten(), offsets)


def draws_of_field(field: torch.Tensor, draws: int) -> torch.Tensor:
    """What `flat_draws` was given; no gradient goes through it."""
    rows = [row.unflatten(0, (-1, draws)) for row in field.unbind()]
    # Of values and offsets torch would pad to the length of all of them.
    return torch.nested.as_nested_tensor(rows, layout=torch.jagged)


def decode_thoughts(micro_batch: TensorDict) -> list[ThoughtRecord | None]:
    """A micro-batch's records; None for verl's synthetic padding samples.

    Those are copies of a real sample, record included, whose tokens are others and whose response
    mask is zero (see `actor_engine.decode_records`).

    Raises:
        ValueError: Where a sample's tokens and record do not belong together.
    """
    fields = ("input_ids", "responses", "loss_mask", THOUGHT_FIELD)
    records: list[ThoughtRecord | None] = []
    rows = zip(*(micro_batch[field].unbind() for field in fields), strict=True)
    for number, (tokens, response, mask, encoded) in enumerate(rows):
        if not mask.any():
            records.append(None)
            continue
        record = ThoughtRecord.from_tensor(encoded)
        try:
            record.check(response.tolist())
        except ValueError as error:
            raise ValueError(f"sample {number} of a micro-batch: {error}") from error
        if record.start != (prompt := len(tokens) - len(response)):
            raise ValueError(
                f"sample {number} of a micro-batch: its thoughts begin at position {record.start}, "
                f"and its prompt has {prompt} tokens; the prompt was truncated, or the record "
                "belongs to another sample"
            )
        records.append(record)
    return records
