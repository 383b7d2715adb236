#!/usr/bin/env bash
# Made models/right-whales 1.8.0 and models/right-whales-measured from 1.6.0, which this repository's history keeps: its finder
# and classifiers are trained on for any camera, a third classifier of other making comes from weights of ImageNet; gallery,
# temperature, what tells strangers and thresholds are fitted anew, the finder computes in 8 bits.
# Rerun to go on where it stopped. Takes four hours on two cores that multiply bfloat16.
# Usage: training/right-whales-any-camera.sh DATA [RUNS [MODELS]]; after `make trainer` and
# `training/imagenet/efficientnet_lite.py 0 RUNS/efficientnet_lite0.safetensors`, which says what it needs
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
data=$1 runs=${2:-runs} models=${3:-models}
train=${CALLOSITY_TRAIN:-target/release/callosity-train}
index=(--index "$runs/data/index.json")
split=("${index[@]}" --split "$runs/data/split.json")
all=("${index[@]}" --split "$runs/data/all.json")
mkdir -p "$runs/data"
[ -e "$runs/data/index.json" ] || "$train" import "$data" --output "$runs/data/index.json"
[ -e "$runs/data/split.json" ] || "$train" split "${index[@]}" --output "$runs/data/split.json"
[ -e "$runs/data/all.json" ] || "$train" split "${index[@]}" --hold-nothing-out --output "$runs/data/all.json"
start=$runs/right-whales-measured-1.6.0
mkdir -p "$start" && git archive a2b6bcc models/right-whales-measured | tar -x --strip-components=2 -C "$start"

# network RECIPE RUN ARGUMENTS...
network() {
  local recipe=$1 run=$runs/$2
  shift 2
  [ -e "$run/last.safetensors" ] ||
    "$train" train "training/recipes/$recipe.toml" --cache "$runs/data/cache" --out "$run" --resume "$@"
}
strong=resnet-18-fine-any-camera light=resnet-18-fine-any-camera-light
network finder-any-camera finder-any-camera "${split[@]}" --from-bundle "$start" --set schedule.epochs=30
# The classifiers of 1.6.0 as they are name photographs without names.
network $strong standardised "${split[@]}" --from-bundle "$start" --member 1 --last-layer averaged --set schedule.epochs=0
network $light standardised-light "${split[@]}" --from-bundle "$start" --member 2 --last-layer averaged --set schedule.epochs=0
named=$runs/data/pseudo_labels_any_camera.json
[ -e "$named" ] || "$train" pseudo-label "$runs/standardised" "$runs/standardised-light" "${split[@]}" --precision 0.88 --out "$named"
further=(--pseudo-labels "$named" --set schedule.learning_rate=2.5e-3 --set schedule.weight_average=0.998)
network $strong any-camera "${split[@]}" --from "$runs/standardised" "${further[@]}" --set schedule.epochs=8
network $light any-camera-light "${split[@]}" --from "$runs/standardised-light" "${further[@]}" --set schedule.epochs=8
other=efficientnet-lite0-any-camera
network $other $other "${split[@]}" --weights "$runs/efficientnet_lite0.safetensors" --pseudo-labels "$named"

classifiers=("$runs/any-camera" "$runs/any-camera-light" "$runs/$other")
"$train" stack "${classifiers[@]}" --views 4 --average --power fit --unknown-score features \
  --gallery-photographs 16 "${split[@]}" --out "$runs/stack.json"
# bundle ARGUMENTS
bundle() {
  "$train" bundle --bundle-version 1.8.0 --cache "$runs/data/cache" --storage int8 \
    --about training/model_cards/right-whales.md "$@"
}
measured() {
  bundle --name right-whales-measured "${split[@]}" --finder "$runs/finder-any-camera" --finder-threshold 0.46 \
    --eight-bit-finder --aligner-of "$start" --classifiers "${classifiers[@]}" --stack "$runs/stack.json" "$@"
}
measured --out "$runs/bundle-measured"
"$train" evaluate --bundle "$runs/bundle-measured" --enroll 5 --heads "$data/heads" \
  --labels "$runs/data/validation_and_unknown.csv"
[ -e "$runs/conditions.json" ] || "$train" evaluate --bundle "$runs/bundle-measured" --conditions --out "$runs/conditions.json" \
  --heads "$data/heads" --labels "$runs/data/validation_and_unknown.csv" \
  --frames "$data/frames" --truth "$data/frames.csv" --open-water training/data/open_water.csv
measured --conditions "$runs/conditions.json" --out "$models/right-whales-measured"

# The bundle that flies: the same networks, two epochs more on all photographs.
everything=(--pseudo-labels "$named" --set schedule.epochs=2)
network $strong any-camera-all "${all[@]}" --from "$runs/any-camera" "${everything[@]}"
network $light any-camera-light-all "${all[@]}" --from "$runs/any-camera-light" "${everything[@]}"
network $other $other-all "${all[@]}" --from "$runs/$other" "${everything[@]}"
"$train" stack "${classifiers[@]/%/-all}" --calibrated-by "$runs/stack.json" "${all[@]}" \
  --out "$runs/stack-all.json"
bundle --name right-whales "${all[@]}" --finder-of "$runs/bundle-measured" --aligner-of "$runs/bundle-measured" \
  --classifiers "${classifiers[@]/%/-all}" --stack "$runs/stack-all.json" \
  --conditions "$runs/conditions.json" --out "$models/right-whales"
