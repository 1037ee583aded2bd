"""Soft prompts on a CUDA GPU in plain PyTorch: law, placement, hook, and what the hook costs.

Checks that draws on the GPU equal draws on the CPU bit for bit; that prompts keep their tokens
round the placeholders; that a Hugging Face model with the hook on token ids gives the log-probs and
gradients of the same model with H in `inputs_embeds`, padded and packed, in fp32 and bf16. Then
times the model with the hook (draws included) against the model without, in turn.

    PYTHONPATH=. python scripts/bench/cuda_parity.py                  # random Qwen2.5-0.5B
    PYTHONPATH=. python scripts/bench/cuda_parity.py --model FOLDER   # a real one
    PYTHONPATH=. python scripts/bench/cuda_parity.py --device cpu     # tiny, to try the script

Needs Python 3.11 or later, torch built for CUDA, transformers 5, numpy and safetensors: no verl, no
vLLM, no flash attention, no network. A GPU of 24 GB is enough for the default model. Results also
go to `--output`, as JSON. Exit status 1 if a check fails.
"""

from __future__ import annotations

import argparse
import hashlib
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch
import transformers
from results import Results
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from rsp_rl.draws.embedding_stats import EmbeddingStats, embedding_stats
from rsp_rl.draws.laws import draw_soft_prompt
from rsp_rl.draws.record import SoftPromptRecord
from rsp_rl.draws.seeds import rollout_seed
from rsp_rl.injection.hook import SoftPromptInjector, draw_rows, flat_positions
from rsp_rl.placement.chat import place_in_chat
from rsp_rl.placement.prompt import POSITIONS, placeholder_id
from rsp_rl.tiny.tokenizer import build_tokenizer

SOFT_PROMPT_LENGTH = 20
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
LAYOUTS = ("padded", "packed")

#: sha256 of `draw_soft_prompt(42, 20, 896, 0.01, 0.02)`: frozen, as all draws are.
FROZEN_DRAW = "1fbed58083d901c74f19235c5d767aab7c3ddf99119e0c160016cfebc3e1e193"

#: Nats, hook against `inputs_embeds` in the same batch: the same kernels on the same numbers.
SAME_BATCH = {"fp32": 1e-5, "bf16": 1e-2}
#: Relative, of the parameter tensor that is worst; fp32.
GRADIENT = 1e-5


@dataclass(frozen=True)
class Size:
    """A random model and its batch.

    Attributes:
        hidden_size: d.
        layers: Blocks.
        heads: Attention heads.
        key_value_heads: Of them.
        feed_forward: Width.
        vocabulary: Rows of the table.
        batch: Sequences.
        addends: Of the sum that the shortest prompt asks for; about two tokens each.
        response: Tokens of a response.
        rounds: Timings of each kind.
    """

    hidden_size: int
    layers: int
    heads: int
    key_value_heads: int
    feed_forward: int
    vocabulary: int
    batch: int
    addends: int
    response: int
    rounds: int


SIZES = {
    # Qwen2.5-0.5B
    "cuda": Size(896, 24, 14, 2, 4864, 151936, batch=8, addends=250, response=256, rounds=20),
    "cpu": Size(64, 2, 4, 2, 128, 512, batch=3, addends=5, response=8, rounds=1),
}


