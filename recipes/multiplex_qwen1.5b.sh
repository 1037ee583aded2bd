#!/usr/bin/env bash
# Multiplex Thinking (arXiv 2601.08808) on DeepSeek-R1-Distill-Qwen-1.5B.
#
# Three draws a thought, their embeddings mixed by their probabilities, a ratio and clip a draw, as in
# the authors' code.
#
# Needs: 4 GPUs of 80 GB. Hours: not known. We have not run it on GPUs. Not known from the paper, and
# so as elsewhere here: the data (MATH levels 3 to 5), the bounds of the clip, weight decay.
# Expect: the paper's AIME24 pass@1 of 11.8 beside 10.5 for RL with tokens.
#
#   DRY_RUN=1 bash recipes/multiplex_qwen1.5b.sh     settings, steps, memory, costs; needs no GPU
#   bash recipes/multiplex_qwen1.5b.sh               train; again to resume
set -euo pipefail

# Its own settings; lib/gpu.sh has the others, and a line here wins over its.
MODEL=${MODEL:-deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B}
RUN_DIR=${RUN_DIR:-runs/multiplex_qwen1.5b}
STEPS=${STEPS:-300}

source "$(dirname "${BASH_SOURCE[0]}")/lib/gpu.sh"
source "$(dirname "${BASH_SOURCE[0]}")/lib/multiplex.sh"
launch dapo \
  trainer.experiment_name=multiplex_qwen1.5b \
  "${multiplex[@]}" \
  "$@"
