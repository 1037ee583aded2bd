"""Rollouts stop at the end of a turn, by vLLM's own reading of the generation config."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from rsp_rl.stop_tokens import missing_stop_token, write_generation_config
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


@pytest.mark.parametrize("named", [7, [7, 9]])
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
