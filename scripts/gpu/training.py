"""Training through verl on this device: the recipes' settings, scaled to small models.

    python -m gpu.training tiny --device cuda --model FOLDER --data FOLDER --output training.json

    tiny       the tiny model in fp32, 10 steps: the guard's gap at each; killed with SIGKILL in
               step 8, resumed from step 5; the last checkpoint merged and evaluated beside
               training's own validation
    real       a real model in bf16, 5 steps: the gap; the actor's peak memory beside DRY_RUN's
    forgotten  an actor that forgets H: the guard must end the run
    thoughts   the tiny model in fp32, 4 steps of `law=multiplex` behind a soft prompt: the gap of
               thoughts and of tokens; a run that replays tokens for thoughts must be ended
    thoughts_real  the same law on a real model in bf16, 3 steps
    cost       the real model's step with soft prompts and without, by phase

On a GPU vLLM sleeps while the actor trains, wakes with new weights and captures CUDA graphs (not
in fp32), as in the recipes. Where flash attention is not installed the actor attends with torch's
`sdpa`, and the result says so.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

from results import Results
from step_time import PHASES, Step, table

from rsp_rl.basics.exit_status import WOULD_COME_AGAIN
from tests.integration.harness import REPOSITORY, Run, launch

#: Nats; mean over a step's tokens, as the guard's: what `configs/machine` says for fp32 and bf16.
LARGEST_GAP = {"tiny": 1e-4, "real": 0.05}
_SAVED, _KILLED, _STEPS, _REAL_STEPS, _THOUGHT_STEPS = 5, 8, 10, 5, 4
_GIB = 2**30
#: On a CPU: enough to try the script.
SMALL = {"prompts": 4, "response": 24}


def main() -> None:
    """Run one kind, write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("kind", choices=tuple(KINDS))
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--model", type=Path, required=True, help="Hugging Face folder")
    parser.add_argument("--data", type=Path, required=True, help="train.parquet, heldout.parquet")
    parser.add_argument("--gpu-share", type=float, default=0.2, help="of its memory, for vLLM")
    parser.add_argument("--runs", type=Path, help="where run folders go; default: beside --output")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("overrides", nargs="*", help="Hydra overrides for all runs")
    args = parser.parse_args()
    args.runs = args.runs or args.output.parent / f"{args.output.stem}_runs"
    results = Results(args.output, settings=vars(args))
    if args.device == "cuda" and find_spec("flash_attn") is None:
        results.figure("attention of the actor", kind="sdpa, as flash attention is not installed")
    KINDS[args.kind](results, args)
    sys.exit(results.finish())


def arguments(args: argparse.Namespace, fp32: bool, prompts: int, response: int) -> list[str]:
    """Config and overrides of a run: the recipe's, sizes aside."""
    rollout, actor = "actor_rollout_ref.rollout", "actor_rollout_ref.actor"
    command = [
        *("--config-name", "tiny_cpu" if args.device == "cpu" else "dapo_rsp"),
        f"actor_rollout_ref.model.path={args.model.resolve()}",
        f"data.train_files={args.data.resolve() / 'train.parquet'}",
        f"data.val_files={args.data.resolve() / 'heldout.parquet'}",
        f"data.train_batch_size={prompts}",
        "data.max_prompt_length=128",
        f"data.max_response_length={response}",
        f"{actor}.ppo_mini_batch_size={prompts // 2}",
        f"{rollout}.n=8",
        "trainer.val_before_train=false",
        "trainer.test_freq=-1",
        "trainer.save_freq=-1",
    ]
    if args.device == "cuda":
        # What other checks do on the same card must not decide about vLLM's cache.
        cache = int(args.gpu_share * 0.5 * 80 * _GIB)
        command += [
            "+machine=gpu",
            "trainer.nnodes=1",
            "trainer.n_gpus_per_node=1",
            f"{rollout}.gpu_memory_utilization={args.gpu_share}",
            f"+{rollout}.engine_kwargs.vllm.kv_cache_memory_bytes={cache}",
            f"{rollout}.max_num_seqs=256",
            f"{rollout}.agent.num_workers=1",
            "reward.num_workers=1",
            # Eight processes by default, each of which imports torch.
            "transfer_queue.backend.SimpleStorage.num_data_storage_units=1",
            "+ray_kwargs.ray_init.include_dashboard=false",
            "+ray_kwargs.ray_init.object_store_memory=2000000000",
        ]
        if find_spec("flash_attn") is None:
            name = "actor_rollout_ref.model.override_config.attn_implementation"
            command.append(f"+{name}=sdpa")
        if fp32:
            command += [
                f"{rollout}.dtype=float32",
                f"{rollout}.enforce_eager=true",
                # vLLM's Triton attention multiplies fp32 in TF32 otherwise: a gap of 1e-3.
                "+ray_kwargs.ray_init.runtime_env.env_vars.TRITON_F32_DEFAULT=ieee",
                f"{actor}.fsdp_config.model_dtype=fp32",
                *(
                    f"+{actor}.fsdp_config.mixed_precision.{name}=fp32"
                    for name in ("param_dtype", "reduce_dtype", "buffer_dtype")
                ),
            ]
    return [*command, *args.overrides]


