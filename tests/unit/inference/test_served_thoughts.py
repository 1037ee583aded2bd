"""What the server's plug-in takes for a request with a law, and what it answers; no engine runs."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from vllm import SamplingParams
from vllm.sampling_params import RequestOutputKind

from rsp_rl.basics.errors import ConfigError, GenerationError
from rsp_rl.draws.record import SoftPromptRecord
from rsp_rl.inference import server
from rsp_rl.inference.prompts import sample_seed
from rsp_rl.inference.served_thoughts import (
    KEY,
    Asked,
    Pending,
    law_arguments,
    pending,
    response_field,
    with_thoughts,
)
from rsp_rl.models.folder import load_tokenizer
from rsp_rl.thoughts.laws.gumbel import Gumbel
from rsp_rl.thoughts.phases import Phases
from rsp_rl.thoughts.record import ThoughtRecord
from rsp_rl.thoughts.rows import Kind, Rows, concatenate
from rsp_rl.thoughts.settings import EXTRA_ARG, Thinking
from rsp_rl.tiny import make_tiny_model

LAW = {"law": "gumbel", "law_k": 3, "law_end": [], "law_max_thoughts": 4}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("model") / "tiny", steps=0, threads=1)


@pytest.fixture(autouse=True)
def _willing_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """What an engine cannot do is tested where it is refused: `injection.thinking_engine`."""
    monkeypatch.setattr("rsp_rl.injection.thinking_engine.check_engine", lambda _: None)


CONFIG = SimpleNamespace(
    parallel_config=SimpleNamespace(tensor_parallel_size=1),
    model_config=SimpleNamespace(
        max_model_len=64,
        get_hidden_size=lambda: 32,
        dtype=torch.float32,
        get_vocab_size=lambda: 300,
    ),
    additional_config=None,
)


def ready(model: Path, request_id: str = "chatcmpl-1", **changes: Any) -> Pending:
    params = changes.pop("params", SamplingParams(max_tokens=9, seed=3))
    return pending(CONFIG, model, request_id, law_arguments(LAW | changes), params)


# Arguments.


def test_only_its_own_arguments_are_read() -> None:
    assert law_arguments(None) is None
    assert law_arguments({"rsp_length": 3, "lawful": 1, EXTRA_ARG: {}}) is None
    asked = law_arguments({**LAW, "other": 1})
    assert (asked.settings.law, asked.seed, asked.records) == (Gumbel(k=3), None, True)
    assert (asked.settings.end, asked.settings.max_thoughts) == ((), 4)
    assert law_arguments({**LAW, "law_seed": 2**64 - 1, "law_records": 0}) == Asked(
        asked.settings, 2**64 - 1, False
    )


def test_yes_and_no_are_numbers_there() -> None:
    assert law_arguments({**LAW, "law_clamp": 1}).settings.law.clamp is True
    assert law_arguments({**LAW, "law_clamp": 0.0}).settings.law.clamp is False
    with pytest.raises(ConfigError, match=r"law.clamp=2 must be of type bool"):
        law_arguments({**LAW, "law_clamp": 2})


def test_training_requests_bring_settings_of_their_own() -> None:
    """Both kinds of them, and neither is for the server to read."""
    assert server.soft_prompt_arguments({EXTRA_ARG: {}, "rsp_rl": {}}) == {}


@pytest.mark.parametrize("name", [EXTRA_ARG, "rsp_rl"])
@pytest.mark.parametrize("value", ["", "x", 3, ["law"]])
def test_a_client_cannot_send_them(name: str, value: Any) -> None:
    """The worker would read what is none of them, and take the engine down."""
    with pytest.raises(ConfigError, match=f"{name} is no argument of a client's"):
        server.soft_prompt_arguments({name: value})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"law_k": 3}, "law_k without law"),
        ({"law": "gumble"}, "law='gumble' is unknown; use one of token"),
        ({"law": 3}, "law=3 is unknown"),
        ({"law": ["gumbel"]}, "is unknown"),
        ({**LAW, "law_kk": 3}, "law.kk is no setting of gumbel; known: begin, clamp"),
        ({**LAW, "law_k": "many"}, "law.k='many' must be of type int"),
        ({**LAW, "law_seed": -1}, "law_seed=-1 must be a whole number from 0"),
        ({**LAW, "law_seed": 0.5}, "law_seed=0.5 must be"),
        ({**LAW, "law_records": 2}, "law_records=2 must be 0 or 1"),
        ({**LAW, "law_end": "</think>", "law_max_thoughts": 0}, "law.max_thoughts=0 must be"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        law_arguments(arguments)


# Made ready.


def test_a_seed_of_its_own_or_by_the_requests(model: Path) -> None:
    assert ready(model, law_seed=7).thinking.seed == 7
    assert ready(model).thinking.seed == sample_seed(3, "law/server", "", 0) != 3
    drawn = {ready(model, params=SamplingParams(max_tokens=9)).thinking.seed for _ in range(2)}
    assert len(drawn) == 2
    assert ready(model, law_seed=7).key != ready(model, law_seed=7).key


def test_the_tables_units_are_filled_in(model: Path) -> None:
    own = {"law": "soft", "law_end": [], "law_max_thoughts": 4}
    asked = law_arguments(own)
    made = pending(CONFIG, model, "chatcmpl-1", asked, SamplingParams(max_tokens=9))
    assert made.thinking.law.rms > 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"law_end": "</think>"}, "is no single token of this tokenizer"),
        ({"law_k": 100_000}, r"law.k=100000, but the model has \d+ tokens"),
        ({"params": SamplingParams(n=2)}, "n=2: send a request"),
        (
            {"params": SamplingParams(min_tokens=2, max_tokens=9)},
            "min_tokens=2 acts in the sampler",
        ),
        (
            {"params": SamplingParams(max_tokens=9, output_kind=RequestOutputKind.DELTA)},
            "a streamed answer has no field .* set law_records=0",
        ),
        ({"request_id": "cmpl-ab-0-1"}, "a completion of several prompts .* set law_records=0"),
    ],
)
def test_what_cannot_be_is_refused(model: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ready(model, **changes)


def test_without_records_an_answer_may_be_streamed(model: Path) -> None:
    params = SamplingParams(max_tokens=9, output_kind=RequestOutputKind.DELTA)
    assert not ready(model, "cmpl-ab-7", law_records=0, params=params).records
    assert ready(model, "cmpl-ab-0").records


def test_an_engine_that_cannot_think_says_so(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asynchronous scheduling among others: one line, which the server answers 400 with."""
    monkeypatch.undo()
    from rsp_rl.injection.vllm_prompt import WORKER

    config = SimpleNamespace(
        parallel_config=SimpleNamespace(worker_cls=WORKER, pipeline_parallel_size=1),
        model_config=SimpleNamespace(enable_prompt_embeds=True),
        scheduler_config=SimpleNamespace(async_scheduling=True),
    )
    asked = law_arguments(LAW)
    with pytest.raises(ConfigError, match="--no-async-scheduling") as error:
        pending(config, model, "chatcmpl-1", asked, SamplingParams(max_tokens=9))
    assert "\n" not in str(error.value)
    config.parallel_config.worker_cls = "auto"
    with pytest.raises(ConfigError, match="--worker-cls rsp_rl"):
        pending(config, model, "chatcmpl-1", asked, SamplingParams(max_tokens=9))


