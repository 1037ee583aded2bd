"""The interface of input laws: step, embed, log-prob.

A law decides what stands at the next position in place of a token's embedding, leaves a record of
it, makes the same input from the record wherever it is asked, and scores it where there is a score.
All of it is pure: what a law needs comes in, and nothing stays.

Shape suffixes: `_N` positions, `_NV` the same with the vocabulary, `_NK` with the law's slots,
`_ND` with the hidden size.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch

from rsp_rl.basics.errors import ConfigError
from rsp_rl.thoughts.noise import Noise
from rsp_rl.thoughts.rows import Kind, Rows


class Embedding(Protocol):
    """The model's input embedding, scaling of the model's own included."""

    @property
    def factor(self) -> float:
        """What a row of the table is multiplied by to be an input, 1 for most models."""

    def rows(self, ids: torch.Tensor) -> torch.Tensor:
        """Inputs of tokens, [..., d] of ids [...], in the model's dtype."""

    def mixture(self, probabilities_NV: torch.Tensor) -> torch.Tensor:
        """p E of distributions over the whole vocabulary, float32 [N, d]."""

    def nearest(self, ids_N: torch.Tensor, count: int, vocabulary: int) -> torch.Tensor:
        """Of V tokens those nearest to each of some by cosine, itself first: int64 [N, count]."""


#: Bounds of temperatures of any kind, beyond which a quotient of logits leaves float32.
LEAST_TEMPERATURE, MOST_TEMPERATURE = 1e-6, 1e6

#: Largest whole number of any setting.
_MOST_WHOLE = 2**31 - 1


@dataclass(frozen=True)
class Moment:
    """What a law steps from, at N positions of as many requests.

    Attributes:
        logits_NV: Of the positions before, float32, as the model gives them: no temperature yet;
            minus infinity for ids without a token.
        noise: Theirs.
        embedding: The model's.
        hidden_ND: Last hidden states of the positions before; None where the engine has none.
    """

    logits_NV: torch.Tensor
    noise: Noise
    embedding: Embedding
    hidden_ND: torch.Tensor | None = None


@dataclass(frozen=True)
class InputLaw(ABC):
    """One law with its settings; equal settings are equal laws.

    Attributes:
        name: What `--law` calls it.
        kind: Of its rows.
        dense: Whether its rows hold the inputs themselves.
        needs_hidden: Whether it steps from hidden states.
        mixes_all: Whether it asks for mixtures over the whole vocabulary.
        searches_all: Whether it asks for nearest tokens among the whole vocabulary.
        scores_noise: Whether its log-prob is a density of noise, which magnifies rounding.
        emits_likeliest: Whether the token that is emitted is no draw but the likeliest, of a law
            with a score: where that token ends the thoughts, nobody chose it.
        source: The paper that it is from.
    """

    name: ClassVar[str]
    kind: ClassVar[Kind]
    dense: ClassVar[bool] = False
    needs_hidden: ClassVar[bool] = False
    mixes_all: ClassVar[bool] = False
    searches_all: ClassVar[bool] = False
    scores_noise: ClassVar[bool] = False
    emits_likeliest: ClassVar[bool] = False
    source: ClassVar[str] = ""

    @property
    @abstractmethod
    def slots(self) -> int:
        """K, tokens that count at a position."""

    @property
    def deterministic(self) -> bool:
        """Whether two requests of one prompt are the same whatever their seeds are."""
        return False

    @property
    def needs_all(self) -> bool:
        """Whether it steps from the whole embedding table."""
        return self.mixes_all or self.searches_all

    def check(self, vocabulary: int) -> None:
        """Make sure that it fits a model of V tokens.

        Raises:
            ConfigError: Naming the setting.
        """
        if (k := getattr(self, "k", 1)) > vocabulary:
            raise ConfigError(
                f"law.k={k}, but the model has {vocabulary} tokens; choose a smaller one"
            )

    def check_parallel(self, tensor_parallel: int) -> None:
        """Make sure that an engine can use it whose model is spread over so many processes.

        Raises:
            ConfigError: If none of them has what it mixes or searches.
        """
        if self.needs_all and tensor_parallel > 1:
            does = "mixes" if self.mixes_all else "searches"
            raise ConfigError(
                f"law={self.name} {does} the whole vocabulary, of which a process has a part with "
                "tensor parallelism; use --tensor-parallel 1 and --data-parallel"
            )

    @abstractmethod
    def step(self, moment: Moment) -> Rows:
        """Records of the next positions; their first ids are the tokens that are emitted."""

    @abstractmethod
    def weights(self, rows: Rows) -> torch.Tensor:
        """Of the tokens in a mixture, float32 [N, K], each row's sum 1."""

    def embed(self, rows: Rows, embedding: Embedding) -> torch.Tensor:
        """The inputs of recorded positions, float32 [N, d]; the same function in every engine."""
        if rows.dense_ND is not None:
            return rows.dense_ND.float()
        weights_NK = self.weights(rows)
        return (weights_NK[..., None] * embedding.rows(rows.ids_NK.long()).float()).sum(1)

    def log_prob(
        self, rows: Rows, logits_NV: torch.Tensor, embedding: Embedding
    ) -> torch.Tensor | None:
        """How likely the law was to leave these records, with a gradient into the logits.

        Args:
            rows: Of its own kind.
            logits_NV: Of the positions before, float32, without a temperature.
            embedding: Of the model that is scored.

        Returns:
            [N], or [N, K] where a position has K independent draws; None for a law that has no
            score, or none that a trainer could use.
        """
        return None

    def gap(
        self, rows: Rows, noise: Noise, logits_NV: torch.Tensor, embedding: Embedding
    ) -> torch.Tensor | None:
        """How far the model that left these records is from one that is scored.

        For laws whose log-prob does not say it: that of noise depends on noise alone where the
        record was left, or magnifies rounding.

        Args:
            rows: Of its own kind.
            noise: That they were made with.
            logits_NV: As `log_prob` takes them.
            embedding: Likewise.

        Returns:
            [N]: mean |log p - log p'| of the tokens in a mixture, in nats; of `dense` laws
            |h - h'| / |h|, of what the noise was added to. None where log-probs say it.
        """
        return None


