"""Files of prompts in verl's schema, checked row by row before Ray starts."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from rsp_rl.basics.errors import ConfigError


def check_dataset(
    files: str | Sequence[str],
    prompt_key: str = "prompt",
    *,
    agent_loops: Collection[str] | None = None,
) -> int:
    """Check every row of a dataset in verl's schema.

    Args:
        files: Parquet files.
        prompt_key: Column of the chat messages.
        agent_loops: Those that a row may ask for; any if None.

    Returns:
        The number of rows.

    Raises:
        ConfigError: Naming file, row and field of the first row that training could not use.
    """
    rows = 0
    # A config without files says None, which is then named as missing.
    for name in [files] if files is None or isinstance(files, str) else files:
        file = Path(str(name)).expanduser()
        if not file.is_file():
            raise ConfigError(f"dataset {file} does not exist; check data.train_files, val_files")
        if file.suffix != ".parquet":
            continue  # verl reads json as well; its rows are checked when they are used
        columns = [prompt_key, "reward_model", "data_source"]
        try:
            present = pq.read_schema(file).names
            missing = [column for column in columns if column not in present]
            table = pq.ParquetFile(file)
        except (OSError, ValueError) as error:
            raise ConfigError(f"dataset {file} is not a readable parquet file: {error}") from error
        if missing:
            raise ConfigError(
                f"dataset {file}, row 0: no {missing[0]!r}; every row needs the columns {columns} "
                f"(verl's schema), the file has {present}"
            )
        if not table.metadata.num_rows:
            raise ConfigError(f"dataset {file} has no rows")
        if agent_loops is not None and "agent_name" in present:
            columns.append("agent_name")
        for number, row in enumerate(_rows(table, columns)):
            if problem := _row_problem(row, prompt_key, agent_loops):
                raise ConfigError(f"dataset {file}, row {number}: {problem}")
        rows += table.metadata.num_rows
    return rows


def _rows(table: pq.ParquetFile, columns: list[str]) -> Iterator[dict[str, Any]]:
    """Rows one batch at a time: training sets of millions of rows exist."""
    for batch in table.iter_batches(batch_size=4096, columns=columns):
        yield from batch.to_pylist()


def _row_problem(
    row: Mapping[str, Any], prompt_key: str, agent_loops: Collection[str] | None
) -> str | None:
    messages = row[prompt_key]
    if not messages:
        return f"no {prompt_key!r}: it must be a list of chat messages"
    if not isinstance(messages, list):
        return f"{prompt_key!r} is {messages!r:.80}, not a list of chat messages"
    for message in messages:
        # Parquet fills the fields that a message lacks with null.
        fields = message if isinstance(message, Mapping) else {}
        if not fields.get("role") or fields.get("content") is None:
            return f"{prompt_key!r} holds {message!r:.80}, not a message with 'role' and 'content'"
        if message["role"] == "user" and not isinstance(message["content"], str):
            return f"{prompt_key!r} has a user message that is not text: {message['content']!r:.80}"
    if not any(message["role"] == "user" for message in messages):
        return f"{prompt_key!r} has no user message"
    reward_model = row["reward_model"]
    if not isinstance(reward_model, Mapping) or reward_model.get("ground_truth") is None:
        return "reward_model.ground_truth is missing; the reward needs a gold answer"
    if not row["data_source"]:
        return "'data_source' is empty; it names the benchmark whose grading rules apply"
    if "agent_name" in row and row["agent_name"] not in agent_loops:
        return (
            f"'agent_name' is {row['agent_name']!r}; soft prompts know {sorted(agent_loops)}: drop "
            "the column, name the loop in actor_rollout_ref.rollout.agent.agent_loop_config_path, "
            "or set rsp.length=0"
        )
    return None