# The prompt.


class Engine:
    """As far as the plug-in looks at vLLM's.

    Args:
        model: What it serves.
        record: What its worker has, by key; None for nothing.
    """

    def __init__(self, model: Path, record: bytes | None = None) -> None:
        config = SimpleNamespace(
            model=str(model),
            enable_prompt_embeds=True,
            get_vocab_size=lambda: 300,
            max_model_len=64,
            get_hidden_size=lambda: 32,
            dtype=torch.float32,
        )
        self.vllm_config = SimpleNamespace(
            model_config=config,
            lora_config=None,
            parallel_config=CONFIG.parallel_config,
            additional_config=None,
        )
        self.get_tokenizer = lambda: load_tokenizer(model)
        self.called: list[tuple[str, list[int]]] = []
        self._record = record

    async def collective_rpc(self, method: str, args: tuple[list[int]]) -> list[Any]:
        self.called.append((method, *args))
        return [[self._record]]


def test_the_prompt_and_its_parameters(model: Path) -> None:
    engine, prompt = Engine(model), {"prompt_token_ids": [5, 6], "cache_salt": "mine"}
    given = SamplingParams(max_tokens=9, temperature=1.0, extra_args={**LAW, "other": 1})
    asked = law_arguments({**LAW, "law_compat": ["greedy_answer"]})
    made, params, sent = server._ready(engine, "chatcmpl-1", prompt, given, {}, asked)
    assert made["prompt_token_ids"] == [5, 6]
    assert made["prompt_embeds"][-1].tolist() == [sent.key]
    assert made["cache_salt"] == "mine"
    assert params.extra_args == {
        "other": 1,
        EXTRA_ARG: {**sent.thinking.to_dict(), "key": sent.key},
    }
    assert (params.temperature, given.temperature) == (0, 1)
    assert given.extra_args == {**LAW, "other": 1}


