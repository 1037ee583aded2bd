"""The `rsp:` config group: every bad value is one clear error, and records follow the mode."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from omegaconf import OmegaConf

from rsp_rl.options import ConfigError, GuardOptions, RspOptions, rollout_dtype
from rsp_rl.soft_prompt import rollout_seed

SET = RspOptions(mean=0.01, std=0.5)
PLACE = {
    "step": 3,
    "prompt_index": 17,
    "rollout": 5,
    "group_start": 0,
    "start": 40,
    "dtype": "bfloat16",
    "placeholder_id": 9,
}


def test_defaults_are_the_papers() -> None:
    options = RspOptions.from_config({})
    assert options == RspOptions()
    assert (options.length, options.position, options.scale) == (20, "suffix", 1.0)
    assert (options.mode, options.validation, options.enabled) == ("independent", False, True)
    assert (options.mean, options.std) == (None, None)
    assert options.guard == GuardOptions(max_mean_gap=0.1, steps=5)


def test_from_config_takes_hydras_config() -> None:
    config = OmegaConf.create(
        {
            "length": 8,
            "position": "infix",
            "scale": 2,
            "mode": "shared",
            "seed": -7,
            "validation": True,
            "mean": 0,
            "std": 0.25,
            "guard": {"max_mean_gap": 1e-4, "steps": 0},
        }
    )
    assert RspOptions.from_config(config) == RspOptions(
        length=8,
        position="infix",
        scale=2,
        mode="shared",
        seed=-7,
        validation=True,
        mean=0,
        std=0.25,
        guard=GuardOptions(max_mean_gap=1e-4, steps=0),
    )


@pytest.mark.parametrize("guard", [None, {}])
def test_guard_may_be_left_out(guard: object) -> None:
    assert RspOptions.from_config({"guard": guard}).guard == GuardOptions()


def test_zero_length_turns_rsp_off() -> None:
    assert not RspOptions(length=0).enabled
    assert RspOptions(length=1).enabled


_BAD = [
    *(("length", value) for value in (-1, 1.5, "20", None, True, math.nan, [20])),
    *(("position", value) for value in ("middle", "Suffix", "", None, 1, ["suffix"])),
    *(("scale", value) for value in (math.nan, math.inf, -0.5, "1", None, True, [1.0])),
    *(("mode", value) for value in ("fixed", "Shared", None, 0)),
    *(("seed", value) for value in (1.0, "42", None, True)),
    *(("validation", value) for value in ("no", 1, None)),
    *(("seeded_sampling", value) for value in ("false", 0)),
]
_BAD_GUARD = [
    *(("max_mean_gap", value) for value in (0, -1, math.nan, math.inf, "0.1", None, True)),
    *(("steps", value) for value in (-1, 2.5, "5", None, True)),
]


@pytest.mark.parametrize(("name", "value"), _BAD)
def test_bad_value(name: str, value: object) -> None:
    with pytest.raises(ConfigError, match=rf"^rsp\.{name}=") as caught:
        RspOptions.from_config({name: value})
    assert repr(value) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("name", "value"), _BAD_GUARD)
def test_bad_guard_value(name: str, value: object) -> None:
    with pytest.raises(ConfigError, match=rf"^rsp\.guard\.{name}=") as caught:
        RspOptions.from_config({"guard": {name: value}})
    assert repr(value) in str(caught.value)


@pytest.mark.parametrize(
    ("law", "cause"),
    [
        ({"mean": 0.1}, "set both"),
        ({"std": 0.1}, "set both"),
        ({"mean": math.nan, "std": 0.1}, r"rsp\.mean=nan"),
        ({"mean": "0", "std": 0.1}, r"rsp\.mean='0'"),
        ({"mean": 0.0, "std": -0.1}, r"rsp\.std=-0\.1"),
        ({"mean": 0.0, "std": math.inf}, r"rsp\.std=inf"),
        ({"mean": 0.0, "std": "wide"}, r"rsp\.std='wide'"),
    ],
)
def test_bad_law(law: dict, cause: str) -> None:
    with pytest.raises(ConfigError, match=cause):
        RspOptions.from_config(law)


@pytest.mark.parametrize(
    ("config", "cause"),
    [
        ({"lenght": 20}, r"unknown option rsp\.lenght; known: .*'length'"),
        ({"foo": 1, "bar": 2}, r"unknown option rsp\.bar"),
        ({"guard": {"bound": 1}}, r"unknown option rsp\.guard\.bound; known: .*'max_mean_gap'"),
        ({"guard": 0.1}, r"rsp\.guard=0\.1 must be a group"),
        ({"guard": [1]}, r"rsp\.guard=\[1\] must be a group"),
        (None, "rsp=None must be a group"),
        ("off", "rsp='off' must be a group"),
    ],
)
def test_unknown_options(config: object, cause: str) -> None:
    with pytest.raises(ConfigError, match=cause):
        RspOptions.from_config(config)


def test_options_are_immutable() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        SET.length = 3


# Records.


def test_record_holds_the_law_and_the_place() -> None:
    options = dataclasses.replace(SET, length=8, scale=3.0)
    record = options.record(**PLACE)
    assert (record.seed, record.start, record.length) == (rollout_seed(42, 3, 17, 5), 40, 8)
    assert (record.mean, record.std) == (0.01, 1.5)
    assert (record.dtype, record.placeholder_id) == ("bfloat16", 9)


def _seeds(options: RspOptions, **changes: object) -> list[int]:
    """Of a group of eight."""
    place = {**PLACE, **changes}
    start = place["group_start"]
    return [
        options.record(**{**place, "rollout": rollout}).seed for rollout in range(start, start + 8)
    ]


def test_independent_rollouts_have_a_draw_each() -> None:
    seeds = _seeds(SET)
    assert len(set(seeds)) == 8
    assert not set(seeds) & set(_seeds(SET, group_start=8))
    assert not set(seeds) & set(_seeds(SET, step=4))
    assert not set(seeds) & set(_seeds(SET, prompt_index=18))


def test_shared_rollouts_have_one_draw_a_group() -> None:
    shared = dataclasses.replace(SET, mode="shared")
    groups = [
        _seeds(shared),
        _seeds(shared, group_start=8),
        _seeds(shared, step=4),
        _seeds(shared, prompt_index=18),
    ]
    assert all(len(set(seeds)) == 1 for seeds in groups)
    assert len({seeds[0] for seeds in groups}) == len(groups)
    rows = [shared.record(**{**PLACE, "rollout": n}).draw(16) for n in (0, 7)]
    assert torch.equal(*rows)


@pytest.mark.parametrize("mode", ["independent", "shared"])
def test_validation_draws_are_those_of_every_validation_and_of_no_training(mode: str) -> None:
    options = dataclasses.replace(SET, mode=mode)
    first = _seeds(options, step=10, validation=True)
    assert first == _seeds(options, step=20, validation=True)
    training = {seed for step in range(25) for seed in _seeds(options, step=step)}
    assert not set(first) & training


def test_run_seed_decides_the_draws() -> None:
    assert not set(_seeds(SET)) & set(_seeds(dataclasses.replace(SET, seed=43)))


def test_record_without_the_law_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"rsp\.mean and rsp\.std are not set.*rsp-rl train"):
        RspOptions().record(**PLACE)


# Rollout dtypes.


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("float32", "float32"),
        ("float", "float32"),
        ("fp32", "float32"),
        ("torch.float32", "float32"),
        (torch.float32, "float32"),
        ("bfloat16", "bfloat16"),
        ("bf16", "bfloat16"),
        (torch.bfloat16, "bfloat16"),
        ("float16", "float16"),
        ("fp16", "float16"),
        ("half", "float16"),
        (torch.float16, "float16"),
    ],
)
def test_rollout_dtype(given: object, expected: str) -> None:
    assert rollout_dtype(given) == expected
    assert SET.record(**{**PLACE, "dtype": given}).dtype == expected


@pytest.mark.parametrize("given", ["auto", "fp8", "float64", "int8", "", None, "Float32"])
def test_other_rollout_dtypes_are_refused(given: object) -> None:
    with pytest.raises(ConfigError, match=r"actor_rollout_ref\.rollout\.dtype") as caught:
        rollout_dtype(given)
    assert repr(given) in str(caught.value)
