"""A second implementation of noise and laws, from their formulas: one position, plain Python.

Nothing of it is shared with the package. The formulas are those of the papers that each law names.
"""

from __future__ import annotations

import math
from typing import Any

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15
_FIRST = 0xBF58476D1CE4E5B9


def _mix(x: int) -> int:
    """SplitMix64's finaliser."""
    x = ((x ^ (x >> 30)) * _FIRST) & _MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _MASK
    return x ^ (x >> 31)


class NaiveNoise:
    """Of one position of one request."""

    def __init__(self, seed: int, position: int) -> None:
        self._key = _mix(_mix((seed + _GOLDEN) & _MASK) ^ ((position * _GOLDEN) & _MASK))

    def bits(self, slot: int, index: int) -> int:
        key = _mix(self._key ^ (((slot + 1) * _FIRST) & _MASK))
        return _mix((key + (index + 1) * _GOLDEN) & _MASK)

    def uniform(self, slot: int, index: int) -> float:
        return ((self.bits(slot, index) >> 32) + 0.5) / 2**32

    def gumbel(self, slot: int, index: int) -> float:
        return -math.log(-math.log(self.uniform(slot, index)))

    def normal(self, slot: int, index: int) -> float:
        bits = self.bits(slot, index)
        first, second = ((bits >> 32) + 0.5) / 2**32, ((bits & 0xFFFFFFFF) + 0.5) / 2**32
        return math.sqrt(-2 * math.log(first)) * math.cos(2 * math.pi * second)

    def log_gamma(self, slot: int, index: int, shape: float) -> float:
        """Marsaglia and Tsang's draw of shape + 1, boosted."""
        d = shape + 2 / 3
        attempt = 0
        while True:
            x = self.normal(slot + 2 * attempt + 1, index)
            u = self.uniform(slot + 2 * attempt + 2, index)
            v = (1 + x / math.sqrt(9 * d)) ** 3
            if v > 0 and math.log(u) < x * x / 2 + d - d * v + d * math.log(v):
                return math.log(d * v) + math.log(self.uniform(slot, index)) / shape
            attempt += 1


def softmax(scores: dict[int, float], temperature: float = 1.0) -> dict[int, float]:
    largest = max(scores.values())
    parts = {i: math.exp((score - largest) / temperature) for i, score in scores.items()}
    return normalised(parts)


def normalised(parts: dict[int, float]) -> dict[int, float]:
    total = sum(parts.values())
    return {i: part / total for i, part in parts.items()}


def filtered(law: Any, logits: list[float]) -> dict[int, float]:
    """Temperature, top-k, nucleus, min-p, renormalised after each; likeliest first."""
    p = softmax(dict(enumerate(logits)), law.temperature)
    p = dict(sorted(p.items(), key=lambda entry: -entry[1]))
    if law.top_k:
        p = normalised(dict(list(p.items())[: law.top_k]))
    if law.top_p < 1:
        kept, mass = {}, 0.0
        for token, part in p.items():
            if mass >= law.top_p:
                break
            kept[token] = part
            mass += part
        p = normalised(kept)
    if law.min_p:
        least = law.min_p * max(p.values())
        p = normalised({token: part for token, part in p.items() if part >= least})
    return {token: part for token, part in p.items() if part > 0}


def drawn(p: dict[int, float], noise: NaiveNoise, slot: int) -> int:
    """The largest of log p plus noise of the token's own."""
    return max(p, key=lambda token: math.log(p[token]) + noise.gumbel(slot, token))


def entropy(p: dict[int, float]) -> float:
    return -sum(part * math.log(part) for part in p.values() if part > 0)


def token(law: Any, logits: list[float], noise: NaiveNoise) -> tuple[list[int], list[float]]:
    return [drawn(filtered(law, logits), noise, 0)], [1.0]


def soft_thinking(law: Any, logits: list[float], noise: NaiveNoise) -> tuple[list[int], list]:
    p = normalised(dict(list(filtered(law, logits).items())[: law.k]))
    return list(p), list(p.values())


def dirichlet(law: Any, logits: list[float], noise: NaiveNoise) -> tuple[list[int], list]:
    q = filtered(law, logits)
    logs = {token: noise.log_gamma(0, token, law.alpha * part) for token, part in q.items()}
    kept = sorted(logs, key=lambda token: -logs[token])[: law.k]
    weights = softmax({token: logs[token] for token in kept})
    return kept, [weights[token] for token in kept]