def test_a_soft_prompt_and_a_law_together(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_law", lambda _: (0.0, 1.0))
    engine, prompt = Engine(model), {"prompt_token_ids": [5, 6]}
    rsp = {"rsp_length": 3, "rsp_position": "prefix", "rsp_seed": 9}
    given = SamplingParams(max_tokens=9, extra_args={**LAW, **rsp})
    made, params, sent = server._ready(engine, "chatcmpl-1", prompt, given, rsp, law_arguments(LAW))
    start = made["prompt_is_token_ids"].index(False)
    record = SoftPromptRecord.from_tensor(made["prompt_embeds"][start, :-1])
    assert (record.seed, record.length, record.start) == (9, 3, start)
    assert made["prompt_embeds"][-1, -1] == sent.key
    assert params.extra_args.keys() == {EXTRA_ARG}


def test_thoughts_beyond_the_output_are_refused(model: Path) -> None:
    asked = law_arguments({**LAW, "law_max_thoughts": 9})
    given = SamplingParams(max_tokens=9, extra_args=dict(LAW))
    with pytest.raises(ConfigError, match=r"law\.max_thoughts=9 leaves no room .* max_tokens=9"):
        server._ready(Engine(model), "a", {"prompt_token_ids": [5] * 4}, given, {}, asked)


def test_thoughts_beyond_the_context_are_refused(model: Path) -> None:
    asked = law_arguments({**LAW, "law_max_thoughts": 60})
    given = SamplingParams(max_tokens=None, extra_args=dict(LAW))
    with pytest.raises(ConfigError, match=r"the prompt has 4 tokens, and law.max_thoughts=60"):
        server._ready(Engine(model), "a", {"prompt_token_ids": [5] * 4}, given, {}, asked)


# The response.


SENT = Pending(Thinking(Gumbel(k=2), Phases(max_thoughts=2), 11), 42, str, True)


def a_record() -> ThoughtRecord:
    """Of a thought, a forced token, and one that was sampled."""
    mixed = Rows.of_kind(Kind.MIX, torch.tensor([[5, 6]]), torch.tensor([[1.0, 1.0]]))
    parts = [mixed, Rows.tokens(Kind.FORCED, [9], mixed), Rows.tokens(Kind.TOKEN, [7], mixed)]
    return ThoughtRecord(SENT.thinking.law, 11, 4, concatenate(parts))


def output(token_ids: list[int], *, finished: bool = True, params: dict | None = None) -> Any:
    sample = SimpleNamespace(token_ids=token_ids)
    return SimpleNamespace(outputs=[sample], finished=finished, kv_transfer_params=params)


def test_what_a_response_says() -> None:
    made = response_field(output([5, 9]), SENT, a_record().to_bytes())
    assert made["thoughts"] == {
        "at": [0, 1],
        "kind": ["mix", "forced"],
        "ids": [[5, 6], [9]],
        "weights": [[0.5, 0.5], []],
        "texts": {"5": "5", "6": "6", "9": "9"},
    }
    assert (made["law"], made["seed"]) == ("gumbel", 11)
    again = ThoughtRecord.from_bytes(base64.b64decode(made["record"]))
    assert again.to_bytes() == a_record().cut(2).to_bytes()


@pytest.mark.parametrize(
    ("encoded", "message"),
    [
        (None, "no record of the thoughts"),
        (replace(a_record(), start=1).cut(1).to_bytes(), None),  # one token that ended it follows
        (a_record().to_bytes(), "differ at position 0"),
    ],
)
def test_a_record_of_another_output_is_none(encoded: bytes | None, message: str | None) -> None:
    if message is None:
        assert response_field(output([5, 1]), SENT, encoded)["thoughts"]["at"] == [0]
        return
    with pytest.raises(GenerationError, match=message):
        response_field(output([6, 9]), SENT, encoded)


def run(engine: Engine, outputs: list[Any], waiting: dict[str, Pending], most: int = 9) -> list:
    async def stream() -> AsyncIterator[Any]:
        for one in outputs:
            yield one

    async def collect() -> list:
        found = []
        made = with_thoughts(engine, stream(), waiting, "a")
        async for one in made:
            found.append(one)
            if len(found) == most:
                break
        await made.aclose()
        await asyncio.sleep(0)  # what is forgotten is so in a task of its own
        return found

    return asyncio.run(collect())


def test_the_last_output_has_the_thoughts(model: Path) -> None:
    engine = Engine(model, a_record().to_bytes())
    waiting = {"a": SENT, "b": SENT}
    first, last = run(
        engine, [output([5], finished=False), output([5, 9, 7], params={"kv": 1})], waiting
    )
    assert first.kv_transfer_params is None
    assert last.kv_transfer_params["kv"] == 1
    assert last.kv_transfer_params[KEY]["law"] == "gumbel"
    assert engine.called == [("take_thoughts", [42])]
    assert waiting.keys() == {"b"}


def test_what_nobody_claims_is_forgotten(model: Path) -> None:
    """A client that went away; one that asked for no records."""
    engine, waiting = Engine(model), {"a": SENT}
    run(engine, [output([5], finished=False), output([5, 9])], waiting, most=1)
    assert (engine.called, waiting) == ([("drop_thoughts", [42])], {})
    engine, waiting = Engine(model), {"a": replace(SENT, records=False)}
    (last,) = run(engine, [output([5, 9])], waiting)
    assert (engine.called, waiting) == ([("drop_thoughts", [42])], {})
    assert last.kv_transfer_params is None
    # One that was refused was never sent.
    engine = Engine(model)
    run(engine, [], {})
    assert engine.called == []


def test_where_a_response_has_its_thoughts() -> None:
    """Fails when vLLM moves the field, or fills it in another way."""
    import inspect

    from vllm.entrypoints.openai.chat_completion import serving as chat
    from vllm.entrypoints.openai.completion import serving as completion
    from vllm.outputs import RequestOutput
    from vllm.v1.engine.async_llm import AsyncLLM

    server.register()
    assert "kv_transfer_params=final_res.kv_transfer_params" in inspect.getsource(chat)
    assert "final_res_batch[0].kv_transfer_params" in inspect.getsource(completion)
    assert 'f"{request_id}-{i}"' in inspect.getsource(completion)
    assert "kv_transfer_params" in inspect.signature(RequestOutput).parameters
    names = list(inspect.signature(AsyncLLM.generate).parameters)
    assert names[:4] == ["self", "prompt", "sampling_params", "request_id"]
    assert inspect.iscoroutinefunction(AsyncLLM.collective_rpc)
