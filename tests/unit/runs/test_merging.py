"""Shards as a model: every weight exact, a LoRA adapter merged into it as training applied it."""

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Replicate, Shard
from transformers import (
    AutoModelForCausalLM,
    GenerationConfig,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from rsp_rl.basics.errors import RunFolderError
from rsp_rl.runs.checkpoints import merge_checkpoint
from rsp_rl.runs.merging import MERGED_FILE, merge_shards
from tests.tolerances import rounding

SIZES = {"vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4}
RANK, ALPHA = 4, 10


def qwen(tied: bool = False) -> PreTrainedModel:
    return Qwen2ForCausalLM(
        Qwen2Config(**SIZES, intermediate_size=24, num_key_value_heads=2, tie_word_embeddings=tied)
    )


def llama() -> PreTrainedModel:
    return LlamaForCausalLM(LlamaConfig(**SIZES, intermediate_size=24))


def gpt2() -> PreTrainedModel:
    """Its layers are stored the other way round, some of them square; embeddings are tied."""
    return GPT2LMHeadModel(GPT2Config(vocab_size=40, n_embd=16, n_layer=2, n_head=4))


def with_adapter(model: PreTrainedModel, **settings: object) -> nn.Module:
    """The model as peft wraps it for verl, its adapter as if it had been trained."""
    from peft import LoraConfig, get_peft_model

    settings = {"r": RANK, "lora_alpha": ALPHA, "target_modules": "all-linear"} | settings
    wrapped = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **settings)).eval()
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if "lora_" in name:
                parameter.copy_(torch.randn_like(parameter) / 4)
    return wrapped


def save(model: nn.Module, folder: Path, **changes: torch.Tensor | None) -> Path:
    """A checkpoint of one rank, as verl lays it out."""
    actor = folder / "actor"
    (actor / "huggingface").mkdir(parents=True)
    state = {name: value.detach().clone() for name, value in model.state_dict().items()}
    for name, value in changes.items():
        state.pop(name, None)
        if value is not None:
            state[name] = value
    torch.save(state, actor / "model_world_size_1_rank_0.pt")
    config = model.config
    config.architectures = [type(getattr(model, "get_base_model", lambda: model)()).__name__]
    config.save_pretrained(actor / "huggingface")
    (actor / "huggingface" / "tokenizer_config.json").write_text('{"trained": "with"}')
    if hasattr(model, "peft_config"):
        adapter = model.peft_config["default"]
        note = {"r": adapter.r, "lora_alpha": int(adapter.lora_alpha), "task_type": "CAUSAL_LM"}
        (actor / "lora_train_meta.json").write_text(json.dumps(note))
    return actor


