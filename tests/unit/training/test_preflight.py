"""Checks before Ray starts: each with what it lets pass and what it names."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import get_args

import huggingface_hub.constants
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from omegaconf import DictConfig, OmegaConf
from safetensors.torch import save_file
from transformers import Qwen2Config

from rsp_rl.basics.errors import ConfigError, PlacementError
from rsp_rl.data.prompt_files import check_dataset
from rsp_rl.dials.options import RspOptions
from rsp_rl.models.folder import check_model, load_tokenizer, resolve_model_folder
from rsp_rl.training.configs import compose_config
from rsp_rl.training.preflight import (
    AGENT_LOOPS,
    VLLM_DTYPES,
    agent_loops,
    check_batches,
    check_guard_support,
    check_lengths,
    check_mixing,
    check_phase_timeout,
    check_rsp_support,
    check_servers,
    check_token_budgets,
    check_tokenizer,
    check_trainer,
)
from tests.unit import templates

MODEL = Qwen2Config(hidden_size=16, num_attention_heads=2, max_position_embeddings=4096)


@pytest.fixture
def model_folder(tmp_path: Path) -> Path:
    """A model folder as far as these checks look."""
    folder = tmp_path / "model"
    MODEL.save_pretrained(folder)
    save_file({"model.embed_tokens.weight": torch.zeros(4, 16)}, folder / "model.safetensors")
    templates.chatml().save_pretrained(folder)
    return folder


# The model folder.


def test_existing_folder(model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve_model_folder(str(model_folder)) == model_folder
    monkeypatch.setenv("HOME", str(model_folder.parent))
    assert resolve_model_folder("~/model") == model_folder
    monkeypatch.chdir(model_folder.parent)
    assert resolve_model_folder("model").resolve() == model_folder


@pytest.mark.parametrize(
    "path", ["/nowhere/model", "./nowhere/model", "~/nowhere/model", "nowhere", "a/b/c", "../x/y"]
)
def test_missing_folder(path: str) -> None:
    with pytest.raises(ConfigError, match=r"actor_rollout_ref\.model\.path.*no such folder") as e:
        resolve_model_folder(path)
    assert repr(path) in str(e.value)


@pytest.mark.parametrize("path", ["", None])
def test_no_model_path(path: str | None) -> None:
    with pytest.raises(ConfigError, match=r"actor_rollout_ref\.model\.path is not set"):
        resolve_model_folder(path)


def test_hub_name_without_a_way_to_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)  # read at its import
    monkeypatch.chdir(tmp_path)
    tried = []
    monkeypatch.setattr(socket.socket, "connect", lambda _, address: tried.append(address))
    with pytest.raises(ConfigError, match=r"'Qwen/NoSuchModel'.*the hub did not give it"):
        resolve_model_folder("Qwen/NoSuchModel")
    assert not tried  # nobody waits for a network that is not there


def test_model_config(model_folder: Path) -> None:
    config = check_model(model_folder)
    assert (config.model_type, config.max_position_embeddings) == ("qwen2", 4096)


def test_sharded_weights_count(model_folder: Path) -> None:
    (model_folder / "model.safetensors").rename(model_folder / "model-00001-of-00001.safetensors")
    assert check_model(model_folder).model_type == "qwen2"


def test_missing_weights(model_folder: Path) -> None:
    (model_folder / "model.safetensors").unlink()
    (model_folder / "pytorch_model.bin").touch()
    with pytest.raises(ConfigError, match=r"no \*\.safetensors weights"):
        check_model(model_folder)


@pytest.mark.parametrize("name", ["adapter_config.json", "lora_adapter"])
def test_an_adapter_that_nothing_would_read(model_folder: Path, name: str) -> None:
    """Beside its model, or where verl's merger lays it."""
    (model_folder / name).mkdir()
    with pytest.raises(ConfigError, match=rf"holds a LoRA adapter \({name}\)"):
        check_model(model_folder)


