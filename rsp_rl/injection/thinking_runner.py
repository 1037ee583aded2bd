"""What a model runner of vLLM keeps and does for requests that think, whichever runner it is.

A mix-in, which `thinking_runner_v1` and `thinking_runner_v2` fit to vLLM's two runners. It knows
requests and positions; where they stand in a batch the adapters tell.

After vLLM has embedded the tokens of a step, rows of its buffer are overwritten: those of *every*
scheduled position that has a thought, so that what is computed again after a preemption, or in
pieces, is what it was. Before vLLM samples, laws make the next tokens of those requests that are
thinking; what the sampler makes of them does not count, and where it would count for nobody it need
not be asked. Requests without a law are as vLLM alone would have them.

To the embeddings of a prompt whose soft prompt is added to its tokens, rows are added in the same
place (`rsp_rl.injection.added_rows`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import Any
from weakref import ref

import torch
from vllm.model_executor.layers.vocab_parallel_embedding import (
    ParallelLMHead,
    VocabParallelEmbedding,
)
from vllm.sampling_params import SamplingParams
from vllm.tokenizers import cached_tokenizer_from_config
from vllm.v1.core.sched.output import NewRequestData, SchedulerOutput

from rsp_rl.basics.errors import ConfigError
from rsp_rl.injection.added_rows import AddedRows, Scheduled
from rsp_rl.injection.thinking_engine import most_bytes
from rsp_rl.thoughts.embedding import TableEmbedding
from rsp_rl.thoughts.host import sent
from rsp_rl.thoughts.law import InputLaw
from rsp_rl.thoughts.phases import Phase
from rsp_rl.thoughts.record import ThoughtRecord
from rsp_rl.thoughts.replay import replay_scores
from rsp_rl.thoughts.rows import Rows
from rsp_rl.thoughts.settings import EXTRA_ARG, SO_FAR, Thinking
from rsp_rl.thoughts.stepping import Thinker, heard, step
from rsp_rl.thoughts.table import Entry, ThoughtTable

#: Sets of masked ids whose tensors are kept for later requests.
_MOST_MASKS = 16


class ThinkingRunner:
    """Before a runner in the order of bases.

    Attributes:
        thoughts: Requests with a law, and their records.
        added_rows: Those of requests whose soft prompt is added to their tokens.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.thoughts = ThoughtTable(self.device, most_bytes(self.vllm_config))
        self.added_rows = AddedRows()
        self._hidden_ND: torch.Tensor | None = None
        self._masks: dict[frozenset[int], torch.Tensor] = {}

    def _come_and_go(self, scheduler_output: SchedulerOutput) -> None:
        """Requests of a step that begins.

        One that V2 gets anew after a preemption has its thoughts.
        """
        self.added_rows.update(scheduler_output.finished_req_ids)
        for request in scheduler_output.finished_req_ids:
            self.thoughts.finish(request)
        for new in scheduler_output.scheduled_new_reqs:
            if asks(new) and not self._is_known(new):
                before = self._before(new)
                entry = self._entry(new, len(before) if before is not None else 0)
                self.thoughts.begin(new.req_id, entry)
                if before is not None:
                    entry.thinker.phase.took_before(before.emitted_N.tolist())
                    self.thoughts.add_before(entry, before)

    def _write_inputs(self, inputs_TD: torch.Tensor, scheduled: Sequence[Scheduled]) -> None:
        """Added rows and thoughts into a step's inputs, in place.

        Args:
            inputs_TD: Its tokens, embedded, [T, d].
            scheduled: What is in the step.
        """
        self.added_rows.add(inputs_TD, scheduled)
        self._overlay(inputs_TD, scheduled)

    def _sampled(
        self,
        rows: Sequence[tuple[int, Entry]],
        logits: torch.Tensor,
        sampler: Callable[[], Any],
        *,
        asked: bool,
        alone: bool = False,
    ) -> Any:
        """Laws make the tokens of those that think, vLLM all others.

        Args:
            rows: As `_due` gives them, at least one.
            logits: Of the batch, [B, V], in the model's dtype.
            sampler: Gives what vLLM makes of the logits; those tokens of it that laws make, with
                their log-probs and ranks, are written over.
            asked: Whether log-probs are.
            alone: Whether nobody reads the logits but laws.

        Returns:
            What the sampler gave.
        """
        ours = [(row, entry) for row, entry in rows if self._is_ours(entry)]
        others = [(row, entry) for row, entry in rows if not self._is_ours(entry)]
        of_ours_NV = self._logits(ours, logits, copied=not alone)
        # vLLM's sampler works in place.
        watch = any(entry.thinker.phase.watches_entropy for _, entry in others)
        of_others_NV = self._logits(others, logits, copied=True) if watch else logits[:0]

        ids, log_probs_N = self._step(ours, of_ours_NV, asked)
        output = sampler()
        _overwrite(output, [row for row, _ in ours], ids, log_probs_N, of_ours_NV)
        self._hear(others, output.sampled_token_ids, of_others_NV)
        return output

    # What is asked of a request.

    def _is_known(self, new: NewRequestData) -> bool:
        entry = self.thoughts.requests.get(new.req_id)
        return entry is not None and entry.key == new.sampling_params.extra_args[EXTRA_ARG]["key"]

    def _before(self, new: NewRequestData) -> Rows | None:
        """What an output that goes on has already, if it is one."""
        encoded = new.sampling_params.extra_args[EXTRA_ARG].get(SO_FAR)
        return None if encoded is None else ThoughtRecord.from_bytes(encoded).rows.to(self.device)

    def _entry(self, new: NewRequestData, made: int) -> Entry:
        params = new.sampling_params
        content = params.extra_args[EXTRA_ARG]
        thinking = Thinking.from_dict(content)
        end = () if params.eos_token_id is None else (params.eos_token_id,)
        stops = (*end, *(params.stop_token_ids or ()))
        if thinking.phases.cold_abort and not stops:
            raise ConfigError(
                "law.compat=cold_abort ends an output with a token, and this model has none"
            )
        texts = thinking.phases.begin_text or thinking.phases.end_text
        decode = self._decode if texts else None
        prompt = new.prompt_token_ids if new.prompt_token_ids is not None else new.prompt_embeds
        return Entry(
            key=content["key"],
            thinker=Thinker(thinking.law, Phase(thinking.phases, stops, decode), thinking.seed),
            start=len(prompt) - made,
            masked=self._masked(params),
            stop_ids=stops,
        )

    def _masked(self, params: SamplingParams) -> torch.Tensor | None:
        """Ids that are kept out of an output, which a law must not see either; one tensor each."""
        ids = frozenset(params.logit_bias or ())
        if not ids:
            return None
        if ids not in self._masks:
            if len(self._masks) == _MOST_MASKS:
                self._masks.clear()  # who has one of them keeps it
            self._masks[ids] = self._index(sorted(ids))
        return self._masks[ids]

    @cached_property
    def _decode(self) -> Callable[[list[int]], str]:
        return cached_tokenizer_from_config(self.model_config).decode

    @cached_property
    def _embedding(self) -> TableEmbedding:
        tables = [
            module
            for module in self.get_model().modules()
            if isinstance(module, VocabParallelEmbedding) and not isinstance(module, ParallelLMHead)
        ]
        # Kept, it would outlive vLLM's `shutdown`.
        table = ref(tables[0])

        def look_up(ids: torch.Tensor) -> torch.Tensor:
            rows = self.model.embed_input_ids(ids.flatten())
            return rows.unflatten(0, ids.shape)

        return TableEmbedding(look_up, lambda: table().weight)

    # A step.

    def _due(
        self, requests: Sequence[str], discarded: Sequence[bool], positions: Sequence[int]
    ) -> list[tuple[int, Entry]]:
        """Rows of the batch whose next token counts, of requests with a law.

        Args:
            requests: Of the batch, by row.
            discarded: Where the prompt is not all there yet, so that what is sampled is not kept.
            positions: Absolute, of the tokens that are sampled.
        """
        found = []
        for row, request in enumerate(requests):
            entry = self.thoughts.requests.get(request)
            if entry is None or discarded[row]:
                continue
            if not entry.ended and positions[row] != entry.position:
                raise RuntimeError(
                    f"vLLM samples position {positions[row]} of a request whose thoughts are at "
                    f"{entry.position}"
                )
            found.append((row, entry))
        return found

    @staticmethod
    def _is_ours(entry: Entry) -> bool:
        phase = entry.thinker.phase
        return entry.ended or phase.thinking or phase.forced is not None

    def _logits(
        self, rows: Sequence[tuple[int, Entry]], logits: torch.Tensor, *, copied: bool
    ) -> torch.Tensor:
        """Of some rows, float32, without the tokens that their laws must not see."""
        places = [row for row, _ in rows]
        every = places == list(range(len(logits)))
        made_NV = logits if every and not copied else logits[self._index(places)]
        made_NV = made_NV.float()
        masks = {id(entry.masked): entry.masked for _, entry in rows if entry.masked is not None}
        alike = all(id(entry.masked) in masks for _, entry in rows) and len(masks) == 1
        for name, masked in masks.items():
            if alike:
                made_NV.index_fill_(1, masked, -torch.inf)
            else:
                own = [at for at, (_, entry) in enumerate(rows) if id(entry.masked) == name]
                made_NV[self._index(own)[:, None], masked] = -torch.inf
        return made_NV

    def _step(
        self, rows: Sequence[tuple[int, Entry]], logits_NV: torch.Tensor, asked: bool
    ) -> tuple[list[int], torch.Tensor | None]:
        """The next tokens, and their log-probs if they are asked for."""
        log_probs_N = logits_NV.new_zeros(len(rows)) if asked else None
        entries = [entry for _, entry in rows]
        going = [at for at, entry in enumerate(entries) if not entry.ended]
        hidden_ND = self._hidden_ND
        if len(going) < len(entries):
            logits_NV = logits_NV[self._index(going)]
        if hidden_ND is not None:
            hidden_ND = hidden_ND[self._index([rows[at][0] for at in going])]
        done = step(
            [entries[at].thinker for at in going],
            [entries[at].position for at in going],
            logits_NV,
            self._embedding,
            hidden_ND,
        )
        for made in done.made:
            owners = [entries[going[at]] for at in made.members]
            self.thoughts.add(owners, made)
            if log_probs_N is not None:
                own_NV = logits_NV
                if len(made.members) < len(logits_NV):
                    own_NV = logits_NV[self._index(made.members)]
                scores = _scores(owners[0].law, made.rows, own_NV, self._embedding)
                log_probs_N[self._index([going[at] for at in made.members])] = scores
        ids = [entry.stop_ids[0] if entry.ended else entry.ids[-1] for entry in entries]
        return ids, log_probs_N

    def _hear(
        self,
        rows: Sequence[tuple[int, Entry]],
        sampled: torch.Tensor,
        logits_NV: torch.Tensor,
    ) -> None:
        """Tell phases what the sampler made."""
        if not rows:
            return
        tokens = sampled[self._index([row for row, _ in rows]), 0].tolist()
        if not len(logits_NV):  # nobody looks at them
            logits_NV = logits_NV.new_empty(len(rows), 0)
        for at in heard([entry.thinker for _, entry in rows], tokens, logits_NV):
            rows[at][1].ended = True
        for (_, entry), token in zip(rows, tokens, strict=True):
            entry.sampled(token)

    def _overlay(self, inputs_TD: torch.Tensor, scheduled: Iterable[Scheduled]) -> None:
        places: dict[InputLaw, list[tuple[Entry, int, int]]] = {}
        for request, first, end, offset in scheduled:
            entry = self.thoughts.requests.get(request)
            if entry is None:
                continue
            found = entry.places(first, end)
            if found:
                own = places.setdefault(entry.law, [])
                own += [(entry, offset + position, place) for position, place in found]
        for law, members in places.items():
            rows = self.thoughts.read(members[0][0], [place for _, _, place in members])
            made_ND = law.embed(rows, self._embedding).to(inputs_TD.dtype)
            inputs_TD.index_copy_(0, self._index([at for _, at, _ in members]), made_ND)

    def _needs_hidden(self) -> bool:
        return any(entry.law.needs_hidden for entry in self.thoughts.requests.values())

    def _index(self, numbers: Sequence[int]) -> torch.Tensor:
        return sent(numbers, self.device)


