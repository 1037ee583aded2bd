"""Prompts of requests with a law, through vLLM's own encoder, hasher and worker."""

from __future__ import annotations

import json

import pytest
import torch
from vllm.v1.core.sched.output import NewRequestData

from rsp_rl.draws.record import SoftPromptRecord
from rsp_rl.injection.thinking_prompt import extra_args, new_key, private_prompt
from rsp_rl.injection.vllm_prompt import record_prompt
from rsp_rl.injection.vllm_worker import drawn_prompt, has_key_alone, has_record
from rsp_rl.thoughts.names import law_from_settings
from rsp_rl.thoughts.phases import Phases
from rsp_rl.thoughts.settings import EXTRA_ARG, Thinking
from tests.unit.injection.test_vllm_prompt import (
    BLOCK,
    HIDDEN,
    PLACEHOLDER,
    record,
    sent,
    shared_blocks,
)

TOKENS = list(range(100, 100 + 5 * BLOCK + 3))


def test_the_question_is_shared_and_what_follows_is_not() -> None:
    """The last block of a prompt is a request's own, and so is all that hangs on it."""
    requests = [sent(private_prompt(TOKENS, None, key)) for key in (1, 2, 1)]
    for request in requests:
        request.append_output_token_ids(list(range(3 * BLOCK)))
    assert len(requests[0].block_hashes) == 8
    assert shared_blocks(requests[0], requests[1]) == 5
    assert shared_blocks(requests[0], requests[2]) == 8  # a number is all that tells them apart


def test_the_worker_sees_a_prompt_of_tokens() -> None:
    new = NewRequestData.from_request(sent(private_prompt(TOKENS, None, new_key())), ([],))
    assert has_key_alone(new)
    assert not has_record(new)
    assert new.prompt_token_ids == TOKENS


@pytest.mark.parametrize("after", [0, 4])
def test_a_soft_prompt_beside_it(after: int) -> None:
    """Of one record, as `mode: shared` gives a group, even at the very end of the prompt."""
    soft = record(start=2 * BLOCK, length=BLOCK)
    tokens = TOKENS[: soft.start] + [PLACEHOLDER] * soft.length + [11] * after
    plain = NewRequestData.from_request(sent(record_prompt(tokens, soft)), ([],))
    requests = [sent(private_prompt(tokens, soft, key)) for key in (1, 2)]
    for request in requests:
        request.append_output_token_ids([5] * 2 * BLOCK)
        new = NewRequestData.from_request(request, ([],))
        assert has_record(new)
        assert not has_key_alone(new)
        assert torch.equal(drawn_prompt(new, HIDDEN), drawn_prompt(plain, HIDDEN))
    assert shared_blocks(*requests) == len(tokens) // BLOCK - (after == 0)


@pytest.mark.parametrize("soft", [None, record(start=2 * BLOCK, length=BLOCK)])
def test_thoughts_of_an_output_that_goes_on_are_a_requests_own(
    soft: SoftPromptRecord | None,
) -> None:
    """They stand in the prompt now, behind the question, which stays shared."""
    question, made = TOKENS, [7] * 2 * BLOCK
    if soft is not None:
        span = slice(soft.start, soft.start + soft.length)
        question = [*TOKENS]
        question[span] = [PLACEHOLDER] * soft.length
    prompts = [private_prompt([*question, *made], soft, key, len(made)) for key in (1, 2)]
    assert shared_blocks(*map(sent, prompts)) == 5
    begun = private_prompt(question, soft, 1)
    goes_on = private_prompt([*question, *made], soft, 1, len(made))
    length = len(question)
    assert torch.equal(goes_on["prompt_embeds"][:length], begun["prompt_embeds"])
    assert not goes_on["prompt_embeds"][length:].any()


def test_settings_survive_the_way() -> None:
    law = law_from_settings("multiplex", {"k": 4})
    thinking = Thinking(law, Phases(end_ids=(3,), on_cut=(4, 5)), seed=2**64 - 1)
    crossed = json.loads(json.dumps(extra_args(thinking, 7)))[EXTRA_ARG]
    assert crossed["key"] == 7
    assert Thinking.from_dict(crossed) == thinking


def test_keys_differ_and_fit() -> None:
    keys = {new_key() for _ in range(1000)}
    assert len(keys) == 1000
    assert all(0 <= key < 2**63 for key in keys)
