#!/usr/bin/env bash
# Coconut (arXiv 2412.06769), its baselines and ablations on ProsQA, on a laptop: 2 cores, no GPU.
#
# METHOD is coconut, cot, no_cot, icot, pause, no_curriculum, no_thought or pause_as_thought. A
# small model learns from nothing, so that numbers stand beside each other and not beside the
# paper's, which are of GPT-2 on larger graphs (Coconut 97.0 %, CoT 77.5 %). All methods of a SEED
# begin with the same weights and see the same problems: those that take steps away little by little
# (coconut, no_thought, pause_as_thought, icot) with the CoT model of the seed, which is trained
# first into COT_DIR where it is not there, and goes for their stage 0; the rest has as many epochs
# as both together. Coconut trains with SIM-CoT's decoder (arXiv 2509.20317), for without it
# thoughts beyond the first are not learnt in this time; STEP_DECODER=0 leaves it out. Arguments are
# of METHOD's own training.
# What the model gives is in RUN_DIR/summary.json: accuracy, tokens and seconds a problem.
#
#   bash recipes/coconut_prosqa_cpu.sh                                Coconut
#   STEP_DECODER=0 bash recipes/coconut_prosqa_cpu.sh                 as the paper has it
#   METHOD=pause_as_thought SEED=2 bash recipes/coconut_prosqa_cpu.sh
#   METHOD=no_cot EPOCHS=20 bash recipes/coconut_prosqa_cpu.sh --weight-decay 0.1
#   DRY_RUN=1 bash recipes/coconut_prosqa_cpu.sh                      settings, data, steps, memory
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib/start.sh"

METHOD=${METHOD:-coconut}
SEED=${SEED:-0}

# With stages, or tokens that go one after the other: the CoT model is where they begin.
from_cot=0
case $METHOD in
  coconut | no_thought | pause_as_thought | icot) from_cot=1 ;;
  cot | no_cot | pause | no_curriculum) ;;
  *)
    echo "error: METHOD=$METHOD is none of coconut, cot, no_cot, icot, pause, no_curriculum," \
      "no_thought, pause_as_thought" >&2
    exit 1
    ;;
esac

# The weight of SIM-CoT's loss, 0 for none; only thoughts can have it. Such a run is another row of
# the table, and lies in a folder of its own.
STEP_DECODER=${STEP_DECODER:-$([[ $METHOD == coconut ]] && echo 1 || echo 0)}
sim=
[[ $STEP_DECODER == 0 ]] || sim=_sim

RUN_DIR=${RUN_DIR:-runs/coconut_prosqa_cpu/$METHOD${sim}_$SEED}
COT_DIR=${COT_DIR:-runs/coconut_prosqa_cpu/cot_$SEED}
DATA_DIR=${DATA_DIR:-runs/coconut_prosqa_cpu/data}
MODEL_DIR=${MODEL_DIR:-runs/coconut_prosqa_cpu/base/$SEED}

# The set; LEVEL=small are the same graphs in whole sentences, paper or balanced the paper's, four
# times as long.
LEVEL=${LEVEL:-bare}
TRAIN_SIZE=${TRAIN_SIZE:-40000}
VALIDATION_SIZE=${VALIDATION_SIZE:-300}
HELDOUT_SIZE=${HELDOUT_SIZE:-500}
# The model.
ARCHITECTURE=${ARCHITECTURE:-qwen2}
LAYERS=${LAYERS:-3}
HIDDEN_SIZE=${HIDDEN_SIZE:-64}
HEADS=${HEADS:-2}
CONTEXT=${CONTEXT:-128}
# The training: of CoT, then of the stages after stage 0, one of them without any steps.
COT_EPOCHS=${COT_EPOCHS:-5}
EPOCHS_PER_STAGE=${EPOCHS_PER_STAGE:-1}
MAX_STAGE=${MAX_STAGE:-3}
staged=$((EPOCHS_PER_STAGE * (MAX_STAGE + 1)))
if [[ $METHOD == cot ]]; then
  epochs=$COT_EPOCHS first_epoch=0
elif [[ $from_cot == 1 ]]; then
  # The count includes stage 0, which is skipped.
  epochs=$((EPOCHS_PER_STAGE + staged)) first_epoch=$EPOCHS_PER_STAGE
