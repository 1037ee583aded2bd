"""Texts as vectors, for the analyses that ask how far apart a model's answers are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from rsp_rl.basics.errors import ConfigError

#: Embedder that needs no model: character n-grams, hashed. It sees wording, not meaning.
NGRAMS = "ngrams"

#: The paper's (Table 4).
DEFAULT = "BAAI/bge-m3"


class Embedder(Protocol):
    """Turns texts into vectors."""

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """Vectors of Euclidean norm 1, [N, d]; zero for a text that holds nothing."""


def get_embedder(name: str) -> Embedder:
    """`ngrams`, or any sentence-transformers model by folder or name on the hub.

    Raises:
        ConfigError: If the packages or the model are missing.
    """
    try:
        return _ngrams() if name == NGRAMS else _sentence_transformer(name)
    except ImportError as error:
        raise ConfigError(
            f"embedding texts needs the extra `analysis` ({error}): pip install 'rsp-rl[analysis]'"
        ) from error


def _ngrams() -> Embedder:
    from sklearn.feature_extraction.text import HashingVectorizer

    vectorizer = HashingVectorizer(
        analyzer="char_wb", ngram_range=(3, 5), n_features=4096, alternate_sign=False
    )
    return lambda texts: vectorizer.transform(texts).toarray()


def _sentence_transformer(name: str) -> Embedder:
    from sentence_transformers import SentenceTransformer

    try:
        model = SentenceTransformer(name)
    except (OSError, ValueError) as error:
        cause = str(error).partition("\n")[0]
        raise ConfigError(
            f"--embedder {name} cannot be loaded ({cause}); give a sentence-transformers model by "
            f"folder or hub name, or {NGRAMS}, which needs none"
        ) from error
    return lambda texts: model.encode(
        list(texts), normalize_embeddings=True, convert_to_numpy=True, show_progress_bar=False
    )
