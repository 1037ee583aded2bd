"""Small tokenizers with the chat templates and the tokenisation of well-known model families.

Trained here in well under a second; each copies its family's pre-tokenizer, its special tokens
and its chat template (tools and dates left out), not its vocabulary.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers
from tokenizers import pre_tokenizers as pre
from tokenizers.processors import TemplateProcessing
from tokenizers.trainers import BpeTrainer
from transformers import PreTrainedTokenizerFast

from rsp_rl.placement.prompt import INFIX_DESCRIPTION, INSTRUCTION

CHATML = """\
{%- if messages[0]['role'] == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0]['content'] + '<|im_end|>\\n' }}
{%- else %}
    {{- '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {%- if message.role == "tool" %}
        {%- if loop.index0 == 0 or messages[loop.index0 - 1].role != "tool" %}
            {{- '<|im_start|>user' }}
        {%- endif %}
        {{- '\\n<tool_response>\\n' }}
        {{- message.content }}
        {{- '\\n</tool_response>' }}
        {%- if loop.last or messages[loop.index0 + 1].role != "tool" %}
            {{- '<|im_end|>\\n' }}
        {%- endif %}
    {%- elif not (loop.first and message.role == "system") %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}"""

LLAMA_3 = (
    "{% for message in messages %}"
    "{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'"
    " + message['content'] | trim + '<|eot_id|>' %}"
    "{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{ content }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}"
)

GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}"
    "{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for message in messages %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate') }}{% endif %}"
    "{% if message['role'] == 'assistant' %}{% set role = 'model' %}"
    "{% else %}{% set role = message['role'] %}{% endif %}"
    "{{ '<start_of_turn>' + role + '\\n' + message['content'] | trim + '<end_of_turn>\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}"
)

# The system message goes into the last user turn; no generation prompt.
MISTRAL = (
    "{%- if messages[0]['role'] == 'system' %}"
    "{%- set system_message = messages[0]['content'] %}{%- set loop_messages = messages[1:] %}"
    "{%- else %}{%- set loop_messages = messages %}{%- endif %}"
    "{{- bos_token }}{%- for message in loop_messages %}"
    "{%- if message['role'] == 'user' %}"
    "{%- if loop.last and system_message is defined %}"
    "{{- '[INST] ' + system_message + '\\n\\n' + message['content'] + '[/INST]' }}"
    "{%- else %}{{- '[INST] ' + message['content'] + '[/INST]' }}{%- endif %}"
    "{%- elif message['role'] == 'assistant' %}"
    "{{- ' ' + message['content'] | trim + eos_token }}"
    "{%- endif %}{%- endfor %}"
)

# Zephyr's turns closed by the end-of-sequence token, with a blank before it.
GAP = (
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>\\n' + message['content'] + ' \\n' + eos_token + '\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}"
)

# Alpaca's: turns are told apart by ordinary text.
NO_END_OF_TURN = (
    "{% for message in messages %}"
    "{{ '### ' + message['role'] + ':\\n' + message['content'] + '\\n\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '### assistant:\\n' }}{% endif %}"
)

# Nothing but the messages.
BARE = "{% for message in messages %}{{ message['content'] + '\\n' }}{% endfor %}"

# The user's message is never rendered.
SYSTEM_ONLY = (
    "{% for message in messages %}{% if message['role'] == 'system' %}"
    "{{ '<|im_start|>' + message['content'] + '<|im_end|>\\n' }}{% endif %}{% endfor %}"
)

_QWEN_REGEX = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_LLAMA_REGEX = _QWEN_REGEX.replace(r"\p{N}| ", r"\p{N}{1,3}| ")

_CORPUS = [
    INFIX_DESCRIPTION.format(length=20),
    INSTRUCTION,
    "You are a helpful assistant.\nsystem user assistant model tool",
    "Natalia sold clips to 48 of her friends in April, and then half as many in May.\n\n",
    "def f(x):\n    return x\n        y\n\n\n  z?\n!!\n??\n\n...\n   \n",
    "[INST] [/INST] <tool_response> </tool_response> <think> </think> </s>",
] * 3


def _byte_level(regex: str, bos: str | None) -> Tokenizer:
    """GPT-4-like: bytes, split by a regular expression; a BOS only where the family has one."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre.Sequence(
        [
            pre.Split(Regex(regex), behavior="isolated"),
            pre.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(
        vocab_size=700,
        initial_alphabet=pre.ByteLevel.alphabet(),
        special_tokens=[bos] if bos else [],
        show_progress=False,
    )
    tokenizer.train_from_iterator(_CORPUS, trainer)
    if bos:
        _add_bos(tokenizer, bos)
    return tokenizer


def _sentence_piece(bos: str, prefix_space: bool) -> Tokenizer:
    """SentencePiece-like: blanks are letters, unknown characters fall back to bytes."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    if prefix_space:  # a blank before the text's first word, and before that one only
        tokenizer.pre_tokenizer = pre.Metaspace(prepend_scheme="first", split=False)
        tokenizer.decoder = decoders.Metaspace(prepend_scheme="first", split=False)
    else:
        tokenizer.normalizer = normalizers.Replace(" ", "▁")
        tokenizer.decoder = decoders.Replace("▁", " ")
    specials = ["<unk>", bos, "<eos>", "<pad>"]
    trainer = BpeTrainer(vocab_size=700, special_tokens=specials, show_progress=False)
    # Word by word: with no split in front of it BPE would learn whole sentences.
    words = [word for text in _CORPUS for word in text.replace(" ", "\x00 ").split("\x00")]
    tokenizer.train_from_iterator(words, trainer)
    state = json.loads(tokenizer.to_str())
    vocabulary = state["model"]["vocab"]
    for byte in range(256):
        vocabulary[f"<0x{byte:02X}>"] = len(vocabulary)
    tokenizer = Tokenizer.from_str(json.dumps(state))
    _add_bos(tokenizer, bos)
    return tokenizer


def _add_bos(tokenizer: Tokenizer, bos: str) -> None:
    tokenizer.post_processor = TemplateProcessing(
        single=f"{bos} $A", special_tokens=[(bos, tokenizer.token_to_id(bos))]
    )


def _wrap(
    tokenizer: Tokenizer, template: str | None, special_tokens: list[str], **named: str
) -> PreTrainedTokenizerFast:
    tokenizer.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token in special_tokens]
    )
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **named)
    wrapped.chat_template = template
    return wrapped


def chatml(template: str | None = CHATML) -> PreTrainedTokenizerFast:
    """Qwen2.5's: no BOS, ChatML with a system turn of its own, content as it is."""
    tokenizer = _byte_level(_QWEN_REGEX, None)
    tokenizer.normalizer = normalizers.NFC()
    # Added tokens that are not special: they never end a turn.
    tokenizer.add_tokens([AddedToken(t, normalized=False) for t in ("<tool_call>", "<think>")])
    named = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
    return _wrap(tokenizer, template, ["<|endoftext|>", "<|im_start|>", "<|im_end|>"], **named)


def llama_3(template: str | None = LLAMA_3) -> PreTrainedTokenizerFast:
    """Llama-3's: BOS, header tokens, content trimmed; no padding token."""
    tokenizer = _byte_level(_LLAMA_REGEX, "<|begin_of_text|>")
    specials = ["<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
    named = {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>"}
    return _wrap(tokenizer, template, specials, **named)


def gemma(template: str | None = GEMMA) -> PreTrainedTokenizerFast:
    """Gemma's: BOS, SentencePiece without a prefix blank, content trimmed, roles alternate."""
    tokenizer = _sentence_piece("<bos>", prefix_space=False)
    named = {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>", "unk_token": "<unk>"}
    return _wrap(tokenizer, template, ["<start_of_turn>", "<end_of_turn>"], **named)


def mistral(template: str | None = MISTRAL) -> PreTrainedTokenizerFast:
    """Mistral's v3: BOS, SentencePiece with a prefix blank, instruction tokens, no padding."""
    tokenizer = _sentence_piece("<s>", prefix_space=True)
    named = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    return _wrap(tokenizer, template, ["[INST]", "[/INST]", "</s>"], **named)


_FAMILIES: dict[str, Callable[[], PreTrainedTokenizerFast]] = {
    "chatml": chatml,
    "llama_3": llama_3,
    "gemma": gemma,
    "mistral": mistral,
}

FAMILIES = tuple(_FAMILIES)

#: The token that closes the user's turn, and the special tokens that a user might type.
END_OF_TURN = {
    "chatml": "<|im_end|>",
    "llama_3": "<|eot_id|>",
    "gemma": "<end_of_turn>",
    "mistral": "[/INST]",
}


@cache
def tokenizer_of(family: str) -> PreTrainedTokenizerFast:
    """The family's tokenizer, made once a process; not to be changed."""
    return _FAMILIES[family]()
