"""The objective is DAPO as in the paper (Eq. 9): verl's own loss, configured.

The reference is Eq. 9 in plain numpy. It is compared with verl at two levels: the loss and its
gradient with respect to the log-probs themselves, through verl's own micro-batch arithmetic and in
float64; then the whole actor engine, FSDP2 on gloo ranks with soft prompts, against the same model
in plain torch and float64.
"""

from __future__ import annotations

import itertools
from functools import partial

import numpy as np
import pytest
import torch

from parity.actor import Sample, compose, make_engine, plain_torch_log_probs, training_batch
from parity.models import make_random_model
from parity.ranks import run_on_ranks
from rsp_rl.draws.record import SoftPromptRecord
from tests.tolerances import FORWARD, rounding

EPS_LOW, EPS_HIGH, DUAL_CLIP = 0.2, 0.28, 10.0

# Ratios on both sides of every boundary: 1 - eps_low, 1 + eps_high and c.
RATIOS = (0.3, 0.79, 0.81, 1.0, 1.27, 1.29, 5.0, 9.9, 10.1, 30.0)
REWARDS = {"mixed": (1.0, 0.0, 0.0, 1.0), "mostly right": (1.0, 1.0, 0.0, 1.0)}
LENGTHS = (5, 12, 3, 10, 7, 1, 11, 8)
PROMPT_LENGTHS = (9, 9, 9, 9, 12, 12, 12, 12)
PADDING_SAMPLES = 4
PLACEHOLDER = 3


# ---- Eq. 9 in numpy -----------------------------------------------------------------------------


def group_advantages(rewards: np.ndarray) -> np.ndarray:
    """(R - mean) / std within one group; the sample standard deviation, as verl and TRL take it."""
    return (rewards - rewards.mean()) / (rewards.std(ddof=1) + 1e-6)


def dapo_loss(log_probs, old_log_probs, advantages) -> float:
    """Minus Eq. 9, token-mean over all sequences given: lists of one array a sequence."""
    total, tokens = 0.0, 0
    for new, old, advantage in zip(log_probs, old_log_probs, advantages, strict=True):
        ratio = np.exp(new - old)
        clipped = np.clip(ratio, 1 - EPS_LOW, 1 + EPS_HIGH)
        surrogate = np.minimum(ratio * advantage, clipped * advantage)
        if advantage < 0:
            surrogate = np.maximum(surrogate, DUAL_CLIP * advantage)
        total -= surrogate.sum()
        tokens += len(ratio)
    return total / tokens


def dapo_gradient(log_probs, old_log_probs, advantages) -> list[np.ndarray]:
    """d loss / d log-probs: -A r / tokens where neither clip is active, else 0."""
    tokens = sum(map(len, log_probs))
    gradients = []
    for new, old, advantage in zip(log_probs, old_log_probs, advantages, strict=True):
        ratio = np.exp(new - old)
        if advantage < 0:
            active = (ratio > 1 - EPS_LOW) & (ratio < DUAL_CLIP)
        else:
            active = ratio < 1 + EPS_HIGH
        gradients.append(np.where(active, -advantage * ratio / tokens, 0.0))
    return gradients


# ---- a hand-made batch --------------------------------------------------------------------------


def hand_made_advantages() -> np.ndarray:
    return np.concatenate([group_advantages(np.array(rewards)) for rewards in REWARDS.values()])


def hand_made_log_probs() -> tuple[list[np.ndarray], list[np.ndarray]]:
    """New and old log-probs of all eight rollouts; their ratios walk through `RATIOS`."""
    generator = np.random.default_rng(0)
    new = [-generator.exponential(1.0, length) - 0.01 for length in LENGTHS]
    return new, [row - np.log(ratios) for row, ratios in zip(new, hand_made_ratios(), strict=True)]


def hand_made_ratios() -> list[np.ndarray]:
    walk = itertools.cycle(RATIOS)
    return [np.array([next(walk) for _ in range(length)]) for length in LENGTHS]


