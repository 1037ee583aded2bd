"""The embedding hook, on a small random Qwen2: what it writes, and what it leaves alone.

Models are in float64 where numbers are compared: the tolerances then leave no room for an error
that is merely small.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import Qwen2Config, Qwen2ForCausalLM

from parity.ranks import run_on_ranks
from rsp_rl.draws.record import SoftPromptRecord
from rsp_rl.injection.hook import SoftPromptInjector, draw_rows, flat_positions, rank_slice
from tests.properties import examples
from tests.tolerances import rounding

HIDDEN = 32
PLACEHOLDER = 3

#: Of float64 logits of up to 20, and of gradients of up to 100, through two layers' sums.
EXACT = {"rtol": 0, "atol": rounding(200, 20, torch.float64)}
SAME_GRADIENT = rounding(200, 100, torch.float64)

# (length, first soft prompt position, L): suffix, prefix, none, and one that ends the sequence.
SHAPES = ((9, 4, 3), (6, 0, 2), (11, 5, 0), (7, 5, 2), (1, 0, 1))


def make_model(tied: bool = False, dtype: torch.dtype = torch.float64) -> Qwen2ForCausalLM:
    config = Qwen2Config(
        vocab_size=48,
        hidden_size=HIDDEN,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=tied,
        attn_implementation="sdpa",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Qwen2ForCausalLM(config).to(dtype)
        with torch.no_grad():
            for parameter in model.parameters():
                # transformers' 0.02 makes attention nearly blind to what it attends to.
                parameter.normal_(std=0.2)
    return model.train()


def make_batch(
    shapes: Sequence[tuple[int, int, int]] = SHAPES,
    seed: int = 0,
    dtype: str = "float32",
    elsewhere: bool = True,
) -> tuple[list[torch.Tensor], list[SoftPromptRecord]]:
    """Token ids and records; with `elsewhere`, the placeholder occurs as an ordinary token too."""
    generator = torch.Generator().manual_seed(seed)
    rows, records = [], []
    for number, (length, start, soft) in enumerate(shapes):
        tokens = torch.randint(5, 48, (length,), generator=generator)
        tokens[start : start + soft] = PLACEHOLDER
        if elsewhere and start + soft < length:
            tokens[-1] = PLACEHOLDER
        rows.append(tokens)
        records.append(
            SoftPromptRecord(
                seed=100 * seed + number,
                start=start,
                length=soft,
                mean=0.01,
                std=0.3,
                dtype=dtype,
                placeholder_id=PLACEHOLDER,
            )
        )
    return rows, records


def padded(rows: list[torch.Tensor]) -> dict[str, torch.Tensor]:
    """Right-padded model inputs, as verl makes them without remove-padding."""
    nested = torch.nested.as_nested_tensor(rows, layout=torch.jagged)
    ids = torch.nested.to_padded_tensor(nested, 0)
    mask = torch.zeros_like(ids)
    for row, tokens in enumerate(rows):
        mask[row, : len(tokens)] = 1
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    return {"input_ids": ids, "attention_mask": mask, "position_ids": positions}


def packed(rows: list[torch.Tensor]) -> dict[str, torch.Tensor]:
    """One packed row, as verl makes it with remove-padding: positions restart, no mask."""
    positions = torch.cat([torch.arange(len(tokens)) for tokens in rows])
    return {
        "input_ids": torch.cat(rows)[None],
        "attention_mask": None,
        "position_ids": positions[None],
    }


def sequence_starts(rows: list[torch.Tensor], layout: str) -> list[int]:
    if layout == "padded":
        return [row * max(map(len, rows)) for row in range(len(rows))]
    return [sum(map(len, rows[:row])) for row in range(len(rows))]


LAYOUTS = {"padded": padded, "packed": packed}


@contextmanager
def injected(
    embedding: nn.Module,
    rows: list[torch.Tensor],
    records: list[SoftPromptRecord],
    layout: str,
) -> Iterator[None]:
    injector = SoftPromptInjector(embedding)
    positions = flat_positions(records, sequence_starts(rows, layout))
    try:
        with injector.inject(positions, draw_rows(records, HIDDEN)):
            yield
    finally:
        injector.remove()


def unpacked(logits: torch.Tensor, rows: list[torch.Tensor], layout: str) -> torch.Tensor:
    """The real tokens' logits, [sum of lengths, V], in the order of the sequences."""
    if layout == "packed":
        return logits[0]
    return torch.cat([logits[row, : len(tokens)] for row, tokens in enumerate(rows)])


