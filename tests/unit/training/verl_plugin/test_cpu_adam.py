"""DeepSpeed's CPU Adam as verl builds it: its step is torch's AdamW's, on shards too."""

from __future__ import annotations

import pytest
import torch

from tests.tolerances import rounding

try:
    from deepspeed.ops.op_builder import CPUAdamBuilder

    CPUAdamBuilder().load()
    REASON = ""
except ModuleNotFoundError as error:
    if error.name != "deepspeed":
        raise
    REASON = "DeepSpeed, an optional extra (rsp-rl[low-memory]), is not installed"
except Exception as error:  # no compiler, no ninja, another torch: the build raises any kind
    REASON = f"DeepSpeed's C++ extension does not build here: {type(error).__name__}: {error}"

pytestmark = pytest.mark.skipif(bool(REASON), reason=REASON)

SHAPES = ((17, 5), (64,), (3, 4, 2))
STEPS = 20
#: Each step rounds a weight of up to 4, in either optimizer.
ROUNDING = rounding(2 * STEPS, size=4)
OPTIONS = {"lr": 1e-3, "weight_decay": 0.1, "betas": (0.9, 0.95)}


def _gradient(step: int, shape: tuple[int, ...]) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1000 * step + sum(shape)))


def _weights() -> list[torch.nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in SHAPES]


def _as_verl_builds_it(parameters: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
    from hydra.utils import instantiate
    from verl.workers.config.optimizer import build_optimizer

    from rsp_rl.training.configs import compose_config

    optim = compose_config("dapo_rsp", ["+memory=low"]).actor_rollout_ref.actor.optim
    optim.lr, optim.weight_decay, optim.betas = OPTIONS.values()
    return build_optimizer(parameters, instantiate(optim))


def _train(parameters: list, optimizer: torch.optim.Optimizer, first: int = 0) -> None:
    for step in range(first, STEPS):
        for parameter, shape in zip(parameters, SHAPES, strict=True):
            parameter.grad = _gradient(step, shape)
        optimizer.param_groups[0]["lr"] = OPTIONS["lr"] * (1 + step % 3)  # as a schedule does
        optimizer.step()


def _reference() -> list[torch.nn.Parameter]:
    expected = _weights()
    _train(expected, torch.optim.AdamW(expected, **OPTIONS))
    return expected


def _assert_equal(found: list, expected: list) -> None:
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours.detach(), theirs.detach(), rtol=0, atol=ROUNDING)


def test_step_is_torchs_adamw_to_rounding() -> None:
    found = _weights()
    _train(found, _as_verl_builds_it(found))
    _assert_equal(found, _reference())
    assert all((a - b).abs().max() > 1e-3 for a, b in zip(found, _weights(), strict=True))


def test_a_resumed_optimizer_goes_on_as_if_never_stopped() -> None:
    """To rounding: DeepSpeed multiplies the powers of beta up, and starts anew from their power."""
    whole, parts = _weights(), _weights()
    _train(whole, _as_verl_builds_it(whole))
    optimizer = _as_verl_builds_it(parts)
    for step in range(7):
        for parameter, shape in zip(parts, SHAPES, strict=True):
            parameter.grad = _gradient(step, shape)
        optimizer.param_groups[0]["lr"] = OPTIONS["lr"] * (1 + step % 3)
        optimizer.step()
    resumed = _as_verl_builds_it(parts)
    resumed.load_state_dict(optimizer.state_dict())
    _train(parts, resumed, first=7)
    _assert_equal(parts, whole)
    assert resumed.state[parts[0]]["step"] == STEPS


def test_parameters_without_a_gradient_stay() -> None:
    parameters = _weights()
    _as_verl_builds_it(parameters).step()
    for parameter, before in zip(parameters, _weights(), strict=True):
        assert torch.equal(parameter, before)


def _sharded(rank: int) -> list[torch.Tensor]:
    """Train DTensors that two ranks share; returns them whole."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Shard, distribute_tensor

    mesh = init_device_mesh("cpu", (2,))
    shard = [Shard(0)]
    parameters = [torch.nn.Parameter(distribute_tensor(w.data, mesh, shard)) for w in _weights()]
    optimizer = _as_verl_builds_it(parameters)
    for step in range(STEPS):
        for parameter, shape in zip(parameters, SHAPES, strict=True):
            parameter.grad = distribute_tensor(_gradient(step, shape), mesh, shard)
        optimizer.param_groups[0]["lr"] = OPTIONS["lr"] * (1 + step % 3)
        optimizer.step()
        optimizer.zero_grad()
    return [parameter.detach().full_tensor() for parameter in parameters]


def test_shards_of_two_ranks_are_updated_as_the_whole() -> None:
    """The first dimensions are 17, 64 and 3: uneven shards among them."""
    from parity.ranks import run_on_ranks

    for found in run_on_ranks(_sharded, 2):
        _assert_equal(found, _reference())
