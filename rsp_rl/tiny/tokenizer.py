"""The tiny model's tokenizer: byte-level BPE in Qwen2's shape, trained on the arithmetic task."""

from transformers import Qwen2Tokenizer

from rsp_rl.data import arithmetic

START_OF_TURN = "<|im_start|>"
END_OF_TURN = "<|im_end|>"
END_OF_TEXT = "<|endoftext|>"

MAX_PROMPT_LENGTH = 20
"""Tokens that suffice for the longest question in its chat template, generation prompt included."""

MAX_RESPONSE_LENGTH = 29
"""Tokens that suffice for the longest reasoned solution with its end-of-turn token."""

# ChatML as Qwen2.5 writes it, except that a conversation without a system turn gets none put
# before it: for so small a model a constant preamble would only cost prompt tokens.
CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}{%- endif -%}"
)


def build_tokenizer(model_max_length: int) -> Qwen2Tokenizer:
    """Trains the tokenizer; takes well under a second and gives the same result every time.

    All 256 bytes are in the vocabulary, so any text can be encoded. Digits are single tokens, and
    so is each word of the chat template and of the task.

    Args:
        model_max_length: The model's context in tokens, which the tokenizer records.
    """
    problems = arithmetic.generate("warmup", 200)
    texts = [text for p in problems for text in (p.question, p.reasoned_solution)]
    roles = ["system", "user", "assistant"] * 2  # BPE learns no merge that occurs only once
    # Reloading a tokenizer of model type qwen2 rebuilds the pre-tokenizer from transformers' own
    # code, whatever was saved. Training from that very class keeps both the same.
    tokenizer = Qwen2Tokenizer().train_new_from_iterator(
        [texts + roles],
        vocab_size=512,  # an upper limit: the texts run out of merges far earlier
        new_special_tokens=[START_OF_TURN, END_OF_TURN],
        min_frequency=2,
        show_progress=False,
    )
    tokenizer.eos_token = END_OF_TURN
    tokenizer.pad_token = END_OF_TEXT
    tokenizer.chat_template = CHAT_TEMPLATE
    tokenizer.model_max_length = model_max_length
    return tokenizer
