"""The tiny model: a tokenizer that survives its reload, a folder whole or absent, a warm-up."""

import itertools
import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer

from rsp_rl.data import arithmetic
from rsp_rl.data.arithmetic import Problem, generate
from rsp_rl.tiny import MAX_PROMPT_LENGTH, MAX_RESPONSE_LENGTH, folder, make_tiny_model, warmup
from rsp_rl.tiny.__main__ import main
from rsp_rl.tiny.decoding import is_right, prompt_ids, respond
from rsp_rl.tiny.model import CONTEXT_LENGTH, build_model
from rsp_rl.tiny.tokenizer import build_tokenizer
from rsp_rl.tiny.warmup import IGNORED, WarmupSamples, response_loss
from tests.properties import examples
from tests.tolerances import FORWARD

SIZES = {"hidden_size": 32, "num_heads": 2, "num_layers": 1}
CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Compute 7+2-4."},
    {"role": "assistant", "content": r"\boxed{5}"},
    {"role": "user", "content": "And <|im_end|> plus 1?"},
]
FULL_SIZE = [p for split in arithmetic.SPLIT_SHARES for p in generate(split, 300, seed=9)]


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    return make_tiny_model(tmp_path_factory.mktemp("tiny") / "model", steps=0)


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer(CONTEXT_LENGTH)


@pytest.fixture(scope="module")
def reloaded(model_folder):
    return AutoTokenizer.from_pretrained(model_folder)


# ---- tokenizer ----------------------------------------------------------------------------------


@examples(200)
@given(text=st.text(max_size=60))
def test_any_text_tokenises_the_same_after_reload(tokenizer, reloaded, text):
    assert reloaded(text).input_ids == tokenizer(text).input_ids


@pytest.mark.parametrize(
    "text",
    [
        "Compute 7+2-4+19.",
        "7+2=9\n9-4=5\n\\boxed{5}",
        "  two  spaces\r\n\n\ttab it's I'LL 123456 x=3.5e-7 ",
        "naïve 数学 🙂 \u0301a\u200b",
        "<|im_start|>user\nhi<|im_end|>\n<|endoftext|><|im_en",
        "",
    ],
)
def test_awkward_texts_tokenise_the_same_after_reload(tokenizer, reloaded, text):
    assert reloaded(text).input_ids == tokenizer(text).input_ids


@given(text=st.text(alphabet="0123456789+-=\\{}. \nabcdexoBCmput", max_size=60))
def test_decoding_gives_the_text_back(tokenizer, text):
    assert tokenizer.decode(tokenizer(text).input_ids) == text


def test_the_tokenizer_is_the_same_every_time(tokenizer):
    again = build_tokenizer(CONTEXT_LENGTH)
    assert again.backend_tokenizer.to_str() == tokenizer.backend_tokenizer.to_str()
    assert len(tokenizer) <= 331


def test_words_of_the_template_and_the_task_are_single_tokens(tokenizer):
    for word in ("user", "assistant", "system", "Compute", "\\boxed", "<|im_start|>", "<|im_end|>"):
        assert len(tokenizer(word).input_ids) == 1, word


