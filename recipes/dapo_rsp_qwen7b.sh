#!/usr/bin/env bash
# DAPO + RSP on Qwen2.5-Math-7B, MATH levels 3 to 5: the paper's main run (section 4.5, Table 12).
# L = 20 soft prompt vectors before the end of the user's turn, a fresh draw for every rollout.
#
# Needs: 4 GPUs of 80 GB, 100 GB of host memory, 0.9 TB of disk (10 checkpoints of 85 GiB; see
# KEEP_CHECKPOINTS), and by the paper 12 hours on 4 B200. We have not run it on GPUs ourselves.
# Expect, from the paper: the average of GSM8K, MATH-500, College Math, Minerva and AIME24 from
# 30.06 to a peak of 54.36 (step 90), and 53.64 at step 100 (DAPO: 53.20 at its peak, 50.54 at
# step 100).
#
#   DRY_RUN=1 bash recipes/dapo_rsp_qwen7b.sh     settings, steps, memory, costs; needs no GPU
#   bash recipes/dapo_rsp_qwen7b.sh               train; again to resume
set -euo pipefail

# Its own settings; lib/gpu.sh has the others, and a line here wins over its.
MODEL=${MODEL:-Qwen/Qwen2.5-Math-7B}
RUN_DIR=${RUN_DIR:-runs/dapo_rsp_qwen7b}

source "$(dirname "${BASH_SOURCE[0]}")/lib/gpu.sh"
launch dapo_rsp \
  trainer.experiment_name=dapo_rsp_qwen7b \
  "$@"
