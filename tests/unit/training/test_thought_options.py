"""The config group `law`: its options, what is refused, and what a rollout gets."""

from __future__ import annotations

import os
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from omegaconf import open_dict

from rsp_rl.basics.errors import ConfigError
from rsp_rl.data.arithmetic import write_dataset
from rsp_rl.draws.seeds import rollout_seed
from rsp_rl.models.folder import load_tokenizer
from rsp_rl.thoughts.laws.gumbel import Gumbel
from rsp_rl.thoughts.laws.multiplex import Multiplex
from rsp_rl.thoughts.laws.neftune import Neftune
from rsp_rl.thoughts.laws.neighbours import Neighbours
from rsp_rl.thoughts.phases import Phases
from rsp_rl.tiny import make_tiny_model
from rsp_rl.training.configs import compose_config
from rsp_rl.training.preparation import prepare
from rsp_rl.training.thought_options import ThoughtGuard, ThoughtOptions, thinking_of_rollout
from rsp_rl.training.thoughts import check_law, fit_law

LAWS = ("token", "multiplex", "gumbel", "soft", "fuzzy", "neighbours", "neftune")


def of(*overrides: str, name: str = "dapo") -> ThoughtOptions:
    return ThoughtOptions.from_config(compose_config(name, overrides).law)


@pytest.mark.parametrize("name", ["dapo", "dapo_rsp", "tiny_cpu", "real_cpu"])
def test_no_config_has_a_law_by_default(name: str) -> None:
    options = of(name=name)
    assert options == ThoughtOptions()
    assert not options.enabled


@pytest.mark.parametrize("law", LAWS)
def test_a_group_holds_every_setting_of_its_law_at_its_value_for_training(law: str) -> None:
    options = of(f"law={law}")
    assert options.enabled
    assert options.law.name == law
    group = compose_config("dapo", [f"law={law}"]).law
    settings = {"name", *options.settings.to_dict()} - {"law", "compat"}
    assert settings <= set(group)


