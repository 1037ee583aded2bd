"""A model's folder on the Hugging Face hub: what goes, what stays, and when nothing goes."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from rsp_rl.basics.errors import ConfigError, KnownError, RunFolderError
from rsp_rl.models.folder import check_model
from rsp_rl.models.front_matter import read_front_matter
from rsp_rl.runs.card import CARD
from rsp_rl.runs.checkpoints import TRACKER, damage
from rsp_rl.runs.merging import made_of, shards_digest

#: Files of a model, at the top of its folder.
_MODEL = (
    *("README.md", "LICENSE*", "NOTICE*", "*.safetensors", "*.safetensors.index.json"),
    *("config.json", "generation_config.json", "merged.json", "tokenizer*", "vocab*", "merges.txt"),
    *("special_tokens_map.json", "added_tokens.json", "tekken.json", "*.tiktoken", "*.model"),
    *("chat_template.*", "preprocessor_config.json", "processor_config.json"),
)
#: Why others stay; the first that fits.
_STAYS = (
    ("optim_*.pt", "an optimizer's state"),
    ("extra_state_*.pt", "a trainer's state"),
    ("model_world_size_*.pt", "a shard of training; the model is in the safetensors"),
    ("*.pt", "a file of training"),
    ("*.bin", "weights as pickles"),
    (".*", "hidden"),
    ("*", "no file of a model"),
)
_CHECKPOINT = re.compile(r"global_step_(\d+)")


class Hub(Protocol):
    """The part of `huggingface_hub.HfApi` that is used."""

    def create_repo(self, repo_id: str, *, private: bool | None, exist_ok: bool) -> object:
        """Make a repository."""

    def repo_info(self, repo_id: str) -> object:
        """What a repository is."""

    def upload_folder(
        self, *, repo_id: str, folder_path: str, allow_patterns: list[str], commit_message: str
    ) -> object:
        """Send files."""


@dataclass(frozen=True)
class Upload:
    """What is sent of a folder.

    Attributes:
        folder: The model's.
        files: Names and bytes.
        left_out: Names, bytes and why.
    """

    folder: Path
    files: dict[str, int]
    left_out: dict[str, tuple[int, str]]

    def lines(self) -> Iterator[str]:
        """What a reader is told."""
        width = max(map(len, [*self.files, *self.left_out]))
        for name, size in self.files.items():
            yield f"  {name:<{width}} {_size(size):>10}"
        yield f"  {len(self.files)} files, {_size(sum(self.files.values()))}"
        if self.left_out:
            yield "left out:"
        for name, (size, why) in self.left_out.items():
            yield f"  {name:<{width}} {_size(size):>10}  {why}"


def _size(count: int) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.4g} {unit}"
        count /= 1000  # type: ignore[assignment]
    return f"{count:,.4g} GB"


def check_upload(folder: Path) -> Upload:
    """What would be sent of a model's folder.

    Args:
        folder: A merged folder with its card.

    Raises:
        ConfigError: If it is no model's folder, or has no card, or weights are not whole, or are
            an adapter's.
        RunFolderError: If it is of a checkpoint that is not finished, or was saved anew since.
    """
    if not folder.is_dir():
        raise ConfigError(f"{folder} is no folder; give the merged folder that rsp-rl report names")
    if not (folder / "config.json").is_file():
        raise ConfigError(
            f"{folder} holds no config.json and is no model's folder; give the merged folder that "
            "rsp-rl report names"
        )
    _check_checkpoint(folder)
    check_model(folder)
    card = folder / CARD
    try:
        head = read_front_matter(card)
    except ValueError as error:
        raise ConfigError(f"the head of {card} cannot be read ({error}); mend it") from error
    if head is None:
        raise ConfigError(
            f"{folder} holds no {CARD} with a head of `---`, a model card; write it with rsp-rl "
            "report RUN_DIR --card"
        )
    files: dict[str, int] = {}
    left_out: dict[str, tuple[int, str]] = {}
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
            left_out[f"{path.name}/"] = size, "a folder"
        elif not path.exists():
            left_out[path.name] = 0, "a link to what is not there"
        elif any(fnmatch.fnmatchcase(path.name, pattern) for pattern in _MODEL):
            files[path.name] = path.stat().st_size
        else:
            why = next(why for pattern, why in _STAYS if fnmatch.fnmatchcase(path.name, pattern))
            left_out[path.name] = path.stat().st_size, why
    return Upload(folder, files, left_out)


def _check_checkpoint(folder: Path) -> None:
    """Refuse what is of a checkpoint that is being written, or has other weights by now."""
    folder = folder.resolve()
    checkpoint = next((p for p in folder.parents if _CHECKPOINT.fullmatch(p.name)), None)
    if folder.name.startswith("."):
        raise RunFolderError(
            f"{folder} is half of a conversion; run rsp-rl report RUN_DIR --card and give the "
            "folder that it names"
        )
    if checkpoint is None:
        return
    tracker = checkpoint.parent / TRACKER
    newest = tracker.read_text().strip() if tracker.is_file() else ""
    match = _CHECKPOINT.fullmatch(checkpoint.name)
    assert match is not None
    if not newest.isdigit() or int(match[1]) > int(newest):
        raise RunFolderError(
            f"{checkpoint} is not finished: {tracker} names "
            f"{f'step {newest}' if newest else 'none'}; wait until it is saved"
        )
    actor, made = checkpoint / "actor", made_of(folder)
    if any(actor.glob("model_world_size_*_rank_*.pt")):  # pruned checkpoints have none
        if problem := damage(checkpoint):
            raise RunFolderError(f"{problem}: the checkpoint is not whole; restore the file")
        if made is not None and made.get("shards") != shards_digest(actor):
            raise RunFolderError(
                f"{checkpoint} was saved anew since {folder.name} was made of it; run rsp-rl "
                "report RUN_DIR --card again"
            )


def check_name(repository: str) -> None:
    """Make sure that a repository can be called so.

    Raises:
        ConfigError: If the hub would refuse it.
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repository)
    except HFValidationError as error:
        raise ConfigError(f"--repo {repository!r} is no name for a repository: {error}") from error


def push(upload: Upload, repository: str, *, private: bool, hub: Hub) -> str:
    """Send a model.

    Args:
        upload: Of `check_upload`.
        repository: `OWNER/NAME`, or a name of the owner of the token; made if it is not there.
        private: Whether it must be private.
        hub: `huggingface_hub.HfApi()`.

    Returns:
        The repository's full name.

    Raises:
        ConfigError: If the hub refuses or cannot be reached, or the repository is there and public
            although it is to be private.
    """
    try:
        made = hub.create_repo(repository, private=private or None, exist_ok=True)
        name = str(getattr(made, "repo_id", repository))
        if private and not getattr(hub.repo_info(name), "private", False):
            raise ConfigError(
                f"{name} is there already and public, and nothing was sent; make it private on the "
                "hub, or choose another --repo"
            )
        hub.upload_folder(
            repo_id=name,
            folder_path=str(upload.folder),
            allow_patterns=[_literally(file) for file in upload.files],
            commit_message="Model of rsp-rl",
        )
    except KnownError:
        raise
    except Exception as error:  # the hub raises a dozen kinds; all mean the same to the user
        said = " ".join(str(error).split())[:300]
        raise ConfigError(
            f"the hub did not take {repository} ({type(error).__name__}: {said}); check the "
            "network, HF_TOKEN and whether it may write there"
        ) from error
    return name


def _literally(name: str) -> str:
    """A pattern that fits one name."""
    return re.sub(r"([*?\[])", r"[\1]", name)
