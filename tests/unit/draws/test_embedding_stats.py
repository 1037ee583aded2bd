"""mu_E and sigma_E of embedding tables, streamed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from rsp_rl.draws import embedding_table as module
from rsp_rl.draws.embedding_stats import embedding_stats
from tests.properties import examples
from tests.tolerances import rounding
from tests.unit.draws.made_tables import (
    NAME,
    assert_equal_to_reference,
    exact_stats,
    random_table,
    rounding_of,
    write_raw,
)


@given(
    rows=st.integers(1, 40),
    width=st.integers(1, 40),
    chunk=st.integers(1, 97),
    offset=st.sampled_from([0.0, 1e-3, 1.0, -1e4]),
)
@examples(40)
def test_chunks_of_any_size_merge_to_the_same(
    tmp_path_factory: pytest.TempPathFactory, rows: int, width: int, chunk: int, offset: float
) -> None:
    folder = tmp_path_factory.mktemp("model")
    table = (torch.randn(rows, width, generator=torch.Generator().manual_seed(0)) + offset).half()
    save_file({NAME: table}, folder / "model.safetensors")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_CHUNK_ENTRIES", chunk)
        stats = embedding_stats(folder)
    mean, std = exact_stats(table)
    assert stats.mean == pytest.approx(mean, rel=0, abs=rounding_of(table))
    assert stats.std == pytest.approx(std, rel=0, abs=rounding_of(table))


def test_table_of_more_than_one_chunk(tmp_path: Path) -> None:
    """A real table's order of size, with statistics that drift from its first row to its last."""
    table = random_table(rows=9000, width=128) + torch.linspace(0, 0.01, 9000)[:, None]
    assert table.numel() > module._CHUNK_ENTRIES
    save_file({"a": torch.zeros(3), NAME: table}, tmp_path / "model.safetensors")
    assert_equal_to_reference(tmp_path, table)


def test_constant_table_has_no_deviation(tmp_path: Path) -> None:
    save_file({NAME: torch.full((50, 8), 0.25)}, tmp_path / "model.safetensors")
    stats = embedding_stats(str(tmp_path))
    assert (stats.mean, stats.std) == (0.25, 0.0)
    assert stats.to_dict() == {
        "mean": 0.25,
        "std": 0.0,
        "vocab_size": 50,
        "hidden_size": 8,
        "tensor": NAME,
    }


_MEASURE = """
import resource, sys
from rsp_rl.draws.embedding_stats import embedding_stats
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
stats = embedding_stats(sys.argv[1])
print(stats.mean, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_peak_memory_is_far_below_the_table(tmp_path: Path) -> None:
    vocab_size, width = 75_000, 1024
    size = vocab_size * width * 4
    header = {NAME: {"dtype": "F32", "shape": [vocab_size, width], "data_offsets": [0, size]}}
    file = tmp_path / "model.safetensors"
    write_raw(file, header)
    ones = np.ones(width, dtype="<f4").tobytes()
    with file.open("r+b") as stream:  # sparse: zeros but for the last row
        stream.seek(file.stat().st_size + size - len(ones))
        stream.write(ones)
    done = subprocess.run(
        [sys.executable, "-c", _MEASURE, str(tmp_path)], capture_output=True, text=True, check=True
    )
    mean, kibibytes = done.stdout.split()
    assert float(mean) == pytest.approx(1 / vocab_size, rel=rounding(1000, dtype=torch.float64))
    assert int(kibibytes) < 64 * 1024
