#!/usr/bin/env bash
# DAPO + RSP on Llama-3.1-8B-Instruct, MATH levels 3 to 5: the settings of the Qwen run.
# The prompts are of Llama's own chat template with its date pinned.
#
# Needs: 4 GPUs of 80 GB, 100 GB of host memory, 0.9 TB of disk (10 checkpoints of 90 GiB; see
# KEEP_CHECKPOINTS), access to the model on the hub. Hours: not known. We have not run it on GPUs.
# Expect: the paper uses this model at inference only, so there is no number to compare with;
# compare with rsp.length=0 over several values of data.seed.
#
#   DRY_RUN=1 bash recipes/dapo_rsp_llama8b.sh     settings, steps, memory, costs; needs no GPU
#   bash recipes/dapo_rsp_llama8b.sh               train; again to resume
set -euo pipefail

# Its own settings; lib/gpu.sh has the others, and a line here wins over its.
MODEL=${MODEL:-meta-llama/Llama-3.1-8B-Instruct}
RUN_DIR=${RUN_DIR:-runs/dapo_rsp_llama8b}
TEMPLATE=${TEMPLATE:-llama-chat}
DATA_DIR=${DATA_DIR:-runs/math35_llama}

source "$(dirname "${BASH_SOURCE[0]}")/lib/gpu.sh"
launch dapo_rsp \
  trainer.experiment_name=dapo_rsp_llama8b \
  '+data.apply_chat_template_kwargs.date_string="26 Jul 2024"' \
  actor_rollout_ref.rollout.max_model_len=4096 \
  "$@"
