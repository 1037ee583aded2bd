"""What the server's plug-in takes for a request with a soft prompt."""

from __future__ import annotations

import asyncio
import json
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from transformers import LlamaConfig, Qwen2Config

from rsp_rl.basics.errors import ConfigError, PlacementError
from rsp_rl.draws.record import EXTRA_ARG, SoftPromptRecord
from rsp_rl.inference import server
from rsp_rl.inference.server import register, soft_prompt_arguments
from rsp_rl.inference.vllm_renderer import CHAT, SoftPromptRenderer
from rsp_rl.placement.chat import place_in_chat
from rsp_rl.placement.prompt import POSITIONS, PlacedPrompt
from tests.unit import templates
from tests.unit.placement.test_turn_ends import (
    ARGUMENTS,
    CONVERSATIONS,
    HEADERS,
    OPENED_ONLY,
    WORD,
)


def test_only_its_own_arguments_are_read() -> None:
    assert soft_prompt_arguments(None) == {}
    assert soft_prompt_arguments({"kv_transfer_params": {}, EXTRA_ARG: {"seed": 1}}) == {}
    asked = {"rsp_length": 20, "rsp_seed": 7}
    assert soft_prompt_arguments({**asked, "other": 1}) == asked


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rsp_lenght": 20}, "unknown extra argument rsp_lenght"),
        ({"rsp_position": "suffix"}, "without rsp_length"),
    ],
)
def test_bad_arguments(arguments: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        soft_prompt_arguments(arguments)


def test_patched_method_is_where_it_was() -> None:
    """Fails when vLLM moves or renames what the plug-in wraps."""
    import inspect

    from vllm.v1.engine.async_llm import AsyncLLM

    register()
    once = AsyncLLM.add_request
    register()
    assert AsyncLLM.add_request is once
    names = list(inspect.signature(once).parameters)
    assert names[:4] == ["self", "request_id", "prompt", "params"]
    generate = inspect.getsource(AsyncLLM.generate)
    assert "self.add_request(" in generate


# Where a soft prompt goes. vLLM's own renderer makes the prompts; there is no engine.

LAW = (0.0, 1.0)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    Qwen2Config(
        vocab_size=800, hidden_size=16, num_attention_heads=2, num_key_value_heads=2
    ).save_pretrained(folder)
    templates.chatml().save_pretrained(folder)
    return folder


def _renderer(model: Path) -> SoftPromptRenderer:
    """What vLLM would make for a server of this model."""
    from vllm.config import ModelConfig
    from vllm.renderers.registry import renderer_from_config

    register()
    config = ModelConfig(
        model=str(model), enable_prompt_embeds=True, dtype="float32", max_model_len=512
    )
    ranks = SimpleNamespace(_api_process_rank=0)
    made = renderer_from_config(SimpleNamespace(model_config=config, parallel_config=ranks))
    assert isinstance(made, SoftPromptRenderer)
    return made


@pytest.fixture(scope="module")
def engine(model: Path) -> SimpleNamespace:
    """As far as the plug-in looks at vLLM's."""
    renderer = _renderer(model)
    return SimpleNamespace(
        vllm_config=SimpleNamespace(model_config=renderer.model_config, lora_config=None),
        get_tokenizer=renderer.get_tokenizer,
        renderer=renderer,
    )


def _chat(engine: SimpleNamespace, messages: list[dict], **arguments: Any) -> dict:
    from vllm.renderers.params import ChatParams

    arguments = {"add_generation_prompt": True, **arguments}
    params = ChatParams(
        chat_template=arguments.pop("chat_template", None), chat_template_kwargs=arguments
    )
    _, (prompt,) = asyncio.run(engine.renderer.render_chat_async([messages], params))
    _, (same,) = engine.renderer.render_chat([messages], params)
    assert (prompt["prompt_token_ids"], prompt[CHAT]) == (same["prompt_token_ids"], same[CHAT])
    return prompt


def _as_placed(token_ids: list[int], record: SoftPromptRecord) -> PlacedPrompt:
    return PlacedPrompt(token_ids, record.start, record.length)


def _place(
    engine: SimpleNamespace, prompt: dict, monkeypatch: pytest.MonkeyPatch, **asked: Any
) -> PlacedPrompt:
    """What the plug-in makes of a prompt."""
    from rsp_rl.injection import vllm_prompt

    monkeypatch.setattr(server, "_law", lambda _: LAW)
    monkeypatch.setattr(vllm_prompt, "prompt_maker", lambda _: _as_placed)
    return server._mixed(engine, prompt, {"rsp_length": 5, **asked})


@pytest.mark.parametrize("arguments", ARGUMENTS)
@pytest.mark.parametrize("conversation", CONVERSATIONS)
def test_a_chat_gets_its_soft_prompt_where_training_puts_it(
    engine: SimpleNamespace,
    monkeypatch: pytest.MonkeyPatch,
    conversation: str,
    arguments: str,
) -> None:
    """Also where the prompt does not end as the template's default does."""
    messages, kwargs = CONVERSATIONS[conversation], ARGUMENTS[arguments]
    tokenizer = templates.tokenizer_of("chatml")
    prompt = _chat(engine, messages, **kwargs)
    for position in POSITIONS:
        try:
            expected = place_in_chat(tokenizer, messages, 5, position, **kwargs)
        except PlacementError:  # the user's own turn is to go on
            assert arguments == "continued"
            with pytest.raises(PlacementError, match="no end-of-turn token"):
                _place(engine, prompt, monkeypatch, rsp_position=position)
        else:
            assert _place(engine, prompt, monkeypatch, rsp_position=position) == expected


@pytest.mark.parametrize("conversation", ["question", "three turns", "prefill"])
@pytest.mark.parametrize("template", [OPENED_ONLY, HEADERS, WORD, templates.GAP])
def test_a_template_of_the_servers_own(
    engine: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, template: str, conversation: str
) -> None:
    """`--chat-template`: its turns are closed by text, to this tokenizer."""
    messages = CONVERSATIONS[conversation]
    placed = _place(engine, _chat(engine, messages, chat_template=template), monkeypatch)
    tokenizer = templates.tokenizer_of("chatml")
    assert placed == place_in_chat(tokenizer, messages, 5, "suffix", chat_template=template)
    before = tokenizer.decode(placed.token_ids[: placed.start])
    assert before.rstrip().endswith([m["content"] for m in messages if m["role"] == "user"][-1])


def test_parts_of_text_are_text(engine: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}]
    plain = [{"role": "user", "content": "Hi"}]
    placed = _place(engine, _chat(engine, parts), monkeypatch)
    assert placed == _place(engine, _chat(engine, plain), monkeypatch)