def report_run(results: Results, name: str, run: Run, begun: float, steps: int) -> bool:
    """Whether a run ended well, with its end and its start-up on record."""
    metrics = run.metrics() if (run.folder / "metrics.jsonl").is_file() else {}
    well = run.returncode == 0 and steps in metrics
    results.check(
        name,
        well,
        exit_status=run.returncode,
        seconds=time.monotonic() - begun,
        **({} if well else {"end": run.output[-3000:]}),
    )
    return well


def check_gaps(results: Results, run: Run, largest: float, when: str = "") -> None:
    """The guard's mean gap at each step, and the largest token's."""
    steps = {n: data for n, data in run.metrics().items() if "rsp/logprob_gap_mean" in data}
    gaps = [steps[n]["rsp/logprob_gap_mean"] for n in sorted(steps)]
    results.check(
        f"rollout and actor are one policy at every step {when}".rstrip(),
        bool(gaps) and max(gaps) <= largest,
        mean_gap_by_step=[float(f"{gap:.3g}") for gap in gaps],
        steps=sorted(steps),
        largest_token=max(data["rsp/logprob_gap_max"] for data in steps.values()),
        bound=largest,
        soft_prompts=sum(data["rsp/rollouts"] for data in steps.values()),
    )


def report_steps(results: Results, run: Run) -> None:
    """Seconds by phase and peak memory, medians over the steps after the first."""
    steps = [d for d in run.metrics().values() if "rsp/logprob_gap_mean" in d]
    later = steps[1:] or steps
    names = ("gen", "old_log_prob", "update_actor", "update_weights", "step")
    results.figure(
        "median step",
        **{
            f"{name}_s": statistics.median(data[f"timing_s/{name}"] for data in later)
            for name in names
        },
        tokens=statistics.median(data["perf/total_num_tokens"] for data in later),
        peak_gib=max(data["actor/perf/max_memory_allocated_gb"] for data in steps),
    )


def tiny(results: Results, args: argparse.Namespace) -> None:
    """fp32, kill and resume, merge and evaluate."""
    sizes = {"prompts": 16, "response": 40}
    command = [
        *arguments(args, fp32=True, **sizes),
        f"trainer.total_training_steps={_STEPS}",
        f"trainer.save_freq={_SAVED}",
        f"trainer.test_freq={_STEPS}",
        "actor_rollout_ref.actor.optim.lr=2e-4",
        "actor_rollout_ref.rollout.top_k=-1",
    ]
    folder = args.runs / "run"
    metrics = folder / "metrics.jsonl"

    def in_step_to_kill() -> bool:
        return metrics.is_file() and f'"step":{_KILLED - 1}' in metrics.read_text()

    begun = time.monotonic()
    killed = launch(folder, command, kill_when=in_step_to_kill)
    results.check(
        f"killed in step {_KILLED}, saved at step {_SAVED}",
        killed.returncode == -9
        and (folder / "checkpoints/latest_checkpointed_iteration.txt").read_text() == str(_SAVED),
        exit_status=killed.returncode,
        seconds=time.monotonic() - begun,
        **({} if killed.returncode == -9 else {"end": killed.output[-3000:]}),
    )
    if killed.returncode != -9:
        return
    check_gaps(results, killed, LARGEST_GAP["tiny"], "until it was killed")
    begun = time.monotonic()
    resumed = launch(folder, command)
    if not report_run(results, f"resumed to step {_STEPS}", resumed, begun, _STEPS):
        return
    first = min(resumed.metrics())
    results.check("resumed where it was saved", first == _SAVED + 1, first_step=first)
    check_gaps(results, resumed, LARGEST_GAP["tiny"], "after it was resumed")
    report_steps(results, resumed)
    evaluate(results, resumed, args)


