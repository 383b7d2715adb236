#!/usr/bin/env bash
# Trains models/right-whales again, from photographs to bundle; rerun to go on where it stopped.
# Usage: make train-right-whales, or training/right-whales.sh DATA [RUNS]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
data=$1 runs=${2:-runs}
train=${CALLOSITY_TRAIN:-target/release/callosity-train}
common=(--index "$runs/data/index.json" --split "$runs/data/split.json")

mkdir -p "$runs/data"
[ -e "$runs/data/index.json" ] || "$train" import "$data" --output "$runs/data/index.json"
[ -e "$runs/data/split.json" ] ||
  "$train" split --index "$runs/data/index.json" --output "$runs/data/split.json"
for network in finder aligner resnet-14 oxfordnet-19; do
  [ -e "$runs/$network/last.safetensors" ] || "$train" train "training/recipes/$network.toml" \
    "${common[@]}" --cache "$runs/data/cache" --out "$runs/$network" --resume
done
classifiers=("$runs/resnet-14" "$runs/oxfordnet-19")
"$train" stack "${classifiers[@]}" "${common[@]}" --out "$runs/stack.json"
"$train" bundle --name right-whales --finder "$runs/finder" --aligner "$runs/aligner" \
  --classifiers "${classifiers[@]}" --stack "$runs/stack.json" --finder-threshold 0.3 \
  --out models/right-whales
