"""Rollout against actor for every law that can be trained, by the numbers of the guard.

vLLM thinks and answers, with soft prompts in half of the rollouts; verl's actor engine makes the
inputs again from the records, scores them, and takes a gradient. A gap is |log p_rollout - log
p_actor|: of tokens, those of mixed neighbours and of NEFTune's noise too, of each of
multiplex's draws, of the tokens in a Gumbel mixture; of soft and
fuzzy thoughts it is the relative error of what the noise was added to.
"""

from __future__ import annotations

import json
import math
import pickle
from collections.abc import Callable, Iterable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, fields
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from parity.actor import Sample, build_engine, engine_config, training_batch
from parity.layouts import ACTOR_LAYOUTS, ActorLayout, RolloutLayout
from parity.measure import relative_error, whole_gradients
from parity.models import LORA_ALPHA, LORA_RANK, Policy
from parity.ranks import run_on_ranks
from parity.report import GRADIENT_TOLERANCE, TOKEN_TOLERANCE, describe
from parity.rollouts import from_json, make_llm, prompts, to_json

if TYPE_CHECKING:
    import torch
    from omegaconf import DictConfig
    from tensordict import TensorDict
    from vllm.v1.engine.llm_engine import LLMEngine

    from rsp_rl.draws.record import SoftPromptRecord
    from rsp_rl.thoughts.law import InputLaw

#: As they are trained (`configs/law`).
LAWS: dict[str, tuple[str, dict[str, Any]]] = {
    "token": ("token", {}),
    "multiplex": ("multiplex", {"k": 3}),
    "multiplex by probability": ("multiplex", {"k": 3, "weighting": "probability"}),
    "gumbel": ("gumbel", {"k": 5, "tau": 0.1, "temperature": 1.0, "top_k": 5, "top_p": 0.95}),
    "soft": ("soft", {}),
    "fuzzy": ("fuzzy", {}),
    "neighbours": ("neighbours", {"rate": 0.7, "share": 0.5}),
    "neftune": ("neftune", {"length": 16}),
}

#: What the actor can have with a law (`rsp_rl.training.thought_support`).
LAYOUTS = [layout for layout in ACTOR_LAYOUTS if layout.strategy == "fsdp2" and layout.ulysses == 1]

#: Most thoughts of a rollout, and what it may have beyond them: a token that is forced, an answer.
THOUGHTS, ANSWER = 12, 4

#: A mean gap that is rounding: of float32, in nats or relative.
MEAN_TOLERANCE = 5e-6


# ---- rollouts -----------------------------------------------------------------------------------


def make_law(name: str, model: Path) -> InputLaw:
    """One of `LAWS` on a model."""
    from rsp_rl.draws.embedding_stats import embedding_stats
    from rsp_rl.thoughts.names import law_from_settings

    law, settings = LAWS[name]
    if law in ("soft", "fuzzy"):
        stats = embedding_stats(model)
        settings = settings | {"rms": math.hypot(stats.mean, stats.std)}
    return law_from_settings(law, settings)


