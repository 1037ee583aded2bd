"""The first micro-batch without its soft prompts: by verl's real engine, in all of its layouts."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch

from parity.actor import Sample, make_engine, training_batch
from parity.models import make_random_model
from parity.ranks import run_on_ranks
from rsp_rl.thoughts.laws.multiplex import Multiplex
from rsp_rl.thoughts.laws.noisy import Soft
from tests.thinking import PLACEHOLDER, think
from tests.unit.training.verl_plugin.test_actor_engine import (
    make_noisy_samples,
    make_record,
    make_samples,
)

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
    compare_without(tmp_path, ranks, overrides, settings, make_samples)


def test_log_probs_without_noise_on_the_question(tmp_path) -> None:
    """Over two ranks that a sequence is cut for."""
    settings = FIXED | {"use_remove_padding": True}
    compare_without(tmp_path, 2, [ULYSSES], settings, make_noisy_samples)


def compare_without(tmp_path, ranks, overrides, settings, make_samples) -> None:
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


def thinking_fields(rank: int, model, pickled: bytes) -> dict:
    """Of two ranks, one of which has no thoughts: by what is asked and given."""
    from rsp_rl.training.verl_plugin.forgetting import FORGOTTEN_KEY, SOFT_PROMPTS, THOUGHTS
    from rsp_rl.training.verl_plugin.thought_replay import GAP_KEY, gap_fields

    engine, _ = make_engine(model)
    found = {}
    for law, of_ranks in pickle.loads(pickled).items():
        samples = of_ranks[rank]
        without = [replace(sample, record=None) for sample in samples]
        settings = FIXED | {GAP_KEY: gap_fields(samples[0].thoughts.law)}
        both = {FORGOTTEN_KEY: (THOUGHTS, SOFT_PROMPTS)}
        for name, batch in (
            ("unasked", training_batch(samples, **settings)),
            ("asked", training_batch(samples, **settings, **both)),
            ("without", training_batch(without, **settings)),
        ):
            with engine.eval_mode():
                output = engine.infer_batch(batch)["model_output"]
            found[law, name] = {
                field: [row.numpy() for row in values.unbind()] for field, values in output.items()
            }
    return found


def test_thoughts_and_soft_prompts_are_forgotten_one_at_a_time(tmp_path) -> None:
    from transformers import AutoModelForCausalLM

    from rsp_rl.training.verl_plugin.forgetting import FORGOTTEN_FIELDS, SOFT_PROMPTS, THOUGHTS

    folder = make_random_model(tmp_path / "tiny")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    laws = {"multiplex": Multiplex(k=3), "soft": Soft(rms=0.2)}
    by_law = {}
    for name, law in laws.items():
        of_ranks = by_law[name] = []
        for kinds in ("ttttaa", "aaaa"):
            samples = []
            for number in range(4):
                prompt = [5, 6, PLACEHOLDER, PLACEHOLDER, PLACEHOLDER, 7 + number]
                record = make_record(seed=number)
                thoughts = think(model, prompt, law, kinds, number, record)
                response = thoughts.rows.emitted_N.tolist()
                samples.append(
                    Sample(prompt, response, np.zeros(len(kinds)), 1.0, record, thoughts=thoughts)
                )
            of_ranks.append(samples)
    results = run_on_ranks(thinking_fields, 2, folder, pickle.dumps(by_law))
    for law in laws:
        for rank, found in enumerate(results):
            asked = found[law, "asked"]
            soft = asked.pop(FORGOTTEN_FIELDS[SOFT_PROMPTS])
            thought = asked.pop(FORGOTTEN_FIELDS[THOUGHTS])
            for field, rows in found[law, "unasked"].items():
                np.testing.assert_array_equal(rows, asked.pop(field))
            assert not asked
            np.testing.assert_array_equal(soft[:2], found[law, "without"]["log_probs"][:2])
            assert np.isnan([soft[2:], thought[2:]]).all()
            # Of four thoughts the first has the same inputs before it.
            assert (~np.isnan(thought[:2])).sum() == (0 if rank else 2 * 3)
