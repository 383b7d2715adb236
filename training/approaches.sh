#!/usr/bin/env bash
# Trains the classifiers that are compared on one small input, one after the other; rerun to go on where it
# stopped. Several at once, each on threads of its own: OMP_NUM_THREADS=1 training/approaches.sh RUNS NAME…
# Usage: training/approaches.sh [RUNS [RECIPE…]]; runs/data must have an index and a split
# (training/right-whales.sh makes them).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
runs=${1:-runs}
train=${CALLOSITY_TRAIN:-target/release/callosity-train}
names=("${@:2}")
if [ ${#names[@]} = 0 ]; then
  names=(resnet-18-fine-small)
  # What grows from another comes after it.
  for recipe in training/recipes/small-{[!n]*,net2net-*}.toml; do
    names+=("$(basename "$recipe" .toml)")
  done
fi
for name in "${names[@]}"; do
  grow=()
  [[ $name != small-net2net-* ]] || grow=(--grow "$runs/small-oxfordnet-19-128")
  [ -e "$runs/$name/last.safetensors" ] || "$train" train "training/recipes/$name.toml" \
    --index "$runs/data/index.json" --split "$runs/data/split.json" --cache "$runs/data/cache" \
    --out "$runs/$name" --resume "${grow[@]}"
done
