"""A plug-in whose actor has tokens where the rollout had thoughts.

Named as `external_lib` by the guard's test; runs inside verl's processes.
"""

from rsp_rl.injection import thought_hook
from rsp_rl.training.verl_plugin import components  # noqa: F401  (registers)

thought_hook.overwrite_rows = lambda output, *rows: output
