"""Comparators as a protocol's settings."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rsp_rl.analysis.condition_protocols import condition_protocols
from rsp_rl.analysis.conditions import draw_name, position_name
from rsp_rl.analysis.trained_or_random import method_name
from rsp_rl.basics.errors import ConfigError
from rsp_rl.comparators.ltpo import Ltpo
from rsp_rl.comparators.methods import METHODS
from rsp_rl.comparators.softcot import SoftCot
from rsp_rl.comparators.ttsv import Ttsv
from rsp_rl.evaluation.protocol import Protocol, load_protocol


def protocol(*overrides: str) -> Protocol:
    return load_protocol("tiny", [f"comparator.{override}" for override in overrides])


def test_methods_bring_their_published_lengths_and_positions() -> None:
    found = {
        name: protocol(f"method={name}", *(["trained=x"] if name != "ltpo" else []))
        for name in METHODS
    }
    assert {name: (p.rsp.length, p.rsp.position) for name, p in found.items()} == {
        "ltpo": (10, "infix"),
        "ttsv": (20, "prefix"),
        "softcot": (4, "infix"),
    }
    assert [p.comparator for p in found.values()] == [Ltpo(), Ttsv("x"), SoftCot("x")]


def test_settings_can_be_overridden_and_read_back() -> None:
    chosen = load_protocol(
        "tiny",
        ["comparator.method=ltpo", "comparator.sigma=4", "rsp.length=8", "rsp.position=suffix"],
    )
    assert chosen.comparator == Ltpo(sigma=4.0)
    assert (chosen.rsp.length, chosen.rsp.position) == (8, "suffix")
    assert Protocol.from_dict(chosen.to_dict()) == chosen


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["sigma=4"], "must be a group with a method, one of ltpo, ttsv, softcot"),
        (["method=coconut"], "must be a group with a method"),
        (["method=ltpo", "lr=4"], r"unknown key comparator\.lr of ltpo; known: sigma, "),
        (["method=ltpo", "steps=1.5"], r"comparator\.steps=1\.5 must be of type int"),
        (["method=ltpo", "sigma=true"], r"comparator\.sigma=True must be of type float"),
        (["method=ttsv"], r"comparator\.trained is missing, which ttsv needs"),
        (["method=softcot", "trained=7"], r"comparator\.trained=7 must be of type str"),
    ],
)
def test_bad_settings(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        protocol(*overrides)


def test_what_does_not_go_together() -> None:
    ltpo = ["comparator.method=ltpo"]
    with pytest.raises(ConfigError, match=r"comparator\.method=ltpo but rsp\.length=0"):
        load_protocol("tiny", [*ltpo, "rsp.length=0"])
    with pytest.raises(ConfigError, match=r"rsp\.scale=2\.0 is RSP's own"):
        load_protocol("tiny", [*ltpo, "rsp.scale=2.0"])
    # LTPO's noise differs from sample to sample, TTSV's prefix does not.
    greedy = ["sampling.temperature=0", "sampling.samples=4"]
    load_protocol("tiny", [*ltpo, *greedy])
    with pytest.raises(ConfigError, match="4 greedy samples of a problem are all the same"):
        load_protocol("tiny", ["comparator.method=ttsv", "comparator.trained=x", *greedy])


def test_fingerprints_heed_settings_and_not_places() -> None:
    plain, ltpo = (
        load_protocol("tiny", ["rsp.length=10", "rsp.position=infix"]),
        protocol("method=ltpo"),
    )
    others = [protocol("method=ltpo", "sigma=4"), replace(ltpo, rsp=replace(ltpo.rsp, length=8))]
    assert len({p.fingerprint() for p in (plain, ltpo, *others)}) == 4
    here, there = protocol("method=ttsv", "trained=a"), protocol("method=ttsv", "trained=b")
    assert here.fingerprint() == there.fingerprint()
    assert protocol("method=ltpo", "sigma=4").fingerprint() == others[0].fingerprint()


def test_fingerprints_from_before_comparators_are_what_they_were() -> None:
    """Golden values: evaluations of old runs are continued."""
    assert load_protocol("rsp_paper").fingerprint() == "86d597f9381dec82"
    assert load_protocol("rsp_paper", ["rsp.length=20"]).fingerprint() == "02f6b3025d5858e2"


def test_conditions_of_table_1() -> None:
    base = load_protocol("tiny", ["rsp.length=8", "rsp.seed=7"])
    comparators = [["ltpo", "sigma=4", "rsp.length=5"], ["ttsv", "trained=x"]]
    found = condition_protocols("trained-or-random", base, comparators=comparators)
    assert [method_name(p) for p in found.values()] == list(found)
    assert list(found) == ["baseline", "random", "ltpo", "ttsv"]
    assert [p.rsp.length for p in found.values()] == [0, 8, 5, 20]
    assert {p.rsp.seed for p in found.values()} == {7}
    assert found["ltpo"].comparator == Ltpo(sigma=4.0)
    assert {p.benchmarks for p in found.values()} == {base.benchmarks}
    assert [position_name(p) for p in found.values()] == ["baseline", "suffix", "ltpo", "ttsv"]
    assert draw_name(found["ltpo"]) == "ltpo, greedy"
    with pytest.raises(ConfigError, match="--comparator ltpo is given twice"):
        condition_protocols("trained-or-random", base, comparators=[["ltpo"], ["ltpo"]])
    with pytest.raises(ConfigError, match="--comparator is for trained-or-random"):
        condition_protocols("positions", base, comparators=[["ltpo"]])
    with pytest.raises(ConfigError, match="must be a group with a method"):
        condition_protocols("trained-or-random", base, comparators=[["coconut"]])