def sample_thoughts(engine: LLMEngine, model: Path, each: int = 16) -> dict[str, list[Sample]]:
    """Rollouts by law, all in one batch; a law that the engine cannot think with has none.

    Args:
        engine: Of an LLM on `model` that can think.
        model: The model whose embedding table gives mu_E and sigma_E.
        each: Of a law, at most 16.
    """
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    from rsp_rl.draws.record import SoftPromptRecord
    from rsp_rl.injection.thinking_engine import check_engine
    from rsp_rl.injection.thinking_prompt import extra_args, new_key, private_prompt
    from rsp_rl.thoughts.phases import Phases
    from rsp_rl.thoughts.record import ThoughtRecord
    from rsp_rl.thoughts.settings import Thinking

    check_engine(engine.vllm_config)
    ranks = engine.vllm_config.parallel_config.tensor_parallel_size
    laws = {name: make_law(name, model) for name in LAWS}
    laws = {name: law for name, law in laws.items() if not (law.needs_all and ranks > 1)}
    pairs = prompts(model)
    # Every other one with a soft prompt.
    rows = [pairs[2 * number + number % 2] for number in range(each)]
    none = SoftPromptRecord(0, 0, 0, 0.0, 1.0, "float32", 0)
    asked: dict[str, tuple[str, int, list[int], SoftPromptRecord]] = {}
    for law_name, law in laws.items():
        for number, (tokens, record) in enumerate(rows):
            # Unequal lengths, so that padded and packed batches differ.
            phases = Phases(max_thoughts=THOUGHTS - 3 * (number % 3), on_cut=(tokens[-1],))
            key, length = new_key(), phases.max_thoughts + ANSWER
            sampling = SamplingParams(
                temperature=1.0,
                max_tokens=length,
                logprobs=0,
                ignore_eos=True,
                output_kind=RequestOutputKind.FINAL_ONLY,
                extra_args=extra_args(Thinking(law, phases, seed=100 + number), key),
            )
            name = f"{law_name} {number}"
            asked[name] = law_name, key, tokens, record or none
            engine.add_request(name, private_prompt(tokens, record, key), sampling)
    outputs = []
    while engine.has_unfinished_requests():
        outputs += [output for output in engine.step() if output.finished]
    outputs.sort(key=lambda output: list(asked).index(output.request_id))
    keys = [key for _, key, *_ in asked.values()]
    encoded, *_ = engine.collective_rpc("take_thoughts", args=(keys,))
    advantages = np.random.default_rng(0).normal(size=len(outputs))
    made: dict[str, list[Sample]] = {name: [] for name in laws}
    for output, record_bytes, advantage in zip(outputs, encoded, advantages, strict=True):
        law_name, _, tokens, record = asked[output.request_id]
        (one,) = output.outputs
        response = list(one.token_ids)
        thoughts = ThoughtRecord.from_bytes(record_bytes).cut(len(response))
        thoughts.check(response)
        old = [place[token].logprob for token, place in zip(response, one.logprobs, strict=True)]
        made[law_name].append(
            Sample(tokens, response, np.array(old), float(advantage), record, thoughts=thoughts)
        )
    return made


def run_laws(layout: RolloutLayout, policy: Policy, file: Path) -> None:
    """Sample with an engine of its own, into a file; for a process that does nothing else."""
    llm = make_llm(layout, policy, async_scheduling=False)
    try:
        made = sample_thoughts(llm.llm_engine, policy.actor_model)
    finally:
        llm.llm_engine.engine_core.shutdown()
    content = {name: [to_json(sample) for sample in samples] for name, samples in made.items()}
    partial = file.with_suffix(".partial")
    partial.write_text(json.dumps(content))
    partial.rename(file)


def load_rollouts(file: Path) -> dict[str, list[Sample]]:
    """What `run_laws` wrote."""
    content = json.loads(file.read_text())
    return {name: [from_json(sample) for sample in samples] for name, samples in content.items()}


# ---- the actor ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class LawGap:
    """How far rollout and actor are apart with a law.

    Attributes:
        tokens: Mean of answers' tokens, nats.
        mean: Of thoughts, see the module.
        max: Likewise.
        flips: Share of thoughts whose likeliest token is another (soft and fuzzy).
        forgotten: Mean of thoughts if the actor had tokens in their place, of those to which that
            makes something.
    """

    tokens: float
    mean: float
    max: float
    flips: float
    forgotten: float


