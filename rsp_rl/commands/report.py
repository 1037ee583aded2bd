"""`rsp-rl report RUN_DIR`: a run as a summary, a table, a picture and a page of its rollouts."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from rsp_rl.basics.errors import KnownError
from rsp_rl.basics.files import write_json
from rsp_rl.console.screen import quiet
from rsp_rl.evaluation.card_scores import evaluated
from rsp_rl.models.folder import load_tokenizer
from rsp_rl.models.weights import stored_dtype
from rsp_rl.runs.card import write_card
from rsp_rl.runs.checkpoints import latest_checkpoint, merge_checkpoint, step_of
from rsp_rl.runs.folder import RunFolder
from rsp_rl.runs.merging import made_of
from rsp_rl.runs.report import count_parameters, held_out_how, plot, summarize, table
from rsp_rl.runs.rollouts_page import write_rollouts_page


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Register the `report` command."""
    parser = commands.add_parser("report", description=__doc__)
    parser.add_argument("run_dir", type=Path, help="the run's folder (RUN_DIR)")
    parser.add_argument(
        "--card", action="store_true", help="write a model card (README.md) into the merged folder"
    )
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Write summary, plot and page of rollouts, merge the last checkpoint, print the table."""
    folder = RunFolder(args.run_dir)
    steps = folder.merge_metrics()
    summary = summarize(steps, folder.read_settings(), folder.wall_seconds())
    if (law := folder.read_law()) is not None:
        summary |= {"law": law["name"]}
    write_json(folder.summary, summary)
    plot(steps, folder.plot, held_out_how(folder))
    print(table(steps, summary))
    print(f"\nsummary     {folder.summary}\nplot        {folder.plot}")
    page = write_rollouts_page(folder, steps, _token_text(folder))
    print(f"rollouts    {page or f'no samples in {folder.train_samples}'}")
    print(f"samples     {folder.root / 'samples'}\ntensorboard {folder.tensorboard}")
    checkpoint = latest_checkpoint(folder.checkpoints)
    print(f"merging {checkpoint} ...", flush=True)
    with quiet(folder.logs / "report.log"):
        merged = merge_checkpoint(checkpoint)
        parameters = count_parameters(merged)
    kind = f"{parameters:,} parameters, {stored_dtype(merged)}"
    if adapter := (made_of(merged) or {}).get("adapter"):
        kind += f", LoRA of rank {adapter['r']} merged"
    print(f"model       {merged} ({kind}, loads in transformers)")
    if args.card:
        scores = evaluated(folder, step_of(checkpoint), merged)
        print(f"card        {write_card(folder, checkpoint, merged, scores)}")
    print(f"logs        {folder.logs}")
    return 0


def _token_text(folder: RunFolder) -> Callable[[int], str] | None:
    """Texts of tokens, for thoughts; None for a run without them, or without a tokenizer."""
    if folder.read_law() is None:
        return None
    try:
        kept = latest_checkpoint(folder.checkpoints) / "actor" / "huggingface"
        tokenizer = load_tokenizer(kept)
    except KnownError as error:
        print(f"thoughts are shown as numbers of tokens: {error}")
        return None
    return lru_cache(maxsize=None)(lambda token: tokenizer.decode([token]))
