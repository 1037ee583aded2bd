"""What a training of Coconut and its kin is told, and the paper's values (arXiv 2412.06769)."""

from __future__ import annotations

from dataclasses import dataclass, fields
from types import MappingProxyType

from rsp_rl.basics.errors import ConfigError
from rsp_rl.latent.methods import BY_STAGE, BY_TOKEN, NEVER, NOTHING, THOUGHTS, get_method

EACH_EPOCH, EACH_STAGE, AT_NO_TIME = "epoch", "stage", "never"
RESETS = (EACH_EPOCH, EACH_STAGE, AT_NO_TIME)
"""When the optimiser begins anew: the authors' code has it at each epoch, the paper at each stage
(appendix A.1)."""

ADAMW, MUON = "adamw", "muon"
OPTIMIZERS = (ADAMW, MUON)
"""AdamW is the paper's; Muon moves the blocks' matrices, for models from nothing that have little
time, and AdamW the rest."""

FIXED, CLASSIFIER = "fixed", "classifier"
ENDS = (FIXED, CLASSIFIER)
"""How an answer ends its thoughts: after a fixed number, or when a binary classifier says so
(section 3, "Inference Process")."""

_FROM_ZERO = (
    "weight_decay",
    "warmup_steps",
    "first_epoch",
    "icot_smoothing",
    "step_decoder",
    "seed",
)


