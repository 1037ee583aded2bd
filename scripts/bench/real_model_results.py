"""Keep what a reproduction found for docs/real_model.md: its files, how they were made, the claims.

    python scripts/bench/real_model_results.py runs/reproduced/smollm2 --model MODEL \
        --analyses first_token --minutes 25 \
        --command 'rsp-rl reproduce template=plain-chat ... --section 4.4 --only first_token ...'

Copies the analyses' tables and figures into `--results`, writes how each was made into its
`how.json`, and the answers of all kept analyses into the page, between the lines `<!-- claims -->`
and `<!-- end of claims -->`.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rsp_rl.basics.files import read_json, write_json, write_whole
from rsp_rl.evaluation.compare import run_folders
from rsp_rl.models.small import weights_of
from rsp_rl.models.weights import weights_digest
from rsp_rl.reproduce.claims import answers, to_markdown

BEGIN, END = "<!-- claims -->", "<!-- end of claims -->"
KEPT = ("*.md", "*.csv", "*.json", "*.png")
DOCS = Path(__file__).resolve().parents[2] / "docs"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("reproduced", type=Path, help="folder that `rsp-rl reproduce` wrote")
    parser.add_argument("--model", type=Path, required=True, help="folder that all began with")
    parser.add_argument("--analyses", required=True, help="names, such as first_token,diversity")
    parser.add_argument("--command", required=True, help="as a reader would type it")
    parser.add_argument("--minutes", type=float, help="of one core")
    parser.add_argument("--machine", default="a core of an AMD EPYC with AVX512-BF16, no GPU")
    parser.add_argument("--results", type=Path, default=DOCS / "results" / "smollm2-135m")
    parser.add_argument("--page", type=Path, default=DOCS / "real_model.md")
    args = parser.parse_args()
    for name in args.analyses.split(","):
        keep(args.reproduced, name, args.results)
        facts = how_made(args.reproduced, name)
        given = {"command": args.command, "machine": args.machine, "minutes": args.minutes}
        given |= {"weights": weights_of(args.model), "weights_digest": weights_digest(args.model)}
        file = args.results / "how.json"
        known = read_json(file) if file.is_file() else {}
        analyses = known.get("analyses", {}) | {name: given | facts}
        write_json(file, known | {"analyses": analyses})
    write_whole(args.page, with_claims(args.page.read_text(encoding="utf-8"), args.results))


def keep(reproduced: Path, name: str, results: Path) -> None:
    """Copy an analysis' tables and figures."""
    source, target = reproduced / "analysis" / name, results / name
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for pattern in KEPT:
        for file in source.glob(pattern):
            if file.name != "made_from.json":
                shutil.copyfile(file, target / file.name)


def how_made(reproduced: Path, name: str) -> dict[str, Any]:
    """Engine, versions, seeds and what was asked, from what the analysis read."""
    made_from = read_json(reproduced / "analysis" / name / "made_from.json")
    manifests = list(_manifests(reproduced, made_from))
    how = manifests[0]
    return {
        "dtype": how["engine"]["dtype"],
        "engine": how["engine"]["kind"],
        "versions": how["made_with"][0]["versions"],
        "seed": _training_seeds(made_from) or how["protocol"]["rsp"]["seed"],
        "sampling_seed": how["protocol"]["seed"],
        "template": how["protocol"]["template"],
        "max_tokens": how["protocol"]["max_tokens"],
        "benchmarks": how["protocol"]["benchmarks"],
    }


def _training_seeds(made_from: dict[str, Any]) -> list[int]:
    roots = [root for text in made_from["runs"] for root in run_folders(text)[1]]
    settings = [root / "rsp.json" for root in roots]
    return sorted({read_json(file)["seed"] for file in settings if file.is_file()})


def _manifests(reproduced: Path, made_from: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for name in made_from["evaluations"]:
        yield read_json(reproduced / "evaluations" / name / "step_0" / "how.json")
    for text in made_from["runs"]:
        for root in run_folders(text)[1]:
            yield from map(read_json, sorted(root.glob("evaluation/*/step_*/how.json")))


def with_claims(page: str, results: Path) -> str:
    """The page with the answers of all that is kept."""
    analyses = {folder.name: folder for folder in results.iterdir() if folder.is_dir()}
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{to_markdown(answers(analyses))}\n\n{END}{after}"


if __name__ == "__main__":
    main()
