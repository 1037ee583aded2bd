"""What decides which prompts come in which step, kept with every checkpoint.

A checkpoint holds the sampler's place in a permutation of the rows. In another file, in batches of
another size or under another seed that place is one in another permutation: verl goes on from it
and some prompts come twice, others never. The step's numbers would not show it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from rsp_rl.basics.errors import ConfigError
from rsp_rl.basics.files import read_json, write_json

#: In a checkpoint: settings by name, and rows after filtering.
FILE = "data_order.json"

#: The override that resumes all the same, and gives up what it names.
FORGET = "trainer.v1.rsp_sync.forget_data_position"

ROWS = "rows left by the filters"
TRAINING, VALIDATION = "data.train_files", "data.val_files"

_SETTINGS = (
    *("data.train_batch_size", "data.gen_batch_size", "data.seed", "data.shuffle"),
    *("data.train_max_samples", "data.dataloader_num_workers", "algorithm.filter_groups.enable"),
    "trainer.v1.sampler.sync_refill_failed_groups",
    "trainer.v1.trainer_mode",
)

#: Of checkpoints from before these settings could be another.
_BEFORE = {"trainer.v1.trainer_mode": "rsp_sync"}

_BLOCK = 1 << 22


def data_order(config: DictConfig) -> dict[str, Any]:
    """What decides the order, by setting; files by what is in them, wherever they lie."""
    return {name: OmegaConf.select(config, name) for name in _SETTINGS} | file_digests(config)


def file_digests(config: DictConfig) -> dict[str, list[str]]:
    """What is in the files, by setting; of what is none (a user's class reads it), its name."""
    return {name: _digests(OmegaConf.select(config, name)) for name in (TRAINING, VALIDATION)}


def _digests(files: str | Sequence[str]) -> list[str]:
    return [_digest(Path(file)) for file in ([files] if isinstance(files, str) else files)]


def _digest(file: Path) -> str:
    if not file.is_file():
        return str(file)
    digest = hashlib.blake2b(digest_size=16)
    with file.open("rb") as content:
        while block := content.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def save_order(checkpoint: Path, order: Mapping[str, Any]) -> None:
    """Put the order into a checkpoint."""
    write_json(checkpoint / FILE, dict(order))


def saved_order(checkpoint: Path) -> dict[str, Any] | None:
    """The order that a checkpoint was trained in, `None` for one that does not say."""
    file = checkpoint / FILE
    return {**_BEFORE, **read_json(file)} if file.is_file() else None


def differences(saved: Mapping[str, Any], order: Mapping[str, Any]) -> list[str]:
    """What both name and do not agree on, validation files left out: they decide no order."""
    return [
        name
        for name in order
        if name != VALIDATION and name in saved and saved[name] != order[name]
    ]


def check_order(checkpoint: Path, order: Mapping[str, Any], *, forget: bool) -> str | None:
    """Compare a checkpoint's order with that of the run that resumes from it.

    Args:
        checkpoint: A `global_step_N` folder.
        order: Of the run.
        forget: Whether the run gives up its place in the data (`FORGET`).

    Returns:
        What the run must be told: what it gives up, that nobody can tell, or that validations
        before and after are on other problems.

    Raises:
        ConfigError: If they differ and the place is not given up; names each difference.
    """
    saved = saved_order(checkpoint)
    if saved is None:
        return (
            f"{checkpoint} does not say in which order its data came: if train_files, batch size "
            "or data.seed changed since, prompts come twice or never"
        )
    differing = differences(saved, order)
    if not differing:
        if saved.get(VALIDATION, order[VALIDATION]) != order[VALIDATION]:
            return (
                f"{VALIDATION} is not what {checkpoint} was validated on: accuracies before and "
                "after it are of other problems"
            )
        return None
    what = "; ".join(_difference(name, saved[name], order[name]) for name in differing)
    if forget:
        return (
            f"{what}: {FORGET}=True begins the data anew after {checkpoint.name}; prompts that the "
            "run has seen come again"
        )
    raise ConfigError(
        f"{checkpoint} was trained on its data in another order ({what}): its place in there means "
        f"nothing here. Resume with what it had, start anew with another run_dir, or set "
        f"{FORGET}=True, which begins the data anew and gives up knowing what this run has seen"
    )


def _difference(name: str, saved: Any, now: Any) -> str:
    if name == TRAINING:
        return f"{name} hold other bytes"
    return f"{name}={now}, there {saved}"
