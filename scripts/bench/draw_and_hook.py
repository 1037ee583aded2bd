"""What the draw and the actor's hook cost: time beside their floors, and memory.

    python scripts/bench/draw_and_hook.py                  # one core
    python scripts/bench/draw_and_hook.py --device cuda

Times are those of one core, or of the GPU.

Draw: microseconds a rollout of each law; the floor is what its random numbers, or the copy of its
rows, take by themselves.

Hook: forward of a random Qwen2 with the hook, draws and positions included, against the bare
forward, padded and packed, in turn; and the same by itself: what the embedding takes longer with
the hook, over the bare forward. Memory: largest sum of live tensors in a forward and in the
embedding alone, with the hook and without, over the bytes of the rows (on a GPU, the allocator's
peak).
"""

from __future__ import annotations

import argparse
import os
import tempfile
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from paired import compare, core_seconds, seconds, write_report
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import Qwen2Config, Qwen2ForCausalLM

from rsp_rl.draws.embedding_table import FOLDER_VARIABLE, open_embedding_table
from rsp_rl.draws.laws import LAWS
from rsp_rl.draws.record import SoftPromptRecord
from rsp_rl.draws.seeds import rollout_seed
from rsp_rl.injection.hook import SoftPromptInjector, draw_rows, flat_positions

LENGTH = 20
#: The table that the law `vocab` draws from has this many rows of Qwen2.5's 152,064.
TABLE_ROWS = 8192
LAYOUTS = ("padded", "packed")

#: A Gaussian draw over its normals.
GOAL_DRAW = 1.25
#: Of the bare forward.
GOAL_SHARE = 0.005
#: Bytes of the hook's tensors over those of its rows: the rows, pinned, on the device, and cast.
GOAL_ROWS = 4.0


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--output", type=Path, default=Path("draw_and_hook.json"))
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--hidden-size", type=int, default=896)
    parser.add_argument("--tokens", type=int, default=512, help="of the longest sequence")
    parser.add_argument("--sequences", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1, help="of torch, on the CPU")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)

    draws = measure_draws(args.rounds)
    work = Work.make(args.hidden_size, args.layers, args.tokens, args.sequences, args.device)
    hooks = [measure_hook(work, layout, args.rounds) for layout in LAYOUTS]
    write_report(args.output, "draw_and_hook", {"draws": draws, "hooks": hooks})


# ---- the draw -----------------------------------------------------------------------------------


def measure_draws(rounds: int) -> list[dict[str, Any]]:
    """Each law at two widths, in microseconds a rollout."""
    results = []
    for hidden_size in (896, 3584):
        with tempfile.TemporaryDirectory() as folder:
            table = {"model.embed_tokens.weight": torch.randn(TABLE_ROWS, hidden_size).bfloat16()}
            safetensors.torch.save_file(table, f"{folder}/model.safetensors")
            os.environ[FOLDER_VARIABLE] = folder
            opened = open_embedding_table(folder)
            digest, rows = int(opened.digest(), 16), table["model.embed_tokens.weight"].view(-1)
            rows = rows.view(TABLE_ROWS, hidden_size)
            for name, law in LAWS.items():
                record = make_record(0, LENGTH, name, digest if law.from_table else 0)
                floor = gathered(rows) if law.from_table else normals(hidden_size)
                results.append(measure_draw(record, hidden_size, floor, rounds))
    return results


def measure_draw(
    record: SoftPromptRecord, hidden_size: int, floor: Callable[[], Any], rounds: int
) -> dict[str, Any]:
    """One law."""
    found = compare(
        lambda: 1e6 * core_seconds(floor, 20),
        {"draw": lambda: 1e6 * core_seconds(lambda: record.draw(hidden_size), 20)},
        3 * rounds,
    )["draw"]
    print(
        f"draw {record.law:<9} L {LENGTH} d {hidden_size:<5} {found.candidate:7.0f} us, floor "
        f"{found.baseline:6.0f} us, ratio {found.value:.2f} +- {found.noise:.2f}",
        flush=True,
    )
    return {"law": record.law, "length": LENGTH, "hidden_size": hidden_size, **found.to_dict()}


