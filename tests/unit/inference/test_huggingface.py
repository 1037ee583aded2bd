"""The reference engine, against logits that are computed token by token."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from rsp_rl.draws.embedding_stats import embedding_stats
from rsp_rl.draws.record import SoftPromptRecord
from rsp_rl.inference.huggingface import HuggingFaceEngine, _processors
from rsp_rl.inference.requests import EngineOptions, Request
from rsp_rl.injection.hook import SoftPromptInjector, draw_rows, flat_positions
from rsp_rl.models.folder import load_tokenizer
from rsp_rl.models.stop_tokens import known_stop_tokens
from rsp_rl.tiny import make_tiny_model

OPTIONS = EngineOptions(kind="huggingface", dtype="float32", max_num_seqs=3)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("model"), seed=0, steps=0)


@pytest.fixture(scope="module")
def engine(model: Path) -> HuggingFaceEngine:
    return HuggingFaceEngine(model, OPTIONS)


def request(
    model: Path,
    number: int,
    prompt: list[int],
    *,
    length: int = 4,
    start: int = 2,
    temperature: float = 0.0,
    **changes: object,
) -> Request:
    stats = embedding_stats(model)
    record = SoftPromptRecord(number, start, length, stats.mean, stats.std, "float32", 0)
    sampling = {
        "temperature": temperature,
        "top_p": 1.0,
        "top_k": 0,
        "max_tokens": 6,
        "stop": [],
        "stop_token_ids": [],
        "seed": 100 + number,
    }
    ids = prompt[:start] + [0] * length + prompt[start:] if length else prompt
    return Request(number, ids, sampling | changes, record if length else None)


def greedy(model: Path, request: Request) -> list[int]:
    """Tokens by the whole forward for each of them, the hook active throughout."""
    network = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
    stop_tokens = known_stop_tokens(model, load_tokenizer(model))
    injector = SoftPromptInjector(network.get_input_embeddings())
    records = [request.record] if request.record else []
    rows = draw_rows(records, network.config.hidden_size)
    ids = list(request.token_ids)
    while len(ids) - len(request.token_ids) < request.sampling["max_tokens"]:
        with torch.no_grad(), injector.inject(flat_positions(records, [0] * len(records)), rows):
            ids.append(int(network(torch.tensor([ids])).logits[0, -1].argmax()))
        if ids[-1] in stop_tokens:
            break
    return ids[len(request.token_ids) :]


def test_greedy_tokens_of_a_padded_batch(engine: HuggingFaceEngine, model: Path) -> None:
    prompts = [[5, 6, 7, 8], [9, 10, 11], [12, 13, 14, 15, 16, 17, 18], [20, 21]]
    requests = [request(model, i, prompt) for i, prompt in enumerate(prompts)]
    requests += [request(model, 4, [5, 6, 7, 8], length=0)]
    done = [completion for batch in engine.generate(requests) for completion in batch]
    tokenizer = load_tokenizer(model)
    assert [completion.number for completion in done] == [0, 1, 2, 3, 4]
    for completion, asked in zip(done, requests, strict=True):
        tokens = greedy(model, asked)
        assert completion.tokens == len(tokens)
        assert completion.text == tokenizer.decode(tokens, skip_special_tokens=True)
    assert len({completion.text for completion in done}) > 2  # the soft prompts do something


def test_samples_have_their_own_seeds_in_any_batch(model: Path, engine: HuggingFaceEngine) -> None:
    requests = [request(model, i, [5, 6, 7, 8], temperature=1.0, length=0) for i in range(5)]
    together = [done.text for batch in engine.generate(requests) for done in batch]
    alone = [done.text for one in requests for batch in engine.generate([one]) for done in batch]
    assert together == alone
    assert len(set(together)) == 5


def test_sampled_tokens_follow_the_distribution() -> None:
    """Top-k 3 at temperature 2, against the softmax of the logits."""
    logits = torch.tensor([2.0, -1.0, 0.5, 1.5])
    expected = {0: 1.0, 2: 0.25, 3: 0.75}  # logits over temperature, the least one out
    total = sum(torch.tensor(list(expected.values())).exp()).item()
    count = 3000
    sampling = {"temperature": 2.0, "top_k": 3, "top_p": 1.0}
    batch = [Request(i, [1], {**sampling, "seed": i}) for i in range(count)]
    scores = _processors(batch)(torch.empty(count, 0, dtype=torch.int64), logits.repeat(count, 1))
    seen = Counter(scores.argmax(-1).tolist())
    assert set(seen) == set(expected)
    for token, value in expected.items():
        probability = math.exp(value) / total
        deviation = (probability * (1 - probability) / count) ** 0.5
        assert abs(seen[token] / count - probability) < 5 * deviation


def test_ends_at_stop_token_and_stop_string(model: Path, engine: HuggingFaceEngine) -> None:
    prompts = ([first, 6, 7, 8] for first in range(5, 300))
    plain, tokens = next(
        (asked, tokens)
        for asked in (request(model, 0, ids, length=0, max_tokens=12) for ids in prompts)
        if len(set(tokens := greedy(model, asked))) > 4
    )
    ((whole,),) = engine.generate([plain])
    stopped = replace(plain, sampling=plain.sampling | {"stop_token_ids": [tokens[-1]]})
    ((short,),) = engine.generate([stopped])
    assert (short.tokens, short.finish_reason) == (tokens.index(tokens[-1]) + 1, "stop")
    word = whole.text[3:5]
    ((cut,),) = engine.generate([replace(plain, sampling=plain.sampling | {"stop": [word]})])
    assert cut.text == whole.text[: whole.text.index(word)]
    assert cut.finish_reason == "stop"


def test_a_stop_string_ends_one_row_of_a_batch(model: Path, engine: HuggingFaceEngine) -> None:
    """Padding while the others go on is no part of its output, whatever token pads."""
    requests = [request(model, i, [6 + i, 10, 11], length=0, max_tokens=12) for i in range(3)]
    tokenizer = load_tokenizer(model)
    tried = 0
    for asked, whole in zip(requests, engine.generate_tokens(requests), strict=True):
        words = [tokenizer.decode(whole[at : at + 2], skip_special_tokens=True) for at in range(11)]
        # Of whole characters: part of one is no string to stop at.
        at = next((at for at, word in enumerate(words) if word and "\ufffd" not in word), None)
        if at is None:
            continue
        word, tried = words[at], tried + 1
        stop = {"stop": [word]}
        batch = [replace(each, sampling=each.sampling | stop) for each in requests]
        ((alone,),) = engine.generate([replace(asked, sampling=asked.sampling | stop)])
        (together,) = engine.generate(batch)
        assert together[asked.number] == alone
        assert alone.tokens == at + 2
    assert tried


def test_tokens_that_the_tokenizer_does_not_have_are_never_generated(
    model: Path, engine: HuggingFaceEngine, tmp_path: Path
) -> None:
    """As in verl's rollouts: padding of the vocabulary, however likely, is no output."""
    network = AutoModelForCausalLM.from_pretrained(model)
    known = network.config.vocab_size
    network.resize_token_embeddings(known + 3, mean_resizing=False)
    with torch.no_grad():  # one of the two is above everything else
        network.lm_head.weight[known] = 9 * network.lm_head.weight[5]
        network.lm_head.weight[known + 1] = -9 * network.lm_head.weight[5]
        network.lm_head.weight[known + 2] = 0
    network.save_pretrained(tmp_path)
    load_tokenizer(model).save_pretrained(tmp_path)
    padded = HuggingFaceEngine(tmp_path, OPTIONS)
    batch = [request(model, 0, [5, 6, 7, 8])]
    assert padded.generate_tokens(batch) == engine.generate_tokens(batch)
    batch = [request(model, 1, [5, 6, 7, 8], temperature=1.0)]
    (tokens,) = padded.generate_tokens(batch)
    assert max(tokens) < known