def evaluate(results: Results, run: Run, args: argparse.Namespace) -> None:
    """`rsp-rl eval` of the last checkpoint beside training's validation at the same step."""
    begun = time.monotonic()
    done = subprocess.run(
        [
            *(sys.executable, "-m", "rsp_rl.cli", "eval", str(run.folder)),
            *("--protocol", "tiny", "--steps", str(_STEPS), "--base-model", str(args.model)),
            *("--dtype", "float32", "--gpu-memory-utilization", str(args.gpu_share)),
        ],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    tables = list(run.folder.glob("evaluation/*/summary.csv"))
    evaluated = None
    if done.returncode == 0 and tables:
        rows = [line.split(",") for line in tables[0].read_text().splitlines()]
        place = rows[0].index("accuracy")
        evaluated = next(
            float(row[place]) for row in rows if row[:2] == [str(_STEPS), "arithmetic"]
        )
    validated = run.metrics()[_STEPS].get("val-core/arithmetic/acc/mean@1")
    results.check(
        "the checkpoint, merged and evaluated, is what training validated",
        evaluated is not None and validated is not None and abs(evaluated - validated) <= 0.02,
        evaluated=evaluated,
        validated=validated,
        seconds=time.monotonic() - begun,
        **({} if evaluated is not None else {"end": (done.stdout + done.stderr)[-3000:]}),
    )


def real(results: Results, args: argparse.Namespace) -> None:
    """bf16 on a real model; peak memory beside the dry run's estimate."""
    sizes = {"prompts": 32, "response": 256} if args.device == "cuda" else SMALL
    command = [
        *arguments(args, fp32=False, **sizes),
        f"trainer.total_training_steps={_REAL_STEPS}",
    ]
    begun = time.monotonic()
    run = launch(args.runs / "run", command)
    if report_run(results, f"{_REAL_STEPS} steps", run, begun, _REAL_STEPS):
        check_gaps(results, run, LARGEST_GAP["real"])
        report_steps(results, run)
        if args.device == "cuda":
            compare_memory(results, run, command)


def compare_memory(results: Results, run: Run, command: list[str]) -> None:
    """The actor's peak (torch's allocator) beside what `DRY_RUN` says of the update."""
    from rsp_rl.models.shape import model_shape
    from rsp_rl.training.configs import compose_config
    from rsp_rl.training.estimate import GIB, OVERHEAD, gpu_memory

    config = compose_config(command[1], command[2:])
    estimate = gpu_memory(config, model_shape(config.actor_rollout_ref.model.path), 80 * GIB)
    peak = max(d.get("actor/perf/max_memory_allocated_gb", 0) for d in run.metrics().values())
    expected = (estimate.update - OVERHEAD) / GIB
    results.figure(
        "peak memory of the actor",
        measured_gib=peak,
        dry_run_gib=expected,
        measured_over_dry_run=peak / expected,
    )


def forgotten(results: Results, args: argparse.Namespace) -> None:
    """The actor forgets H everywhere: the guard must say so and end the run."""
    command = arguments(args, fp32=True, prompts=16, response=40)
    forget(results, args, "forgetful_actor", command, "does not inject the soft prompt")


def forget(
    results: Results, args: argparse.Namespace, plug_in: str, command: list[str], says: str
) -> None:
    """A run whose actor forgets something: the guard must say so and end it."""
    from rsp_rl.tiny import make_tiny_model

    with tempfile.TemporaryDirectory() as folder:
        # Random weights: the warmed-up tiny model has learnt to overlook most of H.
        model = make_tiny_model(Path(folder) / "m", steps=0)
        command = [
            *command,
            "trainer.total_training_steps=2",
            f"actor_rollout_ref.model.external_lib=tests.integration.{plug_in}",
            "rsp.guard.max_mean_gap=0.05",
            f"actor_rollout_ref.model.path={model}",
        ]
        path = os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])
        run = launch(args.runs / "forgetful", command, env={"PYTHONPATH": path})
    errors = [line for line in run.output.splitlines() if line.startswith("error: ")]
    results.check(
        f"an actor as of tests/integration/{plug_in}.py is caught",
        run.returncode == WOULD_COME_AGAIN and says in str(errors),
        exit_status=run.returncode,
        told=errors[:1] or run.output[-3000:],
    )


