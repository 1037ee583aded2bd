"""The rollout side: vLLM samples the same prompts with and without soft prompts, side by side."""

from __future__ import annotations

import json
import os
from base64 import b64decode, b64encode
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from parity.actor import Sample
from parity.layouts import RolloutLayout
from parity.models import Policy
from rsp_rl.draws.record import SoftPromptRecord

if TYPE_CHECKING:
    from vllm import LLM

SOFT_PROMPT_LENGTH = 20
#: Rollouts of a prompt, enough for the later ones to find the earlier ones' blocks in the cache.
GROUP = 4
#: Placement and addends: long enough for several prefix-cache blocks and several prefill chunks.
QUESTIONS = (("suffix", 40), ("infix", 50), ("prefix", 60), ("suffix", 70))


@dataclass(frozen=True)
class Rollouts:
    """What one vLLM layout sampled.

    Attributes:
        with_rsp: Rollouts with a soft prompt each; `old_log_probs` are vLLM's.
        without: The same prompts without.
        cached_tokens: Prompt tokens that came from the prefix cache, over all requests.
        shortest_prompt: Tokens; chunked prefill is at work where this exceeds the chunk.
    """

    with_rsp: list[Sample]
    without: list[Sample]
    cached_tokens: int
    shortest_prompt: int

    def save(self, file: Path) -> None:
        """Write as JSON, whole or not at all."""
        content = {
            "with_rsp": [to_json(sample) for sample in self.with_rsp],
            "without": [to_json(sample) for sample in self.without],
            "cached_tokens": self.cached_tokens,
            "shortest_prompt": self.shortest_prompt,
        }
        partial = file.with_suffix(".partial")
        partial.write_text(json.dumps(content))
        partial.rename(file)

    @classmethod
    def load(cls, file: Path) -> Rollouts:
        """Read what `save` wrote."""
        content = json.loads(file.read_text())
        for kind in ("with_rsp", "without"):
            content[kind] = [from_json(sample) for sample in content[kind]]
        return cls(**content)


def to_json(sample: Sample) -> dict:
    """A sample as plain types."""
    thoughts = sample.thoughts
    return {
        "prompt": list(sample.prompt),
        "response": list(sample.response),
        "old_log_probs": sample.old_log_probs.tolist(),
        "advantage": sample.advantage,
        "record": None if sample.record is None else sample.record.to_dict(),
        "thoughts": None if thoughts is None else b64encode(thoughts.to_bytes()).decode(),
    }


def from_json(content: dict) -> Sample:
    """What `to_json` made."""
    record, thoughts = content["record"], content.get("thoughts")
    if thoughts is not None:
        from rsp_rl.thoughts.record import ThoughtRecord

        thoughts = ThoughtRecord.from_bytes(b64decode(thoughts))
    return Sample(
        **{
            **content,
            "old_log_probs": np.array(content["old_log_probs"]),
            "record": None if record is None else SoftPromptRecord(**record),
            "thoughts": thoughts,
        }
    )


def prompts(model: Path, dtype: str = "float32") -> list[tuple[list[int], SoftPromptRecord | None]]:
    """Tokens and record of every rollout: each question `GROUP` times with RSP and without.

    Args:
        model: The model whose tokenizer and embedding table are used.
        dtype: The rollout's.
    """
    from transformers import AutoTokenizer

    from rsp_rl.dials.options import RspOptions
    from rsp_rl.draws.embedding_stats import embedding_stats
    from rsp_rl.placement.chat import place_in_chat
    from rsp_rl.placement.prompt import placeholder_id

    tokenizer = AutoTokenizer.from_pretrained(model)
    stats = embedding_stats(model)
    rows: list[tuple[list[int], SoftPromptRecord | None]] = []
    for index, (position, addends) in enumerate(QUESTIONS):
        question = f"Compute {'+'.join(str(1 + i % 9) for i in range(addends))}."
        messages = [{"role": "user", "content": question}]
        options = RspOptions(
            length=SOFT_PROMPT_LENGTH, position=position, mean=stats.mean, std=stats.std
        )
        placed = place_in_chat(tokenizer, messages, options.length, position)
        plain = place_in_chat(tokenizer, messages, 0, position)
        for number in range(GROUP):
            record = options.record(
                step=1,
                prompt_index=index,
                rollout=number,
                group_start=0,
                start=placed.start,
                dtype=dtype,
                placeholder_id=placeholder_id(tokenizer),
            )
            rows += [(placed.token_ids, record), (plain.token_ids, None)]
    return rows


def sample_rollouts(llm: LLM, model: Path) -> Rollouts:
    """Sample all prompts in one batch at temperature 1, from the whole distribution.

    Unseeded: vLLM's CPU target cannot prefill a seeded request in pieces.

    Args:
        llm: An engine on `model` with `enable_prompt_embeds`.
        model: The model whose embedding table gives mu_E and sigma_E.
    """
    from vllm import SamplingParams
    from vllm.inputs import TokensPrompt

    from rsp_rl.injection.vllm_prompt import prompt_maker

    make_prompt = prompt_maker(llm.llm_engine.vllm_config)
    rows = prompts(model)
    requests = [
        TokensPrompt(prompt_token_ids=tokens) if record is None else make_prompt(tokens, record)
        for tokens, record in rows
    ]
    parameters = [
        # Unequal lengths, so that padded and packed batches differ.
        SamplingParams(
            temperature=1.0, top_p=1.0, max_tokens=8 + 5 * (n % 4), logprobs=0, ignore_eos=True
        )
        for n in range(len(rows))
    ]
    samples: dict[bool, list[Sample]] = {True: [], False: []}
    cached_tokens = 0
    advantages = np.random.default_rng(0).normal(size=len(rows))
    outputs = llm.generate(requests, parameters, use_tqdm=False)
    for (tokens, record), output, advantage in zip(rows, outputs, advantages, strict=True):
        response = list(output.outputs[0].token_ids)
        log_probs = [
            place[token].logprob
            for token, place in zip(response, output.outputs[0].logprobs, strict=True)
        ]
        cached_tokens += output.num_cached_tokens or 0
        samples[record is not None].append(
            Sample(tokens, response, np.array(log_probs), float(advantage), record)
        )
    shortest = min(len(tokens) for tokens, _ in rows)
    return Rollouts(samples[True], samples[False], cached_tokens, shortest)


def run_layout(layout: RolloutLayout, policy: Policy) -> Rollouts:
    """Sample with an engine of its own; for a process that does nothing else."""
    llm = make_llm(layout, policy)
    try:
        return sample_rollouts(llm, policy.actor_model)
    finally:
        llm.llm_engine.engine_core.shutdown()


def make_llm(layout: RolloutLayout, policy: Policy, **arguments: Any) -> LLM:
    """An engine, in a process of its own.

    Args:
        layout: Its.
        policy: Which it loads.
        **arguments: Of `vllm.LLM`, beside the layout's.
    """
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")  # GiB
    # The engine's core in this process: one import of vLLM less.
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    if layout.tensor_parallel > 1:
        # By itself vLLM's CPU target gives each rank a NUMA node.
        cores = sorted(os.sched_getaffinity(0))
        binding = [str(cores[rank % len(cores)]) for rank in range(layout.tensor_parallel)]
        os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "|".join(binding))
    from vllm import LLM

    return LLM(str(policy.rollout_model), **layout.engine_arguments(), **arguments)
