#!/usr/bin/env bash
# Evaluate every checkpoint of a training run, the base model as step 0 first; skips what is done.
#
#   bash eval/eval_checkpoints.sh RUN_DIR
#   bash eval/eval_checkpoints.sh RUN_DIR --steps 0,10,20 --data-parallel 8
#   bash eval/eval_checkpoints.sh RUN_DIR --watch          beside a training that is still running
#
# All options: .venv/bin/rsp-rl eval --help. After a crash, the same command goes on.
set -euo pipefail
[[ $# -ge 1 ]] || { sed -n '2,8s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2; exit 2; }
[[ -d $1 ]] || { echo "error: $1: no such run folder" >&2; exit 2; }
repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
bash "$repository/scripts/setup.sh"
exec "$repository/.venv/bin/python" -m rsp_rl.cli eval "$@"
