"""The Python API of generation with soft prompts, for notebooks and scripts.

from rsp_rl.inference.generator import Generator

with Generator("Qwen/Qwen2.5-Math-1.5B-Instruct") as generator:
    for sample in generator.generate("What is 7 * 8?", samples=4, length=20, temperature=1.0):
        print(sample.text)
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import cached_property
from typing import Any

from rsp_rl.basics.errors import ConfigError
from rsp_rl.data.templates import get_template
from rsp_rl.dials.options import Mode, RspOptions
from rsp_rl.draws.embedding_stats import EmbeddingStats
from rsp_rl.draws.embedding_table import open_embedding_table
from rsp_rl.draws.laws import LAWS
from rsp_rl.inference.engines import start_engines
from rsp_rl.inference.model_law import model_law
from rsp_rl.inference.prompts import Sampling, check_room, sample_requests, sample_seeds
from rsp_rl.inference.requests import Completion, EngineOptions
from rsp_rl.inference.thinking import ModelThinking, check_thoughts, thinking_of_model
from rsp_rl.models.context import context_of
from rsp_rl.models.folder import check_model, load_tokenizer, resolve_model_folder
from rsp_rl.models.stop_tokens import stop_token_of
from rsp_rl.models.vocabulary import check_placeholder, check_tokens, vocabulary_size
from rsp_rl.placement.prompt import Position
from rsp_rl.thoughts.settings import ThoughtSettings


class Generator(AbstractContextManager):
    """A loaded model that answers questions, with or without soft prompts.

    Args:
        model: Hugging Face folder, or name on the hub.
        template: How a question becomes a prompt: a key of `rsp_rl.data.templates.TEMPLATES`.
        options: How the model is run; vLLM by default.
        thoughts: Whether questions may have a law; vLLM then schedules one step after the other.

    Raises:
        ConfigError: If the model or the template cannot be used.
    """

    def __init__(
        self,
        model: str,
        *,
        template: str = "chat",
        options: EngineOptions | None = None,
        thoughts: bool = False,
    ) -> None:
        self._template = get_template(template)
        self._options = options or EngineOptions()
        self._thoughts = thoughts
        self._folder = resolve_model_folder(model)
        self._tokenizer = load_tokenizer(self._folder)
        config = check_model(self._folder)
        self._vocabulary = vocabulary_size(config)
        check_placeholder(self._tokenizer, self._vocabulary)
        self._context = self._options.max_model_len or context_of(config)
        self._engines = start_engines(
            self._folder, self._options, soft_prompts=True, thoughts=thoughts
        )

    @cached_property
    def _law(self) -> EmbeddingStats:
        """Read when the first soft prompt is asked for: a large table takes seconds."""
        return model_law(self._folder)

    @cached_property
    def _table_digest(self) -> str:
        """Likewise, for a law that draws rows of the table."""
        return open_embedding_table(self._folder).digest()

    def generate(
        self,
        question: str,
        *,
        samples: int = 1,
        length: int = 0,
        position: Position = "suffix",
        mode: Mode = "independent",
        scale: float = 1.0,
        draw: str = "gaussian",
        temperature: float = 0.0,
        top_p: float = 1.0,
        top_k: int = 0,
        max_tokens: int = 2048,
        seed: int = 0,
        law: str | None = None,
        law_settings: Mapping[str, Any] | None = None,
    ) -> list[Completion]:
        """Answer a question.

        Args:
            question: Goes into the template as it is.
            samples: Answers wanted.
            length: L, soft prompt vectors of an answer; 0 for none, and with a draw that inserts
                none.
            position: Where they go, see `rsp_rl.placement`.
            mode: `independent`, a draw for every sample; `shared`, one for all.
            scale: Multiplies sigma_E; of `question_noise` it is NEFTune's alpha.
            draw: What is drawn, a key of `rsp_rl.draws.laws.LAWS`.
            temperature: 0 is greedy.
            top_p: Nucleus; 1 for all.
            top_k: 0 for the whole vocabulary.
            max_tokens: Most generated tokens a sample.
            seed: Of draws, sampling and thoughts; a sample's depend on question, number and seed
                alone.
            law: What stands in place of tokens' embeddings while the model thinks, a key of
                `rsp_rl.thoughts.names.LAWS`; temperature, top_p and top_k are then the answer's.
            law_settings: The law's own and its phases, as `ThoughtSettings.from_dict` takes them.

        Returns:
            The samples by number; with a law they have their `thoughts`.

        Raises:
            ConfigError: On a bad value, or if the prompt leaves no room for an answer, or holds
                tokens that the model does not have.
            PlacementError: If the soft prompt has no place in the prompt.
        """
        rsp = RspOptions(
            length=length,
            position=position,
            mode=mode,
            scale=scale,
            law=draw,
            seed=seed,
            mean=self._law.mean if length else None,
            std=self._law.std if length else None,
        )
        if rsp.enabled and LAWS[draw].from_table:
            rsp = replace(rsp, table_digest=self._table_digest)
        thinking = self._thinking(law, law_settings)
        if rsp.has_added_rows:
            placed = self._template.find_question(self._tokenizer, question)
        else:
            placed = self._template.place(self._tokenizer, question, length, position)
        check_tokens(self._tokenizer, placed.token_ids, self._vocabulary, "the prompt")
        check_room(placed, length, self._context, "the prompt")
        check_thoughts(
            placed.token_ids,
            thinking and thinking.phases,
            self._tokenizer,
            context=self._context,
            max_tokens=max_tokens,
            prompt="the prompt",
        )
        end_of_turn = stop_token_of(self._template, self._tokenizer, self._folder)
        sampling = Sampling(
            temperature=temperature,
            top_p=top_p,
            top_k=top_k,
            max_tokens=max_tokens,
            stop=(),
            stop_token_ids=() if end_of_turn is None else (end_of_turn,),
        )
        requests = sample_requests(
            placed,
            self._tokenizer,
            rsp,
            sampling,
            sample_seeds(seed, rsp, "question", question, samples),
            self._options.resolved_dtype(),
            thinking,
        )
        finished = [done for batch in self._engines.generate(requests) for done in batch]
        return sorted(finished, key=lambda completion: completion.number)

    def _thinking(
        self, law: str | None, settings: Mapping[str, Any] | None
    ) -> ModelThinking | None:
        if law is None:
            if settings:
                raise ConfigError("law_settings without a law; say whose settings they are")
            return None
        if not self._thoughts:
            raise ConfigError(f"law={law} needs an engine that thinks: Generator(thoughts=True)")
        asked = ThoughtSettings.from_dict(law, settings or {})
        return thinking_of_model(asked, self._folder, self._tokenizer)

    def close(self) -> None:
        """Free what the engine holds."""
        self._engines.close()

    def __exit__(self, *_: object) -> None:
        self.close()
