"""A checkpoint's shards as one Hugging Face folder: exact, a LoRA adapter merged into the weights.

verl's merger rounds to bfloat16, which is not what a float32 rollout was validated with, and lays
an adapter beside the base model, where no evaluation reads it.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any

from rsp_rl.basics.errors import RunFolderError
from rsp_rl.basics.files import read_json, write_json
from rsp_rl.models.weights import files_digest

if TYPE_CHECKING:
    from torch import Tensor, nn

#: What a merged folder was made of; a folder without it is of verl's merger.
MERGED_FILE = "merged.json"

#: verl's note of an adapter's rank and alpha, beside the shards.
ADAPTER_FILE = "lora_train_meta.json"

_SHARD = re.compile(r"model_world_size_(\d+)_rank_(\d+)\.pt")

#: How peft names a wrapped model, a wrapped layer, and an adapter's factors within one.
_WRAPPER, _LAYER = "base_model.model.", ".base_layer."
_FACTORS = (
    (".lora_A.default.weight", ".lora_B.default.weight"),
    (".lora_embedding_A.default", ".lora_embedding_B.default"),
)


def has_adapter(actor: Path) -> bool:
    """Whether a checkpoint's `actor` folder was trained with LoRA."""
    return (actor / ADAPTER_FILE).is_file()


def shards_digest(actor: Path) -> str:
    """Tells a checkpoint from another that was saved in its place."""
    return files_digest(actor.glob("model_world_size_*_rank_*.pt"))


def made_of(model: Path) -> dict[str, Any] | None:
    """What a model folder was made of, `None` if it was not made by `merge_shards`."""
    file = model / MERGED_FILE
    return read_json(file) if file.is_file() else None


def merge_shards(actor: Path, target: Path) -> None:
    """Write the model that a checkpoint's shards hold.

    Every weight keeps its dtype; with an adapter all are float32, W + (alpha / r) B A, since a
    sum rounded to bfloat16 loses most of what a small adapter learned. Everything beside the
    weights (tokenizer, chat template, generation config) is copied as it was trained with.

    Args:
        actor: A checkpoint's `actor` folder: shards of verl's FSDP engines, and `huggingface`.
        target: The folder to make.

    Raises:
        RunFolderError: If a shard is missing, or shards and model do not fit together, or weights
            are not finite, or the adapter is of a kind that is not merged.
    """
    import torch
    from transformers import AutoConfig

    source = actor / "huggingface"
    try:
        config = AutoConfig.from_pretrained(source, trust_remote_code=False)
        model = _empty_model(config)
        weights = join_shards(actor)
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise RunFolderError(f"{actor} cannot be read as a checkpoint: {error}") from error
    adapter: dict[str, Any] | None = None
    if any("lora_" in name for name in weights):
        adapter = _read_adapter(actor)
        weights, done = merge_adapter(weights, model, adapter["r"], adapter["lora_alpha"])
        adapter |= done
    elif has_adapter(actor):
        raise RunFolderError(f"{actor} has an {ADAPTER_FILE} but no adapter in its shards")
    if untied := _drop_aliases(weights, model):
        config.tie_word_embeddings = False  # an adapter told input and output apart
        model = _empty_model(config)
    _check_fit(weights, model, actor)
    dtypes = {str(weight.dtype).removeprefix("torch.") for weight in weights.values()}
    dtype = dtypes.pop() if len(dtypes) == 1 else "float32"
    with torch.no_grad():
        model.to(getattr(torch, dtype)).save_pretrained(target, state_dict=weights)
    _copy_rest(
        source, target, {"dtype": dtype} | ({"tie_word_embeddings": False} if untied else {})
    )
    made = {"dtype": dtype, "adapter": adapter, "untied": untied, "shards": shards_digest(actor)}
    write_json(target / MERGED_FILE, made)


def _empty_model(config: Any) -> nn.Module:
    """The model's modules without memory for their weights."""
    import torch
    import transformers

    name = (config.architectures or ["a model without a name"])[0]
    kind = getattr(transformers, name, None)
    if kind is None:
        raise RunFolderError(f"{name} is no model of transformers {transformers.__version__}")
    with torch.device("meta"):
        model = kind._from_config(config)
    model.tie_weights()
    return model


