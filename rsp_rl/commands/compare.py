"""`rsp-rl compare RUN ...`: runs side by side, the paper's Table 5 and Figure 5.

Each RUN is a run's folder, or NAME=DIR, or NAME=DIR,DIR,... for several training seeds of one
method, which are then shown as their mean. Differences are to the first RUN.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from rsp_rl.evaluation.compare import analyse


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Register the `compare` command."""
    parser = commands.add_parser(
        "compare",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="DIR, NAME=DIR or NAME=DIR,DIR,...")
    parser.add_argument(
        "--protocol", help="evaluation to compare (default: the only one that a run has)"
    )
    parser.add_argument(
        "--output", type=Path, default=Path("comparison"), help="folder to write to (%(default)s)"
    )
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Write `comparison.md`, `.csv`, `curves.csv`, `.png` and `.svg`; print the tables."""
    analyse(args.runs, args.output, protocol=args.protocol)
    return 0