def thoughts(results: Results, args: argparse.Namespace) -> None:
    """Multiplex behind a soft prompt, fp32; then an actor that has tokens for thoughts."""
    law = ("law=multiplex", "law.end=[]", 'law.end_text="\\boxed{"', "law.max_thoughts=24")
    command = [*arguments(args, fp32=True, prompts=16, response=40), *law]
    steps = f"trainer.total_training_steps={_THOUGHT_STEPS}"
    begun = time.monotonic()
    run = launch(args.runs / "run", [*command, steps, "actor_rollout_ref.rollout.top_k=-1"])
    if report_run(results, f"{_THOUGHT_STEPS} steps", run, begun, _THOUGHT_STEPS):
        check_gaps(results, run, LARGEST_GAP["tiny"])
        check_thoughts(results, run, LARGEST_GAP["tiny"])
        report_steps(results, run)
    forget(results, args, "thoughtless_actor", command, "different policies")


def thoughts_real(results: Results, args: argparse.Namespace) -> None:
    """Multiplex on a real model, bf16."""
    sizes = {"prompts": 32, "response": 256} if args.device == "cuda" else SMALL
    law = ("law=multiplex", "law.end=[]", f"law.max_thoughts={sizes['response'] // 2}")
    command = [*arguments(args, fp32=False, **sizes), *law, "law.on_cut=Answer"]
    begun = time.monotonic()
    steps = _THOUGHT_STEPS - 1
    run = launch(args.runs / "run", [*command, f"trainer.total_training_steps={steps}"])
    if report_run(results, f"{steps} steps", run, begun, steps):
        check_gaps(results, run, LARGEST_GAP["real"])
        check_thoughts(results, run, LARGEST_GAP["real"])
        report_steps(results, run)


def check_thoughts(results: Results, run: Run, largest: float) -> None:
    """The law's own gap, and that there were thoughts."""
    steps = [d for d in run.metrics().values() if "rsp/law/thoughts_mean" in d]
    gaps = [data["rsp/law/gap_mean"] for data in steps]
    thoughts = [data["rsp/law/thoughts_mean"] for data in steps]
    results.check(
        "thoughts have the rollout's log-probs at every step",
        bool(gaps) and max(gaps) <= largest and min(thoughts) > 1,
        mean_gap_by_step=[float(f"{gap:.3g}") for gap in gaps],
        thoughts_of_a_rollout=thoughts,
        bound=largest,
    )


def cost(results: Results, args: argparse.Namespace) -> None:
    """A step with soft prompts over one without, by phase, beside its floor."""
    sizes = {"prompts": 32, "response": 256} if args.device == "cuda" else SMALL
    steps: dict[int, list[Step]] = {}
    for length in (20, 0):
        command = [
            *arguments(args, fp32=False, **sizes),
            "trainer.total_training_steps=9",
            f"rsp.length={length}",
            "actor_rollout_ref.rollout.ignore_eos=true",
        ]
        begun = time.monotonic()
        run = launch(args.runs / f"length_{length}", command)
        if not report_run(results, f"9 steps with L = {length}", run, begun, 9):
            return
        steps[length] = [
            Step({p: data[f"timing_s/{p}"] for p in PHASES}, data["perf/total_num_tokens"])
            for data in run.metrics().values()
            if "rsp/logprob_gap_mean" in data
        ][1:]
    for row in table(steps[20], steps[0]):
        results.figure(
            row.phase,
            with_rsp_s=row.with_rsp_s,
            without_s=row.without_s,
            ratio=row.ratio,
            floor=row.floor,
            noise=row.noise,
        )


KINDS = {
    "tiny": tiny,
    "real": real,
    "forgotten": forgotten,
    "thoughts": thoughts,
    "thoughts_real": thoughts_real,
    "cost": cost,
}


if __name__ == "__main__":
    main()
