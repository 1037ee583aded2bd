"""Model and data on every node of a cluster: there, and the same.

A model folder that a node lacks is looked for on the hub by whoever runs there; one that differs is
another policy on one side of the guard.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import ray
from omegaconf import DictConfig, OmegaConf
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from rsp_rl.basics.errors import ConfigError
from rsp_rl.models.weights import weights_digest
from rsp_rl.runs.data_order import file_digests

#: Files of a model folder that are compared whole; the weights by blocks (`weights_digest`).
_WHOLE = ("config.json", "tokenizer.json", "tokenizer_config.json")


def check_nodes(config: DictConfig) -> None:
    """Compare the model on all nodes, and the data where the trainer runs with what was checked.

    Raises:
        ConfigError: Naming path and node.
    """
    path = str(config.actor_rollout_ref.model.path)
    nodes = {node["NodeID"]: node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]}
    if len(nodes) > 1:  # a single one is the one that the run was started on
        check_model(path, models_on(nodes, path))
    check_data(config, ray.util.get_node_ip_address())


def models_on(nodes: Mapping[str, str], path: str) -> dict[str, str | None]:
    """`model_digest` of a path by node.

    Args:
        nodes: Addresses by Ray's id.
        path: The same on each.
    """
    asked = [
        _model_there.options(
            num_cpus=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)
        ).remote(path)
        for node in nodes
    ]
    return dict(zip(nodes.values(), ray.get(asked), strict=True))


@ray.remote
def _model_there(path: str) -> str | None:
    return model_digest(Path(path))


def model_digest(folder: Path) -> str | None:
    """What tells two model folders apart, None where there is none."""
    if not folder.is_dir():
        return None
    digest = hashlib.blake2b(weights_digest(folder).encode(), digest_size=16)
    for name in _WHOLE:
        file = folder / name
        digest.update(name.encode() + (file.read_bytes() if file.is_file() else b""))
    return digest.hexdigest()


def check_model(path: str, found: Mapping[str, str | None]) -> None:
    """Compare what nodes have at a path.

    Args:
        path: `actor_rollout_ref.model.path`.
        found: `model_digest` by node.

    Raises:
        ConfigError: If one lacks it, or has another.
    """
    mend = "put it on a disk that all nodes share, or copy it to the same path on each"
    if lacking := [node for node, digest in found.items() if digest is None]:
        raise ConfigError(
            f"actor_rollout_ref.model.path={path} is not on {', '.join(sorted(lacking))}; {mend}"
        )
    if len(set(found.values())) > 1:
        kinds = ", ".join(f"{node}: {str(digest)[:8]}" for node, digest in sorted(found.items()))
        raise ConfigError(
            f"actor_rollout_ref.model.path={path} is not the same model on all nodes ({kinds}); "
            f"{mend}"
        )


def check_data(config: DictConfig, node: str) -> None:
    """Make sure that this process reads the files that were checked where the run was started.

    Args:
        config: The prepared config.
        node: This one's address.

    Raises:
        ConfigError: If a file is not here, or is another.
    """
    mend = f"on {node}, where the trainer runs; put it on a disk that all nodes share"
    for name, here in file_digests(config).items():
        files = OmegaConf.select(config, name)
        files = [files] if isinstance(files, str) else files
        checked = config.trainer.v1.rsp_sync.data_read[name]
        for file, found, wanted in zip(files, here, checked, strict=True):
            if found != wanted:
                what = "holds other bytes" if Path(file).is_file() else "is not"
                raise ConfigError(f"{file} of {name} {what} {mend}")
