"""Stored outputs under the prompts and draws of their making, against the engine that made them."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from rsp_rl.analysis.conditions import Condition, open_conditions, position_name
from rsp_rl.analysis.spans import question_positions, reasoning_length
from rsp_rl.analysis.teacher_forcing import ForcedModel, Trajectory
from rsp_rl.basics.errors import ConfigError, RunFolderError
from rsp_rl.basics.files import read_json, write_json
from rsp_rl.evaluation.samples import read_samples, write_samples
from rsp_rl.models.folder import load_tokenizer
from rsp_rl.models.weights import weights_digest
from rsp_rl.placement.prompt import POSITIONS
from rsp_rl.tiny import make_tiny_model
from tests.projected_model import make_projected_model
from tests.tolerances import FORWARD


def copied(condition: Condition, target: Path) -> Condition:
    """The same evaluation elsewhere, to be changed."""
    shutil.copytree(condition.root.parent, target)
    (copy,) = open_conditions([str(target)], position_name)
    return copy


@pytest.mark.parametrize("name", ["baseline", *POSITIONS])
def test_greedy_answers_are_the_likeliest_tokens(answered: dict[str, Condition], name: str) -> None:
    """Only the very prompts and draws of the generation make these tokens the likeliest."""
    model = ForcedModel(answered[name])
    trajectories = list(model.trajectories("arithmetic"))
    assert len(trajectories) == 8
    assert any(trajectory.output_ids for trajectory in trajectories)
    for trajectory in trajectories:
        assert trajectory.is_exact
        logits_NV = model.generated_logits(trajectory)
        assert len(logits_NV) == trajectory.sample["tokens"]
        likeliest = logits_NV.argmax(-1).tolist()
        assert likeliest[: len(trajectory.output_ids)] == trajectory.output_ids


def test_a_choice_of_problems_and_samples(answered: dict[str, Condition]) -> None:
    model = ForcedModel(answered["suffix"])
    asked = list(answered["suffix"].problems("arithmetic"))
    chosen = list(model.trajectories("arithmetic", problems=2, samples=1))
    assert [t.problem.id for t in chosen] == asked[:2]
    assert [t.sample["sample"] for t in chosen] == [0, 0]
    plain = list(model.questions("arithmetic", soft_prompts=False))
    assert [q.problem.id for q in plain] == asked
    assert all(q.request.record is None for q in plain)


@pytest.mark.parametrize("name", ["baseline", *POSITIONS])
def test_the_questions_tokens_are_found(answered: dict[str, Condition], name: str) -> None:
    model = ForcedModel(answered[name])
    for trajectory in model.trajectories("arithmetic"):
        request, question = trajectory.request, trajectory.problem.question
        positions = question_positions(model.tokenizer, request, question)
        text = model.tokenizer.decode([request.token_ids[i] for i in positions])
        assert text.strip() == question  # a token may hold the blank before it
        if request.record:
            soft = range(request.record.start, request.record.start + request.record.length)
            assert not set(soft) & set(positions)
    with pytest.raises(ConfigError, match="cannot be told from the rest of its prompt"):
        question_positions(model.tokenizer, request, "Another question")


@pytest.mark.parametrize(
    ("output", "reasoning"),
    [
        ("3+4=7\n\\boxed{7}", "3+4=7\n"),
        ("\\boxed{1} no: 2+2=4\n\\boxed{4}", "\\boxed{1} no: 2+2=4\n"),
        ("3+4=7", "3+4=7"),
        ("\\boxed{7}", ""),
    ],
)
def test_reasoning_ends_before_the_last_box(
    model: Path, answered: dict[str, Condition], output: str, reasoning: str
) -> None:
    tokenizer = load_tokenizer(model)
    encoded = tokenizer(output, add_special_tokens=False, return_offsets_mapping=True)
    sample = {"output": output, "finish_reason": "stop", "tokens": 1}
    trajectory = Trajectory(None, sample, None, encoded.input_ids, encoded.offset_mapping)
    length = reasoning_length(trajectory)
    kept = tokenizer.decode(encoded.input_ids[:length])
    assert reasoning.startswith(kept)
    assert len(reasoning) - len(kept) <= 1  # a token that reaches into the box is no reasoning


def test_tokens_that_were_chosen(answered: dict[str, Condition]) -> None:
    """The token that ended an answer was chosen as well; nothing after one that was cut off."""
    model = ForcedModel(answered["suffix"])
    trajectory = next(t for t in model.trajectories("arithmetic") if len(t.output_ids) > 2)
    stopped = replace(trajectory, sample={**trajectory.sample, "finish_reason": "stop"})
    assert stopped.generated == len(stopped.output_ids) + 1
    cut_off = replace(stopped, sample={**stopped.sample, "finish_reason": "length"})
    assert cut_off.generated == len(stopped.output_ids)
    assert stopped.is_exact != cut_off.is_exact
    whole, cut = model.generated_logits(stopped), model.generated_logits(cut_off)
    assert cut.shape == whole[:-1].shape
    assert (cut - whole[:-1]).abs().max() <= FORWARD


def test_another_model_is_refused(
    answered: dict[str, Condition], tmp_path: Path, model: Path
) -> None:
    other = make_tiny_model(tmp_path / "other", steps=0, seed=1, threads=1)
    with pytest.raises(RunFolderError, match="is not the model that answered"):
        ForcedModel(answered["suffix"], model=str(other))
    ForcedModel(answered["suffix"], model=str(model))


def test_another_prompt_is_refused(answered: dict[str, Condition], tmp_path: Path) -> None:
    condition = copied(answered["suffix"], tmp_path / "copy")
    file = condition.step.samples("arithmetic")
    write_samples(file, [{**s, "prompt_hash": "0" * 16} for s in read_samples(file)])
    with pytest.raises(RunFolderError, match="with another prompt"):
        next(ForcedModel(condition).trajectories("arithmetic"))


def test_a_folder_without_the_law_of_its_draws(
    answered: dict[str, Condition], tmp_path: Path
) -> None:
    condition = copied(answered["suffix"], tmp_path / "copy")
    manifest = read_json(condition.step.manifest)
    del manifest["law"]
    condition.step.manifest.write_text(json.dumps(manifest))
    (condition,) = open_conditions([str(tmp_path / "copy")], position_name)
    with pytest.raises(RunFolderError, match="lacks 'law'"):
        next(ForcedModel(condition).trajectories("arithmetic"))


def test_embeddings_of_another_width_are_refused(
    answered: dict[str, Condition], tmp_path: Path, model: Path
) -> None:
    folder = make_projected_model(tmp_path / "opt", load_tokenizer(model))
    condition = copied(answered["suffix"], tmp_path / "copy")
    manifest = read_json(condition.step.manifest)
    manifest |= {"model": str(folder), "weights": weights_digest(folder)}
    write_json(condition.step.manifest, manifest)
    (condition,) = open_conditions([str(tmp_path / "copy")], position_name)
    with pytest.raises(ConfigError, match=r"16 wide, the hidden states .* for 32"):
        ForcedModel(condition)