def test_weights_by_pefts_names(model_folder: Path) -> None:
    """What verl's `hf_model` is of a LoRA run."""
    weights = {"base_model.model.q_proj.lora_A.default.weight": torch.zeros(4, 16)}
    save_file(weights, model_folder / "model.safetensors")
    with pytest.raises(ConfigError, match="a LoRA run by peft's names"):
        check_model(model_folder)


@pytest.mark.parametrize("content", [b"", b"{}", b"\x10\0\0\0\0\0\0\0{"])
def test_weights_that_are_cut_short(model_folder: Path, content: bytes) -> None:
    (model_folder / "model.safetensors").write_bytes(content)
    with pytest.raises(ConfigError, match=r"not a (whole )?safetensors file"):
        check_model(model_folder)


def test_missing_model_config(model_folder: Path) -> None:
    (model_folder / "config.json").unlink()
    with pytest.raises(ConfigError, match=r"no config\.json; is it a Hugging Face model folder"):
        check_model(model_folder)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"model_type": "no_such_model"}'])
def test_broken_model_config(model_folder: Path, content: str) -> None:
    (model_folder / "config.json").write_text(content)
    with pytest.raises(ConfigError, match=r"config\.json is no model config"):
        check_model(model_folder)


# The tokenizer.


def test_tokenizer_with_its_own_and_with_a_custom_template(model_folder: Path) -> None:
    tokenizer = load_tokenizer(model_folder)
    assert tokenizer.chat_template == templates.CHATML
    check_tokenizer(tokenizer, RspOptions())
    custom = load_tokenizer(model_folder, templates.GAP)
    assert custom.chat_template == templates.GAP


def test_folder_without_tokenizer(model_folder: Path) -> None:
    for file in model_folder.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(ConfigError, match="holds no tokenizer"):
        load_tokenizer(model_folder)
    with pytest.raises(ConfigError, match="holds no tokenizer"):
        load_tokenizer(model_folder, templates.CHATML)


@pytest.mark.parametrize("content", ["", "{", "{}"])
def test_broken_tokenizer(model_folder: Path, content: str) -> None:
    (model_folder / "tokenizer.json").write_text(content)
    with pytest.raises(ConfigError, match="no usable tokenizer"):
        load_tokenizer(model_folder)


@pytest.mark.parametrize("length", [0, 20])
def test_no_chat_template(length: int) -> None:
    tokenizer = templates.chatml(None)
    with pytest.raises(ConfigError, match=r"no chat template.*custom_chat_template"):
        check_tokenizer(tokenizer, RspOptions(length=length))


def test_template_without_end_of_turn_matters_to_rsp_alone() -> None:
    tokenizer = templates.chatml(templates.BARE)
    check_tokenizer(tokenizer, RspOptions(length=0))
    check_tokenizer(tokenizer, RspOptions(position="prefix"))
    with pytest.raises(PlacementError, match="no end-of-turn token"):
        check_tokenizer(tokenizer, RspOptions())


def test_code_of_a_models_own_is_neither_run_nor_asked_about(
    model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """transformers would ask on the terminal, wait for 15 s, and run it if told to."""
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked"))
    for name, map_ in (("config.json", "AutoConfig"), ("tokenizer_config.json", "AutoTokenizer")):
        settings = json.loads((model_folder / name).read_text())
        settings |= {"model_type": "own", "tokenizer_class": "Own", "auto_map": {map_: "own.Own"}}
        (model_folder / name).write_text(json.dumps(settings))
    for read in (check_model, load_tokenizer):
        with pytest.raises(ConfigError, match=f"{model_folder} brings code of its own"):
            read(model_folder)


@pytest.mark.parametrize("options", [{"length": 0}, {"position": "prefix"}, {}])
@pytest.mark.parametrize("template", ["my_template.jinja", templates.SYSTEM_ONLY])
def test_a_template_that_leaves_the_question_out(template: str, options: dict) -> None:
    """Every prompt would be the same text, and every reward 0."""
    with pytest.raises(PlacementError, match=r"does not render the last user message.*file name"):
        check_tokenizer(templates.chatml(template), RspOptions(**options))


# The dataset.

GOOD_ROW = {
    "data_source": "math500",
    "prompt": [{"role": "system", "content": "S"}, {"role": "user", "content": "2+2?"}],
    "reward_model": {"style": "rule", "ground_truth": "4"},
    "extra_info": {"index": 0},
}


def _write(file: Path, rows: list[dict], schema: pa.Schema | None = None) -> str:
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), file)
    return str(file)


