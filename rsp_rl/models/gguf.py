"""SmolLM2's GGUF as a folder of Hugging Face's kind: bf16 safetensors and its tokenizer.

transformers reads the weights and puts every number back to its size; what a number lost when it
was rounded to four bits is lost: a real model's shapes, tokenizer and manners, though not its exact
numbers.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rsp_rl.basics.errors import ConfigError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

#: Of the tokens that the file gives a part, by our name of it.
_PARTS = {"bos": "bos", "eos": "eos", "pad": "padding", "unk": "unknown"}


def convert(gguf: Path, folder: Path) -> None:
    """Write the model and its tokenizer.

    Args:
        gguf: The file.
        folder: To make.

    Raises:
        ConfigError: If the package `gguf` is missing, or the file is none or of another model.
    """
    try:
        import gguf as _  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            "reading a GGUF needs the package gguf; install it: pip install 'rsp-rl[real-model]'"
        ) from error
    import torch
    from transformers import AutoModelForCausalLM, GenerationConfig

    tokenizer = _read_tokenizer(gguf)
    model = AutoModelForCausalLM.from_pretrained(
        gguf.parent, gguf_file=gguf.name, dtype=torch.bfloat16
    )
    ids = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    model.config.update(ids)
    model.generation_config = GenerationConfig(**ids)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _read_tokenizer(gguf: Path) -> PreTrainedTokenizerBase:
    """The file's tokenizer, with what transformers takes from Llama's instead of from the file.

    That is: which tokens begin, end and pad (it reads `<|im_start|>` as the end, and no padding),
    digits one by one, and a decoder that would make a space of every U+2581.
    """
    from gguf import GGUFReader
    from tokenizers import decoders, pre_tokenizers
    from transformers import AutoTokenizer

    try:
        fields = GGUFReader(gguf).fields
        splitting = fields["tokenizer.ggml.pre"].contents()
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(f"{gguf} is no GGUF of a language model ({error})") from error
    if splitting != "smollm":
        raise ConfigError(f"{gguf} splits text as {splitting!r}; only SmolLM's way is known here")
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    for ours, theirs in _PARTS.items():
        token = int(fields[f"tokenizer.ggml.{theirs}_token_id"].contents())
        setattr(tokenizer, f"{ours}_token", tokenizer.convert_ids_to_tokens(token))
    tokenizer.chat_template = fields["tokenizer.chat_template"].contents()
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.backend_tokenizer.decoder = decoders.ByteLevel()
    tokenizer.clean_up_tokenization_spaces = False
    return tokenizer
