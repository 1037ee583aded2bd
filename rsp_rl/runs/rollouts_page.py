"""A run's rollouts as one HTML file that opens from disk: steps in numbers, groups with answers.

The file loads nothing, and what the model wrote stays text: see `rsp_rl.display.viewer`.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping
from pathlib import Path
from string import Template
from typing import Any

from rsp_rl.basics.files import write_whole
from rsp_rl.console.screen import bar
from rsp_rl.display.pages import asset
from rsp_rl.display.viewer import HEAD, TAIL, viewer_page
from rsp_rl.runs.folder import RunFolder
from rsp_rl.runs.rollouts import read_step, step_files
from rsp_rl.runs.rollouts_data import OF_GROUP, PAGE_BYTES, RunFacts, shown_step, spread

#: Columns of the table of steps: name, key of a step's numbers, format.
_COLUMNS = (
    ("rollouts", "rollouts", ",d"),
    ("groups", "groups", ",d"),
    ("right", "right", ",d"),
    ("wrong", "wrong", ",d"),
    ("mixed groups", "mixed", ",d"),
    ("all right", "all_right", ",d"),
    ("all wrong", "all_wrong", ",d"),
    ("mean reward", "reward", ".3f"),
    ("mean tokens", "tokens", ",.1f"),
    ("most tokens", "tokens_max", ",d"),
    ("mean gap, nats", "gap_mean", ".2e"),
    ("largest gap", "gap_max", ".2e"),
    ("shown here", "shown", ",d"),
)


def write_rollouts_page(
    folder: RunFolder,
    steps: Mapping[int, Mapping[str, float]],
    token_text: Callable[[int], str] | None = None,
    output_bytes: int = PAGE_BYTES,
) -> Path | None:
    """Write the page.

    Args:
        folder: The run's.
        steps: Its logged metrics.
        token_text: Text of a token, for thoughts; ids are shown without it.
        output_bytes: Bound on the embedded rollouts, as they are packed; the page says what it
            leaves out.

    Returns:
        The file; None if the run wrote no samples.

    Raises:
        RunFolderError: If a file of samples is damaged.
    """
    files = step_files(folder.train_samples)
    if not files:
        return None
    facts = RunFacts(steps, _limit(folder), token_text)
    with_rollouts = set(spread(list(files)))
    entries: list[dict[str, Any]] = []
    outputs: dict[str, str] = {}
    left, waiting = output_bytes, len(with_rollouts)
    for step, file in bar(files.items(), "page of rollouts", unit="step"):
        share = left // waiting if step in with_rollouts else 0
        shown = shown_step(read_step(step, file), facts, share)
        waiting -= step in with_rollouts
        left -= sum(map(len, shown.outputs.values()))
        entries.append(shown.entry)
        outputs |= shown.outputs
    write_whole(folder.rollouts_page, _page(folder, facts, entries, outputs))
    return folder.rollouts_page


def _limit(folder: RunFolder) -> int | None:
    """Most tokens of a response; None with a law, whose forced tokens nobody sampled."""
    limit = None if folder.law.is_file() else folder.known_setting("data.max_response_length")
    return limit if isinstance(limit, int) else None


def _page(
    folder: RunFolder,
    facts: RunFacts,
    entries: list[dict[str, Any]],
    outputs: dict[str, str],
) -> str:
    # A folder's name may be bytes that are no text.
    name = folder.root.resolve().name.encode(errors="replace").decode()
    title = f"{name}: rollouts of training"
    body = Template(asset("rsp_rl.runs", "rollouts.html")).substitute(
        title=html.escape(title),
        subtitle=html.escape(_subtitle(entries)),
        table=_table(entries),
        notes="\n".join(f"<li>{html.escape(note)}</li>" for note in _notes(facts, entries)),
        chosen=html.escape(_chosen(entries)),
    )
    return viewer_page(
        title,
        body,
        index={"steps": entries},
        outputs=outputs,
        script=asset("rsp_rl.runs", "rollouts.js"),
        style=asset("rsp_rl.runs", "rollouts.css"),
    )


def _total(entries: list[dict[str, Any]], name: str) -> int:
    return sum(entry[name] for entry in entries)


def _subtitle(entries: list[dict[str, Any]]) -> str:
    counts = {"step": len(entries)}
    counts |= {"group": _total(entries, "groups"), "rollout": _total(entries, "rollouts")}
    return " · ".join(_counted(count, noun) for noun, count in counts.items())


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _chosen(entries: list[dict[str, Any]]) -> str:
    shown, rollouts = _total(entries, "shown"), _total(entries, "rollouts")
    groups = f"{_total(entries, 'shown_groups'):,} of {_total(entries, 'groups'):,} groups"
    if shown == rollouts:
        return (
            f"All {rollouts:,} rollouts are shown. A text of more than {HEAD + TAIL:,} characters "
            f"shows its first {HEAD:,} and last {TAIL:,}. Everything is in samples/train."
        )
    return (
        f"{shown:,} of {rollouts:,} rollouts are shown, {groups}; the table says how many of a "
        "step. Chosen were of each step the group with the largest gap, then in turn groups with "
        "right and wrong answers, with wrong ones alone and with right ones alone, by their uids, "
        "which are random, as far as the page's room goes; of a group at most "
        f"{OF_GROUP} rollouts, the one with the largest gap and then right and wrong ones in turn. "
        f"A text of more than {HEAD + TAIL:,} characters shows its first {HEAD:,} and last "
        f"{TAIL:,}. Everything is in samples/train."
    )


def _notes(facts: RunFacts, entries: list[dict[str, Any]]) -> list[str]:
    """What a reader of the table must know, a sentence or two each."""
    notes = [
        "The gap is |log p of the rollout - log p of the actor| over the tokens of a step. Groups "
        "that are all right or all wrong teach nothing where the reward says no more than that."
    ]
    unsaid = [entry for entry in entries if entry["right"] + entry["wrong"] < entry["rollouts"]]
    if any(entry["tokens"] is None for entry in entries):
        notes.append(
            "Steps without tokens have no N.rollouts.jsonl of these samples, which earlier "
            "versions did not write, nor did a run that was stopped just then: neither tokens, "
            "verdict and gap nor the soft prompt's place of a rollout is on record."
        )
    if by_reward := _total(entries, "by_reward"):
        notes.append(
            f"Of {_counted(by_reward, 'rollout')} the reward told no verdict (`acc` of 0 or 1): "
            "such a one counts as right if its reward is the run's largest, "
            f"{facts.best_reward:g}, and as wrong if not, however near."
        )
    if unsaid:
        notes.append(
            f"In {_counted(len(unsaid), 'step')} there are rollouts that are neither right nor "
            "wrong: their reward said nothing of it (`acc` of 0 or 1), and all rewards of the run "
            "are the same."
        )
    if padding := _total(entries, "padding"):
        notes.append(f"verl's padding is not counted: {_counted(padding, 'line')} of samples.")
    if cut := [entry["step"] for entry in entries if entry["cut_short"]]:
        notes.append(
            f"The samples of step {', '.join(map(str, cut))} end within a line, which is left out: "
            "the run was stopped while it wrote them."
        )
    if stray := [entry["step"] for entry in entries if not entry["logged"]]:
        notes.append(
            f"No metrics were logged of step {', '.join(map(str, stray))}: the run was stopped "
            "before, or it is of an earlier start that went further."
        )
    return notes


def _table(entries: list[dict[str, Any]]) -> str:
    head = "".join(f'<th scope="col">{name}</th>' for name, *_ in _COLUMNS)
    lines = [f'<table><thead><tr><th scope="col">step</th>{head}</tr></thead><tbody>']
    for entry in entries:
        cells = "".join(f"<td>{_cell(entry[key], form)}</td>" for _, key, form in _COLUMNS)
        step = entry["step"]
        lines.append(f'<tr><th scope="row"><a href="#step-{step}">{step}</a></th>{cells}</tr>')
    return "\n".join([*lines, "</tbody></table>"])


def _cell(value: float | str | None, form: str) -> str:
    if value is None:
        return "–"
    return html.escape(value) if isinstance(value, str) else format(value, form)
