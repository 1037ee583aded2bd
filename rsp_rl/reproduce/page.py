"""The one page: every table and figure of the run, and the paper's numbers beside it.

`report.md` is the page; `report.html` the same, rendered, with the figures inside, so that the file
can be sent about alone. It loads nothing and runs nothing.

A number of the paper stands beside the run's only if both are the same quantity: the same metric,
condition and benchmark. They are subtracted only if, besides, model, prompts, L, the comparator's
settings and the longest answer are the same and the benchmark's problems all were asked; otherwise
the page says what differs.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

from rsp_rl.analysis.conditions import draw_name, position_name
from rsp_rl.analysis.embedders import DEFAULT
from rsp_rl.analysis.thoughts import law_name
from rsp_rl.analysis.trained_or_random import method_name
from rsp_rl.basics.files import read_json, write_whole
from rsp_rl.data.benchmarks import BENCHMARKS
from rsp_rl.display.pages import asset, page
from rsp_rl.display.tables import markdown_row
from rsp_rl.evaluation.compare import open_run
from rsp_rl.evaluation.protocol import Protocol
from rsp_rl.models.small import weights_of
from rsp_rl.reproduce import claims, paper, thought_papers
from rsp_rl.reproduce.comparator_settings import other_settings
from rsp_rl.reproduce.measured import Measured, Numbers, read_numbers
from rsp_rl.reproduce.paper import PaperNumber
from rsp_rl.reproduce.plan import Analysis, Wanted, evaluations
from rsp_rl.reproduce.steps import Failures, Layout


def write_page(
    plan: Mapping[str, Iterable[Analysis]], wanted: Wanted, layout: Layout, failures: Failures
) -> Path:
    """Write `report.md` and `report.html`.

    Args:
        plan: What was to be done, by section.
        wanted: What it was made from.
        layout: Where the analyses are.
        failures: What could not be done.

    Returns:
        The HTML file.
    """
    plan = {section: list(analyses) for section, analyses in plan.items()}
    parts = [_head(plan, wanted, layout, failures)]
    if found := _claims(plan, layout):
        parts.append(found)
    for section, analyses in plan.items():
        for number, analysis in enumerate(analyses):
            heading = f"## Section {section}\n\n" if number == 0 else ""
            parts.append(heading + _part(analysis, wanted, layout, failures))
    write_whole(layout.root / "report.md", "\n\n".join(parts) + "\n")
    file = layout.root / "report.html"
    write_whole(file, to_html(parts, layout.root))
    return file


def _head(
    plan: Mapping[str, list[Analysis]], wanted: Wanted, layout: Layout, failures: Failures
) -> str:
    sections = f"section{'s' if len(plan) > 1 else ''} {', '.join(plan)}"
    lines = [f"# The paper's {sections} on {wanted.model}", ""]
    lines += [f"- {fact}" for fact in _facts(plan, wanted, layout)]
    published = dict.fromkeys(n.model for group in plan.values() for a in group for n in _known(a))
    if published and wanted.model not in published:
        lines += [
            "",
            f"**Another model than the paper's.** This run is of {wanted.model}, the paper's "
            f"numbers are of {', '.join(published)}: they say nothing about this run, and are "
            "not subtracted.",
        ]
    if failures:
        lines += ["", "**Not complete.** These parts failed; run the same command again once "]
        lines[-1] += "mended, what is done is kept:"
        lines += ["", *(f"- {name}: {_code(why)}" for name, why in failures.items())]
    return "\n".join(lines)


def _facts(plan: Mapping[str, list[Analysis]], wanted: Wanted, layout: Layout) -> Iterable[str]:
    protocol = wanted.protocol
    begun = [layout.evaluation(e).step(0).manifest for e in evaluations(plan)]
    manifests = [read_json(file) for file in begun if file.is_file()]
    if not manifests:
        return
    how = manifests[0]
    engine, weights = how["engine"], how["weights"][:16]
    versions = ", ".join(
        f"{name} {version}" for name, version in how["made_with"][0]["versions"].items()
    )
    yield f"Model {wanted.model}, weights {weights}, {engine['dtype']} on {engine['kind']}"
    begun_with = read_json(layout.model)["model"] if layout.model.is_file() else ""
    if said := weights_of(Path(begun_with)):
        yield f"Its weights are {said}"
    yield (
        f"Protocol {protocol.name}: template {protocol.template} ({wanted.prompt_kind}), at most "
        f"{protocol.max_tokens:,} tokens, seed {protocol.seed}"
    )
    yield f"L {protocol.rsp.length}, as set" if protocol.rsp.enabled else "L as in the paper"
    yield f"Made with {versions}"


def _claims(plan: Mapping[str, list[Analysis]], layout: Layout) -> str:
    """The paper's claims with this run's answers; empty where no analysis answers any."""
    analyses = [analysis for group in plan.values() for analysis in group]
    finished = {a.name: layout.analysis(a) for a in analyses if layout.made_from(a).is_file()}
    rows = claims.answers(finished)
    if not rows:
        return ""
    return f"## The paper's claims, asked of this model\n\n{claims.to_markdown(rows)}"


def _part(analysis: Analysis, wanted: Wanted, layout: Layout, failures: Failures) -> str:
    """One analysis: what it was made from, figure, table, the paper's numbers."""
    folder = layout.analysis(analysis)
    lines = [f"### {analysis.title}", ""]
    if analysis.title in failures:
        lines += [f"**Failed:** {_code(failures[analysis.title])}", ""]
    table = folder / f"{analysis.name}.md"
    if not table.is_file():
        return "\n".join([*lines, *_paper_lines(analysis, wanted, {})])
    figure = (folder / f"{analysis.figure or analysis.name}.png").relative_to(layout.root)
    labels = [evaluation.label for evaluation in analysis.reads] or analysis.runs
    lines += [f"From {', '.join(labels)}. {analysis.remark}".strip(), ""]
    lines += [f"![{analysis.title}]({figure.as_posix()})", "", _demoted(table.read_text()), ""]
    numbers = read_numbers(analysis, folder)
    return "\n".join([*lines, *_paper_lines(analysis, wanted, numbers)])


