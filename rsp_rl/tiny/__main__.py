"""``python -m rsp_rl.tiny --output DIR``: make the tiny model from the command line."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from transformers.utils.logging import disable_progress_bar

from rsp_rl.tiny.folder import DEFAULT_STEPS, make_tiny_model, read_record


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command line; bad input ends with one message and exit status 2."""
    parser = argparse.ArgumentParser(
        prog="python -m rsp_rl.tiny",
        description="Make the tiny Qwen2 model, warmed up on the arithmetic task.",
    )
    parser.add_argument("--output", type=Path, required=True, help="Hugging Face folder to make")
    parser.add_argument("--steps", type=int, default=DEFAULT_STEPS, help="warm-up steps")
    parser.add_argument("--no-warmup", action="store_true", help="the same as --steps 0")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--hidden-size", type=int, default=128)
    parser.add_argument("--num-layers", type=int, default=2)
    parser.add_argument("--num-heads", type=int, default=4)
    parser.add_argument("--tie-word-embeddings", action="store_true")
    # So small a model gains nothing from a second thread, and on a busy machine loses much to it.
    parser.add_argument("--threads", type=int, default=1, help="torch threads (default: 1)")
    args = parser.parse_args(argv)
    disable_progress_bar()  # of writing a model that is written at once
    try:
        folder = make_tiny_model(
            args.output,
            seed=args.seed,
            steps=0 if args.no_warmup else args.steps,
            hidden_size=args.hidden_size,
            num_layers=args.num_layers,
            num_heads=args.num_heads,
            tie_word_embeddings=args.tie_word_embeddings,
            threads=args.threads,
        )
    except (ValueError, OSError) as error:
        parser.error(str(error))
    result = read_record(folder)["warmup"]
    print(f"tiny model: {folder}", file=sys.stderr)
    if result:
        print(
            "held-out accuracy: greedy {greedy_accuracy:.3f}, sampled {sampled_accuracy:.3f}, "
            "of the reasoned samples {reasoned_accuracy:.3f}; warm-up took {seconds:.0f} s".format(
                **result
            ),
            file=sys.stderr,
        )


if __name__ == "__main__":
    main()