def test_good_datasets(tmp_path: Path) -> None:
    one = _write(tmp_path / "one.parquet", [GOOD_ROW] * 3)
    two = _write(tmp_path / "two.parquet", [GOOD_ROW] * 4)
    assert check_dataset(one) == 3
    assert check_dataset([one, two]) == 7
    assert check_dataset(OmegaConf.create([one, two])) == 7


def test_prompt_key(tmp_path: Path) -> None:
    row = {**GOOD_ROW, "messages": GOOD_ROW["prompt"]}
    del row["prompt"]
    file = _write(tmp_path / "a.parquet", [row])
    assert check_dataset(file, "messages") == 1
    with pytest.raises(ConfigError, match="no 'prompt'"):
        check_dataset(file)


def test_assistant_turns_without_content(tmp_path: Path) -> None:
    """Only what the model reads as a prompt must be text."""
    prompt = [*GOOD_ROW["prompt"], {"role": "assistant", "content": ""}, GOOD_ROW["prompt"][1]]
    assert check_dataset(_write(tmp_path / "a.parquet", [{**GOOD_ROW, "prompt": prompt}])) == 1


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({"prompt": None}, "no 'prompt'"),
        ({"prompt": []}, "no 'prompt'"),
        ({"prompt": [{"role": "user", "content": None}]}, "'prompt' holds .*'content': None"),
        ({"prompt": [{"role": "user"}]}, "'prompt' holds .*not a message"),
        ({"prompt": [{"content": "2+2?"}]}, "'prompt' holds .*not a message"),
        ({"prompt": [{"role": "", "content": "2+2?"}]}, "'prompt' holds .*not a message"),
        ({"prompt": [{"role": "system", "content": "S"}]}, "'prompt' has no user message"),
        ({"reward_model": None}, r"reward_model\.ground_truth is missing"),
        ({"reward_model": {"style": "rule"}}, r"reward_model\.ground_truth is missing"),
        ({"data_source": None}, "'data_source' is empty"),
        ({"data_source": ""}, "'data_source' is empty"),
    ],
)
def test_bad_row_is_named(tmp_path: Path, changes: dict, cause: str) -> None:
    """Among good rows: parquet then fills what is missing with null."""
    good = _write(tmp_path / "good.parquet", [GOOD_ROW] * 2)
    file = _write(tmp_path / "bad.parquet", [GOOD_ROW, GOOD_ROW, {**GOOD_ROW, **changes}, GOOD_ROW])
    with pytest.raises(ConfigError, match=cause) as caught:
        check_dataset([good, file])
    assert f"dataset {file}, row 2: " in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({"prompt": "2+2?"}, "'prompt' is '2[+]2[?]', not a list"),
        ({"prompt": 17}, "'prompt' is 17, not a list"),
        ({"prompt": ["2+2?"]}, "'prompt' holds '2[+]2[?]'"),
        (
            {"prompt": [{"role": "user", "content": [{"type": "image"}]}]},
            "'prompt' has a user message that is not text",
        ),
        ({"reward_model": "4"}, "ground_truth is missing"),
    ],
)
def test_columns_of_another_type(tmp_path: Path, changes: dict, cause: str) -> None:
    file = _write(tmp_path / "bad.parquet", [{**GOOD_ROW, **changes}])
    with pytest.raises(ConfigError, match=f"{file}, row 0: .*{cause}"):
        check_dataset(file)


