"""What emitted tokens are samples of, and that scores are those of a density: by Monte-Carlo.

The mean over a law's own records of the gradient of a log-density is 0. Given the emitted token,
that of Gumbel's is the gradient of the token's log-prob: the token is a statistic of the record.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import stats

from rsp_rl.thoughts.law import InputLaw
from rsp_rl.thoughts.laws.dirichlet import Dirichlet
from rsp_rl.thoughts.laws.gumbel import Gumbel
from rsp_rl.thoughts.laws.multiplex import Multiplex
from rsp_rl.thoughts.laws.noisy import Fuzzy, Soft
from rsp_rl.thoughts.laws.token import Token
from rsp_rl.thoughts.rows import Rows
from tests.tolerances import chance
from tests.unit.thoughts.made import made_embedding, made_logits, made_moment

COUNT = 40_000


def scores_of(
    law: InputLaw, vocabulary: int, count: int = COUNT, size: float = 1.0
) -> tuple[Rows, torch.Tensor, torch.Tensor]:
    """Records of one distribution, and the gradient of each's log-prob into the logits, [N, V]."""
    logits_V = made_logits(3, 1, vocabulary, size=size)[0]
    moment = made_moment(logits_V.expand(count, -1))
    rows = law.step(moment)
    free_NV = moment.logits_NV.clone().requires_grad_()
    log = law.log_prob(rows, free_NV, moment.embedding)
    (score_NV,) = torch.autograd.grad(log.sum(), free_NV)
    return rows, score_NV.double(), torch.softmax(logits_V.double(), 0)


def t_values(score_NV: torch.Tensor) -> torch.Tensor:
    """Of the means, in standard errors, where there is any."""
    error_V = score_NV.std(0) / len(score_NV) ** 0.5
    moved_V = error_V > 1e-9
    return (score_NV.mean(0)[moved_V] / error_V[moved_V]).abs()


UNFILTERED = {"temperature": 1.0, "top_k": 0, "top_p": 1.0}
DENSITIES = [
    *(Gumbel(k=k, tau=t, score=s, **UNFILTERED) for k in (3, 8) for t in (0.1, 0.5)
      for s in ("paper", "concrete")),
    Gumbel(k=5, tau=0.5, temperature=0.6, top_k=6, top_p=0.95),
    Gumbel(k=5, tau=0.5, temperature=0.6, top_k=6, top_p=0.95, score="concrete"),
    Multiplex(k=1),
    Multiplex(k=3),
    Multiplex(k=3, weighting="probability", temperature=0.7),
    Token(),
    Token(temperature=1.4),
    Soft(rms=1.0),
    Soft(rms=1.0, convention="row"),
    Soft(rms=1.0, learn_embedding=False),
    Fuzzy(tau=0.1, rms=1.0),
]  # fmt: skip


@pytest.mark.parametrize("law", DENSITIES, ids=str)
def test_the_mean_score_is_nothing(law: InputLaw) -> None:
    _, score_NV, _ = scores_of(law, 8)
    found = t_values(score_NV)
    assert len(found) >= min(3, 8)
    assert float(found.max()) < 5


@pytest.mark.parametrize("score", ["code", "paper"])
def test_the_score_of_the_authors_code_is_none(score: str) -> None:
    """With SofT-GRPO's rollouts, whose noise is clamped: the control of the test above.

    The paper's score fails on them too, noise and density must fit. On noise that is not clamped
    the code's bounds nearly cancel in the mean, not given the token: see below.
    """
    law = Gumbel(k=5, tau=0.1, score=score, clamp=True, **UNFILTERED)
    _, score_NV, _ = scores_of(law, 8, 10 * COUNT, size=3.0)
    assert float(t_values(score_NV).max()) > 8


@pytest.mark.parametrize("score", ["paper", "concrete"])
@pytest.mark.parametrize("k", [3, 8])
def test_given_the_emitted_token_gumbels_score_is_that_tokens(k: int, score: str) -> None:
    rows, score_NV, p_V = scores_of(Gumbel(k=k, tau=0.5, score=score, **UNFILTERED), 8)
    kept = p_V.topk(k).indices
    among_V = torch.zeros_like(p_V).index_put((kept,), p_V[kept] / p_V[kept].sum())
    for token in kept.tolist():
        own_NV = score_NV[rows.emitted_N == token]
        expected_V = -among_V
        expected_V[token] += 1
        assert len(own_NV) > 300
        off = t_values(own_NV - expected_V)
        assert float(off.max()) < 5


