"""A run's evaluations as one HTML file that opens from disk: curves, table, viewer of problems.

The file loads nothing, and model output stays text: see `rsp_rl.display.viewer`.

LaTeX is shown as its source, set apart from the prose. Rendered, an output would no longer be what
was graded; much of it is malformed or cut off; and `latex2mathml`, the small converter, passes
markup within `\\text{}` through unescaped and fails by RecursionError on deep nesting.
"""

from __future__ import annotations

import html
import json
from pathlib import Path
from string import Template

from rsp_rl.basics.files import write_whole
from rsp_rl.display import figures
from rsp_rl.display.pages import asset
from rsp_rl.display.viewer import HEAD, TAIL, viewer_page
from rsp_rl.evaluation import plots
from rsp_rl.evaluation.folder import EvaluationFolder
from rsp_rl.evaluation.summary import Summary, asked_how, notes, read_summary, table_rows
from rsp_rl.evaluation.viewer_data import OUTPUT_BYTES, SAMPLES, ViewerData, viewer_data


def write_report(folder: EvaluationFolder, output_bytes: int = OUTPUT_BYTES) -> Path:
    """Write the report.

    Args:
        folder: Evaluations of a run under one protocol.
        output_bytes: Bound on the embedded outputs, as they are packed; the page says what it
            leaves out.

    Returns:
        The file.

    Raises:
        RunFolderError: If nothing was evaluated, or a file is missing or damaged.
    """
    summary = read_summary(folder)
    data = viewer_data(folder, summary, output_bytes)
    write_whole(folder.report, _page(folder, summary, data))
    return folder.report


def _page(folder: EvaluationFolder, summary: Summary, data: ViewerData) -> str:
    protocol = summary.manifest["protocol"]
    root = folder.root.resolve()
    run_name = root.parent.parent.name if root.parent.name == "evaluation" else root.name
    title = f"{run_name}: evaluation by {protocol.get('name')}"
    body = Template(asset("rsp_rl.evaluation", "page.html")).substitute(
        title=html.escape(title),
        subtitle=html.escape(_subtitle(summary)),
        figures="\n".join(_figure(name, summary) for name in plots.BY_STEP),
        table=_table(summary),
        notes="\n".join(f"<li>{html.escape(note)}</li>" for note in notes(summary)),
        left_out=html.escape(_left_out(data)),
        manifest=html.escape(json.dumps(summary.manifest, indent=2)),
    )
    return viewer_page(
        title,
        body,
        index={"steps": data.steps, "benchmarks": data.benchmarks},
        outputs=data.outputs,
        script=asset("rsp_rl.evaluation", "page.js"),
    )


def _subtitle(summary: Summary) -> str:
    parts = [asked_how(summary.manifest["protocol"]), f"{len(summary.metrics)} steps"]
    if summary.peak_step is not None:
        last = max(summary.headline)
        parts += [
            f"headline {100 * summary.headline[step].accuracy:.2f} at {name} {step}"
            for name, step in (("its peak, step", summary.peak_step), ("the last step,", last))
        ]
    return " · ".join(parts)


def _figure(name: str, summary: Summary) -> str:
    width = {"headline": "", "response_length": "wide", "benchmarks": "full"}[name]
    return f'<figure class="{width}">{figures.to_svg(plots.BY_STEP[name](summary))}</figure>'


def _table(summary: Summary) -> str:
    steps = list(summary.metrics)
    head = "".join(f'<th scope="col">step {step}</th>' for step in steps)
    lines = [f'<table><thead><tr><th scope="col">benchmark</th>{head}</tr></thead><tbody>']
    for label, accuracy in table_rows(summary):
        best = max(accuracy.values(), default=None)
        cells = "".join(_cell(accuracy.get(step), best) for step in steps)
        lines.append(f'<tr><th scope="row">{html.escape(label)}</th>{cells}</tr>')
    return "\n".join([*lines, "</tbody></table>"])


def _cell(accuracy: float | None, best: float | None) -> str:
    if accuracy is None:
        return "<td>–</td>"
    best_class = ' class="best"' if accuracy == best else ""
    return f"<td{best_class}>{100 * accuracy:.2f}</td>"


def _left_out(data: ViewerData) -> str:
    total = sum(len(benchmark["problems"]) for benchmark in data.benchmarks)
    shown = len(data.outputs)
    text = f"Verdicts of all {total:,} problems at all steps"
    if shown == total:
        text += ", with their outputs."
    else:
        text += (
            f"; outputs of {shown:,}, those whose verdict changed between steps first, then wrong "
            "ones, then those cut off."
        )
    return (
        f"{text} An output of more than {HEAD + TAIL:,} characters shows its first {HEAD:,} and "
        f"last {TAIL:,}; of each problem's samples the first {SAMPLES} are shown. Everything is in "
        "step_*/*.samples.jsonl beside this file."
    )
