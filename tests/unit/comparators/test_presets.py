"""The comparators' named settings: the paper's appendix A.3, what wins over them, what is said."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from types import ModuleType

import pytest

from rsp_rl.basics.errors import ConfigError
from rsp_rl.commands import analyze, reproduce, train_comparator
from rsp_rl.comparators.ltpo import Ltpo
from rsp_rl.comparators.methods import METHODS, preset_line
from rsp_rl.comparators.presets import PRESETS, departures, get_preset, spoken
from rsp_rl.evaluation.protocol import Protocol, load_protocol

#: Appendix A.3 and Table 8; of TTSV and SoftCoT problems a step, as mini-batches x accumulation.
PAPER = {
    ("ltpo", "paper-gsm8k"): {"length": 8, "steps": 20, "top_k": 10, "sigma": 20}
    | {"sigma_decay": 0.95, "learning_rate": 1e-2},
    ("ltpo", "paper-math500"): {"length": 8, "steps": 20, "top_k": 10, "sigma": 20}
    | {"sigma_decay": 0.95, "learning_rate": 5e-3},
    ("ltpo", "paper-aime24"): {"length": 8, "steps": 20, "top_k": 10, "sigma": 5}
    | {"sigma_decay": 0.95, "learning_rate": 5e-2},
    ("ttsv", "paper-1.5b"): {"length": 20, "epochs": 20, "batch_size": 2, "accumulation": 8}
    | {"learning_rate": 1e-3},
    ("ttsv", "paper-7b"): {"length": 20, "epochs": 20, "batch_size": 2, "accumulation": 8}
    | {"learning_rate": 1e-5},
    ("softcot", "paper-gsm8k-1.5b"): {"length": 32, "evaluation_length": 4, "epochs": 10}
    | {"batch_size": 4, "accumulation": 1, "learning_rate": 2e-5},
    ("softcot", "paper-gsm8k-7b"): {"length": 32, "evaluation_length": 4, "epochs": 10}
    | {"batch_size": 4, "accumulation": 1, "learning_rate": 5e-6},
    ("softcot", "paper-math-1.5b"): {"length": 32, "evaluation_length": 4, "epochs": 10}
    | {"batch_size": 1, "accumulation": 4, "learning_rate": 2e-5},
    ("softcot", "paper-math-7b"): {"length": 32, "evaluation_length": 4, "epochs": 10}
    | {"batch_size": 1, "accumulation": 4, "learning_rate": 5e-6},
}


@pytest.mark.parametrize(("method", "name"), PAPER)
def test_presets_are_the_papers(method: str, name: str) -> None:
    preset, wanted = get_preset(method, name), dict(PAPER[method, name])
    if method == "ltpo":
        assert preset.length == wanted.pop("length")
    else:
        assert preset.length == wanted.get("evaluation_length", wanted["length"])
    assert {key: preset.values()[key] for key in wanted} == wanted
    # All else is the authors'.
    assert departures(get_preset(method, "authors"), preset.values()).keys() <= wanted.keys()
    assert (preset.assistant is None) == (method != "softcot")


def test_there_are_no_others() -> None:
    found = {(method, name) for method, presets in PRESETS.items() for name in presets}
    assert found == PAPER.keys() | {(method, "authors") for method in METHODS}


def ltpo(*overrides: str) -> Protocol:
    return load_protocol("tiny", ["comparator.method=ltpo", *overrides])


def test_a_protocol_names_one_and_what_is_set_wins() -> None:
    paper = ltpo("comparator.preset=paper-aime24")
    assert paper.rsp.length == 8
    assert paper.comparator == get_preset("ltpo", "paper-aime24").settings
    assert preset_line(paper.comparator, 8) == "preset paper-aime24"
    changed = ltpo("comparator.preset=paper-aime24", "comparator.sigma=4", "rsp.length=5")
    assert asdict(changed.comparator) == asdict(paper.comparator) | {"sigma": 4.0}
    assert preset_line(changed.comparator, changed.rsp.length) == (
        "preset paper-aime24, but sigma 4 (not 5), rsp.length 5 (not 8)"
    )
    assert Protocol.from_dict(changed.to_dict()) == changed
    assert ltpo().comparator == Ltpo()
    assert preset_line(ltpo().comparator, 10) == "preset authors"


def test_a_presets_name_changes_no_output() -> None:
    """Samples of equal settings are continued, whoever named them; protocols of before too."""
    values = get_preset("ltpo", "paper-gsm8k").values()
    one_by_one = ltpo("rsp.length=8", *(f"comparator.{key}={v}" for key, v in values.items()))
    assert one_by_one.fingerprint() == ltpo("comparator.preset=paper-gsm8k").fingerprint()
    assert one_by_one.fingerprint() != ltpo("comparator.preset=paper-math500").fingerprint()
    # Golden: from before there were presets.
    assert ltpo().fingerprint() == "9502bdd8e675b410"


@pytest.mark.parametrize("name", ["paper", "paper-7b", "7"])
def test_unknown_presets(name: str) -> None:
    with pytest.raises(ConfigError, match=r"ltpo has no preset .*; it has authors, paper-gsm8k, "):
        ltpo(f"comparator.preset={name}")
    with pytest.raises(ConfigError, match=r"unknown key comparator\.preset of ttsv"):
        load_protocol("tiny", ["comparator.method=ttsv", f"comparator.preset={name}"])
    with pytest.raises(ConfigError, match="--preset of `rsp-rl train-comparator softcot` is where"):
        load_protocol("tiny", ["comparator.method=softcot", f"comparator.preset={name}"])


def test_departures_are_of_what_is_known() -> None:
    preset = get_preset("ttsv", "authors")
    of_before = {"length": 20, "epochs": 3, "warmup": 5}  # without accumulation
    assert departures(preset, of_before) == {"epochs": (3, 20)}
    assert spoken("authors", {}) == "preset authors"


@pytest.mark.parametrize(
    ("named", "same"),
    [
        ("Qwen/Qwen2.5-Math-1.5B-Instruct", True),
        ("/models/Qwen2.5-Math-1.5B-Instruct", True),
        ("/cache/models--Qwen--Qwen2.5-Math-1.5B-Instruct/snapshots/0a1b", True),
        ("Qwen/Qwen2.5-Math-1.5B", False),
        ("/models/Qwen2.5-Math-1.5B-Instruct-tuned", False),
    ],
)
def test_an_assistant_is_known_by_its_name(named: str, same: bool) -> None:
    departed = departures(get_preset("softcot", "paper-math-7b"), {"assistant": named})
    assert (departed == {}) == same
    if not same:
        its = "Qwen/Qwen2.5-Math-1.5B-Instruct"
        assert spoken("x", departed) == f"preset x, but assistant {named} (not {its})"


@pytest.mark.parametrize("method", ["ttsv", "softcot"])
def test_the_help_shows_presets_and_their_values(
    method: str, capsys: pytest.CaptureFixture[str]
) -> None:
    parser = argparse.ArgumentParser()
    train_comparator.add_parser(parser.add_subparsers())
    with pytest.raises(SystemExit):
        parser.parse_args(["train-comparator", method, "--help"])
    text = "".join(capsys.readouterr().out.split())
    for name, preset in PRESETS[method].items():
        assert f"{name}{preset.settings.learning_rate:g}" in text
    assert (get_preset("softcot", "paper-math-7b").assistant in text) == (method == "softcot")


@pytest.mark.parametrize("command", [reproduce, analyze])
def test_the_help_of_comparators_names_their_presets(
    command: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    parser = argparse.ArgumentParser()
    command.add_parser(parser.add_subparsers())
    name = ["reproduce"] if command is reproduce else ["analyze", "evaluate"]
    with pytest.raises(SystemExit):
        parser.parse_args([*name, "--help"])
    text = "".join(capsys.readouterr().out.split())  # lines break at hyphens too
    assert f"PresetsofLTPO:{','.join(PRESETS['ltpo'])}" in text
    assert ("thepaper'spresetofeachbenchmark" in text) == (command is reproduce)
