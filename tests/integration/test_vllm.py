"""Mixed prompts on real vLLM: prefix caching, log-probs against Hugging Face and verl's actor."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from parity.layouts import CHUNK, ActorLayout, RolloutLayout
from parity.measure import forgotten_gap, measure, reference_gradient
from parity.models import Policy
from parity.report import GAP_TOLERANCE, Cell
from parity.rollouts import sample_rollouts
from rsp_rl.embedding_stats import embedding_stats
from rsp_rl.injection import SoftPromptInjector, draw_rows, flat_positions
from rsp_rl.options import RspOptions
from rsp_rl.placement import place_in_chat, placeholder_id
from rsp_rl.soft_prompt import SoftPromptRecord
from tests.integration.harness import Task

ROLLOUT_LAYOUT = RolloutLayout(tensor_parallel=1, prefix_caching=True, chunked_prefill=True)
BLOCK = ROLLOUT_LAYOUT.engine_arguments()["block_size"]
#: Long enough for several prefix-cache blocks in front of a suffix soft prompt.
QUESTION = "Compute " + "+".join(str(1 + i % 9) for i in range(40)) + "."


@pytest.fixture(scope="module")
def engine(task: Task):
    """A vLLM engine on the tiny model, fp32, prefix caching and chunked prefill on."""
    from vllm import LLM

    return LLM(str(task.model), **ROLLOUT_LAYOUT.engine_arguments())


def soft_prompt(model: Path, rollout: int, position: str = "suffix", length: int = 20):
    """Tokens and record of one rollout of `QUESTION`."""
    tokenizer = AutoTokenizer.from_pretrained(model)
    stats = embedding_stats(model)
    options = RspOptions(length=length, position=position, mean=stats.mean, std=stats.std)
    placed = place_in_chat(
        tokenizer, [{"role": "user", "content": QUESTION}], length, options.position
    )
    record = options.record(
        step=1,
        prompt_index=0,
        rollout=rollout,
        group_start=0,
        start=placed.start,
        dtype="float32",
        placeholder_id=placeholder_id(tokenizer),
    )
    return placed.token_ids, record


def generate(engine, token_ids: list[int], record: SoftPromptRecord, tokens: int = 12):
    """Greedy continuation with the log-probs of its tokens; and cached prompt tokens."""
    from vllm import SamplingParams

    from rsp_rl.mixed_prompt import mixed_prompt

    hidden_size = engine.llm_engine.model_config.get_hidden_size()
    parameters = SamplingParams(temperature=0, max_tokens=tokens, logprobs=0, ignore_eos=True)
    prompt = mixed_prompt(token_ids, record, hidden_size)
    output = engine.generate([prompt], parameters, use_tqdm=False)[0]
    response = list(output.outputs[0].token_ids)
    log_probs = [
        position[token].logprob
        for token, position in zip(response, output.outputs[0].logprobs, strict=True)
    ]
    return response, torch.tensor(log_probs), output.num_cached_tokens


def test_same_text_other_seed_other_distribution(engine, task: Task) -> None:
    engine.reset_prefix_cache()
    token_ids, first = soft_prompt(task.model, rollout=0)
    _, second = soft_prompt(task.model, rollout=1)
    results = [generate(engine, token_ids, record) for record in (first, second, first)]

    cached = [result[2] for result in results]
    question_blocks = first.start // BLOCK * BLOCK
    assert question_blocks >= 2 * BLOCK
    # The second rollout shares the question's blocks and nothing of the soft prompt ...
    assert cached[:2] == [0, question_blocks]
    # ... while the same rollout again may share its soft prompt too.
    assert cached[2] > question_blocks
    assert not torch.allclose(results[0][1][:1], results[1][1][:1], atol=1e-4)
    torch.testing.assert_close(results[0][1], results[2][1], rtol=0, atol=1e-5)


@pytest.mark.parametrize("position", ["suffix", "prefix", "infix"])
def test_log_probs_equal_hugging_face(engine, task: Task, position: str) -> None:
    token_ids, record = soft_prompt(task.model, rollout=7, position=position)
    response, log_probs, _ = generate(engine, token_ids, record)

    model = AutoModelForCausalLM.from_pretrained(task.model, dtype=torch.float32).eval()
    injector = SoftPromptInjector(model.get_input_embeddings())
    sequence = torch.tensor([token_ids + response])
    rows = draw_rows([record], model.config.hidden_size)
    with torch.no_grad(), injector.inject(flat_positions([record], [0]), rows):
        logits = model(input_ids=sequence).logits[0, len(token_ids) - 1 : -1]
    expected = logits.log_softmax(-1).gather(1, torch.tensor(response)[:, None])[:, 0]
    torch.testing.assert_close(log_probs, expected, rtol=0, atol=1e-5)


def test_truncated_prompt_is_refused(task: Task) -> None:
    from rsp_rl.mixed_prompt import mixed_prompt

    token_ids, record = soft_prompt(task.model, rollout=0)
    with pytest.raises(ValueError, match="was the prompt truncated"):
        mixed_prompt(token_ids[5:], record, 128)


# ---- a slice of the parity matrix (scripts/parity_matrix.py) ------------------------------------

ACTOR_LAYOUTS = [
    ActorLayout(
        "fsdp2", packed=True, ranks=2, ulysses=1, checkpointing=True, lora=False, dynamic=True
    ),
    ActorLayout(
        "fsdp2", packed=True, ranks=4, ulysses=2, checkpointing=False, lora=False, dynamic=False
    ),
    ActorLayout(
        "fsdp", packed=False, ranks=2, ulysses=1, checkpointing=False, lora=False, dynamic=True
    ),
]


@pytest.fixture(scope="module")
def sampled(engine, task: Task):
    """Rollouts with and without RSP, of one batch; and the gradient of the former."""
    engine.reset_prefix_cache()
    rollouts, policy = sample_rollouts(engine, task.model), Policy(task.model, task.model)
    # Both of vLLM's factors were at work, and a forgotten soft prompt would show.
    assert rollouts.cached_tokens > 0
    assert rollouts.shortest_prompt > CHUNK
    assert forgotten_gap(policy, rollouts.with_rsp).mean > 1000 * GAP_TOLERANCE
    return rollouts, policy, reference_gradient(policy, rollouts.with_rsp)


@pytest.mark.parametrize("layout", ACTOR_LAYOUTS, ids=lambda layout: layout.name)
def test_rollout_and_actor_agree(sampled, layout: ActorLayout) -> None:
    rollouts, policy, reference = sampled
    sets = {"with": rollouts.with_rsp, "without": rollouts.without}
    (measured,) = measure([layout], policy, sets, rollouts.with_rsp, reference)
    cell = Cell(
        ROLLOUT_LAYOUT,
        layout,
        measured.gaps["with"],
        measured.gaps["without"],
        measured.gradient_error,
    )
    assert not cell.faults, cell.line()
