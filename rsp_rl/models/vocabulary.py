"""Rows of a model's vocabulary that no token has: padding to a round number."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rsp_rl.basics.errors import ConfigError

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

#: vLLM takes a bias for no more tokens (`vllm.v1.worker.gpu.sample.logit_bias`).
MOST = 1024


def unknown_tokens(config: PretrainedConfig, tokenizer: PreTrainedTokenizerBase) -> range:
    """Ids that the model has an output for and the tokenizer no token.

    verl's rollouts never sample them (`monkey_patch_compute_logits`), so no other engine may.

    Raises:
        ConfigError: If they are more than can be kept out of an output.
    """
    rows = config.get_text_config().vocab_size
    unknown = range(len(tokenizer), max(rows, len(tokenizer)))
    if len(unknown) > MOST:
        raise ConfigError(
            f"the model has {rows} tokens and its tokenizer {len(tokenizer)}: {len(unknown)} "
            f"without a text, and vLLM keeps at most {MOST} out of an output; is it this model's "
            "tokenizer?"
        )
    return unknown
