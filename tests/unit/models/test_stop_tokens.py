"""Rollouts stop at the end of a turn, by vLLM's own reading of the generation config."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save_file
from transformers import PreTrainedTokenizerFast, Qwen2Config

from rsp_rl.basics.errors import ConfigError
from rsp_rl.data.templates import get_template
from rsp_rl.models.stop_tokens import (
    known_stop_tokens,
    missing_stop_token,
    stop_token_of,
    write_generation_config,
)
from rsp_rl.training.configs import compose_config
from rsp_rl.training.preparation import prepare
from tests.unit import templates


def _base_tokenizer() -> PreTrainedTokenizerFast:
    """As Qwen2.5's base models have it: ChatML, but the end of a text is `<|endoftext|>`."""
    tokenizer = templates.chatml()
    tokenizer.eos_token = "<|endoftext|>"
    return tokenizer


def _model(folder: Path, eos: object) -> Path:
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": eos}))
    return folder


def test_a_base_model_under_a_chat_template_lacks_the_end_of_turn(tmp_path: Path) -> None:
    tokenizer = _base_tokenizer()
    end_of_turn = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert tokenizer.eos_token_id != end_of_turn
    assert missing_stop_token(tmp_path, tokenizer) == end_of_turn  # no generation config at all
    assert missing_stop_token(_model(tmp_path, tokenizer.eos_token_id), tokenizer) == end_of_turn


def test_nothing_lacks_where_model_or_tokenizer_name_it(tmp_path: Path) -> None:
    base = _base_tokenizer()
    end_of_turn = base.convert_tokens_to_ids("<|im_end|>")
    assert missing_stop_token(_model(tmp_path, [0, end_of_turn]), base) is None
    instruct = templates.chatml()
    instruct.eos_token = "<|im_end|>"
    assert missing_stop_token(_model(tmp_path, 0), instruct) is None


def test_a_template_without_end_of_turn_asks_for_none(tmp_path: Path) -> None:
    tokenizer = _base_tokenizer()
    tokenizer.chat_template = templates.NO_END_OF_TURN
    assert missing_stop_token(tmp_path, tokenizer) is None


def test_the_runs_own_template_arguments_count(tmp_path: Path) -> None:
    """A template may refuse to be used without one."""
    tokenizer = _base_tokenizer()
    tokenizer.chat_template = (
        "{% if not mode %}{{ raise_exception('mode!') }}{% endif %}" + templates.CHATML
    )
    model = _model(tmp_path, 7)
    assert missing_stop_token(model, tokenizer) is None
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert missing_stop_token(model, tokenizer, mode="m") == end


def test_a_list_of_stop_tokens_is_left_as_it_is(tmp_path: Path) -> None:
    """gpt-oss's: what closes a part of the answer closes a turn too, and is not in its list."""
    base = _base_tokenizer()
    end = base.convert_tokens_to_ids("<|im_end|>")
    assert missing_stop_token(_model(tmp_path, [7, 9]), base) is None
    for template in ("chat", "qwen-boxed"):
        assert stop_token_of(get_template(template), base, tmp_path) is None
        assert stop_token_of(get_template(template), base, None) == end
        for one in (7, [7], None):
            assert stop_token_of(get_template(template), base, _model(tmp_path, one)) == end
        _model(tmp_path, [7, 9])


def test_without_a_generation_config_the_models_config_counts(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"eos_token_id": [7, 9]}))
    base = _base_tokenizer()
    assert known_stop_tokens(tmp_path, base) == {7, 9, base.eos_token_id}
    assert missing_stop_token(tmp_path, base) is None
    (tmp_path / "config.json").write_text("[")
    with pytest.raises(ConfigError, match=r"config\.json is no readable config"):
        known_stop_tokens(tmp_path, base)