def normals(hidden_size: int) -> Callable[[], Any]:
    """The floor of a Gaussian draw: its normals, from a generator that is there already."""
    generator = np.random.Generator(np.random.Philox(key=1))
    out = np.empty((LENGTH, hidden_size))
    return lambda: generator.standard_normal(out=out)


def gathered(rows: torch.Tensor) -> Callable[[], Any]:
    """The floor of a draw from the table: the copy of L rows that lie in memory."""
    ids = torch.randint(len(rows), (LENGTH,))
    return lambda: rows[ids].float()


def make_record(number: int, start: int, law: str = "gaussian", table: int = 0) -> SoftPromptRecord:
    """A record like a training run's, in float32."""
    return SoftPromptRecord(
        seed=rollout_seed(0, 1, number, 0),
        start=start,
        length=LENGTH,
        mean=0.0,
        std=0.02,
        dtype="float32",
        placeholder_id=0,
        law=law,
        table=table,
    )


# ---- the hook -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Work:
    """A model and a batch.

    Attributes:
        model: Random Qwen2, in evaluation mode.
        rows: Token ids, one tensor a sequence.
        records: One a sequence, soft prompts at the end of a prompt of a quarter of its length.
        injector: On the model's embedding.
    """

    model: Qwen2ForCausalLM
    rows: list[torch.Tensor]
    records: list[SoftPromptRecord]
    injector: SoftPromptInjector

    @classmethod
    def make(
        cls, hidden_size: int, layers: int, tokens: int, sequences: int, device: str = "cpu"
    ) -> Work:
        """Of Qwen2.5-0.5B's proportions; each sequence is an eighth shorter than the one before.

        Args:
            hidden_size: d, a multiple of 64.
            layers: Blocks.
            tokens: Of the longest sequence.
            sequences: At most 8.
            device: Where the model is.
        """
        heads = hidden_size // 64
        config = Qwen2Config(
            vocab_size=4096,
            hidden_size=hidden_size,
            intermediate_size=4864 * hidden_size // 896,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=2 if heads % 2 == 0 else 1,
            attn_implementation="sdpa",
        )
        torch.manual_seed(0)
        model = Qwen2ForCausalLM(config).to(device).eval()
        lengths = [tokens - n * tokens // 8 for n in range(sequences)]
        rows = [torch.randint(4096, (length,), device=device) for length in lengths]
        records = [make_record(n, len(row) // 4) for n, row in enumerate(rows)]
        return cls(model, rows, records, SoftPromptInjector(model.get_input_embeddings()))

    @property
    def hidden_size(self) -> int:
        """d."""
        return self.model.config.hidden_size

    @property
    def row_bytes(self) -> int:
        """Of all soft prompt rows, in float32."""
        return 4 * self.hidden_size * sum(record.length for record in self.records)

    def inputs(self, layout: str) -> dict[str, torch.Tensor]:
        """Right-padded, or packed into one row whose positions restart."""
        device = self.rows[0].device
        if layout == "packed":
            positions = torch.cat([torch.arange(len(row), device=device) for row in self.rows])
            return {"input_ids": torch.cat(self.rows)[None], "position_ids": positions[None]}
        ids = torch.nn.utils.rnn.pad_sequence(self.rows, batch_first=True)
        lengths = torch.tensor([len(row) for row in self.rows], device=device)
        mask = torch.arange(ids.shape[1], device=device) < lengths[:, None]
        return {"input_ids": ids, "attention_mask": mask.long()}

    @contextmanager
    def injected(self, layout: str) -> Iterator[None]:
        """What the actor does for a micro-batch."""
        lengths = [len(row) for row in self.rows]
        packed = [sum(lengths[:n]) for n in range(len(lengths))]
        starts = packed if layout == "packed" else [n * max(lengths) for n in range(len(lengths))]
        positions = flat_positions(self.records, starts)
        with self.injector.inject(positions, draw_rows(self.records, self.hidden_size)):
            yield


@torch.no_grad()
def measure_hook(work: Work, layout: str, rounds: int) -> dict[str, Any]:
    """Time and memory of one layout."""
    inputs, embedding = work.inputs(layout), work.model.get_input_embeddings()

    def run(hook: bool, whole: bool) -> torch.Tensor:
        with work.injected(layout) if hook else nullcontext():
            if whole:
                return work.model(**inputs, use_cache=False).logits
            return embedding(inputs["input_ids"])

    def timed(hook: bool, whole: bool) -> Callable[[], float]:
        def once() -> None:
            run(hook, whole)
            if inputs["input_ids"].is_cuda:
                torch.cuda.synchronize()

        clock = seconds if inputs["input_ids"].is_cuda else core_seconds
        return lambda: clock(once, 1 if whole else 10)

    forward = compare(timed(False, True), {"hook": timed(True, True)}, rounds)["hook"]
    alone = compare(timed(False, False), {"hook": timed(True, False)}, 3 * rounds)["hook"]
    share = (alone.candidate - alone.baseline) / forward.baseline
    memory = {
        name: (peak_bytes(run, True, whole) - peak_bytes(run, False, whole)) / work.row_bytes
        for name, whole in (("forward", True), ("embedding", False))
    }
    tokens = sum(map(len, work.rows))
    print(
        f"hook {layout}, d {work.hidden_size}, {tokens} tokens: forward with / bare "
        f"{forward.value:.4f} +- {forward.noise:.4f}; hook by itself "
        f"{1e6 * (alone.candidate - alone.baseline):.0f} us = {share:.3%} of the forward (goal "
        f"{GOAL_SHARE:.1%}); extra memory over its rows' bytes: forward {memory['forward']:.2f}, "
        f"embedding {memory['embedding']:.2f} (goal {GOAL_ROWS:.0f})",
        flush=True,
    )
    return {
        "layout": layout,
        "hidden_size": work.hidden_size,
        "layers": work.model.config.num_hidden_layers,
        "tokens": tokens,
        "forward": forward.to_dict(),
        "hook_seconds": alone.candidate - alone.baseline,
        "share": share,
        "share_noise": alone.noise * alone.baseline / forward.baseline,
        "share_goal": GOAL_SHARE,
        "row_bytes": work.row_bytes,
        "extra_memory_over_rows": memory,
        "extra_memory_goal": GOAL_ROWS,
    }


def peak_bytes(run: Callable[..., torch.Tensor], *args: bool) -> int:
    """Largest sum of tensors that a run holds at a time, beside those that were there before."""
    if torch.cuda.is_available() and run(*args).is_cuda:
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run(*args)
        return torch.cuda.max_memory_allocated() - before
    with LiveBytes() as live:
        run(*args)
    return live.peak


class LiveBytes(TorchDispatchMode):
    """Adds up the storages that operators make, as long as they live.

    numpy's are not seen: a draw takes 12 bytes a number of one rollout for as long as it lasts.
    """

    def __init__(self) -> None:
        super().__init__()
        self.peak = self._now = 0
        self._seen: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        """See `TorchDispatchMode`."""
        inputs = {leaf.untyped_storage() for leaf in _tensors((args, kwargs))}
        output = func(*args, **(kwargs or {}))
        for tensor in _tensors(output):
            storage = tensor.untyped_storage()
            if storage not in self._seen and storage not in inputs:
                self._seen.add(storage)
                self._add(storage.nbytes())
                weakref.finalize(storage, self._add, -storage.nbytes())
        return output

    def _add(self, size: int) -> None:
        self._now += size
        self.peak = max(self.peak, self._now)


def _tensors(tree: Any) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


if __name__ == "__main__":
    main()
