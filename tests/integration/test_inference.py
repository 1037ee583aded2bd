"""Generation with soft prompts: vLLM against Hugging Face, the console command, vLLM's server."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import openai
import pytest

from rsp_rl.cli import main
from rsp_rl.data.templates import TEMPLATES
from rsp_rl.evaluation.folder import EvaluationFolder
from rsp_rl.inference.generator import Generator
from rsp_rl.inference.requests import EngineOptions
from rsp_rl.placement.prompt import POSITIONS
from tests.digit_model import make_digit_model

QUESTIONS = ("3+4-2", "Compute 9+9-1+5.", "8-3\nand then some more of it: 2+2")
SERVED = "tiny"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One whose greedy text a soft prompt changes."""
    return make_digit_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def generators(model: Path) -> Iterator[dict[str, Generator]]:
    """The two engines on the tiny model, fp32."""
    made = {
        kind: Generator(str(model), options=EngineOptions(kind, "float32", max_num_seqs=16))
        for kind in ("vllm", "huggingface")
    }
    yield made
    for generator in made.values():
        generator.close()


@pytest.mark.parametrize("template", sorted(TEMPLATES))
def test_engines_give_the_same_greedy_text(
    generators: dict[str, Generator], template: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts: dict[str, list[str]] = {}
    for kind, generator in generators.items():
        monkeypatch.setattr(generator, "_template", TEMPLATES[template])
        texts[kind] = [
            completion.text
            for position in POSITIONS
            for question in QUESTIONS
            for completion in generator.generate(
                question, samples=2, length=8, position=position, max_tokens=24
            )
        ]
    assert texts["vllm"] == texts["huggingface"]
    assert len(set(texts["vllm"])) > 3


@pytest.mark.parametrize("kind", ["vllm", "huggingface"])
def test_draws_are_independent_or_shared(generators: dict[str, Generator], kind: str) -> None:
    generator = generators[kind]

    def texts(**changes: object) -> list[str]:
        samples = generator.generate(QUESTIONS[1], samples=8, length=8, max_tokens=24, **changes)
        return [sample.text for sample in samples]

    assert len(set(texts(mode="shared"))) == 1
    assert len(set(texts())) > 1
    assert texts(temperature=1.0, seed=1) == texts(temperature=1.0, seed=1)
    assert texts(temperature=1.0, seed=1) != texts(temperature=1.0, seed=2)


def test_command(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two lengths on the reference engine: samples, metrics, a report each, and a choice."""
    arguments = ["generate", "--model", str(model), "--benchmark", "arithmetic", "--limit"]
    arguments += ["5", "--template", "plain-chat", "--samples", "3", "--rsp.length", "4,8"]
    arguments += ["--max-tokens", "40", "--engine", "huggingface", "--output", str(tmp_path)]
    assert main(arguments) == 0
    assert set(json.loads((tmp_path / "lengths.json").read_text())) == {"arithmetic"}
    assert "problems that did not choose it" in capsys.readouterr().out
    _, second = sorted(tmp_path.glob("huggingface-suffix*"))
    folder = EvaluationFolder(second)
    lines = folder.step(0).samples("arithmetic").read_text().splitlines()
    assert len(lines) == 15
    assert folder.report.is_file()
    how = json.loads(folder.step(0).manifest.read_text())
    assert how["engine"]["kind"] == "huggingface"
    assert how["protocol"]["rsp"]["length"] == 8


@pytest.fixture(scope="module")
def server(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[openai.OpenAI]:
    """`vllm serve`, as a user starts it; the plug-in comes by its entry point."""
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("server") / "log"
    command = [Path(sys.executable).with_name("vllm"), "serve", model, "--host", "127.0.0.1"]
    command += ["--port", str(port), "--served-model-name", SERVED, "--enable-prompt-embeds"]
    command += ["--dtype", "float32", "--enforce-eager", "--max-num-seqs", "8"]
    with log.open("wb") as stream:
        process = subprocess.Popen(
            list(map(str, command)), stdout=stream, stderr=subprocess.STDOUT, env=os.environ.copy()
        )
    try:
        _wait_for(f"http://127.0.0.1:{port}/health", process, log)
        yield openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none")
    finally:
        process.terminate()
        process.wait(timeout=60)


def _wait_for(url: str, process: subprocess.Popen, log: Path) -> None:
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and process.poll() is None:
        with suppress(OSError), urllib.request.urlopen(url, timeout=5):
            return
        time.sleep(0.5)
    pytest.fail(f"the server did not start:\n{log.read_text()[-3000:]}")


def _ask(server: openai.OpenAI, **soft_prompt: object) -> str:
    answer = server.chat.completions.create(
        model=SERVED,
        messages=[{"role": "user", "content": QUESTIONS[1]}],
        temperature=0,
        max_tokens=24,
        extra_body={"vllm_xargs": soft_prompt} if soft_prompt else None,
    )
    return answer.choices[0].message.content


@pytest.mark.parametrize("position", POSITIONS)
def test_server_gives_the_text_of_the_reference(
    server: openai.OpenAI,
    generators: dict[str, Generator],
    position: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from rsp_rl.inference.prompts import sample_seed

    reference = generators["huggingface"]
    monkeypatch.setattr(reference, "_template", TEMPLATES["plain-chat"])
    (expected,) = reference.generate(
        QUESTIONS[1], length=8, position=position, max_tokens=24, seed=5
    )
    draw = sample_seed(5, "rsp/question", QUESTIONS[1], 0)
    assert _ask(server, rsp_length=8, rsp_position=position, rsp_seed=draw) == expected.text


def test_server_without_soft_prompts_is_as_before(
    server: openai.OpenAI, generators: dict[str, Generator], monkeypatch: pytest.MonkeyPatch
) -> None:
    reference = generators["huggingface"]
    monkeypatch.setattr(reference, "_template", TEMPLATES["plain-chat"])
    (plain,) = reference.generate(QUESTIONS[1], max_tokens=24)
    assert _ask(server) == plain.text
    texts = {_ask(server, rsp_length=8, rsp_seed=seed) for seed in range(6)}
    assert len(texts) > 1
    assert _ask(server) == plain.text


def test_server_refuses_what_it_does_not_know(server: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="unknown extra argument rsp_lenght"):
        _ask(server, rsp_lenght=8)
    with pytest.raises(openai.BadRequestError, match="leaves no room"):
        _ask(server, rsp_length=100_000)
    with pytest.raises(openai.BadRequestError, match="rsp_seed=-1 must be a whole number"):
        _ask(server, rsp_length=8, rsp_seed=-1)
    assert _ask(server)  # and lives on
