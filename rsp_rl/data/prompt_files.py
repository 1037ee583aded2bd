"""Files of prompts in verl's schema, checked row by row before Ray starts."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rsp_rl.basics.errors import ConfigError
from rsp_rl.data.json_text import read_json_text
from rsp_rl.data.lone_surrogates import lone_surrogate
from rsp_rl.data.row_files import Row, data_files, read_rows, same_schema
from rsp_rl.grading.gold import gold_problem, gold_text

#: Columns that every row needs.
COLUMNS = ("reward_model", "data_source")

#: Columns of what is no text, which verl would look for in the prompt.
_MEDIA = ("images", "videos", "audios")

#: Names under which verl hands a row to its rollout, or keeps what comes of it: a column's values
#: would be taken for those, or the other way round.
RESERVED = frozenset(
    {
        *("sampling_params", "trajectory", "trace", "session_id", "validate", "self"),
        *("__rollout_n__", "__do_sample__"),
        *("prompts", "responses", "response_mask", "rollout_log_probs", "rm_scores"),
        *("input_ids", "position_ids", "attention_mask", "loss_mask", "multi_modal_inputs"),
        *("multi_modal_data", "mm_processor_kwargs", "mm_processor_output", "routed_experts"),
        *("extra_fields", "metrics", "num_turns", "teacher_ids", "teacher_logprobs"),
        *("log_probs", "old_log_probs", "ref_log_prob", "entropy", "values", "advantages"),
        *("returns", "rsp_record", "rsp_validation", "rsp_prompt_index", "rsp_group_start"),
    }
)

#: Columns that may hold their list or mapping as JSON text.
_STRUCTURED = ("reward_model", "extra_info")


@dataclass
class Reading:
    """What was seen while `checked_rows` went through the files of one setting.

    Attributes:
        rows: Rows so far.
        changed: By what was changed in a row, in how many.
        golds: Distinct golds, each with the number of its rows.
        as_is: Whether verl reads the files as they are, types and all; else the rows must be
            written anew (`rsp_rl.data.row_files.write_rows`).
    """

    rows: int = 0
    changed: dict[str, int] = field(default_factory=dict)
    golds: dict[str, int] = field(default_factory=dict)
    as_is: bool = True


def check_dataset(
    files: str | Sequence[str],
    prompt_key: str = "prompt",
    *,
    agent_loops: Collection[str] | None = None,
) -> int:
    """Check every row of a dataset in verl's schema.

    Args:
        files: Files of the formats that `rsp_rl.data.row_files` reads.
        prompt_key: Column of the chat messages.
        agent_loops: Those that a row may ask for; any if None.

    Returns:
        The number of rows.

    Raises:
        ConfigError: Naming file, row and field of the first row that training could not use.
    """
    found = data_files(files, "data.train_files, data.val_files")
    rows = checked_rows(found, Reading(), prompt_key=prompt_key, agent_loops=agent_loops)
    return sum(1 for _ in rows)


def checked_rows(
    files: Sequence[Path],
    reading: Reading,
    *,
    prompt_key: str = "prompt",
    agent_loops: Collection[str] | None = None,
    graded: bool = True,
) -> Iterator[tuple[Path, int, Row]]:
    """Rows in verl's schema, one after the other: training sets of millions of rows exist.

    Args:
        files: What `data_files` returned.
        reading: Filled in on the way; whole when the last row has come.
        prompt_key: See `check_dataset`.
        agent_loops: See `check_dataset`.
        graded: Whether `rsp_rl.grading` grades the answers: a reward function of the user's own may
            take any gold.

    Yields:
        The file, the row's number in it from 0, and the row.

    Raises:
        ConfigError: See `check_dataset`. Golds that no answer can match are counted first, for they
            come in whole columns.
    """
    reading.as_is = same_schema(files)
    unmatched, first = 0, ""
    for file in files:
        number = -1
        for number, row in enumerate(read_rows(file)):
            place = f"dataset {file}, row {number}"
            _check_columns(row, prompt_key, place)
            try:
                row = _from_text(row, prompt_key, reading)
                problem = _row_problem(row, prompt_key, agent_loops)
            except ValueError as error:
                problem = str(error)
            if problem := problem or lone_surrogate(row):
                raise ConfigError(f"{place}: {problem}")
            gold = row["reward_model"]["ground_truth"]
            if graded and (cause := _take_gold(row, gold, reading)):
                unmatched += 1
                first = first or f"{place}: reward_model.ground_truth is {cause}"
            reading.rows += 1
            if not unmatched:
                yield file, number, row
        if number < 0:
            raise ConfigError(f"dataset {file} has no rows")
    if unmatched:
        others = f" ({unmatched} rows have golds that no answer can match)" * (unmatched > 1)
        raise ConfigError(first + others)


def _check_columns(row: Row, prompt_key: str, place: str) -> None:
    columns = [prompt_key, *COLUMNS]
    if missing := [column for column in columns if column not in row]:
        raise ConfigError(
            f"{place}: no {missing[0]!r}; every row needs the columns {columns} (verl's schema), "
            f"it has {list(row)}"
        )
    if taken := sorted(RESERVED & row.keys()):
        raise ConfigError(
            f"{place}: column {taken[0]!r} has a name under which verl keeps something of its own; "
            "rename or drop it"
        )


def _from_text(row: Row, prompt_key: str, reading: Reading) -> Row:
    """The row with what it holds as JSON text read.

    Raises:
        ValueError: If such a text is no JSON.
    """
    row = dict(row)
    for name, opening in ((prompt_key, "["), *((name, "{") for name in _STRUCTURED)):
        value = row.get(name)
        if isinstance(value, str) and value.lstrip().startswith(opening):
            try:
                row[name] = read_json_text(value)
            except ValueError as error:
                notation = " (Python's notation? write it with json.dumps)" * ("'" in value)
                raise ValueError(
                    f"{name!r} is text that is no JSON{notation}: {value!r:.60}"
                ) from error
            _count(reading, f"{name} read from JSON text")
    if (messages := _messages(row[prompt_key])) is not None:
        row[prompt_key] = messages
        _count(reading, f"{prompt_key} made of a list a field")
    return row


def _messages(prompt: Any) -> list[dict[str, Any]] | None:
    """Messages of a mapping of equally long lists, as which `datasets` stores a list of mappings.

    None for anything else.
    """
    if not isinstance(prompt, Mapping) or not {"role", "content"} <= prompt.keys():
        return None
    columns = {name: values for name, values in prompt.items() if values is not None}
    if not all(isinstance(values, list) for values in columns.values()):
        return None
    if len({len(values) for values in columns.values()}) != 1:
        return None
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _count(reading: Reading, change: str) -> None:
    reading.changed[change] = reading.changed.get(change, 0) + 1
    reading.as_is = False


def _take_gold(row: Row, gold: Any, reading: Reading) -> str | None:
    """Count a row's gold, as text; why no answer can match it, if so."""
    try:
        text = gold_text(gold)
    except ValueError as error:
        return str(error)
    if isinstance(gold, list):
        row["reward_model"] = {**row["reward_model"], "ground_truth": text}
        _count(reading, "gold taken out of a list of one")
    # Each gold once: those of a set repeat.
    if text not in reading.golds and (problem := gold_problem(text)):
        return problem
    reading.golds[text] = reading.golds.get(text, 0) + 1
    return None


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
        role, content = fields.get("role"), fields.get("content")
        if role == "assistant" and content is None and fields.get("tool_calls"):
            continue
        if not role or not isinstance(role, str) or content is None:
            return f"{prompt_key!r} holds {message!r:.80}, not a message with 'role' and 'content'"
        is_parts = isinstance(content, list) and role not in ("user", "system")
        if not isinstance(content, str) and not is_parts:
            article = "an" if role[0] in "aeio" else "a"
            return f"{prompt_key!r} has {article} {role} message that is not text: {content!r:.80}"
        if role == "user" and not content.strip():
            return f"{prompt_key!r} has an empty user message"
    if not any(message["role"] == "user" for message in messages):
        return f"{prompt_key!r} has no user message"
    if media := next((name for name in _MEDIA if row.get(name)), None):
        return f"{media!r} is not empty; prompts are text alone here: drop the row or the column"
    reward_model = row["reward_model"]
    if not isinstance(reward_model, Mapping) or reward_model.get("ground_truth") is None:
        return "reward_model.ground_truth is missing; the reward needs a gold answer"
    source = row["data_source"]
    if not isinstance(source, str) or not source.strip():
        described = "empty" if source in (None, "") else f"{source!r:.40}, not a name"
        return f"'data_source' is {described}; it names the benchmark whose grading rules apply"
    extra_info = row.get("extra_info")
    if extra_info is not None and not isinstance(extra_info, Mapping):
        return f"'extra_info' is {extra_info!r:.60}, not a mapping; verl looks into it for 'index'"
    if "agent_name" in row and not row["agent_name"]:
        return "'agent_name' is empty; name a loop in every row, or drop the column"
    if agent_loops is not None and "agent_name" in row and row["agent_name"] not in agent_loops:
        return (
            f"'agent_name' is {row['agent_name']!r}; soft prompts, and laws where there is one, "
            f"know {sorted(agent_loops)}: drop the column, name the loop in actor_rollout_ref."
            "rollout.agent.agent_loop_config_path, or set rsp.length=0 and law=off"
        )
    return None
