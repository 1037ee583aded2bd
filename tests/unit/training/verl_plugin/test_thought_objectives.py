"""Objectives with thoughts are what they are defined as: plain PyTorch in float64, written out.

At two levels, as for DAPO itself (`tests/unit/configs/test_objective.py`): losses and their slopes
by log-probs, through verl's own micro-batch arithmetic in float64, on both sides of every clip's
boundary and on it; then the whole actor engine, FSDP2 on gloo ranks in float32 with soft prompts
and thoughts, a law and its objective after the other. The reference has nothing of
`rsp_rl.thoughts`.
"""

from __future__ import annotations

import itertools
import math
import pickle
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pytest
import torch

from parity.actor import Sample, compose, engine_config, make_engine, training_batch
from parity.measure import relative_error
from parity.models import make_random_model
from parity.ranks import run_on_ranks
from parity.report import GRADIENT_TOLERANCE
from rsp_rl.draws.record import SoftPromptRecord
from rsp_rl.thoughts.law import InputLaw
from rsp_rl.thoughts.laws.gumbel import Gumbel
from rsp_rl.thoughts.laws.multiplex import Multiplex
from rsp_rl.thoughts.laws.noisy import Fuzzy, Soft
from rsp_rl.thoughts.record import ThoughtRecord
from rsp_rl.thoughts.rows import Kind, Rows
from tests.thinking import PLACEHOLDER, think
from tests.tolerances import rounding

LOW, HIGH, DUAL = 0.2, 0.28, 10.0
EOS = 4

#: Of the prompt: length, and where its soft prompt is; of the response: thoughts, forced tokens and
#: answer's tokens.
SHAPES = (
    (9, 4, 4, "tttttaa"),
    (7, 0, 3, "ttffaat"),
    (8, 5, 0, "aattttttaaa"),
    (12, 8, 4, "t"),
    (5, 1, 0, "aaa"),
    (6, 2, 2, "ttttf"),
    (7, 2, 3, "ttfta"),
    (9, 1, 2, "tttaaa"),
)
REWARDS = (1.0, 0.0, 0.0, 1.0, 1.0, 1.0, 0.0, 1.0)
PADDING_SAMPLES = 4


