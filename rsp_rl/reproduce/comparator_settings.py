"""Whether a run's comparator was set, or trained, as the paper's (appendix A.3)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from rsp_rl.basics.errors import RunFolderError
from rsp_rl.comparators.ltpo import Ltpo
from rsp_rl.comparators.presets import departures, get_preset, in_words
from rsp_rl.comparators.trained_file import load_trained, settings_of
from rsp_rl.inference.soft_prompts import Comparator
from rsp_rl.reproduce.paper import paper_preset


def other_settings(comparator: Comparator, model: str, benchmark: str) -> Iterable[str]:
    """What is not as the paper has it, each in words.

    Args:
        comparator: The run's; of a trained one its folder is read.
        model: The paper's model, by the last part of its name.
        benchmark: What was asked.
    """
    name = paper_preset(comparator.method, model, benchmark)
    if name is None:
        yield f"the paper has no {comparator.method} for {model} on {benchmark}"
        return
    if isinstance(comparator, Ltpo):
        settings = asdict(comparator)
    else:
        try:
            how = load_trained(Path(comparator.trained), comparator.method, ()).how
        except RunFolderError as error:
            yield f"settings of its training not known ({error})"
            return
        settings = settings_of(how)
    yield from in_words(departures(get_preset(comparator.method, name), settings))
