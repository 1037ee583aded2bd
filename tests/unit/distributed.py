"""Runs a function on N gloo ranks, each a process of its own, and brings their results back.

Also what such functions need of verl: a composed config, the actor's engine, a training batch, and
a model in plain torch to compare with.

The ranks are forked off a clean server that has imported torch and verl once, so that a call costs
a fraction of a second and inherits nothing from pytest's process.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch
    from omegaconf import DictConfig
    from tensordict import TensorDict
    from verl.workers.config import ActorConfig

    from rsp_rl.soft_prompt import SoftPromptRecord
    from rsp_rl.verl_plugin.actor_engine import SoftPromptFSDPEngine

# verl reads it when it is first imported; the fork server and the ranks inherit it.
os.environ.setdefault("VERL_PLATFORM", "cpu")
os.environ.setdefault("OMP_NUM_THREADS", "1")

_PRELOADED = [
    "hydra",
    "pytest",
    "torch.distributed.fsdp",
    "transformers.models.qwen2.modeling_qwen2",
    "rsp_rl.train",
    "rsp_rl.verl_plugin.actor_engine",
    "verl.workers.utils.losses",
]
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(_PRELOADED)


def run_on_ranks(
    function: Callable[..., Any], world_size: int, *args: Any, timeout: float = 300
) -> list[Any]:
    """Call `function(rank, *args)` on every rank of a gloo group of `world_size` processes.

    Args:
        function: Picklable by name, as are its arguments and its result.
        world_size: Number of ranks.
        *args: Passed on.
        timeout: Seconds after which hanging ranks are killed.

    Returns:
        The results in the order of the ranks.

    Raises:
        RuntimeError: If a rank fails; the message is its traceback.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ranks = [
            _CONTEXT.Process(target=_run_rank, args=(function, rank, world_size, folder, args))
            for rank in range(world_size)
        ]
        for process in ranks:
            process.start()
        _wait(ranks, folder, timeout)
        if failures := sorted(folder.glob("failure.*")):
            raise RuntimeError("\n".join(file.read_text() for file in failures))
        if dead := [rank for rank, process in enumerate(ranks) if process.exitcode]:
            codes = [ranks[rank].exitcode for rank in dead]
            raise RuntimeError(f"ranks {dead} ended with exit codes {codes} in {timeout} s")
        return [pickle.loads((folder / f"result.{r}").read_bytes()) for r in range(world_size)]


def _wait(ranks: list[Any], folder: Path, timeout: float) -> None:
    """Wait for all ranks; after a failure the others wait for ever in a collective: end them."""
    deadline = time.monotonic() + timeout
    while any(process.is_alive() for process in ranks):
        if time.monotonic() > deadline or any(folder.glob("failure.*")):
            time.sleep(0.2)
            for process in ranks:
                process.kill()
        time.sleep(0.01)
    for process in ranks:
        process.join()


def _run_rank(
    function: Callable[..., Any], rank: int, world_size: int, folder: Path, args: tuple[Any, ...]
) -> None:
    import torch

    torch.set_num_threads(1)
    try:
        torch.distributed.init_process_group(
            "gloo",
            init_method=f"file://{folder / 'rendezvous'}",
            rank=rank,
            world_size=world_size,
            timeout=timedelta(seconds=120),
        )
        result = function(rank, *args)
        (folder / f"result.{rank}").write_bytes(pickle.dumps(result))
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()
    except BaseException:
        partial = folder / f"partial.{rank}"
        partial.write_text(f"rank {rank} of {world_size}:\n{traceback.format_exc()}")
        partial.rename(folder / f"failure.{rank}")
        raise SystemExit(1) from None


@dataclass(frozen=True)
class Sample:
    """A training sample as the trainer sends it to the actor.

    Attributes:
        prompt: Token ids, placeholders included.
        response: Token ids.
        old_log_probs: One a response token.
        advantage: The rollout's.
        record: Its soft prompt; None for plain DAPO.
        trained: False for verl's synthetic padding samples, whose response mask is all zero.
    """

    prompt: Sequence[int]
    response: Sequence[int]
    old_log_probs: np.ndarray
    advantage: float
    record: SoftPromptRecord | None = None
    trained: bool = True


@cache
def compose(name: str = "dapo_rsp", *overrides: str) -> DictConfig:
    """A config of `configs/`, composed as `rsp_rl.train` composes it; not to be changed."""
    import hydra

    from rsp_rl.train import CONFIG_FOLDER

    with hydra.initialize_config_dir(str(CONFIG_FOLDER), version_base=None):
        return hydra.compose(name, overrides=list(overrides))