def logits(model: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(input_ids=torch.arange(12)[None]).logits


def note(folder: Path) -> dict:
    return json.loads((folder / MERGED_FILE).read_text())


@pytest.mark.parametrize("make", [qwen, lambda: qwen(tied=True), llama, gpt2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_without_an_adapter_every_weight_stays(
    make: Callable[[], PreTrainedModel], dtype: torch.dtype, tmp_path: Path
) -> None:
    model = make().to(dtype)
    merge_shards(save(model, tmp_path), tmp_path / "merged")
    loaded, info = AutoModelForCausalLM.from_pretrained(
        tmp_path / "merged", output_loading_info=True
    )
    assert not any(info.values())
    assert loaded.dtype == dtype
    for name, weight in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], weight), name
    name = str(dtype).removeprefix("torch.")
    made = note(tmp_path / "merged")
    assert made.pop("shards")
    assert made == {"dtype": name, "adapter": None, "untied": False}


@pytest.mark.parametrize(
    ("make", "settings", "untied"),
    [
        (qwen, {}, False),
        (lambda: qwen(tied=True), {}, False),
        (llama, {"r": 2, "lora_alpha": 32}, False),
        (gpt2, {}, False),
        (qwen, {"target_modules": ["q_proj", "embed_tokens", "lm_head"]}, False),
        # Training had them apart: the input's adapter does not reach the output.
        (lambda: qwen(tied=True), {"target_modules": ["q_proj", "embed_tokens"]}, True),
        (lambda: qwen(tied=True), {"target_modules": ["v_proj", "lm_head"]}, True),
    ],
    ids=["untied", "tied", "llama", "conv1d", "embeddings", "tied-input", "tied-output"],
)
def test_an_adapter_is_merged_as_training_applied_it(
    make: Callable[[], PreTrainedModel], settings: dict, untied: bool, tmp_path: Path
) -> None:
    base = make()
    model = with_adapter(base, **settings)
    merge_shards(save(model, tmp_path), tmp_path / "merged")
    loaded, info = AutoModelForCausalLM.from_pretrained(
        tmp_path / "merged", output_loading_info=True
    )
    assert not any(info.values())
    wanted = logits(model)
    with model.disable_adapter():
        assert (logits(model) - wanted).abs().max() > 0.1
    torch.testing.assert_close(logits(loaded), wanted, atol=rounding(100) * 4, rtol=0)
    found = note(tmp_path / "merged")
    assert (found["dtype"], found["untied"]) == ("float32", untied)
    assert found["adapter"]["layers"] == sum(
        "lora_B" in name or "lora_embedding_B" in name for name in model.state_dict()
    )


def test_the_merged_weight_is_base_plus_alpha_over_r_b_a(tmp_path: Path) -> None:
    """A bfloat16 base too: the sum is not rounded back to it."""
    for dtype in (torch.float32, torch.bfloat16):
        model = with_adapter(qwen().to(dtype)).to(dtype)
        merge_shards(save(model, tmp_path / str(dtype)), tmp_path / str(dtype) / "merged")
        state = {name: value.double() for name, value in model.state_dict().items()}
        layer = "model.layers.1.mlp.down_proj"
        inside = f"base_model.model.{layer}"
        a, b = (state[f"{inside}.lora_{factor}.default.weight"] for factor in "AB")
        wanted = state[f"{inside}.base_layer.weight"] + ALPHA / RANK * b @ a
        merged = load_file(tmp_path / str(dtype) / "merged" / "model.safetensors")
        assert {weight.dtype for weight in merged.values()} == {torch.float32}
        found = merged[f"{layer}.weight"].double()
        assert (found - wanted).abs().max() <= rounding(RANK + 2)
        norm = "model.norm.weight"
        assert torch.equal(merged[norm].double(), state[f"base_model.model.{norm}"])


@pytest.fixture
def as_rank() -> Iterator[Callable[[int, int], None]]:
    """Makes this process one rank of many, none of which ever answers."""
    from torch.testing._internal.distributed.fake_pg import FakeStore

    def become(rank: int, ranks: int) -> None:
        if dist.is_initialized():
            dist.destroy_process_group()
        dist.init_process_group("fake", rank=rank, world_size=ranks, store=FakeStore())

    yield become
    if dist.is_initialized():
        dist.destroy_process_group()


@pytest.mark.parametrize(
    ("mesh_shape", "names"), [((2,), ("fsdp",)), ((3,), ("fsdp",)), ((2, 2), ("ddp", "fsdp"))]
)
def test_the_shards_of_many_ranks_make_the_same_model(
    mesh_shape: tuple[int, ...], names: tuple[str, ...], as_rank, tmp_path: Path
) -> None:
    """Uneven shards and replicas of hybrid sharding too; what is not sharded is on every rank."""
    model = with_adapter(qwen())
    actor = save(model, tmp_path)
    merge_shards(actor, tmp_path / "one")
    (actor / "model_world_size_1_rank_0.pt").unlink()
    ranks = math.prod(mesh_shape)
    for rank in range(ranks):
        as_rank(rank, ranks)
        mesh = init_device_mesh("cpu", mesh_shape, mesh_dim_names=names)
        replicas = [Replicate()] * (len(mesh_shape) - 1)
        state = {}
        for name, value in model.state_dict().items():
            chunks = list(value.detach().chunk(mesh_shape[-1]))
            chunks += [value[:0]] * (mesh_shape[-1] - len(chunks))
            local = chunks[rank % mesh_shape[-1]].clone()
            placed = [*replicas, Shard(0)]
            stride = value.stride()
            state[name] = DTensor.from_local(
                local, mesh, placed, run_check=False, shape=value.shape, stride=stride
            )
        plain = "base_model.model.model.norm.weight"
        state[plain] = model.state_dict()[plain].detach().clone()
        torch.save(state, actor / f"model_world_size_{ranks}_rank_{rank}.pt")
    dist.destroy_process_group()
    merge_shards(actor, tmp_path / "many")
    one, many = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "many"))
    assert one.keys() == many.keys()
    assert all(torch.equal(one[name], many[name]) for name in one)
    last = actor / f"model_world_size_{ranks}_rank_{mesh_shape[-1] - 1}.pt"
    spoilt = torch.load(last, weights_only=False)
    spoilt[plain] += 1
    torch.save(spoilt, last)
    with pytest.raises(RunFolderError, match=r"norm\.weight is not sharded, yet differs"):
        merge_shards(actor, tmp_path / "again")
    last.unlink()
    with pytest.raises(RunFolderError, match=r"\.pt is missing"):
        merge_shards(actor, tmp_path / "again")