def join_shards(actor: Path) -> dict[str, Tensor]:
    """The weights of all ranks' shards, whole, in the dtype that they were trained in.

    Args:
        actor: Folder of `model_world_size_N_rank_K.pt`, of FSDP 1 or 2, hybrid sharding too.

    Raises:
        RunFolderError: If a shard is missing, or the shards do not make a whole weight.
    """
    import torch
    from torch.distributed.tensor import DTensor

    found = sorted(actor.glob("model_world_size_*_rank_*.pt"))
    matches = [match for file in found if (match := _SHARD.fullmatch(file.name))]
    if len({match[1] for match in matches}) != 1:
        raise RunFolderError(f"{actor} holds shards of {'several' if matches else 'no'} runs")
    ranks = int(matches[0][1])

    def load(rank: int) -> dict[str, Any]:
        file = actor / f"model_world_size_{ranks}_rank_{rank}.pt"
        if not file.is_file():
            raise RunFolderError(f"{file} is missing; restore it")
        try:  # mapped: only what is joined this moment is in memory twice
            return torch.load(file, map_location="cpu", weights_only=False, mmap=True)
        except (RuntimeError, EOFError, UnpicklingError) as error:
            raise RunFolderError(f"{file} is damaged ({error}); restore it") from error

    first = load(0)
    meshes = [value.device_mesh.mesh for value in first.values() if isinstance(value, DTensor)]
    # Of hybrid sharding's replicas, the first is all of the model.
    group = meshes[0].reshape(-1, meshes[0].shape[-1])[0].tolist() if meshes else range(ranks)
    shards = [first, *(load(rank) for rank in list(group)[1:])]
    return {name: _join(name, [shard[name] for shard in shards], actor) for name in first}


def _join(name: str, parts: list[Any], actor: Path) -> Tensor:
    import torch
    from torch.distributed.tensor import DTensor

    first = parts[0]
    if isinstance(first, DTensor):
        (*replicas, placement), local = first.placements, [part._local_tensor for part in parts]
        if not all(replica.is_replicate() for replica in replicas):
            raise RunFolderError(f"{actor}: {name} is split twice ({first.placements}), as by TP")
        if placement.is_shard():
            whole = local[0] if len(local) == 1 else torch.cat(local, dim=placement.dim)
        elif placement.is_replicate():
            whole = local[0]
        else:
            raise RunFolderError(f"{actor}: {name} is placed as {placement}, which has no whole")
        if whole.shape != first.shape:
            raise RunFolderError(
                f"{actor}: the shards of {name} make {list(whole.shape)} of {list(first.shape)}"
            )
        return whole
    if type(first) not in (torch.Tensor, torch.nn.Parameter):
        raise RunFolderError(f"{actor}: {name} is a {type(first).__name__}, no shard of a tensor")
    for part in parts[1:]:
        if not torch.equal(part, first):
            raise RunFolderError(f"{actor}: {name} is not sharded, yet differs between the ranks")
    return first.detach()


def _read_adapter(actor: Path) -> dict[str, Any]:
    file = actor / ADAPTER_FILE
    if not file.is_file():
        raise RunFolderError(
            f"{actor} holds an adapter without its {ADAPTER_FILE}, and its alpha is nowhere else; "
            'write {"r": ..., "lora_alpha": ...} of the training into it'
        )
    adapter = read_json(file)
    for name in ("r", "lora_alpha"):
        if type(adapter.get(name)) is not int or adapter[name] <= 0:
            raise RunFolderError(
                f"{file}: {name}={adapter.get(name)!r} must be a whole number above 0"
            )
    return {name: adapter[name] for name in ("r", "lora_alpha")}


