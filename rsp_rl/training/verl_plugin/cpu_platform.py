"""A CPU platform for verl: gloo, shared-memory weight transfer, no CUDA call.

Chosen by `VERL_PLATFORM=cpu` only. verl detects platforms by itself otherwise, and a CPU-only head
node of a GPU cluster must go on being taken for a CUDA one.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import wraps
from types import ModuleType
from typing import Any

import psutil
import torch
from verl.plugin.platform.platform_base import PlatformBase
from verl.plugin.platform.platform_manager import PlatformRegistry

from rsp_rl.basics.errors import ConfigError

PLATFORM = "cpu"


class _CpuDeviceModule(ModuleType):
    """`torch.cpu` with the calls that verl makes on `torch.cuda`, memory in terms of the host."""

    def __getattr__(self, name: str) -> Any:
        return getattr(torch.cpu, name)

    @staticmethod
    def current_device() -> int:
        return 0

    @staticmethod
    def device_count() -> int:
        return 1

    @staticmethod
    def is_available() -> bool:
        return True

    @staticmethod
    def set_device(device: Any) -> None:
        """There is one CPU device."""

    @staticmethod
    def empty_cache() -> None:
        """The host allocator keeps no cache that could be emptied."""

    @staticmethod
    def ipc_collect() -> None:
        """No CUDA IPC here."""

    @staticmethod
    def synchronize(device: Any = None) -> None:
        """CPU kernels are synchronous."""

    @staticmethod
    def set_per_process_memory_fraction(fraction: float, device: Any = None) -> None:
        """The host has no such limit."""

    @staticmethod
    def mem_get_info(device: Any = None) -> tuple[int, int]:
        memory = psutil.virtual_memory()
        return memory.available, memory.total

    @staticmethod
    def memory_allocated(device: Any = None) -> int:
        return psutil.Process().memory_info().rss

    max_memory_allocated = memory_reserved = max_memory_reserved = memory_allocated

    @staticmethod
    def get_device_name(device: Any = None) -> str:
        return PLATFORM

    @staticmethod
    def get_rng_state(device: Any = None) -> torch.Tensor:
        return torch.get_rng_state()

    @staticmethod
    def set_rng_state(state: torch.Tensor, device: Any = None) -> None:
        torch.set_rng_state(state)


class _CpuDevice(str):
    """Device id "cpu" that also reads well in `f"cpu:{id}"`, which verl writes: "cpu:0"."""

    def __format__(self, spec: str) -> str:
        return "0"


@PlatformRegistry.register(platform=PLATFORM)
class PlatformCPU(PlatformBase):
    """The machine's CPUs as one device a process; Ray counts logical GPUs (`num_gpus`)."""

    _module = _CpuDeviceModule("rsp_rl_cpu_device")

    @property
    def device_name(self) -> str:
        return PLATFORM

    @property
    def vendor_name(self) -> str:
        return PLATFORM

    @property
    def device_module(self) -> ModuleType:
        return self._module

    def is_available(self) -> bool:
        return True

    def is_platform_available(self, use_smi_check: bool = False) -> bool:
        return False  # never auto-detected; see the module's docstring

    def current_device(self) -> str:
        return _CpuDevice(PLATFORM)

    def device_count(self) -> int:
        return 1

    def set_device(self, device_index: int) -> None:
        """There is one CPU device."""

    def synchronize(self, device_index: int | None = None) -> None:
        """CPU kernels are synchronous."""

    def manual_seed(self, seed: int) -> None:
        torch.manual_seed(seed)

    def manual_seed_all(self, seed: int) -> None:
        torch.manual_seed(seed)

    def set_allocator_settings(self, settings: str) -> None:
        """The host allocator has none of CUDA's settings."""

    def empty_cache(self) -> None:
        """The host allocator keeps no cache that could be emptied."""

    def get_device_capability(self, device_index: int = 0) -> tuple[None, None]:
        return None, None

    def communication_backend_name(self) -> str:
        return "gloo"

    def visible_devices_envvar(self) -> str:
        return "CUDA_VISIBLE_DEVICES"  # what Ray sets for its logical GPUs

    @contextmanager
    def nvtx_range(self, msg: str) -> Iterator[None]:
        with nullcontext():
            yield

    def profiler_start(self) -> None:
        """No device profiler."""

    def profiler_stop(self) -> None:
        """No device profiler."""

    def ray_resource_name(self) -> str:
        return "GPU"

    def ray_noset_envvars(self) -> list[str]:
        return ["RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES"]

    def is_ipc_supported(self) -> bool:
        return False  # verl then sends weights to vLLM through shared memory

    def cudart(self) -> None:
        return None


def use_gloo_alone() -> None:
    """Patch: verl asks torch for the backend "cpu:gloo,{device}:{backend}" (verl 0.9.1).

    With device "cpu" that names one device twice, which torch refuses ("Duplicate device type
    cpu"). verl has no setting for it; `initialize_global_process_group_ray` takes a backend but
    its callers pass none. Patched before `verl.workers` imports the function by name.

    Raises:
        ConfigError: If that import is done already.
    """
    from verl.utils import distributed

    if "verl.workers.engine_workers" in sys.modules:
        raise ConfigError(
            "rsp_rl's CPU platform was loaded after verl's workers; import verl first, with "
            "VERL_USE_EXTERNAL_PLUGINS unset or naming rsp_rl"
        )
    original = distributed.initialize_global_process_group_ray

    @wraps(original)
    def with_gloo(timeout_second: int | None = None, backend: str | None = None) -> None:
        original(timeout_second=timeout_second, backend=backend or "gloo")

    distributed.initialize_global_process_group_ray = with_gloo


if os.environ.get("VERL_PLATFORM", "").strip().lower() == PLATFORM:
    use_gloo_alone()