@pytest.mark.parametrize("column", ["prompt", "reward_model", "data_source"])
def test_missing_column(tmp_path: Path, column: str) -> None:
    row = {name: value for name, value in GOOD_ROW.items() if name != column}
    file = _write(tmp_path / "bad.parquet", [row])
    with pytest.raises(ConfigError, match=f"{file}, row 0: no '{column}'"):
        check_dataset(file)


def test_dataset_without_rows(tmp_path: Path) -> None:
    schema = pa.Table.from_pylist([GOOD_ROW]).schema
    with pytest.raises(ConfigError, match="has no rows"):
        check_dataset(_write(tmp_path / "a.parquet", [], schema))


@pytest.mark.parametrize("file", ["/nowhere/train.parquet", "~/nowhere.parquet"])
def test_missing_dataset(file: str) -> None:
    with pytest.raises(ConfigError, match=r"dataset .* does not exist.*data\.train_files"):
        check_dataset(file)


@pytest.mark.parametrize("content", [b"", b"not parquet at all", b"PAR1" + b"\x00" * 40 + b"PAR1"])
def test_unreadable_dataset(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "a.parquet"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match="not a readable parquet file"):
        check_dataset(str(file))


def test_json_is_checked_as_well(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text(json.dumps(GOOD_ROW))
    assert check_dataset(str(file)) == 1
    file.write_text(json.dumps({**GOOD_ROW, "data_source": ""}))
    with pytest.raises(ConfigError, match="row 0: 'data_source' is empty"):
        check_dataset(str(file))
    with pytest.raises(ConfigError, match="does not exist"):
        check_dataset(str(tmp_path / "b.jsonl"))


def test_other_agent_loops_in_a_dataset(tmp_path: Path) -> None:
    rows = [{**GOOD_ROW, "agent_name": name} for name in ("single_turn_agent", "my_agent")]
    file = _write(tmp_path / "a.parquet", rows)
    assert check_dataset(file) == 2
    with pytest.raises(ConfigError, match=r"a\.parquet, row 1: 'agent_name' is 'my_agent'"):
        check_dataset(file, agent_loops=AGENT_LOOPS)
    assert check_dataset(file, agent_loops=(*AGENT_LOOPS, "my_agent")) == 2


def test_agent_loops_of_the_user_are_named_in_a_file(tmp_path: Path) -> None:
    loops = tmp_path / "loops.yaml"
    loops.write_text("- name: my_agent\n  _target_: my_package.MyLoop\n")
    config = _config(
        f"{ROLLOUT}.agent.agent_loop_config_path={loops}",
        f"{ROLLOUT}.agent.default_agent_loop=my_agent",
    )
    assert agent_loops(config) == {*AGENT_LOOPS, "my_agent"}
    check_rsp_support(config)
    for content in ("name: my_agent", "- my_agent", "{"):
        loops.write_text(content)
        with pytest.raises(ConfigError, match=r"agent_loop_config_path=.*not a YAML list"):
            agent_loops(config)
    loops.unlink()
    with pytest.raises(ConfigError, match="not a YAML list"):
        agent_loops(config)


def test_halves_need_groups_of_an_even_size() -> None:
    half = RspOptions(mixing="half")
    check_mixing(half, 8)
    with pytest.raises(ConfigError, match=r"rollout\.n=7 rollouts have no half"):
        check_mixing(half, 7)
    check_mixing(RspOptions(mixing="half", length=0), 7)
    check_mixing(RspOptions(probability=0.5), 7)


# The config.


def _config(*changes: str) -> DictConfig:
    config = OmegaConf.create(
        {
            "data": {"max_prompt_length": 100, "train_batch_size": 32},
            "trainer": {"nnodes": 1, "n_gpus_per_node": 2, "v1": {"sampler": {}}},
            "algorithm": {
                "rollout_correction": {"bypass_mode": False},
                "filter_groups": {"enable": False},
            },
            "actor_rollout_ref": {
                "model": {"use_fused_kernels": False},
                "actor": {
                    "strategy": "fsdp2",
                    "fsdp_config": {"fsdp_size": -1},
                    "ppo_max_token_len_per_gpu": 400,
                    "ppo_mini_batch_size": 16,
                    "use_dynamic_bsz": False,
                    "ppo_micro_batch_size_per_gpu": 8,
                    "ulysses_sequence_parallel_size": 1,
                },
                "rollout": {
                    "name": "vllm",
                    "temperature": 1.0,
                    "top_k": 50,
                    "top_p": 1.0,
                    "logprobs_mode": "processed_logprobs",
                    "dtype": "bfloat16",
                    "n": 8,
                    "prompt_length": 120,
                    "response_length": 200,
                    "max_model_len": None,
                    "tensor_model_parallel_size": 1,
                    "data_parallel_size": 1,
                    "pipeline_model_parallel_size": 1,
                    "log_prob_use_dynamic_bsz": True,
                    "log_prob_micro_batch_size_per_gpu": None,
                    "log_prob_max_token_len_per_gpu": 400,
                    "calculate_log_probs": True,
                    "repetition_penalty": 1.0,
                    "agent": {"default_agent_loop": "single_turn_agent"},
                },
            },
        }
    )
    return OmegaConf.merge(config, OmegaConf.from_dotlist(list(changes)))


ACTOR, ROLLOUT = "actor_rollout_ref.actor", "actor_rollout_ref.rollout"


@pytest.mark.parametrize(
    ("changes", "extra"),
    [
        ([], 20),
        ([], 0),
        ([f"{ROLLOUT}.max_model_len=320"], 20),
        ([f"{ROLLOUT}.response_length=3976"], 20),  # 4096 in all
    ],
)
def test_lengths_that_fit(changes: list[str], extra: int) -> None:
    check_lengths(_config(*changes), MODEL, extra)


@pytest.mark.parametrize(
    ("changes", "extra", "cause"),
    [
        ([], 21, r"rollout\.prompt_length=120 is below data\.max_prompt_length=100 and the 21"),
        ([f"{ROLLOUT}.prompt_length=99"], 0, r"rollout\.prompt_length=99"),
        ([f"{ROLLOUT}.max_model_len=319"], 20, r"rollout\.max_model_len=319"),
        ([f"{ROLLOUT}.response_length=3977"], 20, r"max_position_embeddings=4096"),
    ],
)
def test_lengths_that_do_not_fit(changes: list[str], extra: int, cause: str) -> None:
    with pytest.raises(ConfigError, match=cause):
        check_lengths(_config(*changes), MODEL, extra)


def test_model_without_a_longest_position() -> None:
    class Endless:
        pass

    check_lengths(_config(f"{ROLLOUT}.response_length=1000000"), Endless(), 20)


@pytest.mark.parametrize(
    "changes",
    [
        [],
        ["trainer.n_gpus_per_node=16"],  # 8 rollouts a rank
        [f"{ACTOR}.ppo_micro_batch_size_per_gpu=null"],
        [f"{ACTOR}.ppo_micro_batch_size_per_gpu=7", f"{ACTOR}.use_dynamic_bsz=true"],
        ["trainer.n_gpus_per_node=24", f"{ACTOR}.ulysses_sequence_parallel_size=3"],
        ["trainer.nnodes=4", f"{ACTOR}.ppo_mini_batch_size=32"],
        [f"{ACTOR}.fsdp_config.fsdp_size=3"],  # above all ranks: they are one group
        [f"{ROLLOUT}.tensor_model_parallel_size=2"],
        ["data.gen_batch_size=8"],
        ["data.gen_batch_size=5", "algorithm.filter_groups.enable=true"],  # verl fetches one by one
        ["data.gen_batch_size=5", "trainer.v1.trainer_mode=rsp_async"],  # likewise
        [f"{ROLLOUT}.log_prob_micro_batch_size_per_gpu=3"],  # dynamic batches ignore it
    ],
)
def test_batches_that_divide(changes: list[str]) -> None:
    check_batches(_config(*changes))


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        (["data.train_batch_size=40"], r"train_batch_size=40 .*ppo_mini_batch_size=16"),
        (["data.train_batch_size=8"], r"train_batch_size=8 .*ppo_mini_batch_size=16"),
        (["trainer.n_gpus_per_node=3"], "16 prompts x rollout.n=8 .*3 data-parallel ranks"),
        (["trainer.nnodes=3"], "6 data-parallel ranks"),
        ([f"{ACTOR}.ppo_micro_batch_size_per_gpu=7"], "64 rollouts .*per_gpu=7"),
        ([f"{ACTOR}.ulysses_sequence_parallel_size=4"], r"2 ranks .*ulysses_\w+=4"),
        (["trainer.nnodes=2", f"{ACTOR}.fsdp_config.fsdp_size=3"], r"4 ranks|fsdp_size=3"),
        ([f"{ROLLOUT}.tensor_model_parallel_size=4"], r"2 ranks .*tensor_model_\w+ .*=4"),
        (["data.gen_batch_size=64"], r"train_batch_size=32 .*gen_batch_size=64"),
        (
            [
                f"{ROLLOUT}.log_prob_use_dynamic_bsz=false",
                f"{ROLLOUT}.log_prob_micro_batch_size_per_gpu=3",
            ],
            r"128 rollouts .*log_prob_micro_batch_size_per_gpu=3",
        ),
    ],
)
def test_batches_that_do_not_divide(changes: list[str], cause: str) -> None:
    with pytest.raises(ConfigError, match=cause):
        check_batches(_config(*changes))