@dataclass(frozen=True)
class Batch:
    """Sequences with their soft prompts.

    Attributes:
        rows: Token ids, placeholders included; one tensor a sequence.
        records: One a sequence.
    """

    rows: list[torch.Tensor]
    records: list[SoftPromptRecord]

    def inputs(self, layout: str) -> dict[str, torch.Tensor]:
        """Model inputs: right-padded, or packed into one row whose positions restart."""
        if layout == "packed":
            positions = torch.cat([torch.arange(len(row), device=row.device) for row in self.rows])
            return {"input_ids": torch.cat(self.rows)[None], "position_ids": positions[None]}
        ids = torch.nn.utils.rnn.pad_sequence(self.rows, batch_first=True)
        lengths = torch.tensor([len(row) for row in self.rows], device=ids.device)
        mask = torch.arange(ids.shape[1], device=ids.device) < lengths[:, None]
        return {"input_ids": ids, "attention_mask": mask.long()}

    def starts(self, layout: str) -> list[int]:
        """Flat index of each sequence's first token."""
        lengths = [len(row) for row in self.rows]
        if layout == "packed":
            return [sum(lengths[:n]) for n in range(len(lengths))]
        return [n * max(lengths) for n in range(len(lengths))]

    def log_probs(self, logits: torch.Tensor, layout: str) -> torch.Tensor:
        """Of each sequence's tokens but the first, one after the other, in fp32."""
        flat = logits.flatten(0, 1)
        parts = []
        for row, start in zip(self.rows, self.starts(layout), strict=True):
            mine = flat[start : start + len(row) - 1].float().log_softmax(-1)
            parts.append(mine.gather(1, row[1:, None])[:, 0])
        return torch.cat(parts)

    @contextmanager
    def injected(self, injector: SoftPromptInjector, layout: str, width: int) -> Iterator[None]:
        """With the hook at work; draws the soft prompts, as each micro-batch does."""
        positions = flat_positions(self.records, self.starts(layout))
        with injector.inject(positions, draw_rows(self.records, width)):
            yield

    def by_hand(self, model: PreTrainedModel, layout: str) -> dict[str, torch.Tensor]:
        """Model inputs with H in `inputs_embeds`, put there by concatenation."""
        inputs = self.inputs(layout)
        embedding = model.get_input_embeddings()
        parts = []
        for row, record in zip(self.rows, self.records, strict=True):
            end = record.start + record.length
            drawn = record.draw(embedding.weight.shape[1]).to(embedding.weight)
            parts.append(torch.cat([embedding(row[: record.start]), drawn, embedding(row[end:])]))
        ids = inputs.pop("input_ids")
        if layout == "packed":
            return {**inputs, "inputs_embeds": torch.cat(parts)[None]}
        padding = embedding(torch.zeros_like(ids[:1, 0]))
        padded = [torch.cat([p, padding.expand(ids.shape[1] - len(p), -1)]) for p in parts]
        return {**inputs, "inputs_embeds": torch.stack(padded)}


def main() -> None:
    """Check, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--model", type=Path, help="Hugging Face folder with a chat template")
    parser.add_argument("--batch", type=int, help="sequences of the timed batch")
    parser.add_argument("--rounds", type=int, help="timings of each kind")
    parser.add_argument("--output", type=Path, default=Path("cuda_parity.json"))
    args = parser.parse_args()
    if args.device == "cuda" and not torch.cuda.is_available():
        sys.exit(
            f"error: torch {torch.__version__} sees no CUDA GPU; run this where there is one, with "
            "a torch built for CUDA, or try the script on a small model with --device cpu"
        )
    torch.set_float32_matmul_precision("highest")  # no TF32
    device, size = torch.device(args.device), SIZES[args.device]
    rounds = args.rounds or size.rounds
    results = Results(
        args.output,
        device=torch.cuda.get_device_name() if args.device == "cuda" else platform.machine(),
        torch=torch.__version__,
        cuda=torch.version.cuda,
        transformers=transformers.__version__,
        python=platform.python_version(),
        model=str(args.model or size),
    )

    check_law(results, device)
    if args.model:
        tokenizer = AutoTokenizer.from_pretrained(args.model)
    else:
        tokenizer = build_tokenizer(model_max_length=4096)
    for name, dtype in DTYPES.items():
        model = load_model(args.model, size, dtype).to(device)
        stats = check_statistics(results, model, name)
        batch = make_batch(results, tokenizer, stats, size, device, args.batch or size.batch, name)
        for layout in LAYOUTS:
            check_hook(results, model, batch, layout, name)
            measure_cost(results, model, batch, layout, name, rounds)
        del model
    sys.exit(results.finish())


def check_law(results: Results, device: torch.device) -> None:
    """Draws are the frozen ones, the same on the device bit for bit, and have the law's moments."""
    drawn = draw_soft_prompt(42, 20, 896, 0.01, 0.02)
    digest = hashlib.sha256(drawn.numpy().tobytes()).hexdigest()
    results.check("draws are the frozen ones", digest == FROZEN_DRAW)

    record = SoftPromptRecord(rollout_seed(42, 3, 17, 5), 4, 20, 0.01, 0.02, "bfloat16", 0)
    travelled = SoftPromptRecord.from_tensor(record.to_tensor().to(device))
    results.check("a record comes back from the device as it went", travelled == record)
    embedding = torch.nn.Embedding(8, 896, device=device)
    injector = SoftPromptInjector(embedding)
    for name, dtype in DTYPES.items():
        embedding.to(dtype)
        with injector.inject(flat_positions([travelled], [0]), draw_rows([travelled], 896)):
            output = embedding(torch.zeros(1, 32, dtype=torch.int64, device=device))
        wanted = record.draw(896).to(dtype)
        same = torch.equal(output[0, 4:24].cpu(), wanted)
        results.check(f"rows on the device equal the CPU's draw bit for bit, {name}", same)

    many = draw_soft_prompt(7, 1024, 1024, 0.01, 0.02).double().to(device)
    errors = 0.02 / 1024, 0.02 / 1024 / 2**0.5  # standard errors of mean and deviation
    off = abs(many.mean() - 0.01) / errors[0], abs(many.std() - 0.02) / errors[1]
    off = [float(value) for value in off]
    results.check(
        "a million draws have the law's moments", max(off) < 4.5, standard_errors=max(off)
    )


