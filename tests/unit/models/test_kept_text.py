"""A tokenizer that loses text is refused before anything starts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers
from tokenizers import pre_tokenizers as pre
from tokenizers.trainers import BpeTrainer
from transformers import PreTrainedTokenizerFast, Qwen2Config

from rsp_rl.basics.errors import ConfigError
from rsp_rl.models.folder import load_tokenizer
from rsp_rl.models.kept_text import SAMPLE, check_text_is_kept
from tests.unit import templates


@pytest.mark.parametrize("family", templates.FAMILIES)
def test_well_known_families_keep_it(family: str) -> None:
    check_text_is_kept(templates.tokenizer_of(family), family)


def test_a_byte_level_tokenizer_declared_as_llamas(tmp_path: Path) -> None:
    """transformers rebuilds it as SentencePiece-like and drops every blank."""
    templates.llama_3().save_pretrained(tmp_path)
    file = tmp_path / "tokenizer_config.json"
    settings = json.loads(file.read_text())
    file.write_text(json.dumps(settings | {"tokenizer_class": "LlamaTokenizerFast"}))
    with pytest.raises(ConfigError, match=r"loses text: 'Let \$x_1.*comes back as 'Let\$x_1") as e:
        load_tokenizer(tmp_path)
    assert str(tmp_path) in str(e.value)
    # And as the message says:
    file.write_text(json.dumps(settings | {"tokenizer_class": "PreTrainedTokenizerFast"}))
    assert load_tokenizer(tmp_path).decode(load_tokenizer(tmp_path).encode("a b")[1:]) == "a b"


def test_a_tokenizer_that_is_built_anew_and_cuts_texts_otherwise(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Every text comes back, but not in the pieces that the model was trained with."""
    templates.chatml().save_pretrained(tmp_path)
    Qwen2Config().save_pretrained(tmp_path)
    assert type(load_tokenizer(tmp_path)).__name__ == "Qwen2Tokenizer"  # by the model's kind
    assert not caplog.text
    file = tmp_path / "tokenizer.json"
    state = json.loads(file.read_text())
    state["pre_tokenizer"]["pretokenizers"][0]["pattern"] = {"Regex": "."}
    file.write_text(json.dumps(state))
    load_tokenizer(tmp_path)
    assert f"Qwen2Tokenizer makes other tokens of a text than {file} says" in caplog.text
    caplog.clear()
    (tmp_path / "config.json").unlink()
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    settings["tokenizer_class"] = "PreTrainedTokenizerFast"
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    load_tokenizer(tmp_path)
    assert not caplog.text


def _trained(tokenizer: Tokenizer, unknown: str | None = None) -> PreTrainedTokenizerFast:
    trainer = BpeTrainer(
        initial_alphabet=pre.ByteLevel.alphabet(), special_tokens=[unknown] if unknown else []
    )
    tokenizer.train_from_iterator([SAMPLE] if unknown is None else ["only letters"], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token=unknown)


@pytest.mark.parametrize(
    "normalizer",
    [
        normalizers.Replace("\n", " "),  # line breaks
        normalizers.Replace("  ", " "),  # repeated blanks
        normalizers.Lowercase(),
        normalizers.Replace("\\", ""),  # LaTeX
        normalizers.Strip(),
    ],
)
def test_normalizers_that_lose_something(normalizer: normalizers.Normalizer) -> None:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    with pytest.raises(ConfigError, match="loses text"):
        check_text_is_kept(_trained(tokenizer), "it")


def test_characters_that_it_does_not_know() -> None:
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    with pytest.raises(ConfigError, match="loses text"):
        check_text_is_kept(_trained(tokenizer, "<unk>"), "it")