def hand_made_samples(old_log_probs) -> list[Sample]:
    """The eight rollouts with their soft prompts, and four of verl's synthetic padding samples.

    The tokens only matter where a model reads them.
    """
    generator = np.random.default_rng(1)
    samples = []
    for number, (old, advantage) in enumerate(
        zip(old_log_probs, hand_made_advantages(), strict=True)
    ):
        prompt = generator.integers(5, 60, PROMPT_LENGTHS[number])
        record = SoftPromptRecord(
            seed=1000 + number,
            start=2 + number % 4,
            length=4,
            mean=0.01,
            std=0.3,
            dtype="float32",
            placeholder_id=PLACEHOLDER,
        )
        prompt[record.start : record.start + record.length] = PLACEHOLDER
        response = generator.integers(5, 60, len(old))
        samples.append(Sample(prompt.tolist(), response.tolist(), old, float(advantage), record))
    # Each carries a copy of a real sample's record, and is not trained on.
    padding = Sample([4] * 15, [4], np.zeros(1), 0.0, samples[0].record, trained=False)
    return samples + [padding] * PADDING_SAMPLES


#: Of a loss and a gradient below 10 that are sums over a hundred tokens, in float64.
FLOAT64_SUMS = rounding(100, 10, torch.float64)

#: Of a loss and its gradient, of size 1, behind a forward pass in float32.
BACKWARD = rounding(32)


def test_the_hand_made_batch_visits_every_branch():
    seen = set()
    for ratios, advantage in zip(hand_made_ratios(), hand_made_advantages(), strict=True):
        seen |= {(float(ratio), bool(advantage > 0)) for ratio in ratios}
    assert seen == set(itertools.product(RATIOS, (True, False)))


def test_the_references_gradient_is_that_of_its_loss():
    new, old = hand_made_log_probs()
    advantages = hand_made_advantages()
    gradients = dapo_gradient(new, old, advantages)
    step = 1e-6
    for row, gradient in enumerate(gradients):
        for token in range(len(gradient)):
            moved = [[array.copy() for array in new] for _ in range(2)]
            moved[0][row][token] += step
            moved[1][row][token] -= step
            up, down = (dapo_loss(log_probs, old, advantages) for log_probs in moved)
            # The loss, of size 1, is rounded, and then divided by the step.
            few = rounding(16, dtype=torch.float64) / step
            assert (up - down) / (2 * step) == pytest.approx(gradient[token], abs=few)


# ---- the configuration --------------------------------------------------------------------------

PAPER = {
    "algorithm.adv_estimator": "grpo",
    "algorithm.norm_adv_by_std_in_grpo": True,
    "algorithm.use_kl_in_reward": False,
    "algorithm.rollout_correction.rollout_is": None,
    "algorithm.rollout_correction.rollout_rs": None,
    "algorithm.rollout_correction.bypass_mode": False,
    "algorithm.filter_groups.enable": False,
    "actor_rollout_ref.actor.loss_agg_mode": "token-mean",
    "actor_rollout_ref.actor.policy_loss.loss_mode": "vanilla",
    "actor_rollout_ref.actor.clip_ratio_low": EPS_LOW,
    "actor_rollout_ref.actor.clip_ratio_high": EPS_HIGH,
    "actor_rollout_ref.actor.clip_ratio_c": DUAL_CLIP,
    "actor_rollout_ref.actor.use_kl_loss": False,
    "actor_rollout_ref.actor.entropy_coeff": 0,
    "actor_rollout_ref.actor.ppo_epochs": 1,
    "actor_rollout_ref.rollout.n": 8,
    "actor_rollout_ref.rollout.temperature": 1.0,
    "reward.reward_kwargs.overlong_buffer_cfg.enable": False,
}


@pytest.mark.parametrize("name", ["dapo_rsp", "dapo", "tiny_cpu"])
def test_every_config_has_the_papers_objective(name):
    from omegaconf import OmegaConf

    config = compose(name)
    assert {key: OmegaConf.select(config, key) for key in PAPER} == PAPER


