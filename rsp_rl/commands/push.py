"""`rsp-rl push FOLDER --repo NAME`: a merged model with its card to the Hugging Face hub."""

from __future__ import annotations

import argparse
from pathlib import Path

from rsp_rl.console.screen import say


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Register the `push` command."""
    parser = commands.add_parser("push", description=__doc__)
    parser.add_argument(
        "folder", type=Path, help="a merged folder with a card (rsp-rl report RUN_DIR --card)"
    )
    parser.add_argument("--repo", required=True, help="OWNER/NAME on the hub; made if need be")
    parser.add_argument("--private", action="store_true", help="the repository must be private")
    parser.add_argument(
        "--dry-run", action="store_true", help="say what would be sent, without a network"
    )
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Check the folder, list its files, and send them."""
    from rsp_rl.runs.push import check_name, check_upload, push

    check_name(args.repo)
    upload = check_upload(args.folder.expanduser())
    print(f"{upload.folder} to {args.repo}{' (private)' if args.private else ''}:")
    print("\n".join(upload.lines()))
    if args.dry_run:
        print("dry run: nothing was sent")
        return 0
    from huggingface_hub import HfApi

    say("sending ...")
    print(f"sent to {push(upload, args.repo, private=args.private, hub=HfApi())}")
    return 0
