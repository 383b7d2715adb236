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
# network() NAME [--from RUN]: trains it where it is not trained yet, on from a checkpoint where there is one.
network() {
  local name=$1
  shift
  [ -e "$runs/$name/last.safetensors" ] || "$train" train "training/recipes/$name.toml" "${common[@]}" \
    --cache "$runs/data/cache" --out "$runs/$name" --resume "$@"
}
network finder
network finder-glitter --from "$runs/finder"
network aligner
network resnet-18-fine-small
network resnet-18-fine --from "$runs/resnet-18-fine-small"
network resnet-18-fine-snapshot --from "$runs/resnet-18-fine"
classifiers=("$runs/resnet-18-fine" "$runs/resnet-18-fine-snapshot")
"$train" stack "${classifiers[@]}" --views 8 "${common[@]}" --out "$runs/stack.json"
"$train" bundle --name right-whales --bundle-version 1.1.0 --finder "$runs/finder-glitter" --aligner "$runs/aligner" \
  --classifiers "${classifiers[@]}" --stack "$runs/stack.json" "${common[@]}" \
  --cache "$runs/data/cache" --about training/model_cards/right-whales.md --out models/right-whales
