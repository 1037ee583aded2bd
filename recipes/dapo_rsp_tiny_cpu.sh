#!/usr/bin/env bash
# DAPO + RSP on a tiny Qwen2 model, on a laptop: 2 cores, 8 GiB, no GPU, about 10 minutes.
#
# The real parts: verl's trainer, Ray, FSDP2, vLLM, the RSP plug-in; only the model and the task are
# small. Expect held-out accuracy to rise from about 0.3 to above 0.95. It shows that the pipeline
# learns, not that RSP helps: that takes the paper's model and several seeds.
#
#   bash recipes/dapo_rsp_tiny_cpu.sh                  RSP, L = 8
#   RUN_DIR=runs/dapo_tiny_cpu bash recipes/dapo_rsp_tiny_cpu.sh rsp.length=0     plain DAPO
#   RUN_DIR=/tmp/run STEPS=40 bash recipes/dapo_rsp_tiny_cpu.sh actor_rollout_ref.actor.optim.lr=2e-4
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib/start.sh"

RUN_DIR=${RUN_DIR:-runs/dapo_rsp_tiny_cpu}
MODEL_DIR=${MODEL_DIR:-runs/tiny_model}
DATA_DIR=${DATA_DIR:-runs/tiny_data}
STEPS=${STEPS:-30}
SAVE_FREQ=${SAVE_FREQ:-10}
TEST_FREQ=${TEST_FREQ:-10}
RSP_LENGTH=${RSP_LENGTH:-8}
PROMPTS=${PROMPTS:-16}
MINI_BATCH=${MINI_BATCH:-8}
ROLLOUTS=${ROLLOUTS:-8}
LR=${LR:-2e-4}

set_up cpu

"$python" -m rsp_rl.tiny --output "$MODEL_DIR"
"$python" -m rsp_rl.data.arithmetic --output "$DATA_DIR"

"$python" -m rsp_rl.cli train --config-name tiny_cpu \
  run_dir="$RUN_DIR" \
  actor_rollout_ref.model.path="$MODEL_DIR" \
  data.train_files="$DATA_DIR/train.parquet" \
  data.val_files="$DATA_DIR/heldout.parquet" \
  data.train_batch_size="$PROMPTS" \
  actor_rollout_ref.actor.ppo_mini_batch_size="$MINI_BATCH" \
  actor_rollout_ref.actor.optim.lr="$LR" \
  actor_rollout_ref.rollout.n="$ROLLOUTS" \
  rsp.length="$RSP_LENGTH" \
  trainer.total_training_steps="$STEPS" \
  trainer.save_freq="$SAVE_FREQ" \
  trainer.test_freq="$TEST_FREQ" \
  "$@"

"$python" -m rsp_rl.cli report "$RUN_DIR"
"$python" -m rsp_rl.cli eval "$RUN_DIR" --protocol tiny --steps "0,$STEPS"