def asks(new: NewRequestData) -> bool:
    """Whether a request has a law."""
    params: SamplingParams | None = new.sampling_params
    return params is not None and EXTRA_ARG in (params.extra_args or ())


def _scores(
    law: InputLaw, rows: Rows, logits_NV: torch.Tensor, embedding: TableEmbedding
) -> torch.Tensor:
    """Log-probs of positions that are each of another request; 0 where nobody chose."""
    temperature = getattr(law, "temperature", 1.0)
    record = ThoughtRecord(law, 0, 0, rows)
    return replay_scores(record, logits_NV, embedding, temperature).log_probs_T


def _overwrite(
    output: Any,
    rows: Sequence[int],
    ids: Sequence[int],
    log_probs_N: torch.Tensor | None,
    logits_NV: torch.Tensor,
) -> None:
    """Put the laws' tokens where vLLM has its own, their log-probs and ranks too."""
    if not rows:
        return
    sampled = output.sampled_token_ids
    at_N = sent(rows, sampled.device)
    ids_N = sent(ids, sampled.device, sampled.dtype)
    sampled[at_N, 0] = ids_N
    theirs = output.logprobs_tensors
    if log_probs_N is not None and theirs is not None:
        theirs.logprob_token_ids[at_N, 0] = ids_N.to(theirs.logprob_token_ids.dtype)
        theirs.logprobs[at_N, 0] = log_probs_N.to(theirs.logprobs.dtype)
        own_N1 = logits_NV.gather(1, ids_N.long()[:, None])
        rank_N = (logits_NV >= own_N1).sum(1)
        theirs.selected_token_ranks[at_N] = rank_N.to(theirs.selected_token_ranks.dtype)
