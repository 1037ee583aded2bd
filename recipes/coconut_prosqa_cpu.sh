#!/usr/bin/env bash
# Coconut (arXiv 2412.06769), its baselines and ablations on ProsQA, on a laptop: 2 cores, no GPU.
#
# METHOD is coconut, cot, no_cot, icot, pause, no_curriculum, no_thought or pause_as_thought. A small
# model learns from nothing, so that numbers stand beside each other and not beside the paper's,
# which are of GPT-2. All methods of a SEED begin with the same weights and see the same problems.
# What the model gives is in RUN_DIR/summary.json: accuracy, tokens and seconds a problem.
#
#   bash recipes/coconut_prosqa_cpu.sh                                Coconut
#   METHOD=pause_as_thought SEED=2 bash recipes/coconut_prosqa_cpu.sh
#   METHOD=cot EPOCHS=20 bash recipes/coconut_prosqa_cpu.sh --learning-rate 5e-4
#   DRY_RUN=1 bash recipes/coconut_prosqa_cpu.sh                      settings, data, steps, memory
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib/start.sh"

METHOD=${METHOD:-coconut}
SEED=${SEED:-0}
RUN_DIR=${RUN_DIR:-runs/coconut_prosqa_cpu/${METHOD}_$SEED}
DATA_DIR=${DATA_DIR:-runs/coconut_prosqa_cpu/data}
MODEL_DIR=${MODEL_DIR:-runs/coconut_prosqa_cpu/model_$SEED}

# The set; LEVEL=paper or balanced are the paper's graphs, four times as long.
LEVEL=${LEVEL:-small}
TRAIN_SIZE=${TRAIN_SIZE:-12000}
VALIDATION_SIZE=${VALIDATION_SIZE:-300}
HELDOUT_SIZE=${HELDOUT_SIZE:-500}
# The model.
ARCHITECTURE=${ARCHITECTURE:-qwen2}
LAYERS=${LAYERS:-3}
HIDDEN_SIZE=${HIDDEN_SIZE:-64}
HEADS=${HEADS:-2}
CONTEXT=${CONTEXT:-256}
# The training.
EPOCHS=${EPOCHS:-36}
EPOCHS_PER_STAGE=${EPOCHS_PER_STAGE:-6}
MAX_STAGE=${MAX_STAGE:-2}
ICOT_TOKENS_PER_EPOCH=${ICOT_TOKENS_PER_EPOCH:-1}
LEARNING_RATE=${LEARNING_RATE:-1e-3}
OPTIMIZER=${OPTIMIZER:-adamw}
RESET_OPTIMIZER=${RESET_OPTIMIZER:-stage}
BATCH_SIZE=${BATCH_SIZE:-64}
MICRO_BATCH_SIZE=${MICRO_BATCH_SIZE:-64}
MAX_NEW_TOKENS=${MAX_NEW_TOKENS:-40}
THREADS=${THREADS:-2}
DRY_RUN=${DRY_RUN:-0}

case $METHOD in
  coconut | cot | no_cot | icot | pause | no_curriculum | no_thought | pause_as_thought) ;;
  *)
    echo "error: METHOD=$METHOD is none of coconut, cot, no_cot, icot, pause, no_curriculum," \
      "no_thought, pause_as_thought" >&2
    exit 1
    ;;
esac

set_up cpu

"$python" -m rsp_rl.data.prosqa --output "$DATA_DIR" --level "$LEVEL" \
  --train-size "$TRAIN_SIZE" --validation-size "$VALIDATION_SIZE" --heldout-size "$HELDOUT_SIZE"
"$python" -m rsp_rl.cli latent model --data "$DATA_DIR/train.jsonl" --output "$MODEL_DIR" \
  --architecture "$ARCHITECTURE" --layers "$LAYERS" --hidden-size "$HIDDEN_SIZE" \
  --heads "$HEADS" --context "$CONTEXT" --seed "$SEED"

dry=()
if [[ $DRY_RUN == 1 ]]; then
  dry=(--dry-run)
fi
"$python" -m rsp_rl.cli latent train "${dry[@]}" \
  --preset prosqa \
  --method "$METHOD" \
  --model "$MODEL_DIR" \
  --train "$DATA_DIR/train.jsonl" \
  --validation "$DATA_DIR/validation.jsonl" \
  --output "$RUN_DIR" \
  --epochs "$EPOCHS" \
  --epochs-per-stage "$EPOCHS_PER_STAGE" \
  --max-stage "$MAX_STAGE" \
  --learning-rate "$LEARNING_RATE" \
  --optimizer "$OPTIMIZER" \
  --reset-optimizer "$RESET_OPTIMIZER" \
  --batch-size "$BATCH_SIZE" \
  --micro-batch-size "$MICRO_BATCH_SIZE" \
  --icot-tokens-per-epoch "$ICOT_TOKENS_PER_EPOCH" \
  --max-new-tokens "$MAX_NEW_TOKENS" \
  --threads "$THREADS" \
  --seed "$SEED" \
  "$@"
if [[ $DRY_RUN == 1 ]]; then
  exit
fi
"$python" -m rsp_rl.cli latent eval "$RUN_DIR" --data "$DATA_DIR/heldout.jsonl" --threads "$THREADS"
cp "$RUN_DIR/evaluation/heldout/summary.json" "$RUN_DIR/summary.json"
echo "summary  $RUN_DIR/summary.json"
