#!/usr/bin/env bash
# DAPO on Qwen2.5-Math-7B, MATH levels 3 to 5: the paper's baseline (section 4.5, Table 12).
# The same as dapo_rsp_qwen7b.sh but for the RSP length.
#
# Needs: 4 GPUs of 80 GB, 100 GB of host memory, 0.9 TB of disk (10 checkpoints of 85 GiB; see
# KEEP_CHECKPOINTS), and by the paper 12 hours on 4 B200. We have not run it on GPUs ourselves.
# Expect, from the paper: the average of GSM8K, MATH-500, College Math, Minerva and AIME24 from
# 30.06 to a peak of 53.20 (step 80), falling to 52.52 (step 90) and 50.54 (step 100).
#
#   DRY_RUN=1 bash recipes/dapo_qwen7b.sh     settings, steps, memory, costs; needs no GPU
#   bash recipes/dapo_qwen7b.sh               train; again to resume
set -euo pipefail

# Its own settings; lib/gpu.sh has the others, and a line here wins over its.
MODEL=${MODEL:-Qwen/Qwen2.5-Math-7B}
RUN_DIR=${RUN_DIR:-runs/dapo_qwen7b}

source "$(dirname "${BASH_SOURCE[0]}")/lib/gpu.sh"
launch dapo \
  trainer.experiment_name=dapo_qwen7b \
  "$@"
