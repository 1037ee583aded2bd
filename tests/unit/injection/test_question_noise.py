"""Rows that are added: the actor's hook, what vLLM is sent, and what its runner adds.

Both sides against one formula, written out here: the token's embedding in the rollout's dtype, plus
the row, rounded to that dtype.
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise
from threading import Barrier
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from vllm.v1.core.sched.output import NewRequestData
from vllm.v1.worker.gpu_model_runner import GPUModelRunner

from rsp_rl.basics.errors import ConfigError
from rsp_rl.draws.record import DTYPES, RECORD_SIZE, SoftPromptRecord, tokens_digest
from rsp_rl.injection import thinking_engine
from rsp_rl.injection.added_rows import AddedRows, Scheduled
from rsp_rl.injection.hook import (
    SoftPromptInjector,
    draw_rows,
    flat_positions,
    rank_slice,
    rounded_sum,
    sums_of,
)
from rsp_rl.injection.thinking_prompt import private_prompt
from rsp_rl.injection.thinking_runner_v1 import ThinkingRunnerV1
from rsp_rl.injection.vllm_prompt import WORKER, mixed_prompt, prompt_maker, record_prompt
from rsp_rl.injection.vllm_worker import (
    PlatformWorker,
    SoftPromptWorker,
    added_record,
    has_added_rows,
    has_key_alone,
    has_record,
)
from tests.properties import examples
from tests.tolerances import rounding
from tests.unit.injection.test_hook import (
    HIDDEN,
    LAYOUTS,
    PLACEHOLDER,
    make_batch,
    make_model,
    sequence_starts,
    unpacked,
)
from tests.unit.injection.test_vllm_prompt import BLOCK, sent, shared_blocks
from tests.unit.injection.test_vllm_prompt import record as placed_record

ALPHA = 40.0


def noise_record(tokens: list[int], start: int, length: int, **changes: object) -> SoftPromptRecord:
    values = {
        "seed": 11,
        "start": start,
        "length": length,
        "mean": 0.0,
        "std": ALPHA,
        "dtype": "float32",
        "placeholder_id": PLACEHOLDER,
        "law": "question_noise",
        "added_to": tokens_digest(tokens[start : start + length]),
    }
    return SoftPromptRecord(**{**values, **changes})


def noisy(embeds: torch.Tensor, records: list[SoftPromptRecord], starts: list[int]) -> torch.Tensor:
    """By hand, [T, d], of the embeddings' dtype."""
    made = embeds.clone()
    for record, first in zip(records, starts, strict=True):
        dtype = getattr(torch, record.dtype)
        for offset, row in enumerate(record.draw(embeds.shape[1])):
            at = first + record.start + offset
            if record.added_to:
                made[at] = (embeds[at].to(dtype) + row).to(embeds.dtype)
            else:
                made[at] = row
    return made


def batch(dtype: str = "float32") -> tuple[list[torch.Tensor], list[SoftPromptRecord]]:
    """Sequences with noise, with a soft prompt, and with neither."""
    rows, records = make_batch(dtype=dtype, elsewhere=False)
    for number in (0, 3):
        rows[number] = torch.arange(5, 5 + len(rows[number]))
        tokens = rows[number].tolist()
        records[number] = noise_record(
            tokens, records[number].start, records[number].length, seed=number, dtype=dtype
        )
    return rows, records


def hooked(embedding, rows, records, layout):
    injector = SoftPromptInjector(embedding)
    positions = flat_positions(records, sequence_starts(rows, layout))
    drawn = draw_rows(records, embedding.weight.shape[1])
    with injector.inject(positions, drawn, sums_of(records)):
        output = embedding(LAYOUTS[layout](rows)["input_ids"])
    injector.remove()
    return unpacked(output, rows, layout)


