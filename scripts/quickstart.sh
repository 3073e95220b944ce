#!/usr/bin/env bash
# From a bare machine to a pruned Vision Transformer: sets up, builds, trains prediction modules for a small dense model on
# the embedded data set, evaluates, draws.
#     scripts/quickstart.sh            a minute and a half of training on two cores
#     scripts/quickstart.sh --cuda     LibTorch with CUDA, also where no GPU is found
#     scripts/quickstart.sh --short    a few steps only, to see that everything works
. "$(dirname "$0")/common.sh"

kind=cpu preset=cpu short=()
command -v nvidia-smi > /dev/null && nvidia-smi -L > /dev/null 2>&1 && kind=cuda
for argument in "$@"; do
    case "$argument" in
        --cuda) kind=cuda ;;
        --short) short=(--set train.max_steps=8 --set train.log_every=4 --set data.val_images=100) ;;
        *) fail "unknown argument $argument; usage: scripts/quickstart.sh [--cuda] [--short]" ;;
    esac
done
[ "$kind" = cuda ] && command -v nvcc > /dev/null && preset=cuda

install_packages
install_libtorch "$kind"
build "$preset" dynvit
dynvit=build/$preset/tools/dynvit/dynvit
config=configs/shapes_r0.7.yaml
run=runs/quickstart
[ ${#short[@]} -gt 0 ] && run=runs/quickstart_short

say "Training prediction modules (configs/shapes_r0.7.yaml) into $run"
rm -rf "$run"
"$dynvit" train --config "$config" "${short[@]}" --output "$run"

say "Evaluating on pictures never trained on: the dense model it started from, pruned, and pruned at random"
"$dynvit" eval --config "$run/config.yaml" --weights "$run/checkpoints/last.safetensors" \
    --baseline configs/shapes_dense.safetensors --keep-ratio 0.7 --policy predicted,random --json "$run/eval.json"

say "Drawing what each stage keeps"
"$dynvit" visualize --config "$run/config.yaml" --weights "$run/checkpoints/last.safetensors" --output "$run/pictures"
