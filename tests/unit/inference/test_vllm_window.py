"""The queue in front of the engines."""

from __future__ import annotations

import pytest
import torch

from rsp_rl.basics.errors import ConfigError
from rsp_rl.inference.requests import EngineOptions, Request
from rsp_rl.inference.vllm_engine import _Window


def requests(*temperatures: float) -> list[Request]:
    return [
        Request(number, [1], {"temperature": temperature})
        for number, temperature in enumerate(temperatures)
    ]


def test_what_an_engine_cannot_soon_begin_waits() -> None:
    window = _Window(requests(*[1.0] * 100), EngineOptions(max_num_seqs=16))
    first = window.refill([])
    assert [request.number for request in first] == list(range(24))
    assert window.refill(first) == []
    assert [request.number for request in window.refill(first[5:])] == list(range(24, 29))


def test_seeds_count_on_a_cpu_because_greedy_requests_keep_apart(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """vLLM's CPU sampler drops the seeds of a batch that holds a greedy request."""
    mixed = requests(1.0, 1.0, 0, 0, 1.0)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    window = _Window(mixed, EngineOptions())
    assert window.refill([]) == mixed[:2]
    assert window.refill(mixed[1:2]) == []  # one is still being generated
    assert window.refill([]) == mixed[2:4]
    assert window.refill([]) == mixed[4:]
    assert window.refill([]) == []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert _Window(mixed, EngineOptions()).refill([]) == mixed


@pytest.mark.parametrize(
    ("name", "value"), [("max_num_seqs", 0), ("data_parallel", 0), ("gpu_memory_utilization", 1.5)]
)
def test_bad_options(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"--{name.replace('_', '-')}"):
        EngineOptions(**{name: value})