@dataclass(frozen=True)
class LawCell:
    """One law in a layout of vLLM and one of the actor.

    Attributes:
        law: Of `LAWS`.
        rollout: vLLM's layout.
        actor: The actor's layout.
        gap: See `LawGap`; None where it did not run.
        gradient_error: The actor layout's.
        refused: Why it cannot run; None if it ran.
    """

    law: str
    rollout: RolloutLayout
    actor: ActorLayout
    gap: LawGap | None = None
    gradient_error: float | None = None
    refused: str | None = None

    @property
    def faults(self) -> list[str]:
        """What is wrong with it; empty if it is as it must be, or did not run."""
        if self.refused:
            return []
        gap, faults, (more, much) = self.gap, [], magnified(self.law)
        if not (gap.tokens <= MEAN_TOLERANCE and gap.mean <= more * MEAN_TOLERANCE):
            faults.append("the mean gap is beyond rounding")
        if not gap.max <= more * TOKEN_TOLERANCE:
            faults.append("a thought's gap is beyond rounding")
        if gap.flips:
            faults.append("a thought's likeliest token is another")
        if not self.gradient_error <= much * GRADIENT_TOLERANCE:
            faults.append("the gradient is not the reference's")
        return faults

    def line(self) -> str:
        """One line of the table."""
        head = f"{describe(self.actor)} | {describe(self.rollout)} | {self.law:<24} | "
        if self.refused:
            return head + f"cannot run: {self.refused}"
        return head + (
            f"tokens {self.gap.tokens:.2e} | thoughts {self.gap.mean:.2e} max {self.gap.max:.2e} | "
            f"forgotten {self.gap.forgotten:.2f} | gradient {self.gradient_error:.1e} | "
            f"{'; '.join(self.faults) or 'ok'}"
        )


def magnified(law: str) -> tuple[float, float]:
    """By how much rounding is magnified in p E and in a gradient, of laws that add noise to it.

    A small tau magnifies a logit's where two are nearly alike; the density divides by sigma.
    """
    tau = {"soft": 0.5, "fuzzy": 1e-4}.get(law)
    return (1.0, 1.0) if tau is None else (1 / tau, 1 / tau / 0.33)


def by_law(cells: Iterable[LawCell]) -> str:
    """The worst figures of each law, a line each; of what forgetting makes, the least."""
    lines = [
        f"{'law':<24} {'ran':>5} {'not':>5} {'tokens':>9} {'thoughts':>9} {'max':>9} "
        f"{'flips':>6} {'gradient':>9} {'forgotten':>9}"
    ]
    cells = list(cells)
    for law in LAWS:
        own = [cell for cell in cells if cell.law == law]
        ran = [cell for cell in own if not cell.refused]
        line = f"{law:<24} {len(ran):>5} {len(own) - len(ran):>5}"
        if ran:
            gaps = [cell.gap for cell in ran]
            line += (
                f" {max(gap.tokens for gap in gaps):>9.2e} {max(gap.mean for gap in gaps):>9.2e}"
                f" {max(gap.max for gap in gaps):>9.2e} {max(gap.flips for gap in gaps):>6.3f}"
                f" {max(cell.gradient_error for cell in ran):>9.2e}"
                f" {min(gap.forgotten for gap in gaps):>9.3f}"
            )
        lines.append(line)
    return "\n".join(lines)


def by_factor(cells: Iterable[LawCell]) -> str:
    """The worst mean gap of each law's thoughts, of `token` its tokens: a line a factor's value."""
    cells = [cell for cell in cells if not cell.refused]
    lines = [f"{'factor':<16} {'value':<7}" + "".join(f" {law[:11]:>11}" for law in LAWS)]
    for part, kind in (("actor", ActorLayout), ("rollout", RolloutLayout)):
        for field in fields(kind):
            of = {getattr(getattr(cell, part), field.name) for cell in cells}
            for value in sorted(of) if len(of) > 1 else []:
                line = f"{field.name:<16} {value!s:<7}"
                for law in LAWS:
                    gaps = [
                        max(cell.gap.mean, cell.gap.tokens if law == "token" else 0.0)
                        for cell in cells
                        if cell.law == law and getattr(getattr(cell, part), field.name) == value
                    ]
                    line += f" {max(gaps):>11.2e}" if gaps else f" {'-':>11}"
                lines.append(line)
    return "\n".join(lines)