# ---- what is trained on what --------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """A law and its objective, as a run has them.

    Attributes:
        law: The law.
        overrides: Of the config, beside `law`.
        per_draw: Whether each draw has a ratio.
        rloo: Summed log-probs and no ratio, in place of DAPO's.
        detached: Whether inputs are constants.
    """

    law: InputLaw
    overrides: tuple[str, ...] = ()
    per_draw: bool = False
    rloo: bool = False
    detached: bool = False


BY_DRAW = ("actor_rollout_ref.actor.policy_loss.loss_mode=rsp_draws",)
SOFT_GRPO = {"k": 5, "tau": 0.1, "temperature": 1.0, "top_k": 5, "top_p": 0.95}
RLOO = {"overrides": ("objective=rloo",), "rloo": True}
CASES = {
    "multiplex, a ratio a draw": Case(Multiplex(k=3), BY_DRAW, per_draw=True),
    "multiplex by probability, a ratio a draw": Case(
        Multiplex(k=3, weighting="probability", temperature=0.7), BY_DRAW, per_draw=True
    ),
    "multiplex, a ratio a position": Case(Multiplex(k=3)),
    "gumbel, paper": Case(Gumbel(**SOFT_GRPO), detached=True),
    "gumbel, code": Case(Gumbel(**SOFT_GRPO, score="code", clamp=True), detached=True),
    "gumbel, concrete": Case(Gumbel(**SOFT_GRPO, score="concrete"), detached=True),
    "gumbel, gradient through inputs": Case(Gumbel(k=5, temperature=0.7)),
    "soft": Case(Soft(rms=0.2), **RLOO),
    "soft, fixed table": Case(Soft(rms=0.2, learn_embedding=False), **RLOO),
    "fuzzy": Case(Fuzzy(rms=0.2), **RLOO),
}


# ---- the reference ------------------------------------------------------------------------------


def advantages(rloo: bool) -> list[float]:
    """Of two groups of four: (R - mean) / std, or R - mean of the others."""
    found = []
    for group in (REWARDS[:4], REWARDS[4:]):
        for reward in group:
            if rloo:
                found.append(reward - (sum(group) - reward) / 3)
            else:
                found.append((reward - np.mean(group)) / (np.std(group, ddof=1) + 1e-6))
    return [float(advantage) for advantage in found]


def naive_inputs(model, sample: Sample, detached: bool) -> torch.Tensor:
    """Embeddings of prompt and response, one position after the other, [T, d]."""
    law, rows, table_VD = sample.thoughts.law, sample.thoughts.rows, model.get_input_embeddings()
    inputs = list(table_VD(torch.tensor(sample.prompt)))
    drawn_LD = sample.record.draw(table_VD.weight.shape[1]).double()
    for at, row_D in enumerate(drawn_LD, sample.record.start):
        inputs[at] = row_D
    for at, kind in enumerate(rows.kind_N.tolist()):
        ids, values = rows.ids_NK[at].tolist(), rows.values_NK[at].double()
        if kind == Kind.MIX:
            weights = torch.softmax(values / law.tau, 0) if isinstance(law, Gumbel) else values
            mixed_D = (weights[:, None] * table_VD(torch.tensor(ids))).sum(0)
            inputs.append(mixed_D.detach() if detached else mixed_D)
        elif kind == Kind.MIX_NOISE:
            inputs.append(rows.dense_ND[at].double())
        else:
            inputs.append(table_VD(torch.tensor(ids[0])))
    return torch.stack(inputs)


def naive_draws(law: InputLaw, sample: Sample, at: int, logits_V, table_VD) -> list[torch.Tensor]:
    """Log-probs of one position: of every draw, or one."""
    rows = sample.thoughts.rows
    ids, values = rows.ids_NK[at].tolist(), rows.values_NK[at].double()
    if rows.kind_N[at] not in (Kind.MIX, Kind.MIX_NOISE):
        return [torch.log_softmax(logits_V, 0)[ids[0]]]
    if isinstance(law, Multiplex):
        log_V = torch.log_softmax(logits_V / law.temperature, 0)
        return [log_V[i] for i in ids]
    if isinstance(law, Soft):
        mean_D = torch.zeros(table_VD.shape[1], dtype=torch.float64)
        fixed_VD = table_VD if law.learn_embedding else table_VD.detach()
        for p, row_D in zip(torch.softmax(logits_V / law.tau, 0), fixed_VD, strict=True):
            mean_D = mean_D + p * row_D
        return [-((rows.dense_ND[at].double() - mean_D) ** 2).sum() / (2 * (0.33 * 0.2) ** 2)]
    kept = [(i, g) for i, g in zip(ids, values, strict=True) if g > -math.inf]
    p = torch.softmax(torch.stack([logits_V[i] for i, _ in kept]) / law.temperature, 0)
    if law.score == "paper":
        apart = [g - q.log() for (_, g), q in zip(kept, p, strict=True)]
        return [torch.stack([-e - torch.exp(-e) for e in apart]).sum()]
    if law.score == "code":
        terms = []
        for (_, g), q in zip(kept, p, strict=True):
            if (log := torch.log(q + 1e-6)) > -3:
                e = torch.clamp(g - log, -1.5, 3.0)
                terms.append(-e - torch.exp(-e))
        return [torch.stack(terms).mean()]
    y = torch.softmax(torch.stack([g for _, g in kept]) / law.tau, 0)
    count = len(kept)
    inner = sum(q * w ** (-law.tau) for q, w in zip(p, y, strict=True))
    outer = sum(q.log() - (law.tau + 1) * w.log() for q, w in zip(p, y, strict=True))
    return [math.lgamma(count) + (count - 1) * math.log(law.tau) + outer - count * inner.log()]


def naive_log_probs(model, sample: Sample, detached: bool) -> list[list[torch.Tensor]]:
    """Of each position of a response the log-probs of its draws."""
    inputs_D = naive_inputs(model, sample, detached)
    logits_TV = model(inputs_embeds=inputs_D[None], use_cache=False).logits[0]
    before_TV = logits_TV[len(sample.prompt) - 1 : -1]
    table_VD = model.get_input_embeddings().weight
    law = sample.thoughts.law
    return [naive_draws(law, sample, at, row, table_VD) for at, row in enumerate(before_TV)]


def naive_surrogate(ratio: torch.Tensor, advantage: float) -> torch.Tensor:
    """DAPO's of one ratio: clipped, and clipped again where the advantage is negative."""
    clipped = torch.clamp(ratio, 1 - LOW, 1 + HIGH)
    found = torch.minimum(ratio * advantage, clipped * advantage)
    return torch.clamp(found, min=DUAL * advantage) if advantage < 0 else found