# The actor's hook.


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("own", [torch.float32, torch.bfloat16])
def test_the_hook_adds_in_the_rollouts_dtype(layout: str, dtype: str, own: torch.dtype) -> None:
    """Soft prompts and plain sequences of the same micro-batch stay what they are."""
    embedding = make_model(dtype=own).get_input_embeddings()
    rows, records = batch(dtype)
    starts = sequence_starts(rows, "packed")
    plain = embedding.weight.detach()[torch.cat(rows)]
    wanted = noisy(plain, records, starts)
    assert torch.equal(hooked(embedding, rows, records, layout), wanted)
    # The test would see a hook that does nothing, or one that overwrites.
    first = slice(records[0].start, records[0].start + records[0].length)
    assert not torch.equal(wanted[first], plain[first])
    assert not torch.equal(wanted[first], records[0].draw(HIDDEN).to(own))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_gradient_flows_to_the_table_as_without_noise(layout: str) -> None:
    """A noisy token's embedding gets all of it, a soft prompt's placeholder nothing."""
    embedding = make_model(dtype=torch.float32).get_input_embeddings()
    rows, records = batch("bfloat16")
    ids = torch.cat(rows)
    weights = torch.linspace(-1, 1, len(ids) * HIDDEN).reshape(len(ids), HIDDEN)
    (hooked(embedding, rows, records, layout) * weights).sum().backward()
    wanted = torch.zeros_like(embedding.weight)
    replaced = set(flat_positions([r if not r.added_to else replace(r, length=0) for r in records],
                                  sequence_starts(rows, "packed")).tolist())  # fmt: skip
    for at, token in enumerate(ids.tolist()):
        if at not in replaced:
            wanted[token] += weights[at]
    # A token's gradient is a sum over its places, at most as many as there are tokens.
    few = rounding(len(ids), size=len(ids))
    torch.testing.assert_close(embedding.weight.grad, wanted, rtol=0, atol=few)


def test_the_hook_is_the_models_input() -> None:
    """Logits of a whole model, against `inputs_embeds` that are made by hand."""
    model = make_model()
    rows, records = batch()
    injector = SoftPromptInjector(model.get_input_embeddings())
    for tokens, record in zip(rows, records, strict=True):
        embeds = model.get_input_embeddings()(tokens).detach()
        wanted = model(inputs_embeds=noisy(embeds, [record], [0])[None]).logits
        positions, drawn = flat_positions([record], [0]), draw_rows([record], HIDDEN)
        with injector.inject(positions, drawn, sums_of([record])):
            assert torch.equal(model(input_ids=tokens[None]).logits, wanted)


def test_an_embedding_that_is_a_leaf() -> None:
    """As peft's `enable_input_require_grads` makes it: nothing is written in place."""
    embedding = make_model(dtype=torch.float32).get_input_embeddings()
    embedding.weight.requires_grad_(False)
    embedding.register_forward_hook(lambda module, args, output: output.requires_grad_(True))
    rows, records = batch()
    made = hooked(embedding, rows, records, "packed")
    wanted = noisy(embedding.weight[torch.cat(rows)], records, sequence_starts(rows, "packed"))
    assert torch.equal(made, wanted)
    assert made.requires_grad


def test_noise_of_an_alpha_of_0_leaves_embeddings_as_they_are() -> None:
    embedding = make_model(dtype=torch.float32).get_input_embeddings()
    rows, records = batch()
    silent = [replace(r, std=0.0) if r.added_to else replace(r, length=0) for r in records]
    made = hooked(embedding, rows, silent, "packed")
    assert torch.equal(made, embedding.weight.detach()[torch.cat(rows)])


def test_sums_are_told_from_rows_that_replace() -> None:
    _, records = batch("bfloat16")
    codes = [DTYPES.index(r.dtype) if r.added_to else -1 for r in records for _ in range(r.length)]
    assert sums_of(records).tolist() == codes
    assert sums_of([record for record in records if not record.added_to]) is None
    assert sums_of([]) is None


