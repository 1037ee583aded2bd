"""vLLM engines that work through a queue of requests and hand back each sample as it finishes."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rsp_rl.basics.errors import ConfigError, GenerationError
from rsp_rl.draws.embedding_table import FOLDER_VARIABLE
from rsp_rl.inference.requests import Completion, EngineOptions, Request, has_gpu
from rsp_rl.models.folder import check_model, load_tokenizer
from rsp_rl.models.vocabulary import suppression

if TYPE_CHECKING:
    from rsp_rl.thoughts.record import ThoughtRecord
    from rsp_rl.thoughts.settings import Thinking

_DEAD = (
    "a vLLM engine died; what it said about it stands above (often: out of memory; then lower "
    "--max-num-seqs or --gpu-memory-utilization). Finished samples are kept: the same command goes "
    "on from there"
)


class Engine:
    """One vLLM engine; its model runs in processes of vLLM's own on GPUs, in this one on a CPU.

    Args:
        model: Hugging Face folder.
        options: See `EngineOptions`.
        soft_prompts: Whether requests may have a record.
        thoughts: Whether they may have a law.
    """

    def __init__(
        self, model: str, options: EngineOptions, soft_prompts: bool, thoughts: bool = False
    ) -> None:
        if not has_gpu():
            # GiB; vLLM's CPU target would take most of the machine's memory.
            os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
            if options.tensor_parallel == 1:
                # Each of its two processes takes longer to start than most CPU jobs take to run.
                os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
        from vllm import LLM

        from rsp_rl.injection.model_runner import v2_takes_prompt_embeds
        from rsp_rl.injection.thinking_engine import check_engine, interface_fault
        from rsp_rl.injection.vllm_prompt import WORKER, prompt_maker

        # Before the minutes that a model takes to load, if it is clear which runner will be there.
        if thoughts and not v2_takes_prompt_embeds() and (fault := interface_fault()):
            raise ConfigError(fault)
        llm = LLM(
            model,
            # vLLM's CPU target dies when the prompt of a seeded request comes in two pieces: it
            # winds the request's generator back, which torch cannot do on a CPU.
            enable_chunked_prefill=has_gpu(),
            dtype=options.resolved_dtype(),
            tensor_parallel_size=options.tensor_parallel,
            max_num_seqs=options.max_num_seqs,
            max_model_len=options.max_model_len,
            gpu_memory_utilization=options.gpu_memory_utilization,
            enforce_eager=not has_gpu(),
            enable_prompt_embeds=soft_prompts or thoughts,
            worker_cls=WORKER if soft_prompts or thoughts else "auto",
            # A law's next step needs this one's token.
            async_scheduling=False if thoughts else None,
            enable_prefix_caching=True,
            disable_log_stats=True,
        )
        self._engine = llm.llm_engine
        self._make_prompt = prompt_maker(self._engine.vllm_config)
        self._sent: dict[str, tuple[int, Thinking]] = {}
        if thoughts:
            check_engine(self._engine.vllm_config)
        folder = Path(model)
        # Who asks has refused what it cannot ask.
        config = check_model(folder, thinks=True)
        self._bias = suppression(config, load_tokenizer(folder)) or None

    def exchange(self, requests: list[Request]) -> list[Completion]:
        """Take requests on, then generate until something is finished.

        The model goes on generating between two calls.

        Returns:
            What has finished; empty only if nothing was left to do.
        """
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind
        from vllm.v1.engine.exceptions import EngineDeadError

        for request in requests:
            # Outputs are of use when they are finished: nothing is sent in between.
            sampling = SamplingParams(
                **request.sampling,
                logit_bias=self._bias,
                output_kind=RequestOutputKind.FINAL_ONLY,
            )
            self._engine.add_request(str(request.number), self._prompt(request, sampling), sampling)
        outputs: list[Any] = []
        try:
            while not outputs and self._engine.has_unfinished_requests():
                outputs = [output for output in self._engine.step() if output.finished]
            thoughts = self._take_thoughts(outputs)
        except EngineDeadError as error:
            raise GenerationError(_DEAD) from error
        return [_completion(output, thoughts.get(output.request_id)) for output in outputs]

    def _prompt(self, request: Request, sampling: Any) -> Any:
        """What vLLM is sent; a thinking request's settings go into its sampling parameters."""
        from vllm.inputs import TokensPrompt

        from rsp_rl.injection.thinking_engine import check_engine, check_request
        from rsp_rl.injection.thinking_prompt import extra_args, new_key, private_prompt

        if request.thinking is not None:
            config = self._engine.vllm_config
            check_engine(config)
            check_request(config, request.thinking, sampling)
            key = new_key()
            self._sent[str(request.number)] = key, request.thinking
            sampling.extra_args = extra_args(request.thinking, key)
            return private_prompt(request.token_ids, request.record, key)
        if request.record is not None:
            return self._make_prompt(request.token_ids, request.record)
        return TokensPrompt(prompt_token_ids=request.token_ids)

    def _take_thoughts(self, outputs: list[Any]) -> dict[str, ThoughtRecord]:
        """Records of finished outputs, by the requests' names.

        Raises:
            GenerationError: If the worker has lost one.
            ValueError: If a record is another output's: a fault of ours.
        """
        sent = {o.request_id: self._sent.pop(o.request_id, None) for o in outputs}
        thinking = {name: one for name, one in sent.items() if one is not None}
        if not thinking:
            return {}
        from rsp_rl.thoughts.record import ThoughtRecord

        keys = [key for key, _ in thinking.values()]
        first, *_ = self._engine.collective_rpc("take_thoughts", args=(keys,))
        found = {}
        for output in outputs:
            if (one := thinking.get(output.request_id)) is None:
                continue
            encoded = first[keys.index(one[0])]
            if encoded is None:
                raise GenerationError(
                    f"vLLM's worker has no record of the thoughts of request {output.request_id}"
                )
            (sample,) = output.outputs
            record = ThoughtRecord.from_bytes(encoded)
            length = len(sample.token_ids)
            # Of an output that its law ended, vLLM has one more token: the one that it ended with.
            if one[1].phases.cold_abort and len(record) == length - 1:
                length -= 1
            # The worker may have gone on until a stop text was seen.
            record = record.cut(length)
            record.check(list(sample.token_ids)[:length])
            found[output.request_id] = record
        return found

    def close(self) -> None:
        """End vLLM's processes, if any, and free its memory for the next checkpoint."""
        self._engine.engine_core.shutdown(timeout=60)
        del self._engine