def load_model(folder: Path | None, size: Size, dtype: torch.dtype) -> PreTrainedModel:
    """The model, with torch's attention; random ones attend to their inputs."""
    if folder:
        return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation="sdpa")
    config = Qwen2Config(
        vocab_size=size.vocabulary,
        hidden_size=size.hidden_size,
        intermediate_size=size.feed_forward,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        num_key_value_heads=size.key_value_heads,
        tie_word_embeddings=True,
        # transformers' 0.02 makes attention nearly blind to what it attends to.
        initializer_range=1.5 * size.hidden_size**-0.5,
        attn_implementation="sdpa",
    )
    torch.manual_seed(0)
    return Qwen2ForCausalLM(config).to(dtype)


def check_statistics(results: Results, model: PreTrainedModel, dtype: str) -> EmbeddingStats:
    """mu_E and sigma_E, streamed from a file, equal torch's on the device."""
    table = model.get_input_embeddings().weight.detach()
    with tempfile.TemporaryDirectory() as folder:
        tensors = {"model.embed_tokens.weight": table.cpu().contiguous()}
        safetensors.torch.save_file(tensors, f"{folder}/model.safetensors")
        stats = embedding_stats(folder)
    wanted = table.double().mean().item(), table.double().std(correction=0).item()
    off = max(abs(stats.mean - wanted[0]), abs(stats.std - wanted[1])) / wanted[1]
    results.check(f"mu_E and sigma_E equal torch's, {dtype}", off < 1e-9, relative_error=off)
    return stats


def make_batch(
    results: Results,
    tokenizer: PreTrainedTokenizerBase,
    stats: EmbeddingStats,
    size: Size,
    device: torch.device,
    sequences: int,
    dtype: str,
) -> Batch:
    """Sums in the chat template with a soft prompt each, and random responses.

    Checks on the way that each placement leaves the prompt's other tokens as they are.
    """
    placeholder, generator = placeholder_id(tokenizer), torch.Generator().manual_seed(0)
    rows, records, kept = [], [], True
    for number in range(sequences):
        position = POSITIONS[number % len(POSITIONS)]
        addends = size.addends + 10 * number
        question = f"Compute {'+'.join(str(1 + n % 9) for n in range(addends))}."
        messages = [{"role": "user", "content": question}]
        placed = place_in_chat(tokenizer, messages, SOFT_PROMPT_LENGTH, position)
        plain = place_in_chat(tokenizer, messages, 0, position)
        end = placed.start + SOFT_PROMPT_LENGTH
        span = placed.token_ids[placed.start : end]
        kept &= span == [placeholder] * SOFT_PROMPT_LENGTH
        if position != "infix":  # which brings its description along
            kept &= placed.token_ids[: placed.start] + placed.token_ids[end:] == plain.token_ids
        response = torch.randint(len(tokenizer), (size.response - number,), generator=generator)
        rows.append(torch.cat([torch.tensor(placed.token_ids), response]).to(device))
        records.append(
            SoftPromptRecord(
                seed=rollout_seed(42, 1, number, 0),
                start=placed.start,
                length=SOFT_PROMPT_LENGTH,
                mean=stats.mean,
                std=stats.std,
                dtype={"fp32": "float32", "bf16": "bfloat16"}[dtype],
                placeholder_id=placeholder,
            )
        )
    name = f"placement keeps the prompt's tokens, {dtype}"
    results.check(name, kept, shortest_sequence=min(map(len, rows)))
    return Batch(rows, records)


