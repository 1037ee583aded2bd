"""Rewards that are no number: noted where they come from, refused where a run can end."""

from __future__ import annotations

import asyncio
import inspect
import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from ray.exceptions import RayActorError, RayTaskError
from verl.experimental.agent_loop.agent_loop import AgentLoopWorker
from verl.trainer.ppo.v1 import AgentLoopManagerTQ
from verl.utils.tensordict_utils import list_of_dict_to_tensordict

from rsp_rl.basics.errors import ConfigError
from rsp_rl.training.verl_plugin import trainer as trainer_module
from rsp_rl.training.verl_plugin.agent_loop import SoftPromptAgentLoopManager
from rsp_rl.training.verl_plugin.rewards import (
    FAULT,
    RewardCheckingWorker,
    check_rewards,
    reward_fault,
)
from rsp_rl.training.verl_plugin.trainer import SoftPromptTrainer

WORKER = RewardCheckingWorker.__ray_actor_class__


@pytest.mark.parametrize(
    "reward", [0, 1.0, -2.5, True, np.float32(0.5), np.array(1.0), torch.tensor(0.25)]
)
def test_numbers(reward: Any) -> None:
    assert reward_fault(reward) is None


BAD = [
    (math.nan, "nan, which no advantage can be made of"),
    (-math.inf, "-inf, which"),
    (np.float64("nan"), "nan, which"),
    (torch.tensor(math.inf), "inf, which"),
    (1e39, "1e[+]39, which"),  # infinite in float32
    (10**400, "10000"),  # and in float64
    ([1.0, 2.0], r"\[1.0, 2.0\], of type list"),
    ((1.0,), "of type tuple"),
    ("0.5", "'0.5', of type str"),
    (None, "None, of type NoneType"),
    ({"score": 1.0}, "of type dict"),
    (np.ones(2), r"a ndarray of shape \(2,\)"),
    (torch.ones(1, 1), r"a Tensor of shape \(1, 1\)"),
]


def _scored(
    monkeypatch: pytest.MonkeyPatch, reward: Any, info: Any = None, metric: str | None = "acc"
) -> SimpleNamespace:
    """An agent loop's output after the worker has asked for its reward."""

    async def compute(self: Any, outputs: list, kwargs: dict) -> None:
        if isinstance(reward, Exception):
            raise reward
        outputs[-1].reward_score = reward
        outputs[-1].extra_fields["reward_extra_info"] = info

    monkeypatch.setattr(AgentLoopWorker, "_compute_score", compute)
    worker = object.__new__(WORKER)
    worker.reward_loop_worker_handles = [object()]
    worker.config = OmegaConf.create(
        {"algorithm": {"filter_groups": {"enable": metric is not None, "metric": metric}}}
    )
    output = SimpleNamespace(reward_score=None, extra_fields={})
    asyncio.run(worker._compute_score([output], kwargs={}))
    return output


def test_a_good_reward_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    output = _scored(monkeypatch, 0.5, {"acc": 1.0})
    assert output.reward_score == 0.5
    assert output.extra_fields == {"reward_extra_info": {"acc": 1.0}}


@pytest.mark.parametrize(("reward", "fault"), BAD)
def test_a_bad_reward_is_noted_and_refused(
    monkeypatch: pytest.MonkeyPatch, reward: Any, fault: str
) -> None:
    output = _scored(monkeypatch, reward, {"acc": reward, "pred": "4"})
    info = output.extra_fields["reward_extra_info"]
    assert math.isnan(output.reward_score)
    assert math.isnan(info["acc"])  # dynamic sampling makes a float of it
    assert info["pred"] == "4"
    with pytest.raises(
        ConfigError, match=rf"^1 of 2 rewards of step 3 .*of sample 1, is .*{fault}"
    ):
        check_rewards([1.0, output.reward_score], [{}, info], "sample {}".format, "step 3")


