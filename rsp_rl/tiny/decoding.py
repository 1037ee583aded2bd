"""Plain decoding with the tiny model, to measure how often its boxed answers are right."""

import re
from collections import defaultdict
from collections.abc import Callable, Sequence

import torch
from transformers import PreTrainedTokenizerBase, Qwen2ForCausalLM

from rsp_rl.data.arithmetic import Problem
from rsp_rl.tiny.tokenizer import MAX_RESPONSE_LENGTH

_BOXED = re.compile(r"\\boxed\{(\d+)\}")


def prompt_ids(tokenizer: PreTrainedTokenizerBase, problems: Sequence[Problem]) -> list[list[int]]:
    """Returns every question as a user turn with the generation prompt after it."""
    conversations = [[{"role": "user", "content": p.question}] for p in problems]
    return tokenizer.apply_chat_template(
        conversations, add_generation_prompt=True, return_dict=False
    )


def is_right(response: str, problem: Problem) -> bool:
    """Tells whether the last boxed number of a response is the problem's answer."""
    boxed = _BOXED.findall(response)
    return bool(boxed) and boxed[-1] == problem.answer


@torch.no_grad()
def respond(
    model: Qwen2ForCausalLM,
    tokenizer: PreTrainedTokenizerBase,
    problems: Sequence[Problem],
    *,
    generator: torch.Generator | None = None,
    edit_prompt: Callable[[torch.Tensor], torch.Tensor] = lambda embeddings: embeddings,
) -> list[str]:
    """Answers every problem once.

    Shapes: B problems of one prompt length, T prompt tokens, d model width, V vocabulary.

    Args:
        model: The model, on the CPU.
        tokenizer: Its tokenizer.
        problems: What to ask.
        generator: Samples at temperature 1 with this generator; greedy without one.
        edit_prompt: Maps prompt embeddings ``[B, T, d]`` to ``[B, T', d]`` before decoding, which
            is where a soft prompt can be put in.

    Returns:
        The responses as text without special tokens, in the order of the problems.
    """
    # Prompts of one length need no padding, and the task has only three lengths.
    indices_by_length = defaultdict(list)
    prompts = prompt_ids(tokenizer, problems)
    for index, prompt in enumerate(prompts):
        indices_by_length[len(prompt)].append(index)

    responses = [""] * len(problems)
    for indices in indices_by_length.values():
        ids_BT = torch.tensor([prompts[index] for index in indices])
        embeddings_BTd = edit_prompt(model.get_input_embeddings()(ids_BT))
        tokens_BT = _decode(model, embeddings_BTd, generator)
        texts = tokenizer.batch_decode(tokens_BT, skip_special_tokens=True)
        for index, text in zip(indices, texts, strict=True):
            responses[index] = text
    return responses


def _decode(
    model: Qwen2ForCausalLM, embeddings_BTd: torch.Tensor, generator: torch.Generator | None
) -> torch.Tensor:
    """Decodes a batch of equally long prompts; tokens ``[B, T]`` after the end are padding."""
    end, pad = model.config.eos_token_id, model.config.pad_token_id
    step = model(inputs_embeds=embeddings_BTd, use_cache=True, logits_to_keep=1)
    ended_B = torch.zeros(len(embeddings_BTd), dtype=torch.bool)
    tokens = []
    for _ in range(MAX_RESPONSE_LENGTH):
        logits_BV = step.logits[:, -1]
        if generator is None:
            token_B = logits_BV.argmax(-1)
        else:
            token_B = torch.multinomial(logits_BV.softmax(-1), 1, generator=generator)[:, 0]
        tokens.append(token_B.masked_fill(ended_B, pad))
        ended_B = ended_B | (token_B == end)
        if ended_B.all():
            break
        step = model(token_B[:, None], past_key_values=step.past_key_values, use_cache=True)
    return torch.stack(tokens, dim=1)
