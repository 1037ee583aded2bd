"""How a training process ends, for whoever may start it again (`rsp_rl.runs.jobs`)."""

#: A part of the run broke; started again it continues from its last checkpoint.
BROKEN = 1

#: Started again it would end in the same way: bad settings, a guard that stopped it.
WOULD_COME_AGAIN = 2

#: Ctrl-C, as shells say it.
INTERRUPTED = 130
