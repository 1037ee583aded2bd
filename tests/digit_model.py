"""A random tiny model that writes digits: its greedy text depends on every bit of its prompt."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

from rsp_rl.models.folder import load_tokenizer
from rsp_rl.tiny import make_tiny_model
from rsp_rl.tiny.tokenizer import END_OF_TURN


def make_digit_model(folder: Path, **shape: int) -> Path:
    """Write the model; text of arbitrary bytes would not encode back, digits do.

    Args:
        folder: Where it goes.
        **shape: Passed on to `make_tiny_model`.
    """
    make_tiny_model(folder, steps=0, **shape)
    network = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = load_tokenizer(folder)
    written = tokenizer.convert_tokens_to_ids([*"0123456789", END_OF_TURN])
    silent = torch.ones(len(tokenizer), dtype=torch.bool)
    silent[written] = False
    with torch.no_grad():
        network.lm_head.weight[silent] = 0
        network.lm_head.weight[written[-1]] /= 2  # or most answers would be empty
    network.save_pretrained(folder)
    return folder
