"""Whether an evaluation asks as training did."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from omegaconf import DictConfig, OmegaConf

from rsp_rl.data.math_training import chat_messages
from rsp_rl.evaluation import trained_prompts
from rsp_rl.placement.prompt import INSTRUCTION
from tests.unit import templates


def unlike_training(config: DictConfig, template: str, evaluated: Path, base: Path) -> list[str]:
    files = [Path(config.data.val_files)]
    return trained_prompts.unlike_training(config, files, template, evaluated, base)


QUESTIONS = ["Compute 1+2.", "What is\n$x$?", "How many\nare $3$?\n\nIn all?"]
DEFAULT = "You are a helpful assistant."


@pytest.fixture
def model(tmp_path: Path) -> Path:
    templates.chatml().save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def trained(
    folder: Path,
    template: str = "chat",
    conversations: list[list[dict]] | None = None,
    chat_template: str | None = None,
    **kwargs: object,
) -> DictConfig:
    """A run's config, its data written as for a template."""
    rows = conversations or [chat_messages(template, question) for question in QUESTIONS]
    file = folder / "val.parquet"
    pq.write_table(pa.table({"prompt": rows}), file)
    model = {"custom_chat_template": chat_template}
    data = {"val_files": str(file), "train_files": [], "apply_chat_template_kwargs": kwargs}
    return OmegaConf.create({"data": data, "actor_rollout_ref": {"model": model}})


@pytest.mark.parametrize("template", ["chat", "plain-chat", "qwen-boxed", "qwen25-math-cot"])
def test_a_run_evaluated_as_it_was_trained(template: str, model: Path, tmp_path: Path) -> None:
    assert unlike_training(trained(tmp_path, template), template, model, model) == []


@pytest.mark.parametrize(
    ("there", "here", "what"),
    [
        ("chat", "plain-chat", "every question ends with 'Please reason"),
        ("plain-chat", "chat", "Please reason"),
        ("qwen-boxed", "qwen25-math-cot", "here"),
        ("qwen25-math-cot", "qwen-boxed", "here"),
        ("chat", "abel", "Question:"),
        ("chat", "raw", "here"),
    ],
)
def test_another_template(there: str, here: str, what: str, model: Path, tmp_path: Path) -> None:
    questions = [f"{question}\nSay." for question in QUESTIONS]  # many lines each
    rows = [chat_messages(there, question[:-5]) for question in questions]
    (line,) = unlike_training(trained(tmp_path, there, rows), here, model, model)
    assert line.startswith(f"template {here} does not ask as {tmp_path / 'val.parquet'} did")
    assert what in line


def test_an_instruction_of_the_datas_own(model: Path, tmp_path: Path) -> None:
    rows = [
        [{"role": "user", "content": f"Solve this.\n{question}\nThink."}] for question in QUESTIONS
    ]
    begins, ends = unlike_training(trained(tmp_path, "", rows), "plain-chat", model, model)
    assert "every question begins with 'Solve this.'" in begins
    assert "every question ends with 'Think.'" in ends


OTHER = "{% for m in messages %}<|im_start|>{{ m.role }}: {{ m.content }}<|im_end|>{% endfor %}A:"
THINKS = "{% for m in messages %}{{ m.content }}<|im_end|>{% endfor %}{{ 'T' if think }}"


def test_another_chat_template_than_the_models_own(model: Path, tmp_path: Path) -> None:
    config = trained(tmp_path, chat_template=OTHER)
    (line,) = unlike_training(config, "chat", model, model)
    assert "row 0" in line
    checkpoint = templates.chatml()  # has training's
    checkpoint.chat_template = OTHER
    checkpoint.save_pretrained(tmp_path / "checkpoint")
    assert unlike_training(config, "chat", tmp_path / "checkpoint", model) == []


def test_chat_template_arguments(tmp_path: Path) -> None:
    tokenizer = templates.chatml()
    tokenizer.chat_template = THINKS
    tokenizer.save_pretrained(tmp_path / "model")
    model = tmp_path / "model"
    assert unlike_training(trained(tmp_path), "chat", model, model) == []
    assert len(unlike_training(trained(tmp_path, think=True), "chat", model, model)) == 1


def test_another_tokenizer(model: Path, tmp_path: Path) -> None:
    other = templates.chatml()
    other.add_tokens(["Compute"])
    other.save_pretrained(tmp_path / "other")
    (line,) = unlike_training(trained(tmp_path), "chat", tmp_path / "other", model)
    assert "the same text has other tokens" in line


def test_a_system_turn_of_the_datas_own(model: Path, tmp_path: Path) -> None:
    rows = [
        [{"role": "system", "content": "Be brief."}, *chat_messages("chat", question)]
        for question in QUESTIONS
    ]
    (line,) = unlike_training(trained(tmp_path, "", rows), "chat", model, model)
    assert "Be brief" in line


def test_what_cannot_be_compared_says_so(model: Path, tmp_path: Path) -> None:
    config = trained(tmp_path)
    (tmp_path / "val.parquet").unlink()
    (line,) = unlike_training(config, "chat", model, model)
    assert line.startswith("the prompts could not be compared with training's: FileNotFoundError")
    config = trained(tmp_path, chat_template="{{ raise_exception('no') }}")
    (line,) = unlike_training(config, "chat", model, model)
    assert "could not be compared" in line
    assert INSTRUCTION not in line


@pytest.mark.parametrize("name", ["val.jsonl", "val.json", "val.parquet"])
@pytest.mark.parametrize("text", [False, True])
def test_files_of_all_formats(name: str, text: bool, model: Path, tmp_path: Path) -> None:
    """Prompts as JSON text, too."""
    config = trained(tmp_path)
    config.data.val_files = str(tmp_path / name)
    rows = [{"prompt": chat_messages("chat", question)} for question in QUESTIONS]
    if text:
        rows = [{"prompt": json.dumps(row["prompt"])} for row in rows]
    if name.endswith("parquet"):
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / name)
    else:
        (tmp_path / name).write_text("\n".join(map(json.dumps, rows)))
    assert unlike_training(config, "chat", model, model) == []


def test_a_date_that_training_pinned(tmp_path: Path) -> None:
    """The saved config is that before it was."""
    dated = "{{ date_string if date_string is defined else strftime_now('%d') }}"
    templates.chatml(dated + templates.CHATML).save_pretrained(tmp_path / "model")
    model = tmp_path / "model"
    assert unlike_training(trained(tmp_path), "chat", model, model) == []


def test_fields_that_a_message_lacks_are_null_as_in_training(tmp_path: Path) -> None:
    """A template may ask whether there is one."""
    named = "{% if messages[-1].name is defined %}N{% endif %}" + templates.CHATML
    templates.chatml(named).save_pretrained(tmp_path / "model")
    model = tmp_path / "model"
    rows = [[message | {"name": None} for message in chat_messages("chat", QUESTIONS[0])]]
    (line,) = unlike_training(trained(tmp_path, "chat", rows), "chat", model, model)
    assert "'N<|im_start|>" in line


def test_tools_of_the_training(model: Path, tmp_path: Path) -> None:
    config = trained(tmp_path)
    rollout = {"multi_turn": {"function_tool_path": "/t.py"}}
    config.actor_rollout_ref.rollout = rollout
    assert unlike_training(config, "chat", model, model) == []
    config.actor_rollout_ref.rollout.agent = {"default_agent_loop": "tool_agent"}
    (line,) = unlike_training(config, "chat", model, model)
    assert line == "training's prompts showed the tools of /t.py, these show none"
