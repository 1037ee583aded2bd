"""A Hugging Face model that reads stored outputs, under the very prompts and draws of their making.

Prompts and soft prompts are made again from the evaluation's `how.json`; each prompt's hash is
compared with the sample's. Outputs are stored as text and encoded anew: where a model chose an
unusual tokenisation of its text, the tokens differ from those it generated (`Trajectory.is_exact`
tells; BPE models rarely do).

One sequence at a time: no padding that could disturb positions, and memory for one.

Shape suffixes: `_T` prompt and output, `_NV` generated tokens and vocabulary, `_V` one of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

import torch
from transformers import AutoModelForCausalLM, PreTrainedTokenizerBase

from rsp_rl.analysis.conditions import Condition
from rsp_rl.basics.errors import ConfigError, RunFolderError
from rsp_rl.data.benchmarks import Problem
from rsp_rl.dials.options import RspOptions
from rsp_rl.evaluation.folder import Sample
from rsp_rl.evaluation.protocol import Protocol
from rsp_rl.evaluation.questions import Question, questions
from rsp_rl.inference.model_law import name_table
from rsp_rl.inference.requests import Request, has_gpu
from rsp_rl.injection.hook import SoftPromptInjector, draw_rows, flat_positions, sums_of
from rsp_rl.models.folder import check_model, load_tokenizer, resolve_model_folder
from rsp_rl.models.weights import weights_digest
from rsp_rl.thoughts.laws.token import Token


@dataclass(frozen=True)
class Trajectory:
    """A stored sample with its prompt and its draw.

    Attributes:
        problem: What was asked.
        sample: What was answered.
        request: Prompt tokens and soft prompt.
        output_ids: The answer's tokens, without the one that ended it.
        spans: First and last (exclusive) character of each of them in the answer.
        forced: With a law, number of the first token that was forced, where what is read ends;
            None if none was.
        is_unread: Whether its place in the text is unknown, so that there is nothing to be read.
    """

    problem: Problem
    sample: Sample
    request: Request
    output_ids: list[int]
    spans: list[tuple[int, int]]
    forced: int | None = None
    is_unread: bool = False

    @property
    def generated(self) -> int:
        """N, tokens that the model chose: the answer's, and the one that ended it."""
        ended = self.sample["finish_reason"] == "stop" and self.forced is None
        return len(self.output_ids) + ended

    @property
    def is_exact(self) -> bool:
        """Whether the encoded text has as many tokens as were generated."""
        return self.generated == (self.sample["tokens"] if self.forced is None else self.forced)


