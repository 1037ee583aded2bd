"""SIM-CoT's auxiliary decoder: it reads the thoughts of a step and must write the step.

arXiv 2509.20317, section 3: thoughts of an implicit chain grow alike when there are many; a second
model, which begins as a copy of the first, is given a step's thoughts in place of token embeddings
and trained to write that step, and its loss flows back into them. It is gone at inference.

Shapes: S steps of a batch, c thoughts a step, T columns, d width.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch

from rsp_rl.latent.layout import IGNORED, Batch

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class StepDecoder(torch.nn.Module):
    """The decoder.

    Args:
        model: Whose copy it begins as.
        thoughts_per_step: c.
        end: Id of the token that ends a step.
    """

    def __init__(self, model: PreTrainedModel, thoughts_per_step: int, end: int) -> None:
        super().__init__()
        self.model = copy.deepcopy(model)
        self._each, self._end = thoughts_per_step, end

    def losses(
        self, states_BTd: torch.Tensor, batch: Batch, steps: list[tuple[tuple[int, ...], ...]]
    ) -> torch.Tensor:
        """Cross-entropy of each token of the steps that thoughts stand for, float32 or more, [N].

        Args:
            states_BTd: Last hidden states of the batch's columns.
            batch: The batch.
            steps: By row, the tokens of those steps, in order.
        """
        thoughts, targets = [], []
        for row, own in enumerate(steps):
            for number, step in enumerate(own):
                # The state that is a thought's input is the one before it.
                start = batch.first - 1 + number * self._each
                thoughts.append(states_BTd[row, start : start + self._each])
                targets.append([*step, self._end])
        if not thoughts:
            return states_BTd.new_zeros(0)
        width = max(map(len, targets))
        ids_ST = torch.full((len(targets), width), self._end)
        labels_ST = torch.full((len(targets), width), IGNORED)
        for row, target in enumerate(targets):
            ids_ST[row, : len(target)] = labels_ST[row, : len(target)] = torch.tensor(target)
        ids_ST, labels_ST = ids_ST.to(states_BTd.device), labels_ST.to(states_BTd.device)
        # Causal attention never looks at padding that follows.
        written_STd = self.model.get_input_embeddings()(ids_ST[:, :-1])
        inputs_STd = torch.cat([torch.stack(thoughts), written_STd], dim=1)
        found_STd = self.model.base_model(inputs_embeds=inputs_STd, use_cache=False)
        chosen_STd = found_STd.last_hidden_state[:, self._each - 1 :]
        counted_ST = labels_ST != IGNORED
        logits_NV = self.model.get_output_embeddings()(chosen_STd[counted_ST])
        logits_NV = logits_NV.to(torch.promote_types(logits_NV.dtype, torch.float32))
        return torch.nn.functional.cross_entropy(logits_NV, labels_ST[counted_ST], reduction="none")


def tokens_of(steps: list[tuple[tuple[int, ...], ...]]) -> int:
    """How many losses there are of steps, the end of each counted."""
    return sum(len(step) + 1 for own in steps for step in own)
