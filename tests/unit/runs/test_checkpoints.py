"""Which checkpoint a run resumes from, and that both follow the same law."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf
from transformers import Qwen2Config

from rsp_rl.basics.errors import ConfigError, RunFolderError
from rsp_rl.basics.files import write_json
from rsp_rl.dials.options import RspOptions
from rsp_rl.dials.schedule import Schedule
from rsp_rl.runs.checkpoints import (
    check_law,
    check_model_of,
    checkpoint_to_resume,
    finished_checkpoints,
    merge_checkpoint,
    save_law,
    saved_law,
)

OPTIONS = RspOptions(length=8, mean=0.001, std=0.02)


def test_same_law_resumes(tmp_path: Path) -> None:
    save_law(tmp_path, OPTIONS)
    check_law(tmp_path, OPTIONS)
    # What does not decide the draws may change.
    check_law(tmp_path, replace(OPTIONS, validation=True))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("length", 4), ("length", 0), ("position", "prefix"), ("scale", 2.0)),
        *(("mode", "shared"), ("seed", 1), ("mean", 0.5), ("law", "sphere"), ("mixing", "half")),
        *(("probability", 0.5), ("length_schedule", Schedule("linear", 4, 9))),
        *(("scale_schedule", Schedule("cosine", 0, 9)), ("table_digest", "0" * 16)),
    ],
)
def test_another_law_is_refused(tmp_path: Path, name: str, value: object) -> None:
    save_law(tmp_path, OPTIONS)
    with pytest.raises(ConfigError, match=f"rsp.{name}=.* but .*resume with rsp.{name}="):
        check_law(tmp_path, replace(OPTIONS, **{name: value}))


def test_dials_resume_and_a_table_may_move(tmp_path: Path) -> None:
    options = replace(
        OPTIONS, length_schedule=Schedule("cosine", 0, 30), law="vocab", table_digest="0" * 16
    )
    save_law(tmp_path, replace(options, table="/here"))
    check_law(tmp_path, replace(options, table="/there"))


def test_a_checkpoint_from_before_the_dials_had_none(tmp_path: Path) -> None:
    names = ("length", "position", "scale", "mode", "seed", "mean", "std")
    law = {name: getattr(OPTIONS, name) for name in names}
    (tmp_path / "rsp.json").write_text(json.dumps(law))
    check_law(tmp_path, OPTIONS)
    with pytest.raises(ConfigError, match=r"rsp\.law=fixed but .* trained with gaussian"):
        check_law(tmp_path, replace(OPTIONS, law="fixed"))


def test_without_soft_prompts_there_is_no_law_to_break(tmp_path: Path) -> None:
    save_law(tmp_path, RspOptions(length=0))
    check_law(tmp_path, RspOptions(length=0, position="prefix", seed=7))
    with pytest.raises(ConfigError, match=r"rsp\.length=8 but"):
        check_law(tmp_path, OPTIONS)


def test_a_checkpoint_of_plain_verl_is_taken_as_it_is(tmp_path: Path) -> None:
    assert saved_law(tmp_path) is None
    check_law(tmp_path, OPTIONS)


def test_damaged_law(tmp_path: Path) -> None:
    (tmp_path / "rsp.json").write_text("{")
    with pytest.raises(RunFolderError, match=r"rsp\.json is damaged"):
        check_law(tmp_path, OPTIONS)


def _config(folder: Path, mode: str = "auto", path: object = None) -> DictConfig:
    trainer = {"default_local_dir": str(folder), "resume_mode": mode, "resume_from_path": path}
    return OmegaConf.create({"trainer": trainer})


def test_the_newest_whole_checkpoint_is_resumed(tmp_path: Path) -> None:
    assert checkpoint_to_resume(_config(tmp_path)) is None
    for step in (10, 20):
        (tmp_path / f"global_step_{step}").mkdir()
    assert checkpoint_to_resume(_config(tmp_path)) is None  # none was finished
    (tmp_path / "latest_checkpointed_iteration.txt").write_text("10")
    assert checkpoint_to_resume(_config(tmp_path)) == tmp_path / "global_step_10"
    assert checkpoint_to_resume(_config(tmp_path, "disable")) is None
    wanted = tmp_path / "global_step_20"
    assert checkpoint_to_resume(_config(tmp_path, "resume_path", str(wanted))) == wanted


def test_a_missing_checkpoint_is_not_passed_over(tmp_path: Path) -> None:
    (tmp_path / "latest_checkpointed_iteration.txt").write_text("30")
    with pytest.raises(RunFolderError, match="names global_step_30, which is missing"):
        checkpoint_to_resume(_config(tmp_path))


@pytest.mark.parametrize("path", [None, "", "/nowhere/global_step_1", "."])
def test_bad_resume_path(tmp_path: Path, path: str | None) -> None:
    with pytest.raises(ConfigError, match=r"resume_from_path=.* is no checkpoint"):
        checkpoint_to_resume(_config(tmp_path, "resume_path", path))


# Checkpoints as models.


def _checkpoint(folder: Path, step: int, weights: str = "model_world_size_1_rank_0.pt") -> Path:
    checkpoint = folder / f"global_step_{step}"
    (checkpoint / "actor" / "huggingface").mkdir(parents=True)
    if weights:
        (checkpoint / "actor" / weights).write_bytes(b"weights")
    return checkpoint


def test_finished_checkpoints_hold_weights_and_are_not_being_saved(tmp_path: Path) -> None:
    assert finished_checkpoints(tmp_path) == {}
    ten, _, nine = (_checkpoint(tmp_path, step) for step in (10, 20, 9))
    _checkpoint(tmp_path, 8, weights="")  # pruned by verl
    saved = _checkpoint(tmp_path, 7, weights="huggingface/model.safetensors")
    (tmp_path / "global_step_x").mkdir()
    assert finished_checkpoints(tmp_path) == {}  # the first one is still being saved
    (tmp_path / "latest_checkpointed_iteration.txt").write_text("")  # opened, not yet written
    assert finished_checkpoints(tmp_path) == {}
    (tmp_path / "latest_checkpointed_iteration.txt").write_text("10\n")
    found = finished_checkpoints(tmp_path)
    assert found == {7: saved, 9: nine, 10: ten}
    assert list(found) == [7, 9, 10]


def test_a_model_that_verl_saved_itself_is_not_converted_again(tmp_path: Path) -> None:
    checkpoint = _checkpoint(tmp_path, 7, weights="huggingface/model.safetensors")
    assert merge_checkpoint(checkpoint) == checkpoint / "actor" / "huggingface"


def test_a_conversion_that_was_cut_off_is_not_taken_for_a_finished_one(tmp_path: Path) -> None:
    """What is no checkpoint is one error, and nothing is left behind."""
    checkpoint = _checkpoint(tmp_path, 7)
    (checkpoint / ".merged.partial").mkdir()
    (checkpoint / ".merged.partial" / "model.safetensors").write_bytes(b"half")
    with pytest.raises(RunFolderError, match=r"global_step_7/actor cannot be read as a checkpoint"):
        merge_checkpoint(checkpoint)
    assert not (checkpoint / "merged").exists()
    assert not (checkpoint / ".merged.partial").exists()


@pytest.mark.parametrize(
    ("change", "rank", "cause"),
    [
        ({}, 0, None),
        ({"hidden_size": 32}, 0, "with hidden_size=16, and .* has 32"),
        ({"num_hidden_layers": 3}, 0, "num_hidden_layers"),
        ({"rms_norm_eps": 1e-5}, 0, None),  # no width
        ({}, 8, "adapter of rank 0 .* asks for rank 8"),
    ],
)
def test_the_weights_of_another_model_are_refused(
    change: dict, rank: int, cause: str | None, tmp_path: Path
) -> None:
    kept = tmp_path / "global_step_1" / "actor" / "huggingface"
    widths = {"hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 2}
    Qwen2Config(**widths).save_pretrained(kept)
    if cause is None:
        check_model_of(tmp_path / "global_step_1", Qwen2Config(**widths | change), (rank, 16))
    else:
        with pytest.raises(ConfigError, match=cause):
            check_model_of(tmp_path / "global_step_1", Qwen2Config(**widths | change), (rank, 16))


def test_an_adapter_has_the_rank_and_alpha_that_it_was_saved_with(tmp_path: Path) -> None:
    checkpoint = tmp_path / "global_step_1"
    model = Qwen2Config(hidden_size=16, num_attention_heads=2)
    check_model_of(checkpoint, model, (8, 16))  # it does not say
    model.save_pretrained(checkpoint / "actor" / "huggingface")
    write_json(checkpoint / "actor" / "lora_train_meta.json", {"r": 8, "lora_alpha": 16})
    check_model_of(checkpoint, model, (8, 16))
    check_model_of(checkpoint, model, None)
    for other in ((4, 16), (8, 32), (0, 16)):
        with pytest.raises(ConfigError, match="rank 8 and alpha 16, and the run asks for rank"):
            check_model_of(checkpoint, model, other)
