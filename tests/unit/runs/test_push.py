"""What goes to the hub, what stays, and what is refused; the hub itself is made up."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from huggingface_hub import HfApi

from rsp_rl.basics.errors import ConfigError, RunFolderError
from rsp_rl.basics.files import write_json
from rsp_rl.cli import main
from rsp_rl.models.front_matter import front_matter
from rsp_rl.runs.checkpoints import SIZES_FILE, TRACKER
from rsp_rl.runs.merging import MERGED_FILE
from rsp_rl.runs.push import check_name, check_upload, push
from rsp_rl.tiny import make_tiny_model


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("model") / "tiny", steps=0, threads=1)


@pytest.fixture
def model(tiny: Path, tmp_path: Path) -> Path:
    """A merged folder with its card, in a checkpoint of a run."""
    folder = tmp_path / "run" / "checkpoints" / "global_step_3" / "merged"
    shutil.copytree(tiny, folder)
    (folder / "README.md").write_text(front_matter({"library_name": "transformers"}) + "# Mine\n")
    (folder.parents[1] / TRACKER).write_text("3")
    return folder


class Hub:
    """Takes all; what it was asked is kept."""

    def __init__(self, *, there: bool = False, private: bool = False) -> None:
        self.asked: list[tuple[str, dict]] = []
        self._there, self._private = there, private

    def create_repo(self, repo_id: str, **options: object) -> SimpleNamespace:
        self.asked.append(("create", {"repo_id": repo_id, **options}))
        if not self._there:
            self._private = bool(options["private"])
        return SimpleNamespace(repo_id=repo_id if "/" in repo_id else f"me/{repo_id}")

    def repo_info(self, repo_id: str) -> SimpleNamespace:
        return SimpleNamespace(private=self._private)

    def upload_folder(self, **options: object) -> None:
        self.asked.append(("upload", options))


# What goes and what stays.


def test_a_models_files_go_and_all_else_stays(model: Path) -> None:
    for name in ("optim_world_size_1_rank_0.pt", "notes.txt", ".env", "rsp.json"):
        (model / name).write_text("12345")
    (model / "logs").mkdir()
    (model / "logs" / "a.log").write_text("123")
    upload = check_upload(model)
    assert {"README.md", "config.json", "model.safetensors", "tokenizer.json"} <= set(upload.files)
    assert upload.files["config.json"] == (model / "config.json").stat().st_size
    assert upload.left_out == {
        ".env": (5, "hidden"),
        "logs/": (3, "a folder"),
        "notes.txt": (5, "no file of a model"),
        "optim_world_size_1_rank_0.pt": (5, "an optimizer's state"),
        "rsp.json": (5, "no file of a model"),
        "tiny_model.json": ((model / "tiny_model.json").stat().st_size, "no file of a model"),
    }
    text = "\n".join(upload.lines())
    assert "optim_world_size_1_rank_0.pt        5 B  an optimizer's state" in text
    assert f"  {len(upload.files)} files, " in text


def test_a_link_that_leads_nowhere_stays(model: Path) -> None:
    (model / "tokenizer.extra").symlink_to(model / "gone")
    assert check_upload(model).left_out["tokenizer.extra"] == (0, "a link to what is not there")


def test_what_the_hub_is_asked(model: Path) -> None:
    hub = Hub()
    upload = check_upload(model)
    assert push(upload, "mine", private=True, hub=hub) == "me/mine"
    (_, made), (_, sent) = hub.asked
    assert made == {"repo_id": "mine", "private": True, "exist_ok": True}
    assert (sent["repo_id"], sent["folder_path"]) == ("me/mine", str(model))
    assert sent["allow_patterns"] == list(upload.files)


def test_a_name_is_no_pattern(model: Path) -> None:
    (model / "LICENSE[1]").write_text("x")
    hub = Hub()
    push(check_upload(model), "mine", private=False, hub=hub)
    assert "LICENSE[[]1]" in hub.asked[1][1]["allow_patterns"]


def test_the_hub_has_these_methods() -> None:
    """By these names and arguments; what it is asked here would be refused there."""
    import inspect

    takes = {
        name: set(inspect.signature(getattr(HfApi, name)).parameters)
        for name in ("create_repo", "repo_info", "upload_folder")
    }
    assert {"repo_id", "private", "exist_ok"} <= takes["create_repo"]
    assert "repo_id" in takes["repo_info"]
    assert {"repo_id", "folder_path", "allow_patterns", "commit_message"} <= takes["upload_folder"]


# What is refused.


def test_a_public_repository_is_not_taken_for_a_private_one(model: Path) -> None:
    hub = Hub(there=True)
    with pytest.raises(ConfigError, match="there already and public, and nothing was sent"):
        push(check_upload(model), "me/mine", private=True, hub=hub)
    assert [what for what, _ in hub.asked] == ["create"]
    push(check_upload(model), "me/mine", private=False, hub=hub)


def test_a_hub_that_does_not_take_it_is_one_error(model: Path) -> None:
    class Unreachable(Hub):
        def create_repo(self, repo_id: str, **_: object) -> SimpleNamespace:
            raise ConnectionError("no\nnetwork")

    with pytest.raises(ConfigError, match=r"did not take me/mine \(ConnectionError: no network\)"):
        push(check_upload(model), "me/mine", private=False, hub=Unreachable())


@pytest.mark.parametrize("name", ["a/b/c", "me/mi ne", "me/..", ""])
def test_what_is_no_name(name: str) -> None:
    with pytest.raises(ConfigError, match="is no name for a repository"):
        check_name(name)


@pytest.mark.parametrize(
    ("card", "said"),
    [
        (None, "holds no README.md with a head"),
        ("# Mine\n", "holds no README.md with a head"),
        ("---\na: [\n---\n", "the head of .* cannot be read"),
    ],
)
def test_a_folder_without_a_card(model: Path, card: str | None, said: str) -> None:
    (model / "README.md").unlink()
    if card is not None:
        (model / "README.md").write_text(card)
    with pytest.raises(ConfigError, match=said):
        check_upload(model)


def test_what_is_no_models_folder(model: Path, tmp_path: Path) -> None:
    for folder, said in (
        (tmp_path / "gone", "is no folder"),
        (model.parent, "holds no config.json"),
    ):
        with pytest.raises(ConfigError, match=said):
            check_upload(folder)
    (model / "model.safetensors").rename(model / "weights")
    with pytest.raises(ConfigError, match=r"holds no \*\.safetensors weights"):
        check_upload(model)


def test_weights_that_were_cut_off(model: Path) -> None:
    file = model / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(ConfigError, match=r"model\.safetensors has \d+ bytes of \d+"):
        check_upload(model)


@pytest.mark.parametrize(
    ("tracker", "said"), [("2", "names step 2"), ("", "names none"), (None, "names none")]
)
def test_a_checkpoint_that_is_not_finished(model: Path, tracker: str | None, said: str) -> None:
    file = model.parents[1] / TRACKER
    file.unlink()
    if tracker is not None:
        file.write_text(tracker)
    with pytest.raises(RunFolderError, match=f"global_step_3 is not finished: .*{said}"):
        check_upload(model)


def test_a_checkpoint_that_is_not_whole_or_was_saved_anew(model: Path) -> None:
    actor = model.parent / "actor"
    actor.mkdir()
    shard = "model_world_size_1_rank_0.pt"
    (actor / shard).write_text("123")
    write_json(model / MERGED_FILE, {"dtype": "float32", "shards": "another"})
    with pytest.raises(RunFolderError, match="was saved anew since merged was made of it"):
        check_upload(model)
    write_json(model.parent / SIZES_FILE, {f"actor/{shard}": 4})
    with pytest.raises(RunFolderError, match="has 3 bytes of 4: the checkpoint is not whole"):
        check_upload(model)
    (actor / shard).unlink()  # pruned
    check_upload(model)


def test_half_of_a_conversion(model: Path) -> None:
    partial = model.rename(model.with_name(".merged.partial"))
    with pytest.raises(RunFolderError, match="is half of a conversion"):
        check_upload(partial)


# The command.


def test_a_dry_run_asks_nobody(
    model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.HfApi", None)
    assert main(["push", str(model), "--repo", "me/mine", "--private", "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith(f"{model} to me/mine (private):\n")
    assert printed.endswith("dry run: nothing was sent\n")
    (model / "README.md").unlink()
    assert main(["push", str(model), "--repo", "me/mine", "--dry-run"]) == 1
    assert capsys.readouterr().err.startswith("error: ")


def test_the_command_sends(
    model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = Hub()
    monkeypatch.setattr("huggingface_hub.HfApi", lambda: hub)
    assert main(["push", str(model), "--repo", "me/mine"]) == 0
    assert capsys.readouterr().out.endswith("sent to me/mine\n")
    assert [what for what, _ in hub.asked] == ["create", "upload"]
