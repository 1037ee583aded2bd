"""AdamW on the CPU for FSDP2 with CPU offload: DeepSpeed's vectorised step, a shard at a time.

verl builds it by name (`verl.workers.config.optimizer.build_optimizer`; see
`configs/memory/low.yaml`). DeepSpeed's own class hands parameters to a C++ extension, which cannot
read FSDP2's DTensors: this one hands over each rank's local shard, which AdamW, being entrywise,
may update by itself. Moments are DTensors like the parameters, as those of torch's AdamW are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from deepspeed.ops.adam import DeepSpeedCPUAdam
from torch.distributed.tensor import DTensor


class ShardedCPUAdam(DeepSpeedCPUAdam):
    """DeepSpeed's CPU AdamW over plain tensors or DTensors.

    Args:
        params: Parameters or groups of them, fp32, on the CPU.
        **options: `lr`, `betas`, `eps`, `weight_decay`.
    """

    def __init__(self, params: Any, **options: Any) -> None:
        super().__init__(params, adamw_mode=True, fp32_optimizer_states=True, **options)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One AdamW step over all parameters that have a gradient.

        Raises:
            RuntimeError: If a parameter is not on the CPU.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, group)
        return loss

    def _update(self, parameter: torch.Tensor, group: dict[str, Any]) -> None:
        if parameter.device.type != "cpu":
            raise RuntimeError(
                f"ShardedCPUAdam: a parameter is on {parameter.device}; set "
                "actor_rollout_ref.actor.fsdp_config.offload_policy=true with strategy=fsdp2"
            )
        state = self.state[parameter]
        if not state:
            state["step"] = 0
            state["exp_avg"] = torch.zeros_like(parameter, dtype=torch.float32)
            state["exp_avg_sq"] = torch.zeros_like(parameter, dtype=torch.float32)
        state["step"] += 1
        shard = _local(parameter)
        if shard.numel() == 0:
            return  # more ranks than rows: this rank holds none of them
        self.ds_opt_adam.adam_update(
            self.opt_id,
            state["step"],
            group["lr"],
            *group["betas"],
            group["eps"],
            group["weight_decay"],
            group["bias_correction"],
            shard,
            _local(parameter.grad),
            _local(state["exp_avg"]),
            _local(state["exp_avg_sq"]),
        )


def _local(tensor: torch.Tensor) -> torch.Tensor:
    """This rank's part, sharing its storage."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor.detach()
