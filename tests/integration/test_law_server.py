"""vLLM's own server with a law in a request: text and records, plain requests beside."""

from __future__ import annotations

import base64
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import openai
import pytest
import torch

from rsp_rl.inference.generator import Generator
from rsp_rl.inference.prompts import sample_seed
from rsp_rl.inference.requests import EngineOptions
from rsp_rl.injection.vllm_prompt import WORKER
from rsp_rl.thoughts.record import ThoughtRecord
from tests.digit_model import make_digit_model
from tests.waiting import until

QUESTION, SERVED, SEED = "Compute 9+9-1+5.", "tiny", 5
SETTINGS = {"k": 4, "temperature": 2.0, "end": [], "max_thoughts": 6}
LAW = {"law": "gumbel", **{f"law_{key}": value for key, value in SETTINGS.items()}}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_digit_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def reference(model: Path) -> Iterator[Generator]:
    options = EngineOptions("huggingface", "float32")
    with Generator(str(model), template="plain-chat", options=options, thoughts=True) as generator:
        yield generator


@pytest.fixture(scope="module")
def server(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[openai.OpenAI]:
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("server") / "log"
    command = [Path(sys.executable).with_name("vllm"), "serve", model, "--host", "127.0.0.1"]
    command += ["--port", port, "--served-model-name", SERVED, "--enable-prompt-embeds"]
    command += ["--worker-cls", WORKER, "--no-async-scheduling", "--dtype", "float32"]
    command += ["--enforce-eager", "--max-num-seqs", "8"]
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [str(part) for part in command],
            stdout=stream,
            stderr=subprocess.STDOUT,
            env={**os.environ, "VLLM_CPU_KVCACHE_SPACE": "1"},
        )

    def healthy() -> bool:
        assert process.poll() is None, log.read_text()[-3000:]
        with suppress(OSError), urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
            return True
        return False

    try:
        until(healthy)
        yield openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none")
    finally:
        process.terminate()
        process.wait(timeout=60)


def ask(server: openai.OpenAI, **arguments: Any) -> Any:
    more = {name: arguments.pop(name) for name in ("stream", "seed") if name in arguments}
    return server.chat.completions.create(
        model=SERVED,
        messages=[{"role": "user", "content": QUESTION}],
        temperature=0,
        max_tokens=24,
        extra_body={"vllm_xargs": arguments} if arguments else None,
        **more,
    )


def text(answer: Any) -> str:
    return answer.choices[0].message.content


def thoughts(answer: Any) -> dict[str, Any]:
    return answer.kv_transfer_params["rsp_thoughts"]


@pytest.mark.parametrize("rsp_length", [0, 8])
def test_text_and_records_of_the_reference(
    server: openai.OpenAI, reference: Generator, rsp_length: int
) -> None:
    (expected,) = reference.generate(
        QUESTION,
        length=rsp_length,
        max_tokens=24,
        seed=SEED,
        law="gumbel",
        law_settings=SETTINGS,
    )
    rsp = {}
    if rsp_length:
        draw = sample_seed(SEED, "rsp/question", QUESTION, 0)
        rsp = {"rsp_length": rsp_length, "rsp_position": "suffix", "rsp_seed": draw}
    noise = sample_seed(SEED, "law/question", QUESTION, 0)
    answer = ask(server, **LAW, law_seed=noise, **rsp)
    assert text(answer) == expected.text
    found = thoughts(answer)
    record = ThoughtRecord.from_bytes(base64.b64decode(found["record"]))
    theirs = expected.thoughts
    assert (record.law, record.seed, record.start) == (theirs.law, theirs.seed, theirs.start)
    assert torch.equal(record.rows.kind_N, theirs.rows.kind_N)
    assert torch.equal(record.rows.ids_NK, theirs.rows.ids_NK)
    torch.testing.assert_close(record.rows.values_NK, theirs.rows.values_NK, rtol=0, atol=1e-3)
    assert found["thoughts"]["at"] == list(range(len(found["thoughts"]["at"])))


def test_plain_requests_beside_thinking_ones(server: openai.OpenAI, reference: Generator) -> None:
    (plain,) = reference.generate(QUESTION, max_tokens=24)
    with ThreadPoolExecutor(6) as threads:
        asked = [{**LAW, "law_seed": seed} if seed % 2 else {} for seed in range(6)]
        answers = list(threads.map(lambda given: ask(server, **given), asked))
    for given, answer in zip(asked, answers, strict=True):
        if given:
            assert thoughts(answer)["seed"] == given["law_seed"]
        else:
            assert answer.kv_transfer_params is None
            assert text(answer) == plain.text
    again = ask(server, **asked[1])
    assert (text(again), thoughts(again)) == (text(answers[1]), thoughts(answers[1]))
    # By the request's own seed; without one, anew every time.
    assert (
        thoughts(ask(server, seed=3, **LAW))["seed"] == thoughts(ask(server, seed=3, **LAW))["seed"]
    )
    assert thoughts(ask(server, **LAW))["seed"] != thoughts(ask(server, **LAW))["seed"]


def test_a_streamed_answer_goes_without_records(server: openai.OpenAI) -> None:
    whole = ask(server, **LAW, law_seed=1)
    parts = ask(server, **LAW, law_seed=1, law_records=0, stream=True)
    assert "".join(part.choices[0].delta.content or "" for part in parts) == text(whole)
    # vLLM has begun to answer by then.
    with pytest.raises(openai.APIError, match="law_records=0"):
        list(ask(server, **LAW, stream=True))
    # A client that goes away, and a server that lives on.
    for _ in ask(server, **LAW, law_records=0, stream=True):
        break
    assert text(ask(server, **LAW, law_seed=1)) == text(whole)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"law_k": 3}, "law_k without law"),
        ({**LAW, "law_kk": 3}, "law.kk is no setting of gumbel"),
        ({**LAW, "law_end": "</think>"}, "no single token"),
        ({**LAW, "law_max_thoughts": 24}, "leaves no room for an answer"),
        ({**LAW, "law_k": 100_000}, "law.k=100000"),
    ],
)
def test_what_cannot_be_is_answered_400(
    server: openai.OpenAI, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(openai.BadRequestError, match=message):
        ask(server, **arguments)
