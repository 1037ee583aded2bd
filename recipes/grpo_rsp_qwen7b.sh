#!/usr/bin/env bash
# GRPO + RSP on Qwen2.5-Math-7B, MATH levels 3 to 5: the same soft prompts under another loss.
# RSP changes rollouts and log-probs, never the loss, so it composes with any of verl's algorithms.
# GRPO here: a mean over each response, then over responses, and the symmetric clip of 0.2; no KL
# term, so that no reference policy is needed.
#
# Needs: 4 GPUs of 80 GB, 100 GB of host memory, 0.9 TB of disk (10 checkpoints of 85 GiB; see
# KEEP_CHECKPOINTS). Hours: as DAPO's. We have not run it on GPUs ourselves.
# Expect: not in the paper, so there is no number to compare with; compare with rsp.length=0.
#
#   DRY_RUN=1 bash recipes/grpo_rsp_qwen7b.sh     settings, steps, memory, costs; needs no GPU
#   bash recipes/grpo_rsp_qwen7b.sh               train; again to resume
set -euo pipefail

# Its own settings; lib/gpu.sh has the others, and a line here wins over its.
MODEL=${MODEL:-Qwen/Qwen2.5-Math-7B}
RUN_DIR=${RUN_DIR:-runs/grpo_rsp_qwen7b}

source "$(dirname "${BASH_SOURCE[0]}")/lib/gpu.sh"
launch dapo_rsp \
  trainer.experiment_name=grpo_rsp_qwen7b \
  actor_rollout_ref.actor.loss_agg_mode=seq-mean-token-mean \
  actor_rollout_ref.actor.clip_ratio_high=0.2 \
  actor_rollout_ref.actor.clip_ratio_c=3.0 \
  "$@"