def reference_gradient(policy: Policy, samples: Sequence[Sample]) -> dict[str, np.ndarray]:
    """Of `score_loss` in plain torch and float64: one process, one sequence at a time."""
    import torch

    from rsp_rl.thoughts.embedding import TableEmbedding
    from rsp_rl.thoughts.replay import replay_inputs, replay_scores
    from rsp_rl.training.verl_plugin.thought_replay import DETACHED

    model = policy.load(torch.float64)
    table = model.get_input_embeddings()
    embedding, loss = TableEmbedding.of(table), torch.zeros((), dtype=torch.float64)
    for sample in samples:
        own = sample.thoughts
        soft = sample.record.start, sample.record.draw(table.weight.shape[1])
        inputs_D = replay_inputs(sample.prompt, sample.response, own, embedding, soft)
        if own.law.name in DETACHED:
            thinks = [False] * len(sample.prompt) + own.rows.thought_N.tolist()
            inputs_D = torch.where(torch.tensor(thinks)[:, None], inputs_D.detach(), inputs_D)
        logits = model(inputs_embeds=inputs_D[None], use_cache=False).logits[0]
        scores = replay_scores(own, logits[len(sample.prompt) - 1 : -1], embedding)
        loss = loss - sample.advantage * (scores.log_probs_T * torch.tensor(sample.mask)).sum()
    (loss / sum(sum(sample.mask) for sample in samples)).backward()
    return {n: p.grad.numpy() for n, p in model.named_parameters() if p.grad is not None}


def score_loss(
    model_output: dict[str, Any], data: TensorDict, dp_group: Any = None
) -> tuple[torch.Tensor, dict]:
    """-A log p, token-mean: what every objective is where all ratios are 1, as verl calls it."""
    from verl.workers.utils.padding import no_padding_2_padding

    log_probs = no_padding_2_padding(model_output["log_probs"], data)
    weights = data["advantages"].to_padded_tensor(0) * data["response_mask"].to_padded_tensor(0)
    tokens = data["batch_num_tokens"] / data["dp_size"]
    return -(log_probs * weights).sum() / tokens, {}


Rows = list[tuple[int, dict[str, np.ndarray]]]


def measure_laws(
    layouts: Sequence[ActorLayout],
    policy: Policy,
    rollouts: dict[str, list[Sample]],
    trained: dict[str, list[Sample]],
    references: dict[str, dict[str, np.ndarray]],
) -> list[tuple[dict[str, LawGap], dict[str, float]]]:
    """Gaps of sets of rollouts, and the gradients' errors by law, a layout each.

    Args:
        layouts: Alike but for `dynamic`: they share an engine.
        policy: Which both sides load.
        rollouts: Sets of one law each, by any name.
        trained: Rollouts whose gradient is taken, by law.
        references: What `reference_gradient` returned for them.

    Raises:
        RuntimeError: If verl refuses the layouts; the message is its traceback.
    """
    overrides = layouts[0].overrides()
    if policy.adapter is not None:
        overrides += [
            f"actor_rollout_ref.model.lora_rank={LORA_RANK}",
            f"actor_rollout_ref.model.lora_alpha={LORA_ALPHA}",
            f"actor_rollout_ref.model.lora_adapter_path={policy.adapter}",
        ]
    config = engine_config(policy.actor_model, *overrides)
    # As they are, tensors would be shared by more file descriptors than a process is sent.
    sent = pickle.dumps((rollouts, trained))
    ranks = run_on_ranks(_on_rank, layouts[0].ranks, config, layouts, sent, timeout=600)
    results = []
    for number in range(len(layouts)):
        gaps = {}
        for name, samples in rollouts.items():
            rows: list[Any] = [None] * len(samples)
            for rank in ranks:
                for index, made in rank[number][0][name]:
                    rows[index] = made
            gaps[name] = law_gap(samples, rows)
        errors = {
            law: float(np.max([relative_error(rank[number][1][law], wanted) for rank in ranks]))
            for law, wanted in references.items()
        }
        results.append((gaps, errors))
    return results


