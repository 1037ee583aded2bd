"""An actor without the rollout's thoughts is stopped at once: every law, as its recipe has it.

By verl's real engine, whose hook writes nothing or other thoughts, and the guard's own functions.
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from parity.actor import Sample, make_engine, training_batch
from parity.models import make_random_model
from parity.ranks import run_on_ranks
from rsp_rl.basics.errors import PolicyMismatchError
from rsp_rl.dials.options import GuardOptions
from rsp_rl.thoughts.law import InputLaw
from rsp_rl.thoughts.laws.gumbel import Gumbel
from rsp_rl.thoughts.laws.multiplex import Multiplex
from rsp_rl.thoughts.laws.neftune import Neftune
from rsp_rl.thoughts.laws.neighbours import Neighbours
from rsp_rl.thoughts.laws.noisy import Fuzzy, Soft
from rsp_rl.training.guard import (
    StepSamples,
    StepThoughts,
    check_gap,
    check_not_forgotten,
    check_thoughts,
    step_metrics,
)
from rsp_rl.training.thought_options import ThoughtGuard
from rsp_rl.training.verl_plugin.forgetting import FORGOTTEN_FIELDS, FORGOTTEN_KEY, THOUGHTS
from tests.thinking import replayed, think

SOFT_GRPO = {"k": 5, "tau": 0.1, "temperature": 1.0, "top_k": 5, "top_p": 0.95}
#: As `recipes/` and `configs/law` have them.
LAWS: dict[str, InputLaw] = {
    "multiplex": Multiplex(k=3),
    "multiplex by probability": Multiplex(k=3, weighting="probability"),
    "gumbel, paper": Gumbel(**SOFT_GRPO),
    "gumbel, code": Gumbel(**SOFT_GRPO, score="code", clamp=True),
    "neighbours": Neighbours(rate=1.0, share=0.5),
    "neftune": Neftune(length=16),
    "soft": Soft(rms=0.2),
    "fuzzy": Fuzzy(rms=0.2),
}
ROLLOUTS, KINDS = 6, "t" * 20 + "aa"
#: Samples of a micro-batch; the first alone is asked what forgetting would make.
SIZE = 2


def load(folder, dtype: torch.dtype):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)


def rollouts(model, law: InputLaw) -> list[Sample]:
    """With log-probs as the model gives them that sampled."""
    samples = []
    for number in range(ROLLOUTS):
        prompt = list(range(5 + number, 14 + 2 * number))
        record = think(model, prompt, law, KINDS, 100 + number)
        with torch.no_grad():
            scores = replayed(model, prompt, record)
        response = record.rows.emitted_N.tolist()
        old = scores.log_probs_T.numpy()
        samples.append(Sample(prompt, response, old, 1.0, thoughts=record))
    return samples


def engine_fields(rank: int, model, pickled: bytes, overrides: list[str], packed: bool) -> dict:
    """By law and what the hook does: what the trainer gets of every sample."""
    from verl.workers.utils.padding import response_from_nested

    from rsp_rl.injection import thought_hook
    from rsp_rl.training.verl_plugin import actor_engine
    from rsp_rl.training.verl_plugin.thought_replay import GAP_KEY, ThoughtReplay, gap_fields

    engine, _ = make_engine(model, *overrides)
    results, writes = {}, thought_hook.overwrite_rows
    hooks = {
        "right": writes,
        "forgetful": lambda output, *rows: output,
        "confused": lambda output, at, rows: writes(output, at, rows.roll(1, 0)),
        "without records": writes,
    }
    nobody = SimpleNamespace(of=lambda *_: None)
    for law, samples in pickle.loads(pickled).items():
        fields = gap_fields(samples[0].thoughts.law)
        settings = {GAP_KEY: fields, FORGOTTEN_KEY: (THOUGHTS,), "use_remove_padding": packed}
        settings |= {"use_dynamic_bsz": False, "micro_batch_size_per_gpu": SIZE}
        for how, thought_hook.overwrite_rows in hooks.items():
            data = training_batch(samples, **settings)
            actor_engine.ThoughtReplay = nobody if how == "without records" else ThoughtReplay
            with engine.eval_mode():
                output = engine.infer_batch(data)["model_output"]
            results[law, how] = {
                field: response_from_nested(values, data["response_mask"])
                .to_padded_tensor(0)
                .float()
                .numpy()
                for field, values in output.items()
            }
    return results


def numbers(samples: Sequence[Sample], found: dict[str, np.ndarray]) -> dict[str, float]:
    """What the trainer's first step has."""
    from rsp_rl.training.verl_plugin.thought_replay import FLIP_FIELD, GAP_FIELD

    law = samples[0].thoughts.law
    fields = {name: torch.from_numpy(values) for name, values in found.items()}
    return step_metrics(
        StepSamples(
            rollout_log_probs=torch.tensor(np.stack([s.old_log_probs for s in samples])),
            actor_log_probs=fields["log_probs"],
            response_mask=torch.tensor([s.mask for s in samples]),
            rewards=torch.zeros(len(samples)),
            soft_prompt_lengths=torch.zeros(len(samples)),
            thoughts=StepThoughts(
                torch.stack([s.thoughts.rows.thought_N for s in samples]),
                law.k if isinstance(law, Multiplex) else 1,
                fields.get(GAP_FIELD),
                fields.get(FLIP_FIELD),
                fields[FORGOTTEN_FIELDS[THOUGHTS]],
            ),
        )
    )


def check(metrics: dict[str, float]) -> None:
    """As the trainer does."""
    check_gap(metrics, GuardOptions(), 1)
    check_thoughts(metrics, ThoughtGuard(), GuardOptions(), 1)
    check_not_forgotten(metrics, GuardOptions(), 1)


@pytest.mark.parametrize(
    ("dtype", "overrides", "packed"),
    [
        (torch.float32, [], True),
        (
            torch.bfloat16,
            ["actor_rollout_ref.actor.fsdp_config.mixed_precision.param_dtype=bf16"],
            False,
        ),
    ],
    ids=["fp32, packed", "bf16, padded"],
)
def test_an_actor_without_the_rollouts_thoughts_is_stopped(
    tmp_path, dtype: torch.dtype, overrides: list[str], packed: bool
) -> None:
    folder = make_random_model(tmp_path / "tiny")
    model = load(folder, dtype)
    by_law = {name: rollouts(model, law) for name, law in LAWS.items()}
    arguments = (folder, pickle.dumps(by_law), overrides, packed)
    (results,) = run_on_ranks(engine_fields, 1, *arguments)
    for law, samples in by_law.items():
        right = numbers(samples, results[law, "right"])
        check(right)
        gap, would = right["rsp/law/compared_gap_mean"], right["rsp/law/forgotten_gap_mean"]
        assert gap < 0.1 * would
        # A rollout's first thought has the same inputs before it.
        assert 0 < right["rsp/law/compared"] <= SIZE * 19
        forgetful = numbers(samples, results[law, "forgetful"])
        with pytest.raises(PolicyMismatchError, match="no nearer to the one"):
            check_not_forgotten(forgetful, GuardOptions(), 1)
        for how in ("confused", "without records"):
            with pytest.raises(PolicyMismatchError):
                check(numbers(samples, results[law, how]))
        if law.startswith("gumbel"):  # which the bound of gaps does not see
            check_gap(forgetful, GuardOptions(), 1)
