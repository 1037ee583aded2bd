"""What the GPU kit packs, on made resolutions, and its parts."""

from __future__ import annotations

import lzma
import subprocess
import tarfile
from functools import partial
from io import BytesIO
from pathlib import Path

import pytest

from gpu import needs, omitted
from gpu.kit import prune
from gpu.needs import Resolved, resolution, sizes, sort_out, versions
from gpu.parts import write_parts, write_sums

REPOSITORY = Path(__file__).resolve().parents[3]

RESOLVED = """\
/somewhere                # via -r wanted.in
ray==2.9                  # via rsp-rl
click==8.1                # via ray
torch==2.11.0             # via rsp-rl, vllm
nvidia_Nccl.cu13==2.28    # via torch
numpy==2.3                # via rsp-rl, vllm
vllm==0.24.0              # via verl
verl==0.9.1               # via rsp-rl
tilelang==0.1             # via vllm
z3-solver==4.15           # via tilelang
"""
THERE = {"torch": "2.11.0", "nvidia-nccl-cu13": "2.28", "numpy": "2.5"}
OMITTED = {"tile*": "not loaded"}


def test_lines_of_uv() -> None:
    found = resolution(RESOLVED)
    assert found["torch"] == Resolved("2.11.0", frozenset({"rsp-rl", "vllm"}))
    assert found["nvidia-nccl-cu13"].version == "2.28"
    assert len(found) == 9


def test_the_machines_list() -> None:
    text = "# read some day\nPyYAML==6.0.3\n\nmsgpack==1.2.3  # a remark\n"
    assert versions(text) == {"pyyaml": "6.0.3", "msgpack": "1.2.3"}
    there = versions((REPOSITORY / "scripts/gpu/there.txt").read_text())
    assert there["torch"].startswith("2.11")
    assert len(there) > 150


def test_resolution_minus_what_is_there() -> None:
    found = sort_out(resolution(RESOLVED), THERE, partial(omitted.reason, table=OMITTED))
    assert found.packed == {
        **dict.fromkeys(("ray", "click", "vllm", "verl"), "missing"),
        "numpy": "other version: 2.5",
    }
    assert found.there == {"torch", "nvidia-nccl-cu13"}
    assert found.omitted == {
        "tilelang": "not loaded",
        "z3-solver": "needed only by omitted tilelang",
    }
    assert found.unmet == set()


def test_what_others_need_too_is_packed() -> None:
    text = RESOLVED.replace("via tilelang", "via ray, tilelang")
    found = sort_out(resolution(text), THERE, partial(omitted.reason, table=OMITTED))
    assert found.packed["z3-solver"] == "missing"


def test_a_need_without_a_file_is_unmet_unless_it_has_a_reason() -> None:
    found = sort_out(
        resolution(RESOLVED),
        THERE,
        partial(omitted.reason, table=OMITTED),
        installable=lambda name: name not in ("ray", "tilelang"),
    )
    assert found.unmet == {"ray"}
    assert "click" in found.packed


def test_installed_packages_say_themselves_what_is_unmet(tmp_path: Path) -> None:
    metadata = """\
Metadata-Version: 2.1
Name: vllm
Version: 0.24.0
Requires-Dist: tilelang==0.1
Requires-Dist: NumPy<2.5
Requires-Dist: torch==2.11.0
Requires-Dist: pywin32; sys_platform == "win32"
Requires-Dist: tomli; python_version < "3.11"
Requires-Dist: wandb; extra == "logs"
Requires-Dist: verl
"""
    for name in ("vllm-0.24.0", "verl-0.9.1"):
        folder = tmp_path / f"{name}.dist-info"
        folder.mkdir()
        text = metadata if name.startswith("vllm") else "Name: verl\nVersion: 0.9.1\n"
        (folder / "METADATA").write_text(text)
    found = needs.unmet_requirements(tmp_path, THERE, partial(omitted.reason, table=OMITTED))
    assert found == ["vllm needs NumPy<2.5; there is 2.5"]


def test_stale_reasons_are_seen() -> None:
    table = {"tile*": "a", "flashinfer-*": "b", "vllm": "c"}
    assert omitted.stale(set(resolution(RESOLVED)), table) == ["flashinfer-*"]


@pytest.mark.parametrize("table", [omitted.PACKAGES, omitted.FILES])
def test_every_omission_has_its_reason(table: dict[str, str]) -> None:
    assert all(len(why) > 5 for why in table.values())


def test_sizes_of_a_lock() -> None:
    lock = {
        "packages": [
            {"name": "A_b", "wheels": [{"size": 5}]},
            {"name": "c", "sdist": {"url": "u"}},
            {"name": "d"},
        ]
    }
    assert sizes(lock) == {"a-b": 5, "c": None}


def test_uv_of_the_path_is_taken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(needs.shutil, "which", lambda name: f"/somewhere/{name}")
    assert needs.find_uv(tmp_path) == "/somewhere/uv"


def test_pruning_leaves_no_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python would still find it, as a namespace package."""
    monkeypatch.setattr(omitted, "FILES", {"vllm/blackwell/*": "for other chips", "*.a": "static"})
    for name in ("vllm/blackwell/cute/attention.py", "vllm/__init__.py", "vllm/lib.a"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    prune(tmp_path)
    left = sorted(str(each.relative_to(tmp_path)) for each in tmp_path.rglob("*"))
    assert left == ["vllm", "vllm/__init__.py"]


def test_parts_are_pieces_of_one_stream(tmp_path: Path) -> None:
    kit, folder = tmp_path / "kit", tmp_path / "parts"
    (kit / "site").mkdir(parents=True)
    folder.mkdir()
    noise = bytes(n * n % 251 * n % 256 for n in range(5000))
    (kit / "site" / "noise").write_bytes(noise)
    (kit / "packed.txt").write_text("vllm==0.24.0\n")
    written = write_parts(kit, folder, 1000)
    assert [part.name for part in written][:2] == ["kit.01", "kit.02"]
    assert [part.stat().st_size for part in written[:-1]] == [1000] * (len(written) - 1)
    stream = lzma.decompress(b"".join(part.read_bytes() for part in written))
    with tarfile.open(fileobj=BytesIO(stream)) as tar:
        assert tar.extractfile("./site/noise").read() == noise

    sums = write_sums(written)
    check = ["sha256sum", "--quiet", "-c", sums.name]
    assert subprocess.run(check, cwd=folder).returncode == 0
    written[0].write_bytes(b"x" * 1000)
    assert subprocess.run(check, cwd=folder, capture_output=True).returncode == 1


def test_unpacking_refuses_what_is_not_whole_and_what_would_mix(tmp_path: Path) -> None:
    python = tmp_path / "python"  # stands for the machine's
    python.write_text("#!/bin/sh\necho 3.12\n")
    python.chmod(0o755)
    folder, target = tmp_path / "parts", tmp_path / "target"
    folder.mkdir()
    (folder / "kit.01").write_bytes(b"a part")
    write_sums([folder / "kit.01"])

    def unpack() -> str:
        command = ["bash", REPOSITORY / "scripts/gpu/unpack.sh", folder, target, python]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 1
        return done.stderr

    target.mkdir()
    (target / "mine").touch()
    assert "is not empty" in unpack()
    (folder / "kit.01").write_bytes(b"another")
    assert "is not whole" in unpack()
    python.write_text("#!/bin/sh\necho 3.11\n")
    assert "for Python 3.12" in unpack()
