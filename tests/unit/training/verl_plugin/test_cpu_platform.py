"""The CPU platform: chosen by `VERL_PLATFORM=cpu` alone, and light for everyone else.

verl decides on its platform once a process, hence the processes of their own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from rsp_rl.basics.errors import ConfigError

PROBE = """
import json, sys
import verl
from verl.plugin.platform import get_platform
from verl.plugin.platform.platform_manager import PlatformRegistry
from verl.utils import device, distributed

platform = get_platform()
print(json.dumps({
    "platform": type(platform).__name__,
    "name": platform.device_name,
    "vendor": platform.vendor_name,
    "registered": list(PlatformRegistry.registered_names()),
    "device_name": device.get_device_name(),
    "resource": device.get_resource_name(),
    "backend": device.get_nccl_backend(),
    "ipc": platform.is_ipc_supported(),
    "gloo_patch": hasattr(distributed.initialize_global_process_group_ray, "__wrapped__"),
    "modules": [name for name in sys.modules if name.split(".")[0] in ("rsp_rl", "vllm")],
}))
"""


def probe(**environment: str) -> dict:
    """What a fresh process sees after `import verl`."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("VERL_")}
    process = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROBE],
        env={**inherited, **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    return json.loads(process.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def chosen():
    return probe(VERL_PLATFORM="cpu")


@pytest.fixture(scope="module")
def not_chosen():
    return probe()


def test_is_chosen_by_the_environment_alone(chosen, not_chosen):
    assert chosen["platform"] == "PlatformCPU"
    assert chosen["name"] == chosen["device_name"] == chosen["vendor"] == "cpu"
    # Nothing else in the environment differs: on a machine without a GPU verl takes CUDA, as a
    # head node of a GPU cluster must.
    assert "cpu" in not_chosen["registered"]
    assert not_chosen["platform"] != "PlatformCPU"
    assert not_chosen["device_name"] != "cpu"


def test_what_it_tells_verl(chosen):
    assert chosen["backend"] == "gloo"
    assert chosen["ipc"] is False  # weights then go to vLLM through shared memory
    assert chosen["resource"] == "GPU"  # Ray's logical ones


def test_other_runs_are_left_alone(chosen, not_chosen):
    assert chosen["gloo_patch"]
    assert not not_chosen["gloo_patch"]


def test_the_entry_point_is_light(chosen, not_chosen):
    """`import verl` runs it in every process of every user of verl."""
    plugin = "rsp_rl.training.verl_plugin"
    light = {"rsp_rl", "rsp_rl.basics", "rsp_rl.basics.errors", "rsp_rl.training"}
    light |= {plugin, f"{plugin}.cpu_platform"}
    for seen in (chosen, not_chosen):
        assert set(seen["modules"]) == light


# ---- in this process ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def platform():
    from rsp_rl.training.verl_plugin.cpu_platform import PlatformCPU

    return PlatformCPU()


def test_the_device_id_works_wherever_verl_puts_it(platform):
    import pickle

    import torch
    from tensordict import TensorDict

    device = platform.current_device()
    assert f"cpu:{device}" == "cpu:0"
    assert f"{platform.device_name}:{device}" == "cpu:0"
    tensor = torch.ones(2)
    assert tensor.to(device).device.type == "cpu"
    assert torch.empty(1, device=device).device.type == "cpu"
    assert torch.device(device).type == "cpu"
    assert torch.nn.Linear(2, 2).to(device).weight.device.type == "cpu"
    assert TensorDict({"a": tensor}, batch_size=2).to(device)["a"].device.type == "cpu"
    assert f"cpu:{pickle.loads(pickle.dumps(device))}" == "cpu:0"


def test_has_all_that_verl_asks_of_a_platform(platform):
    from verl.plugin.platform.platform_base import PlatformBase

    assert not PlatformBase.__abstractmethods__ - set(dir(platform))
    with platform.nvtx_range("step"):
        platform.synchronize()
        platform.empty_cache()
        platform.set_device(0)
        platform.set_allocator_settings("expandable_segments:True")
        platform.profiler_start()
        platform.profiler_stop()
    assert platform.is_available()
    assert platform.device_count() == 1
    assert platform.get_device_capability() == (None, None)


def test_is_never_detected(platform):
    assert not platform.is_platform_available()
    assert not platform.is_platform_available(use_smi_check=True)


def test_seeds_torch(platform):
    import torch

    with torch.random.fork_rng(devices=[]):
        platform.manual_seed(5)
        first = torch.rand(3)
        platform.manual_seed_all(5)
        assert torch.equal(torch.rand(3), first)


def test_the_device_module_has_the_calls_verl_makes(platform):
    """Those of verl 0.9.1's FSDP path, on `get_torch_device()`; none may be CUDA's."""
    import torch

    module = platform.device_module
    free, total = module.mem_get_info()
    assert 0 < free <= total
    for name in ("memory_allocated", "memory_reserved", "max_memory_allocated"):
        assert 0 < getattr(module, name)() <= total
    assert module.max_memory_reserved() > 0
    assert module.is_available()
    assert module.current_device() == 0
    assert module.device_count() == 1
    assert module.get_device_name() == "cpu"
    for call in (module.empty_cache, module.ipc_collect, module.synchronize):
        assert call() is None
    module.set_device(0)
    state = module.get_rng_state()
    first = torch.rand(3)
    module.set_rng_state(state)
    assert torch.equal(torch.rand(3), first)
    # What it does not define is torch.cpu's.
    assert module.Stream is torch.cpu.Stream
    with pytest.raises(AttributeError):
        module.no_such_call  # noqa: B018


def test_a_late_patch_is_refused(monkeypatch):
    """Workers that already hold the unpatched function would fail in `init_process_group`."""
    from types import ModuleType

    from rsp_rl.training.verl_plugin.cpu_platform import use_gloo_alone

    monkeypatch.setitem(
        sys.modules, "verl.workers.engine_workers", ModuleType("verl.workers.engine_workers")
    )
    with pytest.raises(ConfigError, match="import verl first"):
        use_gloo_alone()
