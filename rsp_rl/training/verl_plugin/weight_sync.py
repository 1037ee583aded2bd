"""Weights to vLLM, of trainings that share a machine.

verl names the socket that carries them after Ray's job id, which is 01000000 in every cluster that
a run starts for itself: two runs on one machine have the same file in /tmp, and each may take the
other's weights or wait for ever. Here the name has the cluster's port too, which it has alone.
"""

from __future__ import annotations

from typing import Any

import ray
from verl.workers.rollout.vllm_rollout import ServerAdapter

#: What verl's server hands to vLLM's workers, for their end of the socket.
JOB_VARIABLE = "VERL_RAY_JOB_ID"


def cluster_job() -> str:
    """Ray's job id and its cluster's port."""
    context = ray.get_runtime_context()
    return f"{context.get_job_id()}-{context.gcs_address.rpartition(':')[2]}"


class OwnSocketAdapter(ServerAdapter):
    """verl's sender of weights, whose socket is this cluster's own.

    Raises:
        RuntimeError: If verl names its socket in another way than it is known to.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        job = f"-{ray.get_runtime_context().get_job_id()}-"
        if job not in self.zmq_handle:
            raise RuntimeError(f"verl's socket {self.zmq_handle} does not name Ray's job {job}")
        self.zmq_handle = self.zmq_handle.replace(job, f"-{cluster_job()}-")
