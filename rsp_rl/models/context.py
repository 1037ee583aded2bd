"""The longest sequence that a model takes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PretrainedConfig

#: Ways of stretching positions whose factor `max_position_embeddings` has in it already.
_STRETCHED = ("longrope", "su", "llama3")


def context_of(config: PretrainedConfig) -> int | None:
    """Longest prompt with output, in tokens, that vLLM gives a model unless told otherwise.

    Not always `max_position_embeddings`: it is multiplied where positions are stretched (YaRN), and
    what a model with LongRoPE was first trained with where it has two (Phi-3.5's 4,096 of 131,072).
    See vLLM's `_get_and_verify_max_len`.

    Args:
        config: The model's; of one that takes images too, its text model's counts.

    Returns:
        None where the config does not say.
    """
    text = config.get_text_config()
    longest = getattr(text, "max_position_embeddings", None)
    if longest is None or "gemma3" in text.model_type:
        return longest
    factor = 1.0
    for rope in _ropes(getattr(text, "rope_parameters", None)):
        kind = rope.get("rope_type", "default")
        if kind == "longrope":
            return int(getattr(text, "original_max_position_embeddings", None) or longest)
        if kind not in _STRETCHED:
            factor = rope.get("factor") or factor
        if kind == "yarn":
            longest = rope.get("original_max_position_embeddings") or longest
    return int(longest * factor)


def _ropes(parameters: Any) -> list[dict[str, Any]]:
    """One for the whole model, or one for each kind of layer."""
    nested = [value for value in (parameters or {}).values() if isinstance(value, dict)]
    return nested or ([parameters] if parameters else [])
