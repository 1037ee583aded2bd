"""The reference engine's loop for requests with a law: one token of all of them after the other.

`transformers`' own `generate` feeds tokens back; here the laws say what is fed back, each through
`rsp_rl.thoughts.stepping`, and the engine's own processors sample all that is not a law's. Plain
requests may be in the same batch, and get what they get without it.

Shape suffixes: `_BT` batch and padded prompt, `_BTD` the same with the hidden size, `_BV` logits,
`_BD` hidden states or inputs.
"""

from __future__ import annotations

import inspect
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from transformers import LogitsProcessorList, StopStringCriteria

from rsp_rl.inference.requests import Request
from rsp_rl.thoughts.embedding import TableEmbedding
from rsp_rl.thoughts.phases import Phase
from rsp_rl.thoughts.record import ThoughtRecord
from rsp_rl.thoughts.rows import Kind, Rows, concatenate
from rsp_rl.thoughts.stepping import Thinker, heard, step

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass
class Output:
    """What has become of a request.

    Attributes:
        tokens: Generated so far, the one that ended them included.
        thoughts: What stood at their positions, of a request with a law.
        aborted: Whether a cold stop after thinking ended it (`compat=cold_abort`).
    """

    tokens: list[int]
    thoughts: ThoughtRecord | None = None
    aborted: bool = False


@dataclass
class _Row:
    """A request of a batch, on its way."""

    request: Request
    thinker: Thinker | None
    tokens: list[int] = field(default_factory=list)
    parts: list[Rows] = field(default_factory=list)
    ended: bool = False
    aborted: bool = False

    @property
    def position(self) -> int:
        """Absolute, of the token that comes next."""
        return len(self.request.token_ids) + len(self.tokens)

    def output(self, none: Rows) -> Output:
        thinking = self.request.thinking
        if thinking is None:
            return Output(self.tokens)
        record = ThoughtRecord(
            thinking.law,
            thinking.seed,
            len(self.request.token_ids),
            concatenate(self.parts) if self.parts else none,
        )
        record.check(self.tokens)
        # At its last token it was cut off anyway, which is what vLLM says of it.
        aborted = self.aborted and len(self.tokens) < self.request.sampling["max_tokens"]
        return Output(self.tokens, record, aborted)


