"""Training and validation files before Ray starts: their rows checked, and made such as verl reads.

Files that verl cannot read, or reads otherwise than we do, are written anew for it.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict

from rsp_rl.basics.errors import ConfigError
from rsp_rl.data.prompt_files import Reading, checked_rows
from rsp_rl.data.row_files import Row, data_files, write_rows
from rsp_rl.grading.gold import readable

logger = logging.getLogger(__name__)

#: Module of the reward function that the checks of golds speak for.
GRADER = "rsp_rl.grading.reward"


@dataclass(frozen=True)
class CheckedFiles:
    """The files of one setting, their rows checked.

    Attributes:
        name: `train` or `val`.
        files: Absolute paths.
        how: What `checked_rows` was given beside them.
        reading: What it saw.
    """

    name: str
    files: list[Path]
    how: dict[str, Any]
    reading: Reading

    def rows(self) -> Iterator[tuple[Path, int, Row]]:
        """As verl will read them: file, number in it, row."""
        return checked_rows(self.files, Reading(), **self.how)

    def write(self, config: DictConfig, folder: Path) -> None:
        """Give verl the files that it is to read; those that it cannot are one new file.

        Args:
            config: The composed config, whose setting is changed in place.
            folder: Where that file goes, made if needed.

        Raises:
            ConfigError: If files hold values that have no type in common, or some rows alone name
                an agent loop.
        """
        setting, files = f"data.{self.name}_files", self.files
        if not self.reading.as_is:
            file = folder / f"{self.name}.parquet"
            placed = list(self.rows())
            places = [f"dataset {source}, row {number}" for source, number, _ in placed]
            self._check_agents(placed)
            mixed = write_rows(file, [row for *_, row in placed], places)
            changes = [f"{change} in {rows} rows" for change, rows in self.reading.changed.items()]
            changes += [f"numbers beside text became text in {name}" for name in mixed]
            said = "; ".join([f"written as verl reads them to {file}", *changes])
            logger.info("%s: %s", setting, said)
            files = [file]
        names = [str(file) for file in files]
        with open_dict(config):
            is_one = isinstance(config.data[f"{self.name}_files"], str)
            config.data[f"{self.name}_files"] = names[0] if is_one else names

    def _check_agents(self, placed: list[tuple[Path, int, Row]]) -> None:
        """In one file a column that some rows lack is null there, which names no agent loop."""
        without = [place for *place, row in placed if "agent_name" not in row]
        if without and len(without) < len(placed):
            source, number = without[0]
            raise ConfigError(
                f"dataset {source}, row {number}: no 'agent_name', which other rows of "
                f"data.{self.name}_files have; name a loop in every row, or drop the column"
            )


def check_data(config: DictConfig, agent_loops: Collection[str] | None) -> list[CheckedFiles]:
    """Check the rows of `data.train_files` and `data.val_files`.

    Args:
        config: The composed config.
        agent_loops: Those that a row may ask for; any if None.

    Returns:
        The files of both, to be written where verl cannot read them; nothing where a class of the
        user's own reads the data.

    Raises:
        ConfigError: Naming file, row, cause and mend, for what training could not use.
    """
    if path := OmegaConf.select(config, "data.custom_cls.path"):
        logger.warning("data.custom_cls.path=%s reads the data: its rows are not checked", path)
        return []
    train, val = (_check_files(config, name, agent_loops) for name in ("train", "val"))
    for files in (train, val):
        if len(set(files.files)) < len(files.files):
            logger.warning("data.%s_files names a file twice: its rows count twice", files.name)
    if both := sorted({*train.files} & {*val.files}):
        logger.warning("%s is trained on and validated on", ", ".join(map(str, both)))
    return [train, val]


def _check_files(
    config: DictConfig, name: str, agent_loops: Collection[str] | None
) -> CheckedFiles:
    data, setting = config.data, f"data.{name}_files"
    named = data[f"{name}_files"]
    files = data_files(list(named) if isinstance(named, ListConfig) else named, setting)
    reward = OmegaConf.select(config, "reward.custom_reward_function.path") or ""
    graded = reward.removeprefix("pkg://").replace("/", ".") == GRADER
    how = {"prompt_key": data.prompt_key, "agent_loops": agent_loops, "graded": graded}
    reading = Reading()
    for _ in checked_rows(files, reading, **how):
        pass  # each is seen
    if graded:
        _say_readable(setting, reading)
    else:
        logger.info("%s: golds are not checked, for another reward function takes them", setting)
    return CheckedFiles(name, files, how, reading)


def _say_readable(setting: str, reading: Reading) -> None:
    read, tried, unread = readable(reading.golds)
    examples = f"; compared as text alone, e.g. {', '.join(map(repr, unread[:3]))}" * bool(unread)
    logger.info(
        "%s: the grader can read %.1f%% of the golds (%d of %d distinct ones%s)%s",
        setting,
        100 * read / tried,
        read,
        tried,
        f" tried, of {len(reading.golds)}" * (tried < len(reading.golds)),
        examples,
    )
    words = sum(rows for gold, rows in reading.golds.items() if gold.strip() == "None")
    if words:
        logger.warning(
            "%s: %d golds are the word 'None', as Python writes a missing value", setting, words
        )
