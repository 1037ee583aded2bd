"""Mixed prompts on real vLLM: prefix caching, log-probs against Hugging Face and verl's actor."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import torch
from rollout_prompts import GROUP, make_prompt
from transformers import AutoModelForCausalLM, AutoTokenizer

from parity.layouts import CHUNK, ActorLayout, RolloutLayout
from parity.measure import forgotten_gap, measure, reference_gradient
from parity.models import Policy
from parity.report import GAP_TOLERANCE, Cell
from parity.rollouts import sample_rollouts
from rsp_rl.dials.options import RspOptions
from rsp_rl.draws.embedding_stats import embedding_stats
from rsp_rl.draws.record import RECORD_FIELD, SoftPromptRecord
from rsp_rl.injection.hook import SoftPromptInjector, draw_rows, flat_positions, sums_of
from rsp_rl.placement.prompt import placeholder_id
from tests.integration.harness import REPOSITORY, Task
from tests.tolerances import FORWARD

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
    """Tokens and record of one rollout of `QUESTION`; position `question` is noise on it."""
    tokenizer = AutoTokenizer.from_pretrained(model)
    stats = embedding_stats(model)
    where = {"length": length, "position": position}
    if position == "question":
        where = {"length": 0, "law": "question_noise", "scale": 10}
    options = RspOptions(**where, mean=stats.mean, std=stats.std)
    placed = options.place(tokenizer, [{"role": "user", "content": QUESTION}], options.length)
    record = options.record(
        step=1,
        prompt_index=0,
        rollout=rollout,
        group_start=0,
        start=placed.start,
        dtype="float32",
        placeholder_id=placeholder_id(tokenizer),
        question=placed.span if options.adds else (),
    )
    return placed.token_ids, record


def generate(
    engine, token_ids: list[int], record: SoftPromptRecord, tokens: int = 12, rows: bool = False
):
    """Greedy continuation with the log-probs of its tokens; and cached prompt tokens.

    With `rows`, the soft prompt is sent as embeddings, not as its record.
    """
    from vllm import SamplingParams

    from rsp_rl.injection.vllm_prompt import mixed_prompt, prompt_maker

    config = engine.llm_engine.vllm_config
    parameters = SamplingParams(temperature=0, max_tokens=tokens, logprobs=0, ignore_eos=True)
    if rows:
        prompt = mixed_prompt(token_ids, record, config.model_config.get_hidden_size())
    else:
        prompt = prompt_maker(config)(token_ids, record)
    output = engine.generate([prompt], parameters, use_tqdm=False)[0]
    response = list(output.outputs[0].token_ids)
    log_probs = [
        position[token].logprob
        for token, position in zip(response, output.outputs[0].logprobs, strict=True)
    ]
    return response, torch.tensor(log_probs), output.num_cached_tokens


@pytest.mark.parametrize("rows", [False, True], ids=["record", "rows"])
def test_same_text_other_seed_other_distribution(engine, task: Task, rows: bool) -> None:
    engine.reset_prefix_cache()
    token_ids, first = soft_prompt(task.model, rollout=0)
    _, second = soft_prompt(task.model, rollout=1)
    results = [generate(engine, token_ids, record, rows=rows) for record in (first, second, first)]

    cached = [result[2] for result in results]
    question_blocks = first.start // BLOCK * BLOCK
    assert question_blocks >= 2 * BLOCK
    # The second rollout shares the question's blocks and nothing of the soft prompt ...
    assert cached[:2] == [0, question_blocks]
    # ... while the same rollout again may share its soft prompt too.
    assert cached[2] > question_blocks
    assert not torch.allclose(results[0][1][:1], results[1][1][:1], rtol=0, atol=2 * FORWARD)
    torch.testing.assert_close(results[0][1], results[2][1], rtol=0, atol=FORWARD)


@pytest.mark.parametrize("way", ["rows", "record"])
def test_a_group_hits_the_prefix_cache_as_token_prompts_do(engine, way: str) -> None:
    """Token prompts of the same length that share the same question, one group after the other."""
    from vllm import SamplingParams

    width = engine.llm_engine.model_config.get_hidden_size()
    hits = {}
    for kind in ("tokens", way):
        engine.reset_prefix_cache()
        hits[kind] = []
        for rollout in range(GROUP):
            prompt = make_prompt(kind, 0, rollout, length=150, width=width, dtype="float32")
            output = engine.generate([prompt], SamplingParams(max_tokens=1), use_tqdm=False)[0]
            hits[kind].append(output.num_cached_tokens)
    assert hits[way] == hits["tokens"]
    assert hits[way][0] == 0 < hits[way][1]


@pytest.mark.parametrize("position", ["suffix", "prefix", "infix"])
def test_records_and_rows_are_the_same_request(engine, task: Task, position: str) -> None:
    """Chunked prefill included: the soft prompt is cut in two or comes after the first chunk."""
    token_ids, record = soft_prompt(task.model, rollout=5, position=position)
    results = []
    for rows in (False, True):
        engine.reset_prefix_cache()
        results.append(generate(engine, token_ids, record, rows=rows))
    assert results[0][0] == results[1][0]
    assert torch.equal(results[0][1], results[1][1])
    assert results[0][2] == results[1][2] == 0


@pytest.mark.parametrize("position", ["suffix", "prefix", "infix"])
def test_log_probs_equal_hugging_face(engine, task: Task, position: str) -> None:
    token_ids, record = soft_prompt(task.model, rollout=7, position=position)
    response, log_probs, _ = generate(engine, token_ids, record)
    expected = hugging_face_log_probs(task.model, token_ids, response, record)
    torch.testing.assert_close(log_probs, expected, rtol=0, atol=FORWARD)


def test_noise_on_the_question(engine, task: Task) -> None:
    """Two draws, the first once more, plain requests before and after: chunks, cached blocks."""
    from vllm import SamplingParams, TokensPrompt

    engine.reset_prefix_cache()
    token_ids, first = soft_prompt(task.model, 7, "question")
    _, second = soft_prompt(task.model, 8, "question")
    assert first.length > CHUNK
    parameters = SamplingParams(temperature=0, max_tokens=12, logprobs=0, ignore_eos=True)

    def plain():
        prompt = TokensPrompt(prompt_token_ids=token_ids)
        output = engine.generate([prompt], parameters, use_tqdm=False)[0].outputs[0]
        return list(output.token_ids), [
            at[token].logprob for token, at in zip(output.token_ids, output.logprobs, strict=True)
        ]

    before = plain()
    results = [generate(engine, token_ids, record) for record in (first, second, first)]
    for (response, log_probs, _), record in zip(results, (first, second, first), strict=True):
        expected = hugging_face_log_probs(task.model, token_ids, response, record)
        torch.testing.assert_close(log_probs, expected, rtol=0, atol=FORWARD)
        forgotten = hugging_face_log_probs(task.model, token_ids, response, None)
        assert (log_probs - forgotten).abs().max() > 1e-2
    # Nobody reads the keys and values of another draw, whatever the ids; the same draw does.
    assert all(cached <= first.start // BLOCK * BLOCK for _, _, cached in results[:2])
    assert results[2][2] == (len(token_ids) - 1) // BLOCK * BLOCK
    assert plain() == before


def hugging_face_log_probs(
    folder: Path, prompt: list[int], response: list[int], record: SoftPromptRecord | None
) -> torch.Tensor:
    """Log-probs of the response, H put in by the actor's hook; without H if there is no record."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    injector = SoftPromptInjector(model.get_input_embeddings())
    records = [record] if record else []
    positions = flat_positions(records, [0] * len(records))
    rows = draw_rows(records, model.config.hidden_size)
    with torch.no_grad(), injector.inject(positions, rows, sums_of(records)):
        logits = model(input_ids=torch.tensor([prompt + response])).logits[0, len(prompt) - 1 : -1]
    return logits.log_softmax(-1).gather(1, torch.tensor(response)[:, None])[:, 0]


