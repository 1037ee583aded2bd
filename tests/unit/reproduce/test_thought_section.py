"""Section "thoughts": what it asks, and what its numbers answer."""

from __future__ import annotations

from pathlib import Path

import pytest

from rsp_rl.evaluation.protocol import load_protocol
from rsp_rl.reproduce import claims
from rsp_rl.reproduce.measured import read_numbers
from rsp_rl.reproduce.plan import Analysis, Wanted, make_plan
from rsp_rl.reproduce.thought_papers import NUMBERS


def section(*overrides: str, samples: int = 4) -> list[Analysis]:
    protocol = load_protocol("rsp_inference", ["benchmarks=[gsm8k]", *overrides])
    wanted = Wanted("QwQ-32B", protocol, own_benchmarks=True, thought_samples=samples)
    return make_plan(["thoughts"], wanted)["thoughts"]


def test_what_is_asked() -> None:
    laws, thoughts = section()

    assert laws.reads == thoughts.reads
    asked = {evaluation.label: evaluation.protocol for evaluation in laws.reads}
    assert list(asked) == ["sampled", "greedy", "soft_thinking", "dirichlet", "gumbel"]
    assert not any(protocol.rsp.enabled for protocol in asked.values())
    samples = {name: protocol.benchmarks[0].samples for name, protocol in asked.items()}
    # Of what is the same each time there is one.
    assert samples == {
        "sampled": 4,
        "greedy": 1,
        "soft_thinking": 1,
        "dirichlet": 4,
        "gumbel": 4,
    }
    assert asked["greedy"].benchmarks[0].temperature == 0
    assert asked["gumbel"].benchmarks[0].temperature == 0.6
    assert asked["gumbel"].law.end == ("</think>",)


def test_how_thoughts_end_is_the_protocol_s() -> None:
    laws, _ = section("law.name=multiplex", "law.end=[]", "law.max_thoughts=64")

    for evaluation in laws.reads[2:]:
        assert evaluation.protocol.law.max_thoughts == 64
        assert evaluation.protocol.law.end == ()
        assert evaluation.protocol.law.law.name == evaluation.label


def write(file: Path, head: str, *rows: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join([head, *rows]) + "\n")


LAWS_HEAD = "benchmark,condition,measure,value,low,high,difference,difference_low,difference_high"
THOUGHTS_HEAD = "benchmark,condition,metric,value,low,high"


def test_numbers_stand_beside_the_papers(tmp_path: Path) -> None:
    laws, _ = section()
    write(tmp_path / "laws.csv", LAWS_HEAD, "gsm8k,soft_thinking,accuracy,0.9,0.8,0.95,,,")

    found = read_numbers(laws, tmp_path)

    (published,) = [
        n for n in NUMBERS if n.quantity in found and n.model == "QwQ-32B" and n.value > 0.9
    ]
    assert published.value == pytest.approx(0.9681)
    assert found[published.quantity].value == pytest.approx(0.9)


@pytest.mark.parametrize(
    ("interval", "answer"),
    [("0.01,0.10", "yes"), ("-0.10,-0.01", "no"), ("-0.01,0.05", "undecided")],
)
def test_accuracy_of_soft_thinking(tmp_path: Path, interval: str, answer: str) -> None:
    write(
        tmp_path / "laws" / "laws.csv",
        LAWS_HEAD,
        f"gsm8k,soft_thinking,accuracy,0.5,0.4,0.6,0.0,{interval}",
        "gsm8k,sampled,accuracy,0.5,0.4,0.6,,,",
    )

    (found,) = claims.answers({"laws": tmp_path / "laws"})

    assert found.answer == answer
    assert "points" in found.measured


def test_what_a_mixture_is_like(tmp_path: Path) -> None:
    write(
        tmp_path / "thoughts" / "thoughts.csv",
        THOUGHTS_HEAD,
        "gsm8k,soft_thinking,Jensen-Shannon to the first token,0.1,0.08,0.12",
        "gsm8k,soft_thinking,Jensen-Shannon to the second token,0.3,0.25,0.35",
        "gsm8k,soft_thinking,ROUGE-L to the greedy answer,0.6,0.5,0.7",
        "gsm8k,sampled,ROUGE-L to the greedy answer,0.55,0.45,0.65",
    )

    nearer, similar = claims.answers({"thoughts": tmp_path / "thoughts"})

    assert (nearer.answer, similar.answer) == ("yes", "undecided")