def test_types_are_those_of_vllm() -> None:
    from vllm.config.model import ModelDType

    assert {*VLLM_DTYPES} == {*get_args(ModelDType)}
    with pytest.raises(ConfigError, match="dtype=fp32 is no type of vLLM's; use one of auto"):
        check_trainer(compose_config("tiny_cpu", [f"{ROLLOUT}.dtype=fp32"]))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("trainer.use_v1", False),
        ("trainer.v1.trainer_mode", "sync"),
        ("actor_rollout_ref.hybrid_engine", False),
    ],
)
def test_another_trainer_is_refused(name: str, value: object) -> None:
    config = compose_config("tiny_cpu")
    check_trainer(config)
    OmegaConf.update(config, name, value)
    with pytest.raises(ConfigError, match=f"{name}={value} chooses another trainer"):
        check_trainer(config)


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ([f"{ROLLOUT}.log_prob_max_token_len_per_gpu=319"], "log_prob_max_token_len_per_gpu=319"),
        (
            [f"{ACTOR}.use_dynamic_bsz=true", f"{ACTOR}.ppo_max_token_len_per_gpu=100"],
            r"ppo_max_token_len_per_gpu=100 x .*the longest sequence of 320 tokens",
        ),
    ],
)
def test_micro_batches_that_do_not_hold_a_sequence(changes: list[str], cause: str) -> None:
    check_token_budgets(_config())
    check_token_budgets(_config(f"{ACTOR}.ppo_max_token_len_per_gpu=100"))  # counted in samples
    with pytest.raises(ConfigError, match=cause):
        check_token_budgets(_config(*changes))


