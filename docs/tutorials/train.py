# %% [markdown]
# # Train five steps and read the guard
#
# The tiny model is trained with RSP as a large one would be: verl's trainer, Ray, FSDP2 and vLLM,
# on the processor. What is worth reading afterwards is the *guard*: whether rollout and actor were
# conditioned on the same soft prompt.

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


python("rsp_rl.data.arithmetic", "--output", folder / "data")

# %% [markdown]
# ## The run
#
# In a shell this is `rsp-rl train --config-name tiny_cpu ...`. `tiny_cpu` is a config of verl's
# with a group `rsp:` on top; all that follows are overrides of it. 8 prompts a step, 8 rollouts
# each, each with a soft prompt of 8 vectors. Most of the time is start-up.

# %%
run = folder / "rsp"
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
    "trainer.total_training_steps=5",
    "trainer.save_freq=5",
    "trainer.test_freq=-1",
    "trainer.val_before_train=false",
)

# %% [markdown]
# ## The guard
#
# Each token of a rollout has two log-probs: vLLM's, when it was sampled, and the actor's, when it
# is trained on. `rsp/logprob_gap_mean` is how far they lie apart on average, in nats. With the same
# weights and the same H in both only rounding is left, here in fp32 on both sides.

# %%
import json

lines = (run / "metrics.jsonl").read_text().splitlines()
steps = {row["step"]: row["data"] for row in map(json.loads, lines)}
bound = 1e-4  # rsp.guard.max_mean_gap of tiny_cpu; 0.1 where rollouts are in bf16
print("step  reward     gap  (bound", f"{bound:.0e})")
for number, data in steps.items():
    reward, gap = data["critic/score/mean"], data["rsp/logprob_gap_mean"]
    print(f"{number:4}  {reward:6.3f}  {gap:.0e}  {'ok' if gap < bound else 'TOO LARGE'}")

# %% [markdown]
# A gap above the bound in the first five steps ends a run with one error, before more time goes
# into training something else than was meant; later it is a warning.
#
# A small gap alone does not say that H was there: a model might not care. So step 1 scores one
# micro-batch once more *without* soft prompts.

# %%
first = steps[1]
print(f"gap with the soft prompts: {first['rsp/compared_gap_mean']:.0e} nats")
print(f"gap if the actor forgot them: {first['rsp/forgotten_gap_mean']:.0e} nats")
print(f"share of tokens whose log-prob they move: {first['rsp/moved']:.2f}")

# %% [markdown]
# The tiny model has learnt to care little about noise in its prompt; on a language model a
# forgotten soft prompt makes a gap of tenths of nats ([equality](../equality.md)).
#
# ## What each rollout had
#
# Records are kept beside the samples. Two rollouts of one prompt have other seeds, and the same
# place.

# %%
for line in (run / "samples" / "train" / "1.soft_prompts.jsonl").read_text().splitlines()[:2]:
    record = json.loads(line)
    print({name: record[name] for name in ("rollout", "law", "length", "start", "seed")})

# %% [markdown]
# Next: [evaluate, compare and read intervals](evaluate.py). A run of your own: [RSP in your own
# run](../your_own_run.md).
