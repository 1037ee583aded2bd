"""Both ways of sending a soft prompt to vLLM, through vLLM's own encoder, hasher and worker."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from vllm import SamplingParams
from vllm.inputs import EmbedsPrompt
from vllm.utils.hashing import get_hash_fn_by_name
from vllm.v1.core.kv_cache_utils import get_request_block_hasher, init_none_hash
from vllm.v1.core.sched.output import NewRequestData
from vllm.v1.engine import EngineCoreRequest
from vllm.v1.request import Request
from vllm.v1.serial_utils import MsgpackDecoder, MsgpackEncoder

from rsp_rl.draws.record import RECORD_SIZE, SoftPromptRecord
from rsp_rl.injection.vllm_prompt import mixed_prompt, record_prompt
from rsp_rl.injection.vllm_worker import drawn_prompt, has_record

HIDDEN, BLOCK, PLACEHOLDER = 48, 16, 7

init_none_hash(get_hash_fn_by_name("sha256"))


def record(seed: int = 3, start: int = 20, length: int = 5, **other) -> SoftPromptRecord:
    fields = {"mean": 0.1, "std": 0.5, "dtype": "bfloat16", "placeholder_id": PLACEHOLDER}
    return SoftPromptRecord(seed=seed, start=start, length=length, **fields | other)


def tokens(soft: SoftPromptRecord, after: int = 4, question: int = 0) -> list[int]:
    """A question, the placeholders, and the rest of the prompt."""
    before = [100 + (question + n) % 50 for n in range(soft.start)]
    return before + [PLACEHOLDER] * soft.length + [11] * after


def sent(prompt: EmbedsPrompt) -> Request:
    """What vLLM's engine core makes of a prompt that crossed the processes."""
    request = EngineCoreRequest(
        request_id="0",
        prompt_token_ids=prompt["prompt_token_ids"],
        prompt_embeds=prompt.get("prompt_embeds"),
        prompt_is_token_ids=prompt.get("prompt_is_token_ids"),
        mm_features=None,
        sampling_params=SamplingParams(max_tokens=4),
        pooling_params=None,
        arrival_time=0.0,
        lora_request=None,
        cache_salt=None,
        data_parallel_rank=None,
    )
    crossed = MsgpackDecoder(EngineCoreRequest).decode(MsgpackEncoder().encode(request))
    hasher = get_request_block_hasher(BLOCK, get_hash_fn_by_name("sha256"))
    return Request.from_engine_core_request(crossed, hasher)


def by_rows(soft: SoftPromptRecord, **where: int) -> EmbedsPrompt:
    return mixed_prompt(tokens(soft, **where), soft, HIDDEN)


def by_record(soft: SoftPromptRecord, **where: int) -> EmbedsPrompt:
    return record_prompt(tokens(soft, **where), soft)


WAYS = {"rows": by_rows, "record": by_record}

SOFT_PROMPTS = st.builds(
    record,
    seed=st.integers(0, 2**64 - 1),
    start=st.integers(0, 70),
    length=st.integers(1, 40),
    dtype=st.sampled_from(["float32", "bfloat16", "float16"]),
    law=st.sampled_from(["gaussian", "fixed", "sphere"]),
    mean=st.floats(0.1, 1),
    std=st.floats(0.1, 2) | st.just(0.0),
)


@given(SOFT_PROMPTS, st.integers(0, 9))
def test_the_worker_makes_of_a_record_what_would_have_been_sent(
    soft: SoftPromptRecord, after: int
) -> None:
    wanted = sent(by_rows(soft, after=after))
    request = sent(by_record(soft, after=after))
    assert request.prompt_is_token_ids == wanted.prompt_is_token_ids
    assert request.prompt_token_ids == wanted.prompt_token_ids
    news = [NewRequestData.from_request(r, ([],)) for r in (request, wanted)]
    assert [has_record(new) for new in news] == [True, False]
    drawn = drawn_prompt(news[0], HIDDEN)
    assert drawn.dtype == wanted.prompt_embeds.dtype
    assert torch.equal(drawn, wanted.prompt_embeds)


def shared_blocks(a: Request, b: Request) -> int:
    """Blocks of the prefix cache that one finds when the other is in it."""
    pairs = zip(a.block_hashes, b.block_hashes, strict=False)
    return next((n for n, (x, y) in enumerate(pairs) if x != y), len(a.block_hashes))


@given(SOFT_PROMPTS, st.integers(0, 2**64 - 1))
def test_a_group_shares_the_questions_blocks_and_no_other(soft: SoftPromptRecord, seed) -> None:
    """As token prompts that share the question, and other tokens in the soft prompt's place."""
    other = replace(soft, seed=seed)
    whole = len(tokens(soft, after=30)) // BLOCK
    # Draws without deviation are the same draw; whose it is, is seen in the record all the same.
    differs = {"record": seed != soft.seed, "rows": seed != soft.seed and soft.std > 0}
    for name, make in WAYS.items():
        requests = [sent(make(one, after=30)) for one in (soft, other)]
        question = soft.start // BLOCK
        assert shared_blocks(*requests) == (question if differs[name] else whole)
        # Another question shares nothing.
        if question:
            stranger = sent(make(soft, after=30, question=1))
            assert shared_blocks(requests[0], stranger) == 0


@pytest.mark.parametrize(
    "change",
    [
        {"std": 0.25},
        {"mean": 0.2},
        {"dtype": "float16"},
        {"law": "sphere"},
    ],
    ids=str,
)
def test_whatever_changes_the_draw_changes_the_cached_blocks(change: dict) -> None:
    soft = record()
    one, other = (sent(by_record(each, after=30)) for each in (soft, replace(soft, **change)))
    assert shared_blocks(one, other) == soft.start // BLOCK < len(one.block_hashes)


def test_a_record_takes_80_bytes_a_token() -> None:
    soft = record(start=2000)
    embeds = by_record(soft)["prompt_embeds"]
    assert embeds.nbytes == 8 * RECORD_SIZE * len(tokens(soft))


@pytest.mark.parametrize("way", WAYS)
def test_truncated_prompts_are_refused(way: str) -> None:
    cut = tokens(record())[3:]
    with pytest.raises(ValueError, match="was the prompt truncated"):
        record_prompt(cut, record()) if way == "record" else mixed_prompt(cut, record(), HIDDEN)


def test_a_record_in_another_place_is_an_error() -> None:
    request = NewRequestData.from_request(sent(by_record(record())), ([],))
    request.prompt_is_token_ids = [False, *request.prompt_is_token_ids[:-1]]
    request.prompt_embeds = request.prompt_embeds.roll(-20, 0)
    with pytest.raises(ValueError, match="its record says 20 to 25"):
        drawn_prompt(request, HIDDEN)