else
  epochs=$((COT_EPOCHS + staged)) first_epoch=0
fi
EPOCHS=${EPOCHS:-$epochs}
FIRST_EPOCH=${FIRST_EPOCH:-$first_epoch}
ICOT_TOKENS_PER_EPOCH=${ICOT_TOKENS_PER_EPOCH:-4}
LEARNING_RATE=${LEARNING_RATE:-1e-3}
WARMUP_STEPS=${WARMUP_STEPS:-50}
OPTIMIZER=${OPTIMIZER:-adamw}
RESET_OPTIMIZER=${RESET_OPTIMIZER:-stage}
BATCH_SIZE=${BATCH_SIZE:-64}
MICRO_BATCH_SIZE=${MICRO_BATCH_SIZE:-64}
MAX_NEW_TOKENS=${MAX_NEW_TOKENS:-60}
VALIDATION_LIMIT=${VALIDATION_LIMIT:-200}
THREADS=${THREADS:-2}
DRY_RUN=${DRY_RUN:-0}

set_up cpu

"$python" -m rsp_rl.data.prosqa --output "$DATA_DIR" --level "$LEVEL" \
  --train-size "$TRAIN_SIZE" --validation-size "$VALIDATION_SIZE" --heldout-size "$HELDOUT_SIZE"
"$python" -m rsp_rl.cli latent model --data "$DATA_DIR/train.jsonl" --output "$MODEL_DIR" \
  --architecture "$ARCHITECTURE" --layers "$LAYERS" --hidden-size "$HIDDEN_SIZE" \
  --heads "$HEADS" --context "$CONTEXT" --seed "$SEED"

# train METHOD FOLDER MODEL [settings]
train() {
  local method=$1 folder=$2 model=$3
  shift 3
  local dry=()
  if [[ $DRY_RUN == 1 ]]; then
    dry=(--dry-run)
  fi
  "$python" -m rsp_rl.cli latent train "${dry[@]}" \
    --preset prosqa \
    --method "$method" \
    --model "$model" \
    --train "$DATA_DIR/train.jsonl" \
    --validation "$DATA_DIR/validation.jsonl" \
    --output "$folder" \
    --epochs-per-stage "$EPOCHS_PER_STAGE" \
    --max-stage "$MAX_STAGE" \
    --learning-rate "$LEARNING_RATE" \
    --warmup-steps "$WARMUP_STEPS" \
    --optimizer "$OPTIMIZER" \
    --reset-optimizer "$RESET_OPTIMIZER" \
    --batch-size "$BATCH_SIZE" \
    --micro-batch-size "$MICRO_BATCH_SIZE" \
    --icot-tokens-per-epoch "$ICOT_TOKENS_PER_EPOCH" \
    --validation-limit "$VALIDATION_LIMIT" \
    --max-new-tokens "$MAX_NEW_TOKENS" \
    --threads "$THREADS" \
    --seed "$SEED" \
    "$@"
}

answer() {
  "$python" -m rsp_rl.cli latent eval "$1" --data "$DATA_DIR/heldout.jsonl" --threads "$THREADS"
}

start=$MODEL_DIR
if [[ $from_cot == 1 ]]; then
  echo "CoT, which $METHOD begins with" >&2
  # As METHOD=cot has it, so that the folder is that one's; trained before, it is left as it is.
  train cot "$COT_DIR" "$MODEL_DIR" --epochs "$COT_EPOCHS" --first-epoch 0 --step-decoder 0
  # In a dry run the CoT model is not there yet, and is of the same sizes.
  if [[ $DRY_RUN != 1 ]]; then
    answer "$COT_DIR"
    start=$COT_DIR/model
  fi
fi
echo "$METHOD" >&2
train "$METHOD" "$RUN_DIR" "$start" --epochs "$EPOCHS" --first-epoch "$FIRST_EPOCH" \
  --step-decoder "$STEP_DECODER" "$@"
if [[ $DRY_RUN == 1 ]]; then
  exit
fi
answer "$RUN_DIR"
cp "$RUN_DIR/evaluation/heldout/summary.json" "$RUN_DIR/summary.json"
echo "summary  $RUN_DIR/summary.json"
