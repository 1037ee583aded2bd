#!/usr/bin/env bash
# All tests: style, the fast unit tests, then the slow ones on the real stack (verl, Ray, vLLM).
#
#   scripts/test.sh            everything (what CI runs)
#   scripts/test.sh fast       without the slow ones
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

bash scripts/setup.sh
python=.venv/bin/python

"$python" -m ruff check .
"$python" -m ruff format --check .
"$python" -m pytest -m "not slow"
if [[ ${1:-} != fast ]]; then
  "$python" -m pytest -m slow
fi
