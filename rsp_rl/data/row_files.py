"""Files of rows, of whatever format, read in one place.

verl reads Parquet and JSON by a library that guesses types, each file by itself, and knows a format
by the end of its name. Here a row is what the file says, and a fault is one line with its place.
"""

from __future__ import annotations

import csv
import io
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from rsp_rl.basics.errors import ConfigError
from rsp_rl.data.json_text import read_json_text

#: Rows that are in memory at once while a Parquet file is read.
BATCH = 4096

Row = dict[str, Any]

#: What stands in a file's place in a clone without Git LFS.
_POINTER = b"version https://git-lfs"

#: In a name verl's library takes these for a pattern, and reads whatever files it fits.
_PATTERN = frozenset("*?[]")


def data_files(files: str | Sequence[str] | None, setting: str = "data files") -> list[Path]:
    """The files of a setting, absolute, `~` spelt out.

    Args:
        files: One or several paths; a config without files says None.
        setting: What the error calls them, such as `data.train_files`.

    Raises:
        ConfigError: If one does not exist, is a folder, or has a format that nothing here reads.
    """
    names = [files] if files is None or isinstance(files, str) else list(files)
    if not names or not all(names):
        raise ConfigError(f"{setting} names no file")
    found = []
    for name in names:
        file = Path(str(name)).expanduser()
        if "://" in str(name):
            raise ConfigError(
                f"dataset {name} is no local file; copy it and name that in {setting}"
            )
        if file.is_dir():
            raise ConfigError(f"dataset {file} is a folder; name its files in {setting}")
        if not file.is_file():
            raise ConfigError(f"dataset {file} does not exist; check {setting}")
        with file.open("rb") as content:
            if content.read(len(_POINTER)) == _POINTER:
                raise ConfigError(f"dataset {file} is Git LFS's pointer to it; `git lfs pull` it")
        if file.suffix.lower() not in _READERS:
            raise ConfigError(
                f"dataset {file}: {file.suffix or 'a name without an ending'} is no format that "
                f"can be read; write it as one of {', '.join(_READERS)}"
            )
        found.append(file.absolute())  # a link keeps its name: the hub's cache links to hashes
    return found


def read_rows(file: Path) -> Iterator[Row]:
    """Rows of a file, in its order.

    Args:
        file: One that `data_files` has let pass.

    Raises:
        ConfigError: Naming file, line or row, and cause, if it is damaged.
    """
    return _READERS[file.suffix.lower()](file)


def same_schema(files: Sequence[Path]) -> bool:
    """Whether verl reads these files as they are, and all alike.

    Its library concatenates only what has the same types; a string of pandas 3 is another type than
    one of older versions, and a number that it has left word of as a class's another than a number.
    """
    if any(file.suffix != ".parquet" or _PATTERN & {*str(file)} for file in files):
        return False
    schemas = [_open_parquet(file).schema_arrow for file in files]
    stored = [schema.remove_metadata() for schema in schemas]
    if not all(schema.equals(stored[0]) for schema in stored):
        return False
    if not any(b"huggingface" in (schema.metadata or {}) for schema in schemas):
        return True
    from datasets import Features  # slow to import, and most files do without

    try:
        believed = [Features.from_arrow_schema(schema) for schema in schemas]
    except (ValueError, TypeError, KeyError):
        return False
    return all(
        features == believed[0] and features.arrow_schema.remove_metadata().equals(stored[0])
        for features in believed
    )


def write_rows(file: Path, rows: Sequence[Row], places: Sequence[str]) -> list[str]:
    """Write rows as one Parquet file, whole or not at all, of the same types from first to last.

    A column or field that holds numbers in some rows and text in others becomes text.

    Args:
        file: Where to; its folder is made if needed.
        rows: At least one.
        places: What an error calls each row.

    Returns:
        Names of the columns and fields that became text.

    Raises:
        ConfigError: If a column or field holds values that have no type in common, or verl could
            not read a file of that name.
    """
    mixed: list[str] = []
    arrays = {}
    for name in dict.fromkeys(name for row in rows for name in row):
        column = _one_type(name, [row.get(name) for row in rows], places, mixed)
        try:
            arrays[name] = pa.array(column)
        except _NO_TYPE as error:
            row = next((n for n, value in enumerate(column) if not _has_type(value)), 0)
            raise ConfigError(
                f"{places[row]}: column {name!r} cannot be written as one type: {_line(error)}; "
                "mend the file"
            ) from error
    if _PATTERN & {*str(file)}:
        raise ConfigError(
            f"{file} has to be written for verl, whose library takes the name for a pattern; name "
            f"a run_dir without {' '.join(sorted(_PATTERN))}"
        )
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f".{file.stem}.{os.getpid()}.parquet")
    try:
        pq.write_table(pa.table(arrays), partial)
        os.replace(partial, file)
    finally:
        partial.unlink(missing_ok=True)
    return mixed


_NO_TYPE = (pa.ArrowException, TypeError, ValueError, OverflowError)


