"""Attention mass and Theorem 1: by hand, as a law, and against the model's own weights."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    MistralConfig,
    MistralForCausalLM,
)

from rsp_rl.analysis.attention import (
    MEASURED,
    AttentionRecorder,
    check_rotary,
    layer_mass,
    mass_bound,
)
from rsp_rl.analysis.attention_mass import heatmap, per_token_mass, record
from rsp_rl.analysis.bound_check import BoundCheck
from rsp_rl.analysis.conditions import Condition
from rsp_rl.analysis.teacher_forcing import ForcedModel
from rsp_rl.basics.errors import ConfigError
from rsp_rl.cli import main
from rsp_rl.injection.hook import SoftPromptInjector, draw_rows, flat_positions
from tests.properties import examples
from tests.tolerances import FORWARD, rounding

SMALL = {
    "vocab_size": 16,
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
}

#: Of sums of a few exponentials in float64, over their sum; scores of up to 16.
ROUNDING = rounding(4, 16, torch.float64)


def test_mass_and_bound_by_hand() -> None:
    # One head, d_head = 4, keys 0..4 of which 1 and 2 are the soft prompt; only query 4 counts.
    query = torch.zeros(1, 5, 4)
    query[0, :, 0] = 1
    key = torch.zeros(1, 5, 4)
    key[0, :, 0] = torch.tensor([1.0, 2.0, 4.0, 3.0, 5.0])
    mass = layer_mass(query, key, 0.5, start=1, length=2, question=[0])
    e = [math.exp(score / 2) for score in (1, 2, 4, 3, 5)]
    assert mass.soft_prompt.shape == (1, 2)  # queries 3 and 4
    assert mass.soft_prompt[0, 1].item() == pytest.approx((e[1] + e[2]) / sum(e), abs=ROUNDING)
    assert mass.question[0, 0].item() == pytest.approx(e[0] / sum(e[:4]), abs=ROUNDING)
    # n = 3 real keys, Delta = 1 - 4.
    assert mass.bound[0, 1].item() == pytest.approx(2 / (2 + 3 * math.exp(-3 / 2)), abs=ROUNDING)


@pytest.mark.parametrize("start", [0, 2])
def test_equality_where_keys_score_alike(start: int) -> None:
    """Theorem 1 holds with equality if all real keys score alike and all soft prompt keys do."""
    query = torch.tensor([[[1.0, 2.0]]]).expand(3, 8, 2)
    key = torch.tensor([0.25, 0.5]).expand(1, 8, 2).clone()
    key[0, start : start + 3] = torch.tensor([0.75, -0.5])
    mass = layer_mass(query, key, 2**-0.5, start, 3, question=[7])
    margin = (1.25 - -0.25) / math.sqrt(2)
    for i in range(start + 3, 8):
        expected = 3 / (3 + (i + 1 - 3) * math.exp(margin))
        assert mass.soft_prompt[:, i - start - 3].tolist() == pytest.approx(
            [expected] * 3, abs=ROUNDING
        )
    assert (mass.bound - mass.soft_prompt).abs().max() <= ROUNDING


@examples(50)
@given(
    seed=st.integers(0, 2**32 - 1),
    scale=st.floats(0.01, 30),
    start=st.integers(0, 5),
    length=st.integers(1, 6),
    rest=st.integers(1, 8),
)
def test_mass_never_exceeds_the_bound(
    seed: int, scale: float, start: int, length: int, rest: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    total = start + length + rest
    query = scale * torch.randn(4, total, 8, generator=generator)
    key = scale * torch.randn(2, total, 8, generator=generator)
    mass = layer_mass(query, key, 8**-0.5, start, length, question=[total - 1])
    # Scores of up to this size are rounded before they are exponents.
    score = float(query.norm(dim=-1).max() * key.norm(dim=-1).max()) * 8**-0.5
    slack = rounding(4, max(score, 1.0), torch.float64)
    assert ((mass.bound - mass.soft_prompt) >= -slack).all()
    assert ((mass.soft_prompt >= 0) & (mass.soft_prompt <= 1) & (mass.bound <= 1)).all()


@given(margin=st.floats(-20, 20), n=st.integers(1, 1000), length=st.integers(1, 40))
def test_bound_decreases_in_n(margin: float, n: int, length: int) -> None:
    margins = torch.full((2,), margin, dtype=torch.float64)
    first, second = mass_bound(margins, torch.tensor([n, n + 1]), length).tolist()
    assert second < first
    assert first == pytest.approx(
        length / (length + n * math.exp(margin)), rel=rounding(8, 20, torch.float64)
    )


@pytest.mark.parametrize("name", ["prefix", "infix", "suffix"])
def test_mass_is_that_of_the_models_own_weights(
    answered: dict[str, Condition], model: Path, name: str
) -> None:
    """Eager attention returns its weights: RoPE, grouped heads and the injected H included."""
    forced = ForcedModel(answered[name], attention=MEASURED)
    trajectory = next(
        t for t in forced.trajectories("arithmetic") if len(t.output_ids) > 4
    )  # a few queries behind the prompt
    recorder = record(forced, trajectory)
    eager = AutoModelForCausalLM.from_pretrained(model, attn_implementation="eager")
    request = trajectory.request
    rows = draw_rows([request.record], eager.config.hidden_size)
    injector = SoftPromptInjector(eager.get_input_embeddings())
    ids = torch.tensor([request.token_ids + trajectory.output_ids])
    with torch.no_grad(), injector.inject(flat_positions([request.record], [0]), rows):
        layers = eager(ids, output_attentions=True).attentions
    soft = slice(request.record.start, request.record.start + request.record.length)
    assert sorted(recorder.layers) == list(range(len(layers)))
    for number, weights in enumerate(layers):
        seen = weights[0, :, recorder.first_query :].double()
        found = recorder.layers[number]
        assert torch.allclose(found.soft_prompt, seen[..., soft].sum(-1), rtol=0, atol=FORWARD)
        asked = seen[..., recorder.question].sum(-1)
        assert torch.allclose(found.question, asked, rtol=0, atol=FORWARD)
        assert ((found.bound - found.soft_prompt) >= -ROUNDING).all()
    per_token = per_token_mass(recorder, len(request.token_ids), len(trajectory.output_ids))
    expected = layers[2][0, :, -1, soft].mean()  # over heads and soft prompt tokens (Eq. 2)
    assert per_token[0, 2, -1] == pytest.approx(expected.item(), abs=FORWARD)


def test_heatmap_bins() -> None:
    # 8 layers, the last two left out: bins of 2, 1, 1, 1, 1; 7 queries: 2, 2, 1, 1, 1.
    layers, queries = np.arange(8.0)[:, None], np.arange(7.0)[None]
    values = np.stack([100 * layers + queries, -(100 * layers + queries)])
    found = heatmap(values)
    assert found.shape == (2, 5, 5)
    assert found[0].tolist() == [
        [100 * row + column for column in (0.5, 2.5, 4, 5, 6)] for row in (0.5, 2, 3, 4, 5)
    ]
    assert (found[1] == -found[0]).all()
    assert heatmap(values[:, :5]).shape == (2, 3, 5)
    assert heatmap(values[:, :2]).shape == (2, 1, 5)  # the first layer stays


def test_bound_check_finds_the_worst() -> None:
    from rsp_rl.analysis.attention import LayerMass

    check = BoundCheck()
    mass = torch.tensor([[0.1, 0.2], [0.3, 0.4]], dtype=torch.float64)
    bound = torch.tensor([[0.2, 0.3], [0.35, 0.39]], dtype=torch.float64)
    check.add(0, LayerMass(mass, mass, bound + 0.02), 5, {"problem": "a"})
    assert (check.checked, check.violations) == (4, 0)
    check.add(1, LayerMass(mass, mass, bound), 5, {"problem": "b"})
    assert (check.checked, check.violations) == (8, 1)
    assert check.worst_slack == pytest.approx(-0.01)
    assert check.worst_at == {"problem": "b", "layer": 1, "head": 1, "position": 6}


def test_models_without_rope_are_refused() -> None:
    with pytest.raises(ConfigError, match="'gpt2' has no rotary position embeddings"):
        check_rotary(GPT2Config())
    check_rotary(MistralConfig())


@pytest.mark.parametrize(
    ("network", "found"),
    [
        (lambda: MistralForCausalLM(MistralConfig(**SMALL, sliding_window=4)), "a sliding window"),
        (lambda: Gemma2ForCausalLM(Gemma2Config(**SMALL)), "a cap on its scores"),
    ],
)
def test_attention_that_is_no_plain_softmax_is_refused(network, found: str) -> None:
    model = network()
    model.set_attn_implementation(MEASURED)
    with pytest.raises(ConfigError, match=found):
        model(torch.arange(8)[None], attention_recorder=AttentionRecorder(1, 2, [0]))


def test_command(
    answered: dict[str, Condition], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        main(["analyze", "attention", str(answered["infix"].root), "--output", str(tmp_path)]) == 0
    )
    assert "above the bound" in capsys.readouterr().out
    found = json.loads((tmp_path / "attention.json").read_text())
    assert found["length"] == 4
    theorem = found["arithmetic"]["theorem_1"]
    assert theorem["violations"] == 0
    assert theorem["worst_slack"] > 0
    rows = list(csv.DictReader((tmp_path / "attention.csv").open()))
    assert len(rows) == 2 * 2 * 5  # kinds, layers but the last two, positions
    assert all(0 < float(row["mean"]) < 1 for row in rows)
    assert (tmp_path / "attention.png").read_bytes().startswith(b"\x89PNG")
    assert main(["analyze", "attention", str(answered["baseline"].root)]) == 1
    assert "has no soft prompts" in capsys.readouterr().err
