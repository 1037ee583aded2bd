"""docs/real_model.md says what its data says."""

from __future__ import annotations

import json
from pathlib import Path

from rsp_rl.reproduce.claims import answers, to_markdown

DOCS = Path(__file__).resolve().parents[3] / "docs"
RESULTS = DOCS / "results" / "smollm2-135m"


def test_the_claims_are_those_of_the_data() -> None:
    analyses = {folder.name: folder for folder in RESULTS.iterdir() if folder.is_dir()}
    found = answers(analyses)
    assert found
    assert to_markdown(found) in (DOCS / "real_model.md").read_text()


def test_the_data_says_how_it_was_made() -> None:
    analyses = json.loads((RESULTS / "how.json").read_text())["analyses"]
    assert set(analyses) == {folder.name for folder in RESULTS.iterdir() if folder.is_dir()}
    page = " ".join((DOCS / "real_model.md").read_text().split())
    for how in analyses.values():
        assert {"weights", "machine", "versions", "seed", "dtype"} <= set(how)
        assert how["weights"] in page
        assert how["command"] in page


def test_the_page_of_thoughts_has_its_table() -> None:
    """docs/continuous_tokens.md, of hard tokens beside laws."""
    results = RESULTS.with_name("smollm2-135m-thoughts")
    page = (DOCS / "continuous_tokens.md").read_text()
    (how,) = json.loads((results / "how.json").read_text())["analyses"].values()
    assert how["command"] in page
    assert how["weights"] in " ".join(page.split())
    _, table, _ = (results / "training" / "training.md").read_text().split("\n\n")
    assert table in page
