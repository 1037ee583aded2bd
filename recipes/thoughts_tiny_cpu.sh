#!/usr/bin/env bash
# RL with thoughts on the tiny model, on a laptop: 2 cores, 8 GiB, no GPU.
#
# As recipes/dapo_rsp_tiny_cpu.sh, but that the reasoning before the boxed answer is made by a law:
# multiplex and gumbel with DAPO's ratios and clips, soft and fuzzy with RLOO and rewards of 100, 10
# and 0; token is the baseline of ordinary tokens. Held-out accuracy is that of ordinary greedy
# decoding. It shows that the pipeline learns, not that thoughts help.
#
#   LAW=multiplex bash recipes/thoughts_tiny_cpu.sh
#   LAW=soft RUN_DIR=runs/soft STEPS=40 bash recipes/thoughts_tiny_cpu.sh law.sigma=0.5
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib/start.sh"

LAW=${LAW:-multiplex}
RUN_DIR=${RUN_DIR:-runs/thoughts_${LAW}_tiny_cpu}
MODEL_DIR=${MODEL_DIR:-runs/tiny_model}
DATA_DIR=${DATA_DIR:-runs/tiny_data}
STEPS=${STEPS:-30}
SAVE_FREQ=${SAVE_FREQ:-10}
TEST_FREQ=${TEST_FREQ:-10}
PROMPTS=${PROMPTS:-16}
MINI_BATCH=${MINI_BATCH:-8}
ROLLOUTS=${ROLLOUTS:-8}
LR=${LR:-2e-4}

objective=()
case $LAW in
  token | multiplex | gumbel) ;;
  soft | fuzzy)
    MINI_BATCH=$PROMPTS # one update on what was just sampled
    objective=(
      objective=rloo
      +reward.custom_reward_function.reward_kwargs.right_reward=100
      +reward.custom_reward_function.reward_kwargs.format_reward=10
    )
    # Fuzzy tokens are greedy but for noise, and this model decides with its first token whether to
    # reason: it thinks from its first "=" on, and has sampled tokens before.
    if [[ $LAW == fuzzy ]]; then
      objective+=('law.begin="="')
    fi
    ;;
  *)
    echo "error: LAW=$LAW is none of token, multiplex, gumbel, soft, fuzzy" >&2
    exit 1
    ;;
esac

set_up cpu

"$python" -m rsp_rl.tiny --output "$MODEL_DIR"
"$python" -m rsp_rl.data.arithmetic --output "$DATA_DIR"

# The answer is ordinary tokens: thoughts end with the box that opens.
"$python" -m rsp_rl.cli train --config-name tiny_cpu \
  run_dir="$RUN_DIR" \
  law="$LAW" \
  'law.end=[]' \
  'law.end_text="\boxed{"' \
  law.max_thoughts=32 \
  "${objective[@]}" \
  actor_rollout_ref.model.path="$MODEL_DIR" \
  data.train_files="$DATA_DIR/train.parquet" \
  data.val_files="$DATA_DIR/heldout.parquet" \
  data.train_batch_size="$PROMPTS" \
  actor_rollout_ref.actor.ppo_mini_batch_size="$MINI_BATCH" \
  actor_rollout_ref.actor.optim.lr="$LR" \
  actor_rollout_ref.rollout.n="$ROLLOUTS" \
  rsp.length=0 \
  trainer.total_training_steps="$STEPS" \
  trainer.save_freq="$SAVE_FREQ" \
  trainer.test_freq="$TEST_FREQ" \
  "$@"

"$python" -m rsp_rl.cli report "$RUN_DIR"