@pytest.mark.parametrize(
    "changes",
    [
        [],
        [f"{ACTOR}.strategy=fsdp"],
        [f"{ROLLOUT}.dtype=float32"],
    ],
)
def test_settings_that_rsp_supports(changes: list[str]) -> None:
    check_rsp_support(_config(*changes))


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        (f"{ROLLOUT}.name=sglang", "need vllm"),
        (f"{ROLLOUT}.dtype=auto", r"rollout\.dtype='auto'"),
        (f"{ROLLOUT}.repetition_penalty=1.1", r"repetition_penalty.*set it to 1\.0"),
        (f"{ROLLOUT}.agent.default_agent_loop=my_agent", "agent_loop_config_path"),
        (f"{ACTOR}.strategy=megatron", "need fsdp or fsdp2"),
    ],
)
def test_refused_settings(change: str, cause: str) -> None:
    with pytest.raises(ConfigError, match=cause) as caught:
        check_rsp_support(_config(change))
    assert change.split("=")[0] in str(caught.value)


def test_servers_of_prefill_and_decode_are_refused() -> None:
    """verl makes them of a class of its own, whatever is registered, soft prompts or not."""
    check_servers(_config())
    check_servers(_config(f"{ROLLOUT}.disaggregation.enabled=False"))
    with pytest.raises(
        ConfigError, match=r"rollout\.disaggregation\.enabled=True.*set it to False"
    ):
        check_servers(_config(f"{ROLLOUT}.disaggregation.enabled=True"))


