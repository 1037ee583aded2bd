"""Which weights run, which learn, and which models are refused."""

from __future__ import annotations

import re

import pytest
import torch
from transformers import AutoModelForCausalLM, GPTNeoXConfig, Qwen2Config

from rsp_rl.basics.errors import ConfigError
from rsp_rl.latent.ccot.adapters import Adapters, Weights
from tests.tolerances import rounding
from tests.unit.latent.ccot import naive
from tests.unit.latent.ccot.made import CONFIGS, make_adapters, make_model

IDS = torch.tensor([[7, 8, 9, 10]])
EXACT = rounding(64, size=32, dtype=torch.float64)


def last_states(adapters: Adapters) -> torch.Tensor:
    with torch.no_grad():
        return adapters.model.base_model(input_ids=IDS).last_hidden_state


@pytest.mark.parametrize("kind", CONFIGS)
def test_untrained_adapters_change_nothing(kind: str) -> None:
    with torch.no_grad():
        alone = make_model(kind).base_model(input_ids=IDS).last_hidden_state
    adapters = make_adapters(kind, moved=False)
    for weights in ("theta", "phi", "psi"):
        adapters.use(weights)
        torch.testing.assert_close(last_states(adapters), alone, rtol=0, atol=EXACT)


@pytest.mark.parametrize("weights", ["theta", "phi", "psi"])
def test_one_adapter_at_a_time(adapters: Adapters, weights: Weights) -> None:
    adapters.use(weights)
    found = last_states(adapters)[0]
    adapters.use("theta")
    with torch.no_grad():
        wanted = {
            name: naive.states(adapters, naive.embed(adapters, IDS[0].tolist()), [name] * 4)[-1]
            for name in ("theta", "phi", "psi")
        }
    torch.testing.assert_close(found, wanted[weights], rtol=0, atol=EXACT)
    others = [wanted[name] for name in wanted if name != weights]
    assert min(float((found - other).abs().max()) for other in others) > 0.01


def test_what_learns_does_not_hang_on_what_runs() -> None:
    adapters = make_adapters()
    chosen = adapters.parameters("phi", [2])
    adapters.train_only(chosen)
    for weights in ("psi", "theta", "phi", "psi"):
        adapters.use(weights)
        learning = [p for p in adapters.model.parameters() if p.requires_grad]
        assert {id(p) for p in learning} == {id(p) for p in chosen}


@pytest.mark.parametrize(("kind", "linear"), [("gpt2", 4), ("llama", 7), ("qwen2", 7)])
def test_all_linear_layers_of_the_blocks(kind: str, linear: int) -> None:
    adapters = make_adapters(kind)
    for name, rank in (("phi", 3), ("psi", 2)):
        assert len(adapters.parameters(name, [1])) == 2 * linear
        assert len(adapters.parameters(name)) == 2 * linear * adapters.layers
        assert all(rank in parameter.shape for parameter in adapters.parameters(name))
    assert len(adapters.state_dict()) == 4 * linear * adapters.layers


def test_first_values_are_the_seeds() -> None:
    def first(seed: int) -> torch.Tensor:
        torch.manual_seed(99)
        made = Adapters(make_model(), generator_rank=3, decoder_rank=2, scale=2.0, seed=seed)
        assert torch.initial_seed() == 99
        return made.parameters("phi")[0].detach()

    assert torch.equal(first(1), first(1))
    assert not torch.equal(first(1), first(2))


def test_adapters_of_a_bf16_model_are_float32() -> None:
    adapters = make_adapters(dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in adapters.state_dict().values()} == {torch.float32}
    adapters.use("phi")
    assert last_states(adapters).dtype == torch.bfloat16


def test_other_adapters_are_not_taken() -> None:
    adapters = make_adapters()
    tensors = {name: parameter.detach() for name, parameter in adapters.state_dict().items()}
    name = next(iter(tensors))
    with pytest.raises(ValueError, match="another shape"):
        adapters.load_state_dict({**tensors, name: tensors[name][:1]})
    tensors.pop(name)
    with pytest.raises(ValueError, match=re.escape(f"other adapters: {name}")):
        adapters.load_state_dict(tensors)


def test_models_that_are_refused() -> None:
    def make(model: object) -> None:
        Adapters(model, generator_rank=2, decoder_rank=2, scale=2.0, seed=0)

    other = AutoModelForCausalLM.from_config(
        GPTNeoXConfig(
            vocab_size=40, hidden_size=16, intermediate_size=24, num_hidden_layers=2,
            num_attention_heads=4,
        )
    )  # fmt: skip
    with pytest.raises(ConfigError, match="GPTNeoXForCausalLM is a model of type gpt_neox"):
        make(other)
    values = CONFIGS["qwen2"].to_dict() | {"use_sliding_window": True, "sliding_window": 4}
    values["layer_types"] = ["full_attention"] * 3 + ["sliding_attention"]
    with pytest.raises(ConfigError, match="keeps a window of its past in some layers"):
        make(AutoModelForCausalLM.from_config(Qwen2Config(**values)))
    headless = make_model()
    headless.get_output_embeddings = lambda: None
    with pytest.raises(ConfigError, match="has no output layer"):
        make(headless)
