#!/usr/bin/env bash
# CoT, Coconut, its other baselines and its ablations on a made task, models from nothing, by seed:
# what docs/latent.md tells of. Again to go on; then: rsp-rl latent table RUN/*_[0-9]
# coconut_sim is Coconut with SIM-CoT's decoder.
#
#   bash scripts/bench/latent_methods.sh RUN
#   SEEDS="0 1 2" METHODS="coconut no_cot" TASK=prosqa bash scripts/bench/latent_methods.sh RUN
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

run=${1:?a folder for the runs}
seeds=${SEEDS:-0 1 2}
task=${TASK:-arithmetic_steps}
sim=
[[ $task != prosqa ]] || sim=coconut_sim
methods=${METHODS:-coconut $sim no_cot pause_as_thought no_thought icot pause no_curriculum}
python=${PYTHON:-.venv/bin/python}

#: Of all; then of those that go through stages; then of the rest. All begin with the same model from
#: nothing, but for `remainders` and `prosqa`: there what has stages begins with the CoT model of its
#: seed, as the paper's do on GSM8K, and the rest has as many epochs as both together.
case $task in
    arithmetic_steps)
        data=(--train-size 8192)
        model=(--architecture gpt2 --layers 2 --hidden-size 64 --heads 2 --context 128)
        common=(--max-stage 4 --epochs-per-stage 2)
        cot=(--epochs 10)
        staged=(--epochs 24 --icot-tokens-per-epoch 2)
        rest=(--epochs 24)
        ;;
    remainders)
        data=()
        model=(--architecture gpt2 --layers 2 --hidden-size 64 --heads 2 --context 128)
        common=(--max-stage 4 --epochs-per-stage 4)
        cot=(--epochs 10)
        staged=(--first-epoch 4 --epochs 28 --icot-tokens-per-epoch 2)
        rest=(--epochs 24)
        ;;
    prosqa)
        data=(--level bare --train-size 40000)
        model=(--architecture qwen2 --layers 3 --hidden-size 64 --heads 2 --context 128)
        common=(--max-stage 3 --epochs-per-stage 1)
        cot=(--epochs 5)
        staged=(--first-epoch 1 --epochs 5 --icot-tokens-per-epoch 4)
        rest=(--epochs 9)
        ;;
    *)
        echo "TASK=$task: choose arithmetic_steps, remainders or prosqa" >&2
        exit 2
        ;;
esac

train() { # METHOD SEED BASE SETTING...
    local method=$1 seed=$2 base=$3 folder=$run/${1}_$2 decoder=0
    shift 3
    if [[ $method == coconut_sim ]]; then
        method=coconut decoder=1
    fi
    $python -m rsp_rl.cli latent train --model "$base" --method "$method" --seed "$seed" \
        --train "$run/data/train.jsonl" --validation "$run/data/validation.jsonl" \
        --learning-rate 1e-3 --warmup-steps 50 --batch-size 64 --micro-batch-size 64 --reset-optimizer stage \
        --validation-limit 200 --max-new-tokens 60 --threads "${THREADS:-1}" \
        --step-decoder "$decoder" "${common[@]}" "$@" --output "$folder"
    $python -m rsp_rl.cli latent eval "$folder" --data "$run/data/heldout.jsonl" \
        --threads "${THREADS:-1}"
}

$python -m "rsp_rl.data.$task" --output "$run/data" "${data[@]}"
for seed in $seeds; do
    base=$run/base/$seed
    [[ -d $base ]] || $python -m rsp_rl.cli latent model \
        --data "$run/data/train.jsonl" --output "$base" --seed "$seed" "${model[@]}"
    train cot "$seed" "$base" "${cot[@]}"
    begin=$base
    [[ $task == arithmetic_steps ]] || begin=$run/cot_$seed/model
    for method in $methods; do
        case $method in
            coconut | coconut_sim | no_thought | pause_as_thought | icot)
                train "$method" "$seed" "$begin" "${staged[@]}" ;;
            *) train "$method" "$seed" "$base" "${rest[@]}" ;;
        esac
    done
done