@given(ranks=st.integers(1, 6))
@examples(6)
def test_a_rank_adds_to_its_own_slice(ranks: int) -> None:
    embedding = make_model(dtype=torch.float32).get_input_embeddings()
    rows, records = batch()
    ids = torch.cat(rows)
    width = -(-len(ids) // ranks)
    positions = flat_positions(records, sequence_starts(rows, "packed"))
    injector, parts = SoftPromptInjector(embedding), []
    for rank in range(ranks):
        mine = rank_slice(positions, draw_rows(records, HIDDEN), rank, width, sums_of(records))
        with injector.inject(*mine):
            parts.append(embedding(ids[rank * width : (rank + 1) * width]))
    injector.remove()
    assert torch.equal(torch.cat(parts), hooked(embedding, rows, records, "packed"))


# What vLLM is sent.

TOKENS = [100 + n % 50 for n in range(5 * BLOCK + 3)]


def sent_noise(**changes: object) -> NewRequestData:
    record = noise_record(TOKENS, 20, 2 * BLOCK, **changes)
    return NewRequestData.from_request(sent(record_prompt(TOKENS, record)), ([],))


@given(
    seed=st.integers(0, 2**64 - 1),
    start=st.integers(0, 60),
    length=st.integers(1, 20),
    dtype=st.sampled_from(DTYPES),
    key=st.none() | st.integers(1, 2**63 - 1),
)
@examples(60)
def test_the_worker_finds_the_record_among_tokens(seed, start, length, dtype, key) -> None:
    """Alone, and beside a thinking request's key."""
    record = noise_record(TOKENS, start, length, seed=seed, dtype=dtype)
    prompt = record_prompt(TOKENS, record) if key is None else private_prompt(TOKENS, record, key)
    assert prompt["prompt_token_ids"] == TOKENS
    assert all(prompt["prompt_is_token_ids"])
    new = NewRequestData.from_request(sent(prompt), ([],))
    assert (has_added_rows(new), has_record(new), has_key_alone(new)) == (True, False, False)
    assert added_record(new) == record


def test_other_requests_have_no_added_rows() -> None:
    placed = placed_record()
    tokens = [9] * placed.start + [placed.placeholder_id] * placed.length + [9]
    for prompt in (
        record_prompt(tokens, placed),
        private_prompt(TOKENS, None, 5),
        mixed_prompt(tokens, placed, HIDDEN),
        {"prompt_token_ids": TOKENS},
    ):
        assert not has_added_rows(NewRequestData.from_request(sent(prompt), ([],)))


def test_blocks_with_noise_are_the_draws_own() -> None:
    """What is before the question is shared, and what follows it never, though ids are the same."""
    first, again = (sent(record_prompt(TOKENS, noise_record(TOKENS, 20, 20))) for _ in range(2))
    assert shared_blocks(first, again) == len(TOKENS) // BLOCK
    plain = sent({"prompt_token_ids": TOKENS})
    assert shared_blocks(first, plain) <= 20 // BLOCK
    for changes in ({"seed": 12}, {"std": 1.0}, {"dtype": "bfloat16"}, {"length": 19}):
        changed = {"length": 20, **changes}
        other = noise_record(TOKENS, 20, **changed)
        assert shared_blocks(first, sent(record_prompt(TOKENS, other))) == 20 // BLOCK
    # Ids without the numbers beside them would share everything.
    bare = {**record_prompt(TOKENS, noise_record(TOKENS, 20, 20))}
    del bare["prompt_embeds"], bare["prompt_is_token_ids"]
    assert shared_blocks(sent(bare), plain) == len(TOKENS) // BLOCK


def test_truncated_and_strange_prompts_are_refused() -> None:
    record = noise_record(TOKENS, 20, 20)
    for tokens in (TOKENS[1:], TOKENS[:30]):
        with pytest.raises(ValueError, match=r"that noise is made for; was the prompt truncated"):
            record_prompt(tokens, record)
    new = sent_noise()
    new.prompt_token_ids = [*TOKENS[1:], 5]
    with pytest.raises(ValueError, match="to other tokens or none"):
        added_record(new)
    new = sent_noise()
    new.prompt_embeds = new.prompt_embeds.roll(1, 0)
    with pytest.raises(ValueError, match=r"has a record at token 21, which says .* at 20 to"):
        added_record(new)


def config(worker: str = WORKER, v2: bool = False) -> SimpleNamespace:
    return SimpleNamespace(
        parallel_config=SimpleNamespace(worker_cls=worker),
        model_config=SimpleNamespace(get_hidden_size=lambda: HIDDEN),
        use_v2_model_runner=v2,
    )


def test_engines_that_cannot_add_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    record = noise_record(TOKENS, 20, 20)
    made = prompt_maker(config())(TOKENS, record)
    assert made["prompt_embeds"].shape == (len(TOKENS), RECORD_SIZE)
    with pytest.raises(ConfigError, match=r"vLLM's own worker does not; start .*--worker-cls rsp"):
        prompt_maker(config("auto"))(TOKENS, record)
    monkeypatch.setattr(thinking_engine, "interface_fault", lambda v2: f"another: V{1 + v2}")
    for v2 in (False, True):
        with pytest.raises(ConfigError, match=f"another: V{1 + v2}"):
            prompt_maker(config(v2=v2))(TOKENS, record)
    # Soft prompts that stand at placeholders need none of it.
    placed = placed_record()
    tokens = [9] * placed.start + [placed.placeholder_id] * placed.length
    prompt_maker(config(v2=True))(tokens, placed)


# What its runner adds.

EMBEDDING = torch.nn.Embedding(200, HIDDEN).requires_grad_(False)


@pytest.mark.parametrize("dtype", DTYPES)
@given(cuts=st.lists(st.integers(1, len(TOKENS) - 1), max_size=4, unique=True), twice=st.booleans())
@examples(25)
def test_a_prompt_in_pieces_gets_what_the_hook_gives(
    dtype: str, cuts: list[int], twice: bool
) -> None:
    """Chunked prefill, and all of it again after a preemption; another request's rows stay."""
    record = noise_record(TOKENS, 20, 30, dtype=dtype)
    table = EMBEDDING.weight.to(getattr(torch, dtype))
    rows = AddedRows()
    assert not rows
    rows.arrive("a", record.start, record.draw(HIDDEN))
    rows.update([])
    assert rows
    wanted = noisy(table[torch.tensor(TOKENS)], [record], [0])
    for _ in range(1 + twice):
        edges = [0, *sorted(cuts), len(TOKENS)]
        made = []
        for first, end in pairwise(edges):
            others = table[:3].clone()
            inputs = torch.cat([others, table[torch.tensor(TOKENS[first:end])]])
            scheduled = [Scheduled("b", 0, 3, 0), Scheduled("a", first, end, 3 - first)]
            rows.add(inputs, scheduled)
            assert torch.equal(inputs[:3], others)
            made.append(inputs[3:])
        assert torch.equal(torch.cat(made), wanted)
    # The hook, with an actor of that dtype.
    embedding = torch.nn.Embedding.from_pretrained(table)
    assert torch.equal(hooked(embedding, [torch.tensor(TOKENS)], [record], "packed"), wanted)


def test_the_table_is_the_current_one() -> None:
    """After an update of weights the same request has another input: nothing is remembered."""
    record = noise_record(TOKENS, 20, 30)
    rows = AddedRows()
    rows.arrive("a", record.start, record.draw(HIDDEN))
    rows.update([])
    for scale in (1.0, 2.0):
        table = EMBEDDING.weight * scale
        inputs = table[torch.tensor(TOKENS)]
        wanted = noisy(inputs, [record], [0])
        rows.add(inputs, [Scheduled("a", 0, len(TOKENS), 0)])
        assert torch.equal(inputs, wanted)


def test_finished_requests_are_forgotten_and_their_names_may_come_again() -> None:
    rows = AddedRows()
    rows.arrive("a", 0, torch.ones(1, 2))
    rows.update([])
    rows.arrive("a", 0, torch.full((1, 2), 2.0))
    rows.update(["a", "stranger"])
    inputs = torch.zeros(1, 2)
    rows.add(inputs, [Scheduled("a", 0, 1, 0)])
    assert inputs.tolist() == [[2.0, 2.0]]
    rows.update(["a"])
    assert not rows


def test_the_runner_adds_after_vllm_has_embedded() -> None:
    """The buffer is vLLM's own, with tokens of other requests in it."""
    record = noise_record(TOKENS, 20, 30)
    made = object.__new__(ThinkingRunnerV1)
    made.added_rows, made.thoughts = AddedRows(), SimpleNamespace(requests={})
    made.inputs_embeds = SimpleNamespace(gpu=torch.full((200, HIDDEN), 7.0))
    first = 16  # of the question's prompt, the rest is in the cache
    ids = torch.tensor([1, 2, *TOKENS[first:]])

    def preprocess(self: ThinkingRunnerV1, output: object) -> str:
        self.inputs_embeds.gpu[: len(ids)] = EMBEDDING.weight[ids]
        return "made"

    made.input_batch = SimpleNamespace(
        num_reqs=2,
        req_ids=["plain", "noisy"],
        num_computed_tokens_cpu=torch.tensor([40, first]),
    )
    made.query_start_loc = SimpleNamespace(np=torch.tensor([0, 2, len(ids)]))
    output = SimpleNamespace(
        finished_req_ids=set(),
        scheduled_new_reqs=[],
        num_scheduled_tokens={"plain": 2, "noisy": len(TOKENS) - first},
    )
    worker = object.__new__(SoftPromptWorker)
    worker.model_runner, worker.vllm_config = made, config()
    worker.model_config = worker.vllm_config.model_config
    worker._pool = ThreadPoolExecutor(1)
    new = NewRequestData.from_request(sent(record_prompt(TOKENS, record)), ([],))
    new.req_id = "noisy"
    worker._draw([new])
    assert new.prompt_embeds is None
    assert new.prompt_is_token_ids is None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(GPUModelRunner, "_update_states", lambda self, output: None)
        patch.setattr(GPUModelRunner, "_preprocess", preprocess)
        made._update_states(output)
        assert made._preprocess(output) == "made"
    wanted = noisy(EMBEDDING.weight[torch.tensor(TOKENS)], [record], [0])
    inputs = made.inputs_embeds.gpu
    assert torch.equal(inputs[2 : len(ids)], wanted[first:])
    assert torch.equal(inputs[:2], EMBEDDING.weight[[1, 2]])
    assert (inputs[len(ids) :] == 7).all()


def test_a_worker_whose_runner_is_vllms_own_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thinking_engine, "interface_fault", lambda v2: f"another: V{1 + v2}")
    worker = object.__new__(SoftPromptWorker)
    worker.vllm_config = config(v2=True)
    with pytest.raises(ConfigError, match="another: V2"):
        worker._draw([sent_noise()])


