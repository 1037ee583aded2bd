"""Hidden states of a batch in which a thought's input is the hidden state before it.

A pass a thought: what a thought is depends on all before it. Nothing is detached, so that the loss
of an answer reaches the question through every thought (arXiv 2412.06769, section 3, "Training
Details"). The hidden state is the last layer's after the final norm, as in the authors' code.

Shapes: B rows, T columns, d width, V vocabulary.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from transformers import DynamicCache

from rsp_rl.basics.errors import ConfigError
from rsp_rl.latent.layout import IGNORED, Batch

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def hidden_states(model: PreTrainedModel, batch: Batch, *, recompute: bool = False) -> torch.Tensor:
    """Last hidden states of all columns, [B, T, d], differentiable in all that made the thoughts.

    Args:
        model: A causal language model.
        batch: On the model's device.
        recompute: Each pass from the first column on, without a key-value cache.
    """
    embeddings_BTd = model.get_input_embeddings()(batch.token_ids_BT)
    end = batch.token_ids_BT.shape[1]
    if not batch.passes:
        return decoder_states(model, embeddings_BTd, batch, 0, end)
    # The last thought's own pass computes what follows as well.
    bounds = [0, *range(batch.first, batch.first + batch.passes), end]
    if recompute:
        return _recomputed(model, embeddings_BTd, batch, bounds)
    cache = DynamicCache(config=model.config)
    parts: list[torch.Tensor] = []
    for start, stop in pairwise(bounds):
        part_BTd = embeddings_BTd[:, start:stop]
        if parts:
            part_BTd = _think(part_BTd, parts[-1][:, -1:], batch.thoughts_BT[:, start])
        parts.append(decoder_states(model, part_BTd, batch, start, stop, cache))
    return torch.cat(parts, dim=1)


def decoder_states(
    model: PreTrainedModel,
    embeddings_BTd: torch.Tensor,
    batch: Batch,
    start: int,
    stop: int,
    cache: DynamicCache | None = None,
) -> torch.Tensor:
    """Last hidden states of columns `start` to `stop`, from their inputs and what is cached."""
    return model.base_model(
        inputs_embeds=embeddings_BTd,
        attention_mask=batch.mask_BT[:, :stop],
        position_ids=batch.positions_BT[:, start:stop],
        past_key_values=cache,
        use_cache=cache is not None,
    ).last_hidden_state


def _think(
    part_BTd: torch.Tensor, before_B1d: torch.Tensor, thinks_B: torch.Tensor
) -> torch.Tensor:
    """Inputs of columns whose first one is a thought in some rows."""
    first_B1d = torch.where(thinks_B[:, None, None], before_B1d, part_BTd[:, :1])
    return torch.cat([first_B1d, part_BTd[:, 1:]], dim=1)


def _recomputed(
    model: PreTrainedModel, embeddings_BTd: torch.Tensor, batch: Batch, bounds: list[int]
) -> torch.Tensor:
    inputs_BTd = embeddings_BTd[:, : bounds[1]]
    states_BTd = decoder_states(model, inputs_BTd, batch, 0, bounds[1])
    for start, stop in pairwise(bounds[1:]):
        part_BTd = embeddings_BTd[:, start:stop]
        part_BTd = _think(part_BTd, states_BTd[:, -1:], batch.thoughts_BT[:, start])
        inputs_BTd = torch.cat([inputs_BTd, part_BTd], dim=1)
        states_BTd = decoder_states(model, inputs_BTd, batch, 0, stop)
    return states_BTd


def token_losses(model: PreTrainedModel, states_BTd: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Cross-entropy of each token with a label, [N], by rows and columns; nats, float32 or more."""
    labels_BT = batch.labels_BT[:, 1:]
    counted_BT = labels_BT != IGNORED
    # The output layer runs where there is a loss, and nowhere else.
    logits_NV = model.get_output_embeddings()(states_BTd[:, :-1][counted_BT])
    logits_NV = logits_NV.to(torch.promote_types(logits_NV.dtype, torch.float32))
    return torch.nn.functional.cross_entropy(logits_NV, labels_BT[counted_BT], reduction="none")


def check_thinks(model: PreTrainedModel) -> None:
    """Make sure that a hidden state can be an input, and that the cache does what it should.

    Raises:
        ConfigError: If the model's hidden states are of another width than its embeddings, or its
            logits are more than its output layer's, or a sequence in two passes over a cache is
            another than in one.
    """
    name = type(model).__name__
    table = model.get_input_embeddings().weight
    if model.get_output_embeddings() is None:
        raise ConfigError(f"{name} has no output layer; take a causal language model")
    ids = torch.arange(4, device=table.device)[None] % table.shape[0]
    batch = Batch(ids, torch.ones_like(ids), ids.clone(), ids, ids < 0, 2, 0)
    batch.positions_BT[:] = torch.arange(4)
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            inputs = model.get_input_embeddings()(ids)
            whole = decoder_states(model, inputs, batch, 0, 4)
            if whole.shape[-1] != inputs.shape[-1]:
                raise ConfigError(
                    f"{name} has hidden states of width {whole.shape[-1]} and embeddings of width "
                    f"{inputs.shape[-1]}: a hidden state cannot be an input; take another model"
                )
            cache = DynamicCache(config=model.config)
            parts = [decoder_states(model, inputs[:, :2], batch, 0, 2, cache)]
            parts.append(decoder_states(model, inputs[:, 2:], batch, 2, 4, cache))
            logits = model(inputs_embeds=inputs, use_cache=False).logits
            own = model.get_output_embeddings()(whole)
    except (TypeError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"{name} does not take embeddings, positions and a key-value cache as GPT-2, Llama and "
            f"Qwen2 do ({error}); take a model of such a kind"
        ) from error
    finally:
        model.train(training)
    gap = float((own - logits).abs().max() / logits.abs().max())
    if not gap < 1e-2:  # as below
        raise ConfigError(
            f"{name} scales or caps its logits (relative difference {gap:.2g}), and here they are "
            "its output layer's alone; take a model as GPT-2, Llama and Qwen2 are"
        )
    gap = float((torch.cat(parts, dim=1) - whole).abs().max() / whole.abs().max())
    if not gap < 1e-2:  # bf16's rounding; a wrong cache is off by its size
        raise ConfigError(
            f"{name} computes another thing over a key-value cache than without it (relative "
            f"difference {gap:.2g}); take another model, or another version of transformers"
        )
