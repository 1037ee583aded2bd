"""Recipes of other papers' training with thoughts: value by value, and their prompts."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from rsp_rl.thoughts.laws.gumbel import Gumbel
from rsp_rl.thoughts.laws.multiplex import Multiplex
from rsp_rl.training import dry_run
from rsp_rl.training.configs import compose_config
from rsp_rl.training.thought_options import ThoughtOptions
from rsp_rl.training.thoughts import check_law
from tests.unit.recipes.test_recipes import RECIPES, SHOW_ARGUMENTS, _compose, _dry_run_arguments

#: Multiplex Thinking, section 4 and the authors' scripts.
MULTIPLEX = {
    "law.k": 3,
    "law.temperature": 1.0,
    "law.top_p": 1.0,
    "law.weighting": "probability",
    "law.duplicates": "each",
    "law.end": ["</think>"],
    "data.train_batch_size": 128,
    "data.max_response_length": 4096,
    "actor_rollout_ref.rollout.n": 8,
    "actor_rollout_ref.rollout.temperature": 1.0,
    "actor_rollout_ref.rollout.top_p": 1.0,
    "actor_rollout_ref.actor.ppo_mini_batch_size": 128,
    "actor_rollout_ref.actor.optim.lr": 1e-6,
    "actor_rollout_ref.actor.use_kl_loss": False,
    "actor_rollout_ref.actor.entropy_coeff": 0,
    "algorithm.adv_estimator": "grpo",
    "trainer.total_training_steps": 300,
}

#: By recipe: what its paper says.
PAPERS = {
    "multiplex_qwen1.5b": MULTIPLEX | {"rsp.length": 0},
    "multiplex_rsp_qwen7b": MULTIPLEX | {"rsp.length": 20},
    "soft_grpo_qwen1.5b": {
        "law.k": 5,
        "law.tau": 0.1,
        "law.temperature": 1.0,
        "law.top_p": 0.95,
        "law.top_k": 5,
        "data.max_prompt_length": 1024,
        "data.max_response_length": 8192,
        "data.train_batch_size": 64,
        "actor_rollout_ref.actor.ppo_mini_batch_size": 32,
        "actor_rollout_ref.actor.clip_ratio_low": 0.2,
        "actor_rollout_ref.actor.clip_ratio_high": 0.2,
        "actor_rollout_ref.actor.loss_agg_mode": "seq-mean-token-mean",
        "actor_rollout_ref.actor.use_kl_loss": True,
        "actor_rollout_ref.actor.kl_loss_coef": 1e-3,
        "actor_rollout_ref.actor.kl_loss_type": "low_var_kl",
        "actor_rollout_ref.actor.entropy_coeff": 0,
        "actor_rollout_ref.actor.optim.lr": 1e-6,
        "actor_rollout_ref.rollout.n": 8,
        "actor_rollout_ref.rollout.temperature": 1.0,
        "actor_rollout_ref.rollout.top_p": 0.95,
        "actor_rollout_ref.rollout.top_k": 5,
        "actor_rollout_ref.rollout.val_kwargs.temperature": 0.6,
        "algorithm.adv_estimator": "grpo",
        "trainer.total_training_steps": 40_315 // 64,
    },
    "soft_tokens_llama3b": {
        "actor_rollout_ref.model.path": "meta-llama/Llama-3.2-3B-Instruct",
        "law.tau": 0.5,
        "law.sigma": 0.33,
        "law.learn_embedding": True,
        "law.max_thoughts": 512,
        "law.end_text": "The final answer is: ",
        "law.on_end": r"\boxed{",
        "law.on_cut": r"The final answer is: \boxed{",
        "data.train_batch_size": 2,
        "actor_rollout_ref.rollout.n": 32,
        "actor_rollout_ref.rollout.temperature": 1.0,
        "actor_rollout_ref.actor.ppo_mini_batch_size": 2,
        "actor_rollout_ref.actor.ppo_epochs": 1,
        "actor_rollout_ref.actor.loss_agg_mode": "seq-mean-token-sum",
        "actor_rollout_ref.actor.policy_loss.loss_mode": "gpg",
        "actor_rollout_ref.actor.use_kl_loss": False,
        "actor_rollout_ref.actor.optim.lr": 6e-6,
        "actor_rollout_ref.actor.optim.lr_scheduler_type": "cosine",
        "actor_rollout_ref.actor.optim.lr_warmup_steps": 20,
        "algorithm.adv_estimator": "rloo",
        "algorithm.use_kl_in_reward": False,
        "reward.custom_reward_function.reward_kwargs": {"right_reward": 100, "format_reward": 10},
        "trainer.total_training_steps": 4000,
    },
}


@pytest.mark.parametrize("name", PAPERS)
def test_a_recipe_has_its_papers_settings(name: str) -> None:
    config = _compose(name)
    found = {key: OmegaConf.select(config, key, throw_on_missing=True) for key in PAPERS[name]}
    found = {
        key: OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
        for key, value in found.items()
    }
    assert found == PAPERS[name]
    check_law(config)


def test_their_laws() -> None:
    def law(name: str, **variables: str):
        return ThoughtOptions.from_config(_compose(name, **variables).law).law

    weighted = Multiplex(k=3, weighting="probability")
    assert law("multiplex_qwen1.5b") == law("multiplex_rsp_qwen7b") == weighted
    kept = {"k": 5, "tau": 0.1, "temperature": 1.0, "top_k": 5, "top_p": 0.95}
    assert law("soft_grpo_qwen1.5b") == Gumbel(**kept)
    assert law("soft_grpo_qwen1.5b", SCORE="code") == Gumbel(**kept, score="code", clamp=True)
    fuzzy = law("soft_tokens_llama3b", LAW="fuzzy")
    assert (fuzzy.name, fuzzy.tau) == ("fuzzy", 1e-4)
    assert law("soft_tokens_llama3b", LAW="token").name == "token"


@pytest.mark.parametrize("name", PAPERS)
def test_a_recipe_fits_the_machine_that_it_asks_for(name: str, capsys) -> None:
    assert dry_run.main(_dry_run_arguments(name)) == 0
    printed = capsys.readouterr().out
    assert printed.count(" of 80: fits") == 2
    assert "# thoughts" in printed


def test_the_prompt_of_soft_tokens() -> None:
    """One turn, without a chat template, as the paper's appendix has it."""
    from jinja2 import Template

    template = _compose("soft_tokens_llama3b").actor_rollout_ref.model.custom_chat_template
    shown = Template(template).render(messages=[{"role": "user", "content": "1 + 1?"}])
    assert shown.endswith("User: 1 + 1? Assistant:")
    assert r"Assistant: [reasoning] The final answer is: \boxed{[answer]}." in shown


