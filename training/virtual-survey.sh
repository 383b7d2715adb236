#!/usr/bin/env bash
# Trains models/virtual-survey again, on drawn whales; rerun to go on where it stopped. Finder and
# aligner start from those of training/right-whales.sh.
# Usage: make train-virtual-survey, or training/virtual-survey.sh [RUNS]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
runs=${1:-runs}
train=${CALLOSITY_TRAIN:-target/release/callosity-train}
data=$runs/virtual-data
common=(--index "$data/index.json" --split "$data/split.json")

# Seed 1 is the population that `callosity demo` flies over, and a flight that is not the demo's. Strangers
# have few heads, known whales many: so the split holds out just the strangers.
[ -e "$runs/virtual/frames.csv" ] || target/release/callosity virtual-survey --out "$runs/virtual" \
  --seed 1 --heads-per-individual 48 --heads-per-unknown 12 --frames 150
mkdir -p "$data"
[ -e "$data/index.json" ] || "$train" import "$runs/virtual" --output "$data/index.json"
[ -e "$data/split.json" ] || "$train" split "${common[0]}" "${common[1]}" --output "$data/split.json" \
  --unknown-whales 6 --unknown-maximum 15
# network() NAME [--from RUN]: trains it where it is not trained yet, on from a checkpoint where there is one.
network() {
  local name=$1
  shift
  [ -e "$runs/$name/last.safetensors" ] || "$train" train "training/recipes/$name.toml" "${common[@]}" \
    --cache "$data/cache" --out "$runs/$name" --resume "$@"
}
network virtual-finder --from "$runs/finder-real"
network virtual-aligner --from "$runs/aligner"
network virtual-aligner-longer --from "$runs/virtual-aligner"
network virtual-classifier
network virtual-classifier-longer --from "$runs/virtual-classifier"
"$train" stack "$runs/virtual-classifier-longer" "${common[@]}" --out "$runs/virtual-stack.json"
"$train" bundle --name virtual-survey --bundle-version 1.1.0 --finder "$runs/virtual-finder" --finder-views 1 --aligner-rounds 2 \
  --aligner "$runs/virtual-aligner-longer" --classifiers "$runs/virtual-classifier-longer" \
  --stack "$runs/virtual-stack.json" "${common[@]}" --cache "$data/cache" \
  --about training/model_cards/virtual-survey.md --scientific-name "Eubalaena glacialis (drawn)" --out models/virtual-survey
