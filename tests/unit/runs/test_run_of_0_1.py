"""A run folder that version 0.1 wrote is read, judged and carried on as one of today.

`tests/data/run_0_1` holds the text files of a tiny run of commit 9c023ac, with few of their rows;
the metrics of its cut evaluations are that commit's too.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch

from rsp_rl.basics.errors import ConfigError, RunFolderError
from rsp_rl.basics.files import read_json
from rsp_rl.dials.options import RspOptions
from rsp_rl.draws.record import SoftPromptRecord
from rsp_rl.evaluation.compare import analyse
from rsp_rl.evaluation.folder import EvaluationFolder
from rsp_rl.evaluation.html_report import write_report
from rsp_rl.evaluation.manifest import is_complete
from rsp_rl.evaluation.protocol import load_protocol
from rsp_rl.evaluation.reading import read_groups, read_manifest, read_problems
from rsp_rl.evaluation.rescore import rescore, sample_files
from rsp_rl.evaluation.summary import read_summary
from rsp_rl.evaluation.trained_run import TrainedRun
from rsp_rl.runs import checkpoints
from rsp_rl.runs.card import Evaluated, write_card
from rsp_rl.runs.folder import RunFolder
from rsp_rl.runs.report import held_out_how, plot, summarize, table
from rsp_rl.runs.rollouts import read_step
from rsp_rl.runs.rollouts_page import write_rollouts_page

STORED = Path(__file__).parents[2] / "data" / "run_0_1"

#: Of the eight records as tensors and of their draws, by commit 9c023ac.
DRAWS = "282d45c623812d8979531ea2ef2f4cdc5fb92a80fb59d09da474490e29a450e8"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The run where it was started, beside its base model; weights are holes of the right size."""
    root = tmp_path / "runs" / "dapo_rsp_tiny_cpu"
    shutil.copytree(STORED, root)
    for file in root.rglob("*"):
        if file.is_file():
            file.write_text(file.read_text().replace("LAUNCHED_FROM", str(tmp_path)))
    step = root / "checkpoints" / "global_step_30"
    for name, size in read_json(step / "sizes.json").items():
        file = step / name
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("ab") as stream:
            stream.truncate(size)
    (tmp_path / "runs" / "tiny_model").mkdir()
    return root