def test_shards_of_tensor_parallel_ranks_are_refused(as_rank, tmp_path: Path) -> None:
    actor = save(qwen(), tmp_path)
    (actor / "model_world_size_1_rank_0.pt").unlink()
    for rank in range(4):
        as_rank(rank, 4)
        mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("fsdp", "tp"))
        state = {"w": DTensor.from_local(torch.ones(2, 2), mesh, [Shard(0), Shard(1)])}
        torch.save(state, actor / f"model_world_size_4_rank_{rank}.pt")
    with pytest.raises(RunFolderError, match="w is split twice"):
        merge_shards(actor, tmp_path / "merged")


def test_what_rounding_would_take_of_a_small_adapter_is_said(tmp_path: Path) -> None:
    model = with_adapter(qwen())
    losses = []
    for size in (1.0, 1e-3):
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "lora_B" in name:
                    parameter *= size
                elif "lora_" not in name:  # a pretrained model's are bfloat16
                    parameter.copy_(parameter.bfloat16())
        merge_shards(save(model, tmp_path / str(size)), tmp_path / str(size) / "merged")
        losses.append(note(tmp_path / str(size) / "merged")["adapter"]["bfloat16_loss"])
    assert losses[0] < 0.01 < 0.02 < losses[1]


def test_everything_beside_the_weights_is_as_trained_with(tmp_path: Path) -> None:
    actor = save(qwen(), tmp_path)
    GenerationConfig(eos_token_id=[3, 4]).save_pretrained(actor / "huggingface")
    (actor / "huggingface" / "chat_template.jinja").write_text("{{ messages }}")
    merge_shards(actor, tmp_path / "merged")
    assert (tmp_path / "merged" / "tokenizer_config.json").read_text() == '{"trained": "with"}'
    assert (tmp_path / "merged" / "chat_template.jinja").read_text() == "{{ messages }}"
    assert GenerationConfig.from_pretrained(tmp_path / "merged").eos_token_id == [3, 4]


def test_a_model_without_a_generation_config_gets_none(tmp_path: Path) -> None:
    merge_shards(save(qwen(), tmp_path), tmp_path / "merged")
    assert not (tmp_path / "merged" / "generation_config.json").exists()


def edit(file: str, **changes: object) -> Callable[[Path], None]:
    def apply(actor: Path) -> None:
        content = json.loads((actor / file).read_text()) | changes
        (actor / file).write_text(json.dumps(content))

    return apply


META = "lora_train_meta.json"