def test_verl_makes_servers_of_prefill_and_decode_of_its_own_class() -> None:
    """Why they are refused."""
    from verl.workers.rollout.replica import get_rollout_replica_class

    from rsp_rl.training.verl_plugin import components  # noqa: F401  (registers)

    assert get_rollout_replica_class("vllm").__module__.startswith("rsp_rl")
    assert not get_rollout_replica_class("vllm", True).__module__.startswith("rsp_rl")


def test_the_guard_needs_both_log_probs() -> None:
    check_guard_support(_config())
    without_correction = _config()
    without_correction.algorithm = {}
    check_guard_support(without_correction)
    for change in (
        f"{ROLLOUT}.calculate_log_probs=false",
        "algorithm.rollout_correction.bypass_mode=true",
        f"{ACTOR}.policy_loss.loss_mode=bypass_mode",
    ):
        with pytest.raises(ConfigError, match=change.split("=")[0]):
            check_guard_support(_config(change))


@pytest.mark.parametrize("seconds", ["1", "0.5", "7200", "null"])
def test_phase_timeouts(seconds: str) -> None:
    check_phase_timeout(_config(f"trainer.v1.rsp_sync.phase_timeout_s={seconds}"))


@pytest.mark.parametrize("seconds", ["0", "-1", "soon"])
def test_bad_phase_timeouts(seconds: str) -> None:
    change = f"trainer.v1.rsp_sync.phase_timeout_s={seconds}"
    with pytest.raises(ConfigError, match=change):
        check_phase_timeout(_config(change))


RAW = f"{ROLLOUT}.logprobs_mode=raw_logprobs"
CORRECTION = "algorithm.rollout_correction.rollout_is=token"
FUSED = "actor_rollout_ref.model.use_fused_kernels=true"
WHOLE = f"{ROLLOUT}.top_k=-1"


def test_rollout_correction_needs_the_distribution_that_was_sampled() -> None:
    check_guard_support(_config(CORRECTION))
    check_guard_support(_config(CORRECTION, RAW, WHOLE))
    with pytest.raises(ConfigError, match=r"top_k=50.*set logprobs_mode=processed_logprobs"):
        check_guard_support(_config(CORRECTION, RAW))


def test_whole_rollouts_are_not_rejected_for_their_truncation() -> None:
    rejection = "algorithm.rollout_correction.rollout_rs"
    for by in ("seq_mean_k1", "seq_sum_k3", "token_k1,seq_max_k2"):
        with pytest.raises(ConfigError, match=rf"rollout_rs={by}.*top_k=50.*set .*top_k=-1"):
            check_guard_support(_config(f"{rejection}='{by}'"))
        check_guard_support(_config(f"{rejection}='{by}'", WHOLE))
    check_guard_support(_config(f"{rejection}=token_k1"))


def test_fused_kernels_leave_no_logits_to_measure_truncation_with() -> None:
    check_guard_support(_config(FUSED, RAW))
    check_guard_support(_config(FUSED, WHOLE))
    with pytest.raises(ConfigError, match=r"use_fused_kernels=True.*logprobs_mode=raw_logprobs"):
        check_guard_support(_config(FUSED))