def test_the_code_score_is_not_the_tokens() -> None:
    law = Gumbel(k=8, tau=0.5, score="code", **UNFILTERED)
    rows, score_NV, p_V = scores_of(law, 8)
    token = int(p_V.argmax())
    expected_V = -p_V
    expected_V[token] += 1
    assert float(t_values(score_NV[rows.emitted_N == token] - expected_V).max()) > 20


@pytest.mark.parametrize("vocabulary", [12, 200])
@pytest.mark.parametrize(
    ("make", "slots"),
    [
        (lambda v: Gumbel(k=v, **UNFILTERED), 1),
        (lambda _: Multiplex(k=3), 3),
        (lambda _: Token(), 1),
    ],
    ids=["gumbel", "multiplex", "token"],
)
def test_emitted_tokens_are_samples(
    make: Callable[[int], InputLaw], slots: int, vocabulary: int
) -> None:
    """Beyond the 64 likeliest too; and the draws of one position are independent."""
    law = make(vocabulary)
    logits_V = made_logits(4, 1, vocabulary, size=0.8)[0]
    rows = law.step(made_moment(logits_V.expand(COUNT, -1)))
    p = torch.softmax(logits_V.double(), 0).numpy()
    for slot in range(slots):
        seen = np.bincount(rows.ids_NK[:, slot].numpy(), minlength=vocabulary)
        assert stats.chisquare(seen, COUNT * p).pvalue > 0.001
    if slots > 1:
        equal = (rows.ids_NK[:, 0] == rows.ids_NK[:, 1]).double().mean()
        chances = float((p**2).sum())
        assert abs(float(equal) - chances) < chance((chances * (1 - chances)) ** 0.5, COUNT)


def test_dirichlets_mean_weights_are_q() -> None:
    """And their variance that of the distribution, all tokens kept."""
    law = Dirichlet(k=6, alpha=4.0, **UNFILTERED)
    logits_V = made_logits(4, 1, 6, size=0.7)[0]
    q_V = torch.softmax(logits_V.double(), 0)
    rows = law.step(made_moment(logits_V.expand(COUNT, -1)))
    weights_NV = torch.zeros(COUNT, 6).scatter(1, rows.ids_NK.long(), law.weights(rows)).double()
    assert float(t_values(weights_NV - q_V).max()) < 5
    variance_V = q_V * (1 - q_V) / 5
    assert weights_NV.var(0).numpy() == pytest.approx(variance_V.numpy(), rel=0.1)


def test_noise_of_soft_tokens() -> None:
    """Its size, and that it has nothing to do with other entries."""
    embedding = made_embedding(9, 64)
    logits_NV = made_logits(1, 1, 9)[0].expand(4000, -1)
    law = Soft(rms=0.5)
    moment = made_moment(logits_NV, embedding=embedding)
    mean_ND = embedding.mixture(torch.softmax(logits_NV / law.tau, 1)).detach()
    noise_ND = (law.step(moment).dense_ND - mean_ND).detach()
    assert stats.kstest(noise_ND.flatten().numpy(), "norm", args=(0, 0.33 * 0.5)).pvalue > 0.001
    correlations = np.corrcoef(noise_ND.numpy().T) - np.eye(64)
    assert abs(correlations).max() < chance(1, 4000)


def test_whether_the_embedding_learns() -> None:
    """Eq. 10's gradient into E, or into p alone: the same there."""
    gradients = []
    for learn in (True, False):
        embedding = made_embedding(9)
        moment = made_moment(made_logits(1, 3, 9), embedding=embedding)
        law = Soft(rms=1.0, learn_embedding=learn)
        with torch.no_grad():
            rows = law.step(moment)
        logits_NV = (moment.logits_NV + 0.1).requires_grad_()
        logits_NV.retain_grad()
        table = embedding.rows(torch.arange(9))  # makes the module's weight known to autograd
        law.log_prob(rows, logits_NV * 1.1, embedding).sum().backward()
        weight = embedding._table()
        gradients.append((logits_NV.grad, weight.grad))
        del table
    torch.testing.assert_close(gradients[0][0], gradients[1][0])
    assert float(gradients[0][1].abs().sum()) > 0
    assert gradients[1][1] is None