@pytest.mark.parametrize("law", ["token", "multiplex", "gumbel", "soft", "fuzzy"])
def test_the_tiny_recipe_of_each_law(tmp_path: Path, law: str) -> None:
    # Outside of a checkout a recipe sets nothing up.
    shutil.copytree(RECIPES, tmp_path / "recipes")
    python = tmp_path / "bin" / "python"
    python.parent.mkdir()
    python.write_text(SHOW_ARGUMENTS)
    python.chmod(0o755)
    done = subprocess.run(
        ["bash", str(tmp_path / "recipes" / "thoughts_tiny_cpu.sh")],
        env={"PATH": "/usr/bin:/bin", "LAW": law, "VENV": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    (train,) = re.findall(r"\0-m\0rsp_rl\.cli\0train\0(.*?)\0-m\0", done.stdout)
    _, name, *overrides = train.split("\0")
    config = compose_config(name, overrides)
    check_law(config)
    options = ThoughtOptions.from_config(config.law)
    assert options.settings is not None
    assert (options.law.name, options.settings.end_text) == (law, r"\boxed{")
    # Whose first token is greedy has a sampled one: with it this model decides whether to reason.
    assert options.settings.begin == ("=" if law == "fuzzy" else "")
    assert config.run_dir == f"runs/thoughts_{law}_tiny_cpu"


@pytest.mark.parametrize("name", ["soft_tokens_llama3b", "thoughts_tiny_cpu"])
def test_an_unknown_law_is_one_line(name: str) -> None:
    done = subprocess.run(
        ["bash", str(RECIPES / f"{name}.sh")],
        env={"PATH": "/usr/bin:/bin", "LAW": "hard", "DRY_RUN": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: LAW=hard is none of ")
