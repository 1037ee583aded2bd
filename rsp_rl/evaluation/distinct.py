"""Steps of one run must have weights of their own: else one of them is not what was trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rsp_rl.basics.errors import RunFolderError
from rsp_rl.evaluation.folder import EvaluationFolder

#: In `how.json`: of the values; and of the files, all that evaluations of before have.
_DIGESTS = ("values", "weights")


def check_distinct(folder: EvaluationFolder, manifests: Mapping[int, Mapping[str, Any]]) -> None:
    """Make sure that no two steps were evaluated with the same weights.

    Args:
        folder: The run's evaluation.
        manifests: `how.json` by step.

    Raises:
        RunFolderError: Naming two steps that have the same.
    """
    for name in _DIGESTS:
        seen: dict[str, int] = {}
        for step, manifest in manifests.items():
            digest = manifest.get(name)
            if digest is not None and (other := seen.setdefault(digest, step)) != step:
                raise RunFolderError(
                    f"steps {other} and {step} of {folder.root} have the same weights: nothing was "
                    "trained between them (a learning rate of 0?), or one was made wrong, as by "
                    "verl's merger, which leaves a LoRA adapter out; remove the folders of steps "
                    "evaluated so and evaluate again, or leave one of the two out with --steps"
                )
