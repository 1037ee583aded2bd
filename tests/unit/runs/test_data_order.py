"""A run that resumes takes its prompts in the order that its checkpoint's place belongs to."""

from __future__ import annotations

import copy
import shutil
from functools import cache
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf

from rsp_rl.basics.errors import ConfigError
from rsp_rl.runs.data_order import (
    FORGET,
    ROWS,
    check_order,
    data_order,
    differences,
    save_order,
    saved_order,
)
from rsp_rl.training.configs import compose_config


@pytest.fixture
def files(tmp_path: Path) -> Path:
    for name in ("train", "val", "other"):
        (tmp_path / f"{name}.parquet").write_bytes(name.encode() * 9)
    (tmp_path / "global_step_4").mkdir()
    return tmp_path


@cache
def _composed() -> DictConfig:
    return compose_config("tiny_cpu")


def config(files: Path, **changes: object) -> DictConfig:
    paths = {f"data.{name}_files": str(files / f"{name}.parquet") for name in ("train", "val")}
    composed = copy.deepcopy(_composed())
    for key, value in {**paths, **changes}.items():
        OmegaConf.update(composed, key, value)
    return composed


def test_the_same_data_elsewhere_is_the_same(files: Path) -> None:
    checkpoint = files / "global_step_4"
    save_order(checkpoint, data_order(config(files)) | {ROWS: 9})
    shutil.copytree(files, files / "moved")
    moved = data_order(config(files / "moved")) | {ROWS: 9}
    assert check_order(checkpoint, moved, forget=False) is None
    assert saved_order(checkpoint) == moved


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("data.train_batch_size", 32, "data.train_batch_size=32, there 16"),
        ("data.gen_batch_size", 4, "data.gen_batch_size=4, there None"),
        ("data.seed", 7, "data.seed=7, there 42"),
        ("data.shuffle", False, "data.shuffle=False, there True"),
        ("data.train_max_samples", 5, "data.train_max_samples=5, there -1"),
        ("data.dataloader_num_workers", 2, "data.dataloader_num_workers=2, there 0"),
        ("algorithm.filter_groups.enable", True, "filter_groups.enable=True, there False"),
        ("trainer.v1.trainer_mode", "rsp_async", "trainer_mode=rsp_async, there rsp_sync"),
        ("data.train_files", "other", "data.train_files hold other bytes"),
        ("data.train_files", ["train", "other"], "data.train_files hold other bytes"),
    ],
)
def test_what_makes_another_order_is_refused_or_given_up_in_words(
    files: Path, name: str, value: object, said: str
) -> None:
    checkpoint = files / "global_step_4"
    save_order(checkpoint, data_order(config(files)))
    if name == "data.train_files":
        named = [value] if isinstance(value, str) else value
        value = [str(files / f"{each}.parquet") for each in named]
    other = data_order(config(files, **{name: value}))
    with pytest.raises(ConfigError, match=rf"{said}\).*{FORGET}=True.*gives up"):
        check_order(checkpoint, other, forget=False)
    told = check_order(checkpoint, other, forget=True)
    assert said in told
    assert "come again" in told


def test_rows_that_another_tokenizer_filters_make_another_order(files: Path) -> None:
    order = data_order(config(files))
    assert differences(order | {ROWS: 9}, order | {ROWS: 8}) == [ROWS]
    assert differences(order | {ROWS: 9}, order) == []


def test_other_validation_files_are_said(files: Path) -> None:
    checkpoint = files / "global_step_4"
    save_order(checkpoint, data_order(config(files)))
    other = data_order(config(files, **{"data.val_files": str(files / "other.parquet")}))
    assert "of other problems" in check_order(checkpoint, other, forget=False)


def test_a_checkpoint_from_before_is_of_the_one_trainer_that_there_was(files: Path) -> None:
    """Its place counts batches, and the asynchronous trainer's single prompts."""
    checkpoint, order = files / "global_step_4", data_order(config(files))
    before = {name: value for name, value in order.items() if name != "trainer.v1.trainer_mode"}
    save_order(checkpoint, before)
    assert check_order(checkpoint, order, forget=False) is None
    other = data_order(config(files, **{"trainer.v1.trainer_mode": "rsp_async"}))
    with pytest.raises(ConfigError, match="trainer_mode=rsp_async, there rsp_sync"):
        check_order(checkpoint, other, forget=False)


def test_a_checkpoint_that_does_not_say_is_taken_with_a_word(files: Path) -> None:
    order = data_order(config(files))
    assert "does not say" in check_order(files / "global_step_4", order, forget=False)


def test_what_is_no_file_goes_by_its_name(files: Path) -> None:
    """A class of the user's may read folders, or nothing on a disk."""
    order = data_order(config(files, **{"data.train_files": [str(files), "hub/name"]}))
    assert order["data.train_files"] == [str(files), "hub/name"]
