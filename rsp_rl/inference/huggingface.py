"""The reference engine: `transformers`' own `generate`, with soft prompts as input embeddings.

Slow and simple: batches of prompts padded on the left, each generated to its longest output. It
stands beside vLLM so that the two can be compared, and runs where vLLM does not. Batches with a law
in them have a loop of their own, `rsp_rl.inference.thinking_loop`.

Shape suffixes: `_BT` batch and padded prompt, `_BTD` the same with the hidden size, `_BV` logits.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby, islice
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from transformers import (
    AutoModelForCausalLM,
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    RepetitionPenaltyLogitsProcessor,
    StopStringCriteria,
    SuppressTokensLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from rsp_rl.inference.requests import Completion, EngineOptions, Request, has_gpu
from rsp_rl.inference.soft_prompts import Comparator, DrawnSoftPrompts, HostModel, SoftPrompts
from rsp_rl.inference.thinking_loop import Output, ThinkingLoop
from rsp_rl.injection.hook import SoftPromptInjector, flat_positions, sums_of
from rsp_rl.models.folder import load_tokenizer
from rsp_rl.models.stop_tokens import known_stop_tokens
from rsp_rl.models.vocabulary import unknown_tokens
from rsp_rl.placement.prompt import placeholder_id

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class HuggingFaceEngine:
    """A model in this process; see `Engines`.

    Args:
        model: Hugging Face folder.
        options: `dtype`, and `max_num_seqs` as the batch size, apply.
        comparator: What the vectors of soft prompts come from; RSP's own draw if `None`.

    Attributes:
        host: The model, without gradients.
        soft_prompts: What the vectors come from.
    """

    def __init__(
        self, model: Path, options: EngineOptions, comparator: Comparator | None = None
    ) -> None:
        self._tokenizer = load_tokenizer(model)
        self._stop_tokens = known_stop_tokens(model, self._tokenizer)
        self._batch_size = options.max_num_seqs
        network = AutoModelForCausalLM.from_pretrained(
            model, dtype=getattr(torch, options.resolved_dtype())
        ).eval()
        network.to("cuda" if has_gpu() else "cpu").requires_grad_(False)
        self._unknown = unknown_tokens(network.config, self._tokenizer)
        # The model's own defaults (sampling, penalties) are not what requests ask for.
        network.generation_config = GenerationConfig()
        self._injector = SoftPromptInjector(network.get_input_embeddings())
        self._loop = ThinkingLoop(network, self._tokenizer, self._unknown)
        self.host = HostModel(model, network, self._tokenizer)
        self.soft_prompts: SoftPrompts = (
            comparator.start(self.host) if comparator else DrawnSoftPrompts(self.host.hidden_size)
        )

    def generate(self, requests: Iterable[Request]) -> Iterator[list[Completion]]:
        """See `Engines.generate`; a batch holds requests of the same sampling parameters."""
        for _, alike in groupby(requests, key=_parameters):
            while batch := list(islice(alike, self._batch_size)):
                rows = zip(batch, self._outputs(batch), strict=True)
                yield [self._completion(request, output) for request, output in rows]

    def _outputs(self, batch: list[Request]) -> list[Output]:
        if not any(request.thinking for request in batch):
            return [Output(tokens) for tokens in self.generate_tokens(batch)]
        with torch.no_grad():
            embeds_BTD, mask_BT = self._embed(batch)
        processors = _processors(batch, self._unknown)
        return self._loop.generate(batch, embeds_BTD, mask_BT, processors, self._stops(batch[0]))

    @torch.inference_mode()
    def generate_tokens(self, batch: list[Request]) -> list[list[int]]:
        """Generated tokens of each request, the one that ended them included.

        Args:
            batch: Requests of the same sampling parameters, as many as fit into memory.
        """
        sampling = batch[0].sampling
        stop_tokens = self._stops(batch[0])
        embeds_BTD, mask_BT = self._embed(batch)
        outputs = self.host.network.generate(
            inputs_embeds=embeds_BTD,
            attention_mask=mask_BT,
            logits_processor=_processors(batch, self._unknown),
            stop_strings=sampling["stop"] or None,
            tokenizer=self._tokenizer,
            generation_config=GenerationConfig(
                max_new_tokens=sampling["max_tokens"],
                eos_token_id=sorted(stop_tokens),
                pad_token_id=placeholder_id(self._tokenizer),
                do_sample=False,  # `_SeededSampling` does
            ),
        )
        ends = _ends_by_text(outputs, sampling["stop"], self._tokenizer)
        return [
            _until_stop(tokens[:end], stop_tokens)
            for tokens, end in zip(outputs.tolist(), ends, strict=True)
        ]

    def _stops(self, request: Request) -> set[int]:
        """Tokens that end an output."""
        return self._stop_tokens | set(request.sampling["stop_token_ids"])

    def _embed(self, batch: list[Request]) -> tuple[torch.Tensor, torch.Tensor]:
        """Embeddings of the prompts, padded on the left, with H in place; and their mask."""
        lengths = [len(request.token_ids) for request in batch]
        width, device = max(lengths), self.host.network.device
        ids_BT = torch.full((len(batch), width), placeholder_id(self._tokenizer), device=device)
        mask_BT = torch.zeros_like(ids_BT)
        for row, request in enumerate(batch):
            ids_BT[row, width - lengths[row] :] = torch.tensor(request.token_ids)
            mask_BT[row, width - lengths[row] :] = 1
        placed = [(i, request) for i, request in enumerate(batch) if request.record]
        records = [request.record for _, request in placed]
        starts = [row * width + width - lengths[row] for row, _ in placed]
        rows = [self.soft_prompts.rows(request) for _, request in placed]
        rows_KD = torch.cat(rows) if rows else torch.empty(0, self.host.hidden_size)
        with self._injector.inject(flat_positions(records, starts), rows_KD, sums_of(records)):
            return self.host.network.get_input_embeddings()(ids_BT), mask_BT

    def _completion(self, request: Request, output: Output) -> Completion:
        tokens = output.tokens
        text = self._tokenizer.decode(tokens, skip_special_tokens=True)
        cuts = [text.find(stop) for stop in request.sampling["stop"] if stop in text]
        ended = output.aborted or (bool(tokens) and tokens[-1] in self._stops(request))
        return Completion(
            request.number,
            text[: min(cuts, default=None)],
            len(tokens),
            "stop" if cuts or ended else "length",
            output.thoughts,
        )

    def close(self) -> None:
        """See `Engines.close`."""
        del self.host, self.soft_prompts, self._loop
        if has_gpu():
            torch.cuda.empty_cache()


def _ends_by_text(
    outputs_BT: torch.Tensor, stop: list[str], tokenizer: PreTrainedTokenizerBase
) -> list[int | None]:
    """Tokens of each row up to its first stop string: padding follows while others go on."""
    ends: list[int | None] = [None] * len(outputs_BT)
    if stop:
        stopping = StopStringCriteria(tokenizer, stop)
        for count in range(1, outputs_BT.shape[1] + 1):
            stopped = stopping(outputs_BT[:, :count], None).tolist()
            ends = [
                count if end is None and now else end
                for end, now in zip(ends, stopped, strict=True)
            ]
    return ends


def _until_stop(tokens: list[int], stop_tokens: set[int]) -> list[int]:
    """One row of a batch: ends at its first stop token, whatever padding follows."""
    end = next((i + 1 for i, token in enumerate(tokens) if token in stop_tokens), None)
    return tokens[:end]


def _parameters(request: Request) -> tuple:
    """What all requests of a batch have in common."""
    sampling = request.sampling
    names = ("temperature", "top_p", "top_k", "max_tokens")
    lists = (tuple(sampling[name]) for name in ("stop", "stop_token_ids"))
    return *(sampling[name] for name in names), *lists, sampling.get("repetition_penalty")


def _processors(batch: list[Request], unknown: Sequence[int] = ()) -> LogitsProcessorList:
    """Penalty, temperature, top-k, top-p in vLLM's order, then the draw; if greedy, the first.

    Before them all, tokens without a text are kept out.
    """
    sampling, processors = batch[0].sampling, LogitsProcessorList()
    if unknown:
        processors.append(SuppressTokensLogitsProcessor(list(unknown)))
    if penalty := sampling.get("repetition_penalty"):
        processors.append(RepetitionPenaltyLogitsProcessor(penalty))
    if batch[0].is_greedy:
        return processors
    processors.append(TemperatureLogitsWarper(float(sampling["temperature"])))
    if sampling["top_k"] > 0:
        processors.append(TopKLogitsWarper(sampling["top_k"]))
    if sampling["top_p"] < 1:
        processors.append(TopPLogitsWarper(sampling["top_p"]))
    processors.append(_SeededSampling([request.sampling["seed"] for request in batch]))
    return processors


class _SeededSampling(LogitsProcessor):
    """Samples each row with its own seed, whatever batch it is in.

    Gumbel-max: the largest of logits plus Gumbel noise is a sample of their softmax. `generate`
    then takes the largest, as if it were greedy; its own sampling has one generator for all rows.
    """

    def __init__(self, seeds: list[int]) -> None:
        self._generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Scores with noise, [B, V]."""
        noise_BV = torch.stack(
            [
                torch.empty(scores.shape[1]).exponential_(generator=generator).log_().neg_()
                for generator in self._generators
            ]
        )
        return scores.float() + noise_BV.to(scores.device)
