#!/usr/bin/env bash
# DAPO + RSP on SmolLM2-135M-Instruct, a real language model, on a laptop: 2 cores, 16 GiB, no GPU.
#
# The model comes from the hub or, where that is out of reach, rounded to 4 bits from a package; it
# learns sums of two digits, of which it knows some with a soft prompt, too. Processors with
# AVX512-BF16 or AMX are twice as fast with +precision=bf16.
#
#   bash recipes/dapo_rsp_smollm2_cpu.sh               RSP, L = 10
#   RUN_DIR=runs/dapo_smollm2_cpu bash recipes/dapo_rsp_smollm2_cpu.sh rsp.length=0     plain DAPO
#   DRY_RUN=1 bash recipes/dapo_rsp_smollm2_cpu.sh     only say what it would be
#   MODEL=/models/my_model STEPS=40 bash recipes/dapo_rsp_smollm2_cpu.sh +precision=bf16
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib/start.sh"

RUN_DIR=${RUN_DIR:-runs/dapo_rsp_smollm2_cpu}
MODEL=${MODEL:-}
DATA_DIR=${DATA_DIR:-runs/sums_digits}
STEPS=${STEPS:-10}
SAVE_FREQ=${SAVE_FREQ:-$STEPS}
TEST_FREQ=${TEST_FREQ:-$STEPS}
DRY_RUN=${DRY_RUN:-0}

set_up cpu

if [[ -z $MODEL ]]; then
  MODEL=runs/smollm2-135m
  "$python" -m rsp_rl.cli model smollm2-135m --output "$MODEL"
fi
"$python" -m rsp_rl.data.sums --level digits --output "$DATA_DIR"

overrides=(
  run_dir="$RUN_DIR"
  actor_rollout_ref.model.path="$MODEL"
  data.train_files="$DATA_DIR/train.parquet"
  data.val_files="$DATA_DIR/heldout.parquet"
  trainer.total_training_steps="$STEPS"
  trainer.save_freq="$SAVE_FREQ"
  trainer.test_freq="$TEST_FREQ"
  # With these a third of the rollouts with a soft prompt is right, and ten steps are seen to teach.
  rsp.length=10
  data.max_response_length=24
  actor_rollout_ref.rollout.top_k=50
  actor_rollout_ref.actor.optim.lr=3e-5
  "$@"
)
if [[ $DRY_RUN == 1 ]]; then
  "$python" -m rsp_rl.training.cpu_dry_run --config-name real_cpu "${overrides[@]}"
  exit
fi
"$python" -m rsp_rl.cli train --config-name real_cpu "${overrides[@]}"
"$python" -m rsp_rl.cli report "$RUN_DIR"
"$python" -m rsp_rl.cli eval "$RUN_DIR" --protocol sums_digits --steps "0,$STEPS"