def _lines(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_the_report_reads_it(run: Path) -> None:
    folder = RunFolder(run)
    stored = read_json(folder.summary)
    steps = folder.merge_metrics()
    assert list(steps) == [0, 1, 30]
    summary = summarize(steps, folder.read_settings(), folder.wall_seconds())
    cut = {"logprob_gap_max", "seconds_per_step"}  # over all steps, of which two are left
    assert {k: v for k, v in summary.items() if k not in cut} == {
        k: v for k, v in stored.items() if k not in cut
    }
    assert "30     1.000" in table(steps, summary)
    plot(steps, folder.plot, held_out_how(folder))
    assert held_out_how(folder) == "greedy, without RSP"


def test_its_rollouts_have_a_page(run: Path) -> None:
    folder = RunFolder(run)
    rows = _lines(run / "samples" / "train" / "1.jsonl")
    rollout, *_ = read_step(1, folder.train_samples / "1.jsonl").rollouts
    assert (rollout.reward, rollout.tokens, rollout.before) == (1.0, None, None)
    page = write_rollouts_page(folder, folder.read_metrics())
    assert page is not None
    text = page.read_text()
    assert f"1 step · 1 group · {len(rows)} rollouts" in text
    assert "Steps without tokens have no N.rollouts.jsonl" in text


def test_its_model_has_a_card_that_says_what_is_not_on_record(run: Path, tmp_path: Path) -> None:
    folder, model = RunFolder(run), tmp_path / "merged"
    model.mkdir()
    checkpoint = checkpoints.latest_checkpoint(folder.checkpoints)
    text = write_card(folder, checkpoint, model, Evaluated()).read_text()
    assert "after 30 steps of reinforcement learning, with random soft prompts" in text
    assert "- Training: not on record" in text


def test_its_checkpoint_is_whole_and_under_its_law(run: Path) -> None:
    options = RspOptions.from_config(RunFolder(run).read_settings())
    step = checkpoints.latest_checkpoint(run / "checkpoints")
    assert checkpoints.finished_checkpoints(run / "checkpoints") == {30: step}
    checkpoints.check_whole(step, ranks=1)
    checkpoints.check_law(step, options)
    # As saved today: nothing new that a checkpoint of then would lack.
    today = run / "today"
    today.mkdir()
    checkpoints.save_law(today, options)
    assert checkpoints.saved_law(today) == checkpoints.saved_law(step)
    with pytest.raises(ConfigError, match=r"rsp\.length=9 but .* trained with 8"):
        checkpoints.check_law(step, replace(options, length=9))
    (step / "data.pt").write_bytes(b"")
    with pytest.raises(RunFolderError, match=r"data\.pt has 0 bytes of 6868"):
        checkpoints.check_whole(step, ranks=1)


def test_its_records_draw_the_same_soft_prompts(run: Path) -> None:
    names = [field.name for field in fields(SoftPromptRecord)]
    rows = _lines(run / "samples" / "train" / "1.soft_prompts.jsonl")
    digest = hashlib.sha256()
    for row in rows:
        # Of then, a row and an encoded record had one thing less.
        record = SoftPromptRecord(**{name: row[name] for name in names if name != "added_to"})
        encoded = record.to_tensor()[:9]
        assert torch.equal(SoftPromptRecord.from_tensor(encoded).draw(128), record.draw(128))
        digest.update(encoded.numpy().tobytes())
        digest.update(record.draw(128).numpy().tobytes())
    assert digest.hexdigest() == DRAWS


def test_its_settings_give_the_records_that_it_trained_with(run: Path) -> None:
    """What a resumed run draws next follows from the same settings."""
    options = RspOptions.from_config(read_json(run / "rsp.json"))
    names = {field.name for field in fields(SoftPromptRecord)}
    for row in _lines(run / "samples" / "train" / "1.soft_prompts.jsonl"):
        record = options.record(
            step=1,
            prompt_index=row["prompt_index"],
            rollout=row["rollout"],
            group_start=row["start"],
            start=row["start"],
            dtype=row["dtype"],
            placeholder_id=row["placeholder_id"],
        )
        assert record.to_dict() == {"added_to": 0} | {
            name: row[name] for name in row if name in names
        }


def test_its_evaluation_is_read_compared_and_graded_anew(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, protocol = EvaluationFolder(run / "evaluation" / "tiny"), load_protocol("tiny")
    summary = read_summary(folder)
    assert {step: h.accuracy for step, h in summary.headline.items()} == {0: 5 / 12, 30: 1.0}
    for step in folder.steps().values():
        assert read_manifest(step)["fingerprint"] == protocol.fingerprint()
        assert is_complete(step, protocol)  # `rsp-rl eval` says: done before
        asked = read_problems(folder, "arithmetic")
        assert read_groups(folder, step, "arithmetic").keys() == asked.keys()
    analyse([f"old={run}"], tmp_path / "comparison")
    assert "old" in capsys.readouterr().out
    write_report(folder)
    before = {file: file.read_bytes() for file in folder.root.glob("step_*/*.json*")}
    for file in sample_files(folder.root):
        assert rescore(file, processes=1).changed == []
    assert {file: file.read_bytes() for file in before} == before


def test_its_config_names_model_trackers_and_end(run: Path) -> None:
    """Module names in it are of 0.1; a resumed run takes today's, nothing reads the stored ones."""
    trained = TrainedRun.open(run)
    assert trained.base_model() == run.parent / "tiny_model"
    assert trained.last_step() == 30
    assert trained.law() == (4.468530020572739e-05, 0.08971706674423821)
    assert list(trained.steps()) == [30]
    assert "rsp_rl.verl_plugin." in (run / "config" / "config.yaml").read_text()
    trained.track({"accuracy": 1.0}, 30)
    assert list((run / "tensorboard").iterdir())