@pytest.mark.parametrize(
    ("settings", "spoil", "message"),
    [
        ({}, lambda actor: (actor / META).unlink(), "without its lora_train_meta.json"),
        ({}, edit(META, lora_alpha=0), "lora_alpha=0 must be"),
        ({}, edit(META, r=2), "only matrices of rank 2"),
        ({"rank_pattern": {"q_proj": 2}}, lambda actor: None, "only matrices of rank 4"),
        ({"use_dora": True}, lambda actor: None, "lora_magnitude_vector.*only plain LoRA"),
        ({"lora_bias": True}, lambda actor: None, "lora_B.default.bias.*only plain LoRA"),
        ({"modules_to_save": ["lm_head"]}, lambda actor: None, "modules_to_save.*only plain LoRA"),
    ],
    ids=["no-note", "alpha", "rank", "pattern", "dora", "bias", "whole-modules"],
)
def test_an_adapter_that_cannot_be_merged_is_refused(
    settings: dict, spoil: Callable[[Path], None], message: str, tmp_path: Path
) -> None:
    actor = save(with_adapter(qwen(), **settings), tmp_path)
    spoil(actor)
    with pytest.raises(RunFolderError, match=message):
        merge_shards(actor, tmp_path / "merged")


def test_an_adapter_without_its_base_is_refused(tmp_path: Path) -> None:
    model = with_adapter(qwen())
    base = {name: None for name in model.state_dict() if "lora_" not in name}
    with pytest.raises(RunFolderError, match="holds the adapter alone"):
        merge_shards(save(model, tmp_path, **base), tmp_path / "merged")


NORM = "model.norm.weight"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({NORM: None}, f"lacks {NORM}"),
        ({"model.extra.weight": torch.ones(2)}, r"holds, unknown to the model, model\.extra"),
        ({NORM: torch.ones(8)}, rf"{NORM} is \[8\], the model's \[16\]"),
    ],
)
def test_weights_that_are_not_the_models_are_refused(
    changes: dict, message: str, tmp_path: Path
) -> None:
    with pytest.raises(RunFolderError, match=message):
        merge_shards(save(qwen(), tmp_path, **changes), tmp_path / "merged")


def test_a_folder_of_verls_merger_is_made_again(tmp_path: Path) -> None:
    """It is the base model where an adapter was trained."""
    model = with_adapter(qwen())
    save(model, tmp_path)
    (tmp_path / "merged" / "lora_adapter").mkdir(parents=True)
    assert merge_checkpoint(tmp_path) == tmp_path / "merged"
    assert not (tmp_path / "merged" / "lora_adapter").exists()
    assert note(tmp_path / "merged")["adapter"]["r"] == RANK
    made = (tmp_path / "merged" / MERGED_FILE).stat().st_mtime_ns
    merge_checkpoint(tmp_path)
    assert (tmp_path / "merged" / MERGED_FILE).stat().st_mtime_ns == made
    other = with_adapter(qwen())  # saved anew: it is not the old one's model
    torch.save(other.state_dict(), tmp_path / "actor" / "model_world_size_1_rank_0.pt")
    before = note(tmp_path / "merged")["shards"]
    (tmp_path / "merged" / "README.md").write_text("my own card")
    merge_checkpoint(tmp_path)
    assert note(tmp_path / "merged")["shards"] != before
    assert not (tmp_path / "merged" / "README.md").exists()
    assert (tmp_path / "README.earlier.md").read_text() == "my own card"


def test_verls_own_folder_of_an_adapter_is_no_model(tmp_path: Path) -> None:
    actor = save(with_adapter(qwen()), tmp_path)
    (actor / "huggingface" / "model.safetensors").write_bytes(b"peft's names")
    assert merge_checkpoint(tmp_path) == tmp_path / "merged"


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_a_training_that_diverged_is_no_model(number: float, tmp_path: Path) -> None:
    """It would be evaluated as one that is never right."""
    weight = torch.ones(16)
    weight[3] = number
    actor = save(qwen(), tmp_path, **{"model.norm.weight": weight})
    with pytest.raises(RunFolderError, match=r"model\.norm\.weight holds .*not finite"):
        merge_shards(actor, tmp_path / "merged")