def test_the_papers_settings() -> None:
    """SofT-GRPO's and Multiplex's training, not the laws' own defaults."""
    assert of("law=gumbel").law == Gumbel(k=5, tau=0.1, temperature=1.0, top_k=5, top_p=0.95)
    assert of("law=multiplex").law == Multiplex(k=3)
    assert of("law=soft").law.sigma == of("law=fuzzy").law.sigma == 0.33
    assert of("law=neighbours").law == Neighbours(k=3, rate=0.1)
    assert of("law=neftune").law == Neftune(alpha=5.0, length=512)
    assert (of("law=soft").law.tau, of("law=fuzzy").law.tau) == (0.5, 1e-4)
    assert of("law=soft", "law.guard.max_flips=0.3").guard == ThoughtGuard(max_flips=0.3)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["law.name=soft_thinking"], "law=soft_thinking has no log-prob"),
        (["law.name=dirichlet"], "law=dirichlet has no log-prob"),
        (["law.name=nothing"], "law='nothing' is unknown"),
        (["law=soft", "law.sigma=0"], "gives all rollouts of a prompt the same thoughts"),
        (["law=multiplex", "law.k=0"], "law.k=0 must be"),
        (["law=gumbel", "law.tau=0"], "law.tau=0.0 must be"),
        (["law=gumbel", "+law.alpha=1"], "law.alpha is no setting of gumbel"),
        (["law=multiplex", "law.detach_inputs=maybe"], "law.detach_inputs='maybe' must be"),
        (["law=multiplex", "law.validation=2"], "law.validation=2 must be"),
        (["law=gumbel", "+law.clip_per_draw=true"], "needs several draws"),
        (["law=soft", "+law.guard.most=1"], "law.guard=.* must be a group"),
        (["law=soft", "law.guard.max_flips=0"], "law.guard.max_flips=0 must be"),
        (["law=neighbours", "law.rate=1.5"], "law.rate=1.5 must be"),
        (["law=neighbours", "law.share=-1"], "law.share=-1.0 must be"),
        (["law=neighbours", "law.anchor=first"], "law.anchor='first' is unknown"),
        (["law=neighbours", "law.k=0"], "law.k=0 must be"),
        (["law=neighbours", "law.rate=0", "law.top_k=1"], "gives all rollouts of a prompt"),
        (["law=neftune", "law.alpha=-1"], "law.alpha=-1.0 must be"),
        (["law=neftune", "law.length=0"], "law.length=0 must be"),
        (["law=token", "law.end=7"], "law.end=7 must be a list of texts"),
    ],
)
def test_bad_settings(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_law(compose_config("dapo", overrides))


ALONE = "actor_rollout_ref.rollout.tensor_model_parallel_size=1"
SOFT = ("law=soft", "objective=rloo", ALONE)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["actor_rollout_ref.actor.strategy=fsdp"], "a law needs fsdp2"),
        (["actor_rollout_ref.actor.ulysses_sequence_parallel_size=2"], "cut over ranks"),
        (["actor_rollout_ref.model.use_fused_kernels=true"], "never has the logits"),
        (["actor_rollout_ref.model.lora_rank=8"], "vLLM's LoRA layers"),
        (["actor_rollout_ref.rollout.pipeline_model_parallel_size=2"], "in one process"),
        (["actor_rollout_ref.rollout.agent.default_agent_loop=tool_agent"], "single_turn_agent"),
        (["actor_rollout_ref.rollout.multi_turn.tool_config_path=a.yaml"], "a tool's answer sends"),
        (["actor_rollout_ref.rollout.multi_turn.function_tool_path=a.py"], "a tool's answer sends"),
        (["actor_rollout_ref.rollout.data_parallel_size=2"], "one of several engines"),
        (
            ["+actor_rollout_ref.rollout.engine_kwargs.vllm.speculative_config={method: ngram}"],
            "drafts are of tokens",
        ),
        (["actor_rollout_ref.model.mtp.enable=true"], "predicts tokens from tokens"),
        (["algorithm.adv_estimator=gae"], "a critic reads tokens"),
        (["critic.enable=true"], "a critic reads tokens"),
        (["algorithm.adv_estimator=optimal_token_baseline"], "how likely their tokens were"),
        (["distillation.enabled=true"], "a teacher reads tokens"),
        (["+actor_rollout_ref.rollout.engine_kwargs.vllm.async_scheduling=true"], "before a law"),
        (["actor_rollout_ref.rollout.engine_kwargs.vllm.enable_prompt_embeds=false"], "needs it"),
        (["law.max_thoughts=2048"], "leaves no room for an answer"),
        (["+correction=tis"], "rollout_correction weighs tokens"),
        (["actor_rollout_ref.actor.entropy_coeff=0.01"], "entropy of a thought"),
        (["law.clip_per_draw=true"], "loss_mode=vanilla: ratios by draw"),
        (["actor_rollout_ref.actor.policy_loss.loss_mode=rsp_draws"], "law.clip_per_draw=False"),
        (
            [
                "law.clip_per_draw=true",
                "actor_rollout_ref.actor.policy_loss.loss_mode=rsp_draws",
                "actor_rollout_ref.actor.use_kl_loss=true",
            ],
            "with a KL penalty",
        ),
        (["+law.compat=greedy_answer"], "law.compat=.* is about how answers are sampled"),
        (["law=token", "law.temperature=0.7"], "set them to the same"),
        (["law=soft", ALONE], "policy_loss.loss_mode=vanilla: the density of noise"),
        ([*SOFT, "actor_rollout_ref.actor.ppo_epochs=2"], "trained without a ratio"),
        ([*SOFT, "actor_rollout_ref.actor.ppo_mini_batch_size=256"], "256 of 1024"),
        ([*SOFT, "actor_rollout_ref.actor.use_kl_loss=true"], "and a KL penalty"),
        (
            [*SOFT, "actor_rollout_ref.rollout.tensor_model_parallel_size=2"],
            "mixes the whole vocabulary",
        ),
        (
            ["law=neighbours", "actor_rollout_ref.rollout.tensor_model_parallel_size=2"],
            "law=neighbours searches the whole vocabulary",
        ),
        (
            ["law=neftune", "law.temperature=0.7"],
            "set them to the same",
        ),
    ],
)
def test_what_a_law_cannot_work_with(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_law(compose_config("dapo_rsp", ["law=multiplex", *overrides]))


@pytest.mark.parametrize("law", ["token", "multiplex", "gumbel", "neighbours", "neftune"])
def test_what_a_law_works_with(law: str) -> None:
    """A ratio and a KL penalty too: of noise that has no part in the score."""
    check_law(compose_config("dapo_rsp", [f"law={law}", ALONE]))
    kl = "actor_rollout_ref.actor.use_kl_loss=true"
    check_law(compose_config("dapo", [f"law={law}", kl, ALONE]))


def test_soft_tokens_work_with_rloo() -> None:
    for law in ("soft", "fuzzy"):
        check_law(compose_config("dapo_rsp", [f"law={law}", "objective=rloo", ALONE]))


def test_a_rollouts_thoughts_have_seeds_of_their_own() -> None:
    settings = of("law=multiplex").settings
    place = {"step": 3, "prompt_index": 7, "rollout": 2}
    thinking = thinking_of_rollout(settings, Phases(end_ids=(5,)), 42, **place)
    assert thinking.law == settings.law
    assert thinking.seed == rollout_seed(42, **place, stream="thought_seed")
    assert thinking.seed != rollout_seed(42, **place)
    others = [
        thinking_of_rollout(settings, thinking.phases, 42, **{**place, **other}).seed
        for other in ({"step": 4}, {"prompt_index": 8}, {"rollout": 3}, {"validation": True})
    ]
    assert len({thinking.seed, *others}) == 5
    # All validations of a run see the same.
    again = [
        thinking_of_rollout(
            settings, thinking.phases, 42, **{**place, "step": step, "validation": True}
        ).seed
        for step in (0, 9)
    ]
    assert again[0] == again[1]


@pytest.mark.parametrize(
    ("law", "message"),
    [
        (["law=gumbel", "law.k=500", "law.top_k=0"], "law.k=500, but the model has 285 tokens"),
        (["law=gumbel", "law.top_k=500"], "law.top_k=500, but the model has 285 tokens; 0 keeps"),
        (["law=neighbours", "law.k=500"], "law.k=500, but the model has 285 tokens"),
        (["law=multiplex", "law.end=[nowhere]"], "law.end=.*nowhere"),
        (["law=multiplex"], "</think>"),
    ],
)
def test_a_law_that_does_not_fit_the_model(tmp_path: Path, law: list[str], message: str) -> None:
    folder = make_tiny_model(tmp_path, steps=0, threads=1)
    config = compose_config("dapo", law)
    with pytest.raises(ConfigError, match=message):
        fit_law(config, folder, load_tokenizer(folder), 285)


def test_rows_that_ask_for_several_turns_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Where `prepare` puts the run's variables.
    monkeypatch.setattr(os, "environ", os.environ.copy())
    folder = make_tiny_model(tmp_path / "model", steps=0, threads=1)
    files = write_dataset(tmp_path, train_size=8, heldout_size=4)
    train = pq.read_table(files["train"])
    loops = ["single_turn_agent"] * 7 + ["tool_agent"]
    pq.write_table(train.append_column("agent_name", [loops]), files["train"])
    overrides = [f"data.train_files={files['train']}", f"data.val_files={files['heldout']}"]
    overrides += [f"actor_rollout_ref.model.path={folder}", f"run_dir={tmp_path / 'run'}"]
    law = ["law=multiplex", "law.end=[]", "law.max_thoughts=8"]
    with pytest.raises(ConfigError, match=r"row 7: 'agent_name' is 'tool_agent'; .* laws"):
        prepare(compose_config("tiny_cpu", [*overrides, *law]))


def test_streams_are_named() -> None:
    with pytest.raises(ValueError, match="unknown stream"):
        rollout_seed(1, 1, 1, 1, stream="other")


def test_a_config_of_before_has_no_law() -> None:
    """A user's own, made when there was no such group."""
    config = compose_config("dapo_rsp")
    with open_dict(config):
        del config["law"]

    check_law(config)
    assert not fit_law(config, Path("model"), None, None)
