#!/usr/bin/env bash
# Packs what a bare GPU machine lacks to run rsp_rl: see pack.py. Takes its options.
set -euo pipefail
repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
python=${PYTHON:-$repository/.venv/bin/python}
[[ -x $python ]] || { echo "pack: error: no $python; run scripts/setup.sh or set PYTHON" >&2; exit 1; }
PYTHONPATH=$repository/scripts exec "$python" -m gpu.pack "$@"
