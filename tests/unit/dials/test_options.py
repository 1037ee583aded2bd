"""The `rsp:` config group: every bad value is one clear error, and records follow the mode."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from omegaconf import OmegaConf

from rsp_rl.basics.errors import ConfigError
from rsp_rl.dials.options import GuardOptions, RspOptions, rollout_dtype
from rsp_rl.dials.schedule import Schedule
from rsp_rl.draws.laws import LAWS
from rsp_rl.draws.seeds import rollout_seed

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
            "law": "sphere",
            "length_schedule": {"shape": "linear", "end": 2, "steps": 10},
            "scale_schedule": {"shape": "cosine", "end": 0.5, "steps": 10},
            "probability": 0.25,
            "mixing": "none",
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
        law="sphere",
        length_schedule=Schedule("linear", 2, 10),
        scale_schedule=Schedule("cosine", 0.5, 10),
        probability=0.25,
        seed=-7,
        validation=True,
        mean=0,
        std=0.25,
        guard=GuardOptions(max_mean_gap=1e-4, steps=0),
    )


@pytest.mark.parametrize("group", [None, {}])
@pytest.mark.parametrize("name", ["guard", "length_schedule", "scale_schedule"])
def test_groups_may_be_left_out(name: str, group: object) -> None:
    assert RspOptions.from_config({name: group}) == RspOptions()


def test_zero_length_turns_rsp_off() -> None:
    assert not RspOptions(length=0).enabled
    assert RspOptions(length=1).enabled


_BAD = [
    *(("length", value) for value in (-1, 1.5, "20", None, True, math.nan, [20])),
    *(("position", value) for value in ("middle", "Suffix", "", None, 1, ["suffix"])),
    *(("scale", value) for value in (math.nan, math.inf, -0.5, "1", None, True, [1.0])),
    *(("mode", value) for value in ("fixed", "Shared", None, 0)),
    *(("law", value) for value in ("normal", "Gaussian", None, ["gaussian"])),
    *(("probability", value) for value in (0, -0.1, 1.5, math.nan, "0.5", None, True)),
    *(("mixing", value) for value in ("halves", None, 0.5)),
    *(("seed", value) for value in (1.0, "42", None, True)),
    *(("table", value) for value in (1, ["folder"])),
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
    ("options", "cause"),
    [
        ({"length_schedule": {"shape": "step"}}, r"rsp\.length_schedule\.shape='step'"),
        ({"length_schedule": {"shape": ["linear"]}}, r"rsp\.length_schedule\.shape=\['linear'\]"),
        ({"length_schedule": {"end": 3}}, r"rsp\.length_schedule\.shape=constant; set it to"),
        ({"length_schedule": {"steps": 3}}, r"rsp\.length_schedule\.shape=constant; set it to"),
        *(
            (
                {"length_schedule": {"shape": "linear", "end": end, "steps": 5}},
                "length_schedule.end",
            )
            for end in (None, -1, 2.5, "3", True)
        ),
        *(
            ({"scale_schedule": {"shape": "cosine", "end": end, "steps": 5}}, "scale_schedule.end")
            for end in (None, -0.5, math.nan, math.inf, "1")
        ),
        *(
            ({"scale_schedule": {"shape": "linear", "end": 0, "steps": steps}}, r"\.steps=")
            for steps in (None, 1, 0, -3, 2.5, "9")
        ),
        ({"mixing": "half", "probability": 0.5}, "both say which rollouts"),
        ({"law": "vocab", "scale": 2.0}, r"rsp\.law=vocab takes rows .* as they are"),
        (
            {"law": "vocab", "scale_schedule": {"shape": "linear", "end": 0, "steps": 9}},
            r"rsp\.law=vocab takes rows .* as they are",
        ),
    ],
)
def test_bad_dials(options: dict, cause: str) -> None:
    with pytest.raises(ConfigError, match=cause) as caught:
        RspOptions.from_config(options)
    assert "\n" not in str(caught.value)


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
        ({"length_schedule": {"until": 9}}, r"unknown option rsp\.length_schedule\.until"),
        ({"length_schedule": "cosine"}, r"'cosine' must be a group: shape and end and steps"),
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


# Dials: all of them functions of the rollout's place in the run.


GROUP = [{**PLACE, "rollout": rollout} for rollout in range(8)]


def test_the_laws_name_and_table_are_in_the_record() -> None:
    for law in LAWS:
        options = dataclasses.replace(
            SET,
            law=law,
            table_digest="00000000000000ff",
            length=0 if LAWS[law].added else SET.length,
        )
        record = options.record(**PLACE)
        assert (record.law, record.table) == (law, 255 if law == "vocab" else 0)
    with pytest.raises(ConfigError, match=r"rsp\.table_digest is not set.*rsp-rl train"):
        dataclasses.replace(SET, law="vocab").record(**PLACE)


NOISE = RspOptions(law="question_noise", length=0, scale=5)
TOKENS = [4, 5, 6, 7]


def test_noise_is_as_long_as_the_question_and_as_large_as_the_scale() -> None:
    """Without mu_E and sigma_E, which it does not need."""
    record = NOISE.record(**PLACE, question=TOKENS)
    assert (record.length, record.mean, record.std) == (4, 0.0, 5)
    assert record.added_to
    assert record.stands_at(TOKENS)
    assert record.seed == SET.record(**PLACE).seed
    assert (NOISE.enabled, NOISE.adds, NOISE.max_length, NOISE.share) == (True, True, 0, 1.0)
    validation = NOISE.record(**PLACE, question=TOKENS, validation=True)
    assert (validation.length, validation.std) == (4, 5)


def test_alpha_has_a_course_and_rollouts_without_noise_a_record_of_length_0() -> None:
    options = dataclasses.replace(NOISE, scale=0, scale_schedule=Schedule("linear", 8.0, 5))
    assert options.enabled
    records = [options.record(**PLACE | {"step": n}, question=TOKENS) for n in (1, 3, 9)]
    assert [(record.length, record.std) for record in records] == [(0, 0), (4, 4), (4, 8)]
    half = dataclasses.replace(NOISE, mixing="half")
    lengths = [half.record(**place, question=TOKENS).length for place in GROUP]
    assert lengths == [4, 0] * 4
    assert half.share == 0.5


def test_an_alpha_of_0_is_off() -> None:
    off = dataclasses.replace(NOISE, scale=0)
    assert (off.enabled, off.share, off.max_length) == (False, 0.0, 0)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("length", 20),
        ("length", 1),
        ("position", "prefix"),
        ("length_schedule", Schedule("linear", 4, 5)),
    ],
)
def test_noise_has_no_length_and_no_place_of_its_own(name: str, value: object) -> None:
    wanted = rf"rsp\.{name}=.* and rsp\.law=question_noise: it inserts nothing.*set rsp\.length=0"
    with pytest.raises(ConfigError, match=wanted):
        dataclasses.replace(NOISE, **{name: value})


def test_fixed_is_one_draw_for_the_whole_run() -> None:
    fixed = dataclasses.replace(SET, law="fixed")
    places = [
        *GROUP,
        {**PLACE, "step": 4},
        {**PLACE, "prompt_index": 1},
        {**PLACE, "step": 9, "validation": True},
    ]
    assert len({fixed.record(**place).seed for place in places}) == 1
    assert fixed.record(**PLACE).seed not in _seeds(SET)
    other = dataclasses.replace(fixed, seed=43)
    assert other.record(**PLACE).seed != fixed.record(**PLACE).seed


def test_schedules_move_length_and_scale_by_step() -> None:
    options = dataclasses.replace(
        SET,
        length=20,
        length_schedule=Schedule("cosine", 4, 9),
        scale=2.0,
        scale_schedule=Schedule("linear", 0, 9),
    )
    assert options.max_length == 20
    records = [options.record(**{**PLACE, "step": step}) for step in range(1, 12)]
    assert [record.length for record in records] == [20, 19, 18, 15, 12, 9, 6, 5, 4, 4, 4]
    scales = [record.std / SET.std for record in records]
    assert scales == pytest.approx([2, 1.75, 1.5, 1.25, 1, 0.75, 0.5, 0.25, 0, 0, 0])
    # Validation has the dials as they are set, at any step.
    validation = options.record(**{**PLACE, "step": 9, "validation": True})
    assert (validation.length, validation.std) == (20, 1.0)


def test_a_schedule_may_begin_without_soft_prompts() -> None:
    options = dataclasses.replace(SET, length=0, length_schedule=Schedule("linear", 20, 3))
    assert options.enabled
    assert options.max_length == 20
    lengths = [options.record(**{**PLACE, "step": step}).length for step in (1, 2, 3, 4)]
    assert lengths == [0, 10, 20, 20]


@pytest.mark.parametrize("group_start", [0, 8])
def test_half_of_each_group_has_a_soft_prompt(group_start: int) -> None:
    options = dataclasses.replace(SET, mixing="half")
    places = [
        {**PLACE, "group_start": group_start, "rollout": group_start + number}
        for number in range(8)
    ]
    lengths = [options.record(**place).length for place in places]
    assert sorted(lengths) == [0] * 4 + [20] * 4
    assert lengths == [options.rollout_length(**_where(place)) for place in places]
    assert options.share == 0.5
    assert all(options.record(**{**place, "validation": True}).length for place in places)


def _where(place: dict) -> dict:
    return {name: place[name] for name in ("step", "prompt_index", "rollout", "group_start")}


def test_probability_chooses_rollouts_not_groups() -> None:
    options = dataclasses.replace(SET, probability=0.25)
    groups = [
        [options.record(**{**place, "prompt_index": index}).length for place in GROUP]
        for index in range(400)
    ]
    share = sum(length > 0 for lengths in groups for length in lengths) / 3200
    assert share == pytest.approx(0.25, abs=4 * math.sqrt(0.25 * 0.75 / 3200))
    assert {sum(length > 0 for length in lengths) for lengths in groups} >= {0, 1, 2, 3, 4}
    shared = dataclasses.replace(options, mode="shared")  # each still decides for itself
    assert [shared.record(**place).length for place in GROUP] == [
        options.record(**place).length for place in GROUP
    ]


def test_dials_leave_the_draws_alone() -> None:
    """Of the rollouts that have one: the same seeds, so that runs can be compared in pairs."""
    for changes in (
        {"probability": 0.5},
        {"mixing": "half"},
        {"law": "sphere"},
        {"length_schedule": Schedule("linear", 2, 9)},
    ):
        assert _seeds(dataclasses.replace(SET, **changes)) == _seeds(SET)


def test_every_rollout_samples_with_its_own_seed() -> None:
    place = {name: PLACE[name] for name in ("step", "prompt_index")}
    for options in (SET, dataclasses.replace(SET, mode="shared", law="fixed")):
        seeds = [options.sampling_seed(**place, rollout=rollout) for rollout in range(8)]
        assert seeds == [seed >> 1 for seed in _seeds(SET)]
        assert all(0 <= seed < 2**63 for seed in seeds)


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