def naive_loss(case: Case, samples: list[Sample], new: list, ratios: Iterator[float]):
    """An objective's loss, the size of what it sums, and old log-probs that make these ratios.

    Args:
        case: Whose.
        samples: All ranks'.
        new: By sample, position and draw.
        ratios: Of what has one, one after the other.
    """
    terms, old = [], []
    for sample, positions in zip(samples, new, strict=True):
        old.append([])
        for draws, chosen in zip(positions, sample.mask, strict=True):
            scored = draws if case.per_draw else [torch.stack(draws).sum()]
            before = [log.detach() - math.log(next(ratios)) for log in scored]
            if case.per_draw:  # a log-prob is no larger
                before = [min(log, torch.zeros(())) for log in before]
            old[-1].append([float(log) for log in before])
            if not chosen:
                continue
            for log, then in zip(scored, before, strict=True):
                if case.rloo:
                    terms.append(-sample.advantage * log)
                else:
                    terms.append(-naive_surrogate(torch.exp(log - then), sample.advantage))
    count = len(samples) if case.rloo else sum(sum(sample.mask) for sample in samples)
    summed = torch.stack(terms)
    return summed.sum() / count, float(summed.detach().abs().sum()) / count, old


# ---- losses by log-probs, in float64 ------------------------------------------------------------


def nearest_log(bound: float) -> float:
    """Of a ratio that is as near to a bound as float64 gets."""
    steps = [math.log(bound)]
    for way in (-math.inf, math.inf):
        for _ in range(8):
            steps.append(math.nextafter(steps[-1], way))
        steps.append(math.log(bound))
    ratios = torch.tensor(steps, dtype=torch.float64).exp()
    return steps[int((ratios - bound).abs().argmin())]


BOUNDS = (1 - LOW, 1 + HIGH, DUAL)
ON_BOUNDS = tuple(map(nearest_log, BOUNDS))
#: Of ratios: far from every bound, just inside, on and just outside of each.
LOG_RATIOS = (
    *map(math.log, (0.3, 0.9, 1.0, 5.0, 30.0)),
    *(log + step for log in ON_BOUNDS for step in (-1e-9, 0.0, 1e-9)),
)


def slope_bounds(log_ratio: float, advantage: float) -> tuple[float, float]:
    """Least and most of d loss / d log-prob, before it is averaged: alike but on a bound."""
    ratio = math.exp(log_ratio)
    if advantage < 0:
        active, kinks = 1 - LOW < ratio < DUAL, (ON_BOUNDS[0], ON_BOUNDS[2])
    else:
        active, kinks = ratio < 1 + HIGH, (ON_BOUNDS[1],)
    slope = -advantage * ratio
    if log_ratio in kinks:
        return min(slope, 0.0), max(slope, 0.0)
    return slope * active, slope * active


@dataclass(frozen=True)
class Table:
    """Log-probs that a policy has by heart, and what is wanted of a loss of them.

    Attributes:
        samples: All ranks'.
        new: [B, T, K]; a position's log-prob is the sum.
        old: Likewise.
        loss: The objective's.
        least: Of its slopes by log-probs, [B, T, K].
        most: Likewise.
    """

    samples: list[Sample]
    new: np.ndarray
    old: np.ndarray
    loss: float
    least: np.ndarray
    most: np.ndarray


