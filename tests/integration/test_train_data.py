"""Data that verl does not read by itself, and a reward that is no number, on the real stack."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pyarrow.parquet as pq

from rsp_rl.basics import exit_status
from tests.integration.harness import Task, train

REWARD = """
def compute_score(data_source, solution_str, ground_truth, extra_info=None, **_):
    return [0.0, 1.0] if extra_info["index"] == {index} else 0.5
"""


def test_a_csv_is_trained_on_until_a_reward_is_no_number(task: Task, tmp_path: Path) -> None:
    rows = pq.read_table(task.data / "train.parquet").to_pylist()[:4]
    with (tmp_path / "train.CSV").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(rows[0])
        for row in rows:
            writer.writerow(v if isinstance(v, str) else json.dumps(v) for v in row.values())
    reward = tmp_path / "reward.py"
    reward.write_text(REWARD.format(index=rows[2]["extra_info"]["index"]))
    run = train(
        tmp_path / "run",
        task,
        f"data.train_files={tmp_path / 'train.CSV'}",
        f"reward.custom_reward_function.path={reward}",
        "trainer.val_before_train=false",
    )
    written = pq.read_table(tmp_path / "run" / "data" / "train.parquet").to_pylist()
    assert written == rows
    assert run.returncode == exit_status.WOULD_COME_AGAIN
    assert run.output.count("error: ") == 1
    *_, last = [line for line in run.output.splitlines() if line.startswith("error: ")]
    assert "rewards of step 1 are no numbers" in last
    assert "extra_info.index 2 (arithmetic)" in last
    assert "[0.0, 1.0], of type list" in last
