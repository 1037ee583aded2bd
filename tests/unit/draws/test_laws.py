"""The laws: what each draws, that it draws it again, and where a table that is gone is noticed."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rsp_rl.basics.errors import EmbeddingTableError
from rsp_rl.draws.embedding_table import FOLDER_VARIABLE
from rsp_rl.draws.laws import LAWS
from rsp_rl.draws.record import SoftPromptRecord
from tests.properties import examples
from tests.tolerances import chance, rounding
from tests.unit.draws.made_tables import DIGEST, ROWS, WIDTH, write_model

SEEDS = st.integers(0, 2**64 - 1)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> torch.Tensor:
    """The pretrained table of this module's records, in its own dtype."""
    folder = tmp_path_factory.mktemp("pretrained")
    table = write_model(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(FOLDER_VARIABLE, str(folder))
        yield table


def record(law: str, **changes: object) -> SoftPromptRecord:
    values = {
        "seed": 7,
        "start": 0,
        "length": 6,
        "mean": 0.01,
        "std": 0.3,
        "dtype": "float32",
        "placeholder_id": 2,
        "law": law,
        "table": DIGEST if LAWS[law].from_table else 0,
        "added_to": 3 if LAWS[law].added else 0,
    }
    return SoftPromptRecord(**{**values, **changes})


def test_codes_of_the_laws_are_frozen() -> None:
    """Encoded records of stored samples name a law by its position."""
    assert list(LAWS) == ["gaussian", "vocab", "fixed", "sphere", "question_noise"]


@pytest.mark.usefixtures("table")
@pytest.mark.parametrize("law", LAWS)
@given(seed=SEEDS, short=st.integers(0, 8), more=st.integers(0, 8))
@examples(40)
def test_draws_repeat_and_longer_ones_begin_like_shorter_ones(
    law: str, seed: int, short: int, more: int
) -> None:
    longer = record(law, seed=seed, length=short + more)
    rows = longer.draw(WIDTH)
    assert rows.shape == (short + more, WIDTH)
    assert torch.equal(rows, SoftPromptRecord.from_tensor(longer.to_tensor()).draw(WIDTH))
    shorter = replace(longer, length=short).draw(WIDTH)
    if LAWS[law].added:  # is as large as the question is short
        shorter = shorter * math.sqrt(short / max(short + more, 1))
        torch.testing.assert_close(rows[:short], shorter, rtol=rounding(4), atol=0)
    else:
        assert torch.equal(rows[:short], shorter)


@pytest.mark.usefixtures("table")
@pytest.mark.parametrize("law", LAWS)
def test_other_seeds_give_other_draws(law: str) -> None:
    assert not torch.equal(record(law).draw(WIDTH), record(law, seed=8).draw(WIDTH))


@pytest.mark.usefixtures("table")
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("law", LAWS)
def test_draws_are_rounded_to_the_rollouts_dtype(law: str, dtype: str) -> None:
    exact = record(law).draw(WIDTH)
    assert torch.equal(record(law, dtype=dtype).draw(WIDTH), exact.to(getattr(torch, dtype)))


@pytest.mark.parametrize("law", ["gaussian", "fixed", "sphere"])
@given(mean=st.floats(-1, 1), std=st.floats(0.01, 3))
@examples(15)
def test_entries_have_the_records_mean_and_deviation(law: str, mean: float, std: float) -> None:
    rows = record(law, mean=mean, std=std, length=100).draw(1024).double()
    size = rows.numel()
    # Sphere scales a row by 1 +- 1/45, and so the mean over 100 rows by 1 +- 1/450.
    assert abs(rows.mean() - mean) < chance(std, size) + chance(abs(mean) / 45, len(rows))
    # A deviation's standard error is 1 / sqrt(2 size) of it; sphere's rows are off as above.
    few = chance(math.sqrt(1 / 2), size) + rounding(2, size=abs(mean) / std)
    assert rows.std() == pytest.approx(std, rel=few)


@given(
    seed=SEEDS,
    width=st.integers(1, 300),
    mean=st.floats(-2, 2),
    std=st.floats(1e-3, 3),
)
@examples(80)
def test_sphere_has_one_norm_and_the_gaussian_laws_directions(
    seed: int, width: int, mean: float, std: float
) -> None:
    sphere = record("sphere", seed=seed, mean=mean, std=std)
    rows = sphere.draw(width).double()
    radius = math.sqrt(width * (mean**2 + std**2))
    # Each entry is rounded once, to float32.
    np.testing.assert_allclose(rows.norm(dim=1), radius, rtol=rounding(2))
    gaussian = replace(sphere, law="gaussian").draw(width).double()
    cosine = torch.nn.functional.cosine_similarity(rows, gaussian)
    np.testing.assert_allclose(cosine, 1, atol=rounding(2), rtol=0)


def test_spheres_radius_is_the_gaussian_rows_root_mean_square() -> None:
    gaussian = record("gaussian", length=4000, mean=0.05).draw(64).double()
    sphere = record("sphere", length=1, mean=0.05).draw(64).double()
    expected = gaussian.norm(dim=1).square().mean().sqrt().item()
    # Of 4000 squared norms, each within 1 +- sqrt(2 / 64): half of that for the root.
    few = chance(math.sqrt(2 / 64) / 2, 4000)
    assert sphere.norm().item() == pytest.approx(expected, rel=few)


def test_a_sphere_without_radius_is_zero() -> None:
    assert not record("sphere", mean=0.0, std=0.0).draw(8).any()


@given(seed=SEEDS, length=st.integers(1, 40), width=st.integers(1, 200), alpha=st.floats(0.01, 100))
@examples(60)
def test_noise_is_nowhere_larger_than_neftunes(
    seed: int, length: int, width: int, alpha: float
) -> None:
    """alpha / sqrt(L d); so that the norm of all of it is at most alpha."""
    rows = record("question_noise", seed=seed, length=length, mean=0.0, std=alpha).draw(width)
    assert rows.abs().max() <= alpha / math.sqrt(length * width) * (1 + rounding(2))
    assert rows.double().norm() <= alpha * (1 + rounding(2))


def test_noise_is_uniform_and_its_entries_do_not_hang_together() -> None:
    """Mean, deviation and the share in each tenth of [-1, 1), of a million draws."""
    length, width, alpha = 100, 1024, 5.0
    bound = alpha / math.sqrt(length * width)
    drawn = [
        record("question_noise", seed=seed, length=length, mean=0.0, std=alpha).draw(width)
        for seed in range(10)
    ]
    units = torch.stack(drawn).double() / bound
    size = units.numel()
    assert abs(units.mean()) < chance(math.sqrt(1 / 3), size)
    assert abs(units.square().mean() - 1 / 3) < chance(math.sqrt(4 / 45), size)
    shares = torch.histc(units, 10, -1, 1) / size
    assert (shares - 0.1).abs().max() < chance(0.3, size)
    for one, other in ((units[:, :-1], units[:, 1:]), (units[:-1], units[1:])):
        assert abs((one * other).mean()) < chance(1 / 3, one.numel())
    assert abs((units[:, :, :-1] * units[:, :, 1:]).mean()) < chance(1 / 3, size)


def test_an_alpha_of_0_is_no_noise() -> None:
    assert not record("question_noise", mean=0.0, std=0.0).draw(8).any()


def test_fixed_is_the_gaussian_law() -> None:
    """One draw a run is a matter of the seed (`RspOptions.record`), not of the distribution."""
    assert torch.equal(record("fixed").draw(WIDTH), record("gaussian").draw(WIDTH))
    assert [law.name for law in LAWS.values() if law.one_draw] == ["fixed"]


# Rows of the table.


@given(seed=SEEDS)
@examples(40)
def test_vocab_rows_are_rows_of_the_table(table: torch.Tensor, seed: int) -> None:
    rows = record("vocab", seed=seed, length=9).draw(WIDTH)
    equal = (rows[:, None] == table.float()[None]).all(-1)
    assert equal.any(dim=1).all()


def test_vocab_takes_every_row_equally_often(table: torch.Tensor) -> None:
    rows = record("vocab", length=200 * ROWS).draw(WIDTH)
    counts = (rows[:, None] == table.float()[None]).all(-1).sum(0)
    assert counts.sum() == 200 * ROWS
    assert 130 < counts.min() <= counts.max() < 270  # 200 +- 5 deviations


@pytest.mark.usefixtures("table")
def test_another_models_table_is_refused() -> None:
    with pytest.raises(EmbeddingTableError, match=r"rows of 24 numbers, the model's are of 32"):
        record("vocab").draw(32)
    with pytest.raises(EmbeddingTableError, match=r"is not the pretrained one.*rsp\.table"):
        record("vocab", table=12345).draw(WIDTH)


def test_a_table_that_is_gone_is_one_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "gone"))
    with pytest.raises(EmbeddingTableError, match=r"is gone: .*does not exist.*rsp\.table=FOLDER"):
        record("vocab").draw(WIDTH)
    monkeypatch.delenv(FOLDER_VARIABLE)
    with pytest.raises(EmbeddingTableError, match=f"{FOLDER_VARIABLE} does not say where"):
        record("vocab").draw(WIDTH)
