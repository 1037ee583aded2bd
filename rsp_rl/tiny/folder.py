"""Makes the tiny model as a complete Hugging Face folder, whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import torch

from rsp_rl.data import arithmetic
from rsp_rl.tiny import decoding, model, muon, tokenizer, warmup

RECORD_NAME = "tiny_model.json"
"""In the folder: the settings it was made with, and how the warm-up ended."""

DEFAULT_STEPS = 600


def make_tiny_model(
    output: Path | str,
    *,
    seed: int = 0,
    steps: int = DEFAULT_STEPS,
    hidden_size: int = 128,
    num_layers: int = 2,
    num_heads: int = 4,
    tie_word_embeddings: bool = False,
    threads: int | None = None,
) -> Path:
    """Writes a tiny Qwen2 model with its tokenizer, warmed up on the arithmetic task.

    A finished folder made with the same settings, code and libraries is left as it is. The work
    is done in a folder beside it and renamed at the end, so that an interrupted call leaves nothing
    that could be taken for a model.

    Args:
        output: The folder.
        seed: Of the initial weights and of the warm-up samples.
        steps: Warm-up steps; 0 gives a randomly initialised model in about a second.
        hidden_size: Model width.
        num_layers: Transformer blocks.
        num_heads: Attention heads.
        tie_word_embeddings: Use the input embedding table as the output layer as well.
        threads: Threads that torch may use meanwhile; by default as many as it is set to.

    Returns:
        The folder as a path.

    Raises:
        ValueError: A size is impossible, or ``steps`` is negative.
        FileExistsError: The output path is a file, or a folder that holds something else.
    """
    output = Path(output)
    if steps < 0:
        raise ValueError(
            f"steps is {steps}: use 0 for a model without warm-up, or a positive count"
        )
    if threads is not None and threads < 1:
        raise ValueError(f"threads is {threads}: use at least 1")
    settings = {
        "seed": seed,
        "steps": steps,
        "hidden_size": hidden_size,
        "num_layers": num_layers,
        "num_heads": num_heads,
        "tie_word_embeddings": tie_word_embeddings,
        "code": _code_digest(),
        "torch": torch.__version__,
        "transformers": version("transformers"),
    }
    if _recorded_settings(output) == settings:
        return output

    partial = output.with_name(f".{output.name}.{os.getpid()}.partial")
    previous_threads = torch.get_num_threads()
    try:
        torch.set_num_threads(threads or previous_threads)
        tok = tokenizer.build_tokenizer(model.CONTEXT_LENGTH)
        net = model.build_model(
            tok,
            seed=seed,
            hidden_size=hidden_size,
            num_layers=num_layers,
            num_heads=num_heads,
            tie_word_embeddings=tie_word_embeddings,
        )
        result = warmup.warm_up(net, tok, steps=steps, seed=seed) if steps else None
        partial.mkdir(parents=True)
        net.save_pretrained(partial)
        tok.save_pretrained(partial)
        record = {"settings": settings, "warmup": asdict(result) if result else None}
        (partial / RECORD_NAME).write_text(json.dumps(record, indent=2) + "\n")
        _replace_folder(partial, output)
    finally:
        torch.set_num_threads(previous_threads)
        shutil.rmtree(partial, ignore_errors=True)
    return output


def read_record(folder: Path) -> dict:
    """Returns what ``make_tiny_model`` recorded: ``settings`` and, after a warm-up, ``warmup``."""
    return json.loads((folder / RECORD_NAME).read_text())


def _recorded_settings(output: Path) -> dict | None:
    """Returns the settings of a finished folder, or None where there is none yet."""
    if not output.exists():
        return None
    if not output.is_dir():
        raise FileExistsError(f"output {output} is a file: name a folder for the model")
    if (output / RECORD_NAME).is_file():
        return read_record(output)["settings"]
    if any(output.iterdir()):
        raise FileExistsError(
            f"output {output} holds something other than a tiny model (no {RECORD_NAME}): "
            "name another folder, or empty this one"
        )
    return None


def _replace_folder(new: Path, target: Path) -> None:
    """Puts a folder in the place of another; a rename alone cannot replace a non-empty folder."""
    old = target.with_name(f".{target.name}.{os.getpid()}.old")
    if target.exists():
        os.replace(target, old)
    os.replace(new, target)
    shutil.rmtree(old, ignore_errors=True)


def _code_digest() -> str:
    """A digest of the code that decides what the model becomes: a change of it makes it anew."""
    digest = hashlib.sha256()
    for module in (arithmetic, tokenizer, model, decoding, muon, warmup):
        digest.update(Path(module.__file__).read_bytes())
    return digest.hexdigest()[:16]