def _demoted(markdown: str) -> str:
    """An analysis' own table without its title, its headings below the page's."""
    _, _, body = markdown.partition("\n")
    return re.sub(r"^##? ", "#### ", body.strip(), flags=re.MULTILINE)


def _code(text: str) -> str:
    """Text as it is, in one line."""
    return f"`` {' '.join(text.split())} ``"


def _paper_lines(analysis: Analysis, wanted: Wanted, numbers: Numbers) -> list[str]:
    known = _known(analysis)
    same_model = [n for n in known if n.model == wanted.model]
    same = [n for n in same_model if n.prompts in (None, wanted.prompt_kind)]
    lines = ["#### Beside the paper", ""]
    if not known:
        return [*lines, "The paper has no number for this: it shows a figure."]
    head = ["paper", "model", "L", "benchmark", "condition", "quantity", "paper's", "this run"]
    lines.append(markdown_row([*head, "difference"]))
    lines.append(markdown_row([*("---" for _ in head[:6]), "--:", "--:", "---"]))
    protocols = _protocols(analysis)
    for number in same or known:
        found = numbers.get(number.quantity)
        reasons = list(_other_conditions(number, analysis, wanted, protocols)) if found else []
        lines.append(markdown_row(_row(number, found, reasons)))
    return lines


def _known(analysis: Analysis) -> list[PaperNumber]:
    """What has been published of an analysis."""
    numbers = (*paper.NUMBERS, *thought_papers.NUMBERS)
    return [number for number in numbers if number.quantity.analysis == analysis.name]


def _row(number: PaperNumber, found: Measured | None, reasons: list[str]) -> list[str]:
    """The paper's number, the run's of the same quantity, and how far it is or why it is other."""
    quantity = number.quantity
    row = [
        number.source,
        number.model if number.prompts is None else f"{number.model}, {number.prompts}",
        "–" if number.length is None else str(number.length),
        *(quantity.benchmark, quantity.condition, quantity.metric),
        _shown(number, number.value, "g"),
    ]
    if found is None:
        return [*row, "–", "not in this run"]
    difference = "; ".join(reasons) or _difference(number, found)
    return [*row, _with_interval(number, found), difference]