@pytest.mark.parametrize("name", ["dapo_rsp", "dapo", "tiny_cpu"])
def test_no_model_beside_the_actor_is_needed(name):
    """A reference policy would be loaded for a KL term, a critic for another advantage."""
    from verl.trainer.ppo.utils import need_critic, need_reference_policy

    config = compose(name)
    assert not need_reference_policy(config)
    assert not need_critic(config)


# ---- advantages ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "rewards",
    [*REWARDS.values(), (0.0,) * 4, (1.0,) * 4, (0.1, 1.0, 0.0, 1.0, 0.0, 0.0, 0.1, -0.5)],
)
def test_advantages_are_group_relative(rewards):
    from verl import DataProto
    from verl.trainer.ppo.v1.utils import compute_advantage_for_multi_trajectories

    config = compose().algorithm
    # A second group, interleaved, with other rewards: groups must not see each other.
    rows = [(uid, n, reward) for n, reward in enumerate(rewards) for uid in ("a", "b")]
    scores = torch.zeros(len(rows), 6, dtype=torch.float64)
    mask = torch.zeros(len(rows), 6, dtype=torch.int64)
    for row, (uid, number, reward) in enumerate(rows):
        length = 1 + (3 * number + row) % 6
        mask[row, :length] = 1
        # verl puts the outcome reward on the last response token.
        scores[row, length - 1] = reward if uid == "a" else 7.0 * number**2
    data = DataProto.from_dict(
        tensors={"token_level_rewards": scores, "response_mask": mask},
        non_tensors={"uid": np.array([uid for uid, _, _ in rows], dtype=object)},
    )
    data = compute_advantage_for_multi_trajectories(
        data,
        batch_keys=[f"{uid}_{number}_0" for uid, number, _ in rows],
        adv_estimator=config.adv_estimator,
        norm_adv_by_std_in_grpo=config.norm_adv_by_std_in_grpo,
        config=config,
    )
    expected = group_advantages(np.array(rewards))
    for row, (uid, number, _) in enumerate(rows):
        if uid == "a":
            wanted = expected[number] * mask[row].numpy()
            np.testing.assert_allclose(
                data.batch["advantages"][row], wanted, rtol=0, atol=rounding(8, size=3)
            )


# ---- verl's loss and micro-batch arithmetic -----------------------------------------------------


def table_steps(rank: int, world_size: int) -> dict[str, tuple[float, np.ndarray]]:
    """Loss and gradient of verl's real update path for a policy that is a table of log-probs.

    Returns:
        One a way of making micro-batches.
    """
    from verl.utils.config import omega_conf_to_dataclass
    from verl.workers.engine.fsdp.transformer_impl import FSDPEngine
    from verl.workers.utils.losses import ppo_loss

    class LogProbTable(FSDPEngine):
        """verl's engine with everything but the model: a parameter holds all log-probs."""

        def __init__(self, table: torch.Tensor) -> None:
            self.module = torch.nn.Module()
            self.module.table = torch.nn.Parameter(table)
            self.engine_config = actor_config.engine
            self.ulysses_sequence_parallel_size = 1
            self.ulysses_device_mesh = None
            self.scaler = None

        def forward_step(self, micro_batch, loss_function, forward_only):
            rows = []
            for row, prompt, response in zip(
                micro_batch["rollout"].unbind(),
                micro_batch["prompts"].unbind(),
                micro_batch["responses"].unbind(),
                strict=True,
            ):
                # A model gives each token's log-prob one place earlier, and prompt tokens' too.
                rest = torch.full((len(prompt) - 1,), 9.0, dtype=torch.float64)
                mine = self.module.table[row, : len(response)]
                rows.append(torch.cat([rest, mine, rest[:1]]))
            log_probs = torch.nested.as_nested_tensor(rows, layout=torch.jagged)
            loss, metrics = loss_function(
                model_output={"log_probs": log_probs}, data=micro_batch, dp_group=None
            )
            return loss, {"loss": loss.item(), "metrics": metrics, "model_output": {}}

    actor_config = omega_conf_to_dataclass(compose().actor_rollout_ref.actor)
    new, old = hand_made_log_probs()
    table = np.zeros((len(new) + PADDING_SAMPLES, max(LENGTHS)))
    for row, values in enumerate(new):
        table[row, : len(values)] = values
    samples = hand_made_samples(old)
    # Strided, so that ranks hold different numbers of tokens.
    mine = range(rank, len(samples), world_size)
    results = {}
    for name, settings in micro_batches(len(mine)).items():
        data = training_batch([samples[i] for i in mine], torch.float64, **settings)
        data["rollout"] = torch.tensor(list(mine))
        engine = LogProbTable(torch.from_numpy(table.copy()))
        output = engine.forward_backward_batch(data, partial(ppo_loss, config=actor_config))
        loss = torch.tensor(sum(output["loss"]), dtype=torch.float64)
        gradient = engine.module.table.grad
        # What FSDP and verl's `_postprocess_output` do: both are averaged over the ranks.
        for value in (loss, gradient):
            torch.distributed.all_reduce(value)
            value /= world_size
        results[name] = loss.item(), gradient.numpy()
    return results


