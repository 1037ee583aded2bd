"""The reference engine's loop, against whole forwards, and against itself without a law."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from rsp_rl.draws.embedding_stats import embedding_stats
from rsp_rl.draws.record import SoftPromptRecord
from rsp_rl.inference.huggingface import HuggingFaceEngine
from rsp_rl.inference.requests import Completion, EngineOptions, Request
from rsp_rl.models.folder import load_tokenizer
from rsp_rl.thoughts.embedding import TableEmbedding
from rsp_rl.thoughts.law import Moment
from rsp_rl.thoughts.names import LAWS, law_from_settings
from rsp_rl.thoughts.noise import Noise
from rsp_rl.thoughts.phases import Phases
from rsp_rl.thoughts.record import ThoughtRecord
from rsp_rl.thoughts.replay import replay_inputs, replay_scores
from rsp_rl.thoughts.rows import Kind, Rows
from rsp_rl.thoughts.settings import Thinking
from rsp_rl.tiny import make_tiny_model
from tests.tolerances import FORWARD

OPTIONS = EngineOptions(kind="huggingface", dtype="float32", max_num_seqs=16)
SAMPLING: dict[str, Any] = {
    "temperature": 0.0,
    "top_p": 1.0,
    "top_k": 0,
    "max_tokens": 12,
    "stop": [],
    "stop_token_ids": [],
}
PHASES = Phases(max_thoughts=6, on_cut=(40, 41))
PROMPTS = ([5, 10, 11], [6, 6, 7, 8], [12, 10, 11], [13, 6, 7, 8])


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("model"), seed=0, steps=0)


@pytest.fixture(scope="module")
def engine(model: Path) -> HuggingFaceEngine:
    return HuggingFaceEngine(model, OPTIONS)


@pytest.fixture(scope="module")
def embedding(engine: HuggingFaceEngine) -> TableEmbedding:
    return TableEmbedding.of(engine.host.network.get_input_embeddings())


def thinking(name: str, phases: Phases = PHASES, seed: int = 7, **settings: Any) -> Thinking:
    if name in ("soft", "fuzzy"):
        settings = {"rms": 0.1} | settings
    if name == "neighbours":
        settings = {"rate": 1.0} | settings  # a mixture everywhere
    return Thinking(law_from_settings(name, settings), phases, seed)


def asked(
    number: int, thoughts: Thinking | None, prompt: list[int] | None = None, **changes: Any
) -> Request:
    ids = prompt or PROMPTS[number % len(PROMPTS)]
    sampling = SAMPLING | {"seed": 100 + number} | changes
    return Request(number, ids, sampling, thinking=thoughts)


def with_soft_prompt(model: Path, request: Request, length: int = 4) -> Request:
    stats = embedding_stats(model)
    record = SoftPromptRecord(request.number, 2, length, stats.mean, stats.std, "float32", 0)
    ids = request.token_ids[:2] + [0] * length + request.token_ids[2:]
    return replace(request, token_ids=ids, record=record)


def completions(engine: HuggingFaceEngine, *requests: Request) -> list[Completion]:
    return [done for batch in engine.generate(requests) for done in batch]


def tokens_of(done: Completion) -> list[int]:
    assert done.thoughts is not None
    return done.thoughts.rows.emitted_N.tolist()


@contextmanager
def heard_logits(engine: HuggingFaceEngine) -> Iterator[list[torch.Tensor]]:
    """The last position's logits of every forward, [B, V] each."""
    found: list[torch.Tensor] = []
    hook = engine.host.network.register_forward_hook(
        lambda module, args, output: found.append(output.logits[:, -1].float().clone())
    )
    try:
        yield found
    finally:
        hook.remove()


