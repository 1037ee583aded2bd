"""vLLM's prefix-cache keys leave out which tokens are embeddings (vLLM #56655); ours differ anyway.

Two mixed prompts of the same tokens and the same rows, with the soft prompt in different places,
would share blocks and one would read the other's keys and values.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from vllm.inputs import EmbedsPrompt

from rsp_rl.draws.record import SoftPromptRecord
from rsp_rl.injection.vllm_prompt import mixed_prompt, record_prompt
from tests.unit.injection.test_vllm_prompt import (
    BLOCK,
    HIDDEN,
    PLACEHOLDER,
    record,
    sent,
    shared_blocks,
)

#: All placeholders, so that a soft prompt may stand anywhere.
TOKENS = [PLACEHOLDER] * (4 * BLOCK)

#: Scale 0 leaves the mean; a table whose mean is 0 leaves nothing.
DRAWS = {
    "usual": {},
    "scale 0": {"std": 0.0},
    "scale 0, mean 0": {"std": 0.0, "mean": 0.0},
}


def by_record(soft: SoftPromptRecord) -> EmbedsPrompt:
    return record_prompt(TOKENS, soft)


def by_rows(soft: SoftPromptRecord) -> EmbedsPrompt:
    return mixed_prompt(TOKENS, soft, HIDDEN)


def first_block(soft: SoftPromptRecord, other: SoftPromptRecord) -> int:
    """The first block that holds a row of either."""
    return min(soft.start, other.start) // BLOCK


@pytest.mark.parametrize("draw", DRAWS)
@pytest.mark.parametrize(
    ("start", "other"), [(0, 1), (3, 8), (14, 18), (16, 32), (20, 21), (20, 40), (33, 5)]
)
def test_two_placements_of_a_record_share_no_block_of_either(
    draw: str, start: int, other: int
) -> None:
    soft = record(start=start, **DRAWS[draw])
    moved = replace(soft, start=other)
    requests = [sent(by_record(each)) for each in (soft, moved)]
    assert shared_blocks(*requests) <= first_block(soft, moved)
    if draw != "scale 0, mean 0":
        requests = [sent(by_rows(each)) for each in (soft, moved)]
        assert shared_blocks(*requests) <= first_block(soft, moved)


@pytest.mark.parametrize("draw", DRAWS)
def test_a_placement_shares_no_block_with_the_plain_prompt(draw: str) -> None:
    """A rollout without a soft prompt whose text has the placeholders."""
    plain = sent({"prompt_token_ids": TOKENS})
    for make in (by_record, by_rows):
        with_rows = sent(make(record(start=20, **DRAWS[draw])))
        assert shared_blocks(plain, with_rows) <= 20 // BLOCK


def test_the_key_still_leaves_the_mask_out() -> None:
    """Rows of zeros, which no record is and no table's mean makes, do share. Gone: upstream mended.

    Then this module can go.
    """
    nothing = record(start=20, std=0.0, mean=0.0)
    assert not torch.count_nonzero(nothing.draw(HIDDEN))
    requests = [sent(by_rows(each)) for each in (nothing, replace(nothing, start=40))]
    assert shared_blocks(*requests) == 4
