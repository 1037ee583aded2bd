"""What RSP would need on clusters of any size: arithmetic from measured unit costs.

Weak scaling: every GPU brings its share of rollouts to a step, and a step takes as long on 2,048
GPUs as on 4. That is generous to everything but RSP; with larger models steps get longer, and the
shares below smaller.
"""

from __future__ import annotations

from dataclasses import dataclass

from rsp_rl.draws.record import RECORD_SIZE

_SEED_BITS = 64
_RECORD_BYTES = 8 * RECORD_SIZE
_BF16, _FP32 = 2, 4


@dataclass(frozen=True)
class UnitCosts:
    """Measured on one core.

    Attributes:
        draw: Seconds to draw one of the L x d numbers.
        hashing: Seconds of vLLM's engine core for a token of a prompt with a record, beyond those
            for a token of a plain prompt.
        grading: Seconds to grade one output.
    """

    draw: float
    hashing: float
    grading: float


@dataclass(frozen=True)
class Cluster:
    """A training step on a cluster.

    Attributes:
        gpus: All of them, which take turns at rollouts and updates.
        hidden_size: d.
        length: L.
        prompt_tokens: T, soft prompt included.
        rollouts_per_gpu: A step's; 256 are the paper's 8,192 on 32 GPUs.
        step_seconds: Of the whole step.
        generation_seconds: Of the rollouts within it.
        tensor_parallel: GPUs an engine, each of which draws for itself.
        micro_batch: Sequences that the actor works on at once.
    """

    gpus: int
    hidden_size: int
    length: int = 20
    prompt_tokens: int = 512
    rollouts_per_gpu: int = 256
    step_seconds: float = 120.0
    generation_seconds: float = 60.0
    tensor_parallel: int = 4
    micro_batch: int = 16

    @property
    def rollouts(self) -> int:
        """A step's."""
        return self.gpus * self.rollouts_per_gpu

    @property
    def rollouts_per_engine(self) -> int:
        """A step's."""
        return self.tensor_parallel * self.rollouts_per_gpu

    @property
    def draws_per_second(self) -> float:
        """All of the cluster's: each of an engine's ranks, old log-probs, one update."""
        return self.rollouts * (self.tensor_parallel + 2) / self.step_seconds

    @property
    def record_bytes_per_step(self) -> int:
        """With the samples, through the trainer."""
        return self.rollouts * _RECORD_BYTES

    @property
    def drawn_bytes_per_step(self) -> int:
        """The same if H itself travelled, in bf16: what the record saves."""
        return self.rollouts * self.length * self.hidden_size * _BF16

    def prompt_bytes(self, *, rows: bool) -> int:
        """Held for an engine's prompts at worst, all sent at once: in front end and engine core.

        Args:
            rows: Whether soft prompts are sent as rows, not as records.
        """
        per_token = self.hidden_size * _BF16 if rows else _RECORD_BYTES
        return 2 * self.rollouts_per_engine * self.prompt_tokens * per_token

    @property
    def ahead_bytes(self) -> int:
        """Host memory a GPU for its batch's draws, made ahead of their micro-batches."""
        return self.rollouts_per_gpu * self.length * self.hidden_size * _FP32

    @property
    def device_bytes(self) -> int:
        """Memory on each GPU for a micro-batch's rows."""
        return self.micro_batch * self.length * self.hidden_size * _FP32

    def shares(self, costs: UnitCosts) -> dict[str, float]:
        """Share of its time that each resource spends on RSP; the largest saturates first.

        Returns:
            draw_in_rollout: One core of each vLLM rank, of the generation.
            draw_in_training: One core of each actor rank, of the rest of the step.
            engine_core: The process of each engine, of the generation.
        """
        draw = costs.draw * self.length * self.hidden_size
        hashing = costs.hashing * self.prompt_tokens * self.rollouts_per_engine
        return {
            "draw_in_rollout": draw * self.rollouts_per_engine / self.generation_seconds,
            "draw_in_training": 2
            * draw
            * self.rollouts_per_gpu
            / (self.step_seconds - self.generation_seconds),
            "engine_core": hashing / self.generation_seconds,
        }

    def grading_cores(self, costs: UnitCosts) -> float:
        """Cores, of the whole cluster, that grade outputs as fast as they are generated."""
        return self.rollouts * costs.grading / self.generation_seconds


def collisions_within_a_run() -> int:
    """Pairs of a run's rollouts with the same seed: the seed is a bijection of their places."""
    return 0


def collisions_across_runs(runs: int, rollouts_per_run: int) -> float:
    """Expected pairs of rollouts, of different runs with run seeds of their own, with one seed.

    The birthday number: pairs over 2^64. Below 1 it bounds the probability of any.
    """
    pairs = runs * (runs - 1) / 2 * rollouts_per_run**2
    return pairs / 2**_SEED_BITS