def whole_forward(engine: HuggingFaceEngine, inputs_D: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Logits and last hidden states of one sequence, without cache or padding."""
    with torch.no_grad():
        output = engine.host.network(inputs_embeds=inputs_D[None], output_hidden_states=True)
    return output.logits[0].float(), output.hidden_states[-1][0]


@pytest.mark.parametrize("name", LAWS)
def test_thoughts_by_whole_forwards(
    engine: HuggingFaceEngine, embedding: TableEmbedding, model: Path, name: str
) -> None:
    """Padded batches, with a soft prompt and without: thoughts as whole forwards lead to them."""
    requests = [asked(i, thinking(name, seed=i)) for i in range(3)]
    requests += [with_soft_prompt(model, asked(3, thinking(name, seed=3)))]
    for request, done in zip(requests, completions(engine, *requests), strict=True):
        assert done.thoughts is not None
        thoughts, law = done.thoughts, request.thinking.law
        assert len(thoughts) == done.tokens == 12
        inputs_D = embedding.rows(torch.tensor(request.token_ids))
        if request.record:
            inputs_D[2:6] = request.record.draw(inputs_D.shape[1])
        for at in range(6):
            logits_TV, hidden_TD = whole_forward(engine, inputs_D)
            position = torch.tensor([len(request.token_ids) + at])
            noise = Noise(torch.tensor([request.thinking.seed]), position)
            row = law.step(Moment(logits_TV[-1:], noise, embedding, hidden_TD[-1:]))
            assert torch.equal(row.ids_NK, thoughts.rows.ids_NK[at : at + 1])
            torch.testing.assert_close(
                law.weights(row), law.weights(thoughts.rows[at : at + 1]), rtol=0, atol=1e-4
            )
            assert int(thoughts.rows.kind_N[at]) == law.kind
            # On from what is recorded: differences do not grow.
            fed_ND = law.embed(thoughts.rows[at : at + 1], embedding)
            torch.testing.assert_close(law.embed(row, embedding), fed_ND, rtol=0, atol=1e-3)
            inputs_D = torch.cat([inputs_D, fed_ND])
        assert tokens_of(done)[6:8] == [40, 41]
        assert thoughts.rows.kind_N[6:].tolist() == [Kind.FORCED] * 2 + [Kind.TOKEN] * 4
        inputs_D = torch.cat([inputs_D, embedding.rows(torch.tensor([40, 41]))])
        for token in tokens_of(done)[8:]:  # a greedy answer
            logits_TV, _ = whole_forward(engine, inputs_D)
            assert token == int(logits_TV[-1].argmax())
            inputs_D = torch.cat([inputs_D, embedding.rows(torch.tensor([token]))])


def test_mixed_batches_are_what_each_is_alone(engine: HuggingFaceEngine, model: Path) -> None:
    """All laws, plain requests and soft prompts at once; sampled answers."""
    requests = [asked(i, thinking(name, seed=i), temperature=1.0) for i, name in enumerate(LAWS)]
    requests += [asked(20, None, temperature=1.0), asked(21, None, temperature=1.0)]
    requests += [with_soft_prompt(model, requests[3]), with_soft_prompt(model, requests[-1])]
    together = completions(engine, *requests)
    assert len({done.text for done in together}) > 8
    for request, done in zip(requests, together, strict=True):
        (alone,) = completions(engine, request)
        assert (alone.text, alone.tokens, alone.finish_reason) == (
            *(done.text, done.tokens, done.finish_reason),
        )
        assert (done.thoughts is None) == (request.thinking is None)
        if done.thoughts:
            assert tokens_of(alone) == tokens_of(done)


@pytest.mark.parametrize("changes", [{}, {"temperature": 1.0}, {"temperature": 0.7, "top_k": 9}])
def test_plain_requests_get_what_they_get_without_a_law(
    engine: HuggingFaceEngine, changes: dict[str, Any]
) -> None:
    """In a batch with thoughts, and without the loop."""
    plain = [asked(i, None, **changes) for i in range(4)]
    expected = engine.generate_tokens(plain)
    loop = completions(engine, *plain, asked(9, thinking("gumbel"), **changes))
    without = completions(engine, *plain)
    assert [replace(done) for done in loop[:4]] == without
    assert [done.tokens for done in loop[:4]] == [len(tokens) for tokens in expected]


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("soft_thinking", {"k": 1}),
        ("gumbel", {"k": 1}),
        ("dirichlet", {"k": 1, "top_k": 1}),
        ("fuzzy", {"sigma": 0.0}),
        ("token", {"top_k": 1}),
        ("multiplex", {"k": 1, "top_k": 1}),
    ],
)
def test_laws_that_are_greedy(
    engine: HuggingFaceEngine, name: str, settings: dict[str, Any]
) -> None:
    """From the first token to the last, the engine's own tokens without a law."""
    plain = [asked(i, None) for i in range(4)]
    expected = engine.generate_tokens(plain)
    whole = Phases(max_thoughts=100)
    thinkers = [asked(i, thinking(name, whole, **settings)) for i in range(4)]
    assert [tokens_of(done) for done in completions(engine, *thinkers)] == expected


def test_tokens_everywhere_are_sampling(engine: HuggingFaceEngine) -> None:
    """The token law, multiplex of one draw, and the smallest tau: one and the same."""
    whole = Phases(max_thoughts=100)
    made = {}
    for name, settings in (
        ("token", {"top_k": 20, "temperature": 0.8}),
        ("multiplex", {"k": 1, "top_k": 20, "temperature": 0.8}),
        ("gumbel", {"k": 20, "tau": 1e-6, "top_k": 20, "top_p": 1.0, "temperature": 0.8}),
    ):
        requests = [asked(i, thinking(name, whole, seed=i, **settings)) for i in range(8)]
        made[name] = [tokens_of(done) for done in completions(engine, *requests)]
    assert made["token"] == made["multiplex"] == made["gumbel"]
    assert len({tuple(tokens) for tokens in made["token"]}) == 8


def test_noise_is_that_of_absolute_positions(engine: HuggingFaceEngine) -> None:
    """A thought goes on as from a longer prompt that ends in it: of laws that feed tokens."""
    whole = Phases(max_thoughts=100)
    (done,) = completions(engine, asked(0, thinking("token", whole)))
    tokens = tokens_of(done)
    longer = asked(0, thinking("token", whole), PROMPTS[0] + tokens[:5], max_tokens=7)
    assert tokens_of(*completions(engine, longer)) == tokens[5:]


# Where it begins and ends.


def test_stop_tokens_stop_strings_and_lengths(engine: HuggingFaceEngine, model: Path) -> None:
    request = asked(0, thinking("gumbel", Phases(max_thoughts=100), temperature=3.0, top_p=1.0))
    (whole,) = completions(engine, request)
    tokens = tokens_of(whole)
    assert (whole.tokens, whole.finish_reason) == (12, "length")
    stop = next(token for at, token in enumerate(tokens) if at > 2 and token not in tokens[:at])
    at = tokens.index(stop)
    stopped = asked(0, request.thinking, stop_token_ids=[stop])
    (done,) = completions(engine, stopped)
    assert (tokens_of(done), done.finish_reason) == (tokens[: at + 1], "stop")
    # A thought that ends the output is an ordinary token.
    assert done.thoughts.rows.kind_N.tolist() == [Kind.MIX] * at + [Kind.TOKEN]
    text = load_tokenizer(model).decode(tokens[: at + 1], skip_special_tokens=True)
    word = text[-2:]
    if len(text) > 2 and "\ufffd" not in word:  # part of a character is no string to stop at
        (cut,) = completions(engine, asked(0, request.thinking, stop=[word]))
        assert cut.finish_reason == "stop"
        assert cut.text == whole.text[: whole.text.index(word)]
        assert cut.tokens == len(cut.thoughts) <= at + 1
    # Beside one that goes on, nothing is added to the record.
    short, long = completions(engine, stopped, asked(1, None, stop_token_ids=[stop]))
    assert tokens_of(short) == tokens[: at + 1]
    assert long.thoughts is None
    (one,) = completions(engine, asked(0, request.thinking, max_tokens=1))
    assert tokens_of(one) == tokens[:1]


def test_end_of_thinking(engine: HuggingFaceEngine) -> None:
    free = thinking("gumbel", Phases(max_thoughts=100), temperature=3.0, top_p=1.0)
    (whole,) = completions(engine, asked(0, free))
    tokens = tokens_of(whole)
    at = next(n for n in range(2, 9) if tokens[n] not in tokens[:n])
    ends = replace(free, phases=Phases(end_ids=(tokens[at],), on_end=(60, 61)))
    (done,) = completions(engine, asked(0, ends))
    assert tokens_of(done)[: at + 3] == [*tokens[: at + 1], 60, 61]
    kinds = [Kind.MIX] * at + [Kind.TOKEN] + [Kind.FORCED] * 2
    assert done.thoughts.rows.kind_N.tolist() == kinds + [Kind.TOKEN] * (12 - len(kinds))


def test_begin_marker_and_dense_laws(engine: HuggingFaceEngine) -> None:
    """Samples before any thought, of a law whose records hold inputs."""
    (plain,) = engine.generate_tokens([asked(0, None)])
    marker = next(token for at, token in enumerate(plain) if at > 0)
    at = plain.index(marker)
    soft = thinking("soft", Phases(begin=(marker,), max_thoughts=3))
    (done,) = completions(engine, asked(0, soft))
    assert tokens_of(done)[: at + 1] == plain[: at + 1]
    kinds = [Kind.TOKEN] * (at + 1) + [Kind.MIX_NOISE] * 3
    assert done.thoughts.rows.kind_N.tolist()[: at + 4] == kinds
    never = replace(soft, phases=Phases(begin=(plain[0], plain[0], 283), max_thoughts=3))
    (done,) = completions(engine, asked(0, never))
    assert tokens_of(done) == plain
    assert done.thoughts.rows.dense_ND.shape == (len(plain), engine.host.hidden_size)


@pytest.mark.parametrize("abort", [False, True])
def test_cold_steps(engine: HuggingFaceEngine, abort: bool) -> None:
    """Every step of a model is below 100 nats; after thinking they end the output, if asked to."""
    phases = Phases(cold_entropy=100.0, cold_steps=3, on_cut=(40,), cold_abort=abort)
    (done,) = completions(engine, asked(0, thinking("multiplex", phases)))
    kinds = done.thoughts.rows.kind_N.tolist()
    assert kinds[:3] == [Kind.MIX, Kind.MIX, Kind.FORCED]
    assert (done.tokens, done.finish_reason) == ((6, "stop") if abort else (12, "length"))
    (cut,) = completions(engine, asked(0, thinking("multiplex", phases), max_tokens=6))
    assert (cut.tokens, cut.finish_reason) == (6, "length")


def test_a_law_that_does_not_fit(engine: HuggingFaceEngine) -> None:
    with pytest.raises(ValueError, match=r"law.k=1000, but the model has"):
        completions(engine, asked(0, thinking("soft_thinking", k=1000)))


def test_tokens_without_a_text_are_in_no_thought(
    engine: HuggingFaceEngine, model: Path, tmp_path: Path
) -> None:
    """As of plain requests: padding of the vocabulary, however likely."""
    network = engine.host.network
    known = network.config.vocab_size
    padded = type(network)(network.config)
    padded.load_state_dict(network.state_dict())
    padded.resize_token_embeddings(known + 2, mean_resizing=False)
    with torch.no_grad():
        padded.lm_head.weight[known] = 9 * padded.lm_head.weight[5]
        padded.lm_head.weight[known + 1] = -9 * padded.lm_head.weight[5]
    padded.save_pretrained(tmp_path)
    load_tokenizer(model).save_pretrained(tmp_path)
    wide = HuggingFaceEngine(tmp_path, OPTIONS)
    for name in ("gumbel", "multiplex", "soft_thinking"):
        request = asked(0, thinking(name))
        (expected,), (found,) = completions(engine, request), completions(wide, request)
        assert torch.equal(found.thoughts.rows.ids_NK, expected.thoughts.rows.ids_NK)


# Replay.


def replayed(
    engine: HuggingFaceEngine,
    embedding: TableEmbedding,
    request: Request,
    record: ThoughtRecord,
) -> torch.Tensor:
    """Logits before each position, [T, V], by one forward over what is recorded."""
    tokens = record.rows.emitted_N.tolist()
    soft = (2, request.record.draw(engine.host.hidden_size)) if request.record else None
    inputs_D = replay_inputs(request.token_ids, tokens, record, embedding, soft)
    logits_TV, _ = whole_forward(engine, inputs_D)
    return logits_TV[len(request.token_ids) - 1 : -1]


@pytest.mark.parametrize("name", [name for name in LAWS if name != "hidden"])
def test_replay_gives_the_loops_log_probs(
    engine: HuggingFaceEngine, embedding: TableEmbedding, model: Path, name: str
) -> None:
    """And hard tokens in place of mixtures do not: the control."""
    requests = [asked(i, thinking(name, seed=i), temperature=1.0) for i in range(3)]
    requests += [with_soft_prompt(model, asked(3, thinking(name, seed=3), temperature=1.0))]
    with heard_logits(engine) as heard:
        done = completions(engine, *requests)
    loop_BTV = torch.stack(heard, dim=1)
    gaps, hard_gaps = [], []
    for row, (request, one) in enumerate(zip(requests, done, strict=True)):
        record = one.thoughts
        at_generation = replay_scores(record, loop_BTV[row, : len(record)], embedding)
        logits_TV = replayed(engine, embedding, request, record)
        found = replay_scores(record, logits_TV, embedding)
        # Of noisy inputs it is the whole density: its size is that of d squares over s^2.
        size = found.log_probs_T.abs().clamp_min(1)
        gap_T = (found.log_probs_T - at_generation.log_probs_T).abs() / size
        gaps.append(gap_T)
        assert torch.equal(found.scored_T, at_generation.scored_T)
        torch.testing.assert_close(logits_TV, loop_BTV[row, : len(record)], rtol=0, atol=FORWARD)
        hard = Rows.tokens(Kind.TOKEN, record.rows.emitted_N, like=record.rows)
        logits_TV = replayed(engine, embedding, request, replace(record, rows=hard))
        wrong = replay_scores(record, logits_TV, embedding)
        hard_gaps.append((wrong.log_probs_T - at_generation.log_probs_T).abs())
    assert float(torch.cat(gaps).mean()) < 1e-5
    if name != "token":
        assert float(torch.cat(hard_gaps).mean()) > 1e-2
    else:
        assert float(torch.cat(hard_gaps).mean()) < 1e-5


def test_records_can_be_trained_on(engine: HuggingFaceEngine, embedding: TableEmbedding) -> None:
    """No tensor of a record is an inference tensor, which autograd refuses."""
    (done,) = completions(engine, asked(0, thinking("gumbel")))
    record = done.thoughts
    logits_TV = torch.zeros(len(record), engine.host.network.config.vocab_size).requires_grad_()
    replay_scores(record, logits_TV, embedding).log_probs_T.sum().backward()
    assert float(logits_TV.grad.abs().sum()) > 0
