"""Probes against a naive recomputation: whole sequences, no cache."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from rsp_rl.analysis.first_token import jensen_shannon
from rsp_rl.analysis.thought_probes import Mixture, probe

VOCABULARY, WIDTH = 60, 32


@pytest.fixture(scope="module")
def model() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=WIDTH,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    network = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        network.get_input_embeddings().weight.mul_(40)  # of a size that attention notices
    return network


TRACE = [
    Mixture.of([5, 9, 30], [0.5, 0.2, 0.3]),
    Mixture.of([7, 7, 8], [0.2, 0.3, 0.5]),
    Mixture.of([1], [1.0]),
    Mixture.of([2, 3, 4, 6], [0.1, 0.2, 0.3, 0.4]),
]


def naive_states(
    model: LlamaForCausalLM, prompt_T: torch.Tensor, before: list[Mixture], last: torch.Tensor
) -> tuple[np.ndarray, list[torch.Tensor]]:
    table = model.get_input_embeddings().weight
    rows = [
        sum(weight * table[token] for token, weight in zip(m.ids, m.weights, strict=True))
        for m in before
    ]
    whole = torch.stack([*prompt_T, *rows, last])[None]
    output = model(inputs_embeds=whole, output_hidden_states=True)
    p = torch.softmax(output.logits[0, -1].double(), 0).numpy()
    return p, [state[0, -1] for state in output.hidden_states]


@torch.inference_mode()
def test_probes_are_those_of_whole_sequences(model: LlamaForCausalLM) -> None:
    table = model.get_input_embeddings().weight
    prompt_T = table[torch.tensor([11, 12, 13])]

    found = {p.position: p for p in probe(model, prompt_T, TRACE, at={0, 1, 3})}

    assert list(found) == [0, 1, 3]
    for position, measured in found.items():
        mixture = TRACE[position]
        mixed = sum(w * table[i] for i, w in zip(mixture.ids, mixture.weights, strict=True))
        p, states = naive_states(model, prompt_T, TRACE[:position], mixed)
        for number, token in enumerate(mixture.ids[:3]):
            q, others = naive_states(model, prompt_T, TRACE[:position], table[token])
            assert measured.divergences[number] == pytest.approx(jensen_shannon(p, q), abs=1e-5)
            for layer, (a, b) in enumerate(zip(states, others, strict=True)):
                lens = [
                    model.lm_head(s if layer == 3 else model.model.norm(s)).topk(10).indices
                    for s in (a, b)
                ]
                common = len(set(lens[0].tolist()) & set(lens[1].tolist()))
                assert measured.overlaps[layer, number] == pytest.approx(common / 10)


@torch.inference_mode()
def test_what_a_mixture_lacks_is_no_number(model: LlamaForCausalLM) -> None:
    prompt_T = model.get_input_embeddings().weight[:2]

    *_, measured = probe(model, prompt_T, TRACE[:3], at={1, 2})

    # A single token is its own mixture.
    assert measured.divergences[0] == pytest.approx(0, abs=1e-7)
    assert np.isnan(measured.divergences[1:]).all()
    assert (measured.overlaps[:, 0] == 1).all()
    assert np.isnan(measured.overlaps[:, 1:]).all()


def test_a_mixture_is_sorted_and_merged() -> None:
    mixture = Mixture.of([7, 7, 8, 9], [0.3, 0.4, 0.4, 0.0])

    assert mixture.ids == [7, 8]
    assert mixture.weights == pytest.approx([0.7 / 1.1, 0.4 / 1.1])
    assert mixture.entropy == pytest.approx(-sum(w * np.log(w) for w in mixture.weights))
