"""A model's folder: the added tokens, what is kept of a model, and what is refused."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from tokenizers.processors import TemplateProcessing

from rsp_rl.basics.errors import ConfigError, RunFolderError
from rsp_rl.latent.folder import (
    BEGIN,
    CLASSIFIER_FILE,
    END,
    FILE,
    LATENT,
    load_thinker,
    new_classifier,
    read_thinking,
    save_thinker,
)
from rsp_rl.latent.generation import answer
from rsp_rl.latent.problem_tokens import answer_of, is_right, tokenize
from rsp_rl.latent.scratch import build_model, build_tokenizer
from rsp_rl.latent.settings import CLASSIFIER, Settings

from .conftest import thinker_of


def test_added_tokens_begin_as_the_sign_of_a_calculation(any_model):
    thinker = load_thinker(any_model)
    markers = [thinker.markers.begin, thinker.markers.end, thinker.markers.latent]
    assert thinker.tokenizer.convert_ids_to_tokens(markers) == [BEGIN, END, LATENT]
    assert len({*markers}) == 3
    source = thinker.tokenizer.encode("<<", add_special_tokens=False)[0]
    for layer in (thinker.model.get_input_embeddings(), thinker.model.get_output_embeddings()):
        assert len(layer.weight) == len(thinker.tokenizer)
        for marker in markers:
            assert torch.equal(layer.weight[marker], layer.weight[source])


def test_a_saved_model_answers_as_it_did(gpt2, step_problems, tmp_path):
    settings = Settings(max_stage=2, ends=CLASSIFIER, pad_thoughts=False, max_new_tokens=5)
    thinker = thinker_of(gpt2, settings, torch.float32)
    thinker.classifier = new_classifier(thinker.model)
    torch.nn.init.normal_(thinker.classifier.weight)
    questions = [tokens.question for tokens in tokenize(step_problems[:5], thinker.tokenizer)]
    save_thinker(tmp_path, thinker)
    again = load_thinker(tmp_path)
    assert again.thinking == thinker.thinking
    assert again.markers == thinker.markers
    assert [(a.text, a.thoughts) for a in answer(again, questions)] == [
        (a.text, a.thoughts) for a in answer(thinker, questions)
    ]


@pytest.mark.parametrize(
    "content",
    ["{", "[]", "{}", '{"thinking": {"method": "coconut"}}', '{"thinking": null}'],
)
def test_what_a_damaged_folder_says(content, tmp_path):
    assert read_thinking(tmp_path) is None
    (tmp_path / FILE).write_text(content)
    with pytest.raises(RunFolderError, match=r"latent\.json is damaged"):
        read_thinking(tmp_path)


def test_a_folder_of_an_unknown_method(gpt2, tmp_path):
    thinker = thinker_of(gpt2, Settings(), torch.float32)
    save_thinker(tmp_path, thinker)
    content = json.loads((tmp_path / FILE).read_text())
    content["thinking"]["method"] = "telepathy"
    (tmp_path / FILE).write_text(json.dumps(content))
    with pytest.raises(RunFolderError, match="telepathy"):
        load_thinker(tmp_path)


def test_a_folder_without_its_classifier(gpt2, tmp_path):
    settings = Settings(ends=CLASSIFIER, pad_thoughts=False)
    thinker = thinker_of(gpt2, settings, torch.float32)
    thinker.classifier = new_classifier(thinker.model)
    save_thinker(tmp_path, thinker)
    (tmp_path / CLASSIFIER_FILE).unlink()
    with pytest.raises(RunFolderError, match=r"end_classifier\.safetensors is missing"):
        load_thinker(tmp_path)


def test_a_folder_without_weights(gpt2, tmp_path):
    shutil.copytree(gpt2, tmp_path / "m")
    (tmp_path / "m" / "model.safetensors").unlink()
    with pytest.raises(ConfigError, match=r"holds no \*\.safetensors weights"):
        load_thinker(tmp_path / "m")


@pytest.mark.parametrize(
    ("text", "stated"),
    [
        ("a step\n### 12", "12"),
        ("### 1\n### 2\nmore", "2"),
        ("### 1,200", "1,200"),
        ("no mark 12", None),
        ("###", None),
        ("### \n12", None),
        ("", None),
        ("###\u2028x", None),
    ],
)
def test_the_answer_that_a_text_states(text, stated):
    assert answer_of(text) == stated


def test_commas_do_not_count():
    assert is_right("### 1,200", "1200")
    assert is_right("### 1200", "1,200")
    assert not is_right("### 12", "1200")
    assert not is_right("1200", "1200")


def test_a_tokenizer_knows_its_words_and_any_other_text(step_problems):
    tokenizer = build_tokenizer(step_problems)
    strange = "Zażółć 12 \U0001f600 ###\n"
    assert tokenizer.decode(tokenizer.encode(strange)) == strange
    with pytest.raises(ConfigError, match="architecture 'bert'"):
        build_model(tokenizer, architecture="bert")
    with pytest.raises(ConfigError, match="hidden_size 30"):
        build_model(tokenizer, hidden_size=30, heads=4)


def test_a_question_begins_as_the_tokenizer_begins_a_text(step_problems):
    tokenizer = build_tokenizer(step_problems)
    [plain] = tokenize(step_problems[:1], tokenizer)
    tokenizer.add_special_tokens({"bos_token": "<s>"})
    [unused] = tokenize(step_problems[:1], tokenizer)
    assert unused.question == plain.question  # it has one, and puts it nowhere
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", tokenizer.bos_token_id)]
    )
    [begun] = tokenize(step_problems[:1], tokenizer)
    assert begun.question == (tokenizer.bos_token_id, *plain.question)
    assert (begun.steps, begun.answer) == (plain.steps, plain.answer)
