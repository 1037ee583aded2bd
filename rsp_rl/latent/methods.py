"""Coconut, its baselines and its ablations (arXiv 2412.06769, section 4.2), as settings of one.

All of them train on question, steps and answer with steps taken away from the front, and differ in
which are taken away when, and in what stands in their place.
"""

from __future__ import annotations

from dataclasses import dataclass

from rsp_rl.basics.errors import ConfigError

#: What stands where steps were: nothing, the hidden state before it, or one trained token.
NOTHING, THOUGHTS, PAUSES = "nothing", "thoughts", "pauses"

#: When steps go: never, one more a stage, a few tokens more an epoch, or all from the start.
NEVER, BY_STAGE, BY_TOKEN, AT_ONCE = "never", "by stage", "by token", "at once"


@dataclass(frozen=True)
class Method:
    """One way to train, and what it answers with.

    Attributes:
        name: As `--method` has it.
        removal: When the steps go.
        filler: What stands in their place.
        markers: Whether two tokens stand around the filler.
        row: The row of the paper's table 1.
    """

    name: str
    removal: str
    filler: str
    markers: bool
    row: str


METHODS = {
    method.name: method
    for method in (
        Method("coconut", BY_STAGE, THOUGHTS, True, "Coconut"),
        Method("cot", NEVER, NOTHING, False, "CoT"),
        Method("no_cot", AT_ONCE, NOTHING, False, "No-CoT"),
        Method("icot", BY_TOKEN, NOTHING, False, "iCoT"),
        Method("pause", AT_ONCE, PAUSES, False, "Pause Token"),
        Method("no_curriculum", AT_ONCE, THOUGHTS, True, "- w/o curriculum"),
        Method("no_thought", BY_STAGE, NOTHING, False, "- w/o thought"),
        Method("pause_as_thought", BY_STAGE, PAUSES, True, "- pause as thought"),
    )
}
"""By name, in the order of the table, the baselines first but for Coconut itself."""


def get_method(name: str) -> Method:
    """The method of a name.

    Raises:
        ConfigError: If there is none.
    """
    if name not in METHODS:
        raise ConfigError(f"method {name!r} is none of {', '.join(METHODS)}; name one of these")
    return METHODS[name]
