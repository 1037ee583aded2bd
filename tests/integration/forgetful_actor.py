"""A plug-in with this method's worst bug: the actor forgets the soft prompt, everywhere.

Named as `external_lib` by the guard's test; runs inside verl's processes.
"""

from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithLMHead

from rsp_rl.training.verl_plugin import components  # noqa: F401  (registers)
from rsp_rl.training.verl_plugin.actor_engine import SoftPromptFSDPEngine

SoftPromptFSDPEngine.prepare_model_inputs = FSDPEngineWithLMHead.prepare_model_inputs
