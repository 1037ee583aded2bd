#!/usr/bin/env bash
# Submits a recipe to a Ray cluster as a job, follows its log, submits it again after a fault (it
# then continues from its last checkpoint), and exits with its exit status.
#
#   scripts/submit_ray_job.sh recipes/dapo_rsp_qwen7b.sh [overrides]
#   scripts/submit_ray_job.sh status [JOB]
#   scripts/submit_ray_job.sh follow JOB
#   scripts/submit_ray_job.sh stop JOB
#
#   RAY_ADDRESS=http://HEAD:8265   the cluster; without it one that runs on this machine
#   MAX_RETRIES=3                  how often to submit again
#   RUN_DIR=... NNODES=2 ...       the recipe's own settings, as in front of `bash recipes/...`
#   UPLOAD=1                       send this repository's files along; without it the cluster has
#                                  them at the same path, on a shared disk or in an image
set -euo pipefail

repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=${VENV:-$repository/.venv}/bin/python
[[ -x $python ]] || bash "$repository/scripts/setup.sh"

# As in start_ray_cluster.sh.
export RAY_AUTH_MODE=${RAY_AUTH_MODE:-token}

case ${1:-} in
  status | follow | stop | -h | --help) command=() ;;
  *)
    command=(submit)
    [[ ${UPLOAD:-0} == 1 ]] && command+=(--upload)
    ;;
esac
exec "$python" -m rsp_rl.runs.jobs "${command[@]}" "$@"
