"""Problems of a training set that a benchmark holds too: the same text, or nearly the same words.

Two rules, applied in this order:

- *exact*: equal once Unicode is normalised (NFKC) and blanks and case are ignored;
- *near*: the sets of word 8-grams have a Jaccard similarity of at least `THRESHOLD`. A text of
  fewer than 8 words is one n-gram. Words are runs of letters, digits and underscores, so numbers
  count as words and signs do not count.

The similarity is computed exactly, over an inverted index of the benchmark's n-grams: at the size
of a benchmark that takes seconds, and MinHash would only approximate it.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Literal

NGRAM = 8

#: Half of all 8-grams shared: the same problem with another number or a reworded clause.
THRESHOLD = 0.5

Match = Literal["exact", "near"]

_WORD = re.compile(r"\w+")
_BLANKS = re.compile(r"\s+")


def same_text_key(text: str) -> str:
    """What two texts share if and only if they are exact duplicates."""
    return _BLANKS.sub("", unicodedata.normalize("NFKC", text)).casefold()


def word_ngrams(text: str, size: int = NGRAM) -> frozenset[tuple[str, ...]]:
    """The set of word n-grams of a text; all its words as one where it has fewer."""
    words = _WORD.findall(unicodedata.normalize("NFKC", text).casefold())
    return frozenset(
        tuple(words[start : start + size]) for start in range(max(1, len(words) - size + 1))
    )


class DuplicateFinder:
    """Finds which texts a fixed collection holds, exactly or nearly."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._keys: set[str] = set()
        self._ngrams: list[frozenset[tuple[str, ...]]] = []
        self._holders: defaultdict[tuple[str, ...], list[int]] = defaultdict(list)
        for number, text in enumerate(texts):
            self._keys.add(same_text_key(text))
            self._ngrams.append(word_ngrams(text))
            for ngram in self._ngrams[number]:
                self._holders[ngram].append(number)

    def similarity(self, text: str) -> float:
        """Largest Jaccard similarity, 0 to 1, of the text's n-grams with those of any held text."""
        ngrams = word_ngrams(text)
        shared: Counter[int] = Counter()
        for ngram in ngrams:
            shared.update(self._holders.get(ngram, ()))
        return max(
            (
                common / (len(ngrams) + len(self._ngrams[number]) - common)
                for number, common in shared.items()
            ),
            default=0.0,
        )

    def match(self, text: str) -> Match | None:
        """How the collection holds the text, None if it does not."""
        if same_text_key(text) in self._keys:
            return "exact"
        return "near" if self.similarity(text) >= THRESHOLD else None
