"""What an evaluation leaves to be read: tables, plots and a page."""

from __future__ import annotations

from rsp_rl.basics.files import write_whole
from rsp_rl.display import figures
from rsp_rl.evaluation import plots
from rsp_rl.evaluation.folder import EvaluationFolder
from rsp_rl.evaluation.html_report import write_report
from rsp_rl.evaluation.runner import Outcome
from rsp_rl.evaluation.summary import Summary, read_summary, to_csv, to_markdown


def write_summary(folder: EvaluationFolder) -> Summary:
    """Write `summary.csv`, `summary.md` and the plots.

    Raises:
        RunFolderError: As `read_summary`.
    """
    summary = read_summary(folder)
    write_whole(folder.summary_csv, to_csv(summary))
    write_whole(folder.summary_markdown, to_markdown(summary))
    for name, draw in plots.BY_STEP.items():
        figures.save(draw(summary), folder.plot(name))
    return summary


def outcome_line(outcome: Outcome) -> str:
    """A finished evaluation in one line."""
    parts = [f"{name} {value:.1%}" for name, value in outcome.accuracy.items()]
    return ", ".join(parts + [f"{name} FAILED" for name in outcome.failed])


def write_outputs(folder: EvaluationFolder) -> None:
    """Tables, plots and page of what is done so far, if anything is."""
    if any(folder.root.glob("step_*/*.metrics.json")):
        write_summary(folder)
        write_report(folder)