def table_of(kind: str) -> Table:
    """For an objective: `draws`, `positions` or `rloo`."""
    law, draws = Multiplex(k=3), 3
    longest = max(len(kinds) for *_, kinds in SHAPES)
    shape = (len(SHAPES) + PADDING_SAMPLES, longest, draws)
    new, old, least, most = (np.zeros(shape) for _ in range(4))
    walks = {sign: itertools.cycle(LOG_RATIOS) for sign in (True, False)}
    samples, total = [], 0.0
    for row, advantage in enumerate(advantages(kind == "rloo")):
        size, *_, kinds = SHAPES[row]
        made = made_record(law, kinds, size)
        samples.append(Sample([5] * size, [7] * len(kinds), np.zeros(1), advantage, thoughts=made))
        for at, which in enumerate(kinds):
            for k in range(draws if which == "t" and kind == "draws" else 1):
                log = next(walks[advantage > 0]) if which != "f" else -1.0
                # Exactly so far apart, and neither above 0.
                new[row, at, k], old[row, at, k] = min(log, 0.0), min(-log, 0.0)
                if which == "f":
                    continue
                if kind == "rloo":
                    total -= advantage * new[row, at, k]
                    low = high = -advantage
                else:
                    ratio = torch.tensor(log, dtype=torch.float64).exp()
                    total -= float(naive_surrogate(ratio, advantage))
                    low, high = slope_bounds(log, advantage)
                # Of a sum every part has the slope.
                parts = slice(k, k + 1) if kind == "draws" or which == "a" else slice(0, draws)
                least[row, at, parts], most[row, at, parts] = low, high
    count = len(samples) if kind == "rloo" else sum(sum(sample.mask) for sample in samples)
    padding = Sample([EOS] * 15, [EOS], np.zeros(1), 0.0, trained=False, thoughts=made)
    everyone = [*samples, *[padding] * PADDING_SAMPLES]
    return Table(everyone, new, old, total / count, least / count, most / count)


def made_record(law: InputLaw, kinds: str, start: int) -> ThoughtRecord:
    """Of a law with mixtures; its ids and values are read by nobody."""
    ids = torch.full((len(kinds), law.slots), 7)
    rows = Rows.of_kind(law.kind, ids, torch.zeros(ids.shape))
    of = {"t": law.kind, "f": Kind.FORCED, "a": Kind.TOKEN}
    kind_N = torch.tensor([of[which] for which in kinds], dtype=torch.uint8)
    return ThoughtRecord(law, 1, start, replace(rows, kind_N=kind_N))


OBJECTIVES = {"draws": BY_DRAW, "positions": (), "rloo": ("objective=rloo",)}


