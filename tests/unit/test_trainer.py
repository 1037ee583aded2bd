"""A checkpoint and the run that resumes from it must follow the same law."""

from dataclasses import replace

import pytest

from rsp_rl.options import ConfigError, RspOptions
from rsp_rl.run_folder import write_json
from rsp_rl.verl_plugin.trainer import SETTINGS_FILE, check_settings, checkpoint_settings

OPTIONS = RspOptions(length=8, mean=0.001, std=0.02)


def test_same_law_resumes(tmp_path):
    write_json(tmp_path / SETTINGS_FILE, checkpoint_settings(OPTIONS))
    check_settings(tmp_path, OPTIONS)
    # What does not decide the draws may change.
    check_settings(tmp_path, replace(OPTIONS, validation=True))


@pytest.mark.parametrize(
    ("name", "value"),
    [("length", 4), ("position", "prefix"), ("scale", 2.0), ("mode", "shared"), ("seed", 1)],
)
def test_another_law_is_refused(tmp_path, name, value):
    write_json(tmp_path / SETTINGS_FILE, checkpoint_settings(OPTIONS))
    with pytest.raises(ConfigError, match=f"rsp.{name}={value} but .*resume with rsp.{name}="):
        check_settings(tmp_path, replace(OPTIONS, **{name: value}))


def test_a_checkpoint_of_plain_verl_is_taken_as_it_is(tmp_path):
    check_settings(tmp_path, OPTIONS)
