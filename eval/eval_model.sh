#!/usr/bin/env bash
# Evaluate one model: a Hugging Face folder or a name on the hub.
#
#   bash eval/eval_model.sh Qwen/Qwen2.5-Math-7B
#   bash eval/eval_model.sh MODEL --protocol simplerl_zoo --data-parallel 8 --output runs/my_eval
#
# All options: .venv/bin/rsp-rl eval --help. After a crash, the same command goes on.
set -euo pipefail
[[ $# -ge 1 ]] || { sed -n '2,7s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2; exit 2; }
repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
bash "$repository/scripts/setup.sh"
exec "$repository/.venv/bin/python" -m rsp_rl.cli eval "$@"