def table_steps(rank: int, world_size: int, kind: str, table: Table):
    """Loss and slopes by verl's real update path, one a way of making micro-batches."""
    from verl.utils import tensordict_utils as tu
    from verl.utils.config import omega_conf_to_dataclass
    from verl.workers.engine.fsdp.transformer_impl import FSDPEngine
    from verl.workers.utils.losses import ppo_loss

    from rsp_rl.training.verl_plugin.actor_engine import SoftPromptFSDPEngine
    from rsp_rl.training.verl_plugin.draws_loss import ABSENT
    from rsp_rl.training.verl_plugin.thought_replay import (
        DRAWS_KEY,
        OLD_DRAWS_FIELD,
        Scores,
        ThoughtReplay,
        draws_of_field,
        flat_draws,
    )

    class LogProbTable(FSDPEngine):
        """verl's engine with everything but the model: a parameter holds all log-probs."""

        def __init__(self) -> None:
            self.module = torch.nn.Module()
            self.module.table = torch.nn.Parameter(torch.from_numpy(table.new.copy()))
            self.engine_config = config.engine
            self.ulysses_sequence_parallel_size = 1
            self.ulysses_device_mesh = None
            self.scaler = None

        def forward_step(self, micro_batch, loss_function, forward_only):
            if OLD_DRAWS_FIELD in micro_batch:
                micro_batch["old_log_probs"] = draws_of_field(micro_batch[OLD_DRAWS_FIELD], 3)
            rows, draws = [], []
            for row, prompt, response in zip(
                micro_batch["rollout"].unbind(),
                micro_batch["prompts"].unbind(),
                micro_batch["responses"].unbind(),
                strict=True,
            ):
                # A model gives each token's log-prob one place earlier, and prompt tokens' too.
                rest = torch.full((len(prompt) - 1,), 9.0, dtype=torch.float64)
                mine = self.module.table[row, : len(response)]
                rows.append(torch.cat([rest, mine[:, 0], rest[:1]]))
                if row < len(SHAPES):
                    draws.append(mine[[which == "t" for which in SHAPES[row][-1]]])
            model_output = {"log_probs": torch.nested.as_nested_tensor(rows, layout=torch.jagged)}
            scores = None
            if replay := ThoughtReplay.of(micro_batch):
                scores = Scores(torch.cat(draws), {}, replay.positions(replay.starts()) - 1)
            SoftPromptFSDPEngine._put_thoughts(model_output, scores, micro_batch)
            loss, metrics = loss_function(
                model_output=model_output, data=micro_batch, dp_group=None
            )
            return loss, {"loss": loss.item(), "metrics": metrics, "model_output": {}}

    config = omega_conf_to_dataclass(compose("dapo_rsp", *OBJECTIVES[kind]).actor_rollout_ref.actor)
    # Strided, so that ranks hold different numbers of tokens.
    mine = range(rank, len(table.samples), world_size)
    samples = [table.samples[row] for row in mine]
    own = [torch.from_numpy(table.old[row, : len(table.samples[row].response)]) for row in mine]
    if kind == "draws":  # those that are there
        for sample, row in zip(samples, own, strict=True):
            row[~torch.isin(sample.thoughts.rows.kind_N[: len(row)], Kind.MIX), 1:] = ABSENT
    whole = [row.sum(1) if kind != "draws" else row[:, 0] for row in own]
    samples = [
        replace(sample, old_log_probs=row.numpy())
        for sample, row in zip(samples, whole, strict=True)
    ]
    results = {}
    for name, settings in micro_batches(len(mine)).items():
        count = {"global_batch_size": len(SHAPES)}
        data = training_batch(samples, torch.float64, **settings, **count)
        data["rollout"] = torch.tensor(list(mine))
        if kind == "draws":
            nested = torch.nested.as_nested_tensor(own, layout=torch.jagged)
            data[OLD_DRAWS_FIELD] = flat_draws(nested)
            tu.assign_non_tensor(data, **{DRAWS_KEY: 3})
        engine = LogProbTable()
        output = engine.forward_backward_batch(data, partial(ppo_loss, config=config))
        loss = torch.tensor(sum(output["loss"]), dtype=torch.float64)
        slopes = engine.module.table.grad
        # What FSDP and verl's `_postprocess_output` do: both are averaged over the ranks.
        for value in (loss, slopes):
            torch.distributed.all_reduce(value)
            value /= world_size
        results[name] = loss.item(), slopes.numpy()
    return results


def micro_batches(samples: int) -> dict[str, dict]:
    """Ways of cutting a rank's samples, in verl's settings."""
    sizes = {"one micro-batch": samples, "several": 2, "one sample each": 1}
    fixed = {
        name: {"use_dynamic_bsz": False, "micro_batch_size_per_gpu": size}
        for name, size in sizes.items()
    }
    return {**fixed, "dynamic": {"use_dynamic_bsz": True, "max_token_len_per_gpu": 40}}


#: Of a loss below 100 and slopes that are sums over a hundred numbers, in float64.
FLOAT64_SUMS = rounding(100, 100, torch.float64)


@pytest.mark.parametrize("kind", ["draws", "positions"])
def test_the_table_visits_every_bound(kind: str) -> None:
    table = table_of(kind)
    seen = set()
    for row, sample in enumerate(table.samples[: len(SHAPES)]):
        for at, chosen in enumerate(sample.mask):
            for k in range(3 if kind == "draws" else 1):
                log = table.new[row, at, k] - table.old[row, at, k]
                seen |= {(log, sample.advantage > 0)} if chosen else set()
    assert {*itertools.product(LOG_RATIOS, (True, False))} <= seen


