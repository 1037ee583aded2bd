"""SmolLM2's GGUF as a folder of Hugging Face's kind: bf16 safetensors and its tokenizer.

    python scripts/gpu/real_model.py GGUF OUTPUT_FOLDER

These are 4-bit GGUF weights, unpacked to bf16: a real model's shapes, tokenizer and manners, though
not its exact numbers. Needs torch, transformers and gguf.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from gguf import GGUFReader
from tokenizers import decoders, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedTokenizerBase,
)

#: Of the tokens that the file gives a part, by our name of it.
PARTS = {"bos": "bos", "eos": "eos", "pad": "padding", "unk": "unknown"}


def convert(gguf: Path, folder: Path) -> None:
    """Writes the model and its tokenizer.

    Args:
        gguf: The file.
        folder: To make.
    """
    tokenizer = read_tokenizer(gguf)
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


def read_tokenizer(gguf: Path) -> PreTrainedTokenizerBase:
    """The file's tokenizer, with what transformers takes from Llama's instead of from the file.

    That is: which tokens begin, end and pad (it reads `<|im_start|>` as the end, and no padding),
    digits one by one, and a decoder that would make a space of every U+2581.
    """
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    fields = GGUFReader(gguf).fields
    for ours, theirs in PARTS.items():
        token = int(fields[f"tokenizer.ggml.{theirs}_token_id"].contents())
        setattr(tokenizer, f"{ours}_token", tokenizer.convert_ids_to_tokens(token))
    tokenizer.chat_template = fields["tokenizer.chat_template"].contents()
    splitting = fields["tokenizer.ggml.pre"].contents()
    if splitting != "smollm":
        raise ValueError(f"{gguf} splits text as {splitting!r}; only SmolLM's way is known here")
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.backend_tokenizer.decoder = decoders.ByteLevel()
    tokenizer.clean_up_tokenization_spaces = False
    return tokenizer


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("gguf", type=Path)
    parser.add_argument("folder", type=Path, metavar="OUTPUT_FOLDER")
    args = parser.parse_args()
    convert(args.gguf, args.folder)
    print(f"{args.folder}: 4-bit GGUF weights as bf16")


if __name__ == "__main__":
    main()
