"""The actor's thoughts: records, layouts, log-probs and gradients by verl's real engine."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from parity.actor import Sample, make_engine, training_batch
from parity.models import make_random_model
from parity.ranks import run_on_ranks
from rsp_rl.draws.record import SoftPromptRecord
from rsp_rl.thoughts.law import InputLaw
from rsp_rl.thoughts.laws.gumbel import Gumbel
from rsp_rl.thoughts.laws.multiplex import Multiplex
from rsp_rl.thoughts.laws.neftune import Neftune
from rsp_rl.thoughts.laws.neighbours import Neighbours
from rsp_rl.thoughts.laws.noisy import Soft
from rsp_rl.thoughts.record import THOUGHT_FIELD, ThoughtRecord
from rsp_rl.thoughts.rows import Kind, Rows
from tests.thinking import PLACEHOLDER, replayed, think
from tests.tolerances import FORWARD, rounding

EOS = 4

LAWS: dict[str, InputLaw] = {
    "multiplex": Multiplex(k=3),
    "multiplex by probability": Multiplex(k=3, weighting="probability", duplicates="once"),
    "gumbel": Gumbel(k=5, tau=0.1, temperature=1.0, top_k=5),
    "gumbel, concrete": Gumbel(k=5, score="concrete", temperature=0.7),
    "gumbel, code": Gumbel(k=5, score="code", clamp=True),
    "neighbours": Neighbours(rate=0.7, share=0.5, temperature=0.7),
    "neighbours of the likeliest": Neighbours(rate=0.7, anchor="likeliest"),
    "neftune": Neftune(length=16, temperature=0.7),
    "soft": Soft(rms=0.2),
    "soft, fixed table": Soft(rms=0.2, learn_embedding=False),
}

#: Of the prompt: length, and where its soft prompt is; of the response: thoughts and tokens.
SHAPES = (
    (9, 4, 4, "tttttaa"),
    (7, 0, 3, "ttffaat"),
    (8, 5, 0, "aattttttaaa"),
    (12, 8, 4, "t"),
    (5, 1, 0, "aaa"),
    (6, 2, 2, "ttttf"),
)
ADVANTAGES = (1.0, -0.5, 2.0, -1.0, 0.3, 0.7)


@pytest.fixture(scope="module", params=[False, True], ids=["untied", "tied"])
def model(request, tmp_path_factory):
    return make_random_model(tmp_path_factory.mktemp("model") / "tiny", tied=request.param)


def load(folder):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def make_samples(folder, law: InputLaw) -> list[Sample]:
    """Rollouts with thoughts and soft prompts, and one of verl's padding samples."""
    torch_model, generator = load(folder), np.random.default_rng(5)
    samples = []
    for number, (size, start, length, kinds) in enumerate(SHAPES):
        prompt = generator.integers(5, 60, size)
        prompt[start : start + length] = PLACEHOLDER
        soft = SoftPromptRecord(number, start, length, 0.01, 0.3, "float32", PLACEHOLDER)
        record = think(torch_model, prompt.tolist(), law, kinds, 100 + number, soft)
        response = record.rows.emitted_N.tolist()
        zeros = np.zeros(len(response))
        samples.append(
            Sample(prompt.tolist(), response, zeros, ADVANTAGES[number], soft, thoughts=record)
        )
    first = samples[0]
    padding = Sample([EOS] * 15, [EOS], np.zeros(1), 0.0, first.record, False, first.thoughts)
    return [*samples, padding, padding]


# ---- records ------------------------------------------------------------------------------------


def test_a_record_travels_as_bytes_and_verls_padding_samples_have_none(model):
    from verl.trainer.ppo.padding_utils import construct_minimal_padding_template
    from verl.utils.tensordict_utils import list_of_dict_to_tensordict

    from rsp_rl.training.verl_plugin.thought_replay import decode_thoughts

    samples = make_samples(model, LAWS["gumbel"])[:3]
    batch = training_batch(samples)
    fields = ["prompts", "responses", "input_ids", "position_ids", "loss_mask", THOUGHT_FIELD]
    reals = [{field: batch[field].unbind()[row] for field in fields} for row in range(3)]
    padding, _ = construct_minimal_padding_template(reals[1], {}, eos_token_id=EOS)
    mixed = list_of_dict_to_tensordict(
        [reals[2], {field: padding[field] for field in fields}, reals[0]]
    )
    found = decode_thoughts(mixed)
    assert found[1] is None
    for record, sample in ((found[0], samples[2]), (found[2], samples[0])):
        assert record.to_bytes() == sample.thoughts.to_bytes()
        assert record.law == LAWS["gumbel"]