def test_a_developer_is_the_system_to_templates_that_know_none(
    engine: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    question = CONVERSATIONS["question"]
    told, system = (
        [{"role": role, "content": "Be brief."}, *question] for role in ("developer", "system")
    )
    placed = _place(engine, _chat(engine, told), monkeypatch)
    assert placed == place_in_chat(templates.tokenizer_of("chatml"), system, 5)


@pytest.mark.parametrize(
    "more",
    [
        {"type": "multimodal", "mm_kwargs": {}},
        {"type": "embeds", "prompt_embeds": 0},
        {"multi_modal_data": {"image": 0}},
    ],
)
def test_what_a_prompt_holds_beside_its_tokens_is_not_dropped(
    more: dict, engine: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match="without images or embeddings"):
        _place(engine, {"prompt_token_ids": [5], **more}, monkeypatch)


def test_clients_prefix_caches_are_kept_apart(
    engine: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rsp_rl.injection import vllm_prompt

    monkeypatch.setattr(server, "_law", lambda _: LAW)
    monkeypatch.setattr(vllm_prompt, "prompt_maker", lambda _: lambda ids, _: {"ids": ids})
    for salt in ({}, {"cache_salt": "mine"}):
        made = server._mixed(engine, {"prompt_token_ids": [5], **salt}, {"rsp_length": 5})
        assert made == {"ids": made["ids"], **salt}


def test_tokens_of_a_chat_that_ends_otherwise_are_refused(
    engine: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a client sends them that renders chats by itself."""
    for arguments in ({}, {"enable_thinking": False}):
        prompt = _chat(engine, CONVERSATIONS["question"], **arguments)
        tokens = {"prompt_token_ids": prompt["prompt_token_ids"]}
        if not arguments:
            assert _place(engine, tokens, monkeypatch) == _place(engine, prompt, monkeypatch)
            continue
        with pytest.raises(PlacementError, match=r"cannot be told .* /v1/chat/completions"):
            _place(engine, tokens, monkeypatch)


def test_a_token_that_the_model_does_not_have_is_refused(
    engine: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """vLLM adds one to the tokenizer; typed into a completion it would kill the worker."""
    tokens = engine.get_tokenizer().encode("a <prompt_embeds>")
    model = engine.vllm_config.model_config
    monkeypatch.setattr(type(model), "get_vocab_size", lambda _: max(tokens))
    with pytest.raises(ConfigError, match=rf"prompt holds '<prompt_embeds>', token {max(tokens)}"):
        _place(engine, {"prompt_token_ids": tokens}, monkeypatch)


def test_tokens_without_a_text_are_kept_out_as_in_training(
    engine: SimpleNamespace, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of them: vLLM's own tokenizer has one more, and would let the first be sampled."""
    from vllm import SamplingParams

    monkeypatch.setattr(server, "check_model", lambda _: Qwen2Config(vocab_size=800))
    server._suppressed.cache_clear()
    known = len(templates.tokenizer_of("chatml"))
    assert engine.get_tokenizer().encode("<prompt_embeds>") == [known]
    asked = {"rsp_length": 0}
    given = SamplingParams(extra_args={"other": 1, **asked}, logit_bias={5: 1.0})
    params = server._sampling(engine, given, asked)
    assert params.logit_bias == {5: 1.0} | dict.fromkeys(range(known, 800), -100.0)
    assert (params.extra_args, given.logit_bias) == ({"other": 1}, {5: 1.0})


def test_what_vllm_cannot_have_with_soft_prompts_is_refused(
    engine: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each would kill the engine, or end in a traceback."""
    config = SimpleNamespace(**vars(engine.vllm_config) | {"lora_config": object()})
    adapted = SimpleNamespace(**vars(engine) | {"vllm_config": config})
    prompt = {"prompt_token_ids": [5]}
    assert _place(adapted, prompt, monkeypatch).start == 1  # Qwen2's embedding is not wrapped
    monkeypatch.setattr(config.model_config.hf_config, "architectures", ["LlamaForCausalLM"])
    with pytest.raises(ConfigError, match=r"#51122.*start the server without --enable-lora"):
        _place(adapted, prompt, monkeypatch)
    mistral = SimpleNamespace(**vars(engine) | {"get_tokenizer": lambda: object()})
    with pytest.raises(ConfigError, match="has a object; start it with --tokenizer-mode hf"):
        _place(mistral, prompt, monkeypatch)


def test_a_prompt_that_was_cut_is_refused(
    engine: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompt = _chat(engine, CONVERSATIONS["question"])
    cut = {**prompt, "prompt_token_ids": prompt["prompt_token_ids"][5:]}
    with pytest.raises(PlacementError, match="makes other tokens of the messages"):
        _place(engine, cut, monkeypatch)


def test_a_server_whose_tokenizer_loses_text_does_not_start(tmp_path: Path) -> None:
    LlamaConfig(
        vocab_size=800, hidden_size=16, num_attention_heads=2, architectures=["LlamaForCausalLM"]
    ).save_pretrained(tmp_path)
    templates.llama_3().save_pretrained(tmp_path)
    file = tmp_path / "tokenizer_config.json"
    settings = json.loads(file.read_text()) | {"tokenizer_class": "LlamaTokenizerFast"}
    file.write_text(json.dumps(settings))
    with pytest.raises(ConfigError, match=rf"{tmp_path}, .*loses text"):
        _renderer(tmp_path)


@pytest.mark.parametrize("asked", [{"law": "gumbel"}, {"rsp_length": 4}])
def test_beam_search_does_not_lose_what_was_asked_for(asked: dict) -> None:
    """vLLM's parameters of a beam search have no extra arguments: they would be dropped."""
    from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
    from vllm.entrypoints.openai.completion.protocol import CompletionRequest
    from vllm.exceptions import VLLMValidationError

    register()
    register()
    messages = [{"role": "user", "content": "x"}]
    for made in (
        partial(CompletionRequest, model="m", prompt="x", use_beam_search=True),
        partial(ChatCompletionRequest, model="m", messages=messages, use_beam_search=True),
    ):
        with pytest.raises(VLLMValidationError, match="beam search"):
            made(vllm_xargs=asked).to_beam_search_params(4, {})
        assert made(vllm_xargs={"other": 1}).to_beam_search_params(4, {}).max_tokens == 4
        assert made().to_beam_search_params(4, {}).max_tokens == 4
