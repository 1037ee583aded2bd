#!/usr/bin/env bash
# Makes a Ray cluster of plain nodes: once on the head, then on every other node.
#
#   scripts/start_ray_cluster.sh head [options of `ray start`]
#   scripts/start_ray_cluster.sh worker HEAD_IP:6379 [options of `ray start`]
#   scripts/start_ray_cluster.sh stop          on every node; ends all that runs there
#
# All nodes need this repository and its .venv at the same path (a shared disk, or an image). Ray's
# workers use the Python that started Ray and its environment: set HF_HOME, HF_TOKEN, WANDB_API_KEY
# or NCCL_SOCKET_IFNAME here. The job server listens on the head alone; to submit from elsewhere add
# --dashboard-host=0.0.0.0. Whoever has the cluster's token can run commands on it: the head makes
# one in ~/.ray/auth_token, and the other nodes need it there too, or in RAY_AUTH_TOKEN.
set -euo pipefail

PORT=${PORT:-6379}

repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# Exported: recipes that run as jobs then use the environment that started Ray.
export VENV=${VENV:-$repository/.venv}

usage() {
  sed -n '4,6s/^# *//p' "${BASH_SOURCE[0]}" >&2
  exit 2
}

role=${1:-}
[[ $role == head || $role == worker || $role == stop ]] || usage
shift
[[ -x $VENV/bin/ray ]] || bash "$repository/scripts/setup.sh"

# What a killed process leaves running, vLLM's engine for one, must not hold a GPU in the next run.
# (With Ray's other way, its subreaper, every job's exit status was 0 in Ray 2.60.)
export RAY_process_group_cleanup_enabled=true

# Ray's head asks for a token by default, its other commands do not bring one by default.
export RAY_AUTH_MODE=${RAY_AUTH_MODE:-token}
token=${RAY_AUTH_TOKEN_PATH:-$HOME/.ray/auth_token}
if [[ $role == head && $RAY_AUTH_MODE == token && -z ${RAY_AUTH_TOKEN:-} && ! -f $token ]]; then
  mkdir -p "$(dirname "$token")"
  (umask 077 && head -c 32 /dev/urandom | od -An -v -tx1 | tr -d ' \n' > "$token")
fi

case $role in
  head) exec "$VENV/bin/ray" start --head --port="$PORT" "$@" ;;
  worker)
    [[ $# -ge 1 ]] || usage
    address=$1
    shift
    # The head may have been started a moment ago; Ray itself gives up after a few seconds.
    for _ in {1..60}; do
      timeout 5 bash -c ": < /dev/tcp/${address%:*}/${address##*:}" 2>/dev/null && break
      sleep 2
    done
    exec "$VENV/bin/ray" start --address="$address" "$@"
    ;;
  stop) exec "$VENV/bin/ray" stop ;;
esac