@pytest.mark.parametrize("world_size", [1, 2])
@pytest.mark.parametrize("kind", OBJECTIVES)
def test_losses_and_slopes_are_the_definitions(kind: str, world_size: int) -> None:
    table = table_of(kind)
    for results in run_on_ranks(table_steps, world_size, world_size, kind, table):
        for name, (loss, slopes) in results.items():
            assert loss == pytest.approx(table.loss, rel=0, abs=FLOAT64_SUMS), name
            assert (slopes >= table.least - FLOAT64_SUMS).all(), name
            assert (slopes <= table.most + FLOAT64_SUMS).all(), name


def test_rloos_advantages_leave_the_rollout_itself_out() -> None:
    """R - mean of the others, of rewards as the paper has them; a second group is another's."""
    from verl import DataProto
    from verl.trainer.ppo.v1.utils import compute_advantage_for_multi_trajectories

    config = compose("dapo_rsp", "objective=rloo").algorithm
    rewards = (100.0, 10.0, 0.0, 0.0, 100.0)
    rows = [(uid, number) for number in range(len(rewards)) for uid in ("a", "b")]
    scores, mask = torch.zeros(len(rows), 6), torch.zeros(len(rows), 6, dtype=torch.int64)
    for row, (uid, number) in enumerate(rows):
        length = 1 + row % 6
        mask[row, :length] = 1
        # A token that is forced at the end has the reward all the same.
        mask[row, length - 1] = row % 3 > 0 or length == 1
        scores[row, length - 1] = rewards[number] if uid == "a" else 7.0 * number
    data = compute_advantage_for_multi_trajectories(
        DataProto.from_dict(
            tensors={"token_level_rewards": scores, "response_mask": mask},
            non_tensors={"uid": np.array([uid for uid, _ in rows], dtype=object)},
        ),
        batch_keys=[f"{uid}_{number}_0" for uid, number in rows],
        adv_estimator=config.adv_estimator,
        norm_adv_by_std_in_grpo=config.norm_adv_by_std_in_grpo,
        config=config,
    )
    for row, (uid, number) in enumerate(rows):
        if uid == "a":
            wanted = rewards[number] - (sum(rewards) - rewards[number]) / (len(rewards) - 1)
            np.testing.assert_allclose(
                data.batch["advantages"][row], wanted * mask[row], rtol=0, atol=rounding(8, 100)
            )


# ---- the whole actor engine ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make_random_model(tmp_path_factory.mktemp("model") / "tiny", tied=True)


def load(folder, dtype):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)


def made_samples(model, case: Case) -> list[Sample]:
    """Rollouts with thoughts and soft prompts of two groups."""
    generator, samples = np.random.default_rng(5), []
    for number, ((size, start, length, kinds), advantage) in enumerate(
        zip(SHAPES, advantages(case.rloo), strict=True)
    ):
        prompt = generator.integers(5, 60, size)
        prompt[start : start + length] = PLACEHOLDER
        soft = SoftPromptRecord(number, start, length, 0.01, 0.3, "float32", PLACEHOLDER)
        record = think(model, prompt.tolist(), case.law, kinds, 100 + number, soft)
        response = record.rows.emitted_N.tolist()
        zeros = np.zeros(len(response))
        samples.append(Sample(prompt.tolist(), response, zeros, advantage, soft, thoughts=record))
    return samples


#: On both sides of every bound, by far more than float32 rounds.
RATIOS = (0.3, 0.79, 0.81, 1.0, 1.27, 1.29, 5.0, 9.9, 10.1)


def with_old(samples: list[Sample], old: list) -> list[Sample]:
    """The same with old log-probs, and verl's padding samples behind them."""
    rated = [
        replace(sample, old_log_probs=np.array([draws[0] for draws in rows]))
        for sample, rows in zip(samples, old, strict=True)
    ]
    first = samples[0]
    padding = Sample([EOS] * 15, [EOS], np.zeros(1), 0.0, first.record, False, first.thoughts)
    return [*rated, *[padding] * PADDING_SAMPLES]