class ThinkingLoop:
    """A model, its tokens, and how the batches of one engine are generated.

    Args:
        network: Without gradients.
        tokenizer: The model's.
        unknown: Ids without a token, see `unknown_tokens`.
    """

    def __init__(
        self, network: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, unknown: Sequence[int]
    ) -> None:
        self._network = network
        self._tokenizer = tokenizer
        self._unknown = list(unknown)
        self._module = network.get_input_embeddings()
        self._embedding = TableEmbedding.of(self._module)
        self._last_alone = "logits_to_keep" in inspect.signature(network.forward).parameters

    @torch.no_grad()  # not `inference_mode`, whose tensors a trainer cannot score
    def generate(
        self,
        batch: Sequence[Request],
        embeds_BTD: torch.Tensor,
        mask_BT: torch.Tensor,
        processors: LogitsProcessorList,
        stop_tokens: Collection[int],
    ) -> list[Output]:
        """Generate a batch to its longest output.

        Args:
            batch: Requests of the same sampling parameters, with laws or without.
            embeds_BTD: Their prompts, padded on the left, soft prompts in place.
            mask_BT: Where they are not padding.
            processors: Of scores that are then taken the largest of; called once a token for the
                whole batch, so that each row's draws are those of its number in the output.
            stop_tokens: That end an output.

        Raises:
            ConfigError: If a law does not fit the model.
        """
        rows = [_Row(request, self._thinker(request, stop_tokens)) for request in batch]
        sampling = batch[0].sampling
        stopping = (
            StopStringCriteria(self._tokenizer, sampling["stop"]) if sampling["stop"] else None
        )
        with_hidden = any(row.thinker and row.thinker.law.needs_hidden for row in rows)
        ids_BT = mask_BT.new_empty(len(batch), 0)
        inputs_BTD, cache = embeds_BTD, None
        for _ in range(sampling["max_tokens"]):
            logits_BV, hidden_BD, cache = self._forward(inputs_BTD, mask_BT, cache, with_hidden)
            sampled = processors(ids_BT, logits_BV.clone()).argmax(1).tolist()
            logits_BV[:, self._unknown] = -torch.inf
            tokens, inputs_BD = self._step(rows, sampled, logits_BV, hidden_BD)
            ids_BT = torch.cat([ids_BT, tokens[:, None]], dim=1)
            by_text = stopping(ids_BT, logits_BV).tolist() if stopping else [False] * len(rows)
            for row, stopped in zip(rows, by_text, strict=True):
                row.ended = row.ended or stopped or row.aborted or row.tokens[-1] in stop_tokens
            if all(row.ended for row in rows):
                break
            inputs_BTD = inputs_BD[:, None]
            mask_BT = torch.cat([mask_BT, mask_BT.new_ones(len(batch), 1)], dim=1)
        return [row.output(self._no_rows(row)) for row in rows]

    def _thinker(self, request: Request, stop_tokens: Collection[int]) -> Thinker | None:
        thinking = request.thinking
        if thinking is None:
            return None
        thinking.law.check(self._module.weight.shape[0])
        phase = Phase(thinking.phases, list(stop_tokens), self._tokenizer.decode)
        return Thinker(thinking.law, phase, thinking.seed)

    def _forward(
        self,
        inputs_BTD: torch.Tensor,
        mask_BT: torch.Tensor,
        cache: object,
        with_hidden: bool,
    ) -> tuple[torch.Tensor, torch.Tensor | None, object]:
        """Logits, float32, and hidden states of the last position."""
        positions_BT = (mask_BT.cumsum(1) - 1).clamp_min(0)[:, -inputs_BTD.shape[1] :]
        outputs = self._network(
            inputs_embeds=inputs_BTD,
            attention_mask=mask_BT,
            position_ids=positions_BT,
            past_key_values=cache,
            use_cache=True,
            output_hidden_states=with_hidden,
            **({"logits_to_keep": 1} if self._last_alone else {}),
        )
        hidden_BD = outputs.hidden_states[-1][:, -1] if with_hidden else None
        return outputs.logits[:, -1].float(), hidden_BD, outputs.past_key_values

    def _step(
        self,
        rows: Sequence[_Row],
        sampled: list[int],
        logits_BV: torch.Tensor,
        hidden_BD: torch.Tensor | None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The next token of every row, [B], and its input, [B, d]; of ended rows any."""
        active = [at for at, row in enumerate(rows) if row.thinker and not row.ended]
        thinkers = [rows[at].thinker for at in active]
        logits_NV = logits_BV[active]
        done = step(
            thinkers,
            [rows[at].position for at in active],
            logits_NV,
            self._embedding,
            None if hidden_BD is None else hidden_BD[active],
        )
        drawn = [
            sampled[at] if token is None else None
            for at, token in zip(active, done.emitted, strict=True)
        ]
        for number in heard(thinkers, drawn, logits_NV):
            rows[active[number]].aborted = True
        tokens = list(sampled)
        for at, token in zip(active, done.emitted, strict=True):
            if token is not None:
                tokens[at] = token
            else:
                single = Rows.tokens(Kind.TOKEN, [sampled[at]], like=self._no_rows(rows[at]))
                rows[at].parts.append(single)
        tokens_B = torch.tensor(tokens, device=logits_BV.device)
        inputs_BD = self._embedding.rows(tokens_B)
        for made in done.made:
            law = thinkers[made.members[0]].law
            for number, member in enumerate(made.members):
                rows[active[member]].parts.append(made.rows[number : number + 1])
            mixed = [n for n, kind in enumerate(made.kinds) if not Kind(kind).is_token]
            if mixed:
                places = [active[made.members[n]] for n in mixed]
                mixed_ND = law.embed(made.rows[mixed], self._embedding)
                inputs_BD[places] = mixed_ND.to(inputs_BD.dtype)
        for row, token in zip(rows, tokens, strict=True):
            if not row.ended:
                row.tokens.append(token)
        return tokens_B, inputs_BD

    def _no_rows(self, row: _Row) -> Rows:
        """None, as wide as its law's are."""
        if row.thinker is None:
            law_slots, dense = 1, False
        else:
            law_slots, dense = row.thinker.law.slots, row.thinker.law.dense
        weight = self._module.weight
        return Rows.of_kind(
            Kind.TOKEN,
            torch.empty(0, law_slots, dtype=torch.int32, device=weight.device),
            torch.empty(0, law_slots, device=weight.device),
            weight.new_empty(0, weight.shape[1]) if dense else None,
        )
