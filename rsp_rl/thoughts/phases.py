"""When a law is at work: from where on, until when, and what is emitted in between.

A position is one of three: the law's (a thought), a token that is forced, or the sampler's. A
`Phase` knows which of them a request's next position is, and hears what came of it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rsp_rl.basics.errors import ConfigError
from rsp_rl.thoughts.law import check_number, check_whole
from rsp_rl.thoughts.rows import Kind

#: Most tokens that are decoded to see whether an answer's phrase has come: a token has a character
#: at least, but for the bytes of a few.
_FURTHER_TOKENS = 8


@dataclass(frozen=True)
class Phases:
    """When thinking begins and ends, in a model's own tokens.

    Attributes:
        begin: Emitted tokens after which it begins; none, and no text, for the first position.
        begin_text: Text with which it begins, as `end_text` has it.
        end_ids: Emitted tokens that end it; their position is an ordinary token's.
        end_text: Text with which it ends, as soon as it has come in the emitted tokens: the last of
            them may have more. Empty for nothing.
        max_thoughts: Most thoughts, None for no limit.
        cold_entropy: Nats; steps below it are counted, 0 for none (Soft Thinking's cold stop).
        cold_steps: So many in a row end it.
        on_end: Tokens forced after `end_text`, or after one of `end_ids`.
        on_cut: Tokens forced where `max_thoughts` or the cold stop ends it.
        cold_abort: Whether as many cold steps in a row *after* thinking end the output, as they do
            in Soft Thinking's public code.
    """

    begin: tuple[int, ...] = ()
    begin_text: str = ""
    end_ids: tuple[int, ...] = ()
    end_text: str = ""
    max_thoughts: int | None = None
    cold_entropy: float = 0.0
    cold_steps: int = 256
    on_end: tuple[int, ...] = ()
    on_cut: tuple[int, ...] = ()
    cold_abort: bool = False

    def __post_init__(self) -> None:
        if self.max_thoughts is not None:
            check_whole("max_thoughts", self.max_thoughts, 1)
        check_number("cold_entropy", self.cold_entropy, least=0, most=1e4)
        check_whole("cold_steps", self.cold_steps, 1)
        if self.cold_abort and not self.cold_entropy:
            raise ConfigError("law.compat=cold_abort needs law.cold_entropy above 0")


class Phase:
    """Where one request is in its phases.

    Args:
        phases: Its settings.
        stop_ids: Tokens that end its output: a thought that emits one is an ordinary token.
        decode: The tokenizer's, special tokens kept; needed for texts alone.

    Attributes:
        thoughts: Positions that were the law's so far.
    """

    def __init__(
        self,
        phases: Phases,
        stop_ids: Sequence[int],
        decode: Callable[[list[int]], str] | None = None,
    ) -> None:
        self._phases = phases
        self._stop_ids = frozenset(stop_ids)
        self._end_ids = frozenset(phases.end_ids)
        self._decode = decode
        self._forced: deque[int] = deque()
        self._thinking = not (phases.begin or phases.begin_text)
        self._over = False
        self._cold = 0
        text = max(len(phases.begin_text), len(phases.end_text))
        tail = max(len(phases.begin), text and text + _FURTHER_TOKENS)
        self._emitted: deque[int] = deque(maxlen=tail)
        self.thoughts = 0

    @property
    def forced(self) -> int | None:
        """The token that the next position is, if it is a forced one."""
        return self._forced[0] if self._forced else None

    @property
    def thinking(self) -> bool:
        """Whether the next position is the law's."""
        return self._thinking and not self._forced

    @property
    def watches_entropy(self) -> bool:
        """Whether it must be told the entropy of the next position."""
        if self._forced or not self._phases.cold_entropy:
            return False
        return self._thinking or (self._over and self._phases.cold_abort)

    def took_forced(self) -> None:
        """The next position is the forced token."""
        self._emitted.append(self._forced.popleft())

    def took_thought(self, emitted: int, entropy: float | None) -> tuple[Kind | None, int]:
        """The law made the next position.

        Args:
            emitted: Its token.
            entropy: In nats, before filters; if it `watches_entropy`.

        Returns:
            What the position is instead of a thought, None if it is one; and the token.
        """
        phases = self._phases
        if emitted in self._end_ids or emitted in self._stop_ids:
            self._end(phases.on_end if emitted in self._end_ids else ())
            self._emitted.append(emitted)
            return Kind.TOKEN, emitted
        if self._is_cold(entropy):
            self._end(phases.on_cut)
            if phases.on_cut:
                self._emitted.append(self._forced.popleft())
                return Kind.FORCED, phases.on_cut[0]
        self._emitted.append(emitted)
        self.thoughts += 1
        if self._thinking and phases.end_text and self._has_come(phases.end_text):
            self._end(phases.on_end)
        elif self._thinking and self.thoughts == phases.max_thoughts:
            self._end(phases.on_cut)
        return None, emitted

    def took_sample(self, emitted: int, entropy: float | None) -> bool:
        """The sampler made the next position.

        Args:
            emitted: Its token.
            entropy: In nats; if it `watches_entropy`.

        Returns:
            Whether the output must end here.
        """
        self._emitted.append(emitted)
        if not self._over and self._begins():
            self._thinking = True
            self._emitted.clear()  # what came before is no thought's text
        return self._over and self._phases.cold_abort and self._is_cold(entropy)

    def took_before(self, emitted: Sequence[int]) -> None:
        """The positions before the next one were made elsewhere, by the same phases.

        Args:
            emitted: Their tokens, from the output's first on.

        Raises:
            ConfigError: If entropies decide, which no token tells.
        """
        if self._phases.cold_entropy:
            raise ConfigError("law.cold_entropy: how many steps in a row were cold, no record says")
        for token in emitted:
            if self._forced:
                self.took_forced()
            elif self._thinking:
                self.took_thought(token, None)
            else:
                self.took_sample(token, None)

    def _end(self, forced: Sequence[int]) -> None:
        self._thinking, self._over, self._cold = False, True, 0
        self._forced.extend(forced)

    def _is_cold(self, entropy: float | None) -> bool:
        if not self._phases.cold_entropy or entropy is None:
            return False
        self._cold = self._cold + 1 if entropy < self._phases.cold_entropy else 0
        return self._cold >= self._phases.cold_steps

    def _begins(self) -> bool:
        begin, text = self._phases.begin, self._phases.begin_text
        if begin and tuple(self._emitted)[-len(begin) :] == begin:
            return True
        return bool(text) and self._has_come(text)

    def _has_come(self, text: str) -> bool:
        """With the last token: it would have been seen before."""
        assert self._decode is not None, "texts need a tokenizer"
        return text in self._decode(list(self._emitted))