def gumbel(law: Any, logits: list[float], noise: NaiveNoise) -> tuple[list[int], list]:
    p = normalised(dict(list(filtered(law, logits).items())[: law.k]))
    perturbed = {}
    for token, part in p.items():
        g = noise.gumbel(0, token)
        perturbed[token] = math.log(part) + (min(max(g, -1.5), 3.0) if law.clamp else g)
    kept = sorted(p, key=lambda token: -perturbed[token])
    weights = softmax(perturbed, law.tau)
    return kept, [weights[token] for token in kept]


def multiplex(law: Any, logits: list[float], noise: NaiveNoise) -> tuple[list[int], list]:
    p = filtered(law, logits)
    draws = [drawn(p, noise, slot) for slot in range(law.k)]
    if law.weighting == "mean":
        return draws, [1 / law.k] * law.k
    parts = [
        0.0 if law.duplicates == "once" and token in draws[:slot] else p[token]
        for slot, token in enumerate(draws)
    ]
    return draws, [part / sum(parts) for part in parts]


def moi(law: Any, logits: list[float], noise: NaiveNoise) -> tuple[list[int], list]:
    x = drawn(filtered(law, logits), noise, 0)
    likeliest = sorted(range(len(logits)), key=lambda token: -logits[token])[: law.k]
    p = softmax({token: logits[token] for token in likeliest}, law.temperature)
    share = entropy(p) / math.log(law.k)
    of_x = share * law.beta / (1 + law.beta) + (1 - share)
    return [x, *likeliest], [of_x, *(share * p[token] / (1 + law.beta) for token in likeliest)]


def neighbours(
    law: Any, logits: list[float], noise: NaiveNoise, table: list[list[float]]
) -> tuple[list[int], list]:
    """The sampled token first; nothing else of it where nothing is mixed."""

    def cosine(one: int, other: int) -> float:
        a, b = table[one], table[other]
        dot = sum(x * y for x, y in zip(a, b, strict=True))
        return dot / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))

    x = drawn(filtered(law, logits), noise, 0)
    if noise.uniform(1, 0) >= law.rate:
        return [x], [1.0]
    best = max(range(len(logits)), key=lambda token: logits[token])
    anchor = x if law.anchor == "sampled" else best
    others = [token for token in range(len(logits)) if token != anchor]
    near = sorted(others, key=lambda token: -cosine(anchor, token))[: law.k - 1]
    if law.share is None:
        p = softmax({token: logits[token] for token in (anchor, *near)}, law.temperature)
        weights = list(p.values())
    else:
        weights = [law.share if near else 1.0] + [(1 - law.share) / len(near) for _ in near]
    ids = [anchor, *near]
    return (ids, weights) if law.anchor == "sampled" else ([x, *ids], [0.0, *weights])


def neftune_input(
    law: Any, logits: list[float], noise: NaiveNoise, table: list[list[float]]
) -> tuple[int, list[float]]:
    """The sampled token, and its row plus noise."""
    x = drawn(filtered(law, logits), noise, 0)
    scale = law.alpha / math.sqrt(law.length * len(table[x]))
    return x, [part + scale * (2 * noise.uniform(1, d) - 1) for d, part in enumerate(table[x])]


def noisy_input(
    law: Any, logits: list[float], noise: NaiveNoise, table: list[list[float]], rms: float
) -> list[float]:
    """p E + s n, in double."""
    p = softmax(dict(enumerate(logits)), law.tau)
    size = len(table[0])
    scale = law.sigma * rms * (math.sqrt(size) if law.convention == "row" else 1)
    return [sum(p[i] * table[i][d] for i in p) + scale * noise.normal(0, d) for d in range(size)]


def gumbel_score(law: Any, logits: list[float], ids: list[int], values: list[float]) -> float:
    """Of the recorded g', by the law's kind of score."""
    p = softmax({token: logits[token] for token in ids}, law.temperature)
    if law.score == "paper":
        residuals = [value - math.log(p[token]) for token, value in zip(ids, values, strict=True)]
        return sum(-e - math.exp(-e) for e in residuals)
    if law.score == "code":
        terms = []
        for token, value in zip(ids, values, strict=True):
            log = math.log(p[token] + 1e-6)
            e = min(max(value - log, -1.5), 3.0)
            if log > -3:
                terms.append(-e - math.exp(-e))
        return sum(terms) / max(len(terms), 1)
    y = softmax(dict(zip(ids, values, strict=True)), law.tau)
    inner = sum(p[token] * y[token] ** -law.tau for token in ids)
    return (
        math.log(math.factorial(len(ids) - 1))
        + (len(ids) - 1) * math.log(law.tau)
        + sum(math.log(p[token]) - (law.tau + 1) * math.log(y[token]) for token in ids)
        - len(ids) * math.log(inner)
    )
