"""Batched answers over a cache, against one problem at a time by forward passes from the start."""

from __future__ import annotations

import pytest
import torch

from rsp_rl.latent.folder import new_classifier
from rsp_rl.latent.generation import answer
from rsp_rl.latent.layout import prefix
from rsp_rl.latent.methods import METHODS, THOUGHTS
from rsp_rl.latent.problem_tokens import tokenize
from rsp_rl.latent.settings import CLASSIFIER, Settings

from .conftest import thinker_of

LIMIT = 7


@torch.no_grad()
def naive_answer(thinker, question) -> tuple[str, int, int]:
    """Text, tokens and number of thoughts of a greedy answer, the whole sequence anew for each."""
    model, thinking, method = thinker.model, thinker.thinking, thinker.method
    table = model.get_input_embeddings()
    states = lambda inputs: model(inputs_embeds=inputs, output_hidden_states=True)  # noqa: E731
    thoughts = thinking.thoughts if method.filler == THOUGHTS else 0
    tokens, first = prefix(
        question, method, thinking.thoughts if method.filler != THOUGHTS else 0, thinker.markers
    )
    inputs = table(torch.tensor(tokens[:first] if thoughts else tokens))[None]
    made = 0
    while made < thoughts:
        last = states(inputs).hidden_states[-1][:, -1:]
        if made and thinker.classifier is not None and thinker.classifier(last.float()) > 0:
            break
        inputs = torch.cat([inputs, last], dim=1)
        made += 1
    if thoughts:
        inputs = torch.cat([inputs, table(torch.tensor([[thinker.markers.end]]))], dim=1)
    written: list[int] = []
    while len(written) < LIMIT:
        token = int(states(inputs).logits[0, -1].argmax())
        if token == thinker.tokenizer.eos_token_id:
            break
        written.append(token)
        inputs = torch.cat([inputs, table(torch.tensor([[token]]))], dim=1)
    text = thinker.tokenizer.decode(written, skip_special_tokens=True)
    return text, len(written), made


@pytest.mark.parametrize("method", METHODS)
def test_a_batch_answers_as_each_problem_does_alone(method, any_model, step_problems):
    settings = Settings(method=method, max_stage=2, thoughts_per_step=2)
    thinker = thinker_of(any_model, settings)
    questions = [tokens.question for tokens in tokenize(step_problems[:9], thinker.tokenizer)]
    assert len({*map(len, questions)}) > 1
    found = list(answer(thinker, questions, batch_size=4, max_new_tokens=LIMIT))
    expected = [naive_answer(thinker, question) for question in questions]
    assert [(a.text, a.written, a.thoughts) for a in found] == expected
    assert {a.thoughts for a in found} == {4 if METHODS[method].filler == THOUGHTS else 0}


def test_a_classifier_ends_the_thoughts_of_each_problem_by_itself(gpt2, step_problems):
    settings = Settings(max_stage=6, pad_thoughts=False, ends=CLASSIFIER)
    thinker = thinker_of(gpt2, settings)
    questions = [tokens.question for tokens in tokenize(step_problems[:24], thinker.tokenizer)]
    thinker.classifier = new_classifier(thinker.model)
    torch.manual_seed(3)
    torch.nn.init.normal_(thinker.classifier.weight, std=0.1)
    # Blocks that add as much as the embeddings are: a state then tells problems apart.
    with torch.no_grad():
        for name, weight in thinker.model.named_parameters():
            if name.endswith("c_proj.weight"):
                weight *= 10
    found = list(answer(thinker, questions, batch_size=24, max_new_tokens=LIMIT))
    expected = [naive_answer(thinker, question) for question in questions]
    assert [(a.text, a.written, a.thoughts) for a in found] == expected
    assert len({a.thoughts for a in found}) > 1
    assert max(a.thoughts for a in found) <= 6


def test_an_answer_that_ends_says_so_and_leaves_the_end_out(gpt2, step_problems, monkeypatch):
    thinker = thinker_of(gpt2, Settings(method="cot"))
    [question] = [t.question for t in tokenize(step_problems[:1], thinker.tokenizer)]
    [cut] = answer(thinker, [question], max_new_tokens=3)
    assert (cut.written, cut.ended) == (3, False)
    # Whatever the model says is its end of text.
    head = thinker.model.get_output_embeddings()
    eos = thinker.tokenizer.eos_token_id
    monkeypatch.setattr(
        head,
        "forward",
        lambda states: torch.nn.functional.one_hot(torch.full((len(states),), eos), eos + 1),
    )
    [ended] = answer(thinker, [question], max_new_tokens=3)
    assert (ended.text, ended.ended, ended.tokens) == ("", True, 0)


def test_what_has_no_filler_gets_none_whatever_is_asked(gpt2, step_problems):
    thinker = thinker_of(gpt2, Settings(method="cot"))
    questions = [t.question for t in tokenize(step_problems[:3], thinker.tokenizer)]
    asked = list(answer(thinker, questions, thoughts=5, max_new_tokens=LIMIT))
    plain = list(answer(thinker, questions, max_new_tokens=LIMIT))
    assert [a.text for a in asked] == [a.text for a in plain]
