"""What the kit leaves out, each with its reason: whole packages, and files of packed ones."""

from __future__ import annotations

from fnmatch import fnmatchcase

#: Packages by normalised name or pattern. What only these need is left out with them.
PACKAGES = {
    "flashinfer-*": "attention on these chips is FA3; unpack.sh has vLLM sample without",
    "nvidia-cutlass-dsl": "compiles Blackwell's kernels (FA4, CuTe), imported with them",
    "nvidia-cudnn-frontend": "vLLM imports it for a vision encoder on FlashInfer only",
    "tilelang": "kernels of DeepSeek V4 alone",
    "tokenspeed-*": "MLA attention on Blackwell alone",
    "humming-kernels": "a quantized linear layer, asked for by name",
    "quack-kernels": "kernels of Blackwell, beside nvidia-cutlass-dsl",
    "torchcodec": "decodes video and audio",
    "qwen-vl-utils": "reads images and video for a vision model",
    "wandb": "verl imports it where trainer.logger names it",
    "mbridge": "verl's Megatron engine",
    "mathruler": "a reward of verl's for geo3k, imported with it",
    "numba": "the machine's own serves; of use to vLLM's n-gram proposer alone",
    "fastapi-cli": "a command for developers of servers",
    "py-spy": "Ray's dashboard samples stacks with it; a run has no dashboard",
    "virtualenv": "Ray makes environments of tasks with it; a run has one environment",
    "pytest-*": "test plug-ins of a dependency",
}

#: Files of packed packages, by path from site-packages; `*` crosses folders.
FILES = {
    "*.a": "static libraries",
    "*.cpython-31[!2]-*.so": "for another Python",
    "*.js.map": "for a browser's debugger",
    "*/tests/*": "tests of packages",
    "tests/*": "tests of packages, beside them",
    "recipe/*": "examples of TransferQueue, beside it",
    "vllm/vllm_flash_attn/_vllm_fa2_C.abi3.so": "these chips have FA3",
    "vllm/vllm-rs": "another front end, asked for by name",
    "vllm/third_party/fmha_sm100/*": "attention on Blackwell",
    "ray/jars/*": "workers in Java",
    "ray/rllib/*": "another RL library",
    "ray/serve/*": "not used by verl or vLLM in a run",
    "ray/llm/*": "not used by verl or vLLM in a run",
    "ray/tune/*": "not used by verl or vLLM in a run",
    "ray/dashboard/client/*": "pages of the dashboard",
    "mistral_common/data/*": "tokenizers of Mistral's models",
    "pycountry/locales/*": "names of countries in other languages",
}


def reason(name: str, table: dict[str, str]) -> str | None:
    """Why a package or file is left out, None for one that is not."""
    return next((why for pattern, why in table.items() if fnmatchcase(name, pattern)), None)


def stale(names: set[str], table: dict[str, str]) -> list[str]:
    """Patterns that no name has any more."""
    return [pattern for pattern in table if not any(fnmatchcase(name, pattern) for name in names)]