@dataclass(frozen=True)
class Settings:
    """Of one training.

    Attributes:
        method: One of `METHODS`.
        thoughts_per_step: c; pauses where these stand in the place of thoughts.
        max_stage: The last stage of the curriculum, so many steps give way to thoughts there; one
            stage further all steps do.
        epochs_per_stage: Epochs before the next stage.
        epochs: In all, `first_epoch` included in the count as in the authors' code.
        first_epoch: Where the count begins. A run that starts from a CoT model skips stage 0 with
            `epochs_per_stage`.
        learning_rate: Constant, after the warm-up.
        warmup_steps: Of a linear ramp; the paper has none.
        weight_decay: AdamW's.
        optimizer: One of `OPTIMIZERS`.
        batch_size: Problems an optimiser step, over all processes.
        micro_batch_size: Problems a forward pass.
        reset_optimizer: One of `RESETS`.
        uniform_stages: Probability that a problem is trained at a stage drawn evenly from all that
            it has instead of the epoch's; their mixing keeps early stages from being forgotten.
        pad_thoughts: Give each problem the stage's whole number of thoughts, though it has fewer
            steps; an answer of a fixed number needs it.
        ends: One of `ENDS`.
        classifier_learning_rate: Of the classifier, which reads hidden states and moves none.
        step_decoder: Weight of SIM-CoT's loss (`rsp_rl.latent.step_decoder`), 0 for none; the
            authors of SIM-CoT have 1.
        icot_tokens_per_epoch: What iCoT takes away more at each epoch.
        icot_smoothing: Rate lambda of the exponential distribution of how many tokens more than
            these are taken away (arXiv 2405.14838, section 3); 0 has no such tokens.
        max_grad_norm: Longer gradients are shortened to it; the authors have none.
        recompute: Compute each pass from the start instead of from a key-value cache: slower, and
            with gradient checkpointing the memory of one pass.
        validation_limit: Problems of the validation file that are answered after each epoch.
        max_new_tokens: Of an answer, thoughts not counted.
        save_steps: Steps between two checkpoints within an epoch; each epoch ends with one.
        seed: Of order, stages and dropout.
    """

    method: str = "coconut"
    thoughts_per_step: int = 1
    max_stage: int = 6
    epochs_per_stage: int = 5
    epochs: int = 50
    first_epoch: int = 0
    learning_rate: float = 1e-4
    warmup_steps: int = 0
    weight_decay: float = 0.01
    optimizer: str = ADAMW
    batch_size: int = 128
    micro_batch_size: int = 32
    reset_optimizer: str = EACH_EPOCH
    uniform_stages: float = 0.0
    pad_thoughts: bool = True
    ends: str = FIXED
    classifier_learning_rate: float = 1e-3
    step_decoder: float = 0.0
    icot_tokens_per_epoch: int = 8
    icot_smoothing: float = 4.0
    max_grad_norm: float | None = None
    recompute: bool = False
    validation_limit: int = 300
    max_new_tokens: int = 128
    save_steps: int = 500
    seed: int = 0

    def __post_init__(self) -> None:
        method = get_method(self.method)
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name == "uniform_stages":
                if not 0 <= value <= 1:
                    raise ConfigError(f"uniform_stages is {value}: a probability is 0 to 1")
            elif isinstance(value, int | float) and not isinstance(value, bool):
                from_zero = field.name in _FROM_ZERO
                if not (value >= 0 if from_zero else value > 0):
                    bound = "at least 0" if from_zero else "above 0"
                    raise ConfigError(f"{field.name} is {value}: it must be {bound}")
        for name, choices in (
            ("reset_optimizer", RESETS),
            ("optimizer", OPTIMIZERS),
            ("ends", ENDS),
        ):
            if (value := getattr(self, name)) not in choices:
                raise ConfigError(f"{name} is {value!r}: choose one of {', '.join(choices)}")
        if self.first_epoch >= self.epochs:
            raise ConfigError(
                f"first_epoch {self.first_epoch} of {self.epochs} epochs leaves none to train; "
                "epochs counts from 0, the skipped ones included"
            )
        if self.ends == CLASSIFIER and (method.filler != THOUGHTS or self.pad_thoughts):
            raise ConfigError(
                f"ends=classifier needs thoughts (method {self.method} has {method.filler}) whose "
                "number is the problem's: set pad_thoughts=False"
            )
        if not self.pad_thoughts and self.ends == FIXED and method.filler != NOTHING:
            raise ConfigError(
                "pad_thoughts=False trains with as many thoughts as a problem has steps, which "
                "nothing tells when it is answered: set ends=classifier, or pad_thoughts=True"
            )
        if self.step_decoder and method.filler != THOUGHTS:
            raise ConfigError(
                f"step_decoder reads thoughts, and method {self.method} has {method.filler}; leave "
                "it at 0"
            )
        if self.uniform_stages and method.removal != BY_STAGE:
            raise ConfigError(f"uniform_stages mixes stages, which method {self.method} has not")

    def stage(self, epoch: int) -> int:
        """The stage of an epoch: how many steps have given way, `max_stage` + 1 standing for all.

        Args:
            epoch: From `first_epoch` on.
        """
        removal = get_method(self.method).removal
        if removal == BY_STAGE:
            return min(epoch // self.epochs_per_stage, self.max_stage + 1)
        return 0 if removal in (NEVER, BY_TOKEN) else self.max_stage + 1

    def removed_tokens(self, epoch: int) -> int:
        """Tokens of the steps that iCoT has taken away at an epoch, smoothing aside."""
        if get_method(self.method).removal != BY_TOKEN:
            return 0
        return self.icot_tokens_per_epoch * (epoch - self.first_epoch)

    @property
    def final_thoughts(self) -> int:
        """Thoughts, or pauses, of an answer of the finished model."""
        if get_method(self.method).filler == NOTHING:
            return 0
        return self.max_stage * self.thoughts_per_step


PRESETS = MappingProxyType(
    {
        "gsm8k": Settings(
            thoughts_per_step=2,
            max_stage=3,
            epochs_per_stage=3,
            epochs=25,
            first_epoch=3,
            max_new_tokens=64,
            icot_tokens_per_epoch=8,
        ),
        "prontoqa": Settings(),
        "prosqa": Settings(),
    }
)
"""The paper's (section 4.3 and the authors' configurations); GSM8K begins with a CoT model."""
