"""The parity matrix's own parts: what counts as a fault, what is drawn, what stands in."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from parity.actor import Sample, plain_torch_log_probs
from parity.laws import LAYOUTS, MEAN_TOLERANCE, LawCell, LawGap, by_law, law_gap
from parity.laws import by_factor as by_factor_of_laws
from parity.layouts import ACTOR_LAYOUTS, ROLLOUT_LAYOUTS
from parity.matrix import last_error
from parity.measure import Gap, relative_error
from parity.report import (
    GAP_TOLERANCE,
    GRADIENT_TOLERANCE,
    TOKEN_TOLERANCE,
    Cell,
    by_factor,
    plot,
    save_json,
)
from parity.rollouts import from_json, to_json
from parity.stand_ins import packed_attention
from rsp_rl.draws.record import SoftPromptRecord, tokens_digest
from rsp_rl.thoughts.laws.multiplex import Multiplex
from rsp_rl.thoughts.record import ThoughtRecord
from rsp_rl.thoughts.rows import Kind, Rows, concatenate
from tests.properties import examples
from tests.tolerances import rounding

REPOSITORY = Path(__file__).resolve().parents[3]
GOOD = Cell(ROLLOUT_LAYOUTS[0], ACTOR_LAYOUTS[0], Gap(3e-7, 2e-6), Gap(2e-7, 1e-6), 2e-6)
REFUSED = Cell(ROLLOUT_LAYOUTS[0], ACTOR_LAYOUTS[1], refused="ValueError: no such device")


def test_the_factorial_is_whole_and_its_names_are_unique():
    assert len({layout.name for layout in ROLLOUT_LAYOUTS}) == 2**3
    assert len({layout.name for layout in ACTOR_LAYOUTS}) == 2 * 2 * 3 * 2 * 2 * 2 * 2


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({}, None),
        ({"with_rsp": Gap(2e-7 + 1.1 * GAP_TOLERANCE, 2e-6)}, "mean gap"),
        ({"without": Gap(3e-7 + 1.1 * GAP_TOLERANCE, 2e-6)}, "mean gap"),
        ({"with_rsp": Gap(math.nan, 2e-6)}, "mean gap"),
        ({"without": Gap(2e-7, 1.1 * TOKEN_TOLERANCE)}, "token's gap"),
        ({"with_rsp": Gap(2e-7, math.inf)}, "token's gap"),
        ({"gradient_error": 1.1 * GRADIENT_TOLERANCE}, "gradient"),
        ({"gradient_error": math.nan}, "gradient"),
    ],
)
def test_faults(changes, fault):
    faults = replace(GOOD, **changes).faults
    assert len(faults) == (fault is not None)
    assert all(fault in told for told in faults)


def test_a_refused_cell_is_no_fault_and_says_why():
    assert not REFUSED.faults
    assert "cannot run: ValueError: no such device" in REFUSED.line()


def test_the_summary_counts_and_takes_the_worst(tmp_path):
    worse = replace(GOOD, rollout=ROLLOUT_LAYOUTS[1], with_rsp=Gap(5e-7, 3e-6), gradient_error=4e-6)
    cells = [GOOD, worse, REFUSED]
    everything = by_factor(cells).splitlines()[1].split()
    assert everything == ["all", "2", "1", *["5.00e-07", "2.00e-07", "3.00e-07", "3.00e-06"],
                          *["1.00e-06", "4.00e-06"]]  # fmt: skip
    save_json(tmp_path / "matrix.json", cells, {"note": 1})
    stored = json.loads((tmp_path / "matrix.json").read_text())
    assert [cell["refused"] for cell in stored["cells"]] == [None, None, REFUSED.refused]
    plot(tmp_path / "matrix.png", cells)
    assert (tmp_path / "matrix.png").stat().st_size > 10_000


RIGHT = LawGap(tokens=7e-7, mean=5e-7, max=2e-6, flips=0.0, forgotten=0.5)
LAW_CELL = LawCell("multiplex", ROLLOUT_LAYOUTS[0], LAYOUTS[0], RIGHT, 2e-6)


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({}, None),
        ({"tokens": 1.1 * MEAN_TOLERANCE}, "mean gap"),
        ({"mean": 1.1 * MEAN_TOLERANCE}, "mean gap"),
        ({"mean": math.inf}, "mean gap"),
        ({"max": 1.1 * TOKEN_TOLERANCE}, "thought's gap"),
        ({"flips": 0.01}, "likeliest token"),
    ],
)
def test_faults_of_a_law(changes, fault):
    cell = replace(LAW_CELL, gap=replace(RIGHT, **changes))
    assert all(fault in told for told in cell.faults)
    assert bool(cell.faults) == (fault is not None)
    assert (fault or "ok") in cell.line()


def test_a_small_tau_magnifies_rounding():
    apart = replace(RIGHT, mean=1e-3, max=0.1)
    fuzzy = replace(LAW_CELL, law="fuzzy", gap=apart, gradient_error=0.02)
    assert not fuzzy.faults
    assert len(replace(fuzzy, law="gumbel").faults) == 3
    assert replace(LAW_CELL, gradient_error=math.nan).faults == [
        "the gradient is not the reference's"
    ]


def test_tables_of_laws_take_the_worst_and_of_forgetting_the_least():
    other = replace(LAW_CELL, actor=LAYOUTS[-1], gap=replace(RIGHT, mean=9e-7, forgotten=0.3))
    refused = replace(LAW_CELL, law="soft", gap=None, refused="no such device")
    cells = [LAW_CELL, other, refused]
    rows = {line[:24].strip(): line[24:].split() for line in by_law(cells).splitlines()}
    assert rows["multiplex"] == [*("2", "0", "7.00e-07", "9.00e-07", "2.00e-06"),
                                 *("0.000", "2.00e-06", "0.300")]  # fmt: skip
    assert rows["soft"] == ["0", "1"]
    table = by_factor_of_laws(cells)
    assert ["ranks", "4", "-", "9.00e-07", *"------"] in [
        line.split() for line in table.splitlines()
    ]
    assert "cannot run: no such device" in refused.line()


def test_what_the_actor_makes_of_a_rollout_is_told_by_its_guards_numbers():
    mixed = Rows.of_kind(Kind.MIX, torch.tensor([[5, 6], [6, 7]]), torch.full((2, 2), 0.5))
    rest = [Rows.tokens(kind, [8], mixed) for kind in (Kind.FORCED, Kind.TOKEN)]
    record = ThoughtRecord(Multiplex(k=2), 7, 2, concatenate([mixed, *rest]))
    old = np.array([-1.0, -1, 0, -1])
    sample = Sample([1, 2], [5, 6, 8, 8], old, 0.5, thoughts=record)
    assert from_json(json.loads(json.dumps(to_json(sample)))).thoughts.to_bytes() == (
        record.to_bytes()
    )
    fields = {
        "log_probs": np.array([-1.0, -1.5, 9, -1.25]),
        "rsp_forgotten_thoughts": np.array([np.nan, -3.0, np.nan, np.nan]),
    }
    # Of two draws; forced tokens are nobody's.
    assert law_gap([sample], [fields]) == LawGap(0.25, 0.125, 0.25, 0.0, 1.0)
    lost = {**fields, "log_probs": np.array([np.nan, -1.5, 9, -1.25])}
    assert law_gap([sample], [lost]).mean == math.inf


def test_relative_error_is_that_of_the_worst_tensor():
    wanted = {"a": torch.ones(4).numpy(), "b": torch.full((4,), 1e-3).numpy()}
    got = {"a": wanted["a"] * 1.001, "b": wanted["b"] * 1.5}
    assert relative_error(got, wanted) == pytest.approx(0.5, rel=rounding(4))
    assert relative_error({"a": wanted["a"]}, wanted) == math.inf
    got["a"][0] = math.nan
    assert math.isnan(relative_error(got, wanted))


def test_the_error_behind_vllms_own_is_told():
    log = (
        "(EngineCore pid=1) AssertionError: Given number of CPU id list ['0']\n"
        "RuntimeError: Engine core initialization failed. See root cause above. Failed procs: {}\n"
    )
    assert last_error(log) == "AssertionError: Given number of CPU id list ['0']"


def test_an_error_without_a_message_gets_its_place():
    log = (
        '  File "/lib/verl/workers/engine.py", line 215, in _init_device_mesh\n'
        "    self.mesh = init_device_mesh(shape)\n"
        '  File "/lib/torch/layout.py", line 319, in complement\n'
        "    raise AssertionError\n"
        "AssertionError\n"
    )
    assert last_error(log) == "AssertionError in _init_device_mesh of verl/workers/engine.py"


@given(lengths=st.lists(st.integers(1, 9), min_size=1, max_size=5), seed=st.integers(0, 99))
@examples(50)
def test_packed_attention_keeps_sequences_apart(lengths, seed):
    """As flash attention does: each sequence by itself, causal, with grouped heads."""
    generator = torch.Generator().manual_seed(seed)
    total = sum(lengths)
    query, key, value = (
        torch.randn(1, total, heads, 8, generator=generator, dtype=torch.float64)
        for heads in (4, 2, 2)
    )
    positions = torch.cat([torch.arange(length) for length in lengths])[None]
    packed = packed_attention(
        query, key, value, None, total, position_ids=positions, softmax_scale=0.3
    )
    start = 0
    for length in lengths:
        rows = slice(start, start + length)
        scores = torch.einsum(
            "qhd,khd->hqk", query[0, rows], key[0, rows].repeat_interleave(2, dim=1)
        )
        scores = (0.3 * scores).masked_fill(torch.ones(length, length).triu(1).bool(), -torch.inf)
        wanted = torch.einsum(
            "hqk,khd->qhd", scores.softmax(-1), value[0, rows].repeat_interleave(2, dim=1)
        )
        torch.testing.assert_close(packed[0, rows], wanted)
        start += length


def test_the_cuda_script_runs_on_a_cpu(tmp_path):
    """All of it but CUDA itself; and neither verl nor vLLM is imported."""
    script = REPOSITORY / "scripts" / "bench" / "cuda_parity.py"
    program = (
        "import runpy, sys\n"
        "sys.modules.update(dict.fromkeys(['verl', 'vllm', 'ray', 'tensordict']))\n"
        f"sys.path.insert(0, {str(script.parent)!r})\n"
        f"sys.argv = ['cuda_parity.py', '--device', 'cpu', '--output', {str(tmp_path / 'o')!r}]\n"
        f"runpy.run_path({str(script)!r}, run_name='__main__')\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, timeout=300
    )
    assert run.returncode == 0, run.stdout + run.stderr
    report = json.loads((tmp_path / "o").read_text())
    assert len(report["checks"]) == 15
    assert all(check["passed"] for check in report["checks"].values())
    kinds = {cost["what"] for cost in report["figures"]}
    assert len(kinds) == 8


def test_the_cuda_script_refuses_clearly_without_cuda():
    script = REPOSITORY / "scripts" / "bench" / "cuda_parity.py"
    run = subprocess.run(
        [sys.executable, str(script)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=120,
        env={"PYTHONPATH": str(REPOSITORY), "CUDA_VISIBLE_DEVICES": ""},
    )
    assert run.returncode == 1
    assert "sees no CUDA GPU" in run.stderr


def test_the_reference_rounds_added_rows_as_the_rollout_does():
    """An actor wider than the rollout: the sum is rounded to the rollout's dtype, then widened."""
    table, seen = torch.nn.Embedding(10, 4), []

    class Model:
        device = "cpu"

        def get_input_embeddings(self):
            return table

        def __call__(self, inputs_embeds, use_cache):
            seen.append(inputs_embeds)
            return SimpleNamespace(logits=inputs_embeds)

    prompt = [5, 6, 7]
    record = SoftPromptRecord(
        **{"seed": 1, "start": 1, "length": 2, "mean": 0.0, "std": 5.0, "dtype": "bfloat16"},
        **{"placeholder_id": 0, "law": "question_noise", "added_to": tokens_digest(prompt[1:])},
    )
    plain_torch_log_probs(Model(), [Sample(prompt, [3], np.zeros(1), 1.0, record)])
    embeds = table.weight[[*prompt, 3]].detach()
    wanted = embeds.clone()
    wanted[1:3] = (embeds[1:3].bfloat16() + record.draw(4)).float()
    assert torch.equal(seen[0][0].detach(), wanted)
    assert not torch.equal(wanted[1:3], embeds[1:3] + record.draw(4).float())