@pytest.mark.parametrize("named", ["7", "<|im_end|>", True, 7.0, [7, "9"], [[7]], {"a": 7}])
def test_what_is_no_token_is_no_stop_token(tmp_path: Path, named: Any) -> None:
    """A token's text, say: no engine would stop at it."""
    with pytest.raises(
        ConfigError, match=r"generation_config\.json: eos_token_id=.* must be the n"
    ):
        known_stop_tokens(_model(tmp_path, named), _base_tokenizer())


@pytest.mark.parametrize("turn_end", ["[/I]", "<|think|>"])
def test_no_word_becomes_a_stop_token(turn_end: str) -> None:
    """What closes the user's turn may be text, or occur in any answer."""
    base = _base_tokenizer()
    base.chat_template = (
        "{% for m in messages %}{{ m.content + (' TURN' if m.role == 'user' else eos_token) }}"
        "{% endfor %}"
    ).replace("TURN", turn_end)
    assert get_template("chat").end_of_turn(base) == base.eos_token_id


@pytest.mark.parametrize("named", [7, [7]])
def test_vllm_stops_at_the_written_tokens(tmp_path: Path, named: int | list[int]) -> None:
    """Folder to request, through the functions with which vLLM's input processor does it."""
    from vllm import SamplingParams
    from vllm.transformers_utils.config import try_get_generation_config

    tokenizer = _base_tokenizer()
    end_of_turn = missing_stop_token(_model(tmp_path, named), tokenizer)
    assert end_of_turn is not None
    folder = tmp_path / "generation_config"
    write_generation_config(folder, tmp_path, tokenizer, end_of_turn)
    read = try_get_generation_config(str(folder), trust_remote_code=False)
    request = SamplingParams(temperature=1.0, top_k=50)
    request.update_from_generation_config(read.to_diff_dict(), tokenizer.eos_token_id)
    stops = {*(named if isinstance(named, list) else [named]), end_of_turn}
    assert set(request.stop_token_ids) == stops
    assert (request.temperature, request.top_k) == (1.0, 50)


@pytest.mark.parametrize("end", ["<|endoftext|>", "<|im_end|>"])
@pytest.mark.parametrize("config_name", ["dapo", "dapo_rsp"])
def test_a_run_gets_the_stop_tokens_that_its_model_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config_name: str, end: str
) -> None:
    """With and without RSP alike, and only where one is missing."""
    for name in ("VERL_FILE_LOGGER_PATH", "TENSORBOARD_DIR"):  # prepare sets them
        monkeypatch.setenv(name, "")
    model = tmp_path / "model"
    tokenizer = templates.chatml()
    tokenizer.eos_token = end
    tokenizer.save_pretrained(model)
    Qwen2Config(
        hidden_size=16, num_attention_heads=2, max_position_embeddings=4096
    ).save_pretrained(model)
    save_file({"model.embed_tokens.weight": torch.ones(9, 16)}, model / "model.safetensors")
    row = {
        "data_source": "math",
        "prompt": [{"role": "user", "content": "2+2?"}],
        "reward_model": {"style": "rule", "ground_truth": "4"},
    }
    pq.write_table(pa.Table.from_pylist([row] * 1024), tmp_path / "data.parquet")
    run = tmp_path / "run"
    overrides = [
        "+machine=gpu",
        "ray_kwargs.ray_init.num_cpus=64",
        f"run_dir={run}",
        f"actor_rollout_ref.model.path={model}",
        f"data.train_files={tmp_path / 'data.parquet'}",
        f"data.val_files={tmp_path / 'data.parquet'}",
    ]
    config = compose_config(config_name, overrides)
    prepare(config)
    vllm = config.actor_rollout_ref.rollout.engine_kwargs.vllm
    if end == "<|im_end|>":
        assert "generation_config" not in vllm
        return
    written = json.loads((Path(vllm.generation_config) / "generation_config.json").read_text())
    ends = tokenizer.convert_tokens_to_ids(["<|endoftext|>", "<|im_end|>"])
    assert written["eos_token_id"] == sorted(ends)
