"""What engines take and give back: requests, completions, and how a model is run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from rsp_rl.basics.errors import ConfigError
from rsp_rl.draws.record import SoftPromptRecord

if TYPE_CHECKING:  # torch is imported where a request thinks
    from rsp_rl.thoughts.record import ThoughtRecord
    from rsp_rl.thoughts.settings import Thinking

KINDS = ("vllm", "huggingface")


@dataclass(frozen=True)
class EngineOptions:
    """How the model is run; none of it belongs to the protocol.

    Attributes:
        kind: `vllm`, or `huggingface`, the reference: slow, one process, plain transformers.
        dtype: `auto` is bfloat16 on a GPU and float32 without one.
        tensor_parallel: GPUs an engine.
        data_parallel: Engines; more than one are Ray actors, on one node or on many.
        max_num_seqs: Samples that an engine generates at once.
        max_model_len: Longest prompt with output, in tokens; the model's own limit if `None`.
        gpu_memory_utilization: Share of each GPU's memory that vLLM may take.
        ray_address: Address of the Ray cluster for several engines; starts one here if `None`.
    """

    kind: str = "vllm"
    dtype: str = "auto"
    tensor_parallel: int = 1
    data_parallel: int = 1
    max_num_seqs: int = 256
    max_model_len: int | None = None
    gpu_memory_utilization: float = 0.9
    ray_address: str | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ConfigError(f"--engine {self.kind} is unknown; use one of {', '.join(KINDS)}")
        for name in ("tensor_parallel", "data_parallel", "max_num_seqs"):
            if getattr(self, name) < 1:
                raise ConfigError(f"--{name.replace('_', '-')} must be a whole number above 0")
        if not 0 < self.gpu_memory_utilization <= 1:
            raise ConfigError("--gpu-memory-utilization must be above 0 and at most 1")
        if self.kind == "huggingface" and self.tensor_parallel * self.data_parallel > 1:
            raise ConfigError("--engine huggingface runs in one process; use vllm for several")

    def resolved_dtype(self) -> str:
        """The dtype that the model computes in, and that soft prompts are rounded to."""
        if self.dtype != "auto":
            return self.dtype
        return "bfloat16" if has_gpu() else "float32"


def has_gpu() -> bool:
    """Whether there is a GPU to run on."""
    import torch

    return torch.cuda.is_available()


@dataclass(frozen=True)
class Request:
    """One sample to generate.

    Attributes:
        number: What the caller knows it by.
        token_ids: The prompt, placeholders included, [T].
        sampling: Arguments of vLLM's `SamplingParams`.
        record: The soft prompt, if any.
        question: What the prompt asks, without its template, where that is known.
        thinking: The law of its thoughts, if it has one; `sampling` is then the answer's.
    """

    number: int
    token_ids: list[int]
    sampling: dict[str, Any]
    record: SoftPromptRecord | None = None
    question: str | None = None
    thinking: Thinking | None = None

    @property
    def is_greedy(self) -> bool:
        """Whether its seed does not matter."""
        return self.sampling["temperature"] == 0


@dataclass(frozen=True)
class Completion:
    """A finished sample.

    Attributes:
        number: The request's.
        text: Output without special tokens.
        tokens: Generated tokens.
        finish_reason: `stop` or `length`.
        thoughts: What stood at the generated positions, of a request with a law.
    """

    number: int
    text: str
    tokens: int
    finish_reason: str
    thoughts: ThoughtRecord | None = None


class Engines(Protocol):
    """One or many engines behind one queue."""

    def generate(self, requests: Iterable[Request]) -> Iterator[list[Completion]]:
        """Work through the requests in their order; yields whatever has finished."""

    def close(self) -> None:
        """Free what the engines hold."""
