"""verl's view of this package: the entry point of group `verl.plugins`.

`import verl` imports this module in every process, so it stays light and registers one thing:
a CPU platform, which is used only where `VERL_PLATFORM=cpu` asks for it. All that concerns RSP is
in `rsp_rl.training.verl_plugin.components`, which a run names as
`actor_rollout_ref.model.external_lib`: a run that does not is plain verl.
"""

from rsp_rl.training.verl_plugin import cpu_platform as _cpu_platform  # noqa: F401  (registers)
