"""mu_E and sigma_E of a model's own embedding table, by which its soft prompts are drawn."""

from __future__ import annotations

from pathlib import Path

from rsp_rl.basics.errors import ConfigError
from rsp_rl.draws.embedding_stats import EmbeddingStats, embedding_stats
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