@dataclass(frozen=True)
class FilteredLaw(InputLaw):
    """A law over a distribution that is filtered first.

    Attributes:
        temperature: Divides the logits, 1e-6 to 1e6.
        top_k: Likeliest tokens that are kept; 0 for all.
        top_p: Nucleus of what is kept, above 0; 1 for all.
        min_p: Tokens less likely than this times the likeliest are dropped; 0 for none.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0

    def __post_init__(self) -> None:
        check_temperature("temperature", self.temperature)
        check_whole("top_k", self.top_k, 0)
        check_number("top_p", self.top_p, above=0, most=1)
        check_number("min_p", self.min_p, least=0, most=1)

    @property
    def deterministic(self) -> bool:
        """Of one token that is left nothing can be drawn."""
        return self.top_k == 1 or self.min_p == 1

    def check(self, vocabulary: int) -> None:
        """See `InputLaw.check`."""
        super().check(vocabulary)
        if self.top_k > vocabulary:
            raise ConfigError(
                f"law.top_k={self.top_k}, but the model has {vocabulary} tokens; 0 keeps all"
            )


def check_whole(name: str, value: object, least: int) -> None:
    """Refuse what is no whole number from `least` to 2^31 - 1.

    Raises:
        ConfigError: Naming the setting.
    """
    whole = isinstance(value, int) and not isinstance(value, bool)
    if not (whole and least <= value <= _MOST_WHOLE):
        raise ConfigError(
            f"law.{name}={value!r} must be a whole number of at least {least}, and below 2^31"
        )


def check_temperature(name: str, value: object) -> None:
    """Refuse what nothing can be divided by.

    Raises:
        ConfigError: Naming the setting.
    """
    check_number(name, value, least=LEAST_TEMPERATURE, most=MOST_TEMPERATURE)


def check_number(
    name: str,
    value: object,
    *,
    above: float | None = None,
    least: float | None = None,
    most: float | None = None,
) -> None:
    """Refuse what is no finite number within bounds.

    Raises:
        ConfigError: Naming the setting.
    """
    bounds = [
        f"{word} {bound}"
        for word, bound in (("above", above), ("at least", least), ("at most", most))
        if bound is not None
    ]
    good = (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and -math.inf < value < math.inf
        and (above is None or value > above)
        and (least is None or value >= least)
        and (most is None or value <= most)
    )
    if not good:
        raise ConfigError(f"law.{name}={value!r} must be a number {' and '.join(bounds)}")


def check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    """Refuse what is none of a few words.

    Raises:
        ConfigError: Naming the setting.
    """
    if value not in choices:
        raise ConfigError(f"law.{name}={value!r} is unknown; use one of {', '.join(choices)}")
