"""Rollouts that a weight update interrupts, and that go on under the new policy.

verl's client sends a rollout again, its tokens so far behind the prompt, with the parameters of the
first time. The soft prompt is where it was, for its record rides along. What must not be the same:

- the seed of the sampling, whose draws would begin anew and come a second time;
- of a rollout with a law the thoughts so far, which are no tokens: the request has their record.

And each token's policy must be known, for the guard compares tokens of the actor's own alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import torch
from verl.workers.rollout.llm_server import FullyAsyncLLMServerClient, LLMServerClient
from verl.workers.rollout.replica import TokenOutput

from rsp_rl.thoughts.record import THOUGHT_FIELD
from rsp_rl.thoughts.settings import EXTRA_ARG, SO_FAR

#: Of an output's `extra_fields`: the policy of each of its tokens; of a sample: of each of its
#: response's positions, int64 [T], by the number of updates before it, -1 where nobody sampled.
VERSION_FIELD = "rsp_versions"

_NOBODY = -1


class Attempts:
    """What there is of an output, over the requests that it takes."""

    def __init__(self) -> None:
        self.versions: list[int] = []
        self._thoughts: bytes | None = None

    def parameters(self, sampling_params: dict[str, Any]) -> dict[str, Any]:
        """Sampling parameters of the next request.

        Args:
            sampling_params: Of the first; left as they are.
        """
        made = dict(sampling_params)
        if not self.versions:
            return made
        if made.get("seed") is not None:
            made["seed"] = resumed_seed(made["seed"], len(self.versions))
        if self._thoughts is not None:
            extra = made["extra_args"]
            thinking = {**extra[EXTRA_ARG], SO_FAR: self._thoughts}
            made["extra_args"] = {**extra, EXTRA_ARG: thinking}
        return made

    def heard(self, output: TokenOutput) -> None:
        """A request came back, whole or interrupted; of thoughts it has the record of all."""
        fields = output.extra_fields
        self.versions += [int(fields["global_steps"])] * len(output.token_ids)
        self._thoughts = fields.get(THOUGHT_FIELD, self._thoughts)

    def fields(self) -> dict[str, Any]:
        """What the whole output has in `extra_fields` beside verl's own."""
        found: dict[str, Any] = {VERSION_FIELD: self.versions}
        if self._thoughts is not None:
            found[THOUGHT_FIELD] = self._thoughts
        return found


def resumed_seed(seed: int, tokens: int) -> int:
    """Seed of the sampling of what follows so many tokens, a non-negative signed 64-bit integer."""
    digest = hashlib.blake2b(f"resumed {seed} {tokens}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


class _EachRequest(LLMServerClient):
    """Beneath verl's client, which asks it once an attempt."""

    async def generate(
        self,
        request_id: str,
        *,
        sampling_params: dict[str, Any],
        attempts: Attempts | None = None,
        **kwargs: Any,
    ) -> TokenOutput:
        attempts = attempts or Attempts()
        params = attempts.parameters(sampling_params)
        output = await super().generate(request_id, sampling_params=params, **kwargs)
        attempts.heard(output)
        return output


class ResumingClient(FullyAsyncLLMServerClient, _EachRequest):
    """verl's client of interrupted rollouts, which knows records, seeds and policies."""

    async def generate(self, request_id: str, **kwargs: Any) -> TokenOutput:
        """See `FullyAsyncLLMServerClient.generate`; `extra_fields` has `VERSION_FIELD`."""
        attempts = Attempts()
        output = await super().generate(request_id, attempts=attempts, **kwargs)
        output.extra_fields |= attempts.fields()
        return output


class Turns:
    """A rollout's client, in `ResumingClient`'s place: it gathers the policies of all turns."""

    def __init__(self, client: ResumingClient) -> None:
        self._client = client
        self._versions: list[int] = []

    async def generate(self, *args: Any, **kwargs: Any) -> TokenOutput:
        """See `ResumingClient.generate`."""
        output = await self._client.generate(*args, **kwargs)
        self._versions += output.extra_fields.pop(VERSION_FIELD)
        return output

    def of_response(self, response_mask: Sequence[int]) -> torch.Tensor:
        """`VERSION_FIELD` of a sample.

        Args:
            response_mask: 1 on tokens that the policy sampled, [T]; the response may be cut.

        Raises:
            ValueError: If it has more of them than all turns together.
        """
        found = iter(self._versions)
        if (own := sum(response_mask)) > len(self._versions):
            raise ValueError(
                f"a response has {own} sampled tokens, and its turns made {len(self._versions)}"
            )
        return torch.tensor([next(found) if sampled else _NOBODY for sampled in response_mask])