def test_rows_of_both_kinds_are_drawn_in_parallel() -> None:
    """Two that are added and one that is not: each waits until the others are being drawn."""
    together, drawn = Barrier(3, timeout=20), SoftPromptRecord.draw

    def draw(record: SoftPromptRecord, hidden_size: int) -> torch.Tensor:
        together.wait()
        return drawn(record, hidden_size)

    placed = placed_record()
    tokens = [9] * placed.start + [placed.placeholder_id] * placed.length + [9]
    new = [
        NewRequestData.from_request(sent(record_prompt(*prompt)), ([],))
        for prompt in (
            (TOKENS, noise_record(TOKENS, 20, 30)),
            (tokens, placed),
            (TOKENS, noise_record(TOKENS, 20, 30, seed=5)),
        )
    ]
    for number, request in enumerate(new):
        request.req_id = str(number)
    rows = AddedRows()
    worker = object.__new__(SoftPromptWorker)
    worker.model_runner, worker.vllm_config = SimpleNamespace(added_rows=rows), config()
    worker.model_config = worker.vllm_config.model_config
    worker._pool = ThreadPoolExecutor(3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SoftPromptRecord, "draw", draw)
        patch.setattr(PlatformWorker, "execute_model", lambda self, output: "made")
        assert worker.execute_model(SimpleNamespace(scheduled_new_reqs=new)) == "made"
    rows.update([])
    assert [request.prompt_embeds is None for request in new] == [True, False, True]
    for name, seed in (("0", 11), ("2", 5)):
        record = noise_record(TOKENS, 20, 30, seed=seed)
        inputs = EMBEDDING.weight[torch.tensor(TOKENS)].detach()
        wanted = noisy(inputs, [record], [0])
        rows.add(inputs, [Scheduled(name, 0, len(TOKENS), 0)])
        assert torch.equal(inputs, wanted)


@pytest.mark.parametrize(
    ("std", "alpha", "unchanged", "added"),
    [(1.0, 1.0, 0.89, 0.52), (1.0, 5.0, 0.54, 0.94), (0.02, 1.0, 0.06, 1.0)],
)
def test_what_bfloat16_leaves_of_the_noise_is_as_the_documents_say(
    std: float, alpha: float, unchanged: float, added: float
) -> None:
    """Share of entries that stay, and the root mean square of what is added by the wanted one."""
    length, width = 500, 3584
    generator = torch.Generator().manual_seed(0)
    embeddings = (torch.randn(length, width, generator=generator) * std).bfloat16()
    rows = noise_record([5] * length, 0, length, std=alpha).draw(width)
    sums = rounded_sum(embeddings, rows, torch.bfloat16)
    assert (sums == embeddings).float().mean() == pytest.approx(unchanged, abs=0.01)
    size = (sums.float() - embeddings.float()).square().mean().sqrt()
    wanted = alpha / math.sqrt(3 * length * width)
    assert size / wanted == pytest.approx(added, abs=0.01)
