#!/usr/bin/env bash
# A recipe for tests/integration/test_ray_jobs.py: two nodes with a rank each.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

RUN_DIR=${RUN_DIR:-runs/two_nodes}
MODEL_DIR=${MODEL_DIR:-runs/tiny_model}
DATA_DIR=${DATA_DIR:-runs/tiny_data}
VENV=${VENV:-.venv}

exec "$VENV/bin/python" -m rsp_rl.cli train --config-name tiny_cpu \
  run_dir="$RUN_DIR" \
  actor_rollout_ref.model.path="$MODEL_DIR" \
  data.train_files="$DATA_DIR/train.parquet" \
  data.val_files="$DATA_DIR/heldout.parquet" \
  trainer.nnodes=2 \
  trainer.n_gpus_per_node=1 \
  trainer.save_freq=1 \
  trainer.max_actor_ckpt_to_keep=2 \
  rsp.seeded_sampling=true \
  "$@"
