"""Distances of made-up vectors by hand; real embedders on texts."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsp_rl.analysis.diversity import Clustering, _mean_pairwise, distances
from rsp_rl.analysis.embedders import get_embedder
from rsp_rl.basics.errors import ConfigError
from rsp_rl.cli import main
from rsp_rl.evaluation.folder import EvaluationFolder
from tests.tolerances import rounding
from tests.unit.analysis.made_conditions import make_condition
from tests.unit.evaluation.made_runs import write_lines

E1, E2, E3 = np.eye(3)


def test_worked_by_hand() -> None:
    """Two clusters of three equal vectors at right angles, and one vector alone."""
    vectors = np.array([E1, E1, E1, E2, E2, E2])
    assert distances(vectors, Clustering(0.1, 2)) == pytest.approx((9 / 15, 1.0, 0.0))
    with_noise = np.vstack([vectors, E3])
    assert distances(with_noise, Clustering(0.1, 2)) == pytest.approx((15 / 21, 1.0, 0.0))


def test_spread_within_one_cluster() -> None:
    slanted = np.array([np.cos(0.2), np.sin(0.2), 0])
    apart = 1 - np.cos(0.2)
    measured = distances(np.array([E1, slanted]), Clustering(0.1, 2))
    assert measured == pytest.approx((apart, 0.0, apart))


def test_all_noise_has_no_clusters() -> None:
    assert distances(np.array([E1, E2, E3]), Clustering(0.1, 2)) == pytest.approx((1, 0, 0))


@given(st.integers(2, 12), st.integers(0, 10_000))
def test_mean_over_all_pairs(count: int, seed: int) -> None:
    vectors = np.random.default_rng(seed).normal(size=(count, 4))
    units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    pairs = [1 - units[i] @ units[j] for i in range(count) for j in range(i)]
    assert _mean_pairwise(vectors) == pytest.approx(np.mean(pairs))


def test_ngrams_tell_texts_apart() -> None:
    same, alike, other = get_embedder("ngrams")(["add 2 and 3", "add 2 and 4", "a prime number"])
    assert same @ same == pytest.approx(1)
    assert same @ alike > same @ other


def test_any_sentence_transformers_model(tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import StaticEmbedding
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace

    tokenizer = Tokenizer(WordLevel({"[UNK]": 0, "add": 1, "prime": 2}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    table = np.array([[0, 0, 1], [2, 0, 0], [0, 3, 0]], dtype=np.float32)
    model = SentenceTransformer(modules=[StaticEmbedding(tokenizer, embedding_weights=table)])
    model.save(str(tmp_path / "embedder"))
    vectors = get_embedder(str(tmp_path / "embedder"))(["add", "prime", "what"])
    np.testing.assert_allclose(vectors, [E1, E2, E3], rtol=0, atol=rounding(4))


def test_a_missing_embedder_is_one_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be loaded"):
        get_embedder(str(tmp_path / "nothing"))


def condition(root: Path, wordings: int) -> str:
    """Four problems with six samples each, of so many different wordings."""
    words = ("add the numbers", "multiply both sides", "use a table", "draw a graph first")
    made = make_condition(root, {"aime24": ["+-+-+-"] * 4})
    file = EvaluationFolder(root).step(0).samples("aime24")
    samples = [json.loads(line) for line in file.read_text().splitlines()]
    write_lines(file, [s | {"output": words[s["sample"] % wordings]} for s in samples])
    return made


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    same, varied = condition(tmp_path / "a", 1), condition(tmp_path / "b", 3)
    output = tmp_path / "out"
    command = ["analyze", "diversity", f"same={same}", f"varied={varied}"]
    options = ["--embedder", "ngrams", "--min-samples", "2", "--output", str(output)]
    assert main([*command, *options]) == 0
    rows = [line.split(",") for line in (output / "diversity.csv").read_text().splitlines()[1:]]
    means = {(row[1], row[2]): float(row[3]) for row in rows}
    assert means["same", "pairwise"] == pytest.approx(0, abs=rounding(4))
    assert means["varied", "pairwise"] > 0.1
    assert means["varied", "inter-cluster"] > means["varied", "intra-cluster"]
    assert (output / "diversity.png").is_file()
    assert main([*command, "--embedder", "ngrams", "--eps", "3"]) == 1
    assert "--eps 3.0 must be" in capsys.readouterr().err