@pytest.mark.parametrize("fault", ["another sample's", "cut", "moved"])
def test_a_record_that_is_not_its_samples_is_an_error(model, fault):
    from rsp_rl.training.verl_plugin.thought_replay import decode_thoughts

    first, second, *_ = make_samples(model, LAWS["multiplex"])
    record = second.thoughts
    wrong = {
        "another sample's": first.thoughts,
        "cut": record.cut(3),
        "moved": ThoughtRecord(record.law, record.seed, record.start + 1, record.rows),
    }[fault]
    with pytest.raises(ValueError, match="sample 1 of a micro-batch"):
        decode_thoughts(training_batch([first, replace(second, thoughts=wrong)]))


def test_laws_do_not_mix_in_a_micro_batch(model):
    from rsp_rl.training.verl_plugin.thought_replay import ThoughtReplay

    first = make_samples(model, LAWS["multiplex"])[0]
    second = make_samples(model, Multiplex(k=3, temperature=0.5))[1]
    with pytest.raises(ValueError, match="several laws"):
        ThoughtReplay.of(training_batch([first, second]))


def by_hand(law: InputLaw, *ids: list[int]) -> Sample:
    """A rollout of thoughts of equal weights."""
    slots = torch.tensor(ids)
    rows = Rows.of_kind(law.kind, slots, torch.full(slots.shape, 1 / law.slots))
    response = slots[:, 0].tolist()
    zeros = np.zeros(len(response))
    return Sample([7, 7], response, zeros, 1.0, thoughts=ThoughtRecord(law, 1, 2, rows))


def test_forgetting_makes_something_of_thoughts_after_a_mixture() -> None:
    from rsp_rl.training.verl_plugin.thought_replay import ThoughtReplay

    law, same = Multiplex(k=3), [5, 5, 5]
    samples = [by_hand(law, same, [5, 6, 7], same, same), by_hand(law, same, same)]
    samples.append(by_hand(law, [6, 6, 5], same))
    replay = ThoughtReplay.of(training_batch(samples))
    wanted = [False, False, True, True, False, False, False, True]
    assert replay.mattering_N.tolist() == wanted


# ---- the engine ---------------------------------------------------------------------------------

LAYOUTS = {
    "packed, several": {"use_dynamic_bsz": False, "micro_batch_size_per_gpu": 2},
    "packed, dynamic": {"use_dynamic_bsz": True, "max_token_len_per_gpu": 40},
    "padded, several": {"use_dynamic_bsz": False, "micro_batch_size_per_gpu": 2},
}


def weighted(model_output, data, dp_group=None):
    """Minus each sample's advantage times its log-probs where its policy chose, summed."""
    from verl.workers.utils.padding import no_padding_2_padding

    log_probs = no_padding_2_padding(model_output["log_probs"], data)
    mask = data["response_mask"].to_padded_tensor(0)
    advantages = data["advantages"].to_padded_tensor(0)
    return -(log_probs * advantages * mask).sum(), {}


def engine_steps(rank: int, world_size: int, model, by_law, overrides: list[str]):
    """By law, layout and `detached`: log-probs and the gradient of `weighted`."""
    from verl.workers.utils.padding import response_from_nested

    from rsp_rl.training.verl_plugin.thought_replay import DETACH_KEY

    engine, _ = make_engine(model, *overrides)
    results = {}
    for law, samples in by_law.items():
        mine = samples[rank::world_size]
        for layout, settings in LAYOUTS.items():
            for detached in (False, True):
                settings = {
                    **settings,
                    DETACH_KEY: detached,
                    "use_remove_padding": layout.startswith("packed"),
                }
                data = training_batch(mine, **settings)
                with engine.eval_mode():
                    output = engine.infer_batch(data)["model_output"]
                log_probs = response_from_nested(output["log_probs"], data["response_mask"])
                with engine.train_mode():
                    engine.optimizer_zero_grad()
                    engine.forward_backward_batch(training_batch(mine, **settings), weighted)
                    gradients = {
                        name: parameter.grad.full_tensor().numpy() * world_size
                        for name, parameter in engine.module.named_parameters()
                        if parameter.grad is not None
                    }
                rows = [row.numpy() for row in log_probs.unbind()]
                results[law, layout, detached] = rows, gradients
    return results


#: Of a gradient behind a forward pass in float32: sums of up to 30 positions, of size 1 to 30.
BACKWARD = rounding(64, size=30)


