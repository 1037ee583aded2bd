"""A model that thinks in hidden states, in vLLM: the answers of the Hugging Face engine."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from rsp_rl.data import arithmetic_steps
from rsp_rl.inference.requests import EngineOptions
from rsp_rl.latent import scratch
from rsp_rl.latent.engine import answer_with_vllm
from rsp_rl.latent.folder import Thinking, load_thinker, save_thinker
from rsp_rl.latent.generation import answer
from rsp_rl.latent.problem_tokens import tokenize
from rsp_rl.latent.scratch import make_model
from rsp_rl.latent.settings import Settings

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("architecture", ["gpt2", "qwen2"])
def test_vllm_gives_the_reference_engines_answers(architecture, tmp_path, monkeypatch):
    # Large enough that questions count: an untrained model's answers would else be all alike.
    monkeypatch.setattr(scratch, "_BLOCKS_SCALE", 1.0)
    problems = arithmetic_steps.generate("train", 40)
    sizes = {"layers": 2, "hidden_size": 64, "heads": 2, "context": 256}
    make_model(tmp_path / "base", problems, architecture=architecture, **sizes)
    thinker = load_thinker(tmp_path / "base")
    thinker.thinking = replace(Thinking.of(Settings(max_stage=3)), max_new_tokens=12)
    # The added tokens begin with one row, and their logits would tie.
    with torch.no_grad():
        table = thinker.model.get_input_embeddings().weight
        table += 0.05 * torch.randn(table.shape, generator=torch.Generator().manual_seed(0))
    save_thinker(tmp_path / "model", thinker)
    questions = [tokens.question for tokens in tokenize(problems, thinker.tokenizer)]
    expected = list(answer(thinker, questions))
    options = EngineOptions(dtype="float32", max_num_seqs=16)
    found = list(
        answer_with_vllm(tmp_path / "model", thinker.thinking, thinker.markers, questions, options)
    )
    # vLLM leaves out the bytes of a character that is not whole at the end.
    assert [(a.text.rstrip("\ufffd"), a.tokens, a.ended) for a in found] == [
        (a.text.rstrip("\ufffd"), a.tokens, a.ended) for a in expected
    ]
    assert len({a.text for a in expected}) > 10
    # Without thoughts the answers are others: what is compared depends on them.
    without = answer(thinker, questions, thoughts=0)
    assert sum(a.text != b.text for a, b in zip(without, expected, strict=True)) > 10
