#!/usr/bin/env bash
# Random soft prompts in the question and multiplex thoughts in the answer.
#
# L = 20, on DeepSeek-R1-Distill-Qwen-7B; all else is recipes/multiplex_qwen1.5b.sh.
#
# Needs: 8 GPUs of 80 GB. Hours: not known. We have not run it on GPUs, and no paper has: compare with
# rsp.length=0, and with law=off, over several values of data.seed.
#
#   DRY_RUN=1 bash recipes/multiplex_rsp_qwen7b.sh     settings, steps, memory, costs; needs no GPU
#   bash recipes/multiplex_rsp_qwen7b.sh               train; again to resume
set -euo pipefail

# Its own settings; lib/gpu.sh has the others, and a line here wins over its.
MODEL=${MODEL:-deepseek-ai/DeepSeek-R1-Distill-Qwen-7B}
RUN_DIR=${RUN_DIR:-runs/multiplex_rsp_qwen7b}
STEPS=${STEPS:-300}
GPUS_PER_NODE=${GPUS_PER_NODE:-8}

source "$(dirname "${BASH_SOURCE[0]}")/lib/gpu.sh"
source "$(dirname "${BASH_SOURCE[0]}")/lib/multiplex.sh"
launch dapo_rsp \
  trainer.experiment_name=multiplex_rsp_qwen7b \
  "${multiplex[@]}" \
  "$@"