PACKED, PADDED = {"use_remove_padding": True}, {"use_remove_padding": False}
SEVERAL = {"use_dynamic_bsz": False, "micro_batch_size_per_gpu": 2}
DYNAMIC = {"use_dynamic_bsz": True, "max_token_len_per_gpu": 40}
#: By number of ranks.
LAYOUTS = {
    1: {"packed, several": PACKED | SEVERAL, "padded, dynamic": PADDED | DYNAMIC},
    2: {"packed, dynamic": PACKED | DYNAMIC, "padded, several": PADDED | SEVERAL},
}


def engine_steps(rank: int, world_size: int, model, pickled: bytes, overrides: list[str]):
    """Loss and gradients of one update, by case and layout."""
    from verl.utils import tensordict_utils as tu
    from verl.utils.config import omega_conf_to_dataclass
    from verl.workers.utils.losses import ppo_loss

    from rsp_rl.training.verl_plugin.thought_replay import (
        DETACH_KEY,
        DRAWS_KEY,
        OLD_DRAWS_FIELD,
        flat_draws,
    )

    engine, _ = make_engine(model, *overrides)
    results = {}
    for name, (samples, old) in pickle.loads(pickled).items():
        case = CASES[name]
        composed = engine_config(model, *case.overrides)
        config = omega_conf_to_dataclass(composed.actor_rollout_ref.actor)
        mine = range(rank, len(samples), world_size)
        for layout, settings in LAYOUTS[world_size].items():
            settings = settings | {"global_batch_size": len(SHAPES), DETACH_KEY: case.detached}
            data = training_batch([samples[row] for row in mine], **settings)
            if case.per_draw:
                rows = [padded_draws(old[row] if row < len(old) else [[0.0]]) for row in mine]
                nested = torch.nested.as_nested_tensor(rows, layout=torch.jagged)
                data[OLD_DRAWS_FIELD] = flat_draws(nested)
                tu.assign_non_tensor(data, **{DRAWS_KEY: 3})
            with engine.train_mode():
                engine.optimizer_zero_grad()
                output = engine.forward_backward_batch(data, partial(ppo_loss, config=config))
                gradients = {
                    key: parameter.grad.full_tensor().numpy().copy()
                    for key, parameter in engine.module.named_parameters()
                }
            loss = torch.tensor(sum(output["loss"]), dtype=torch.float64)
            torch.distributed.all_reduce(loss)
            results[name, layout] = loss.item() / world_size, gradients
    return results


def padded_draws(positions: list[list[float]]) -> torch.Tensor:
    """[T, K] of log-probs by position and draw."""
    from rsp_rl.training.verl_plugin.draws_loss import ABSENT

    rows = [[*draws, *[ABSENT] * (3 - len(draws))] for draws in positions]
    return torch.tensor(rows, dtype=torch.float32)


@pytest.mark.parametrize(
    ("world_size", "overrides"),
    [
        (1, []),
        (2, ["actor_rollout_ref.model.enable_gradient_checkpointing=true"]),
    ],
    ids=["1 rank", "2 ranks, gradient checkpointing"],
)
def test_an_update_by_the_engine_is_the_definitions(model, world_size, overrides) -> None:
    wanted, by_case = {}, {}
    single = load(model, torch.float32)
    for name, case in CASES.items():
        samples, plain = made_samples(single, case), load(model, torch.float64)
        new = [naive_log_probs(plain, sample, case.detached) for sample in samples]
        loss, size, old = naive_loss(case, samples, new, itertools.cycle(RATIOS))
        loss.backward()
        wanted[name] = (
            loss.item(),
            size,
            {key: parameter.grad.numpy() for key, parameter in plain.named_parameters()},
        )
        by_case[name] = with_old(samples, old), old
    # Sent as they are, tensors would be shared by more file descriptors than a process is sent.
    arguments = (world_size, model, pickle.dumps(by_case), overrides)
    by_rank = run_on_ranks(engine_steps, world_size, *arguments)
    for results in by_rank:
        for (name, layout), (loss, gradients) in results.items():
            right, size, slopes = wanted[name]
            where = f"{name}, {layout}"
            assert loss == pytest.approx(right, rel=0, abs=1e-6 * size), where
            assert relative_error(gradients, slopes) < GRADIENT_TOLERANCE, where
