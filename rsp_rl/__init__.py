"""RL training of LLM reasoners with Random Soft Prompts (RSP), as an extension of verl."""

__version__ = "0.2.0"