def micro_batches(samples: int) -> dict[str, dict]:
    """Ways of cutting a rank's samples, in verl's settings."""
    sizes = {"one micro-batch": samples, "several": 2, "one sample each": 1}
    fixed = {
        name: {"use_dynamic_bsz": False, "micro_batch_size_per_gpu": size}
        for name, size in sizes.items()
    }
    return {**fixed, "dynamic": {"use_dynamic_bsz": True, "max_token_len_per_gpu": 40}}


@pytest.mark.parametrize("world_size", [1, 2])
def test_verls_loss_is_equation_9(world_size):
    new, old = hand_made_log_probs()
    advantages = hand_made_advantages()
    wanted_loss = dapo_loss(new, old, advantages)
    wanted = dapo_gradient(new, old, advantages)
    for results in run_on_ranks(table_steps, world_size, world_size):
        for name, (loss, gradient) in results.items():
            assert loss == pytest.approx(wanted_loss, rel=0, abs=FLOAT64_SUMS), name
            for row, values in enumerate(wanted):
                mine, rest = np.split(gradient[row], [len(values)])
                message = f"{name}, rollout {row}"
                np.testing.assert_allclose(mine, values, rtol=0, atol=FLOAT64_SUMS, err_msg=message)
                assert not rest.any(), message
            assert not gradient[len(wanted) :].any(), f"{name}: padding samples"


# ---- the whole actor engine, soft prompts included ----------------------------------------------


@pytest.fixture(scope="module", params=[False, True], ids=["untied", "tied"])
def tiny_model(request, tmp_path_factory):
    return make_random_model(tmp_path_factory.mktemp("model") / "tiny", tied=request.param)


def engine_steps(rank: int, world_size: int, model, samples: list[Sample], overrides: list[str]):
    """Log-probs, loss and gradient by verl's actor engine, one a layout."""
    from verl.workers.utils.losses import ppo_loss
    from verl.workers.utils.padding import response_from_nested

    engine, config = make_engine(model, *overrides)
    mine = samples[rank::world_size]
    ways = micro_batches(len(mine))
    results = {}
    for layout, way in (
        ("packed", "several"),
        ("packed", "dynamic"),
        ("padded", "one micro-batch"),
        ("padded", "several"),
        ("padded", "dynamic"),
    ):
        settings = {"use_remove_padding": layout == "packed", **ways[way]}
        # As `compute_log_prob` and `update_actor` of verl's worker call it.
        data = training_batch(mine, **settings)
        with engine.eval_mode():
            output = engine.infer_batch(data)["model_output"]
        log_probs = response_from_nested(output["log_probs"], data["response_mask"])
        with engine.train_mode():
            engine.optimizer_zero_grad()
            output = engine.forward_backward_batch(
                training_batch(mine, **settings), partial(ppo_loss, config=config)
            )
            gradients = {
                name: parameter.grad.full_tensor().numpy()
                for name, parameter in engine.module.named_parameters()
            }
        loss = torch.tensor(sum(output["loss"]))
        torch.distributed.all_reduce(loss)
        results[f"{layout}, {way}"] = (
            [row.numpy() for row in log_probs.unbind()],
            loss.item() / world_size,
            gradients,
        )
    return results