def merge_adapter(
    weights: dict[str, Tensor], model: nn.Module, rank: int, alpha: int
) -> tuple[dict[str, Tensor], dict[str, float]]:
    """W + (alpha / r) B A for every layer that has an adapter (LoRA, arXiv 2106.09685, eq. 3).

    Args:
        weights: By peft's names.
        model: The model without adapter, to tell what kind of layer each is.
        rank: r.
        alpha: LoRA's alpha.

    Returns:
        float32 weights by the model's own names; how many `layers` had an adapter, and what an
        engine that rounds to bfloat16 would lose of it: `bfloat16_loss`, the norm of the rounding
        over that of the adapter.

    Raises:
        RunFolderError: If there is more to the adapter than A and B (DoRA, biases, whole modules),
            or another rank.
    """
    import torch

    merged, used = {}, set()
    learned = rounded = 0.0  # sums of squares
    for name, weight in weights.items():
        if "lora_" in name:
            continue
        plain = name.removeprefix(_WRAPPER).replace(_LAYER, ".")
        weight = weight.float()
        if name.endswith(f"{_LAYER}weight"):
            layer = name.removesuffix(f"{_LAYER}weight")
            for names in ((layer + a, layer + b) for a, b in _FACTORS):
                if not weights.keys() >= set(names):
                    continue
                a_RI, b_OR = (weights[factor].float() for factor in names)
                if a_RI.ndim != 2 or {a_RI.shape[0], b_OR.shape[-1]} != {rank}:
                    raise RunFolderError(
                        f"the adapter of {plain} has the shapes {list(a_RI.shape)} and "
                        f"{list(b_OR.shape)}; only matrices of rank {rank}, as {ADAPTER_FILE} "
                        "says, are merged"
                    )
                delta_OI = (b_OR @ a_RI) * (alpha / rank)
                kind = type(model.get_submodule(plain.removesuffix(".weight"))).__name__
                # GPT-2's layers and embeddings are stored the other way round.
                delta = delta_OI.T if kind in ("Conv1D", "Embedding") else delta_OI
                if delta.shape != weight.shape:
                    raise RunFolderError(
                        f"{plain} is {list(weight.shape)}, its adapter {list(delta.shape)}"
                    )
                weight = weight + delta
                learned += float(delta.square().sum())
                rounded += float((weight.to(torch.bfloat16).float() - weight).square().sum())
                used.update(names)
        merged[plain] = weight
    if not merged:
        raise RunFolderError(
            "the checkpoint holds the adapter alone (checkpoint.save_lora_only); there is no base "
            "model to merge it into"
        )
    extra = (name for name in weights if "lora_" in name or ".modules_to_save." in name)
    if rest := sorted(name for name in extra if name not in used):
        raise RunFolderError(
            f"the adapter holds {rest[0]} (and {len(rest) - 1} more): only plain LoRA, A and B of "
            "one weight, is merged"
        )
    loss = (rounded / learned) ** 0.5 if learned else 0.0
    return merged, {"layers": len(used) // 2, "bfloat16_loss": loss}


def _drop_aliases(weights: dict[str, Tensor], model: nn.Module) -> bool:
    """Leave one name of each tied weight; transformers would not tie two again.

    Returns:
        Whether two names hold different values, both of which are then kept.
    """
    import torch

    kept: dict[int, str] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        first = kept.setdefault(id(parameter), name)
        if name == first or name not in weights:
            continue
        if first not in weights:
            weights[first] = weights.pop(name)
        elif torch.equal(weights[first], weights[name]):
            del weights[name]
        else:
            return True
    return False


def _check_fit(weights: dict[str, Tensor], model: nn.Module, actor: Path) -> None:
    """Make sure that the weights are those of the model, no more and no less, and are numbers."""
    own = {name for name, _ in model.named_parameters()}  # of tied names the first
    aliases = {name for name, _ in model.named_parameters(remove_duplicate=False)} - own
    state = model.state_dict()
    wanted = {name: value.shape for name, value in state.items() if name not in aliases}
    if odd := sorted(wanted.keys() ^ weights.keys()):
        where = "lacks" if odd[0] in wanted else "holds, unknown to the model,"
        raise RunFolderError(f"{actor} {where} {odd[0]} (and {len(odd) - 1} others)")
    for name, shape in wanted.items():
        if not weights[name].isfinite().all():
            raise RunFolderError(
                f"{actor}: {name} holds numbers that are not finite: the training diverged; "
                "evaluate an earlier step"
            )
        if weights[name].shape != shape:
            raise RunFolderError(
                f"{actor}: {name} is {list(weights[name].shape)}, the model's {list(shape)}"
            )


def _copy_rest(source: Path, target: Path, changes: dict[str, Any]) -> None:
    """Everything but weights as training had it, the config with these changes."""
    for file in source.iterdir():
        if file.is_file() and ".safetensors" not in file.name:
            shutil.copyfile(file, target / file.name)
    if not (source / "generation_config.json").is_file():
        # The one that transformers makes of the config is not the model's.
        (target / "generation_config.json").unlink(missing_ok=True)
    config = read_json(target / "config.json")
    config.pop("torch_dtype", None)
    write_json(target / "config.json", config | changes)
