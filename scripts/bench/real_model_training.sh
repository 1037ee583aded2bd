#!/usr/bin/env bash
# Ways of training (arms) beside each other on a real small model without a GPU, a run a seed, and
# the tables of it. Run again after a break: a run goes on from its last checkpoint, and what is
# evaluated is left alone. Checkpoints go once they are evaluated (1.6 GB each); KEEP=1 keeps them.
#
#   MODEL=runs/SmolLM2-135M-Instruct bash scripts/bench/real_model_training.sh
#   ARMS="token multiplex gumbel soft" bash scripts/bench/real_model_training.sh   with thoughts
#   SEEDS="1 2 3 4 5" STEPS=40 bash scripts/bench/real_model_training.sh
#   ARMS=soft OUTPUT=runs/by_p bash scripts/bench/real_model_training.sh law.learn_embedding=false
#   ONLY=train SEEDS=2 taskset -c 0 bash scripts/bench/real_model_training.sh    one seed, no tables
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

MODEL=${MODEL:-runs/SmolLM2-135M-Instruct}
OUTPUT=${OUTPUT:-runs/real_model_training}
ARMS=${ARMS:-dapo dapo_rsp dapo_rsp_shared}
SEEDS=${SEEDS:-1 2 3}
STEPS=${STEPS:-10}
LENGTH=${LENGTH:-10}
LR=${LR:-3e-5}
KEEP=${KEEP:-0}
ONLY=${ONLY:-all}
overrides=("$@")
python=${VENV:-.venv}/bin/python
rsp_rl=("$python" -m rsp_rl.cli)

# Thoughts until the sum is written down ("5 + 9 ="), ten at most; what comes then are tokens.
thinks='rsp.length=0 law.end=[] law.end_text="=" law.max_thoughts=10'
rloo='objective=rloo'
declare -A arms=(
  [dapo]="rsp.length=0"
  [dapo_rsp]="rsp.length=$LENGTH"
  [dapo_rsp_shared]="rsp.length=$LENGTH rsp.mode=shared"
  [token]="$thinks law=token law.top_k=50"
  [token_rloo]="$thinks law=token law.top_k=50 objective=rloo"
  [multiplex]="$thinks law=multiplex law.weighting=probability law.top_k=50"
  [gumbel]="$thinks law=gumbel"
  [soft]="$thinks law=soft $rloo"
  [fuzzy]="$thinks law=fuzzy $rloo"
)
declare -A names=(
  [dapo]=DAPO
  [dapo_rsp]=DAPO+RSP
  [dapo_rsp_shared]="DAPO+RSP, shared"
)
for arm in $ARMS; do
  [[ -n ${arms[$arm]:-} ]] || {
    echo "error: ARMS has $arm, which is none of ${!arms[*]}" >&2
    exit 1
  }
done

[[ -d $MODEL ]] || "${rsp_rl[@]}" model smollm2-135m --output "$MODEL"
"$python" -m rsp_rl.data.sums --level digits --output "$OUTPUT/sums"

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
    ${arms[$1]} "${overrides[@]}"
  "${rsp_rl[@]}" eval "$run" --protocol sums_digits --steps "$STEPS" --dtype bfloat16
  [[ $KEEP == 1 ]] || rm -r "$run/checkpoints"
}

# Seed by seed, so that what is done after a break is balanced.
for seed in $SEEDS; do
  for arm in $ARMS; do
    train_and_evaluate "$arm" "$seed"
  done
done
[[ $ONLY == train ]] && exit

runs=()
for arm in $ARMS; do
  joined=
  for seed in $SEEDS; do joined+=${joined:+,}$OUTPUT/$arm/seed_$seed; done
  runs+=("${names[$arm]:-$arm}=$joined")
done
if [[ $ARMS == *dapo* ]]; then
  "${rsp_rl[@]}" reproduce --section 4.5 --model "$MODEL" --output "$OUTPUT/reproduced" \
    --runs "${runs[@]}"
else
  "${rsp_rl[@]}" analyze training "${runs[@]}" --output "$OUTPUT/training"
fi
