"""All that is read of a model is in one folder."""

from __future__ import annotations

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from rsp_rl.basics.errors import ConfigError
from rsp_rl.training.model_sources import check_sources


def _check(folder: Path, **model: str | None) -> None:
    settings = {"path": str(folder), **model}
    check_sources(OmegaConf.create({"actor_rollout_ref": {"model": settings}}), folder)


def test_the_models_own(tmp_path: Path) -> None:
    _check(tmp_path)
    _check(tmp_path, tokenizer_path=None, hf_config_path=str(tmp_path / "."))
    _check(tmp_path, custom_chat_template="x")


@pytest.mark.parametrize("name", ["tokenizer_path", "hf_config_path"])
def test_another_folders(name: str, tmp_path: Path) -> None:
    """vLLM would stop at the tokens, and read the numbers, of the model's own."""
    with pytest.raises(ConfigError, match=rf"model\.{name}=/other: .*copy of the model's folder"):
        _check(tmp_path, **{name: "/other"})


@pytest.mark.parametrize("name", ["processor_config.json", "preprocessor_config.json"])
def test_a_template_that_verl_gives_to_the_processor_alone(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("{}")
    _check(tmp_path)
    with pytest.raises(ConfigError, match=rf"custom_chat_template .*{name}"):
        _check(tmp_path, custom_chat_template="x")
