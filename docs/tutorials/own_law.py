# %% [markdown]
# # Write your own law and train with it
#
# A *law* says from which distribution the rows of a soft prompt come. Four are built in; another
# one is a class of twenty lines in a package of yours. Nothing in `rsp_rl` is edited.

# %%
import os
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
# ## The law
#
# This one throws a coin for every number: mean plus or minus one deviation. Its mean and deviation
# are the Gaussian law's, and all its rows are (nearly) of one length.
#
# A law must be a pure function of the record: rollout and actor draw in processes of their own, and
# must get the same numbers. So what is random comes from `record.seed`. A generator that remembers,
# as `torch.randn` has one, is refused when the law is looked up.

# %%
package = folder / "my_laws"
package.mkdir(parents=True, exist_ok=True)
(package / "my_laws.py").write_text('''
import numpy as np
import torch

from rsp_rl.draws.law import Law


class Signs(Law):
    """Rows whose entries are mean + std or mean - std, each with probability 1/2."""

    name = "signs"

    def draw(self, record, hidden_size):
        random = np.random.Generator(np.random.Philox(key=record.seed))
        signs = random.choice([-1.0, 1.0], (record.length, hidden_size))
        return torch.tensor(record.mean + record.std * signs, dtype=torch.float32)
''')
(package / "pyproject.toml").write_text("""
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"

[project]
name = "my-laws"
version = "1.0"

[tool.setuptools]
py-modules = ["my_laws"]

[project.entry-points."rsp_rl.laws"]
signs = "my_laws:Signs"
""")

# %% [markdown]
# ## Registering it
#
# The last two lines are all: an entry point of the group `rsp_rl.laws`. Every process of a run
# finds the law by it, Ray's workers and vLLM's engine too, on every node where the package is
# installed. In an environment of your own `pip install ./my_laws` is enough; to leave yours as it
# is, the package goes into a folder here, and the folder onto the path of all processes.

# %%
installed = (folder / "installed").resolve()
python(
    "pip",
    "install",
    "--quiet",
    "--disable-pip-version-check",
    "--no-deps",
    "--no-build-isolation",
    "--upgrade",
    "--target",
    installed,
    package,
)
sys.path.insert(0, str(installed))
os.environ["PYTHONPATH"] = os.pathsep.join(
    [str(installed), *filter(None, [os.environ.get("PYTHONPATH")])]
)

# %% [markdown]
# ## Drawing and generating with it
#
# Its name is now as good as `gaussian`.

# %%
from rsp_rl.draws.record import SoftPromptRecord

place = {"start": 0, "length": 8, "dtype": "float32", "placeholder_id": 0}
record = SoftPromptRecord(seed=1, mean=0.0, std=0.5, law="signs", **place)
drawn = record.draw(128)
print("numbers that it draws:", sorted(set(drawn.flatten().tolist())))
print("again:", bool((record.draw(128) == drawn).all()))

# %%
from rsp_rl.inference.generator import Generator
from rsp_rl.inference.requests import EngineOptions

options = EngineOptions(kind="huggingface")
asked = {"samples": 8, "length": 8, "max_tokens": 40}
with Generator(str(model), template="plain-chat", options=options) as generator:
    for draw in ("gaussian", "signs"):
        answers = generator.generate("Compute 7+2-4+1.", draw=draw, **asked)
        print(f"{draw}: {len({answer.text for answer in answers})} different answers of 8")

# %% [markdown]
# ## Training with it
#
# One setting, `rsp.law=signs`; two steps are enough to see that both sides draw the same.

# %%
python("rsp_rl.data.arithmetic", "--output", folder / "data")
run = folder / "signs"
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
    "rsp.length=8",
    "rsp.law=signs",
    "trainer.total_training_steps=2",
    "trainer.save_freq=-1",
    "trainer.test_freq=-1",
    "trainer.val_before_train=false",
)

# %% [markdown]
# Whether the actor drew what the rollout had, the guard says: with rows of its own in the actor's
# place the two would differ as if the soft prompt had been forgotten.

# %%
import json

bound = 1e-4  # rsp.guard.max_mean_gap of tiny_cpu
for line in (run / "metrics.jsonl").read_text().splitlines():
    row = json.loads(line)
    gap = row["data"]["rsp/logprob_gap_mean"]
    print(f"step {row['step']}: gap {gap:.0e}, {'ok' if gap < bound else 'TOO LARGE'}")
laws = set()
for line in (run / "samples" / "train" / "1.soft_prompts.jsonl").read_text().splitlines():
    laws.add(json.loads(line)["law"])
print("law of step 1's rollouts:", laws)

# %% [markdown]
# A law's name is in every record, checkpoint and sample. One whose numbers change is another law:
# give it another name. The interface: [Law](../api.md#law). The other dials: [RSP in your own
# run](../your_own_run.md#beyond-the-paper-the-dials-of-rsp).
