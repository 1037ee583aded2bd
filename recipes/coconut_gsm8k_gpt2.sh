#!/usr/bin/env bash
# Coconut (arXiv 2412.06769) on GSM8K with GPT-2, the paper's settings: CoT first, then thoughts.
#
# First a CoT model is trained for 25 epochs; the one of the best epoch by the validation file, whose
# accuracy is near 40 %, is where Coconut begins, at its first stage: two thoughts a step, three
# epochs a stage, three stages and one without steps, a new AdamW each epoch. A step is 128 problems,
# 32 a GPU with four; with fewer the others wait their turn and the step stays the same.
#
# TRAIN_FILES, VALIDATION_FILES and TEST_FILE are yours, problems with steps, several files with
# blanks between them. The paper's training set is iCoT's augmented GSM8K (385,620 problems), of whose
# files python -m rsp_rl.data.gsm8k_steps --output runs/gsm8k_steps makes these. Arguments are of the
# second training. The paper does not say what methods without stages begin with: here it is GPT-2.
#
# Needs: 1 to 4 GPUs of 80 GB. Hours: not known. We have not run it.
# Expect: 34.1 % of GSM8K's test problems right with 8.2 tokens, CoT 42.9 % with 25.0 (paper).
#
#   DRY_RUN=1 bash recipes/coconut_gsm8k_gpt2.sh     settings, data, steps, memory; needs no GPU
#   METHOD=pause_as_thought GPUS=1 bash recipes/coconut_gsm8k_gpt2.sh
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib/start.sh"

METHOD=${METHOD:-coconut}
MODEL=${MODEL:-openai-community/gpt2}
RUN_DIR=${RUN_DIR:-runs/coconut_gsm8k_gpt2/$METHOD}
COT_DIR=${COT_DIR:-runs/coconut_gsm8k_gpt2/cot}
TRAIN_FILES=${TRAIN_FILES:-runs/gsm8k_steps/train.jsonl}
VALIDATION_FILES=${VALIDATION_FILES:-runs/gsm8k_steps/validation.jsonl}
TEST_FILE=${TEST_FILE:-runs/gsm8k_steps/heldout.jsonl}
SEED=${SEED:-0}
GPUS=${GPUS:-4}
GPU_MEMORY_GB=${GPU_MEMORY_GB:-80}
DRY_RUN=${DRY_RUN:-0}

# With stages: the CoT model is their stage 0.
from_cot=1
case $METHOD in
  coconut | no_thought | pause_as_thought) ;;
  cot | no_cot | icot | pause | no_curriculum) from_cot=0 ;;
  *)
    echo "error: METHOD=$METHOD is none of coconut, cot, no_cot, icot, pause, no_curriculum," \
      "no_thought, pause_as_thought" >&2
    exit 1
    ;;
esac

for file in $TRAIN_FILES $VALIDATION_FILES "$TEST_FILE"; do
  if [[ ! -f $file ]]; then
    echo "error: there is no $file; set TRAIN_FILES, VALIDATION_FILES and TEST_FILE to problems with" \
      "steps (python -m rsp_rl.data.gsm8k_steps makes them of GSM8K)" >&2
    exit 1
  fi
done

# train METHOD FOLDER MODEL [settings]
train() {
  local method=$1 folder=$2 model=$3
  shift 3
  # Several files stand between blanks.
  local arguments=(
    latent train
    --preset gsm8k
    --method "$method"
    --model "$model"
    --train $TRAIN_FILES
    --validation $VALIDATION_FILES
    --output "$folder"
    --seed "$SEED"
    "$@"
  )
  if [[ $DRY_RUN == 1 ]]; then
    "$python" -m rsp_rl.cli "${arguments[@]}" --dry-run --processes "$GPUS" \
      --memory-gb "$GPU_MEMORY_GB"
  elif [[ $GPUS == 1 ]]; then
    "$python" -m rsp_rl.cli "${arguments[@]}"
  else
    "$python" -m torch.distributed.run --standalone --nproc-per-node "$GPUS" -m rsp_rl.cli \
      "${arguments[@]}"
  fi
}

if [[ $DRY_RUN == 1 ]]; then
  [[ -x $python ]] || set_up
else
  set_up gpu
fi

start=$MODEL
first=(--first-epoch 0)
if [[ $from_cot == 1 ]]; then
  echo "CoT, which $METHOD begins with" >&2
  train cot "$COT_DIR" "$MODEL" --first-epoch 0
  first=()
  # The CoT model is not there yet, and is of the same sizes.
  [[ $DRY_RUN == 1 ]] || start=$COT_DIR/model
fi
echo "$METHOD" >&2
train "$METHOD" "$RUN_DIR" "$start" "${first[@]}" "$@"
if [[ $DRY_RUN == 1 ]]; then
  exit
fi
"$python" -m rsp_rl.cli latent eval "$RUN_DIR" --data "$TEST_FILE" \
  --output "$RUN_DIR/evaluation/test"
cp "$RUN_DIR/evaluation/test/summary.json" "$RUN_DIR/summary.json"
echo "summary  $RUN_DIR/summary.json"
