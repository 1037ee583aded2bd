"""Every law against its naive second implementation, and where one law is another."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rsp_rl.draws.record import SoftPromptRecord
from rsp_rl.thoughts.embedding import TableEmbedding
from rsp_rl.thoughts.law import InputLaw, Moment
from rsp_rl.thoughts.laws.dirichlet import Dirichlet
from rsp_rl.thoughts.laws.gumbel import Gumbel
from rsp_rl.thoughts.laws.hidden import Hidden
from rsp_rl.thoughts.laws.mixture_of_inputs import MixtureOfInputs
from rsp_rl.thoughts.laws.multiplex import Multiplex
from rsp_rl.thoughts.laws.neftune import Neftune
from rsp_rl.thoughts.laws.neighbours import Neighbours
from rsp_rl.thoughts.laws.noisy import Fuzzy, Soft
from rsp_rl.thoughts.laws.random_soft_prompt import RandomSoftPrompt
from rsp_rl.thoughts.laws.soft_thinking import SoftThinking
from rsp_rl.thoughts.laws.token import Token
from rsp_rl.thoughts.names import LAWS
from rsp_rl.thoughts.noise import Noise
from rsp_rl.thoughts.rows import Kind, Rows
from tests.properties import examples
from tests.unit.thoughts import naive
from tests.unit.thoughts.made import HIDDEN, made_embedding, made_logits, made_moment

VOCABULARY = 50
FILTERS = (
    {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0},
    {"temperature": 0.6, "top_k": 30, "top_p": 0.95, "min_p": 0.001},
    {"temperature": 1.3, "top_k": 3, "top_p": 1.0, "min_p": 0.0},
    {"temperature": 0.8, "top_k": 0, "top_p": 0.6, "min_p": 0.0},
    {"temperature": 2.0, "top_k": 0, "top_p": 1.0, "min_p": 0.2},
)
OWN = {
    Token: [{}],
    SoftThinking: [{"k": 1}, {"k": 10}],
    Dirichlet: [{"k": 4, "alpha": 0.1}, {"k": 10, "alpha": 4.0}],
    Gumbel: [{"k": 5, "tau": 0.1}, {"k": 10, "tau": 0.5}, {"k": 4, "tau": 2.0, "clamp": True}],
    Multiplex: [
        {"k": 3},
        {"k": 6, "weighting": "probability"},
        {"k": 6, "weighting": "probability", "duplicates": "once"},
    ],
    MixtureOfInputs: [{"k": 2, "beta": 0.0}, {"k": 20, "beta": 1.0}],
}
NEIGHBOURS = (
    {"rate": 1.0},
    {"rate": 0.5, "k": 6},
    {"rate": 1.0, "k": 1},
    {"rate": 1.0, "k": 4, "share": 0.7},
    {"rate": 0.5, "k": 4, "anchor": "likeliest"},
    {"rate": 1.0, "k": 2, "anchor": "likeliest", "share": 0.0},
)
CASES = [(kind, own | filters) for kind, each in OWN.items() for own in each for filters in FILTERS]
KEYS = [(3, 11), (2**63 - 1, 0), (4, 12)]


def lone(law: InputLaw, rows: Rows, row: int) -> tuple[list[int], list[float]]:
    """Ids and weights of one position, without slots that weigh nothing."""
    weights = law.weights(rows)[row].double()
    return rows.ids_NK[row].tolist(), weights.tolist()


@pytest.mark.parametrize(("kind", "settings"), CASES)
def test_steps_are_the_naive_ones(kind: type[InputLaw], settings: dict) -> None:
    law = kind(**settings)
    for seed in range(4):
        logits_NV = made_logits(seed, len(KEYS), VOCABULARY)
        embedding = made_embedding(VOCABULARY)
        rows = law.step(made_moment(logits_NV, KEYS, embedding))
        inputs_ND = law.embed(rows, embedding)
        assert rows.ids_NK.shape == (len(KEYS), law.slots)
        assert set(rows.kind_N.tolist()) == {law.kind}
        for row, key in enumerate(KEYS):
            logits = logits_NV[row].double().tolist()
            name = law.name
            ids, weights = getattr(naive, name)(law, logits, naive.NaiveNoise(*key))
            found_ids, found_weights = lone(law, rows, row)
            assert found_ids[: len(ids)] == ids
            assert found_weights[: len(ids)] == pytest.approx(weights, abs=1e-5)
            assert all(weight == 0 for weight in found_weights[len(ids) :])
            assert found_ids[0] == ids[0]  # the one that is emitted
            expected_D = torch.zeros(HIDDEN, dtype=torch.double)
            for token, weight in zip(ids, weights, strict=True):
                expected_D += weight * embedding.rows(torch.tensor(token)).detach().double()
            torch.testing.assert_close(inputs_ND[row].double(), expected_D, rtol=0, atol=1e-4)


@pytest.mark.parametrize("filters", FILTERS)
@pytest.mark.parametrize("settings", NEIGHBOURS)
def test_mixtures_of_neighbours_are_the_naive_ones(settings: dict, filters: dict) -> None:
    law = Neighbours(**settings, **filters)
    embedding = made_embedding(VOCABULARY)
    table = embedding.rows(torch.arange(VOCABULARY)).detach().double().tolist()
    keys = [(seed, 3 + seed) for seed in range(12)]
    logits_NV = made_logits(2, len(keys), VOCABULARY)
    rows = law.step(made_moment(logits_NV, keys, embedding))
    inputs_ND = law.embed(rows, embedding)
    assert rows.ids_NK.shape == (len(keys), law.slots)
    assert set(rows.kind_N.tolist()) == {Kind.MIX, *([Kind.TOKEN] if law.rate < 1 else [])}
    for row, key in enumerate(keys):
        logits = logits_NV[row].double().tolist()
        ids, weights = naive.neighbours(law, logits, naive.NaiveNoise(*key), table)
        mixed = int(rows.kind_N[row]) == Kind.MIX
        found_ids, found_weights = lone(law, rows, row)
        assert found_ids == (ids if mixed else [ids[0]] * law.slots)
        assert found_weights[: len(ids)] == pytest.approx(weights, abs=1e-5)
        mixed_KD = torch.tensor([table[token] for token in ids]).double()
        expected_D = torch.tensor(weights).double() @ mixed_KD
        torch.testing.assert_close(inputs_ND[row].double(), expected_D, rtol=0, atol=1e-4)


def test_so_many_positions_have_a_mixture() -> None:
    """By seed and position, whatever stands there."""
    moment = made_moment(made_logits(0, 4000, 20))
    for rate in (0.1, 0.7):
        kinds = Neighbours(rate=rate).step(moment).kind_N
        share = float((kinds == Kind.MIX).float().mean())
        assert share == pytest.approx(rate, abs=4 * (rate * (1 - rate) / 4000) ** 0.5)
        other = replace(moment, logits_NV=made_logits(1, 4000, 20))
        assert torch.equal(Neighbours(rate=rate).step(other).kind_N, kinds)


@pytest.mark.parametrize("alpha", [5.0, 100.0])
def test_neftunes_noise_is_the_naive_one(alpha: float) -> None:
    law = Neftune(alpha=alpha, length=64, temperature=0.8)
    embedding = made_embedding(VOCABULARY)
    table = embedding.rows(torch.arange(VOCABULARY)).detach().double().tolist()
    logits_NV = made_logits(1, len(KEYS), VOCABULARY)
    rows = law.step(made_moment(logits_NV, KEYS, embedding))
    assert set(rows.kind_N.tolist()) == {Kind.MIX_NOISE}
    for row, key in enumerate(KEYS):
        logits = logits_NV[row].double().tolist()
        token, expected = naive.neftune_input(law, logits, naive.NaiveNoise(*key), table)
        assert int(rows.emitted_N[row]) == token
        assert law.embed(rows, embedding)[row].tolist() == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("convention", ["entry", "row"])
@pytest.mark.parametrize("kind", [Soft, Fuzzy])
def test_noisy_inputs_are_the_naive_ones(kind: type[Soft], convention: str) -> None:
    embedding = made_embedding(VOCABULARY)
    ids_V = torch.arange(VOCABULARY)
    table = embedding.rows(ids_V).detach().double().tolist()
    law = kind(convention=convention, rms=0.9)
    logits_NV = made_logits(1, len(KEYS), VOCABULARY)
    rows = law.step(made_moment(logits_NV, KEYS, embedding))
    assert set(rows.kind_N.tolist()) == {Kind.MIX_NOISE}
    assert rows.emitted_N.tolist() == logits_NV.argmax(1).tolist()
    for row, key in enumerate(KEYS):
        logits = logits_NV[row].double().tolist()
        expected = naive.noisy_input(law, logits, naive.NaiveNoise(*key), table, 0.9)
        assert law.embed(rows, embedding)[row].tolist() == pytest.approx(expected, abs=1e-4)
    mean_ND = embedding.mixture(torch.softmax(logits_NV / law.tau, 1))
    gap_N = ((law.embed(rows, embedding) - mean_ND) ** 2).sum(1)
    scale = 0.33 * 0.9 * (HIDDEN**0.5 if convention == "row" else 1)
    expected_N = -gap_N / (2 * scale**2)
    torch.testing.assert_close(law.log_prob(rows, logits_NV, embedding), expected_N)


@examples(30)
@given(
    st.integers(0, 10**6),
    st.sampled_from(["paper", "code", "concrete"]),
    st.sampled_from(FILTERS),
    st.sampled_from([0.1, 0.5, 1.0]),
)
def test_scores_of_gumbel_are_the_naive_ones(
    seed: int, score: str, filters: dict, tau: float
) -> None:
    law = Gumbel(k=6, tau=tau, score=score, **filters)
    logits_NV = made_logits(seed, 2, VOCABULARY, size=2.0)
    rows = law.step(made_moment(logits_NV))
    later_NV = logits_NV + 0.1 * made_logits(seed + 1, 2, VOCABULARY)  # another policy
    found = law.log_prob(rows, later_NV, made_embedding(VOCABULARY))
    for row in range(2):
        kept = int((rows.values_NK[row] > -torch.inf).sum())
        ids, values = (part[row, :kept].double().tolist() for part in (rows.ids_NK, rows.values_NK))
        expected = naive.gumbel_score(
            law, later_NV[row].double().tolist(), [int(token) for token in ids], values
        )
        assert float(found[row]) == pytest.approx(expected, rel=1e-3, abs=1e-3)


@pytest.mark.parametrize("kind", [Token, Multiplex, MixtureOfInputs, Neighbours, Neftune])
def test_scores_of_tokens(kind: type[InputLaw]) -> None:
    """Of every draw, under the temperature and without filters."""
    law = kind(temperature=0.7, top_k=20)
    logits_NV = made_logits(5, 3, VOCABULARY)
    rows = law.step(made_moment(logits_NV))
    found = law.log_prob(rows, logits_NV, made_embedding(VOCABULARY)).reshape(3, -1)
    for row in range(3):
        p = naive.softmax(dict(enumerate(logits_NV[row].double().tolist())), 0.7)
        for slot in range(found.shape[1]):
            token = int(rows.ids_NK[row, slot])
            assert float(found[row, slot].exp()) == pytest.approx(p[token], rel=1e-4)


def test_hidden_states_come_back() -> None:
    law = Hidden(latent_id=7)
    moment = made_moment(made_logits(0, 2, VOCABULARY))
    with pytest.raises(ValueError, match="hidden states"):
        law.step(moment)
    hidden_ND = torch.randn(2, HIDDEN)
    rows = law.step(replace(moment, hidden_ND=hidden_ND))
    assert rows.emitted_N.tolist() == [7, 7]
    assert torch.equal(law.embed(rows, moment.embedding), hidden_ND)
    assert law.log_prob(rows, moment.logits_NV, moment.embedding) is None


def test_a_random_soft_prompt_is_the_records_draw() -> None:
    record = SoftPromptRecord(5, 3, 4, 0.01, 0.02, "bfloat16", 9)
    law = RandomSoftPrompt(record)
    moment = Moment(
        made_logits(0, 4, VOCABULARY),
        Noise(torch.zeros(4, dtype=torch.long), torch.arange(3, 7)),
        made_embedding(VOCABULARY),
    )
    rows = law.step(moment)
    assert torch.equal(law.embed(rows, moment.embedding), record.draw(HIDDEN).float())
    assert rows.emitted_N.tolist() == [9] * 4
    with pytest.raises(ValueError, match="not at offsets"):
        law.step(replace(moment, noise=Noise(torch.zeros(4).long(), torch.arange(4, 8))))


# Where one law is another.


def inputs(law: InputLaw, moment: Moment) -> torch.Tensor:
    return law.embed(law.step(moment), moment.embedding)


def emitted(law: InputLaw, moment: Moment) -> list[int]:
    return law.step(moment).emitted_N.tolist()


@pytest.fixture(params=[40, 300])
def moment(request: pytest.FixtureRequest) -> Moment:
    """Without near ties: of those fuzzy tokens are mixtures, on purpose."""
    logits_NV = made_logits(8, 200, request.param)
    best_N2 = logits_NV.topk(2, dim=1).values
    return made_moment(logits_NV[best_N2[:, 0] - best_N2[:, 1] > 0.02])


@pytest.mark.parametrize("filters", FILTERS)
@pytest.mark.parametrize(
    "kind", [SoftThinking, Dirichlet, Gumbel, Fuzzy], ids=lambda kind: kind.name
)
def test_one_token_is_greedy(kind: type[InputLaw], filters: dict, moment: Moment) -> None:
    """A k of 1; and fuzzy tokens without noise."""
    if kind is Dirichlet:  # its k largest weights, not its k likeliest tokens
        filters = filters | {"top_k": 1}
    law = Fuzzy(sigma=0) if kind is Fuzzy else kind(k=1, **filters)
    best_N = moment.logits_NV.argmax(1)
    assert emitted(law, moment) == best_N.tolist()
    assert torch.equal(inputs(law, moment), moment.embedding.rows(best_N))


@pytest.mark.parametrize("filters", FILTERS)
def test_multiplex_of_one_draw_is_sampling(filters: dict, moment: Moment) -> None:
    token = Token(**filters)
    for weighting in ("mean", "probability"):
        law = Multiplex(k=1, weighting=weighting, **filters)
        assert emitted(law, moment) == emitted(token, moment)
        assert torch.equal(inputs(law, moment), inputs(token, moment))
        embedding, rows = moment.embedding, law.step(moment)
        scores_N1 = law.log_prob(rows, moment.logits_NV, embedding)
        assert torch.equal(
            scores_N1[:, 0], token.log_prob(token.step(moment), moment.logits_NV, embedding)
        )


@pytest.mark.parametrize("filters", FILTERS)
@pytest.mark.parametrize(
    "law",
    [
        Neighbours(rate=0.0),
        Neighbours(rate=0.0, anchor="likeliest"),
        Neighbours(rate=1.0, k=1),
        Neighbours(rate=1.0, share=1.0),
        Neftune(alpha=0.0),
    ],
    ids=["no rate", "no rate, likeliest", "alone", "all", "no noise"],
)
def test_nothing_mixed_in_or_added_is_sampling(
    law: InputLaw, filters: dict, moment: Moment
) -> None:
    law, token, embedding = replace(law, **filters), Token(**filters), moment.embedding
    rows, drawn = law.step(moment), token.step(moment)
    assert rows.emitted_N.tolist() == drawn.emitted_N.tolist()
    assert torch.equal(law.embed(rows, embedding), token.embed(drawn, embedding))
    assert torch.equal(
        law.log_prob(rows, moment.logits_NV, embedding),
        token.log_prob(drawn, moment.logits_NV, embedding),
    )


@pytest.mark.parametrize(
    ("law", "same"),
    [
        (Neighbours(top_k=1), False),  # which positions are mixed is drawn
        (Neighbours(top_k=1, rate=1.0), True),
        (Neighbours(top_k=1, rate=0.0), True),
        (Neighbours(top_k=1, share=1.0), True),
        (Neighbours(rate=0.0), False),
        (Neftune(top_k=1), False),
        (Neftune(top_k=1, alpha=0.0), True),
    ],
)
def test_what_is_drawn_beside_the_tokens(law: InputLaw, same: bool) -> None:
    assert law.deterministic == same
    logits_NV = made_logits(0, 1, VOCABULARY).expand(400, -1)
    found_ND = law.embed(law.step(made_moment(logits_NV)), made_embedding(VOCABULARY))
    assert bool((found_ND == found_ND[0]).all()) == same


def test_gumbel_of_a_small_tau_is_sampling() -> None:
    """With the same noise: of all tokens of a small vocabulary, and of a top-k."""
    for vocabulary, filters in ((40, FILTERS[0]), (300, {"top_k": 25, "temperature": 0.8})):
        moment = made_moment(made_logits(9, 300, vocabulary, size=1.0))
        k = filters["top_k"] or vocabulary
        law = Gumbel(k=k, tau=1e-6, **{"top_p": 1.0, "top_k": 0} | filters)
        token = Token(**filters)
        assert emitted(law, moment) == emitted(token, moment)
        assert torch.equal(inputs(law, moment), inputs(token, moment))


def test_soft_of_a_small_tau_is_fuzzy(moment: Moment) -> None:
    for sigma in (0.0, 0.33):
        soft, fuzzy = Soft(tau=1e-6, sigma=sigma, rms=1.0), Fuzzy(sigma=sigma, rms=1.0)
        assert torch.equal(inputs(soft, moment), inputs(fuzzy, moment))
        assert emitted(soft, moment) == emitted(fuzzy, moment)


def test_moi_of_a_large_beta_is_sampling(moment: Moment) -> None:
    law, token = MixtureOfInputs(beta=1e30), Token()
    assert emitted(law, moment) == emitted(token, moment)
    torch.testing.assert_close(inputs(law, moment), inputs(token, moment), rtol=0, atol=1e-25)


@pytest.mark.parametrize("convention", ["entry", "row"])
def test_noise_is_in_units_of_what_the_look_up_gives(convention: str) -> None:
    """Gemma multiplies its table's rows: noise of the table's own size would be next to none."""
    logits_NV, table = made_logits(0, 3, VOCABULARY), made_embedding(VOCABULARY)
    eight = TableEmbedding(lambda ids: 8 * table.rows(ids), lambda: table.rows(torch.arange(50)))
    law = Soft(rms=0.5, convention=convention)
    plain, scaled = (law.step(made_moment(logits_NV, embedding=e)) for e in (table, eight))
    torch.testing.assert_close(scaled.dense_ND, 8 * plain.dense_ND)
    scores = law.log_prob(plain, logits_NV, table), law.log_prob(scaled, logits_NV, eight)
    torch.testing.assert_close(*scores)
    for rows, embedding in ((plain, table), (scaled, eight)):
        gap_N = law.gap(rows, made_moment(logits_NV).noise, logits_NV, embedding)
        assert float(gap_N.max()) < 1e-5


def test_dirichlet_of_a_large_alpha_is_soft_thinking(moment: Moment) -> None:
    filters = FILTERS[1]
    law, soft = Dirichlet(k=10, alpha=1e9, **filters), SoftThinking(k=10, **filters)
    torch.testing.assert_close(inputs(law, moment), inputs(soft, moment), rtol=0, atol=5e-3)


@pytest.mark.parametrize("name", LAWS)
def test_a_request_is_the_same_in_any_batch(name: str) -> None:
    law = LAWS[name](**({"rms": 1.0} if name in ("soft", "fuzzy") else {}))
    keys = [(seed, 3 + seed) for seed in range(5)]
    logits_NV = made_logits(4, 5, 300)
    embedding = made_embedding(300)
    moment = replace(made_moment(logits_NV, keys, embedding), hidden_ND=torch.ones(5, HIDDEN))
    together = law.step(moment)
    order = [3, 0, 4, 1, 2]
    shuffled = law.step(
        replace(
            made_moment(logits_NV[order], [keys[at] for at in order], embedding),
            hidden_ND=torch.ones(5, HIDDEN),
        )
    )
    assert torch.equal(together.ids_NK[order], shuffled.ids_NK)
    torch.testing.assert_close(together.values_NK[order], shuffled.values_NK, rtol=0, atol=1e-6)
    alone = law.step(
        replace(made_moment(logits_NV[2:3], keys[2:3], embedding), hidden_ND=torch.ones(1, HIDDEN))
    )
    assert torch.equal(alone.ids_NK[0], together.ids_NK[2])
    assert law.deterministic == (
        name in ("soft_thinking", "hidden")
    )  # without noise of its own, no second sample


def test_tokens_without_a_text_are_in_no_mixture() -> None:
    """Minus infinity for what the tokenizer does not know, be k as large as it may."""
    logits_NV = made_logits(2, 20, 12)
    logits_NV[:, 8:] = -torch.inf
    moment = made_moment(logits_NV)
    for kind, share in (
        *((kind, {}) for kind in (Token, SoftThinking, Dirichlet, Gumbel, Multiplex)),
        *((MixtureOfInputs, {}), (Neighbours, {"rate": 1.0})),
        (Neighbours, {"rate": 1.0, "share": 0.4}),
    ):
        own = {} if kind is Token else {"k": 10} | share
        law = kind(**own, temperature=1.0, top_p=1.0, top_k=0)
        rows = law.step(moment)
        weights_NK = law.weights(rows)
        assert bool(weights_NK.isfinite().all())
        torch.testing.assert_close(weights_NK.sum(1), torch.ones(20))
        assert float(weights_NK[rows.ids_NK >= 8].sum()) == 0
        assert int(rows.emitted_N.max()) < 8
        scores = law.log_prob(rows, logits_NV, moment.embedding)
        if scores is not None:
            assert bool(scores.isfinite().all())
