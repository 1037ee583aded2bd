"""Stages by epoch, the paper's values, and settings that contradict themselves."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rsp_rl.basics.errors import ConfigError
from rsp_rl.latent.methods import METHODS, get_method
from rsp_rl.latent.optimizers import begins_anew
from rsp_rl.latent.settings import PRESETS, Settings

#: arXiv 2412.06769, section 4.3, and the configurations of the authors' code.
PAPER = {
    "gsm8k": {"thoughts_per_step": 2, "epochs_per_stage": 3, "max_stage": 3, "epochs": 25,
              "first_epoch": 3, "max_new_tokens": 64},
    "prontoqa": {"thoughts_per_step": 1, "epochs_per_stage": 5, "max_stage": 6, "epochs": 50,
                 "first_epoch": 0, "max_new_tokens": 128},
    "prosqa": {"thoughts_per_step": 1, "epochs_per_stage": 5, "max_stage": 6, "epochs": 50,
               "first_epoch": 0, "max_new_tokens": 128},
}  # fmt: skip
COMMON = {
    "learning_rate": 1e-4, "weight_decay": 0.01, "batch_size": 128, "reset_optimizer": "epoch",
    "uniform_stages": 0.0, "warmup_steps": 0, "max_grad_norm": None, "pad_thoughts": True,
    "optimizer": "adamw", "seed": 0,
}  # fmt: skip


@pytest.mark.parametrize("task", PAPER)
def test_a_preset_is_the_papers(task):
    for name, value in (PAPER[task] | COMMON).items():
        assert getattr(PRESETS[task], name) == value, name


def test_stages_of_the_paper_by_epoch():
    gsm8k = PRESETS["gsm8k"]
    assert [gsm8k.stage(epoch) for epoch in range(3, 25)] == [1] * 3 + [2] * 3 + [3] * 3 + [4] * 13
    prosqa = PRESETS["prosqa"]
    assert [prosqa.stage(epoch) for epoch in (0, 4, 5, 29, 30, 34, 35, 49)] == [
        *(0, 0, 1, 5, 6, 6, 7, 7)
    ]
    assert (gsm8k.final_thoughts, prosqa.final_thoughts) == (6, 6)


def test_only_a_curriculum_has_stages():
    stages = {
        name: [replace(PRESETS["prosqa"], method=name).stage(epoch) for epoch in (0, 49)]
        for name in METHODS
    }
    assert stages == {
        "coconut": [0, 7], "cot": [0, 0], "no_cot": [7, 7], "icot": [0, 0], "pause": [7, 7],
        "no_curriculum": [7, 7], "no_thought": [0, 7], "pause_as_thought": [0, 7],
    }  # fmt: skip


def test_when_the_optimiser_begins_anew():
    settings = Settings(epochs_per_stage=2, epochs=6, max_stage=1)
    begins = {
        reset: [begins_anew(replace(settings, reset_optimizer=reset), e) for e in range(6)]
        for reset in ("epoch", "stage", "never")
    }
    assert begins == {
        "epoch": [True] * 6,
        "stage": [True, False, True, False, True, False],
        "never": [True] + [False] * 5,
    }


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "cocount"}, "method 'cocount' is none of coconut, cot"),
        ({"learning_rate": 0}, "learning_rate is 0: it must be above 0"),
        ({"learning_rate": float("nan")}, "learning_rate is nan"),
        ({"batch_size": -1}, "batch_size is -1"),
        ({"uniform_stages": 1.5}, "uniform_stages is 1.5"),
        ({"uniform_stages": 0.1, "method": "cot"}, "which method cot has not"),
        ({"reset_optimizer": "always"}, "choose one of epoch, stage, never"),
        ({"first_epoch": 50}, "leaves none to train"),
        ({"ends": "classifier"}, "set pad_thoughts=False"),
        ({"ends": "classifier", "method": "pause", "pad_thoughts": False}, "needs thoughts"),
        ({"pad_thoughts": False}, "set ends=classifier"),
    ],
)
def test_what_cannot_be_is_one_clear_error(settings, message):
    with pytest.raises(ConfigError, match=message):
        Settings(**settings)


def test_every_method_names_its_row_of_the_paper():
    assert len({method.row for method in METHODS.values()}) == len(METHODS) == 8
    with pytest.raises(ConfigError, match="is none of"):
        get_method("x")
