#!/usr/bin/env bash
# SofT-GRPO (arXiv 2511.06411) on DeepSeek-R1-Distill-Qwen-1.5B.
#
# Mixtures of five tokens with Gumbel noise, scored as the paper has it. SCORE=code has what the
# authors' trainer computes, noise clamped as theirs; SCORE=concrete the density of the mixture.
#
# Needs: 8 GPUs of 80 GB; the dry run counts no reference model.
# Hours: not known. We have not run it on GPUs. The paper trains one epoch of
# DeepScaleR (40,315 rows, 629 steps): set DATA_DIR to a folder with its train.parquet; by default the
# data is MATH levels 3 to 5.
# Expect: the paper's pass@32 of 85.18 beside 82.39 for GRPO; its pass@1 hardly differs.
#
#   DRY_RUN=1 bash recipes/soft_grpo_qwen1.5b.sh     settings, steps, memory, costs; needs no GPU
#   bash recipes/soft_grpo_qwen1.5b.sh               train; again to resume
set -euo pipefail

# Its own settings; lib/gpu.sh has the others, and a line here wins over its.
MODEL=${MODEL:-deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B}
RUN_DIR=${RUN_DIR:-runs/soft_grpo_qwen1.5b}
STEPS=${STEPS:-629}
GPUS_PER_NODE=${GPUS_PER_NODE:-8}
MAX_TOKENS_PER_GPU=${MAX_TOKENS_PER_GPU:-16384}
SCORE=${SCORE:-paper}

clamp=false
[[ $SCORE == code ]] && clamp=true

source "$(dirname "${BASH_SOURCE[0]}")/lib/gpu.sh"
launch dapo \
  trainer.experiment_name=soft_grpo_qwen1.5b \
  law=gumbel \
  law.score="$SCORE" \
  law.clamp=$clamp \
  data.train_batch_size=64 \
  data.max_prompt_length=1024 \
  data.max_response_length=8192 \
  actor_rollout_ref.actor.ppo_mini_batch_size=32 \
  actor_rollout_ref.actor.loss_agg_mode=seq-mean-token-mean \
  actor_rollout_ref.actor.clip_ratio_high=0.2 \
  actor_rollout_ref.actor.clip_ratio_c=3.0 \
  actor_rollout_ref.actor.use_kl_loss=true \
  actor_rollout_ref.actor.kl_loss_coef=0.001 \
  actor_rollout_ref.actor.kl_loss_type=low_var_kl \
  actor_rollout_ref.actor.optim.lr=1e-6 \
  actor_rollout_ref.rollout.top_k=5 \
  actor_rollout_ref.rollout.top_p=0.95 \
  actor_rollout_ref.rollout.val_kwargs.do_sample=true \
  actor_rollout_ref.rollout.val_kwargs.temperature=0.6 \
  "$@"