def _has_type(value: Any) -> bool:
    try:
        pa.array([value])
    except _NO_TYPE:
        return False
    return True


def _one_type(name: str, values: list[Any], places: Sequence[str], mixed: list[str]) -> list[Any]:
    """Values of one column or field, alike all the way down."""
    kinds = {_kind(value) for value in values} - {None}
    if kinds == {"a mapping"}:
        fields = {
            key: _one_type(f"{name}.{key}", [(v or {}).get(key) for v in values], places, mixed)
            for key in dict.fromkeys(key for value in values if value for key in value)
        }
        # Parquet has no mapping without keys: an empty one is nothing.
        return [
            {key: fields[key][row] for key in fields} if value else None
            for row, value in enumerate(values)
        ]
    if kinds == {"a list"}:
        items = [item for value in values for item in value or ()]
        where = [place for value, place in zip(values, places, strict=True) for _ in value or ()]
        alike = iter(_one_type(f"{name}[]", items, where, mixed))
        return [None if value is None else [next(alike) for _ in value] for value in values]
    if kinds == {"a number", "text"}:
        mixed.append(name)
        return [value if value is None else str(value) for value in values]
    if len(kinds) > 1:
        first = {kind: row for row, kind in reversed([*enumerate(map(_kind, values))]) if kind}
        (one, row), (other, later) = sorted(first.items(), key=lambda pair: pair[1])[:2]
        raise ConfigError(
            f"{places[later]}: {name!r} is {other}, {values[later]!r:.40}, but {one} in "
            f"{places[row]}; give it one type in all files"
        )
    return values


def _kind(value: Any) -> str | None:
    if value is None:
        return None
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    if isinstance(value, str):
        return "text"
    if isinstance(value, int | float) and not isinstance(value, bool):
        return "a number"
    return f"a {type(value).__name__}"


def _line(error: object) -> str:
    return " ".join(str(error).split())


def _open_parquet(file: Path) -> pq.ParquetFile:
    try:
        opened = pq.ParquetFile(file)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"dataset {file} is not a readable parquet file: {_line(error)}"
        ) from error
    names = opened.schema_arrow.names
    if len(set(names)) < len(names):
        raise ConfigError(f"dataset {file} names a column twice: {names}")
    return opened


def _parquet_rows(file: Path) -> Iterator[Row]:
    number = 0
    try:
        for batch in _open_parquet(file).iter_batches(batch_size=BATCH):
            rows = batch.to_pylist()
            yield from rows
            number += len(rows)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"dataset {file} is damaged after row {number}: {_line(error)}; get or write it anew"
        ) from error


def _json_rows(file: Path) -> Iterator[Row]:
    """A list of objects, or an object a line, whatever the ending says."""
    for place, row in _numbered_json(file):
        if not isinstance(row, dict):
            raise ConfigError(
                f"dataset {file}, {place}: {row!r:.60} is no JSON object; write an object a line, "
                "or a list of them"
            )
        yield row


def _numbered_json(file: Path) -> Iterator[tuple[str, Any]]:
    begun = is_list = False
    try:
        # Bytes: JSON strings may hold Unicode's line breaks.
        with file.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                text = line.removeprefix(_MARK) if number == 1 else line
                if is_list := not begun and text.lstrip().startswith(b"["):
                    break
                if text.strip():
                    begun = True
                    yield f"line {number}", _json(text, f"dataset {file}, line {number}")
    except OSError as error:
        raise ConfigError(f"dataset {file} cannot be read: {error.strerror}") from error
    if is_list:
        for number, row in enumerate(_json(_bytes(file).removeprefix(_MARK), f"dataset {file}")):
            yield f"row {number}", row


def _json(text: bytes, where: str) -> Any:
    try:
        return read_json_text(text)
    except ValueError as error:
        raise ConfigError(f"{where} is damaged: {_line(error)}; get or write it anew") from error


def _csv_rows(file: Path) -> Iterator[Row]:
    """Cells are text; what stands for a list or mapping is JSON in it. An empty one is nothing."""
    try:
        text = _bytes(file).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"dataset {file} is not UTF-8: {error}; write it anew") from error
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    lines = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = next(lines, [])
        if len(set(header)) < len(header):
            raise ConfigError(f"dataset {file}, line 1 names a column twice: {header}")
        for cells in lines:
            if len(cells) != len(header) and cells:
                raise ConfigError(
                    f"dataset {file}, line {lines.line_num}: {len(cells)} cells, but {len(header)} "
                    "columns; quote cells that hold commas or line breaks"
                )
            if cells:
                yield {name: cell or None for name, cell in zip(header, cells, strict=True)}
    except csv.Error as error:
        raise ConfigError(
            f"dataset {file}, line {lines.line_num} is damaged: {error}; write it anew"
        ) from error


#: How some programs begin a text file.
_MARK = b"\xef\xbb\xbf"


def _bytes(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise ConfigError(f"dataset {file} cannot be read: {error.strerror}") from error


_READERS = {".parquet": _parquet_rows, ".json": _json_rows, ".jsonl": _json_rows, ".csv": _csv_rows}