def hooked_logits(
    model: nn.Module, rows: list[torch.Tensor], records: list[SoftPromptRecord], layout: str
) -> torch.Tensor:
    with injected(model.get_input_embeddings(), rows, records, layout):
        output = model(**LAYOUTS[layout](rows), use_cache=False)
    return unpacked(output.logits, rows, layout)


def embeds_by_hand(
    model: nn.Module, tokens: torch.Tensor, record: SoftPromptRecord
) -> torch.Tensor:
    """One sequence's input embeddings, H put between the real tokens' rows: no hook, no overwrite.

    The placeholders are never looked up, so that autograd cannot know of them.
    """
    embedding = model.get_input_embeddings()
    end = record.start + record.length
    parts = [embedding(tokens[: record.start]), record.draw(HIDDEN), embedding(tokens[end:])]
    return torch.cat([part.to(embedding.weight.dtype) for part in parts])[None]


def reference_logits(
    model: nn.Module, rows: list[torch.Tensor], records: list[SoftPromptRecord]
) -> torch.Tensor:
    """One sequence at a time, through `inputs_embeds`."""
    return torch.cat(
        [
            model(inputs_embeds=embeds_by_hand(model, tokens, record), use_cache=False).logits[0]
            for tokens, record in zip(rows, records, strict=True)
        ]
    )


def loss_of(logits: torch.Tensor) -> torch.Tensor:
    """Some scalar that depends on every logit, differently on each."""
    weights = torch.linspace(-1, 2, logits.numel(), dtype=logits.dtype).view_as(logits)
    return (logits.log_softmax(-1) * weights.sin()).sum()


