"""Named settings of the comparators: the methods' own authors', and those of the RSP paper.

The paper's are of its Table 8 and appendix A.3 (arXiv 2605.11936); what these leave open is as the
authors have it. The names say for what: a benchmark, the training data, the size of the model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from rsp_rl.basics.errors import ConfigError
from rsp_rl.comparators.ltpo import Ltpo
from rsp_rl.comparators.softcot import SoftCot, SoftCotTraining
from rsp_rl.comparators.training import TrainingSettings
from rsp_rl.comparators.ttsv import Ttsv, TtsvTraining

AUTHORS = "authors"

#: Assistant of both SoftCoT models of the paper.
PAPER_ASSISTANT = "Qwen/Qwen2.5-Math-1.5B-Instruct"


@dataclass(frozen=True)
class Preset:
    """Settings that belong together.

    Attributes:
        settings: Of the method, or of its training.
        length: L in evaluations.
        assistant: SoftCoT's, by its name on the hub, where the preset has one.
    """

    settings: Ltpo | TrainingSettings
    length: int
    assistant: str | None = None

    def values(self) -> dict[str, Any]:
        """What it sets, by name."""
        set_ = {name: v for name, v in asdict(self.settings).items() if name != "preset"}
        return set_ if self.assistant is None else set_ | {"assistant": self.assistant}


def _ltpo(benchmark: str, *, sigma: float, learning_rate: float) -> dict[str, Preset]:
    """One of Table 8's columns."""
    settings = Ltpo(
        sigma=sigma,
        sigma_decay=0.95,
        learning_rate=learning_rate,
        steps=20,
        top_k=10,
        preset=f"paper-{benchmark}",
    )
    return {settings.preset: Preset(settings, length=8)}


def _ttsv(size: str, learning_rate: float) -> dict[str, Preset]:
    training = TtsvTraining(
        length=20, epochs=20, batch_size=2, accumulation=8, learning_rate=learning_rate
    )
    return {f"paper-{size}": Preset(training, training.length)}


def _softcot(data: str, batch_size: int, accumulation: int) -> dict[str, Preset]:
    """Of the model's size only the learning rate depends."""
    presets = {}
    for size, learning_rate in (("1.5b", 2e-5), ("7b", 5e-6)):
        training = SoftCotTraining(
            length=32,
            epochs=10,
            batch_size=batch_size,
            accumulation=accumulation,
            learning_rate=learning_rate,
            evaluation_length=4,
        )
        presets[f"paper-{data}-{size}"] = Preset(training, 4, PAPER_ASSISTANT)
    return presets


#: By method and name.
PRESETS: dict[str, dict[str, Preset]] = {
    Ltpo.method: {
        AUTHORS: Preset(Ltpo(), Ltpo.length),
        **_ltpo("gsm8k", sigma=20.0, learning_rate=1e-2),
        **_ltpo("math500", sigma=20.0, learning_rate=5e-3),
        **_ltpo("aime24", sigma=5.0, learning_rate=5e-2),
    },
    Ttsv.method: {
        AUTHORS: Preset(TtsvTraining(), Ttsv.length),
        **_ttsv("1.5b", 1e-3),
        **_ttsv("7b", 1e-5),
    },
    SoftCot.method: {
        AUTHORS: Preset(SoftCotTraining(), SoftCot.length),
        **_softcot("gsm8k", batch_size=4, accumulation=1),
        **_softcot("math", batch_size=1, accumulation=4),
    },
}


def get_preset(method: str, name: object) -> Preset:
    """A method's preset by name.

    Raises:
        ConfigError: If it has none of that name.
    """
    presets = PRESETS[method]
    if not isinstance(name, str) or name not in presets:
        raise ConfigError(f"{method} has no preset {name!r}; it has {', '.join(presets)}")
    return presets[name]


def departures(preset: Preset, settings: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """What is set otherwise than a preset has it: what was set, and the preset's.

    Args:
        preset: The preset.
        settings: By name; those that the preset does not know say nothing.
    """
    return {
        name: (settings[name], value)
        for name, value in preset.values().items()
        if name in settings and not _same(name, settings[name], value)
    }


def _same(name: str, own: object, its: object) -> bool:
    """An assistant may be named by where it lies, in the hub's cache too."""
    if name != "assistant":
        return own == its
    wanted = str(its).rpartition("/")[2]
    return any(part == wanted or part.endswith(f"--{wanted}") for part in str(own).split("/"))


def in_words(departed: Mapping[str, tuple[Any, Any]]) -> list[str]:
    """What was set otherwise than a preset has it, such as `sigma 4 (not 20)`."""
    return [
        f"{what} {own} (not {its})" if isinstance(its, str) else f"{what} {own:g} (not {its:g})"
        for what, (own, its) in departed.items()
    ]


def spoken(name: str, departed: Mapping[str, tuple[Any, Any]]) -> str:
    """A preset's name, and what was set otherwise, in words."""
    return f"preset {name}, but {', '.join(in_words(departed))}" if departed else f"preset {name}"
