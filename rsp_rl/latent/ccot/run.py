"""A training in a folder of its own, which goes on where it was cut off.

`run.json` says what the run is, `metrics.jsonl` has a line a step, `checkpoints/` the newest state,
`model/` what came of it in the end; see `rsp_rl.latent.run_state` and `rsp_rl.latent.ccot.saved`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from rsp_rl.basics.errors import ConfigError
from rsp_rl.basics.files import locked
from rsp_rl.console.screen import bar, say
from rsp_rl.data.step_problems import StepProblem, problems_digest
from rsp_rl.latent.ccot.answers import opening_of
from rsp_rl.latent.ccot.batches import check_problems
from rsp_rl.latent.ccot.generation import check_room
from rsp_rl.latent.ccot.saved import build, save
from rsp_rl.latent.ccot.settings import CcotSettings
from rsp_rl.latent.ccot.training import CcotTrainer
from rsp_rl.latent.problem_tokens import tokenize
from rsp_rl.latent.run_folder import MODEL
from rsp_rl.latent.run_state import (
    checkpoint,
    claim,
    finished_model,
    forget,
    newest,
    note,
)
from rsp_rl.models.context import context_of
from rsp_rl.models.folder import load_tokenizer

_STATE = "training.pt"

SAVE_STEPS = 200
"""Steps between two checkpoints."""


def train(
    model: Path,
    problems: Sequence[StepProblem],
    settings: CcotSettings,
    run: Path,
    described: Mapping[str, Any],
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    save_steps: int = SAVE_STEPS,
) -> Path:
    """Train, or go on where a run was cut off.

    Args:
        model: Hugging Face folder.
        problems: Of the training file.
        settings: Of the training.
        run: The run's folder.
        described: What model and data are: `model`, `weights` (its digest), `train` (the files'
            names) among it; a run goes on with the same alone, and with the same problems.
        dtype: Of the model's weights; adapters are float32 at least.
        device: Where it runs.
        save_steps: Steps between two checkpoints.

    Returns:
        The folder of what was trained.

    Raises:
        ConfigError: If the model cannot be trained like this, or a problem does not fit, or there
            is none.
        RunFolderError: If the folder is another run's, or in use, or its checkpoint damaged.
        RunBrokenError: If a loss is no number.
    """
    with locked(run):
        tokenizer = load_tokenizer(model)
        tokens = tokenize(problems, tokenizer)
        place = str(described.get("train", "training file"))
        if not tokens:
            raise ConfigError(f"{place}: there are no problems to train on; name a file with some")
        adapters, ending = build(model, settings, dtype, device)
        context = context_of(adapters.model.config)
        check_problems(tokens, settings.ratio, opening_of(tokenizer), context, place)
        check_room(adapters.model.config, [problem.question for problem in tokens], settings)
        described = {**described, "problems_digest": problems_digest(problems)}
        claim(run, asdict(settings), described)
        trainer = CcotTrainer(adapters, ending, tokens, settings)
        if (saved := newest(run)) is not None:
            trainer.load_state_dict(
                torch.load(saved / _STATE, weights_only=True, map_location=adapters.device)
            )
            say(f"resumed  {trainer.steps_done} of {trainer.steps} steps are done")
        if trainer.steps_done == trainer.steps and (run / MODEL).is_dir():
            return run / MODEL
        forget(run, lambda figures: figures["step"] <= trainer.steps_done)
        _all_steps(trainer, run, save_steps)
        with finished_model(run) as folder:
            save(folder, adapters, ending, settings, described)
        return run / MODEL


def _all_steps(trainer: CcotTrainer, run: Path, save_steps: int) -> None:
    progress = bar(total=trainer.steps, label="ccot", unit="step")
    progress.update(trainer.steps_done)
    while trainer.steps_done < trainer.steps:
        begun = time.monotonic()
        told = trainer.step()
        note(run, {"step": trainer.steps_done, **told, "seconds": time.monotonic() - begun})
        losses = ", ".join(f"{k} {v:.3f}" for k, v in told.items() if k.endswith(("loss", "error")))
        where = f"layer {told['layer']}" if told["layer"] else told["phase"]
        progress.set_postfix_str(f"{where}: {losses}", refresh=False)
        progress.update()
        if trainer.steps_done % save_steps == 0 or trainer.steps_done == trainer.steps:
            with checkpoint(run, trainer.steps_done) as part:
                torch.save(trainer.state_dict(), part / _STATE)
    progress.close()
