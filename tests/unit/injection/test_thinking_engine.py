"""What vLLM cannot think with: one reason each, before anything is sent."""

from __future__ import annotations

import inspect
import re
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from vllm import SamplingParams
from vllm.sampling_params import StructuredOutputsParams

from rsp_rl.basics.errors import ConfigError
from rsp_rl.injection import thinking_engine, thinking_runner_v2
from rsp_rl.injection.model_runner import v2_takes_prompt_embeds
from rsp_rl.injection.thinking_engine import (
    MEMORY,
    V1_TAKES,
    V2_BATCH,
    V2_TAKES,
    check_engine,
    check_request,
    class_fault,
    engine_fault,
    interface_fault,
    most_bytes,
)
from rsp_rl.injection.thinking_runner_v1 import ThinkingRunnerV1
from rsp_rl.injection.thinking_runner_v2 import ThinkingRunnerV2
from rsp_rl.injection.vllm_prompt import WORKER
from rsp_rl.thoughts.names import law_from_settings
from rsp_rl.thoughts.phases import Phases
from rsp_rl.thoughts.settings import Thinking


def config(**changes: Any) -> Any:
    """Of an engine that thinks, but for the changes."""
    parallel = {
        "worker_cls": WORKER,
        "pipeline_parallel_size": 1,
        "tensor_parallel_size": 1,
        "data_parallel_size": 1,
        "data_parallel_external_lb": False,
        "enable_batch_sharded_sampling": False,
        "prefill_context_parallel_size": 1,
    }
    made = {
        "model_config": SimpleNamespace(
            enable_prompt_embeds=True,
            architectures=["Other"],
            get_vocab_size=lambda: 300,
            max_model_len=1000,
            get_hidden_size=lambda: 512,
            dtype=torch.bfloat16,
        ),
        "additional_config": {MEMORY: 0.001},
        "scheduler_config": SimpleNamespace(async_scheduling=False),
        "speculative_config": None,
        "lora_config": None,
        "use_v2_model_runner": False,
    } | {name: value for name, value in changes.items() if name not in parallel}
    parallel |= {name: value for name, value in changes.items() if name in parallel}
    return SimpleNamespace(parallel_config=SimpleNamespace(**parallel), **made)


