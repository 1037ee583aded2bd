"""docs/gpu.md holds what was measured, as the stored results have it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from results import Results

from gpu.prove import Check, Proof
from gpu.report import gather, section

DOCS = Path(__file__).resolve().parents[3] / "docs"
CARDS = sorted((DOCS / "gpu").glob("*.json"))


def test_there_is_a_card() -> None:
    assert CARDS


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.stem)
def test_the_page_has_each_cards_tables(card: Path) -> None:
    assert section(json.loads(card.read_text())) in (DOCS / "gpu.md").read_text()


def test_a_later_run_of_a_check_takes_the_place_of_an_earlier_one(tmp_path: Path) -> None:
    proof, card = Proof(tmp_path / "proof", "cpu"), tmp_path / "card.json"
    for name, passed in (("first", False), ("second", True)):
        results = Results(tmp_path / "proof" / f"{name}.json")
        results.check("it | holds", passed, gap=1e-5)
        check = Check(name, (), 1)
        proof.note(check, "passed" if passed else "failed", seconds=3.0)
    proof.note(Check("third", (), 1), "left out", told="needs a model")
    gather(tmp_path / "proof", card)
    Results(tmp_path / "proof" / "first.json").check("it | holds", True, gap=2e-5)
    proof.note(Check("first", (), 1), "passed", seconds=4.0)
    content = gather(tmp_path / "proof", card)
    assert {name: check["status"] for name, check in content["checks"].items()} == {
        "first": "passed",
        "second": "passed",
    }
    content["machine"]["card"] = "A card, 1.0, 80 MiB"
    text = section(content)
    assert "| **first** | passed, 4 s |  |" in text
    assert "gap 2e-05" in text
    assert "FAILED" not in text
    assert r"| it \| holds | ok |" in text
