#!/usr/bin/env bash
# Trains models/virtual-survey again, on drawn whales alone and from random weights; rerun to go on where it stopped.
# Usage: make train-virtual-survey, or training/virtual-survey.sh [RUNS [OUT]]
# With SMOKE=1 all of it is so small that it takes about a minute and learns nothing: a test runs it, so that each step
# keeps fitting the next one.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
runs=${1:-runs} out=${2:-models/virtual-survey}
train=${CALLOSITY_TRAIN:-target/release/callosity-train}
callosity=${CALLOSITY:-target/release/callosity}
data=$runs/virtual-data
common=(--index "$data/index.json" --split "$data/split.json")
drawn=(--heads-per-individual 48 --heads-per-unknown 12 --frames 150)
# What SMOKE adds to `train` of networks that see composed pictures, to `train` of classifiers, and to `bundle`.
composed=() photographs=() bundle=()
if [ -n "${SMOKE:-}" ]; then
  drawn=(--heads-per-individual 20 --heads-per-unknown 5 --frames 4 --frame-width 768 --frame-height 512 --head-size 96)
  composed=(--set schedule.epochs=1 --set schedule.samples_per_epoch=64)
  photographs=(--set schedule.epochs=1)
  # Choosing one takes 600 frames.
  bundle=(--finder-threshold 0.3)
fi

# Seed 1 is the population that `callosity demo` flies over, and a flight that is not the demo's. Strangers
# have few heads, known whales many: so the split holds out just the strangers.
[ -e "$runs/virtual/frames.csv" ] || "$callosity" virtual-survey --out "$runs/virtual" --seed 1 "${drawn[@]}"
mkdir -p "$data"
[ -e "$data/index.json" ] || "$train" import "$runs/virtual" --output "$data/index.json"
[ -e "$data/split.json" ] || "$train" split "${common[0]}" "${common[1]}" --output "$data/split.json" \
  --unknown-whales 6 --unknown-maximum 15
# network NAME [ARGUMENTS]: trains it where it is not trained yet, on from a checkpoint where there is one.
network() {
  local name=$1
  shift
  [ -e "$runs/$name/last.safetensors" ] || "$train" train "training/recipes/$name.toml" "${common[@]}" \
    --cache "$data/cache" --out "$runs/$name" --resume "$@"
}
network virtual-finder "${composed[@]}"
network virtual-aligner "${composed[@]}"
network virtual-aligner-longer --from "$runs/virtual-aligner" "${composed[@]}"
network virtual-classifier "${photographs[@]}"
network virtual-classifier-longer --from "$runs/virtual-classifier" "${photographs[@]}"
"$train" stack "$runs/virtual-classifier-longer" "${common[@]}" --out "$runs/virtual-stack.json"
"$train" bundle --name virtual-survey --bundle-version 1.2.0 --finder "$runs/virtual-finder" --finder-views 1 --aligner-rounds 2 \
  --aligner "$runs/virtual-aligner-longer" --classifiers "$runs/virtual-classifier-longer" \
  --stack "$runs/virtual-stack.json" "${common[@]}" --cache "$data/cache" "${bundle[@]}" \
  --about training/model_cards/virtual-survey.md --scientific-name "Eubalaena glacialis (drawn)" --out "$out"