class InProcessServer:
    """Stands for verl's client and server, without Ray: requests of an agent loop to an engine."""

    def __init__(self, engine) -> None:
        from rsp_rl.injection.vllm_prompt import prompt_maker
        from rsp_rl.training.verl_plugin.rollout_server import with_soft_prompts

        make_prompt = prompt_maker(engine.llm_engine.vllm_config)
        self._generate = with_soft_prompts(self._plain, make_prompt)
        self._engine = engine
        self.prompts: list[list[int]] = []

    def _plain(self, *, prompt, sampling_params):
        return self._engine.generate([prompt], sampling_params, use_tqdm=False)[0].outputs[0]

    async def generate(self, request_id, *, prompt_ids, sampling_params, **kwargs):
        """As `vLLMHttpServer.generate`."""
        from verl.workers.rollout.replica import TokenOutput
        from vllm import SamplingParams, TokensPrompt

        self.prompts.append(list(prompt_ids))
        parameters = SamplingParams(**{**sampling_params, "logprobs": 0}, max_tokens=12)
        output = self._generate(
            prompt=TokensPrompt(prompt_token_ids=prompt_ids), sampling_params=parameters
        )
        tokens = list(output.token_ids)
        pairs = zip(tokens, output.logprobs, strict=True)
        return TokenOutput(token_ids=tokens, log_probs=[at[token].logprob for token, at in pairs])


