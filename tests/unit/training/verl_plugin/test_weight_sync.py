"""The socket of weights: the two ends agree, and no other cluster of the machine has it."""

from __future__ import annotations

import os
from types import SimpleNamespace

import pytest
import ray
from verl.workers.rollout.base import get_rollout_class
from verl.workers.rollout.replica import RolloutMode
from verl.workers.rollout.vllm_rollout import ServerAdapter
from verl.workers.rollout.vllm_rollout.utils import vLLMColocateWorkerExtension
from verl.workers.rollout.vllm_rollout.vllm_async_server import vLLMHttpServer

from rsp_rl.training.verl_plugin import components  # noqa: F401  (registers)
from rsp_rl.training.verl_plugin.rollout_server import SoftPromptVLLMServer
from rsp_rl.training.verl_plugin.weight_sync import JOB_VARIABLE

JOB = "01000000"


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Ray's context, in which ports can be changed; verl's own work at the start is left out."""
    context = SimpleNamespace(get_job_id=lambda: JOB, gcs_address="10.0.0.7:6379")
    monkeypatch.setattr(ray, "get_runtime_context", lambda: context)
    monkeypatch.setattr(vLLMHttpServer, "__init__", lambda self, *args, **kwargs: None)
    monkeypatch.setenv(JOB_VARIABLE, JOB)
    monkeypatch.setenv("VERL_REPLICA_RANK", "0")
    return context


def sender(monkeypatch: pytest.MonkeyPatch, handle: str) -> ServerAdapter:
    def init(self: ServerAdapter) -> None:
        self.zmq_handle = handle

    monkeypatch.setattr(ServerAdapter, "__init__", init)
    return get_rollout_class("vllm", "async")()


def receiver() -> str:
    extension = object.__new__(vLLMColocateWorkerExtension)
    extension.model_runner, extension.local_rank = None, 0
    return extension._get_zmq_handle()


def test_both_ends_have_a_name_of_their_cluster(
    cluster: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    stock = receiver()
    names = set()
    for port in (6379, 6380):
        cluster.gcs_address = f"10.0.0.7:{port}"
        own = sender(monkeypatch, stock).zmq_handle
        SoftPromptVLLMServer(None, None, rollout_mode=RolloutMode.HYBRID)
        assert own == receiver() != stock
        monkeypatch.setenv(JOB_VARIABLE, JOB)
        names.add(own)
    assert len(names) == 2


def test_a_server_whose_sender_is_verls_own_keeps_verls_name(cluster: SimpleNamespace) -> None:
    SoftPromptVLLMServer(None, None, rollout_mode=RolloutMode.STANDALONE)
    assert os.environ[JOB_VARIABLE] == JOB


def test_another_name_of_verls_is_an_error(
    cluster: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(RuntimeError, match="does not name Ray's job"):
        sender(monkeypatch, "ipc:///tmp/weights.sock")