def law_gap(samples: Sequence[Sample], found: Sequence[dict[str, np.ndarray]]) -> LawGap:
    """Of rollouts of one law, and what the actor made of each: its fields by name, [T]."""
    from rsp_rl.training.verl_plugin.forgetting import FORGOTTEN_FIELDS, THOUGHTS
    from rsp_rl.training.verl_plugin.thought_replay import FLIP_FIELD, GAP_FIELD

    law = samples[0].thoughts.law
    draws = law.slots if law.name == "multiplex" else 1
    tokens, thoughts, flips, forgotten = [], [], [], []
    for sample, made in zip(samples, found, strict=True):
        own = sample.thoughts.rows.thought_N.numpy()
        chosen = np.array(sample.mask, bool)
        apart = abs(sample.old_log_probs - made["log_probs"])
        tokens.append(apart[chosen & ~own])
        thoughts.append((made[GAP_FIELD] if GAP_FIELD in made else apart / draws)[own])
        flips.append(made[FLIP_FIELD][own] if FLIP_FIELD in made else np.zeros(0))
        other = made[FORGOTTEN_FIELDS[THOUGHTS]]
        if GAP_FIELD not in made:
            other = abs(sample.old_log_probs - other) / draws
        forgotten.append(other[~np.isnan(other)])

    def figure(parts: list[np.ndarray], how: Callable[[np.ndarray], Any]) -> float:
        values = np.concatenate(parts)
        # NaN must not hide behind a comparison that it fails.
        return float(np.nan_to_num(how(values), nan=np.inf)) if len(values) else 0.0

    return LawGap(
        figure(tokens, np.mean),
        figure(thoughts, np.mean),
        figure(thoughts, np.max),
        figure(flips, np.mean),
        figure(forgotten, np.mean),
    )


def _on_rank(
    rank: int, config: DictConfig, layouts: Sequence[ActorLayout], sent: bytes
) -> list[tuple[dict[str, Rows], dict[str, dict[str, np.ndarray]]]]:
    """By layout: this rank's samples' fields by set; and the gradients by law."""
    from verl.workers.utils.padding import response_from_nested

    from rsp_rl.training.verl_plugin.forgetting import FORGOTTEN_KEY, THOUGHTS
    from rsp_rl.training.verl_plugin.thought_replay import GAP_KEY, gap_fields

    rollouts, trained = pickle.loads(sent)
    # verl tells of every model that it builds.
    with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
        engine, _ = build_engine(config)

    def mine(samples: list[Sample]) -> range:
        first, step = engine.get_data_parallel_rank(), engine.get_data_parallel_size()
        return range(first, len(samples), step)

    def batch(samples: list[Sample], layout: ActorLayout, **more: Any) -> TensorDict:
        own = [samples[index] for index in mine(samples)]
        return training_batch(own, **layout.batch_settings(), **more)

    results = []
    for layout in layouts:
        by_set, gradients = {}, {}
        for name, samples in rollouts.items():
            fields = gap_fields(samples[0].thoughts.law)
            data = batch(samples, layout, **{GAP_KEY: fields, FORGOTTEN_KEY: (THOUGHTS,)})
            with engine.eval_mode():
                output = engine.infer_batch(data)["model_output"]
            by_field = {
                field: response_from_nested(values, data["response_mask"]).unbind()
                for field, values in output.items()
            }
            by_set[name] = [
                (index, {field: rows[at].float().numpy() for field, rows in by_field.items()})
                for at, index in enumerate(mine(samples))
            ]
        for law, samples in trained.items():
            with engine.train_mode():
                engine.optimizer_zero_grad()
                engine.forward_backward_batch(batch(samples, layout), score_loss)
                gradients[law] = whole_gradients(engine)
        results.append((by_set, gradients))
    return results