@pytest.mark.parametrize(
    ("info", "fault"),
    [
        ({}, "no 'acc' beside it, by which algorithm.filter_groups"),
        ({"acc": math.nan}, "'acc', which algorithm.filter_groups reads, is nan"),
        ({"acc": [1]}, r"is \[1\], of type list"),
    ],
)
def test_dynamic_sampling_needs_a_number_too(
    monkeypatch: pytest.MonkeyPatch, info: dict, fault: str
) -> None:
    output = _scored(monkeypatch, 1.0, info)
    with pytest.raises(ConfigError, match=fault):
        check_rewards(
            [output.reward_score], [output.extra_fields["reward_extra_info"]], str, "step 1"
        )
    for metric in (None, "reward"):
        assert _scored(monkeypatch, 1.0, info, metric).reward_score == 1.0


def test_an_error_of_the_reward_function_is_its_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    output = _scored(monkeypatch, RayTaskError("f", "trace\nback", KeyError("score")))
    info = output.extra_fields["reward_extra_info"]
    assert info[FAULT] == "an error, KeyError: 'score'"
    with pytest.raises(RayActorError):  # the watchdog says more
        _scored(monkeypatch, RayActorError())


def test_a_reward_model_that_the_trainer_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    async def nothing(self: Any, outputs: list, kwargs: dict) -> None:
        pass

    monkeypatch.setattr(AgentLoopWorker, "_compute_score", nothing)
    worker = object.__new__(WORKER)
    worker.reward_loop_worker_handles = None
    output = SimpleNamespace(reward_score=None, extra_fields={})
    asyncio.run(worker._compute_score([output], kwargs={}))
    assert output.reward_score is None


def test_verl_still_asks_for_rewards_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a worker gets its reward, and which class of workers a manager starts."""
    parameters = inspect.signature(AgentLoopWorker._compute_score).parameters
    assert list(parameters)[:3] == ["self", "outputs", "kwargs"]  # Ray adds one
    assert "self._compute_score(outputs, kwargs=kwargs)" in inspect.getsource(
        WORKER._agent_loop_postprocess
    )

    def start(self: Any) -> None:
        self.agent_loop_workers_class = None
        self.config = OmegaConf.create({"rsp": {"length": 0}})

    monkeypatch.setattr(AgentLoopManagerTQ, "__init__", start)
    assert SoftPromptAgentLoopManager().agent_loop_workers_class is RewardCheckingWorker


def test_the_step_names_the_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    data = list_of_dict_to_tensordict([{"data_source": "sums", "index": 17, "session_id": 2}])
    asked = []
    monkeypatch.setattr(
        trainer_module.tq, "kv_batch_get", lambda keys, **_: asked.extend(keys) or data
    )
    trainer = object.__new__(SoftPromptTrainer)
    tags = [{}, {"is_padding": True}, {}]
    batch = SimpleNamespace(keys=["a_0_0", "pad_0_0", "b_2_0"], tags=tags, partition_id="train")
    named = "rollout 2 of the row with extra_info.index 17 (sums), uid b"
    assert trainer._sample_name(batch, 1) == named
    assert asked == ["b_2_0"]


def test_the_validation_names_the_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        trainer_module.PPOTrainerSync, "_val_metrics_update", lambda self, *_, **__: {"ok": 1.0}
    )
    trainer = object.__new__(SoftPromptTrainer)
    trainer.global_steps = 4
    good = {"reward": [1.0, 0.0], "acc": [1.0, 0.0]}
    assert trainer._val_metrics_update(["s", "s"], ["u", "v"], good, []) == {"ok": 1.0}
    bad = {"reward": [1.0, math.nan], FAULT: [None, "None, of type NoneType, not a number"]}
    with pytest.raises(ConfigError, match=r"1 of 2 .*validation at step 4 .*of s, uid v, is None"):
        trainer._val_metrics_update(["s", "s"], ["u", "v"], bad, [])
