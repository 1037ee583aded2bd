"""Laws that packages bring: found by every process, tried before they draw, told by their names."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from rsp_rl.basics.errors import ConfigError
from rsp_rl.draws.laws import Gaussian, Sphere
from rsp_rl.draws.own_laws import GROUP, Laws, own_code

SIGNS = """
import numpy as np, torch
from rsp_rl.draws.law import Law

class Signs(Law):
    name = "signs"
    def draw(self, record, hidden_size):
        random = np.random.Generator(np.random.Philox(key=record.seed))
        rows = random.choice([-record.std, record.std], (record.length, hidden_size))
        return torch.tensor(rows + record.mean, dtype=torch.float32)
"""


def install(folder: Path, module: str, *laws: str, package: str = "made") -> None:
    """What `pip install --target FOLDER` leaves of a package with one module."""
    (folder / f"{package}_laws.py").write_text(module)
    metadata = folder / f"{package}-1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Name: {package}\nVersion: 1\n")
    (metadata / "entry_points.txt").write_text("\n".join([f"[{GROUP}]", *laws, ""]))


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the path, whose modules are forgotten afterwards."""
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in [name for name in sys.modules if name.endswith("_laws") and "." not in name]:
        del sys.modules[name]


def laws() -> Laws:
    return Laws((Gaussian(), Sphere()))


def test_a_packages_law_comes_after_ours(path: Path) -> None:
    install(path, SIGNS, "signs = made_laws:Signs")
    assert list(laws()) == ["gaussian", "sphere", "signs"]
    assert len(laws()) == 3
    assert "signs" in laws()
    assert "sines" not in laws()


def test_codes_do_not_depend_on_what_is_installed(path: Path) -> None:
    """Ours are positions, as ever; a package's is a hash, frozen like them."""
    install(path, SIGNS, "signs = made_laws:Signs")
    found = laws()
    assert [found.code(name) for name in found] == [0, 1, own_code("signs")]
    assert own_code("signs") == 2153373648255098314
    assert [found.of_code(found.code(name)) for name in found] == list(found)
    assert found.of_code(2) is None
    assert found.of_code(-1) is None


def test_ours_are_found_without_a_look_at_packages(path: Path) -> None:
    install(path, "raise RuntimeError('not now')", "signs = made_laws:Signs")
    found = laws()
    assert found["gaussian"].name == "gaussian"
    assert found.of_code(1) == "sphere"
    with pytest.raises(ConfigError, match=r"signs = made_laws:Signs.*cannot be imported.*not now"):
        found["signs"]


ENCODE = """
import sys
from rsp_rl.dials.options import RspOptions
options = RspOptions(law="signs", mean=0.25, std=0.5, length=3)
place = dict(step=1, prompt_index=2, rollout=3, group_start=0, start=4)
record = options.record(**place, dtype="bfloat16", placeholder_id=5)
print(record.to_tensor().tolist(), record.draw(8).tolist())
"""

DECODE = """
import sys, torch
from rsp_rl.draws.record import SoftPromptRecord
record = SoftPromptRecord.from_tensor(torch.tensor(eval(sys.argv[1])))
print(record.law, record.draw(8).tolist())
"""


def python(code: str, *arguments: str, folder: Path | None = None) -> str:
    """What a process of its own prints, or the last line of its error."""
    path = [*sys.path] if folder is None else [str(folder), *sys.path]
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:0] = {path!r}\n{code}", *arguments],
        capture_output=True,
        text=True,
    )
    return done.stdout.strip() or done.stderr.strip().splitlines()[-1]


def test_processes_that_have_the_package_draw_the_same(tmp_path: Path) -> None:
    install(tmp_path, SIGNS, "signs = made_laws:Signs")
    encoded, _, drawn = python(ENCODE, folder=tmp_path).partition("] ")
    assert set(drawn.replace("[", "").replace("]", "").split(", ")) == {"-0.25", "0.75"}
    assert python(DECODE, f"{encoded}]", folder=tmp_path) == f"signs {drawn}"
    said = python(DECODE, f"{encoded}]")
    assert "names law code 2153373648255098314" in said
    assert "is not installed where this process runs" in said


CHANGED = [
    ('name = "signs"', 'name = "marks"', "the class has name = 'marks'; give both one name"),
    ("class Signs(Law)", "class Signs", "is no subclass of rsp_rl.draws.law.Law"),
    ("def draw(", "def drawn(", "cannot be made without arguments: .*abstract.*draw"),
    ("key=record.seed", "", "draws other numbers from the same record each time"),
    ("key=record.seed", "key=1", "draws the same from every seed"),
    ("torch.float32)", "torch.float32)[0]", r"draws torch.float32 \[64\] on cpu; .*\[3, 64\]"),
    ("torch.float32", "torch.float64", r"draws torch.float64 \[3, 64\] on cpu; .*float32"),
    ("+ record.mean", "/ record.mean", "draws NaN or infinity with seed 7"),
    ("torch.tensor(rows", "np.array(rows", "draws a ndarray; a law draws a torch tensor"),
]


@pytest.mark.filterwarnings("ignore:divide by zero")
@pytest.mark.parametrize(("old", "new", "said"), CHANGED, ids=[new for _, new, _ in CHANGED])
def test_a_law_that_is_none_is_refused(path: Path, old: str, new: str, said: str) -> None:
    made = SIGNS.replace(old, new)
    made = made.replace("dtype=torch.float32", "dtype=np.float32") if "np.array" in new else made
    install(path, made, "signs = made_laws:Signs")
    with pytest.raises(ConfigError, match=rf"entry point signs = made_laws:Signs .*{said}"):
        laws()["signs"]


def test_one_draw_for_all_may_be_wanted(path: Path) -> None:
    same = SIGNS.replace("key=record.seed", "key=1").replace('"signs"', '"signs"; one_draw = True')
    install(path, same, "signs = made_laws:Signs")
    assert laws()["signs"].one_draw


@pytest.mark.parametrize("name", ["gaussian", "signs"])
def test_a_name_that_is_taken_is_refused(path: Path, name: str) -> None:
    module = SIGNS.replace('"signs"', f'"{name}"')
    install(path, module, f"{name} = made_laws:Signs")
    install(path, module, f"{name} = other_laws:Signs", package="other")
    with pytest.raises(ConfigError, match="there is a law of that name already; choose another"):
        list(laws())


def test_a_law_of_the_table_is_not_tried_without_one(path: Path) -> None:
    module = SIGNS.replace('"signs"', '"signs"; from_table = True').replace("key=record.seed", "")
    install(path, module, "signs = made_laws:Signs")
    assert laws()["signs"].from_table


def test_what_is_drawn_in_a_run_is_looked_at_too() -> None:
    """Rows that depend on L or d: one that fits by broadcasting would be written into all."""
    from rsp_rl.draws.own_laws import checked
    from tests.unit.draws.test_laws import record

    class Short(Gaussian):
        def draw(self, record: object, hidden_size: int) -> torch.Tensor:
            return super().draw(record, hidden_size)[:1]

    with pytest.raises(ConfigError, match=r"rsp.law=gaussian draws torch.float32 \[1, 8\]"):
        checked(Short(), record("gaussian"), 8)
