"""Which engine runs a model, and for how long."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from rsp_rl.basics.errors import ConfigError
from rsp_rl.inference.model_law import name_table
from rsp_rl.inference.requests import Completion, EngineOptions, Engines, Request
from rsp_rl.inference.soft_prompts import Comparator
from rsp_rl.injection.model_runner import VARIABLE, takes_v2


def start_engines(
    model: Path,
    options: EngineOptions,
    *,
    soft_prompts: bool,
    thoughts: bool = False,
    comparator: Comparator | None = None,
) -> Engines:
    """Load a model.

    Args:
        model: Hugging Face folder; on a cluster, one that every node sees.
        options: How it is run: vLLM in this process, several vLLM engines as Ray actors, or
            Hugging Face.
        soft_prompts: Whether requests may have a record.
        thoughts: Whether requests may have a law.
        comparator: What the vectors of soft prompts come from; RSP's own draw if `None`.

    Raises:
        ConfigError: If a comparator meets an engine that cannot run it, or vLLM is told to run with
            a model runner that cannot.
    """
    check_comparator_engine(options, comparator)
    if soft_prompts:
        name_table(model)
    # Imported here: whoever needs the one need not have the other.
    if options.kind == "huggingface":
        from rsp_rl.inference.huggingface import HuggingFaceEngine

        return HuggingFaceEngine(model, options, comparator)
    if soft_prompts or thoughts:
        takes_v2(os.environ.get(VARIABLE))  # refuses what vLLM would refuse minutes later
    from rsp_rl.inference.vllm_engine import LocalEngine, RayEngines

    kind = LocalEngine if options.data_parallel == 1 else RayEngines
    return kind(str(model), options, soft_prompts, thoughts)


class SharedEngines(AbstractContextManager):
    """Engines of one model for several queues, one after the other; see `Engines`.

    They start with the first queue that holds anything: to start one takes as long as to answer a
    few hundred questions, and a command that finds everything done needs none.

    Args:
        model: Hugging Face folder.
        options: How it is run.
        soft_prompts: Whether requests may have a record.
        thoughts: Whether requests may have a law.
        comparator: What fills their positions instead.
    """

    def __init__(
        self,
        model: Path,
        options: EngineOptions,
        *,
        soft_prompts: bool,
        thoughts: bool = False,
        comparator: Comparator | None = None,
    ) -> None:
        self._start = lambda: start_engines(
            model, options, soft_prompts=soft_prompts, thoughts=thoughts, comparator=comparator
        )
        self._thoughts = thoughts
        self._engines: Engines | None = None
        self._busy = False

    def generate(self, requests: Iterable[Request]) -> Iterator[list[Completion]]:
        """See `Engines.generate`.

        Raises:
            ValueError: If a request has a law and the engines were not to have any: not every kind
                of engine would notice.
        """
        requests = list(requests)
        if not self._thoughts and any(request.thinking for request in requests):
            raise ValueError("requests with a law for engines that were started without thoughts")
        if self._busy:
            # The last queue was left half-way: an engine died, or a disk was full. What is left
            # of it would come out as answers to this one.
            self.close()
        if self._engines is None:
            self._engines = self._start()
        self._busy = True
        yield from self._engines.generate(requests)
        self._busy = False

    def close(self) -> None:
        """See `Engines.close`."""
        engines, self._engines, self._busy = self._engines, None, False
        if engines is not None:
            engines.close()

    def __exit__(self, *_: object) -> None:
        self.close()


def check_comparator_engine(options: EngineOptions, comparator: Comparator | None) -> None:
    """Refuse comparators on vLLM, which gives neither logits within a prompt nor hidden states.

    Raises:
        ConfigError: Naming the option.
    """
    if comparator is not None and options.kind != "huggingface":
        raise ConfigError(
            f"comparator.method={comparator.method} needs --engine huggingface: vLLM draws soft "
            "prompts by itself"
        )
