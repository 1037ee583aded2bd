"""Models and benchmarks that soft prompts cannot work on: one clear error each, no traceback."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM

from rsp_rl.basics.errors import ConfigError
from rsp_rl.cli import main
from rsp_rl.inference.generator import Generator
from rsp_rl.inference.model_law import model_law
from rsp_rl.inference.requests import EngineOptions
from rsp_rl.models.folder import load_tokenizer
from tests.digit_model import make_digit_model
from tests.projected_model import make_projected_model

HUGGING_FACE = EngineOptions("huggingface", "float32", max_num_seqs=8)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_digit_model(tmp_path_factory.mktemp("model") / "tiny")


def generate(model: Path, tmp_path: Path, *arguments: str) -> int:
    command = ["generate", "--model", str(model), "--engine", "huggingface", "--rsp.length", "4"]
    return main([*command, "--output", str(tmp_path / "out"), "--max-tokens", "4", *arguments])


def test_an_embedding_table_of_another_width_than_the_draw(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_projected_model(tmp_path / "opt", load_tokenizer(model))
    assert generate(folder, tmp_path, "--benchmark", "arithmetic", "--template", "raw") == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith(f"error: {folder}: its embedding table is 16 wide, the hidden states")
    with (
        Generator(str(folder), template="raw", options=HUGGING_FACE) as generator,
        pytest.raises(ConfigError, match="16 wide"),
    ):
        generator.generate("1+1", length=4)


def test_a_question_with_tokens_that_the_model_does_not_have(model: Path, tmp_path: Path) -> None:
    """To look one up kills an engine."""
    folder = shutil.copytree(model, tmp_path / "model")
    tokenizer = load_tokenizer(folder)
    tokenizer.add_tokens(["<new>"])
    tokenizer.save_pretrained(folder)
    with (
        Generator(str(folder), template="raw", options=HUGGING_FACE) as generator,
        pytest.raises(ConfigError, match="the prompt holds '<new>'"),
    ):
        generator.generate("1<new>1")


def test_a_folder_without_an_embedding_table(model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "damaged"
    folder.mkdir()
    (folder / "config.json").write_text((model / "config.json").read_text())
    (folder / "model.safetensors").write_bytes(b"\0" * 16)
    with pytest.raises(ConfigError, match="not a whole safetensors file"):
        model_law(folder)


def test_an_empty_benchmark(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "gsm8k").mkdir()
    (tmp_path / "gsm8k" / "test.jsonl").write_text("")
    asked = ("--benchmark", "gsm8k", "--template", "raw", "--data-dir", str(tmp_path))
    assert generate(model, tmp_path, *asked) == 1
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert len(errors) == 1
    assert "test.jsonl holds 0 problems, gsm8k has 1319; get the whole file" in errors[0]


def test_a_tokenizer_without_a_chat_template(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "base"
    tokenizer = load_tokenizer(model)
    tokenizer.chat_template = None
    AutoModelForCausalLM.from_pretrained(model).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    asked = ("--benchmark", "arithmetic", "--limit", "2", "--template")
    assert generate(folder, tmp_path, *asked, "chat") == 1
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert len(errors) == 1
    assert "the tokenizer has no chat template; use" in errors[0]
    assert generate(folder, tmp_path, *asked, "raw") == 0


def test_more_samples_than_seeds(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Greedy samples differ by their draws alone; and no analysis makes up what is not there."""
    asked = ("--benchmark", "arithmetic", "--limit", "2", "--template", "plain-chat")
    assert generate(model, tmp_path, *asked, "--samples", "3", "--rsp.mode", "shared") == 1
    assert "3 greedy samples of a problem are all the same" in capsys.readouterr().err
    assert generate(model, tmp_path, *asked, "--samples", "2") == 0
    (folder,) = (tmp_path / "out").iterdir()
    for name in ("first-token", "distributions", "attention"):
        arguments = ["analyze", name, str(folder), "--samples", "3", "--output", str(tmp_path)]
        assert main(arguments) == 1
        assert f"--samples 3: {folder}" in capsys.readouterr().err


def test_one_token_for_padding_end_of_turn_and_end_of_text(tmp_path: Path) -> None:
    """Not bad: placeholders are told by where they are, not by their token; tied tables neither."""
    folder = make_digit_model(tmp_path / "tied", tie_word_embeddings=True)
    file = folder / "tokenizer_config.json"
    settings = json.loads(file.read_text())
    end = settings["eos_token"]
    file.write_text(json.dumps(settings | {"pad_token": end}))
    assert load_tokenizer(folder).pad_token == end
    with Generator(str(folder), template="plain-chat", options=HUGGING_FACE) as generator:
        plain = generator.generate("3+4-2", max_tokens=12)[0].text
        drawn = {
            sample.text
            for sample in generator.generate("3+4-2", samples=6, length=4, max_tokens=12)
        }
        assert len(drawn) > 1
        assert generator.generate("3+4-2", max_tokens=12)[0].text == plain