@pytest.mark.parametrize(
    ("world_size", "overrides"),
    [
        (1, []),
        (2, ["actor_rollout_ref.model.enable_gradient_checkpointing=true"]),
    ],
    ids=["1 rank", "2 ranks, gradient checkpointing"],
)
def test_log_probs_and_gradients_are_those_of_a_plain_replay(model, world_size, overrides):
    by_law = {name: make_samples(model, law) for name, law in LAWS.items()}
    wanted = {}
    for law, samples in by_law.items():
        for detached in (False, True):
            plain = load(model)
            rows, loss = [], torch.zeros(())
            for sample in samples[: len(SHAPES)]:
                scores = replayed(
                    plain, sample.prompt, sample.thoughts, sample.record, detached=detached
                )
                rows.append(scores.log_probs_T.detach().numpy())
                chosen = torch.tensor(sample.mask)
                loss = loss - sample.advantage * (scores.log_probs_T * chosen).sum()
            loss.backward()
            wanted[law, detached] = (
                rows,
                {name: parameter.grad.numpy() for name, parameter in plain.named_parameters()},
            )
    by_rank = run_on_ranks(engine_steps, world_size, world_size, model, by_law, overrides)
    for rank, results in enumerate(by_rank):
        for (law, layout, detached), (found, gradients) in results.items():
            rows, slopes = wanted[law, detached]
            name = f"{law}, {layout}, {detached=}"
            # The density of noise magnifies what differs, by sqrt(d) / sigma.
            size = 100 if law.startswith("soft") else 1
            mine = range(rank, len(by_law[law]), world_size)
            for number, row in zip(mine, found, strict=True):
                if number < len(SHAPES):
                    chosen = np.array(by_law[law][number].mask, bool)
                    np.testing.assert_allclose(
                        row[chosen], rows[number][chosen], rtol=0, atol=size * FORWARD, err_msg=name
                    )
            assert gradients.keys() == slopes.keys()
            for parameter, gradient in gradients.items():
                np.testing.assert_allclose(
                    gradient,
                    slopes[parameter],
                    rtol=1e-4,
                    atol=size * BACKWARD,
                    err_msg=f"{name}: {parameter}",
                )


@pytest.mark.parametrize("law", ["multiplex", "gumbel", "soft"])
def test_the_comparison_has_teeth(model, law):
    """Tokens in the place of thoughts, and constants in that of mixtures, would be seen."""
    first = make_samples(model, LAWS[law])[0]
    grads = []
    for how in ({}, {"as_tokens": True}, {"detached": True}):
        plain = load(model)
        scores = replayed(plain, first.prompt, first.thoughts, first.record, **how)
        scores.log_probs_T.sum().backward()
        grads.append((scores.log_probs_T.detach(), plain.get_input_embeddings().weight.grad))
    (right, slope), (as_tokens, _), (_, constant) = grads
    assert (right - as_tokens)[1:].abs().max() > 0.05
    if law != "soft":  # whose inputs are constants
        assert (slope - constant).abs().max() > 0.01
    assert (np.array(first.mask) == 1).all()
    assert first.thoughts.rows.kind_N[0] not in (Kind.TOKEN, Kind.FORCED)


# ---- what is asked beside log-probs -------------------------------------------------------------


def engine_numbers(rank: int, model, by_law) -> dict:
    """By law: fields of an inference, rightly and by an actor that has tokens for thoughts."""
    from verl.workers.utils.padding import response_from_nested

    from rsp_rl.injection import thought_hook
    from rsp_rl.training.verl_plugin.thought_replay import (
        DRAWS_FIELD,
        DRAWS_KEY,
        GAP_KEY,
        draws_of_field,
        gap_fields,
    )

    engine, _ = make_engine(model)
    results = {}
    for law, samples in by_law.items():
        fields = gap_fields(samples[0].thoughts.law)
        draws = samples[0].thoughts.law.slots if law.startswith("multiplex") else 0
        settings = {GAP_KEY: fields, DRAWS_KEY: draws} | LAYOUTS["packed, several"]
        for how in ("right", "forgetful"):
            data = training_batch(samples, use_remove_padding=True, **settings)
            writes = thought_hook.overwrite_rows
            if how == "forgetful":
                thought_hook.overwrite_rows = lambda output, *rows: output
            with engine.eval_mode():
                output = engine.infer_batch(data)["model_output"]
            thought_hook.overwrite_rows = writes
            asked = ["log_probs", *fields, *([DRAWS_FIELD] if draws else [])]
            assert set(asked) == set(output.keys())
            if draws:
                output[DRAWS_FIELD] = draws_of_field(output[DRAWS_FIELD], draws)
            results[law, how] = {
                field: [
                    row.numpy()
                    for row in response_from_nested(output[field], data["response_mask"]).unbind()
                ]
                for field in asked
            }
    return results


