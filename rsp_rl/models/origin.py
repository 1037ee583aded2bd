"""Where a run's base model came from, as far as that is on record: nothing is guessed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rsp_rl.basics.files import read_json
from rsp_rl.models.front_matter import read_front_matter
from rsp_rl.models.small import SMALL_MODELS, SOURCE_NAME


@dataclass(frozen=True)
class Origin:
    """A model's origin.

    Attributes:
        said: In words.
        hub: Its name on the Hugging Face hub, None if that is not on record.
        licence: As its own card names it, None if that is not on record.
    """

    said: str
    hub: str | None = None
    licence: str | None = None


def origin_of(path: str) -> Origin:
    """The origin of what a run was given as its model; no network is asked.

    Args:
        path: A folder, or a name on the hub.
    """
    folder = Path(path).expanduser()
    if folder.is_dir():
        return _of_folder(folder)
    if cached := _cached(path, "config.json"):
        licence = _licence(cached.parent / "README.md") or _licence(_cached(path, "README.md"))
        return Origin(f"{path} of the Hugging Face hub", path, licence)
    return Origin(
        f"{Path(path).name}: whether that was a folder or a model of the hub is not on record here"
    )


def _of_folder(folder: Path) -> Origin:
    licence = _licence(folder / "README.md")
    file = folder / SOURCE_NAME
    if not file.is_file():
        name = folder.resolve().name
        return Origin(f"a local folder, {name}: where it is from is not on record", None, licence)
    source = read_json(file)
    way, _, what = str(source.get("from", "")).partition(": ")
    if way == "hub":
        return Origin(f"{what} of the Hugging Face hub", what.partition("@")[0], licence)
    known = SMALL_MODELS.get(str(source.get("name")))
    if known is None:
        return Origin(f"{source.get('name')}: where it is from is not on record", None, licence)
    by = f"from the package {what}" if way == "package" else "from a GGUF file"
    return Origin(
        f"{known.repository}, its weights {source.get('weights')} ({by})", known.repository, licence
    )


def _cached(name: str, file: str) -> Path | None:
    """A file of a model of the hub, if it was downloaded."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(name, file)
    except HFValidationError:  # a path
        return None
    return Path(found) if isinstance(found, str) else None


def _licence(card: Path | None) -> str | None:
    try:
        head = read_front_matter(card) if card else None
    except ValueError:  # its card's own affair
        return None
    found = (head or {}).get("license")
    return found if isinstance(found, str) and found else None