def _completion(output: Any, record: ThoughtRecord | None) -> Completion:
    """From vLLM's; what is not in the record of an output with a law is not of it."""
    (sample,) = output.outputs
    tokens = len(sample.token_ids) if record is None else len(record)
    return Completion(
        number=int(output.request_id),
        text=sample.text,
        tokens=tokens,
        finish_reason=str(sample.finish_reason),
        thoughts=record,
    )


class _Window:
    """The queue that engines are fed from, none with more than it can soon begin.

    What waits, waits here and not in an engine: at the end of the queue every engine is busy.
    """

    def __init__(self, requests: Iterable[Request], options: EngineOptions) -> None:
        self._waiting = deque(requests)
        self._size = options.max_num_seqs + max(8, options.max_num_seqs // 4)
        # vLLM's CPU target ignores the seeds of a whole batch if one request in it has none that
        # counts, that is, if it is greedy: there, greedy and sampled ones are kept apart.
        self._mixes = has_gpu()

    def refill(self, in_flight: list[Request]) -> list[Request]:
        """What an engine gets next, beside what it has."""
        new: list[Request] = []
        while self._waiting and len(in_flight) + len(new) < self._size:
            other = next(iter(in_flight or new), None)
            if other and not self._mixes and other.is_greedy != self._waiting[0].is_greedy:
                break
            new.append(self._waiting.popleft())
        return new


def _without(requests: list[Request], finished: list[Completion]) -> list[Request]:
    numbers = {completion.number for completion in finished}
    return [request for request in requests if request.number not in numbers]


class LocalEngine:
    """The one engine of this process; see `Engines`."""

    def __init__(
        self, model: str, options: EngineOptions, soft_prompts: bool, thoughts: bool = False
    ) -> None:
        self._options = options
        self._engine = Engine(model, options, soft_prompts, thoughts)

    def generate(self, requests: Iterable[Request]) -> Iterator[list[Completion]]:
        """See `Engines.generate`."""
        window = _Window(requests, self._options)
        in_flight: list[Request] = []
        while (new := window.refill(in_flight)) or in_flight:
            finished = self._engine.exchange(new)
            in_flight = _without(in_flight + new, finished)
            yield finished

    def close(self) -> None:
        """See `Engines.close`."""
        self._engine.close()


class RayEngines:
    """Data-parallel engines, an actor each, on the GPUs of one node or of a cluster.

    Raises:
        ConfigError: If the cluster has not enough GPUs.
    """

    def __init__(
        self, model: str, options: EngineOptions, soft_prompts: bool, thoughts: bool = False
    ) -> None:
        import ray

        self._options = options
        self._started_ray = not ray.is_initialized()
        if self._started_ray:
            ray.init(
                address=options.ray_address,
                # Logical CPUs of a cluster that is started here: engines wait, they do not compute.
                num_cpus=None if options.ray_address else options.data_parallel,
                include_dashboard=None if options.ray_address else False,
                object_store_memory=None if options.ray_address else 200_000_000,
                log_to_driver=False,
            )
        gpus = options.tensor_parallel if has_gpu() else 0
        available = ray.cluster_resources().get("GPU", 0)
        if gpus * options.data_parallel > available:
            raise ConfigError(
                f"--data-parallel {options.data_parallel} x --tensor-parallel {gpus} needs "
                f"{gpus * options.data_parallel} GPUs, the Ray cluster has {available:.0f}"
            )
        # Ray's workers have the environment of when Ray was started, not of now.
        variables = {FOLDER_VARIABLE: model} if soft_prompts else {}
        actor = ray.remote(num_gpus=gpus, num_cpus=1, runtime_env={"env_vars": variables})(Engine)
        self._actors = [
            actor.remote(model, options, soft_prompts, thoughts)
            for _ in range(options.data_parallel)
        ]
        # An exchange of nothing returns when the model is loaded.
        ray.get([actor.exchange.remote([]) for actor in self._actors])

    def generate(self, requests: Iterable[Request]) -> Iterator[list[Completion]]:
        """See `Engines.generate`."""
        import ray

        window = _Window(requests, self._options)
        in_flight: dict[Any, list[Request]] = {actor: [] for actor in self._actors}
        calls: dict[Any, Any] = {}
        while True:
            for actor in self._actors:
                if actor in calls.values():
                    continue
                new = window.refill(in_flight[actor])
                in_flight[actor] += new
                if in_flight[actor]:
                    calls[actor.exchange.remote(new)] = actor
            if not calls:
                return
            (call, *_), _ = ray.wait(list(calls), num_returns=1)
            actor = calls.pop(call)
            try:
                finished = ray.get(call)
            except ray.exceptions.RayActorError as error:
                raise GenerationError(_DEAD) from error
            in_flight[actor] = _without(in_flight[actor], finished)
            yield finished

    def close(self) -> None:
        """See `Engines.close`."""
        import ray

        ray.get([actor.close.remote() for actor in self._actors])
        for actor in self._actors:
            ray.kill(actor)
        if self._started_ray:
            ray.shutdown()