def gradients(model: nn.Module, logits: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    loss_of(logits).backward()
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def assert_same_gradients(got: dict, wanted: dict) -> None:
    assert got.keys() == wanted.keys()
    for name, gradient in got.items():
        torch.testing.assert_close(
            gradient,
            wanted[name],
            rtol=0,
            atol=SAME_GRADIENT,
            msg=lambda m, n=name: f"{n}: {m}",
        )


# ---- what is written ----------------------------------------------------------------------------


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_overwrites_exactly_the_soft_prompt_rows(layout, dtype):
    rows, records = make_batch(dtype="bfloat16" if dtype == torch.bfloat16 else "float32")
    embedding = make_model(dtype=dtype).get_input_embeddings()
    ids = LAYOUTS[layout](rows)["input_ids"]
    plain = embedding(ids)
    with injected(embedding, rows, records, layout):
        hooked = embedding(ids)
    assert hooked.dtype == plain.dtype
    assert hooked.shape == plain.shape
    wanted = plain.detach().clone()
    for record, start in zip(records, sequence_starts(rows, layout), strict=True):
        for number in range(record.length):
            place = divmod(start + record.start + number, ids.shape[1])
            # Already rounded to the rollout's dtype, the rows survive the cast bit for bit.
            wanted[place] = record.draw(HIDDEN)[number].to(dtype)
    assert torch.equal(hooked, wanted)
    changed = (hooked != plain).any(-1).sum()
    assert changed == sum(record.length for record in records) > 0


def test_the_rollouts_rounding_comes_first():
    """A bf16 rollout's H is rounded to bf16 for an fp32 actor too: both sides see the same rows."""
    rows, records = make_batch(dtype="bfloat16")
    drawn = draw_rows(records, HIDDEN)
    assert drawn.dtype == torch.float32
    assert torch.equal(drawn, drawn.bfloat16().float())
    assert not torch.equal(drawn, draw_rows(make_batch(dtype="float32")[1], HIDDEN))
    embedding = make_model(dtype=torch.float32).get_input_embeddings()
    with injected(embedding, rows, records, "packed"):
        hooked = embedding(torch.cat(rows)[None])[0]
    assert torch.equal(hooked[flat_positions(records, sequence_starts(rows, "packed"))], drawn)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("tied", [False, True])
def test_equals_inputs_embeds(layout, tied):
    """And so both layouts equal each other."""
    model = make_model(tied)
    rows, records = make_batch()
    wanted = reference_logits(model, rows, records)
    torch.testing.assert_close(hooked_logits(model, rows, records, layout), wanted, **EXACT)
    without = unpacked(model(**LAYOUTS[layout](rows), use_cache=False).logits, rows, layout)
    assert (without - wanted).abs().max() > 0.1  # the test would see a hook that does nothing


@pytest.mark.parametrize("layout", LAYOUTS)
def test_is_nothing_without_soft_prompts(layout):
    model = make_model()
    rows, records = make_batch([(5, 0, 0), (8, 3, 0)])
    without = unpacked(model(**LAYOUTS[layout](rows), use_cache=False).logits, rows, layout)
    assert torch.equal(hooked_logits(model, rows, records, layout), without)


def test_a_batch_without_samples_has_no_rows():
    assert flat_positions([], []).shape == (0,)
    assert draw_rows([], HIDDEN).shape == (0, HIDDEN)


# ---- the life of the context --------------------------------------------------------------------


class FailingMicroBatchError(Exception):
    pass


def test_ends_with_its_context_even_after_an_exception():
    embedding = make_model().get_input_embeddings()
    injector = SoftPromptInjector(embedding)
    ids = torch.full((1, 4), PLACEHOLDER)
    plain = embedding(ids)
    positions, rows = torch.tensor([1, 2]), torch.ones(2, HIDDEN)

    with injector.inject(positions, rows):
        assert torch.equal(embedding(ids)[0, 1:3], rows.double())
    assert torch.equal(embedding(ids), plain)

    with pytest.raises(FailingMicroBatchError), injector.inject(positions, rows):
        raise FailingMicroBatchError
    assert torch.equal(embedding(ids), plain)

    injector.remove()
    with injector.inject(positions, rows):
        assert torch.equal(embedding(ids), plain)


def test_positions_and_rows_must_match():
    injector = SoftPromptInjector(nn.Embedding(4, 2))
    with (
        pytest.raises(ValueError, match="3 positions for 2 rows"),
        injector.inject(torch.arange(3), torch.zeros(2, 2)),
    ):
        pass


def test_a_position_beyond_the_batch_is_an_error():
    """Never a write into another sequence."""
    embedding = nn.Embedding(4, 2)
    injector = SoftPromptInjector(embedding)
    with (
        injector.inject(torch.tensor([2, 6]), torch.zeros(2, 2)),
        pytest.raises(IndexError, match="position 6 in a batch of 6 tokens"),
    ):
        embedding(torch.zeros(2, 3, dtype=torch.int64))


# ---- what it costs ------------------------------------------------------------------------------


class Operators(TorchDispatchMode):
    """Counts the operators that a computation calls, by name."""

    def __init__(self) -> None:
        super().__init__()
        self.called: Counter[str] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.called[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("copies", [1, 4])
def test_waits_for_no_device_and_copies_to_it_twice(layout, copies):
    """A tensor on the meta device has no values: to read one, which is to wait, is an error."""
    rows, records = make_batch(SHAPES * copies)
    embedding = nn.Embedding(48, HIDDEN, device="meta")
    ids = LAYOUTS[layout](rows)["input_ids"].to("meta")
    with injected(embedding, rows, records, layout), Operators() as operators:
        output = embedding(ids)
    assert output.is_meta
    # Positions and rows, however many sequences there are.
    assert operators.called["_to_copy"] == 2
    # In place: no second tensor of the output's size.
    assert operators.called["index_put_"] == 1
    assert operators.called["index_put"] == 0


def test_a_leaf_that_wants_a_gradient_is_left_as_it_is():
    """peft makes the embedding's output one, when the embedding itself is frozen."""
    embedding = nn.Embedding(4, HIDDEN).requires_grad_(False)
    leaves = []
    embedding.register_forward_hook(lambda *call: leaves.append(call[2].requires_grad_(True)))
    injector = SoftPromptInjector(embedding)
    with injector.inject(torch.tensor([1]), torch.ones(1, HIDDEN)):
        output = embedding(torch.zeros(1, 3, dtype=torch.int64))
    assert torch.equal(output[0, 1], torch.ones(HIDDEN))
    assert torch.equal(leaves[0][0, 1], embedding.weight[0])
    output.sum().backward()
    assert torch.equal(leaves[0].grad[0, :, 0], torch.tensor([1.0, 0.0, 1.0]))


# ---- gradients ----------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("elsewhere", [False, True])
def test_no_gradient_reaches_the_table_through_soft_prompts(layout, tied, elsewhere):
    """The reference never looks a placeholder up at a soft prompt position."""
    model = make_model(tied)
    rows, records = make_batch(elsewhere=elsewhere)
    wanted = gradients(model, reference_logits(model, rows, records))
    got = gradients(model, hooked_logits(model, rows, records, layout))
    assert_same_gradients(got, wanted)
    row = got["model.embed_tokens.weight"][PLACEHOLDER]
    if not tied and not elsewhere:
        assert not row.any()  # exactly zero
    else:
        assert row.any()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_tied_tables_get_the_placeholders_gradient_from_the_output_layer_only(layout):
    model = make_model(tied=True)
    rows, records = make_batch(elsewhere=False)
    got = gradients(model, hooked_logits(model, rows, records, layout))
    with injected(model.get_input_embeddings(), rows, records, layout):
        hidden = model.model(**LAYOUTS[layout](rows), use_cache=False).last_hidden_state
    table = model.lm_head.weight
    logits = unpacked(hidden.detach() @ table.T, rows, layout)
    (from_output_layer,) = torch.autograd.grad(loss_of(logits), table)
    torch.testing.assert_close(
        got["model.embed_tokens.weight"][PLACEHOLDER], from_output_layer[PLACEHOLDER], **EXACT
    )


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("tied", [False, True])
def test_gradient_checkpointing_changes_nothing(layout, tied):
    """Activations are recomputed in backward, which runs when the context is long closed."""
    model = make_model(tied)
    rows, records = make_batch()
    wanted = gradients(model, hooked_logits(model, rows, records, layout))
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    assert model.is_gradient_checkpointing
    assert_same_gradients(gradients(model, hooked_logits(model, rows, records, layout)), wanted)


# ---- LoRA ---------------------------------------------------------------------------------------


def with_lora(model: nn.Module, targets: str | list[str]) -> nn.Module:
    """As verl does it, with adapters that already do something."""
    from peft import LoraConfig, TaskType, get_peft_model

    model.enable_input_require_grads()
    config = LoraConfig(task_type=TaskType.CAUSAL_LM, r=4, lora_alpha=8, target_modules=targets)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = get_peft_model(model, config)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.data = parameter.double().normal_(std=0.2)
    return model


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    "targets", ["all-linear", ["q_proj", "v_proj"], ["embed_tokens", "q_proj"]], ids=str
)
@pytest.mark.parametrize("checkpointing", [False, True])
def test_lora(layout, targets, checkpointing):
    model = with_lora(make_model(), targets)
    rows, records = make_batch()
    wanted_logits = reference_logits(model, rows, records)
    wanted = gradients(model, wanted_logits)
    assert all("lora_" in name for name in wanted)
    if checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    logits = hooked_logits(model, rows, records, layout)
    torch.testing.assert_close(logits, wanted_logits, **EXACT)
    assert_same_gradients(gradients(model, logits), wanted)


# ---- sharded models -----------------------------------------------------------------------------


def shard(model: nn.Module, how: str) -> nn.Module:
    """FSDP as verl wraps: layers, an untied embedding by itself, then the whole."""
    from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
    from torch.distributed.fsdp.wrap import ModuleWrapPolicy
    from transformers.models.qwen2.modeling_qwen2 import Qwen2DecoderLayer

    tied = model.config.tie_word_embeddings
    kinds = {Qwen2DecoderLayer} if tied else {Qwen2DecoderLayer, nn.Embedding}
    if how == "fsdp1":
        return FullyShardedDataParallel(
            model,
            auto_wrap_policy=ModuleWrapPolicy(kinds),
            device_id=torch.device("cpu"),
            use_orig_params=True,
        )
    for module in list(model.modules()):
        if isinstance(module, tuple(kinds)):
            fully_shard(module)
    return fully_shard(model)


def sharded_gradients(rank: int, how: str, tied: bool, layout: str, checkpointing: bool) -> dict:
    """This rank's logits and the whole, averaged gradient; each rank has a batch of its own."""
    from torch.distributed.fsdp import FullyShardedDataParallel

    model = make_model(tied)
    if checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    rows, records = make_batch(seed=rank)
    # The hook goes on before the model is sharded, as in the engine.
    injector = SoftPromptInjector(model.get_input_embeddings())
    model = shard(model, how)
    positions = flat_positions(records, sequence_starts(rows, layout))
    with injector.inject(positions, draw_rows(records, HIDDEN)):
        logits = model(**LAYOUTS[layout](rows), use_cache=False).logits
    logits = unpacked(logits, rows, layout)
    loss_of(logits).backward()
    if how == "fsdp1":
        with FullyShardedDataParallel.summon_full_params(model, with_grads=True):
            named = {n: p.grad.clone() for n, p in model.module.named_parameters()}
        named = {name.replace("_fsdp_wrapped_module.", ""): g for name, g in named.items()}
    else:
        named = {name: p.grad.full_tensor() for name, p in model.named_parameters()}
    return {
        "logits": logits.detach().numpy(),
        "gradients": {name: gradient.numpy() for name, gradient in named.items()},
    }


@pytest.mark.parametrize(
    ("how", "tied", "layout", "checkpointing"),
    [
        ("fsdp2", False, "packed", False),
        ("fsdp2", False, "padded", True),
        ("fsdp2", True, "packed", True),
        ("fsdp2", True, "padded", False),
        ("fsdp1", False, "packed", True),
        ("fsdp1", True, "padded", False),
    ],
)
def test_sharding_changes_nothing(how, tied, layout, checkpointing):
    """Two ranks with different soft prompts against the same model on one process."""
    results = run_on_ranks(sharded_gradients, 2, how, tied, layout, checkpointing)
    model = make_model(tied)
    total: dict[str, torch.Tensor] = {}
    for rank, result in enumerate(results):
        rows, records = make_batch(seed=rank)
        logits = reference_logits(model, rows, records)
        torch.testing.assert_close(torch.from_numpy(result["logits"]), logits, **EXACT)
        for name, gradient in gradients(model, logits).items():
            total[name] = total.get(name, 0) + gradient
    mean = {name: gradient / len(results) for name, gradient in total.items()}
    for result in results:
        got = {name: torch.from_numpy(gradient) for name, gradient in result["gradients"].items()}
        assert_same_gradients(got, mean)


# ---- positions, and Ulysses' slices -------------------------------------------------------------

SEQUENCES = st.lists(
    st.integers(1, 12).flatmap(
        lambda length: st.integers(0, length).flatmap(
            lambda start: st.tuples(st.just(length), st.just(start), st.integers(0, length - start))
        )
    ),
    max_size=6,
)


@given(shapes=SEQUENCES, layout=st.sampled_from(sorted(LAYOUTS)))
@examples(200)
def test_positions_are_where_the_placeholders_are(shapes, layout):
    rows, records = make_batch(shapes, elsewhere=False)
    positions = flat_positions(records, sequence_starts(rows, layout))
    ids = LAYOUTS[layout](rows)["input_ids"].flatten() if rows else torch.empty(0)
    assert positions.tolist() == (ids == PLACEHOLDER).nonzero()[:, 0].tolist()


@given(shapes=SEQUENCES, ranks=st.integers(1, 8), static_padding=st.integers(0, 5))
@examples(300)
def test_the_ranks_slices_are_the_whole(shapes, ranks, static_padding):
    """Moved back, they are all rows in their order: none lost, none twice, none on padding."""
    rows, records = make_batch(shapes, elsewhere=False)
    positions = flat_positions(records, sequence_starts(rows, "packed"))
    drawn = torch.arange(len(positions))[:, None]  # each row says which it is
    width = -(-(sum(map(len, rows)) + static_padding) // ranks)
    slices = [rank_slice(positions, drawn, rank, width) for rank in range(ranks)]
    for mine, numbers, _ in slices:
        assert len(mine) == len(numbers)
        assert ((mine >= 0) & (mine < width)).all()
    back = torch.cat([mine + rank * width for rank, (mine, *_) in enumerate(slices)])
    assert torch.equal(back, positions)
    assert torch.equal(torch.cat([numbers for _, numbers, _ in slices]), drawn)


def sliced_embeddings(rank: int, shapes: Sequence[tuple[int, int, int]]) -> torch.Tensor:
    """All ranks' embedding outputs, each computed on its slice as verl cuts it, put together."""
    from verl.utils.ulysses import (
        gather_outputs_and_unpad,
        set_ulysses_sequence_parallel_group,
        ulysses_pad_and_slice_inputs,
    )

    ranks = torch.distributed.get_world_size()
    set_ulysses_sequence_parallel_group(torch.distributed.group.WORLD)
    rows, records = make_batch(shapes)
    embedding = make_model().get_input_embeddings()
    inputs = packed(rows)
    ids, _, padding = ulysses_pad_and_slice_inputs(
        inputs["input_ids"], inputs["position_ids"], sp_size=ranks
    )
    positions = flat_positions(records, sequence_starts(rows, "packed"))
    mine = rank_slice(positions, draw_rows(records, HIDDEN), rank, ids.shape[1])
    injector = SoftPromptInjector(embedding)
    with injector.inject(*mine):
        output = embedding(ids)[0]
    whole = gather_outputs_and_unpad(output, gather_dim=0, unpad_dim=0, padding_size=padding)
    return whole.detach().numpy()


@pytest.mark.parametrize(
    "shapes",
    [
        SHAPES,  # 34 tokens
        ((9, 6, 3), (6, 1, 3)),  # 15 tokens, padded; the cut goes through the first soft prompt
        ((9, 3, 6),),  # the cut goes through the only one
        ((5, 0, 2), (7, 2, 0)),  # the second rank has none
    ],
)
def test_two_ranks_slices_equal_the_unsliced_batch(shapes):
    rows, records = make_batch(shapes)
    embedding = make_model().get_input_embeddings()
    with injected(embedding, rows, records, "packed"):
        whole = embedding(torch.cat(rows)[None])[0]
    for gathered in run_on_ranks(sliced_embeddings, 2, shapes):
        assert torch.equal(torch.from_numpy(gathered), whole)
