"""The gold answers of the eight benchmarks, read from the shared data folder where there is one."""

import pytest

from rsp_rl.data.benchmarks import BENCHMARKS, read_problems
from tests.unit.benchmark_files import KINDS, REAL_FILES

needs_data = pytest.mark.skipif(
    "real" not in KINDS,
    reason="the benchmarks' files are not ours to ship; RSP_RL_DATA_DIR may name a folder of them",
)


def golds(benchmark: str) -> list[str]:
    """The distinct gold answers of a benchmark that are not empty, in the order of the file."""
    return list(dict.fromkeys(filter(None, _all_golds(benchmark))))


def gold_of_row(benchmark: str, row: int) -> str:
    """The gold answer of a row of the benchmark's file."""
    return _all_golds(benchmark)[row]


def _all_golds(benchmark: str) -> list[str]:
    return [problem.gold for problem in read_problems(BENCHMARKS[benchmark], REAL_FILES)]
