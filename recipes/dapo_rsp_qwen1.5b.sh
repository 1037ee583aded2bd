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

# Its own settings; lib/gpu.sh has the others, and a line here wins over its.
MODEL=${MODEL:-Qwen/Qwen2.5-Math-1.5B}
RUN_DIR=${RUN_DIR:-runs/dapo_rsp_qwen1.5b}
GPUS_PER_NODE=${GPUS_PER_NODE:-1}

source "$(dirname "${BASH_SOURCE[0]}")/lib/gpu.sh"
launch dapo_rsp \
  trainer.experiment_name=dapo_rsp_qwen1.5b \
  "$@"