def check_hook(
    results: Results, model: PreTrainedModel, batch: Batch, layout: str, dtype: str
) -> None:
    """The hook on token ids equals H in `inputs_embeds`, in log-probs and gradients."""
    width = model.get_input_embeddings().weight.shape[1]
    injector = SoftPromptInjector(model.get_input_embeddings())

    def log_probs(inputs: dict[str, torch.Tensor], where: str = layout) -> torch.Tensor:
        return batch.log_probs(model(**inputs, use_cache=False).logits, where)

    with torch.no_grad():
        with batch.injected(injector, layout, width):
            hooked = log_probs(batch.inputs(layout))
        wanted = log_probs(batch.by_hand(model, layout))
        forgotten = log_probs(batch.inputs(layout))
    gap, missed = (hooked - wanted).abs().max(), (forgotten - wanted).abs().mean()
    results.check(
        f"log-probs equal those with inputs_embeds, {layout}, {dtype}",
        gap <= SAME_BATCH[dtype] < missed,
        largest_gap=gap.item(),
        mean_gap_if_forgotten=missed.item(),
    )
    if dtype == "fp32":
        gradients = []
        for how in ("hook", "inputs_embeds"):
            model.zero_grad()
            by_hand = how == "inputs_embeds"
            with nullcontext() if by_hand else batch.injected(injector, layout, width):
                inputs = batch.by_hand(model, layout) if by_hand else batch.inputs(layout)
                loss = -log_probs(inputs).mean()
            loss.backward()
            gradients.append([p.grad for p in model.parameters()])
        model.zero_grad()
        error = max(
            ((got - want).norm() / want.norm()).item() for got, want in zip(*gradients, strict=True)
        )
        name = f"gradients equal those with inputs_embeds, {layout}, {dtype}"
        results.check(name, error <= GRADIENT, relative_error=error)
    injector.remove()


def measure_cost(
    results: Results, model: PreTrainedModel, batch: Batch, layout: str, dtype: str, rounds: int
) -> None:
    """Median time and peak memory with the hook and without, in turn."""
    width = model.get_input_embeddings().weight.shape[1]
    injector, inputs = SoftPromptInjector(model.get_input_embeddings()), batch.inputs(layout)

    def forward(hook: bool) -> torch.Tensor:
        with batch.injected(injector, layout, width) if hook else nullcontext():
            return model(**inputs, use_cache=False).logits

    def inference(hook: bool) -> None:
        with torch.no_grad():
            forward(hook)

    def training(hook: bool) -> None:
        forward(hook).logsumexp(-1).mean().backward()
        model.zero_grad()

    for name, step in (("inference", inference), ("training", training)):
        for hook in (True, False):
            step(hook)  # warm-up
        taken: dict[bool, list[tuple[float, int]]] = {True: [], False: []}
        for number in range(rounds):
            for hook in (True, False) if number % 2 else (False, True):
                taken[hook].append(timed(step, hook))
        seconds = {hook: statistics.median(s for s, _ in taken[hook]) for hook in taken}
        peaks = {hook: max(peak for _, peak in taken[hook]) for hook in taken}
        results.figure(
            f"{name}, {layout}, {dtype}",
            tokens=sum(map(len, batch.rows)),
            ms_with_hook=1e3 * seconds[True],
            ms_without=1e3 * seconds[False],
            time_ratio=seconds[True] / seconds[False],
            peak_mib_with=peaks[True] / 2**20,
            peak_mib_without=peaks[False] / 2**20,
        )
    injector.remove()


def timed(step: Callable[[bool], None], hook: bool) -> tuple[float, int]:
    """Seconds of one step, the device's work included, and its peak bytes (0 on a CPU)."""
    on_gpu = torch.cuda.is_available()
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
        torch.cuda.synchronize()
    start = time.perf_counter()
    step(hook)
    if on_gpu:
        torch.cuda.synchronize()
    return time.perf_counter() - start, torch.cuda.max_memory_allocated() if on_gpu else 0


if __name__ == "__main__":
    main()
