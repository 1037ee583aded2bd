# %% [markdown]
# # Evaluate, compare and read intervals
#
# Two trainings of five steps, one with soft prompts and one without, are held against each other on
# problems that neither has seen. Evaluation is without soft prompts, as in the paper: they are the
# training's.

# %%
import subprocess
import sys
from pathlib import Path

from rsp_rl.tiny import make_tiny_model

folder = Path("runs/tutorials")
model = make_tiny_model(folder / "model", steps=300, threads=1)


def python(*command: str | Path) -> None:
    """Run a Python program and show what it prints, line by line."""
    with subprocess.Popen(
        [sys.executable, "-m", *map(str, command)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as program:
        for line in program.stdout:
            print(line, end="")
    if program.returncode:
        raise SystemExit(f"{command[0]} ended with status {program.returncode}")


# %% [markdown]
# ## Two runs
#
# The first is the one of [the tutorial before](train.py), and is made here only where it is not
# there. The other differs in one setting.

# %%
if not (folder / "data").is_dir():
    python("rsp_rl.data.arithmetic", "--output", folder / "data")

runs = {"rsp": 8, "plain": 0}
for name, length in runs.items():
    run = folder / name
    if (run / "checkpoints" / "global_step_5").is_dir():
        continue
    python(
        "rsp_rl.cli",
        "train",
        "--config-name=tiny_cpu",
        f"run_dir={run}",
        f"actor_rollout_ref.model.path={model}",
        f"data.train_files={folder / 'data' / 'train.parquet'}",
        f"data.val_files={folder / 'data' / 'heldout.parquet'}",
        "data.train_batch_size=8",
        "actor_rollout_ref.rollout.n=8",
        f"rsp.length={length}",
        "trainer.total_training_steps=5",
        "trainer.save_freq=5",
        "trainer.test_freq=-1",
        "trainer.val_before_train=false",
    )

# %% [markdown]
# ## An evaluation
#
# Every checkpoint on 200 held-out problems, the model before training as step 0. The protocol
# `tiny` asks as in training, greedily. What is there already is not asked again: run this cell
# twice.

# %%
for name in runs:
    python("rsp_rl.cli", "eval", folder / name, "--protocol", "tiny", "--engine", "huggingface")

# %% [markdown]
# Each benchmark of each step has its metrics in a file, and its samples beside it.

# %%
import json

for name in runs:
    for step in (0, 5):
        file = folder / name / "evaluation" / "tiny" / f"step_{step}" / "arithmetic.metrics.json"
        found = json.loads(file.read_text())
        accuracy, low, high = (found[f"accuracy{end}"] for end in ("", "_low", "_high"))
        print(f"{name:5} step {step}: {accuracy:.3f} [{low:.3f}, {high:.3f}]")

# %% [markdown]
# The brackets are 95% bootstrap intervals over problems: how much the number would move with other
# problems of the same kind. They say nothing of other training seeds, of which there is one here.
#
# ## A comparison
#
# Both runs were asked the same problems, and what one finds hard the other mostly does too. So the
# difference is taken problem by problem, and its interval is narrower than those of the two numbers
# suggest.

# %%
comparison = folder / "comparison"
python(
    "rsp_rl.cli",
    "compare",
    f"plain={folder / 'plain'}",
    f"rsp={folder / 'rsp'}",
    "--output",
    comparison,
)

# %% [markdown]
# An interval of a difference that contains 0 is no finding, in either direction.

# %%
import csv

with (comparison / "comparison.csv").open() as file:
    rows = [row for row in csv.DictReader(file) if row["difference"]]
for row in rows:
    low, high = float(row["difference_low"]), float(row["difference_high"])
    verdict = "contains 0" if low <= 0 <= high else "does not contain 0"
    where = f"{row['run']} - plain at the {row['choice']} step, {row['benchmark']}"
    print(f"{where}: {float(row['difference']):+.3f} [{low:+.3f}, {high:+.3f}] {verdict}")

# %% [markdown]
# Even where it does not: two runs of one seed each are two runs, not two methods. Several seeds a
# method go into one name, `rsp=RUN_1,RUN_2,RUN_3`, and seeds are then drawn as problems are.
#
# `report.html` beside the tables has every answer of every step, right and wrong marked. Next:
# [write your own law](own_law.py). More: [evaluation](../evaluation.md).
