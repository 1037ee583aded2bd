"""The first micro-batch without its soft prompts: by verl's real engine, in all of its layouts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from parity.actor import Sample, make_engine, training_batch
from parity.models import make_random_model
from parity.ranks import run_on_ranks
from tests.unit.training.verl_plugin.test_actor_engine import make_samples

FIXED = {"use_dynamic_bsz": False, "micro_batch_size_per_gpu": 2}
ULYSSES = "actor_rollout_ref.actor.fsdp_config.ulysses_sequence_parallel_size=2"


def engine_fields(rank: int, model, of_ranks: list[list[Sample]], overrides, settings) -> dict:
    """What a rank's batch gets: unasked, asked, and if there were no soft prompts in it."""
    from rsp_rl.training.verl_plugin.forgetting import FORGOTTEN_KEY, SOFT_PROMPTS

    engine, _ = make_engine(model, *overrides)
    samples = of_ranks[rank % len(of_ranks)]
    without = [replace(sample, record=None) for sample in samples]
    batches = {
        "unasked": training_batch(samples, **settings),
        "asked": training_batch(samples, **settings, **{FORGOTTEN_KEY: (SOFT_PROMPTS,)}),
        "without": training_batch(without, **settings),
    }
    found = {}
    for name, data in batches.items():
        torch.manual_seed(3)
        with engine.eval_mode():
            output = engine.infer_batch(data)["model_output"]
        found[name] = {
            field: [row.numpy() for row in values.unbind()] for field, values in output.items()
        } | {"random": torch.rand(4).numpy()}
    return found


@pytest.mark.parametrize(
    ("ranks", "overrides", "settings"),
    [
        (1, [], FIXED | {"use_remove_padding": True}),
        (1, [], FIXED | {"use_remove_padding": False}),
        (1, [], {"use_dynamic_bsz": True, "max_token_len_per_gpu": 32}),
        (1, ["actor_rollout_ref.model.lora_rank=4"], FIXED | {"use_remove_padding": True}),
        (2, [], FIXED | {"use_remove_padding": True}),
        (2, [ULYSSES], FIXED | {"use_remove_padding": True}),
    ],
    ids=["packed", "padded", "dynamic", "lora", "two ranks", "ulysses"],
)
def test_log_probs_without_soft_prompts(tmp_path, ranks, overrides, settings) -> None:
    from rsp_rl.training.verl_plugin.forgetting import FORGOTTEN_FIELDS, SOFT_PROMPTS

    folder = make_random_model(tmp_path / "tiny")
    of_ranks = [make_samples()]
    if ranks == 2 and not overrides:  # the second has padding samples alone
        of_ranks.append([replace(sample, trained=False) for sample in make_samples()])
    results = run_on_ranks(engine_fields, ranks, folder, of_ranks, overrides, settings)
    for found, samples in zip(results, of_ranks, strict=False):
        asked = found["asked"]
        forgotten = asked.pop(FORGOTTEN_FIELDS[SOFT_PROMPTS])
        # Nothing else knows of it.
        for field, rows in found["unasked"].items():
            for before, after in zip(rows, asked.pop(field), strict=True):
                np.testing.assert_array_equal(before, after)
        assert not asked
        known = [not np.isnan(row).all() for row in forgotten]
        size = settings.get("micro_batch_size_per_gpu")
        assert sum(known) == size if size else 0 < sum(known) < len(samples)
        columns = (
            known,
            samples,
            forgotten,
            found["without"]["log_probs"],
            found["unasked"]["log_probs"],
        )
        for is_known, sample, row, without, own in zip(*columns, strict=True):
            if not is_known:
                continue
            np.testing.assert_array_equal(row, without)
            moved = not np.array_equal(row, own)
            assert moved == bool(sample.record.length and sample.trained)