class ForcedModel:
    """The model of an evaluation, with the tokenizer that its prompts were made by.

    Args:
        condition: The evaluation.
        model: Hugging Face folder or name on the hub; the evaluation's own by default.
        dtype: What it computes in; the evaluation's own by default.
        attention: transformers' name of an attention implementation.
        thoughts: Whether an evaluation with a law is read by its recorded thoughts.

    Attributes:
        network: The model.

    Raises:
        ConfigError: If the model cannot be used, or its embeddings cannot hold a soft prompt.
        RunFolderError: If it is not the evaluation's model.
    """

    def __init__(
        self,
        condition: Condition,
        *,
        model: str | None = None,
        dtype: str | None = None,
        attention: str = "sdpa",
        thoughts: bool = False,
    ) -> None:
        self._condition = condition
        if (comparator := condition.protocol.comparator) is not None:
            raise ConfigError(
                f"{condition.root} has soft prompts of {comparator.method}, which are not drawn "
                "and cannot be drawn again; this analysis is for RSP and the baseline"
            )
        law = condition.protocol.law
        if law is not None and law.law.name != Token.name and not thoughts:
            raise ConfigError(
                f"{condition.root} has thoughts of law.name={law.law.name}, which its texts are "
                "not: read as tokens they give other numbers; this analysis is for answers of "
                f"ordinary tokens, without a law or with law.name={Token.name}"
            )
        folder = resolve_model_folder(model or condition.manifest["model"])
        self.config = check_model(folder)
        if weights_digest(folder) != condition.manifest["weights"]:
            raise RunFolderError(
                f"{folder} is not the model that answered in {condition.root} (its weights "
                "differ); give that one with --model"
            )
        self.tokenizer: PreTrainedTokenizerBase = load_tokenizer(folder)
        if not self.tokenizer.is_fast:
            raise ConfigError(
                f"{folder} has a slow tokenizer, which cannot tell which characters a token stands "
                "for; add its tokenizer.json"
            )
        self._draw_dtype = condition.manifest["engine"]["dtype"]
        self.network = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=getattr(torch, dtype or self._draw_dtype),
            attn_implementation=attention,
        ).eval()
        self.network.to("cuda" if has_gpu() else "cpu")
        embedding = self.network.get_input_embeddings()
        self._hidden_size = self.config.get_text_config().hidden_size
        if embedding.weight.shape[1] != self._hidden_size:
            raise ConfigError(
                f"{folder}: its embedding table is {embedding.weight.shape[1]} wide, the hidden "
                f"states that soft prompts are drawn for {self._hidden_size}; models that project "
                "their embeddings are not supported"
            )
        self._injector = SoftPromptInjector(embedding)
        name_table(folder)

    def questions(self, benchmark: str, *, soft_prompts: bool = True) -> Iterator[Question]:
        """What the evaluation asked.

        Args:
            benchmark: One of the condition's.
            soft_prompts: False asks each problem once, without any.
        """
        protocol, plan = self._protocol(), self._condition.plan(benchmark)
        if protocol.law is not None:
            # It has no part in a prompt; without it, several greedy answers would be refused.
            plan = replace(plan, temperature=1.0)
            protocol = replace(protocol, law=None, benchmarks=(plan,))
        if not soft_prompts:
            plan = replace(plan, samples=1)
            protocol = replace(protocol, rsp=RspOptions(length=0), benchmarks=(plan,))
        asked = self._condition.problems(benchmark).values()
        problems = [Problem(benchmark, p["id"], p["question"], p["gold"]) for p in asked]
        return questions(
            *(plan, problems, protocol, self.tokenizer), dtype=self._draw_dtype, context=None
        )

    def _protocol(self) -> Protocol:
        """The protocol with the mu_E and sigma_E of the evaluation's draws."""
        protocol, law = self._condition.protocol, self._condition.manifest.get("law")
        if not protocol.rsp.enabled:
            return protocol
        if not law:
            raise RunFolderError(
                f"{self._condition.step.manifest} lacks 'law', without which the draws cannot be "
                "made again; run the evaluation's command again to add it"
            )
        return replace(protocol, rsp=replace(protocol.rsp, **law))

    def asked(
        self, benchmark: str, *, problems: int | None = None, samples: int | None = None
    ) -> Iterator[tuple[Question, Sample]]:
        """What the evaluation asked, with what was answered.

        Args:
            benchmark: One of the condition's.
            problems: Only the first so many.
            samples: Only the first so many of each.

        Raises:
            RunFolderError: If a prompt is not the one that was answered.
        """
        groups = self._condition.groups(benchmark)
        chosen = set(list(self._condition.problems(benchmark))[:problems])
        for question in self.questions(benchmark):
            left_out = samples is not None and question.sample >= samples
            if question.problem.id not in chosen or left_out:
                continue
            sample = groups[question.problem.id][question.sample]
            if question.prompt_hash != sample["prompt_hash"]:
                raise RunFolderError(
                    f"{self._condition.root}: problem {question.problem.id!r} was asked with "
                    "another prompt than this tokenizer and template make now; evaluate again"
                )
            yield question, sample

    def trajectories(
        self, benchmark: str, *, problems: int | None = None, samples: int | None = None
    ) -> Iterator[Trajectory]:
        """Stored outputs, encoded, with what they were answers to; see `asked`.

        Those of a law of ordinary tokens as far as their first forced token.
        """
        for question, sample in self.asked(benchmark, problems=problems, samples=samples):
            text, forced = sample["output"], None
            if sample.get("law") and sample["thoughts"]["at"]:
                forced = sample["thoughts"]["at"][0]
                text = text_before_forced(sample, self.tokenizer)
            encoded = self.tokenizer(
                text or "", add_special_tokens=False, return_offsets_mapping=True
            )
            yield Trajectory(
                question.problem,
                sample,
                question.request,
                encoded.input_ids,
                [tuple(span) for span in encoded.offset_mapping],
                forced,
                text is None,
            )

    def generated_logits(self, trajectory: Trajectory) -> torch.Tensor:
        """Logits [N, V] that each generated token was chosen by, in the model's dtype."""
        output_ids, kept = trajectory.output_ids, trajectory.generated
        if kept == len(output_ids):
            output_ids = output_ids[:-1]  # nothing was chosen after the last one
        return self.forward(trajectory.request, output_ids, kept)

    @torch.inference_mode()
    def forward(
        self, request: Request, output_ids: list[int], kept: int, **arguments: object
    ) -> torch.Tensor:
        """Logits [kept, V] at the last positions of prompt and output.

        Args:
            request: The prompt.
            output_ids: What follows it.
            kept: How many positions.
            **arguments: Passed on to the model.
        """
        ids_1T = torch.tensor([request.token_ids + output_ids], device=self.network.device)
        with self._soft_prompt(request):
            output = self.network(
                ids_1T, logits_to_keep=kept, use_cache=False, **arguments
            )  # no attention mask: a single sequence has no padding
        return output.logits[0]

    @torch.inference_mode()
    def prompt_embeddings(self, request: Request) -> torch.Tensor:
        """Inputs of a prompt, its soft prompt in place, [T, d]."""
        ids_T = torch.tensor(request.token_ids, device=self.network.device)
        with self._soft_prompt(request):
            return self.network.get_input_embeddings()(ids_T)

    def _soft_prompt(self, request: Request) -> AbstractContextManager[None]:
        records = [request.record] if request.record else []
        positions_K = flat_positions(records, [0] * len(records))
        rows_KD = draw_rows(records, self._hidden_size)
        return self._injector.inject(positions_K, rows_KD, sums_of(records))


def text_before_forced(sample: Sample, tokenizer: PreTrainedTokenizerBase) -> str | None:
    """An output's text as far as its first forced token.

    The same text may have come before by itself; the place is taken whose text before it has as
    many tokens as the record says, or the nearest number of them.

    Args:
        sample: One with a law of ordinary tokens, and something forced.
        tokenizer: The model's.

    Returns:
        None where the forced text is nowhere in the output.
    """
    thoughts, output = sample["thoughts"], sample["output"]
    first = thoughts["at"][0]
    run = [
        thoughts["texts"][str(ids[0])]
        for number, (at, ids) in enumerate(zip(thoughts["at"], thoughts["ids"], strict=True))
        if at == first + number
    ]
    forced = "".join(run)
    places = [place for place in range(len(output)) if output.startswith(forced, place)]
    if not forced or not places:
        return None

    def off(place: int) -> int:
        ids = tokenizer(output[:place], add_special_tokens=False).input_ids
        return abs(len(ids) - first)

    return output[: min(places, key=off)]
