#!/usr/bin/env bash
# Makes a Ray cluster of plain nodes: once on the head, then on every other node.
#
#   scripts/start_ray_cluster.sh head [options of `ray start`]
#   scripts/start_ray_cluster.sh worker HEAD_IP:6379 [options of `ray start`]
#   scripts/start_ray_cluster.sh stop          on every node; ends all that runs there
#
# All nodes need this repository and its .venv at the same path (a shared disk, or an image). Ray's
# workers use the Python that started Ray and its environment: set HF_HOME, HF_TOKEN, WANDB_API_KEY
# or NCCL_SOCKET_IFNAME here. The job server listens on the head itself; to submit from elsewhere add
# --dashboard-host=0.0.0.0, in a network you trust: whoever reaches it can run commands.
set -euo pipefail

PORT=${PORT:-6379}

repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=${VENV:-$repository/.venv}

usage() {
  sed -n '4,6s/^# *//p' "${BASH_SOURCE[0]}" >&2
  exit 2
}

role=${1:-}
[[ $role == head || $role == worker || $role == stop ]] || usage
shift
[[ -x $venv/bin/ray ]] || bash "$repository/scripts/setup.sh"

# What a killed process leaves running, vLLM's engine for one, must not hold a GPU in the next run.
export RAY_kill_child_processes_on_worker_exit_with_raylet_subreaper=true

case $role in
  head) exec "$venv/bin/ray" start --head --port="$PORT" "$@" ;;
  worker)
    [[ $# -ge 1 ]] || usage
    address=$1
    shift
    exec "$venv/bin/ray" start --address="$address" "$@"
    ;;
  stop) exec "$venv/bin/ray" stop ;;
esac
