"""vLLM's renderer of chats, handing on what a prompt was made of.

Tokens do not say where the user's turn ends; the messages and the chat template's arguments do. A
server places soft prompts where training and evaluation do by the same function, hence needs
both. vLLM has a registry for renderers, and this is the one entered for Hugging Face tokenizers;
what has no messages, or is rendered in another way, is placed by its tokens or refused
(`rsp_rl.placement.tokens`).
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vllm.renderers.hf import HfRenderer
from vllm.renderers.registry import RENDERER_REGISTRY

from rsp_rl.basics.errors import PlacementError
from rsp_rl.models.kept_text import check_text_is_kept
from rsp_rl.placement.chat import TemplateRefusalError, place_in_chat
from rsp_rl.placement.prompt import PlacedPrompt, Position

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

#: Key of a `Chat` in vLLM's prompts; no other process sees it.
CHAT = "rsp_chat"


def enter() -> None:
    """Have vLLM use this renderer; its `register` would warn that there was another."""
    RENDERER_REGISTRY.renderers["hf"] = (__name__, SoftPromptRenderer.__name__)


@dataclass(frozen=True)
class Chat:
    """What a chat's prompt was made of.

    Attributes:
        messages: As vLLM gave them to the chat template.
        arguments: The chat template's.
    """

    messages: list[dict[str, Any]]
    arguments: dict[str, Any]

    def place(
        self,
        tokenizer: PreTrainedTokenizerBase,
        token_ids: list[int],
        length: int,
        position: Position,
    ) -> PlacedPrompt:
        """The prompt with L placeholders in it; see `place_in_chat`.

        Args:
            tokenizer: The server's.
            token_ids: Tokens that the server made of the messages.
            length: L.
            position: Where they go.

        Raises:
            PlacementError: If there is no place, or the messages give other tokens here.
        """
        as_text = [_as_text(message) for message in self.messages]
        for messages in (as_text, [_without_developer(message) for message in as_text]):
            with suppress(TemplateRefusalError):  # of a role that vLLM gives it otherwise
                plain = place_in_chat(tokenizer, messages, 0, "prefix", **self.arguments)
                if plain.token_ids == token_ids:
                    return place_in_chat(tokenizer, messages, length, position, **self.arguments)
        raise PlacementError(
            "the server makes other tokens of the messages than the chat template does "
            "(truncated? images?); soft prompts need a prompt as it is, of text"
        )


def _as_text(message: Mapping[str, Any]) -> dict[str, Any]:
    """A message of one part of text as that text, which most templates treat alike."""
    content = message.get("content")
    if isinstance(content, list) and len(content) == 1 and content[0].get("type") == "text":
        return {**message, "content": content[0]["text"]}
    return dict(message)


def _without_developer(message: dict[str, Any]) -> dict[str, Any]:
    """As vLLM gives it to templates that know no such role."""
    return {**message, "role": "system"} if message.get("role") == "developer" else message


class SoftPromptRenderer(HfRenderer):
    """vLLM's own, where soft prompts are enabled with a `Chat` in the prompts of chats.

    Raises:
        ConfigError: If the tokenizer loses text.
    """

    def __init__(self, config: Any, tokenizer: Any) -> None:
        super().__init__(config, tokenizer)
        if self.model_config.enable_prompt_embeds and tokenizer is not None:
            check_text_is_kept(tokenizer, self.model_config.tokenizer)

    def render_messages(self, messages: Any, params: Any) -> tuple[Any, Any]:
        """See `BaseRenderer.render_messages`."""
        conversation, prompt = super().render_messages(messages, params)
        return conversation, self._with_chat(prompt, conversation, params)

    async def render_messages_async(self, messages: Any, params: Any) -> tuple[Any, Any]:
        """See `BaseRenderer.render_messages_async`."""
        conversation, prompt = await super().render_messages_async(messages, params)
        return conversation, self._with_chat(prompt, conversation, params)

    def _with_chat(self, prompt: Any, conversation: Any, params: Any) -> Any:
        if self.model_config.enable_prompt_embeds:
            prompt[CHAT] = Chat(list(conversation), params.get_apply_chat_template_kwargs())
        return prompt

    def _process_tokens(self, prompt: Any, **kwargs: Any) -> Any:
        return _hand_on(prompt, super()._process_tokens(prompt, **kwargs))

    async def _process_tokens_async(self, prompt: Any, **kwargs: Any) -> Any:
        return _hand_on(prompt, await super()._process_tokens_async(prompt, **kwargs))


def _hand_on(prompt: Any, engine_input: Any) -> Any:
    if CHAT in prompt:
        engine_input[CHAT] = prompt[CHAT]
    return engine_input
