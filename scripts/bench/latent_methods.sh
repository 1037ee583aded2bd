#!/usr/bin/env bash
# Coconut, its baselines and its ablations, each from nothing on a made task, by seed: what
# docs/latent.md tells of. Again to go on; then: rsp-rl latent table RUN/*_*
#
#   bash scripts/bench/latent_methods.sh RUN
#   SEEDS="0 1 2" METHODS="coconut cot" TASK=arithmetic_steps bash scripts/bench/latent_methods.sh RUN
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

run=${1:?a folder for the runs}
seeds=${SEEDS:-0 1 2}
methods=${METHODS:-cot no_cot icot pause coconut no_curriculum no_thought pause_as_thought}
task=${TASK:-arithmetic_steps}
python=${PYTHON:-.venv/bin/python}

case $task in
    arithmetic_steps)
        data=(--train-size 8192)
        model=(--architecture gpt2 --layers 2 --hidden-size 64 --heads 2 --context 128)
        settings=(--max-stage 4 --epochs-per-stage 2 --epochs 24 --icot-tokens-per-epoch 2)
        ;;
    prosqa)
        data=(--level small --train-size 12000)
        model=(--architecture qwen2 --layers 3 --hidden-size 64 --heads 2 --context 256)
        settings=(--max-stage 2 --epochs-per-stage 6 --epochs 36 --icot-tokens-per-epoch 1)
        ;;
    *)
        echo "TASK=$task: choose arithmetic_steps or prosqa" >&2
        exit 2
        ;;
esac

$python -m "rsp_rl.data.$task" --output "$run/data" "${data[@]}"
for seed in $seeds; do
    base=$run/base_$seed
    [[ -d $base ]] || $python -m rsp_rl.cli latent model \
        --data "$run/data/train.jsonl" --output "$base" --seed "$seed" "${model[@]}"
    for method in $methods; do
        $python -m rsp_rl.cli latent train --model "$base" --method "$method" --seed "$seed" \
            --train "$run/data/train.jsonl" --validation "$run/data/validation.jsonl" \
            --learning-rate 1e-3 --batch-size 64 --micro-batch-size 64 --reset-optimizer stage \
            --validation-limit 200 --max-new-tokens 40 --threads "${THREADS:-1}" \
            "${settings[@]}" --output "$run/${method}_$seed"
    done
done
