# What the GPU recipes share: their settings, and how they start. A recipe sets what is its own and
# sources this, which sets the rest.
#
#   launch CONFIG [overrides]   set up, make the data, train, report; with DRY_RUN=1 only say what
#                               it would be (settings, steps, memory, RSP's costs), without a GPU
source "$(dirname "${BASH_SOURCE[0]}")/start.sh"

TEMPLATE=${TEMPLATE:-qwen-boxed}
DATA_DIR=${DATA_DIR:-runs/math35}
STEPS=${STEPS:-100}
KEEP_CHECKPOINTS=${KEEP_CHECKPOINTS:-null}
NNODES=${NNODES:-1}
GPUS_PER_NODE=${GPUS_PER_NODE:-4}
GPU_MEMORY_GB=${GPU_MEMORY_GB:-80}
GPU_MEMORY_UTILIZATION=${GPU_MEMORY_UTILIZATION:-0.5}
MAX_TOKENS_PER_GPU=${MAX_TOKENS_PER_GPU:-8192}
ROLLOUT_TP=${ROLLOUT_TP:-1}
ULYSSES=${ULYSSES:-1}
OFFLOAD=${OFFLOAD:-false}
LOW_MEMORY=${LOW_MEMORY:-0}
DRY_RUN=${DRY_RUN:-0}

launch() {
  local config=$1
  shift
  local groups=(+machine=gpu)
  [[ $LOW_MEMORY == 1 ]] && groups+=(+memory=low)
  local overrides=(
    "${groups[@]}"
    run_dir="$RUN_DIR"
    actor_rollout_ref.model.path="$MODEL"
    data.train_files="$DATA_DIR/train.parquet"
    data.val_files="$DATA_DIR/validation.parquet"
    trainer.nnodes="$NNODES"
    trainer.n_gpus_per_node="$GPUS_PER_NODE"
    trainer.total_training_steps="$STEPS"
    trainer.max_actor_ckpt_to_keep="$KEEP_CHECKPOINTS"
    actor_rollout_ref.actor.ppo_max_token_len_per_gpu="$MAX_TOKENS_PER_GPU"
    actor_rollout_ref.actor.ulysses_sequence_parallel_size="$ULYSSES"
    actor_rollout_ref.actor.fsdp_config.param_offload="$OFFLOAD"
    actor_rollout_ref.actor.fsdp_config.optimizer_offload="$OFFLOAD"
    actor_rollout_ref.rollout.tensor_model_parallel_size="$ROLLOUT_TP"
    actor_rollout_ref.rollout.gpu_memory_utilization="$GPU_MEMORY_UTILIZATION"
    "$@"
  )
  if [[ $DRY_RUN == 1 ]]; then
    [[ -x $python ]] || set_up
    "$python" -m rsp_rl.training.dry_run --config-name "$config" --gpu-memory-gb "$GPU_MEMORY_GB" \
      "${overrides[@]}"
    return
  fi
  set_up gpu
  if [[ ! -f $DATA_DIR/train.parquet ]]; then
    "$python" -m rsp_rl.data.prepare --output "$DATA_DIR" --template "$TEMPLATE"
  fi
  "$python" -m rsp_rl.cli train --config-name "$config" "${overrides[@]}"
  "$python" -m rsp_rl.cli report "$RUN_DIR"
}