def run_tool_agent(engine, model: Path, *overrides: str, **place: int):
    """One rollout of verl's tool agent; its output, and the prompts of its requests."""
    from verl.experimental.agent_loop.agent_loop import DictConfigWrap, ToolListWrap
    from verl.tools.tool_registry import load_all_tools
    from verl.utils.dataset.rl_dataset import RLHFDataset

    from rsp_rl.training.configs import compose_config
    from rsp_rl.training.verl_plugin.agent_loop import SoftPromptToolLoop

    stats = embedding_stats(model)
    rollout = "actor_rollout_ref.rollout"
    config = compose_config(
        "tiny_cpu",
        [
            f"rsp.mean={stats.mean}",
            f"rsp.std={stats.std}",
            f"{rollout}.prompt_length=256",
            f"{rollout}.response_length=64",
            f"{rollout}.multi_turn.format=first_answer_calls",
            *overrides,
        ],
    )
    server = InProcessServer(engine)
    tools = load_all_tools(None, str(REPOSITORY / "tests/integration/tool_use.py"))

    async def run():
        loop = SoftPromptToolLoop(
            trainer_config=DictConfigWrap(config),
            server_manager=server,
            tokenizer=AutoTokenizer.from_pretrained(model),
            processor=None,
            dataset_cls=RLHFDataset,
            data_config=DictConfigWrap(config.data),
            hf_model_type="qwen2",
            tools=ToolListWrap(tools),
        )
        question = {"role": "user", "content": QUESTION}
        return await loop.run({"temperature": 0}, raw_prompt=[question], **place)

    return asyncio.run(run()), server.prompts


PLACE = {
    "global_steps": 1,
    "session_id": 1,
    "rsp_validation": 0,
    "rsp_prompt_index": 0,
    "rsp_group_start": 0,
}


@pytest.mark.parametrize("position", ["suffix", "prefix"])
def test_a_tool_agent_keeps_its_soft_prompt_through_all_turns(
    engine, task: Task, position: str
) -> None:
    """Turn 2's log-probs are Hugging Face's with H where turn 1's prompt had it."""
    output, prompts = run_tool_agent(engine, task.model, f"rsp.position={position}", **PLACE)
    record = SoftPromptRecord.from_tensor(output.rsp_records[RECORD_FIELD])
    first, second = prompts
    assert record.length == 8
    assert second[: len(first)] == first == output.prompt_ids
    span = slice(record.start, record.start + record.length)
    assert second[span] == [record.placeholder_id] * record.length

    # Both turns were sampled, the tool's answer between them was not.
    mask = torch.tensor(output.response_mask).bool()
    turns = "".join(map(str, output.response_mask)).split("0")
    assert [bool(turn) for turn in (turns[0], turns[-1])] == [True, True]
    tool_tokens = [token for token, own in zip(output.response_ids, mask, strict=True) if not own]
    assert "1+2=3" in AutoTokenizer.from_pretrained(task.model).decode(tool_tokens)

    sampled = torch.tensor(output.response_logprobs)[mask]
    sequence = (task.model, output.prompt_ids, output.response_ids)
    torch.testing.assert_close(
        sampled, hugging_face_log_probs(*sequence, record)[mask], rtol=0, atol=FORWARD
    )
    second_turn = torch.arange(len(mask))[mask] >= len(second) - len(first)
    assert 0 < second_turn.sum() < len(sampled)
    forgotten = hugging_face_log_probs(*sequence, None)[mask]
    assert (sampled - forgotten).abs()[second_turn].max() > 1e-3


@pytest.mark.parametrize(
    ("overrides", "place"),
    [
        (["rsp.mixing=half"], PLACE),
        ([], {}),
    ],
    ids=["other half", "validation"],
)
def test_a_rollout_without_a_soft_prompt_is_a_plain_one(
    engine, task: Task, overrides: list[str], place: dict[str, int]
) -> None:
    output, prompts = run_tool_agent(engine, task.model, *overrides, **place)
    tokenizer = AutoTokenizer.from_pretrained(task.model)
    plain = tokenizer.apply_chat_template(
        [{"role": "user", "content": QUESTION}], add_generation_prompt=True, return_dict=False
    )
    assert prompts[0] == plain
    assert hasattr(output, "rsp_records") == bool(place)
    if place:
        record = SoftPromptRecord.from_tensor(output.rsp_records[RECORD_FIELD])
        assert record.length == 0
        assert tokenizer.decode(plain[record.start]) == "<|im_end|>"
    mask = torch.tensor(output.response_mask).bool()
    expected = hugging_face_log_probs(task.model, plain, output.response_ids, None)
    sampled = torch.tensor(output.response_logprobs)
    torch.testing.assert_close(sampled[mask], expected[mask], rtol=0, atol=FORWARD)


def test_truncated_prompt_is_refused(task: Task) -> None:
    from rsp_rl.injection.vllm_prompt import mixed_prompt

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
