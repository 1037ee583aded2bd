#!/usr/bin/env bash
# CCOT, Compressed Chain of Thought (arXiv 2412.13171), on Llama-2-7b-chat and GSM8K.
#
# Two LoRA adapters on the frozen model: one thinks in few hidden states, RATIO of them for each token
# of the chain, the other answers from them. The paper's: ranks 128 and 64, layer 15, evenly spaced
# tokens (its Table of selections finds them about as good as scored ones), ratios 0.05 and 0.1, chains
# without the calculator's annotations. Ours, for the paper is silent: learning rate, batch, epochs, see
# rsp_rl/latent/ccot/settings.py; they may be far from the authors'.
#
# Needs: 1 GPU of 80 GB by estimate. Hours: not known. We have not run it on GPUs.
# GSM8K: the plain training file, train.jsonl with question and answer; TEST likewise.
# Expect: exact match of .151 at RATIO=0.05 and .179 at RATIO=0.1 (paper; .089 without thoughts).
#
#   DRY_RUN=1 GSM8K=FILE bash recipes/ccot_gsm8k_llama7b.sh     settings, data, memory; needs no GPU
#   RATIO=0.05 GSM8K=FILE TEST=FILE bash recipes/ccot_gsm8k_llama7b.sh
set -euo pipefail

RATIO=${RATIO:-0.1}
MODEL=${MODEL:-meta-llama/Llama-2-7b-chat-hf}
RUN_DIR=${RUN_DIR:-runs/ccot_gsm8k_llama7b_$RATIO}
DATA_DIR=${DATA_DIR:-runs/gsm8k_sentences}
GSM8K=${GSM8K:-}
TEST=${TEST:-}
GPU_MEMORY_GB=${GPU_MEMORY_GB:-80}
DRY_RUN=${DRY_RUN:-0}

source "$(dirname "${BASH_SOURCE[0]}")/lib/start.sh"

if [[ $DRY_RUN == 1 ]]; then
  [[ -x $python ]] || [[ $python == python ]] || set_up
else
  set_up gpu
fi
missing=
if [[ ! -f $DATA_DIR/train.jsonl ]]; then
  missing=train.jsonl
elif [[ -n $TEST && ! -f $DATA_DIR/heldout.jsonl ]]; then
  missing=heldout.jsonl  # training's rows are then without the questions of TEST: both are made
fi
if [[ -n $missing ]]; then
  if [[ -z $GSM8K ]]; then
    echo "error: $DATA_DIR has no $missing; set GSM8K to GSM8K's training file" >&2
    exit 1
  fi
  "$python" -m rsp_rl.data.gsm8k_steps --sentences --output "$DATA_DIR" --train "$GSM8K" \
    ${TEST:+--heldout "$TEST"}
fi

arguments=(
  --model "$MODEL"
  --train "$DATA_DIR/train.jsonl"
  --output "$RUN_DIR"
  --dtype bfloat16
  --ratio "$RATIO"
  --layer 15
  --selection even
  --generator-rank 128
  --decoder-rank 64
  --longest-chain 200
  "$@"
)
if [[ $DRY_RUN == 1 ]]; then
  exec "$python" -m rsp_rl.cli latent ccot train --dry-run --gpu-memory-gb "$GPU_MEMORY_GB" \
    "${arguments[@]}"
fi
"$python" -m rsp_rl.cli latent ccot train "${arguments[@]}"
if [[ -f $DATA_DIR/heldout.jsonl ]]; then
  # One problem at a time, as the paper's seconds are.
  "$python" -m rsp_rl.cli latent ccot eval "$RUN_DIR" --data "$DATA_DIR/heldout.jsonl" \
    --dtype bfloat16 --batch-size 1
fi
