"""LoRA runs that are refused before they start."""

import json
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from rsp_rl.basics.errors import ConfigError
from rsp_rl.training.adapters import check_adapter
from rsp_rl.training.configs import compose_config

ADAPTER = {"peft_type": "LORA", "r": 8, "lora_alpha": 16, "bias": "none", "use_dora": False}
LORA = {"lora_rank": 8, "lora_alpha": 16}


def check(adapter: Path | None = None, checkpoint: dict | None = None, **model: object) -> None:
    checkpoint = {"save_contents": ["model", "optimizer"], "save_lora_only": False} | (
        checkpoint or {}
    )
    if adapter is not None:
        model["lora_adapter_path"] = str(adapter)
    actor = {"checkpoint": checkpoint}
    check_adapter(OmegaConf.create({"actor_rollout_ref": {"model": model, "actor": actor}}))


def make_adapter(folder: Path, **changes: object) -> Path:
    (folder / "adapter_config.json").write_text(json.dumps(ADAPTER | changes))
    return folder


def test_plain_lora_passes(tmp_path: Path) -> None:
    check()
    check(**LORA)
    check(make_adapter(tmp_path), **LORA)
    check(make_adapter(tmp_path, rank_pattern={}, modules_to_save=None), **LORA)


def test_the_recipes_config_has_what_is_looked_at() -> None:
    check_adapter(compose_config("tiny_cpu", ["actor_rollout_ref.model.lora_rank=8"]))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lora_alpha": 0.5}, "lora_alpha=0.5 must be a whole number"),
        ({"lora_alpha": 0}, "lora_alpha=0 must be"),
        ({"target_parameters": ["experts.w1"]}, "target_parameters=.*use target_modules"),
        ({"checkpoint": {"save_lora_only": True}}, "save_lora_only=true leaves no base"),
        ({"checkpoint": {"save_contents": ["hf_model"]}}, "lacks 'model'"),
    ],
)
def test_a_checkpoint_that_could_not_be_merged_is_refused(settings: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check(**(LORA | settings))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"r": 16}, "has r=16 and .*lora_rank=8"),
        ({"lora_alpha": 0.5}, "lora_alpha=0.5"),
        ({"lora_alpha": None}, "lora_alpha=None"),
        ({"use_rslora": True}, "use_rslora=True: only plain LoRA"),
        ({"use_dora": True}, "use_dora=True: only plain LoRA"),
        ({"alpha_pattern": {"q_proj": 4}}, "alpha_pattern="),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save="),
        ({"bias": "all"}, "bias=all"),
        ({"peft_type": "IA3"}, "peft_type=IA3"),
    ],
)
def test_an_adapter_to_go_on_from_must_be_plain(
    changes: dict, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        check(make_adapter(tmp_path, **changes), **LORA)


def test_an_adapter_that_would_be_left_out_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="lora_rank=0: verl would train the base model"):
        check(make_adapter(tmp_path))
    with pytest.raises(ConfigError, match=r"holds no adapter_config\.json"):
        check(tmp_path / "nowhere", **LORA)


@pytest.mark.parametrize(("rank", "nested"), [(0, 8), (8, 16)])
def test_megatrons_rank_is_not_the_actors(rank: int, nested: int) -> None:
    """verl's vLLM server would take the nested one, FSDP's actor takes the other."""
    settings = [f"actor_rollout_ref.model.lora_rank={rank}"]
    config = compose_config("tiny_cpu", [*settings, f"actor_rollout_ref.model.lora.rank={nested}"])
    with pytest.raises(ConfigError, match=rf"lora\.rank={nested} but .*lora_rank={rank}"):
        check_adapter(config)
    check_adapter(compose_config("tiny_cpu", settings))
