"""What CCOT can answer with."""

from __future__ import annotations

from rsp_rl.basics.errors import ConfigError

HUGGINGFACE, VLLM = "huggingface", "vllm"
ENGINES = (HUGGINGFACE, VLLM)


def check_engine(engine: str) -> None:
    """Refuse what cannot run CCOT.

    Raises:
        ConfigError: Of vLLM: why.
    """
    if engine == VLLM:
        raise ConfigError(
            "vLLM cannot answer with CCOT: a request there has one LoRA adapter for all its "
            "tokens, and CCOT's question, thoughts and answer have none, phi and psi over one "
            "key-value cache; nor can thoughts be handed over as prompt embeddings, for their keys "
            "and values would be psi's and not phi's. Take --engine huggingface"
        )
    if engine not in ENGINES:
        raise ConfigError(f"engine {engine!r} is none of {', '.join(ENGINES)}")
