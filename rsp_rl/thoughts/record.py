"""The thoughts of one output: what stood at each of its positions, to make it again elsewhere."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from rsp_rl.thoughts.law import InputLaw
from rsp_rl.thoughts.names import law_from_settings, law_to_settings
from rsp_rl.thoughts.rows import Kind, Rows

#: Field of a training sample that carries its encoded record, uint8 [bytes].
THOUGHT_FIELD = "rsp_thoughts"

#: Field of the same sample with its positions' `Kind`s alone, uint8 [T].
KIND_FIELD = "rsp_thought_kinds"

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class ThoughtRecord:
    """Of one output of T tokens.

    Attributes:
        law: That was at work.
        seed: Of its noise.
        start: Absolute position of the output's first token.
        rows: T of them; those of ordinary tokens have the kind `TOKEN`.
    """

    law: InputLaw
    seed: int
    start: int
    rows: Rows

    def __post_init__(self) -> None:
        if self.rows.ids_NK.shape != (len(self.rows), self.law.slots):
            raise ValueError(
                f"{self.law.name} leaves {self.law.slots} ids a position, not "
                f"{list(self.rows.ids_NK.shape)}"
            )

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def emitted(self) -> list[int]:
        """The output's tokens."""
        return self.rows.emitted_N.tolist()

    @property
    def chosen(self) -> torch.Tensor:
        """Positions that a draw of law or sampler made, bool [T]."""
        chosen = torch.tensor([kind for kind in Kind if kind.is_chosen], dtype=torch.uint8)
        return torch.isin(self.rows.kind_N, chosen.to(self.rows.kind_N.device))

    def check(self, token_ids: Sequence[int]) -> None:
        """Make sure that it is the record of these tokens.

        Raises:
            ValueError: Naming the first position that differs.
        """
        emitted = self.emitted
        if emitted != list(token_ids):
            pairs = zip(emitted, token_ids, strict=False)
            at = next(
                (i for i, (a, b) in enumerate(pairs) if a != b), min(len(emitted), len(token_ids))
            )
            raise ValueError(
                f"the record of {len(emitted)} positions is not of this output of {len(token_ids)} "
                f"tokens: they differ at position {at}"
            )

    def cut(self, length: int) -> ThoughtRecord:
        """Of the first tokens alone."""
        return ThoughtRecord(self.law, self.seed, self.start, self.rows[:length])

    def to_bytes(self) -> bytes:
        """A header of JSON, then the arrays one after the other."""
        rows = self.rows.to("cpu")
        dense = rows.dense_ND
        head = {
            "law": self.law.name,
            "settings": law_to_settings(self.law),
            "seed": self.seed,
            "start": self.start,
            "length": len(rows),
            "dense": None if dense is None else [dense.shape[1], str(dense.dtype)[6:]],
        }
        encoded = json.dumps(head).encode()
        parts = [len(encoded).to_bytes(4, "little"), encoded]
        parts += [_bytes(rows.kind_N), _bytes(rows.ids_NK), _bytes(rows.values_NK)]
        if dense is not None:
            parts.append(_bytes(dense))
        return b"".join(parts)

    @classmethod
    def from_bytes(cls, encoded: bytes) -> ThoughtRecord:
        """What `to_bytes` made.

        Raises:
            ValueError: If it is cut or followed by anything.
        """
        size = int.from_bytes(encoded[:4], "little")
        head = json.loads(encoded[4 : 4 + size])
        law = law_from_settings(head["law"], head["settings"])
        length, at = head["length"], 4 + size

        def take(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
            nonlocal at
            count = int(np.prod(shape)) * dtype.itemsize
            if at + count > len(encoded):
                raise ValueError(f"a record of thoughts is cut at byte {len(encoded)}")
            part = bytearray(encoded[at : at + count])
            at += count
            if not part:
                return torch.empty(shape, dtype=dtype)
            return torch.frombuffer(part, dtype=dtype).reshape(shape)

        kind_N = take((length,), torch.uint8)
        ids_NK = take((length, law.slots), torch.int32)
        values_NK = take((length, law.slots), torch.float32)
        dense_ND = None
        if head["dense"] is not None:
            width, dtype = head["dense"]
            dense_ND = take((length, width), _DTYPES[dtype])
        if at != len(encoded):
            raise ValueError(f"{len(encoded) - at} bytes follow a record of thoughts")
        rows = Rows(kind_N, ids_NK, values_NK, dense_ND)
        return cls(law, head["seed"], head["start"], rows)

    def to_tensor(self) -> torch.Tensor:
        """`to_bytes` as uint8 [bytes]: a training sample travels as tensors."""
        return torch.frombuffer(bytearray(self.to_bytes()), dtype=torch.uint8)

    @classmethod
    def from_tensor(cls, encoded: torch.Tensor) -> ThoughtRecord:
        """What `to_tensor` made.

        Raises:
            ValueError: If it is no whole record.
        """
        if encoded.dtype != torch.uint8 or encoded.ndim != 1:
            raise ValueError(
                f"a record of thoughts is uint8 [bytes], got {encoded.dtype} {list(encoded.shape)}"
            )
        return cls.from_bytes(encoded.detach().cpu().contiguous().numpy().tobytes())

    def summary(self) -> list[dict[str, Any]]:
        """For readers, a position each: kind, ids, and weights to four digits where it is a mix.

        What stands in `dense_ND` is not in it.
        """
        weights_NK = self.law.weights(self.rows).double()
        weights, rounded = weights_NK.tolist(), weights_NK.round(decimals=4).tolist()
        kinds, ids = self.rows.kind_N.tolist(), self.rows.ids_NK.tolist()
        made = []
        names = {int(kind): kind.name.lower() for kind in Kind}
        for kind, tokens, parts, shown in zip(kinds, ids, weights, rounded, strict=True):
            row: dict[str, Any] = {"kind": names[kind]}
            if kind == Kind.MIX and min(parts) > 0 and len(set(tokens)) == len(tokens):
                made.append(row | {"ids": tokens, "weights": shown})
            elif kind == Kind.MIX:
                merged: dict[int, float] = {}
                for token, weight in zip(tokens, parts, strict=True):
                    merged[token] = merged.get(token, 0.0) + weight
                kept = {token: round(weight, 4) for token, weight in merged.items() if weight > 0}
                made.append(row | {"ids": list(kept), "weights": list(kept.values())})
            else:
                made.append(row | {"ids": tokens[:1]})
        return made


def _bytes(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().view(torch.uint8).numpy().tobytes() if tensor.numel() else b""
