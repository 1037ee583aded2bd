"""A run's folder has one run at a time, and a start that is refused leaves it as it was."""

from __future__ import annotations

import re
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from rsp_rl.basics import exit_status
from rsp_rl.basics.errors import ConfigError
from rsp_rl.basics.package_files import CONFIGS
from rsp_rl.evaluation.trained_run import TrainedRun
from rsp_rl.runs.folder import RunFolder
from rsp_rl.training import preparation, train
from rsp_rl.training.configs import compose_config

HOLDER = (
    "import sys\nfrom omegaconf import OmegaConf\nfrom rsp_rl.training.run_claim import claimed\n"
    "with claimed(OmegaConf.create({'run_dir': sys.argv[1]})):\n"
    "    print('held', flush=True)\n    sys.stdin.read()"
)


def start(config: DictConfig) -> int:
    """What a start of a run that gets no further than its checks ends with."""
    with pytest.raises(SystemExit) as ended, ExitStack() as held:
        train._train(config, held)
    return ended.value.code


def test_a_second_run_is_refused_and_touches_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(preparation, "prepare", lambda _: pytest.fail("prepared over another run"))
    config = compose_config("tiny_cpu", [f"run_dir={tmp_path}"])
    metrics = RunFolder(tmp_path).metrics
    metrics.write_text('{"step": 1, "data": {}}\n')
    other = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with other:
        assert other.stdout.readline() == b"held\n"
        assert start(config) == exit_status.WOULD_COME_AGAIN
        other.kill()
    assert capsys.readouterr().err.startswith(f"error: {tmp_path} is being written by another")
    assert metrics.read_text() == '{"step": 1, "data": {}}\n'
    assert not (tmp_path / "config").exists()


@pytest.mark.parametrize(
    ("folder", "said"),
    [
        (None, "error: run_dir=None names no folder"),
        ("", "error: run_dir='' names no folder"),
        ("file", "error: [Errno 17] File exists: "),
        ("file/below", "error: [Errno 20] Not a directory: "),
    ],
)
def test_a_folder_that_cannot_be(
    folder: str | None,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    assert start(OmegaConf.create({"run_dir": folder})) == exit_status.WOULD_COME_AGAIN
    assert capsys.readouterr().err.startswith(said)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        (
            "trainer.save_frq=1",
            "the config does not compose: Could not override 'trainer.save_frq'",
        ),
        ("trainer.save_freq=[1", "the config does not compose: no viable alternative"),
        ("rsp=null", "the config does not compose: Config group override must be"),
        ("run_dir=null", "the config does not compose: While dereferencing .*hydra.run.dir"),
        ("run_dir=FILE", r"\[Errno 17\] File exists"),
    ],
)
def test_what_hydra_refuses_is_one_line_and_never_retried(
    override: str,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    file = tmp_path / "file"
    file.touch()
    override = override.replace("FILE", str(file))
    monkeypatch.setattr(sys, "argv", ["train", "--config-name", "tiny_cpu", override])
    GlobalHydra.instance().clear()
    try:
        with pytest.raises(SystemExit) as ended:
            train.run()
    finally:
        GlobalHydra.instance().clear()
    assert ended.value.code == exit_status.WOULD_COME_AGAIN
    assert re.fullmatch(rf"error: {said}.*\n", capsys.readouterr().err)


def test_settings_that_verl_refuses_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: object) -> None:
        raise AssertionError("in call to target 'A':\nno micro-batch\nfull_key: actor")

    monkeypatch.setattr("verl.utils.config.validate_config", refuse)
    with pytest.raises(ConfigError, match=r"verl refuses .*'A': no micro-batch full"):
        train.run_training(compose_config("tiny_cpu"))


def test_a_refused_start_leaves_the_config_of_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = tmp_path / "config" / "config.yaml"
    kept.parent.mkdir()
    kept.write_text("trainer: {total_training_steps: 30}\n")

    def refuse(_: DictConfig) -> RunFolder:
        raise ConfigError("refused")

    monkeypatch.setattr(preparation, "prepare", refuse)
    overrides = [f"run_dir={tmp_path}", "trainer.total_training_steps=7"]
    assert start(compose_config("tiny_cpu", overrides)) == exit_status.WOULD_COME_AGAIN
    assert kept.read_text() == "trainer: {total_training_steps: 30}\n"


@pytest.mark.parametrize(
    ("error", "said", "code"),
    [
        (ConfigError("no such metric"), "error: no such metric\n", exit_status.WOULD_COME_AGAIN),
        (AssertionError("len"), "error: AssertionError: len\n", exit_status.WOULD_COME_AGAIN),
        (RuntimeError("NCCL"), "error: RuntimeError: NCCL\n", exit_status.BROKEN),
    ],
)
def test_a_run_that_fails_ends_with_its_cause(
    error: Exception,
    said: str,
    code: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(_: DictConfig) -> None:
        raise error

    monkeypatch.setattr(preparation, "prepare", lambda _: RunFolder(tmp_path))
    monkeypatch.setattr(train, "keep_config", lambda *_: None)
    monkeypatch.setattr(train, "run_training", fail)
    assert start(OmegaConf.create({"run_dir": str(tmp_path)})) == code
    assert capsys.readouterr().err.endswith(said)


@pytest.mark.parametrize("name", ["dapo", "dapo_rsp", "tiny_cpu"])
def test_a_start_that_passes_keeps_what_hydra_composed(name: str, tmp_path: Path) -> None:
    """As Hydra itself would, which must not write it: see the configs."""
    overrides = [f"run_dir={tmp_path}", "trainer.total_training_steps=7"]
    config = compose_config(name, overrides)
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONFIGS), version_base=None):
        loader = GlobalHydra.instance().config_loader()
        whole = loader.load_configuration(name, overrides, run_mode=1)
    HydraConfig.instance().set_config(whole)
    assert whole.hydra.output_subdir is None
    train.keep_config(OmegaConf.to_yaml(config), tmp_path)
    kept = tmp_path / "config"
    assert sorted(file.name for file in kept.iterdir()) == [
        *("config.yaml", "hydra.yaml", "overrides.yaml")
    ]
    assert OmegaConf.load(kept / "overrides.yaml") == overrides
    assert OmegaConf.load(kept / "hydra.yaml").hydra.runtime.cwd == str(Path.cwd())
    assert TrainedRun.open(tmp_path).last_step() == 7
