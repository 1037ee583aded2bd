"""A model small enough to be made, warmed up and trained by RL on a laptop's CPU in minutes."""

from rsp_rl.tiny.folder import make_tiny_model
from rsp_rl.tiny.tokenizer import MAX_PROMPT_LENGTH, MAX_RESPONSE_LENGTH

__all__ = ["MAX_PROMPT_LENGTH", "MAX_RESPONSE_LENGTH", "make_tiny_model"]
