"""Rows and mixtures of one and the same table."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma3TextConfig,
    GraniteConfig,
    Qwen2Config,
)

from rsp_rl.basics.errors import ConfigError
from rsp_rl.thoughts.embedding import TableEmbedding
from tests.tolerances import rounding
from tests.unit.thoughts.made import made_logits

SMALL = {
    "vocab_size": 50,
    "hidden_size": 12,
    "intermediate_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "pad_token_id": 0,
}


def both_ways(embedding: TableEmbedding, vocabulary: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Mixtures by the table, and by the look-up of every token."""
    p_NV = torch.softmax(made_logits(0, 3, vocabulary), 1)
    rows_VD = embedding.rows(torch.arange(vocabulary)).double()
    return embedding.mixture(p_NV), (p_NV.double() @ rows_VD).float()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("config", "factor"),
    [
        (Gemma2Config(**SMALL), 12**0.5),
        (Gemma3TextConfig(**SMALL), 12**0.5),
        (GraniteConfig(**SMALL, embedding_multiplier=12.0), 1.0),
        (Qwen2Config(**SMALL), 1.0),
    ],
    ids=lambda value: getattr(value, "model_type", ""),
)
@torch.no_grad()
def test_the_models_own_factor(config: object, factor: float, dtype: torch.dtype) -> None:
    """Gemma multiplies what it looks up; Granite its inputs, wherever they are from."""
    torch.manual_seed(0)
    module = AutoModelForCausalLM.from_config(config).to(dtype).get_input_embeddings()
    embedding = TableEmbedding.of(module)
    assert embedding.factor == pytest.approx(factor, rel=torch.finfo(dtype).eps)
    found, expected = both_ways(embedding, 50)
    bound = rounding(4, float(expected.abs().max()), dtype)  # of the looked-up rows
    torch.testing.assert_close(found, expected, rtol=0, atol=bound)
    assert found.dtype == torch.float32
    assert torch.equal(embedding.rows(torch.tensor([3])), module(torch.tensor([3])))


def test_a_table_in_parts() -> None:
    """Of a dtype that is widened a part at a time."""
    module = nn.Embedding(40_000, 4, dtype=torch.bfloat16)
    found, expected = both_ways(TableEmbedding.of(module), 40_000)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_nearest_of_a_table_in_parts(dtype: torch.dtype) -> None:
    """Itself first, padding and rows of zeros never before others; as the table is now."""
    module = nn.Embedding(40_010, 4, dtype=dtype).requires_grad_(False)
    embedding = TableEmbedding.of(module)
    module.weight[7] = 0
    ids_N = torch.tensor([3, 39_999, 7])
    for _ in range(2):
        rows_VD = module.weight[:40_000].double()
        unit_VD = rows_VD / rows_VD.norm(dim=1, keepdim=True).clamp_min(1e-300)
        cosine_NV = unit_VD[ids_N] @ unit_VD.T
        found_NK = embedding.nearest(ids_N, 5, 40_000)
        assert found_NK[:, 0].tolist() == ids_N.tolist()
        assert all(len(set(row)) == 5 for row in found_NK.tolist())
        best_NK = cosine_NV.scatter(1, ids_N[:, None], 2.0).topk(5, dim=1).values[:, 1:]
        torch.testing.assert_close(cosine_NV.gather(1, found_NK)[:, 1:], best_NK, rtol=0, atol=1e-6)
        module.weight.data.normal_()  # as engines load weights: no version of it changes
        module.weight.data[7] = 0
    assert embedding.nearest(ids_N, 1, 40_000).tolist() == [[3], [39_999], [7]]


def test_a_part_of_a_table_has_not_the_nearest_of_all() -> None:
    embedding = TableEmbedding.of(nn.Embedding(20, 4))
    with pytest.raises(ConfigError, match="the nearest of all 40 tokens needs the whole embedding"):
        embedding.nearest(torch.tensor([1]), 3, 40)


def test_padding_of_the_table_does_not_count() -> None:
    module = nn.Embedding(60, 4)
    found, expected = both_ways(TableEmbedding.of(module), 50)
    torch.testing.assert_close(found, expected)


def test_the_table_as_it_is_now() -> None:
    module = nn.Embedding(5, 4)
    embedding = TableEmbedding.of(module)
    one = torch.eye(5)[:1]
    before = embedding.mixture(one)
    with torch.no_grad():
        module.weight.mul_(3)
    torch.testing.assert_close(embedding.mixture(one), 3 * before)


def test_what_cannot_be_mixed() -> None:
    module = nn.Embedding(50, 4)
    with pytest.raises(ConfigError, match="there are 50 rows of it here"):
        TableEmbedding.of(module).mixture(torch.ones(1, 100) / 100)
    shifted = TableEmbedding(lambda ids: module(ids) + 1, lambda: module.weight)
    with pytest.raises(ConfigError, match="no multiple of its table"):
        shifted.mixture(torch.ones(1, 50) / 50)
    # Laws of a few tokens need no more than the look-up.
    assert shifted.rows(torch.tensor([1])).shape == (1, 4)


def test_a_given_factor_is_not_measured() -> None:
    def never(ids: torch.Tensor) -> torch.Tensor:
        raise AssertionError("looked up")

    table = torch.randn(5, 4)
    embedding = TableEmbedding(never, lambda: table, factor=2.0)
    torch.testing.assert_close(embedding.mixture(torch.eye(5)), 2 * table)
