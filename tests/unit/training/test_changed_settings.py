"""A resumed run says what it has otherwise than the start before."""

from __future__ import annotations

from pathlib import Path

import pytest

from rsp_rl.training.changed_settings import tell_changed

BEFORE = "rollout: {n: 8, top_k: 50}\ndata: {seed: 1}\nray_kwargs: {env_vars: {KEY: a}}\n"
NOW = "rollout: {n: 4, top_k: 50, top_p: 1.0}\ndata: {seed: 1}\nray_kwargs: {env_vars: {KEY: b}}\n"


def _run(folder: Path, config: str | None, checkpoint: bool) -> Path:
    (folder / "config").mkdir()
    if config is not None:
        (folder / "config" / "config.yaml").write_text(config)
    checkpoints = folder / "checkpoints"
    checkpoints.mkdir()
    if checkpoint:
        shards = checkpoints / "global_step_3" / "actor"
        shards.mkdir(parents=True)
        (shards / "model_world_size_1_rank_0.pt").touch()
        (checkpoints / "latest_checkpointed_iteration.txt").write_text("3")
    return checkpoints


def test_what_changed_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tell_changed(NOW, tmp_path, _run(tmp_path, BEFORE, True))
    assert caplog.messages == [
        "this start of the run has other settings than the last (in brackets): rollout.n=4 (8), "
        "rollout.top_p=1.0 (None)"
    ]


@pytest.mark.parametrize(("before", "checkpoint"), [(NOW, True), (BEFORE, False), (None, True)])
def test_nothing_to_say(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, before: str | None, checkpoint: bool
) -> None:
    tell_changed(NOW, tmp_path, _run(tmp_path, before, checkpoint))
    assert not caplog.messages


def test_a_config_that_somebody_broke(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tell_changed(NOW, tmp_path, _run(tmp_path, "{broken", True))
    (message,) = caplog.messages
    assert "config.yaml cannot be read, so what changed since is not said" in message


def test_a_great_many_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tell_changed(
        "".join(f"a{number}: 1\n" for number in range(20)),
        tmp_path,
        _run(tmp_path, "".join(f"a{number}: 2\n" for number in range(20)), True),
    )
    assert caplog.text.count("=1 (2)") == 12
    assert "and 8 more" in caplog.text
