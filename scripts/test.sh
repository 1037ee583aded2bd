#!/usr/bin/env bash
# All tests: style, the documentation site, the unit tests on two cores, then the slow ones on the
# real stack (verl, Ray, vLLM). A stage that fails does not keep the others from running; all are
# told at the end.
#
#   scripts/test.sh            everything (what CI runs)
#   scripts/test.sh fast       without the slow ones
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

bash scripts/setup.sh
python=.venv/bin/python
report="" failed=0

stage() { # stage NAME COMMAND...
  local name=$1 began=$SECONDS result=passed
  shift
  printf '\n== %s\n' "$name"
  "$@" || { result="FAILED ($?)" failed=1; }
  report+=$(printf '%-12s %5d s  %s' "$name" $((SECONDS - began)) "$result")$'\n'
}

stage "ruff check" "$python" -m ruff check .
stage "ruff format" "$python" -m ruff format --check .
stage docs bash scripts/docs.sh
# A thread a worker: OpenMP's threads would wait for each other, and spin while they do.
stage unit env OMP_NUM_THREADS=1 "$python" -m pytest -m "not slow" -n 2 --dist loadfile
if [[ ${1:-} != fast ]]; then
  stage slow "$python" -m pytest -m slow
fi
printf '\n== stages\n%s' "$report"
exit "$failed"
