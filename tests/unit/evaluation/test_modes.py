"""Protocols with modes: the shipped one is its paper's, settings by mode, one engine for all."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import ClassVar

import pytest
import yaml
from omegaconf import OmegaConf

from rsp_rl.basics.errors import ConfigError
from rsp_rl.basics.package_files import CONFIGS
from rsp_rl.data.templates import TEMPLATES
from rsp_rl.evaluation import modes
from rsp_rl.evaluation.modes import evaluate_model, modes_in, results_name
from rsp_rl.evaluation.protocol import Protocol, load_modes, load_protocol
from rsp_rl.inference.requests import Completion, EngineOptions, Request
from rsp_rl.placement.chat import question_in_chat
from rsp_rl.tiny import make_tiny_model
from tests.unit.templates import tokenizer_of


def test_soft_tokens_are_its_papers_six_modes() -> None:
    """`../shared/continuous.md` 1.1 to 1.4: tau, noise, answers a problem."""
    found = load_modes("soft_tokens")
    table = {
        "hard_greedy": ("token", {"temperature": 1.0, "top_k": 1}, 1),
        "hard_sampled": ("token", {"temperature": 1.0, "top_k": 0}, 32),
        "soft_greedy": ("soft", {"tau": 0.5, "sigma": 0.0}, 1),
        "soft_sampled": ("soft", {"tau": 0.5, "sigma": 0.33}, 32),
        "fuzzy_greedy": ("fuzzy", {"tau": 1e-4, "sigma": 0.0}, 1),
        "fuzzy_sampled": ("fuzzy", {"tau": 1e-4, "sigma": 0.33}, 32),
    }
    assert [*found] == [*table]
    for mode, (law, settings, samples) in table.items():
        protocol = found[mode]
        thinking = protocol.law.to_dict()
        assert (protocol.name, thinking["law"]) == (f"soft_tokens.{mode}", law)
        assert {key: thinking[key] for key in settings} == settings
        assert (thinking["max_thoughts"], thinking["end"]) == (512, [])
        assert thinking["on_cut"] == thinking["end_text"] + thinking["on_end"]
        assert protocol.law.law.deterministic == (samples == 1)
        plans = {plan.benchmark: plan for plan in protocol.benchmarks}
        assert [*plans] == ["gsm8k", "math500", "olympiadbench"]
        assert {(p.samples, p.temperature) for p in plans.values()} == {(samples, 0.0)}
        assert Protocol.from_dict(json.loads(json.dumps(protocol.to_dict()))) == protocol
    assert len({protocol.fingerprint() for protocol in found.values()}) == 6


@pytest.mark.parametrize("family", ["chatml", "llama_3"])
def test_its_prompt_is_trainings(family: str) -> None:
    """Token by token, with Llama's BOS and Qwen's lack of one."""
    config = OmegaConf.load(CONFIGS / "prompt" / "soft_tokens.yaml")
    chat = config.actor_rollout_ref.model.custom_chat_template
    tokenizer = tokenizer_of(family)
    messages = [{"role": "user", "content": "2 + 2?"}]
    trained = tokenizer.apply_chat_template(messages, chat_template=chat, return_dict=False)
    asked = TEMPLATES["soft-tokens"].place(tokenizer, "2 + 2?").token_ids
    assert trained == asked == tokenizer(TEMPLATES["soft-tokens"].text("2 + 2?")).input_ids
    assert (asked[0] == tokenizer.bos_token_id) == (family == "llama_3")
    # What noise is added to, as well.
    noisy = question_in_chat(tokenizer, messages, chat_template=chat)
    assert TEMPLATES["soft-tokens"].find_question(tokenizer, "2 + 2?") == noisy


PLAIN = {
    "template": "raw",
    "max_tokens": 100,
    "sampling": {"samples": 4, "temperature": 1.0},
    "benchmarks": {"gsm8k": {"samples": 2}, "math500": None},
    "headline": ["gsm8k"],
    "law": {"end": [], "max_thoughts": 9},
    "modes": {
        "greedy": {"law": {"name": "token", "top_k": 1}, "sampling": {"samples": 1}},
        "soft": {"law": {"name": "soft"}},
        "long": {"law": {"name": "soft"}, "max_tokens": 200},
    },
}


def written(folder: Path, **changes: object) -> Path:
    file = folder / "mine.yaml"
    file.write_text(yaml.safe_dump({**PLAIN, **changes}, sort_keys=False))
    return file


def samples_of(protocol: Protocol) -> list[int]:
    return [plan.samples for plan in protocol.benchmarks]


def test_a_mode_goes_before_the_protocol_and_its_sampling_before_a_benchmarks(
    tmp_path: Path,
) -> None:
    file = written(tmp_path)
    found = load_modes(file)
    assert {mode: samples_of(p) for mode, p in found.items()} == {
        "greedy": [1, 1],
        "soft": [2, 4],
        "long": [2, 4],
    }
    assert [p.max_tokens for p in found.values()] == [100, 100, 200]
    assert {p.law.max_thoughts for p in found.values()} == {9}
    # An override is the protocol's; only a mode's own goes before it.
    found = load_modes(file, ["sampling.samples=8", "law.max_thoughts=3", "max_tokens=50"])
    assert samples_of(found["greedy"]) == [1, 1]
    assert samples_of(found["soft"]) == [2, 8]
    assert [p.max_tokens for p in found.values()] == [50, 50, 200]
    assert {p.law.max_thoughts for p in found.values()} == {3}
    found = load_modes(file, ["modes.soft.sampling.samples=3", "benchmarks=[gsm8k]"])
    assert [samples_of(p) for p in found.values()] == [[1], [3], [2]]


def test_a_modes_most_tokens_go_before_a_benchmarks_own(tmp_path: Path) -> None:
    plans = {"gsm8k": {"samples": 2, "max_tokens": 50}, "math500": None}
    found = load_modes(written(tmp_path, benchmarks=plans))
    assert {
        mode: (p.max_tokens_of("gsm8k"), p.max_tokens_of("math500")) for mode, p in found.items()
    } == {
        "greedy": (50, 100),
        "soft": (50, 100),
        "long": (200, 200),
    }


def test_an_empty_sampling_of_a_mode_changes_none(tmp_path: Path) -> None:
    given = {"a": {"law": {"name": "soft"}, "sampling": None}, "b": {"law": {"name": "soft"}}}
    found = load_modes(written(tmp_path, modes=given))
    assert found["a"].benchmarks == found["b"].benchmarks


def test_modes_are_chosen_by_name(tmp_path: Path) -> None:
    file = written(tmp_path)
    assert [*load_modes(file, ["modes=[soft,greedy]"])] == ["soft", "greedy"]
    assert load_protocol(file, ["modes=[soft]"]).name == "mine.soft"
    assert [*load_modes("tiny")] == [""]
    with pytest.raises(ConfigError, match=r"has 3 modes.*choose one here: modes=\[greedy\], of"):
        load_protocol(file)


@pytest.mark.parametrize(
    ("changes", "overrides", "said"),
    [
        ({}, ["modes=[hard]"], "no mode 'hard'; there are greedy, soft, long"),
        ({"modes": None}, ["modes=[a]"], "no mode 'a'; the protocol has none"),
        ({"modes": {}}, [], "modes is empty"),
        ({"modes": ["a"]}, [], r"modes=\['a'\] must be a group"),
        ({"modes": 3}, ["seed=1"], "modes=3 must be a group"),
        ({"modes": {"step_1": None}}, [], "modes.step_1 must be letters.*neither step_N nor logs"),
        ({"modes": {"a/b": None}}, [], "modes.a/b must be letters"),
        ({"modes": {"a": {"seed": 1}}}, [], "unknown key modes.a.seed; known: comparator, law"),
        ({"modes": {"a": 3}}, [], "modes.a=3 must be a group"),
        ({"modes": {"a": {"law": {}}}}, [], "modes.a: law.name is missing"),
        ({}, ["modes.greedy.sampling.samples=2"], "modes.greedy: .*2 samples of a problem, but"),
        ({"modes": {1: None, "1": {"law": None}}}, [], "modes names '1' twice"),
        ({}, ["modes.gredy.sampling.samples=1"], "no mode 'gredy'; there are greedy, soft, long"),
        ({}, ["modes[gredy].max_tokens=3"], "no mode 'gredy'; there are greedy, soft, long"),
        ({"modes": None}, ["modes.a.max_tokens=3"], "no mode 'a'; the protocol has none"),
        (
            {"modes": {"a": {"law": {"name": "soft"}, "sampling": {"limit": 3}}}},
            [],
            "modes.a.sampling.limit: all modes ask the same problems; set sampling.limit",
        ),
        ({}, ["modes.soft.sampling.limit=3"], "modes.soft.sampling.limit: all modes ask"),
        ({}, ["law.tau=1"], "modes.greedy: law.tau is no setting of token"),
    ],
)
def test_what_is_no_mode(changes: dict, overrides: list[str], said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"protocol .*mine.yaml.*{said}"):
        load_modes(written(tmp_path, **changes), overrides)


def test_results_of_changed_protocols_are_apart_and_of_chosen_modes_together(
    tmp_path: Path,
) -> None:
    file = written(tmp_path)
    assert results_name(file, []) == results_name(file, ["modes=[soft]"]) == "mine"
    # What a mode that is not asked for cannot have; those that can have it are together.
    soft = results_name(file, ["modes=[soft]", "law.tau=0.7"])
    assert soft.startswith("mine-")
    assert soft == results_name(file, ["law.tau=0.7", "modes=[long]"])
    assert soft != results_name(file, ["law.tau=0.6", "modes=[long]"])
    with pytest.raises(ConfigError, match=r"modes.greedy: law.tau is no setting of token"):
        results_name(file, ["modes=[greedy]", "law.tau=0.7"])
    changed = results_name(file, ["seed=3"])
    assert changed.startswith("mine-")
    assert len(changed) == len("mine-") + 6
    assert results_name(file, ["seed=3", "modes=[soft]"]) == changed
    assert results_name(file, ["seed=4"]) != changed
    assert results_name(file, ["name=other"]) == "other"
    assert results_name("tiny", ["seed=3"]) == (
        f"tiny-{load_protocol('tiny', ['seed=3']).fingerprint()[:6]}"
    )


class Told(AbstractContextManager):
    """Engines that note how they were started and what they were asked."""

    started: ClassVar[list[dict]] = []
    asked: ClassVar[list[int]] = []

    def __init__(self, *_: object, **how: object) -> None:
        self.started.append(how)

    def generate(self, requests: Iterable[Request]) -> Iterator[list[Completion]]:
        requests = list(requests)
        self.asked.append(len(requests))
        yield [Completion(request.number, r"\boxed{4}", 4, "stop") for request in requests]

    def close(self) -> None:
        self.started.append({"closed": True})

    def __exit__(self, *_: object) -> None:
        self.close()


def test_one_engine_for_all_modes_and_what_is_done_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_tiny_model(tmp_path / "model", steps=0, threads=1)
    monkeypatch.setattr(modes, "SharedEngines", Told)
    monkeypatch.setattr(Told, "started", [])
    monkeypatch.setattr(Told, "asked", [])
    ways = {
        "greedy": {"sampling": {"temperature": 0.0, "samples": 1}},
        "sampled": {},
        "drawn": {"rsp": {"length": 4}},
    }
    tiny = {"template": "plain-chat", "max_tokens": 40, "headline": ["arithmetic"]}
    file = tmp_path / "mine.yaml"
    file.write_text(
        yaml.safe_dump(
            {
                **tiny,
                "sampling": {"temperature": 1.0, "samples": 2},
                "benchmarks": {"arithmetic": {"limit": 3}},
                "modes": ways,
            },
            sort_keys=False,
        )
    )
    chosen = modes_in(tmp_path / "out", load_modes(file))
    assert evaluate_model(chosen, model, EngineOptions(), None) == []
    assert Told.started == [{"soft_prompts": True, "thoughts": False}, {"closed": True}]
    assert Told.asked == [3, 6, 6]
    for mode in chosen:
        assert mode.folder.root == tmp_path / "out" / mode.name
        assert mode.folder.summary_markdown.is_file()
    chosen[1].folder.step(0).metrics("arithmetic").unlink()
    samples = chosen[1].folder.step(0).samples("arithmetic")
    whole = samples.read_text()
    samples.write_text(whole[: whole.index("\n") + 1])
    evaluate_model(chosen, model, EngineOptions(), None)
    assert Told.asked == [3, 6, 6, 5]
    assert samples.read_text() == whole
    # A law that no engine of these options can run is said before anything is asked.
    thinking = load_modes("soft_tokens", ["benchmarks=[arithmetic]", "template=plain-chat"])
    del thinking["hard_greedy"]
    with pytest.raises(ConfigError, match="tensor"):
        evaluate_model(
            modes_in(tmp_path / "six", thinking), model, EngineOptions(tensor_parallel=2), None
        )
    assert not (tmp_path / "six").exists()