@pytest.mark.parametrize(
    ("world_size", "overrides"),
    [
        (1, []),
        (2, ["actor_rollout_ref.model.enable_gradient_checkpointing=true"]),
    ],
    ids=["1 rank", "2 ranks, gradient checkpointing"],
)
def test_the_engines_update_is_equation_9(tiny_model, world_size, overrides):
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float64)
    reals = slice(0, len(LENGTHS))
    unrated = hand_made_samples([np.zeros(length) for length in LENGTHS])
    rows = plain_torch_log_probs(model, unrated[reals])
    new = [row.detach().numpy() for row in rows]
    old = [row - np.log(ratios) for row, ratios in zip(new, hand_made_ratios(), strict=True)]
    wanted_loss = dapo_loss(new, old, hand_made_advantages())
    slopes = dapo_gradient(new, old, hand_made_advantages())
    torch.autograd.backward(rows, [torch.from_numpy(slope) for slope in slopes])
    wanted = {name: parameter.grad.numpy() for name, parameter in model.named_parameters()}

    # The test has teeth only where a forgotten H would show.
    forgotten = plain_torch_log_probs(model, unrated[reals], soft_prompts=False)
    assert min(abs(a - b.detach().numpy()).max() for a, b in zip(new, forgotten, strict=True)) > 0.1

    samples = hand_made_samples(old)
    by_rank = run_on_ranks(engine_steps, world_size, world_size, tiny_model, samples, overrides)
    for rank, results in enumerate(by_rank):
        for name, (log_probs, loss, gradients) in results.items():
            for row, values in zip(log_probs, new[rank::world_size], strict=False):
                np.testing.assert_allclose(row, values, rtol=0, atol=FORWARD, err_msg=name)
            assert loss == pytest.approx(wanted_loss, rel=0, abs=BACKWARD), name
            assert gradients.keys() == wanted.keys()
            for parameter, gradient in gradients.items():
                np.testing.assert_allclose(
                    gradient,
                    wanted[parameter],
                    rtol=0,
                    atol=BACKWARD,
                    err_msg=f"{name}: {parameter}",
                )


def updates_through_a_checkpoint(rank: int, model, folder: str, samples: list[Sample]):
    """Parameters after three updates: in one go, and with a checkpoint and a new engine between."""
    from verl.workers.utils.losses import ppo_loss

    def update(engine, config) -> None:
        settings = {"use_remove_padding": True, **micro_batches(len(samples))["several"]}
        with engine.train_mode():
            engine.train_batch(
                training_batch(samples, **settings), partial(ppo_loss, config=config)
            )

    def parameters(engine) -> list[np.ndarray]:
        return [p.detach().full_tensor().numpy().copy() for p in engine.module.parameters()]

    engine, config = make_engine(model, "actor_rollout_ref.actor.optim.lr=1e-2")
    start = parameters(engine)
    update(engine, config)
    update(engine, config)
    engine.save_checkpoint(folder, global_step=2)
    update(engine, config)
    resumed, config = make_engine(model, "actor_rollout_ref.actor.optim.lr=1e-2")
    resumed.load_checkpoint(folder, del_local_after_load=False)
    update(resumed, config)
    return start, parameters(engine), parameters(resumed)


def test_a_resumed_update_repeats_itself_bit_for_bit(tiny_model, tmp_path):
    """Weights, optimiser state and the soft prompts' draws all come back from a checkpoint."""
    samples = hand_made_samples([np.full(length, -2.0) for length in LENGTHS])
    arguments = (tiny_model, str(tmp_path / "actor"), samples)
    ((start, uninterrupted, resumed),) = run_on_ranks(updates_through_a_checkpoint, 1, *arguments)
    for one, other in zip(uninterrupted, resumed, strict=True):
        np.testing.assert_array_equal(one, other)
    assert max(abs(a - b).max() for a, b in zip(start, resumed, strict=True)) > 1e-3