def _other_conditions(
    number: PaperNumber, analysis: Analysis, wanted: Wanted, protocols: Iterable[Protocol]
) -> Iterable[str]:
    """Why this run's number and the paper's must not be subtracted."""
    if wanted.model != number.model:
        yield f"other model: {wanted.model}"
    if number.prompts not in (None, wanted.prompt_kind):
        yield f"other prompts: {wanted.prompt_kind}"
    if (embedder := analysis.options.get("embedder", DEFAULT)) != DEFAULT:
        yield f"other embedder: {embedder}"
    if analysis.options.get("held_out_half"):
        yield "only problems that one half of the answers chose"
    parts = paper.parts_of(number.quantity.benchmark)
    asked = [
        (protocol, plan)
        for protocol in _of_condition(protocols, number.quantity.condition)
        for plan in protocol.benchmarks
        if plan.benchmark in parts
    ]
    drawn = [protocol for protocol, _ in asked if protocol.rsp.enabled]
    lengths = {protocol.rsp.length for protocol in drawn}
    if number.length is not None and lengths - {number.length}:
        yield f"other L: {min(lengths)}"
    for position in sorted({protocol.rsp.position for protocol in drawn}):
        if number.position not in (None, position):
            yield f"other position: {position}, not {number.position}"
    for comparator in {p.comparator.method: p.comparator for p in drawn if p.comparator}.values():
        yield from other_settings(comparator, number.model, number.quantity.benchmark)
    samples = {plan.samples for _, plan in asked}
    if number.samples is not None and samples - {number.samples}:
        yield f"{min(samples)} and not {number.samples} answers a problem"
    limits = {protocol.max_tokens_of(plan.benchmark) for protocol, plan in asked}
    if number.max_tokens is not None and limits - {number.max_tokens}:
        yield f"answers of at most {min(limits):,} and not {number.max_tokens:,} tokens"
    for plan in {plan.benchmark: plan for _, plan in asked if plan.limit is not None}.values():
        if plan.limit < (number.problems or BENCHMARKS[plan.benchmark].problems):
            yield f"only {plan.limit} problems of {plan.benchmark}"


def _of_condition(protocols: Iterable[Protocol], condition: str) -> list[Protocol]:
    """Those of a condition; all of them if it is the name of none, such as of a training run."""
    names = (position_name, draw_name, method_name, law_name)
    return [p for p in protocols if condition in {name(p) for name in names}] or list(protocols)


def _protocols(analysis: Analysis) -> list[Protocol]:
    """How what an analysis reads was asked."""
    if not analysis.runs:
        return [evaluation.protocol for evaluation in analysis.reads]
    manifests = [open_run(text).summaries[0].manifest for text in analysis.runs]
    return [Protocol.from_dict(manifest["protocol"]) for manifest in manifests]


def _difference(number: PaperNumber, found: Measured) -> str:
    """This run less the paper."""
    text = _shown(number, found.value - number.value, "+.4f")
    return f"{text} ({', '.join(number.unknown)} not known)" if number.unknown else text


def _with_interval(number: PaperNumber, found: Measured) -> str:
    value = _shown(number, found.value, ".4f")
    if found.low is None or found.high is None:
        return value
    low, high = (_shown(number, bound, ".4f") for bound in (found.low, found.high))
    return f"{value} [{low}, {high}]"


def _shown(number: PaperNumber, value: float, spec: str) -> str:
    sign = "+" if spec.startswith("+") else ""
    if number.shown == "percent":
        return f"{100 * value:{sign}.2f}%"
    return f"{value:{sign}.0f}" if number.shown == "whole" else f"{value:{spec}}"


def to_html(parts: Iterable[str], root: Path) -> str:
    """Markdown parts as a page that opens from disk, each in a box of its own.

    Args:
        parts: The page; markup in them is shown as text.
        root: Where the figures' paths begin; the svg beside each png goes into the page.
    """
    renderer = MarkdownIt("commonmark", {"html": False}).enable("table")

    def inlined(self: object, tokens: list[Token], index: int, *_: object) -> str:
        file = (root / str(tokens[index].attrGet("src"))).with_suffix(".svg")
        label = html.escape(tokens[index].content)
        return f'<span class="figure" role="img" aria-label="{label}">{file.read_text()}</span>'

    renderer.add_render_rule("image", inlined)
    for kind, tag in (
        ("table_open", '<div class="scroll"><table>'),
        ("table_close", "</table></div>"),
    ):
        renderer.add_render_rule(kind, lambda *_, tag=tag: tag)
    parts = list(parts)
    title = parts[0].partition("\n")[0].removeprefix("# ")
    sections = "\n".join(f"<section>\n{renderer.render(part)}</section>" for part in parts)
    style = asset("rsp_rl.reproduce", "report.css")
    body = f"<main>\n{sections}\n</main>\n"
    return page(title, body, style=style, admitted=["img-src data:"])
