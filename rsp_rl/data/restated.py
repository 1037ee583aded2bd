"""The sentences of a question once more, in another order: what a small model learns to read with.

A model from nothing must first learn to find a sentence by its subject, which the few steps of a
solution teach slowly. Here a problem's steps are all sentences of its question but the last, and
its answer says nothing: whoever is trained on them has seen no step of a solution and no answer.

``python -m rsp_rl.data.restated --data FILE --output FILE`` writes them for a made task's file.
"""

from __future__ import annotations

import argparse
import random
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from rsp_rl.basics.errors import ConfigError
from rsp_rl.data.step_problems import StepProblem, load_step_problems, write_step_problems

ANSWER = "That is all."
_ASKED = "What was said?"


def restated(problems: Iterable[StepProblem], seed: int = 0) -> list[StepProblem]:
    """What is said before each question, and all of it again in random order.

    Args:
        problems: Of a made task, whose questions are sentences and then what is asked.
        seed: Of the orders.

    Raises:
        ConfigError: If a question has no sentence but what is asked.
    """
    rng = random.Random(f"restated:{seed}")
    found = []
    for number, problem in enumerate(problems):
        *sentences, _ = re.split(r"(?<=[.])\s+", problem.question.strip())
        if not sentences:
            raise ConfigError(
                f"problem {number} says nothing before it asks ({problem.question!r:.60}); take a "
                "task whose questions state facts, such as rsp_rl.data.prosqa"
            )
        order = rng.sample(sentences, len(sentences))
        found.append(StepProblem(" ".join([*sentences, _ASKED]), tuple(order), ANSWER))
    return found


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command line; bad input ends with one message and exit status 2."""
    parser = argparse.ArgumentParser(
        prog="python -m rsp_rl.data.restated", description="Write a file's sentences anew."
    )
    parser.add_argument("--data", required=True, help="problems of a made task")
    parser.add_argument("--output", type=Path, required=True, help="file, ending with .jsonl")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    try:
        problems = load_step_problems(args.data, "--data", needs_steps=False)
        write_step_problems(args.output, restated(problems, args.seed))
    except (ValueError, OSError) as error:
        parser.error(str(error))
    print(f"{args.output}: {len(problems)} problems", file=sys.stderr)


if __name__ == "__main__":
    main()
