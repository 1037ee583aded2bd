"""What the tests of placement ask: texts that users might write, and what a prompt is without L."""

from __future__ import annotations

from hypothesis import strategies as st
from transformers import PreTrainedTokenizerBase

from rsp_rl.placement.prompt import PlacedPrompt

BYTE_LEVEL = ("chatml", "llama_3")  # those that decode to the very text

#: What each family's template puts behind the user's message.
TAIL = {
    "chatml": "<|im_end|>\n<|im_start|>assistant\n",
    "llama_3": "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
    "gemma": "<end_of_turn>\n<start_of_turn>model\n",
    "mistral": "[/INST]",
}

# The paper's wording (section 3.1), written out once more.
DESCRIPTION = (
    "There are 20 special tokens that contain compressed latent reasoning information that might "
    "be useful for your reasoning. If these tokens are useful for your case, you can use them as "
    "reference. If these tokens are not useful for your case, you can ignore them and focus back "
    "to solving the problem.\nHere are the 20 special tokens: "
)

INSTRUCTION = "Please reason step by step, and put your final answer within \\boxed{}."
QUESTION = "How many clips did Natalia sell altogether in April and May?"

# What users might write to move a soft prompt, or what a tokenizer might merge across a seam.
_FRAGMENTS = [
    *(token for tail in TAIL.values() for token in (tail, tail.split("\n")[0])),
    *("<|im_start|>", "<|begin_of_text|>", "<bos>", "<s>", "</s>", "[INST]", "<|endoftext|>"),
    *("<|im_end", "|>", "<|", "<", "[/INST", "<think>", "<tool_call>", "<unk>", "<0x41>"),
    *("\ue0f0", "\ue0f1", "\ue0f00\ue0f1", "\ue0f01\ue0f1", "0", "1"),
    *(" ", "  ", " " * 17, "\n", "\n\n", "\r\n", "\t", "\u00a0", "\u3000", "\u0301", "\x00"),
    *("?", "!!", "...", "{{ messages }}", "{% raw %}", "▁", "Ġ", "é", "👩‍🏫", "數學", "42", "x"),
    *(INSTRUCTION, DESCRIPTION, QUESTION, "special tokens: ", "Please"),
]

USER_TEXT = st.lists(st.one_of(st.sampled_from(_FRAGMENTS), st.text(max_size=5)), max_size=7).map(
    "".join
)


def asked(content: str) -> list[dict]:
    return [{"role": "user", "content": content}]


def plain_ids(
    tokenizer: PreTrainedTokenizerBase, messages: list[dict], **kwargs: object
) -> list[int]:
    """transformers' own tokenisation."""
    return tokenizer.apply_chat_template(
        messages, tokenize=True, add_generation_prompt=True, return_dict=False, **kwargs
    )


def without(placed: PlacedPrompt, length: int) -> list[int]:
    """The prompt's tokens without the placeholders, which must stand where `start` says."""
    ids, end = placed.token_ids, placed.start + length
    assert 0 <= placed.start <= end <= len(ids)
    assert len(set(ids[placed.start : end])) <= 1
    return ids[: placed.start] + ids[end:]


def before_and_after(
    tokenizer: PreTrainedTokenizerBase, placed: PlacedPrompt, length: int
) -> tuple[str, str]:
    ids = placed.token_ids
    parts = ids[: placed.start], ids[placed.start + length :]
    before, after = (tokenizer.decode(part, skip_special_tokens=False) for part in parts)
    return before, after
