#!/usr/bin/env bash
# DAPO, DAPO + RSP, and DAPO + RSP with one draw a group, on a real small model without a GPU; then
# both tables of it. Run again after a break: a run goes on from its last checkpoint, and what is
# evaluated is left alone. Checkpoints go once they are evaluated (1.6 GB each); KEEP=1 keeps them.
#
#   MODEL=runs/SmolLM2-135M-Instruct bash scripts/bench/real_model_training.sh
#   SEEDS="1 2 3 4 5" STEPS=40 bash scripts/bench/real_model_training.sh
#   ONLY=train SEEDS=2 taskset -c 0 bash scripts/bench/real_model_training.sh    one seed, no tables
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

MODEL=${MODEL:-runs/SmolLM2-135M-Instruct}
OUTPUT=${OUTPUT:-runs/real_model_training}
SEEDS=${SEEDS:-1 2 3}
STEPS=${STEPS:-10}
LENGTH=${LENGTH:-10}
LR=${LR:-3e-5}
KEEP=${KEEP:-0}
ONLY=${ONLY:-all}
rsp_rl=(.venv/bin/python -m rsp_rl.cli)

[[ -d $MODEL ]] || "${rsp_rl[@]}" model smollm2-135m --output "$MODEL"
.venv/bin/python -m rsp_rl.data.sums --level digits --output "$OUTPUT/sums"

declare -A arms=(
  [dapo]="rsp.length=0"
  [dapo_rsp]="rsp.length=$LENGTH"
  [dapo_rsp_shared]="rsp.length=$LENGTH rsp.mode=shared"
)

train_and_evaluate() { # ARM SEED
  local run=$OUTPUT/$1/seed_$2
  [[ -f $run/evaluation/sums_digits/step_$STEPS/sums_digits.metrics.json ]] && return
  # shellcheck disable=SC2086  # several overrides
  "${rsp_rl[@]}" train --config-name real_cpu +precision=bf16 \
    run_dir="$run" \
    actor_rollout_ref.model.path="$MODEL" \
    data.train_files="$OUTPUT/sums/train.parquet" \
    data.val_files="$OUTPUT/sums/heldout.parquet" \
    data.seed="$2" actor_rollout_ref.rollout.seed="$2" rsp.seed="$2" \
    data.max_response_length=24 \
    data.train_batch_size=4 actor_rollout_ref.actor.ppo_mini_batch_size=4 \
    actor_rollout_ref.rollout.n=8 actor_rollout_ref.rollout.top_k=50 \
    actor_rollout_ref.actor.optim.lr="$LR" \
    trainer.total_training_steps="$STEPS" trainer.save_freq="$STEPS" \
    trainer.test_freq=$((STEPS / 2)) \
    ${arms[$1]}
  "${rsp_rl[@]}" eval "$run" --protocol sums_digits --steps "$STEPS" --dtype bfloat16
  [[ $KEEP == 1 ]] || rm -r "$run/checkpoints"
}

folders() { # ARM
  local seed joined=
  for seed in $SEEDS; do joined+=${joined:+,}$OUTPUT/$1/seed_$seed; done
  echo "$joined"
}

# Seed by seed, so that what is done after a break is balanced.
for seed in $SEEDS; do
  for arm in dapo dapo_rsp dapo_rsp_shared; do
    train_and_evaluate "$arm" "$seed"
  done
done

[[ $ONLY == train ]] || "${rsp_rl[@]}" reproduce --section 4.5 --model "$MODEL" \
  --output "$OUTPUT/reproduced" --runs "DAPO=$(folders dapo)" \
  "DAPO+RSP=$(folders dapo_rsp)" "DAPO+RSP, shared=$(folders dapo_rsp_shared)"