def thinking(law: str = "gumbel", **phases: Any) -> Thinking:
    settings = {"rms": 0.1} if law == "soft" else {}
    return Thinking(law_from_settings(law, settings), Phases(max_thoughts=4, **phases), seed=1)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"worker_cls": "auto"}, "--worker-cls rsp_rl"),
        (
            {"model_config": SimpleNamespace(enable_prompt_embeds=False)},
            "--enable-prompt-embeds",
        ),
        (
            {"scheduler_config": SimpleNamespace(async_scheduling=True)},
            "--no-async-scheduling",
        ),
        ({"pipeline_parallel_size": 2}, "--pipeline-parallel-size 1"),
        ({"data_parallel_size": 2}, "--data-parallel-size 1"),
        ({"speculative_config": object()}, "--speculative-config"),
    ],
)
def test_engines(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        check_engine(config(**changes))


def test_lora_matters_where_vllm_wraps_the_embedding(monkeypatch: pytest.MonkeyPatch) -> None:
    from vllm.model_executor.models import ModelRegistry

    for modules, refused in (({"embed_tokens": "input_embeddings"}, True), ({}, False)):
        kind = type("Kind", (), {"embedding_modules": modules})
        monkeypatch.setattr(ModelRegistry, "resolve_model_cls", lambda *_, k=kind: (k, ""))
        fault = engine_fault(config(lora_config=object()))
        assert ("--enable-lora" in (fault or "")) == refused


def test_an_engine_that_thinks() -> None:
    check_engine(config())
    check_request(config(), thinking(), SamplingParams(logit_bias={3: -100.0}, logprobs=0, seed=1))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"n": 2, "temperature": 1.0}, "n=2"),
        ({"min_tokens": 2}, "min_tokens=2"),
        ({"presence_penalty": 0.5}, "presence_penalty=0.5"),
        ({"frequency_penalty": 0.5}, "frequency_penalty=0.5"),
        ({"repetition_penalty": 1.1}, "repetition_penalty=1.1"),
        ({"bad_words": ["a"]}, "bad_words"),
        ({"allowed_token_ids": [1]}, "allowed_token_ids"),
        ({"structured_outputs": StructuredOutputsParams(regex="a")}, "structured_outputs"),
        ({"logprob_token_ids": [1]}, "logprob_token_ids"),
        ({"logit_bias": {1: -100.0, 2: 1.5}}, "logit_bias={2: 1.5}"),
    ],
)
def test_requests(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        check_request(config(), thinking(), SamplingParams(**changes))


def test_requests_of_some_laws() -> None:
    wide = Thinking(law_from_settings("gumbel", {"k": 301}), Phases(max_thoughts=4), seed=1)
    with pytest.raises(ConfigError, match=r"law\.k=301, but the model has 300 tokens"):
        check_request(config(), wide, SamplingParams())
    with pytest.raises(ConfigError, match="law=soft mixes the whole vocabulary"):
        check_request(config(tensor_parallel_size=2), thinking("soft"), SamplingParams())
    check_request(config(tensor_parallel_size=2), thinking("gumbel"), SamplingParams())
    with pytest.raises(ConfigError, match="law=dirichlet has no log-probs"):
        check_request(config(), thinking("dirichlet"), SamplingParams(logprobs=0))
    check_request(config(), thinking("soft_thinking"), SamplingParams(logprobs=0))
    abort = thinking(cold_entropy=1.0, cold_abort=True)
    with pytest.raises(ConfigError, match="cold_abort"):
        check_request(config(), abort, SamplingParams(ignore_eos=True))


def test_memory_of_records() -> None:
    assert most_bytes(config(additional_config={})) == 1 << 30
    assert most_bytes(config(additional_config={MEMORY: 0.25})) == 1 << 28
    for bad in (0, -1, "2", True, float("nan"), None):
        with pytest.raises(ConfigError, match=MEMORY):
            most_bytes(config(additional_config={MEMORY: bad}))


def test_a_record_beyond_the_engines_memory() -> None:
    """One request with it would take the engine down, and all others with it."""
    dense = Thinking(thinking("soft").law, Phases(end_ids=(1,)), 1)
    check_request(config(), dense, SamplingParams(max_tokens=1000))
    check_request(config(), thinking("soft"), SamplingParams(max_tokens=2000))
    with pytest.raises(ConfigError, match=r"law=soft may take 0\.00 GiB.*rsp_rl_thoughts_gib"):
        check_request(config(), dense, SamplingParams(max_tokens=1050))
    wide = Thinking(law_from_settings("gumbel", {"k": 100_000}), Phases(max_thoughts=4), 1)
    engine = config()
    engine.model_config.get_vocab_size = lambda: 200_000
    with pytest.raises(ConfigError, match=r"law\.k or law\.max_thoughts"):
        check_request(engine, wide, SamplingParams())


@pytest.mark.parametrize("v2", [False, True], ids=["V1", "V2"])
def test_vllms_runner_is_the_one_that_is_known(v2: bool) -> None:
    """Fails when upstream changes what is overridden."""
    kind, takes = (ThinkingRunnerV2, V2_TAKES) if v2 else (ThinkingRunnerV1, V1_TAKES)
    stock = kind.__mro__[2]
    own = {name for name in vars(kind) if hasattr(stock, name) and not name.startswith("__")}
    assert own == set(takes[f"{stock.__module__}.{stock.__name__}"])
    # Before its prompts could be embeddings, V2 had no such place for thoughts.
    assert (interface_fault(v2) is None) == (not v2 or v2_takes_prompt_embeds())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"enable_batch_sharded_sampling": True}, "--enable-batch-sharded-sampling"),
        ({"prefill_context_parallel_size": 2}, "--prefill-context-parallel-size 1"),
        ({"watermark_config": object()}, "watermark"),
        (
            {"model_config": SimpleNamespace(enable_prompt_embeds=True, return_sampling_mask=True)},
            "--return-sampling-mask",
        ),
    ],
)
def test_what_v2_alone_can_do(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        check_engine(config(use_v2_model_runner=True, **changes))


def test_a_batch_that_lacks_what_is_read_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    path, names = V2_BATCH
    interface_fault.cache_clear()
    monkeypatch.setattr(thinking_engine, "V2_TAKES", {})
    assert interface_fault(True) is None
    interface_fault.cache_clear()
    monkeypatch.setattr(thinking_engine, "V2_BATCH", (path, (*names, "no_such", "nor_this")))
    fault = interface_fault(True)
    interface_fault.cache_clear()
    assert "InputBatch has no no_such, nor_this" in (fault or "")


def test_an_engine_whose_v2_is_unknown_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thinking_engine, "interface_fault", lambda v2: "other" if v2 else None)
    check_engine(config())
    with pytest.raises(ConfigError, match="other"):
        check_engine(config(use_v2_model_runner=True))


METHODS = next(iter(V1_TAKES.values()))


def test_another_runner_is_named_with_its_method() -> None:
    class Newer:
        def _update_states(self, scheduler_output: Any) -> None: ...
        def _preprocess(self, scheduler_output: Any, batch: Any) -> None: ...

    fault = class_fault(Newer, METHODS)
    assert fault is not None
    assert "Newer._preprocess takes (scheduler_output, batch)" in fault
    assert "vLLM " in fault
    del Newer._preprocess


def test_a_method_that_is_gone_is_named() -> None:
    class Newest:
        def _update_states(self, scheduler_output: Any) -> None: ...

    assert "Newest._preprocess is not there" in (class_fault(Newest, METHODS) or "")


def test_a_module_that_is_gone_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    interface_fault.cache_clear()
    monkeypatch.setattr(thinking_engine, "V2_TAKES", {"vllm.no_such.Thing": {}})
    fault = interface_fault(True)
    interface_fault.cache_clear()
    assert "vllm.no_such.Thing cannot be had (No module named 'vllm.no_such')" in (fault or "")


def test_what_is_looked_at_is_what_is_read() -> None:
    """Of V2's batch: a field that is renamed refuses a law, and does not end an engine."""
    source = inspect.getsource(thinking_runner_v2)
    assert set(re.findall(r"\b(?:input_)?batch\.(\w+)", source)) - {"model_runner"} == {
        *V2_BATCH[1]
    }


def test_a_trace_that_vllms_sampler_would_replay() -> None:
    """Of a vLLM whose requests may have one."""
    params = {name: getattr(SamplingParams(), name) for name in SamplingParams.__struct_fields__}
    check_request(config(), thinking(), SimpleNamespace(**params))
    traced = SimpleNamespace(**params | {"trace_decode_token_ids": [1, 2]})
    with pytest.raises(ConfigError, match=r"trace_decode_token_ids=\[1, 2\] acts in the sampler"):
        check_request(config(), thinking(), traced)