def make_random_model(folder: Path, *, tied: bool = False) -> Path:
    """A tiny random model in which attention depends on its inputs, so that soft prompts matter."""
    import torch
    from transformers import AutoModelForCausalLM

    from rsp_rl.tiny import make_tiny_model

    make_tiny_model(folder, seed=3, steps=0, hidden_size=32, tie_word_embeddings=tied)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 2:
                parameter.normal_(std=0.2 if "embed" in name else 0.1, generator=generator)
    model.save_pretrained(folder)
    return folder


def plain_torch_log_probs(
    model: torch.nn.Module, samples: Sequence[Sample], soft_prompts: bool = True
) -> list[torch.Tensor]:
    """Log-probs of the responses, one sequence at a time, H put in by hand as `inputs_embeds`."""
    import torch

    rows = []
    for sample in samples:
        tokens = torch.tensor([*sample.prompt, *sample.response])
        embeds = model.get_input_embeddings()(tokens)
        if soft_prompts and sample.record is not None:
            start, length = sample.record.start, sample.record.length
            drawn = sample.record.draw(embeds.shape[-1]).to(embeds.dtype)
            embeds = torch.cat([embeds[:start], drawn, embeds[start + length :]])
        logits = model(inputs_embeds=embeds[None], use_cache=False).logits[0]
        first = len(sample.prompt)
        log_probs = logits[first - 1 : -1].log_softmax(-1)
        rows.append(log_probs.gather(-1, tokens[first:, None])[:, 0])
    return rows


def make_engine(model: Path, *overrides: str) -> tuple[SoftPromptFSDPEngine, ActorConfig]:
    """verl's actor engine in fp32, made as its `ActorRolloutRefWorker.init_model` makes it."""
    from verl.utils.config import omega_conf_to_dataclass
    from verl.workers.engine import EngineRegistry

    config = compose(
        "dapo_rsp",
        "+machine=cpu",
        f"actor_rollout_ref.model.path={model}",
        # The engine alone: agent loop, trainer and guard are not needed.
        "actor_rollout_ref.model.external_lib=rsp_rl.verl_plugin.actor_engine",
        *overrides,
    ).actor_rollout_ref
    actor_config = omega_conf_to_dataclass(config.actor)
    actor_config.model_config = omega_conf_to_dataclass(config.model)
    engine = EngineRegistry.new(
        model_type="language_model",
        backend=actor_config.engine.strategy,
        model_config=actor_config.model_config,
        engine_config=actor_config.engine,
        optimizer_config=actor_config.optim,
        checkpoint_config=actor_config.checkpoint,
    )
    engine.initialize()
    return engine, actor_config


def training_batch(samples: Sequence[Sample], dtype: Any = None, **settings: Any) -> TensorDict:
    """The micro-batch source that verl's engine gets: nested tensors and plain settings.

    Args:
        samples: This rank's.
        dtype: Of the log-probs and advantages; float32 if None.
        **settings: More non-tensor entries, such as `micro_batch_size_per_gpu`.
    """
    import torch
    from verl.utils import tensordict_utils as tu

    from rsp_rl.soft_prompt import RECORD_FIELD

    def nested(rows: list[Any], dtype: Any) -> Any:
        rows = [torch.as_tensor(row, dtype=dtype) for row in rows]
        return torch.nested.as_nested_tensor(rows, layout=torch.jagged)

    float_type = dtype or torch.float32
    lengths = [len(s.response) for s in samples]
    masks = nested([[int(s.trained)] * len(s.response) for s in samples], torch.int64)
    tensors = {
        "prompts": nested([s.prompt for s in samples], torch.int64),
        "responses": nested([s.response for s in samples], torch.int64),
        "input_ids": nested([[*s.prompt, *s.response] for s in samples], torch.int64),
        "position_ids": nested(
            [range(len(s.prompt) + len(s.response)) for s in samples], torch.int64
        ),
        "response_mask": masks,
        "loss_mask": masks,
        "old_log_probs": nested([s.old_log_probs for s in samples], float_type),
        "advantages": nested(
            [[s.advantage] * n for s, n in zip(samples, lengths, strict=True)], float_type
        ),
    }
    if samples[0].record is not None:
        tensors[RECORD_FIELD] = nested([s.record.to_tensor() for s in samples], torch.int64)
    plain = {
        "temperature": 1.0,
        "global_batch_size": len(samples),
        "calculate_entropy": False,
        "use_fused_kernels": False,
        **settings,
    }
    return tu.get_tensordict(tensor_dict=tensors, non_tensor_dict=plain)
