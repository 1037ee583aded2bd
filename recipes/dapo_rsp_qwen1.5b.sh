#!/usr/bin/env bash
# DAPO + RSP on Qwen2.5-Math-1.5B, MATH levels 3 to 5, on one GPU: the settings of the 7B run.
#
# Needs: 1 GPU of 80 GB, 64 GB of host memory, 175 GiB of disk (10 checkpoints of 17 GiB; see
# KEEP_CHECKPOINTS). Hours: not known. We have not run it on GPUs ourselves.
# Expect: the paper trains no model of this size, so there is no number to compare with; compare
# with rsp.length=0 over several values of data.seed.
#
#   DRY_RUN=1 bash recipes/dapo_rsp_qwen1.5b.sh     settings, steps, memory, costs; needs no GPU
#   bash recipes/dapo_rsp_qwen1.5b.sh               train; again to resume
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

MODEL=${MODEL:-Qwen/Qwen2.5-Math-1.5B}
RUN_DIR=${RUN_DIR:-runs/dapo_rsp_qwen1.5b}
TEMPLATE=${TEMPLATE:-qwen-boxed}
DATA_DIR=${DATA_DIR:-runs/math35}
STEPS=${STEPS:-100}
KEEP_CHECKPOINTS=${KEEP_CHECKPOINTS:-null}
NNODES=${NNODES:-1}
GPUS_PER_NODE=${GPUS_PER_NODE:-1}
GPU_MEMORY_GB=${GPU_MEMORY_GB:-80}
GPU_MEMORY_UTILIZATION=${GPU_MEMORY_UTILIZATION:-0.5}
MAX_TOKENS_PER_GPU=${MAX_TOKENS_PER_GPU:-8192}
ROLLOUT_TP=${ROLLOUT_TP:-1}
ULYSSES=${ULYSSES:-1}
OFFLOAD=${OFFLOAD:-false}
LOW_MEMORY=${LOW_MEMORY:-0}
DRY_RUN=${DRY_RUN:-0}

source recipes/lib/gpu.sh
launch dapo_rsp \
  trainer.experiment_name=dapo_rsp_qwen1.5b \
  "$@"