def test_the_guards_numbers_tell_an_actor_that_forgets_the_thoughts(model) -> None:
    from rsp_rl.training.verl_plugin.thought_replay import FLIP_FIELD, GAP_FIELD

    by_law = {name: make_samples(model, law) for name, law in LAWS.items()}
    (results,) = run_on_ranks(engine_numbers, 1, model, by_law)
    for law, samples in by_law.items():
        kinds = [sample.thoughts.rows.kind_N.numpy() for sample in samples[: len(SHAPES)]]
        where = [np.isin(row, [Kind.MIX, Kind.MIX_NOISE]) for row in kinds]
        means = {}
        by_log_probs = type(samples[0].thoughts.law).gap is InputLaw.gap
        for how in ("right", "forgetful"):
            found = results[law, how]
            if by_log_probs:
                right = results[law, "right"]["log_probs"]
                apart = [
                    abs(row - wanted)[own]
                    for row, wanted, own in zip(found["log_probs"], right, where, strict=False)
                ]
            else:
                apart = [row[own] for row, own in zip(found[GAP_FIELD], where, strict=False)]
                for row, own in zip(found[GAP_FIELD], where, strict=False):
                    assert np.isnan(row[~own]).all()
            means[how] = np.concatenate(apart).mean()
        assert means["right"] < 1e-5, law
        # Mixtures of tau .1, and of neighbours by probability, are nearly their first token.
        assert means["forgetful"] > 0.02, law
        if law.startswith("soft"):
            flips = results[law, "right"][FLIP_FIELD][: len(SHAPES)]
            assert not any(row[own].any() for row, own in zip(flips, where, strict=True))


def test_draws_are_kept_apart(model) -> None:
    from rsp_rl.training.verl_plugin.draws_loss import ABSENT
    from rsp_rl.training.verl_plugin.thought_replay import DRAWS_FIELD

    samples = make_samples(model, LAWS["multiplex"])
    (results,) = run_on_ranks(engine_numbers, 1, model, {"multiplex": samples})
    plain, found = load(model), results["multiplex", "right"][DRAWS_FIELD]
    for sample, row in zip(samples[: len(SHAPES)], found, strict=False):
        scores = replayed(plain, sample.prompt, sample.thoughts, sample.record)
        thinks = sample.thoughts.rows.kind_N.numpy() == Kind.MIX
        wanted = scores.draws_TK.detach().numpy()
        chosen = np.array(sample.mask, bool)
        np.testing.assert_allclose(row[thinks], wanted[thinks], rtol=0, atol=FORWARD)
        np.testing.assert_allclose(row[chosen][:, 0], wanted[chosen][:, 0], rtol=0, atol=FORWARD)
        assert (row[~thinks][:, 1:] == ABSENT).all()


def engine_draws_update(rank: int, model, samples) -> dict[str, np.ndarray]:
    """Gradients of one update by `draws_loss` where old log-probs are the new ones."""
    from verl.workers.utils.losses import ppo_loss

    from rsp_rl.training.verl_plugin.draws_loss import DRAWS_LOSS
    from rsp_rl.training.verl_plugin.thought_replay import (
        DRAWS_FIELD,
        DRAWS_KEY,
        OLD_DRAWS_FIELD,
        draws_of_field,
        flat_draws,
    )

    engine, config = make_engine(
        model, f"actor_rollout_ref.actor.policy_loss.loss_mode={DRAWS_LOSS}"
    )
    settings = {DRAWS_KEY: 3} | LAYOUTS["packed, several"]
    data = training_batch(samples, use_remove_padding=True, **settings)
    with engine.eval_mode():
        draws = draws_of_field(engine.infer_batch(data)["model_output"][DRAWS_FIELD], 3)
    rows = [
        row[len(sample.prompt) - 1 : -1]
        for row, sample in zip(draws.unbind(), samples, strict=True)
    ]
    data = training_batch(samples, use_remove_padding=True, **settings)
    old = torch.nested.as_nested_tensor(rows, layout=torch.jagged)
    data[OLD_DRAWS_FIELD] = flat_draws(old)
    with engine.train_mode():
        engine.optimizer_zero_grad()
        engine.forward_backward_batch(data, partial(ppo_loss, config=config))
        return {
            name: parameter.grad.full_tensor().numpy()
            for name, parameter in engine.module.named_parameters()
        }


def test_an_update_by_draw_on_what_was_just_sampled_is_the_score_times_the_advantage(model) -> None:
    samples = make_samples(model, LAWS["multiplex"])
    (gradients,) = run_on_ranks(engine_draws_update, 1, model, samples)
    plain, loss, tokens = load(model), torch.zeros(()), 0
    for sample in samples[: len(SHAPES)]:
        scores = replayed(plain, sample.prompt, sample.thoughts, sample.record)
        chosen = torch.tensor(sample.mask)
        loss = loss - sample.advantage * (scores.log_probs_T * chosen).sum()
        tokens += sum(sample.mask)
    (loss / tokens).backward()
    for name, parameter in plain.named_parameters():
        np.testing.assert_allclose(
            gradients[name], parameter.grad.numpy(), rtol=1e-4, atol=BACKWARD, err_msg=name
        )
