"""mu_E and sigma_E of a model's own embedding table, by which its soft prompts are drawn."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from rsp_rl.basics.errors import ConfigError
from rsp_rl.dials.options import RspOptions
from rsp_rl.draws.embedding_stats import EmbeddingStats, embedding_stats
from rsp_rl.draws.embedding_table import FOLDER_VARIABLE, open_embedding_table
from rsp_rl.draws.laws import LAWS
from rsp_rl.models.folder import check_model


def model_law(folder: Path) -> EmbeddingStats:
    """The law of a model's soft prompts, vectors as wide as its hidden states.

    Args:
        folder: Hugging Face model folder.

    Raises:
        ConfigError: If the folder holds no embedding table, or one of another width than the hidden
            states, which the model projects (OPT-350m's kind).
    """
    hidden_size = check_model(folder).get_text_config().hidden_size
    try:
        stats = embedding_stats(folder)
    except (OSError, ValueError) as error:
        raise ConfigError(str(error)) from error
    if stats.hidden_size != hidden_size:
        raise ConfigError(
            f"{folder}: its embedding table is {stats.hidden_size} wide, the hidden states that "
            f"soft prompts are drawn for {hidden_size}; models that project their embeddings are "
            "not supported"
        )
    return stats


def with_model_law(rsp: RspOptions, folder: Path) -> RspOptions:
    """Soft prompts with what their law takes from a model's table.

    Args:
        rsp: With soft prompts, mu_E and sigma_E not set.
        folder: Hugging Face model folder.

    Raises:
        ConfigError: See `model_law`.
    """
    stats = model_law(folder)
    digest = open_embedding_table(folder).digest() if LAWS[rsp.law].from_table else None
    return replace(rsp, mean=stats.mean, std=stats.std, table_digest=digest)


def name_table(folder: Path) -> None:
    """Tell this process, and those it starts, whose rows the law `vocab` draws."""
    os.environ[FOLDER_VARIABLE] = str(folder)