def test_the_chat_template_is_chatml_and_survives_the_reload(tokenizer, reloaded):
    text = tokenizer.apply_chat_template(CHAT, tokenize=False, add_generation_prompt=True)
    assert text == (
        "<|im_start|>system\nBe brief.<|im_end|>\n"
        "<|im_start|>user\nCompute 7+2-4.<|im_end|>\n"
        "<|im_start|>assistant\n\\boxed{5}<|im_end|>\n"
        "<|im_start|>user\nAnd <|im_end|> plus 1?<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    assert reloaded.apply_chat_template(CHAT) == tokenizer.apply_chat_template(CHAT)
    # No system turn is put before a conversation that has none.
    assert tokenizer.apply_chat_template(CHAT[1:2], tokenize=False).startswith("<|im_start|>user")


def test_special_tokens_survive_the_reload(tokenizer, reloaded):
    for tok in (tokenizer, reloaded):
        assert (tok.eos_token, tok.pad_token) == ("<|im_end|>", "<|endoftext|>")
        assert tok.model_max_length == CONTEXT_LENGTH


def test_prompts_and_solutions_keep_their_bounds(tokenizer):
    prompts = [len(ids) for ids in prompt_ids(tokenizer, FULL_SIZE)]
    solutions = [len(tokenizer(p.reasoned_solution).input_ids) + 1 for p in FULL_SIZE]
    assert max(prompts) == MAX_PROMPT_LENGTH <= 25
    assert max(solutions) == MAX_RESPONSE_LENGTH <= 30


# ---- model --------------------------------------------------------------------------------------


@pytest.mark.parametrize("tied", [False, True])
def test_the_folder_loads_and_computes(tmp_path, tied):
    made = make_tiny_model(tmp_path / "m", seed=4, steps=0, tie_word_embeddings=tied, **SIZES)
    model = AutoModelForCausalLM.from_pretrained(made)
    tok = AutoTokenizer.from_pretrained(made)
    assert model.config.model_type == "qwen2"
    assert model.config.vocab_size == model.get_input_embeddings().num_embeddings == len(tok)
    assert model.dtype == torch.float32
    assert model.config.max_position_embeddings >= 512
    assert model.generation_config.eos_token_id == tok.eos_token_id
    assert model.generation_config.pad_token_id == tok.pad_token_id
    shared = model.get_input_embeddings().weight is model.get_output_embeddings().weight
    assert shared == model.config.tie_word_embeddings == tied
    ids = torch.tensor([tok("Compute 1+1.").input_ids])
    built = build_model(tok, seed=4, tie_word_embeddings=tied, **SIZES)
    torch.testing.assert_close(model(ids).logits, built(ids).logits, rtol=0, atol=FORWARD)


def test_weights_depend_on_the_seed_and_not_on_torchs_generator(tokenizer):
    torch.manual_seed(1)
    state = torch.get_rng_state()
    one = build_model(tokenizer, seed=0, **SIZES).lm_head.weight
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    assert torch.equal(build_model(tokenizer, seed=0, **SIZES).lm_head.weight, one)
    assert not torch.equal(build_model(tokenizer, seed=1, **SIZES).lm_head.weight, one)


@pytest.mark.parametrize("tied", [False, True])
def test_muon_and_adam_share_out_every_parameter_once(tokenizer, tied):
    model = build_model(tokenizer, seed=0, tie_word_embeddings=tied, **SIZES)
    muon, adam = warmup._optimizers(model)
    matrices = {id(w) for group in muon.param_groups for w in group["params"]}
    others = {id(w) for group in adam.param_groups for w in group["params"]}
    assert matrices | others == {id(w) for w in model.parameters()}
    assert not matrices & others
    assert id(model.get_input_embeddings().weight) in others


# ---- decoding -----------------------------------------------------------------------------------


def test_greedy_decoding_agrees_with_transformers(model_folder, reloaded):
    model = AutoModelForCausalLM.from_pretrained(model_folder)
    problems = generate("train", 6)
    for problem, response in zip(problems, respond(model, reloaded, problems), strict=True):
        prompt = torch.tensor(prompt_ids(reloaded, [problem]))
        expected = model.generate(prompt, max_new_tokens=MAX_RESPONSE_LENGTH, do_sample=False)
        assert response == reloaded.decode(expected[0, prompt.shape[1] :], skip_special_tokens=True)


def test_sampling_repeats_with_its_generator_and_prompts_can_be_edited(model_folder, reloaded):
    model = AutoModelForCausalLM.from_pretrained(model_folder)
    problems = generate("train", 4)

    def sample(seed, **options):
        generator = torch.Generator().manual_seed(seed)
        return respond(model, reloaded, problems, generator=generator, **options)

    assert sample(1) == sample(1) != sample(2)
    assert sample(1, edit_prompt=lambda embeddings: embeddings[:, :5]) != sample(1)


@pytest.mark.parametrize(
    ("response", "right"),
    [
        (r"\boxed{5}", True),
        ("7+2=9\n9-4=5\n" + r"\boxed{5}", True),
        (r"\boxed{4} no \boxed{5}", True),
        (r"\boxed{5} no \boxed{4}", False),
        (r"\boxed{05}", False),
        ("5", False),
        ("", False),
    ],
)
def test_the_last_boxed_number_counts(response, right):
    assert is_right(response, Problem((7, 2, -4))) == right


# ---- warm-up ------------------------------------------------------------------------------------


def test_samples_are_prompts_with_noise_before_the_end_of_turn(tokenizer):
    samples = WarmupSamples(tokenizer, np.random.default_rng(0), pool_size=50)
    problems = {p.question: p for p in generate("warmup", 50)}
    batches = itertools.islice(samples.batches(40), 10)
    rows = [row for batch in batches for row in zip(*batch, strict=True)]
    noisy = direct = 0
    for input_row, label_row in rows:
        response = label_row[label_row != IGNORED]
        start = int((label_row != IGNORED).nonzero()[0])
        assert torch.equal(input_row[start : start + len(response)], response)
        assert response[-1] == tokenizer.eos_token_id
        prompt = tokenizer.decode(input_row[:start])
        assert prompt.endswith("<|im_end|>\n<|im_start|>assistant\n")
        question = prompt.removeprefix("<|im_start|>user\n").split(".")[0] + "."
        problem = problems[question]
        noise = start - len(prompt_ids(tokenizer, [problem])[0])
        assert 0 <= noise <= warmup.MAX_NOISE_TOKENS
        noisy += noise > 0
        text = tokenizer.decode(response, skip_special_tokens=True)
        assert text in (problem.direct_solution, problem.reasoned_solution)
        direct += text == problem.direct_solution
    # 400 draws of one seed: four standard errors.
    assert noisy / len(rows) == pytest.approx(warmup.NOISE_SHARE, abs=0.1)
    assert direct / len(rows) == pytest.approx(warmup.DIRECT_SHARE, abs=0.1)


def test_the_loss_counts_response_tokens_alone(tokenizer):
    model = build_model(tokenizer, seed=0, **SIZES)
    batches = WarmupSamples(tokenizer, np.random.default_rng(0), pool_size=8).batches(4)
    input_ids, labels = next(batches)
    mask = (input_ids != tokenizer.pad_token_id).long()
    expected = model(input_ids, attention_mask=mask, labels=labels).loss
    loss = response_loss(model, input_ids, labels)
    torch.testing.assert_close(loss, expected, rtol=0, atol=FORWARD)


def test_a_warm_up_learns_and_is_repeatable(tmp_path, monkeypatch, tokenizer):
    monkeypatch.setattr(warmup, "CHECK_PROBLEMS", 12)
    folders = [
        make_tiny_model(tmp_path / name, seed=7, steps=12, threads=1, **SIZES) for name in "ab"
    ]
    weights = [(made / "model.safetensors").read_bytes() for made in folders]
    assert weights[0] == weights[1]
    batch = next(WarmupSamples(tokenizer, np.random.default_rng(0), pool_size=32).batches(32))
    untrained = build_model(tokenizer, seed=7, **SIZES)
    trained = AutoModelForCausalLM.from_pretrained(folders[0])
    assert response_loss(trained, *batch) < response_loss(untrained, *batch) - 0.1


# ---- folder -------------------------------------------------------------------------------------


def test_a_finished_folder_is_kept_and_a_different_one_replaced(tmp_path):
    output = tmp_path / "deep" / "model"
    make_tiny_model(output, steps=0, **SIZES)
    marker = output / "marker"
    marker.write_text("")
    assert make_tiny_model(output, steps=0, **SIZES) == output
    assert marker.exists()
    make_tiny_model(output, steps=0, seed=1, **SIZES)
    assert not marker.exists()
    assert [p.name for p in output.parent.iterdir()] == ["model"]
    assert folder.read_record(output)["settings"]["seed"] == 1


def test_an_interrupted_call_leaves_the_old_folder(tmp_path, monkeypatch):
    output = make_tiny_model(tmp_path / "model", steps=0, **SIZES)
    before = {p.name: p.read_bytes() for p in output.iterdir()}

    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(folder, "_replace_folder", interrupt)
    with pytest.raises(KeyboardInterrupt):
        make_tiny_model(output, steps=0, seed=1, **SIZES)
    assert {p.name: p.read_bytes() for p in output.iterdir()} == before
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_a_folder_of_something_else_is_never_replaced(tmp_path):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "thesis.tex").write_text("years of work")
    with pytest.raises(FileExistsError, match="something other than a tiny model"):
        make_tiny_model(tmp_path / "notes", steps=0)
    with pytest.raises(FileExistsError, match="is a file"):
        make_tiny_model(tmp_path / "notes" / "thesis.tex", steps=0)
    (tmp_path / "empty").mkdir()
    make_tiny_model(tmp_path / "empty", steps=0, **SIZES)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": -1}, "steps is -1"),
        ({"threads": 0}, "threads is 0"),
        ({"hidden_size": 0}, "at least 1"),
        ({"num_layers": -2}, "at least 1"),
        ({"hidden_size": 30}, "multiple of 2 x num_heads = 8"),
    ],
)
def test_impossible_settings_are_one_clear_error(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        make_tiny_model(tmp_path / "model", **{"steps": 0, **options})
    assert not list(tmp_path.iterdir())


def test_the_command_line_makes_a_folder(tmp_path, capsys):
    output = tmp_path / "model"
    main(["--output", str(output), "--no-warmup", "--hidden-size", "32", "--num-heads", "2"])
    assert json.loads((output / "config.json").read_text())["hidden_size"] == 32
    assert str(output) in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "message"),
    [(["--steps", "-3"], "steps is -3"), (["--bogus"], "unrecognized arguments")],
)
def test_the_command_line_refuses_bad_options(tmp_path, capsys, option, message):
    with pytest.raises(SystemExit) as exit_info:
        main(["--output", str(tmp_path / "model"), *option])
    assert exit_info.value.code == 2
    assert message in capsys.readouterr().err
