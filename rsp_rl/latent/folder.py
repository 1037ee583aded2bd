"""A model's folder that says how the model thinks: the Hugging Face folder, and `latent.json`.

One folder is one model: the weights with the rows of the added tokens, the tokenizer that knows
them, and, where thoughts end by a classifier, its weights.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from rsp_rl.basics.errors import ConfigError, RunFolderError
from rsp_rl.basics.files import read_json, write_json
from rsp_rl.latent.layout import Markers
from rsp_rl.latent.methods import METHODS, Method, get_method
from rsp_rl.latent.settings import CLASSIFIER, Settings
from rsp_rl.latent.thinking import check_thinks
from rsp_rl.models.folder import LATENT_FILE, check_model, load_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

FILE = LATENT_FILE
CLASSIFIER_FILE = "end_classifier.safetensors"

#: Texts of the added tokens, as in the authors' code.
BEGIN, END, LATENT = "<|start-latent|>", "<|end-latent|>", "<|latent|>"

_SOURCE = "<<"
"""The token whose row the added ones begin with, as in the authors' code: it begins a calculation
of GSM8K's."""


@dataclass(frozen=True)
class Thinking:
    """How a model thinks before it answers.

    Attributes:
        method: It was trained with.
        thoughts: Of an answer: its number, or with a classifier the most.
        thoughts_per_step: c.
        ends: `fixed` or `classifier`.
        max_new_tokens: Of an answer, thoughts not counted.
    """

    method: str
    thoughts: int
    thoughts_per_step: int
    ends: str
    max_new_tokens: int

    @classmethod
    def of(cls, settings: Settings) -> Thinking:
        """What a training with these settings makes."""
        return cls(
            settings.method,
            settings.final_thoughts,
            settings.thoughts_per_step,
            settings.ends,
            settings.max_new_tokens,
        )


@dataclass
class Thinker:
    """A model that thinks.

    Attributes:
        model: Causal language model.
        tokenizer: Knows the added tokens.
        markers: Their ids.
        thinking: How it answers; None for a model that has not been trained to.
        classifier: Of hidden states, [d] to a logit of "this thought was the last one".
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    markers: Markers
    thinking: Thinking | None = None
    classifier: torch.nn.Linear | None = None

    @property
    def method(self) -> Method:
        """The method that the model was trained with."""
        assert self.thinking is not None
        return get_method(self.thinking.method)

    @property
    def pad(self) -> int:
        """Id that fills padding."""
        pad = self.tokenizer.pad_token_id
        return self.tokenizer.eos_token_id if pad is None else pad


def load_thinker(folder: Path, dtype: torch.dtype = torch.float32) -> Thinker:
    """Load a model for training or answers; the added tokens are added where it lacks them.

    Args:
        folder: Hugging Face folder.
        dtype: Of the weights.

    Raises:
        ConfigError: If the folder holds no such model; see `check_thinks`.
        RunFolderError: If `latent.json` is damaged.
    """
    from transformers import AutoModelForCausalLM

    check_model(folder, thinks=True)
    tokenizer = load_tokenizer(folder)
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=dtype, attn_implementation="sdpa", trust_remote_code=False
    )
    check_thinks(model)
    markers = _add_markers(model, tokenizer)
    thinking = read_thinking(folder)
    classifier = None
    if thinking is not None and thinking.ends == CLASSIFIER:
        classifier = load_classifier(folder, model)
    return Thinker(model, tokenizer, markers, thinking, classifier)


def read_thinking(folder: Path) -> Thinking | None:
    """How the model of a folder thinks, or None where the folder does not say.

    Raises:
        RunFolderError: If what it says is none of this.
    """
    file = folder / FILE
    if not file.is_file():
        return None
    said: dict[str, Any] = read_json(file)
    try:
        thinking = Thinking(**said["thinking"])
        if thinking.method not in METHODS or not isinstance(thinking.thoughts, int):
            raise ValueError(f"method {thinking.method!r}, thoughts {thinking.thoughts!r}")
    except (KeyError, TypeError, ValueError) as error:
        raise RunFolderError(f"{file} is damaged ({error}); train the model again") from error
    return thinking


def save_thinker(folder: Path, thinker: Thinker) -> None:
    """Write a model into a folder; whether it is whole is the caller's part.

    Args:
        folder: Made if missing.
        thinker: Its `thinking` is set.
    """
    from safetensors.torch import save_file

    assert thinker.thinking is not None
    thinker.model.save_pretrained(folder)
    thinker.tokenizer.save_pretrained(folder)
    if thinker.classifier is not None:
        state = {
            name: part.detach().cpu() for name, part in thinker.classifier.state_dict().items()
        }
        save_file(state, folder / CLASSIFIER_FILE)
    # Last: a folder with it is whole.
    write_json(folder / FILE, {"thinking": asdict(thinker.thinking)})


def new_classifier(model: PreTrainedModel) -> torch.nn.Linear:
    """One that has learnt nothing: all thoughts go on as often as they end."""
    table = model.get_input_embeddings().weight
    classifier = torch.nn.Linear(table.shape[1], 1, device=table.device, dtype=torch.float32)
    torch.nn.init.zeros_(classifier.weight)
    torch.nn.init.zeros_(classifier.bias)
    return classifier


def load_classifier(folder: Path, model: PreTrainedModel) -> torch.nn.Linear:
    """The classifier of a folder.

    Raises:
        RunFolderError: If it is missing or another model's.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    classifier, file = new_classifier(model), folder / CLASSIFIER_FILE
    try:
        classifier.load_state_dict(load_file(file))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise RunFolderError(
            f"{file} is missing or damaged ({error}); train the model again"
        ) from error
    return classifier


def _add_markers(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Markers:
    """Have tokenizer and model know the added tokens, rows of which begin as that of `<<`."""
    texts = [BEGIN, END, LATENT]
    known = tokenizer.get_vocab()
    missing = [text for text in texts if text not in known]
    if missing:
        tokenizer.add_tokens(missing, special_tokens=True)
        if len(tokenizer) > model.get_input_embeddings().weight.shape[0]:
            model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
        _begin(model, tokenizer, missing)
    return Markers(*tokenizer.convert_tokens_to_ids(texts))


def begin_markers(thinker: Thinker) -> None:
    """Have the added tokens begin as those of a model that lacked them.

    For a model whose training has never read them, as CoT's: its output layer has only unlearnt
    them since.
    """
    _begin(thinker.model, thinker.tokenizer, [BEGIN, END, LATENT])


def _begin(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> None:
    source = tokenizer.encode(_SOURCE, add_special_tokens=False)
    if not source:
        raise ConfigError(f"the tokenizer makes no token of {_SOURCE!r}; take another model")
    ids = tokenizer.convert_tokens_to_ids(texts)
    with torch.no_grad():
        for layer in (model.get_input_embeddings(), model.get_output_embeddings()):
            layer.weight[ids] = layer.weight[source[0]].clone()