# ---- what users of DAPO may switch on -----------------------------------------------------------

DYNAMIC_SAMPLING = ["algorithm.filter_groups.enable=true"]
SOFT_OVERLONG = [
    "data.max_response_length=20",
    "reward.reward_kwargs.overlong_buffer_cfg.enable=true",
    "reward.reward_kwargs.overlong_buffer_cfg.len=8",
]


@pytest.mark.parametrize(("overrides", "metric"), [([], None), (DYNAMIC_SAMPLING, "acc")])
def test_dynamic_sampling_is_off_by_default_and_filters_on_accuracy(overrides, metric):
    from types import SimpleNamespace

    from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync

    trainer = SimpleNamespace(config=compose("dapo_rsp", *overrides))
    assert PPOTrainerSync._resolve_filter_groups_metric(trainer) == metric


def test_dynamic_sampling_drops_groups_that_are_all_right_or_all_wrong(monkeypatch):
    """By accuracy, not reward: a format reward or a length penalty must not keep such a group."""
    from verl.trainer.ppo.v1 import replay_buffer

    accuracies = {"right": (1, 1), "wrong": (0, 0), "mixed": (0, 1)}
    fields = {
        f"{uid}_{n}_0": {"reward_extra_info": {"acc": float(acc), "score": 0.5 * n}}
        for uid, group in accuracies.items()
        for n, acc in enumerate(group)
    }
    # The samples' store is TransferQueue, a service of a running trainer.
    monkeypatch.setattr(
        replay_buffer.tq,
        "kv_batch_get",
        lambda keys, **_: {"extra_fields": [fields[key] for key in keys]},
    )
    config = compose("dapo_rsp", *DYNAMIC_SAMPLING)
    buffer = replay_buffer.ReplayBuffer(
        trainer_mode="sync",
        trainer_config=config.trainer.v1,
        max_off_policy_threshold=None,
        max_off_policy_strategy="drop",
        sampler_kwargs={},
        refill_fn=lambda count: count,
        filter_groups_metric=config.algorithm.filter_groups.metric,
    )
    buffer.partitions["train"] = {key: {} for key in fields}
    buffer.finished_keys["train"] = set(accuracies)
    dropped, _ = buffer._dapo_filtered_keys("train")
    assert dropped == {"right", "wrong"}


@pytest.mark.parametrize(
    ("overrides", "length", "penalty"),
    [
        ([], 20, 0.0),
        (SOFT_OVERLONG, 3, 0.0),
        (SOFT_OVERLONG, 12, 0.0),
        (SOFT_OVERLONG, 13, -1 / 8),
        (SOFT_OVERLONG, 16, -0.5),
        (SOFT_OVERLONG, 20, -1.0),
    ],
)
def test_soft_overlong_punishment(overrides, length, penalty):
    """DAPO, Eq. 13: linear in the last `len` tokens before the cap; accuracy is left alone."""
    import asyncio

    from verl import DataProto
    from verl.trainer.ppo.reward import load_reward_manager

    class Decoder:
        """The manager needs no more of a tokenizer."""

        def decode(self, ids, skip_special_tokens):
            return r"so \boxed{4}"

    async def score():
        manager = load_reward_manager(compose("dapo_rsp", *overrides), Decoder())
        prompts, responses = torch.ones(1, 6).long(), torch.ones(1, length).long()
        data = DataProto.from_dict(
            tensors={
                "prompts": prompts,
                "responses": responses,
                "attention_mask": torch.cat([prompts, responses], dim=1),
            },
            non_tensors={
                "data_source": np.array(["arithmetic"], dtype=object),
                "reward_model": np.array([{"ground_truth": "4"}], dtype=object),
                "extra_info": np.array([{}], dtype=object),
            },
        )
        return await manager.run_single(data)

    result = asyncio.run(score())
    assert float(result["reward_score"]) == pytest.approx(1.0 + penalty)
    assert result["reward_extra_info"]["acc"] == 1.0
