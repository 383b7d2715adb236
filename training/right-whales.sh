#!/usr/bin/env bash
# Trains models/right-whales from photographs to bundle, for any camera; rerun to go on where it stopped. The bundle that is
# released was made by right-whales-any-camera.sh, which goes on from 1.6.0; all of this script has not been run in one piece.
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
# network NAME RUN [ARGUMENTS]: trains recipe NAME into RUN where that is not trained yet, on from a
# checkpoint where there is one.
network() {
  local name=$1 run=$2
  shift 2
  [ -e "$runs/$run/last.safetensors" ] || "$train" train "training/recipes/$name.toml" "${common[@]}" \
    --cache "$runs/data/cache" --out "$runs/$run" --resume "$@"
}
network finder finder
network finder-longer finder-longer --from "$runs/finder"
network aligner-heat-maps aligner-heat-maps
network resnet-18-fine-small resnet-18-fine-small
network resnet-18-fine resnet-18-fine --from "$runs/resnet-18-fine-small"
network resnet-18-fine-snapshot resnet-18-fine-snapshot --from "$runs/resnet-18-fine"
# Photographs without names that networks are sure of are trained on too. The better networks that come of it name
# more of them, for another round.
# named ROUND RUN...: has the photographs without names named by these classifiers.
named() {
  local out=$runs/data/pseudo_labels_round_$1.json
  shift
  [ -e "$out" ] || "$train" pseudo-label "${@/#/$runs/}" "${common[@]}" --precision 0.88 --out "$out"
}
# student RECIPE ROUND FROM [ARGUMENTS]: a classifier, on from FROM, on a round's names too.
student() {
  local recipe=$1 round=$2 from=$3
  shift 3
  network "$recipe" "$recipe-round-$round" --from "$runs/$from" \
    --pseudo-labels "$runs/data/pseudo_labels_round_$round.json" "$@"
}
strong=resnet-18-fine-pseudo-labels light=resnet-18-fine-pseudo-labels-light afresh=resnet-18-fine-afresh
named 1 resnet-18-fine resnet-18-fine-snapshot
student $strong 1 resnet-18-fine
student $light 1 resnet-18-fine-snapshot
named 2 $strong-round-1 $light-round-1
student $strong 2 $strong-round-1
student $light 2 $light-round-1
named 3 $strong-round-2 $light-round-2
student $strong 3 $strong-round-2
third=(--pseudo-labels "$runs/data/pseudo_labels_round_3.json")
network $afresh-small $afresh-small "${third[@]}"
network $afresh $afresh --from "$runs/$afresh-small" "${third[@]}"
named 4 $strong-round-3 $light-round-2 $afresh
student $strong 4 $strong-round-3 --set schedule.epochs=5
student $light 4 $light-round-2 --set schedule.epochs=5

# For any camera: on from these, each crop or frame standardised, and cameras, light and files varied.
camera=resnet-18-fine-any-camera
fourth=(--pseudo-labels "$runs/data/pseudo_labels_round_4.json")
network $camera $camera --from "$runs/$strong-round-4" "${fourth[@]}"
network $camera-light $camera-light --from "$runs/$light-round-4" "${fourth[@]}"
network $camera $camera-afresh --from "$runs/$afresh" "${fourth[@]}" --set seed=93
network finder-any-camera finder-any-camera --from "$runs/finder-longer"
network aligner-any-camera aligner-any-camera --from "$runs/aligner-heat-maps"

# bundle ARGUMENTS
bundle() {
  "$train" bundle --bundle-version 1.7.0 --cache "$runs/data/cache" --about training/model_cards/right-whales.md \
    --storage int8 "$@"
}
measured=("$runs/$camera" "$runs/$camera-light" "$runs/$camera-afresh")
"$train" stack "${measured[@]}" --views 4 --average --power fit --unknown-score features \
  --gallery-photographs 16 "${common[@]}" --out "$runs/stack.json"
measured_bundle() {
  bundle --name right-whales-measured "${common[@]}" --finder "$runs/finder-any-camera" \
    --aligner "$runs/aligner-any-camera" --classifiers "${measured[@]}" --stack "$runs/stack.json" "$@"
}
measured_bundle --out "$runs/bundle-measured"
"$train" evaluate --bundle "$runs/bundle-measured" --enroll 5 \
  --heads "$data/heads" --labels "$runs/data/validation_and_unknown.csv"
"$train" evaluate --bundle "$runs/bundle-measured" \
  --frames "$data/frames" --truth "$data/frames.csv" --open-water training/data/open_water.csv
# In other light and by other cameras: on the cards, and on a page.
"$train" evaluate --bundle "$runs/bundle-measured" --conditions --out "$runs/conditions.json" \
  --heads "$data/heads" --labels "$runs/data/validation_and_unknown.csv" \
  --frames "$data/frames" --truth "$data/frames.csv" --open-water training/data/open_water.csv
measured_bundle --conditions "$runs/conditions.json" --out models/right-whales-measured

# The bundle that flies: the same networks, two epochs more on all photographs.
[ -e "$runs/data/all.json" ] ||
  "$train" split --index "$runs/data/index.json" --hold-nothing-out --output "$runs/data/all.json"
all=(--index "$runs/data/index.json" --split "$runs/data/all.json")
# everything RECIPE FROM RUN
everything() {
  local common=("${all[@]}")
  network "$1" "$3" --set schedule.epochs=2 --from "$runs/$2" "${fourth[@]}"
}
everything $camera $camera $camera-all
everything $camera-light $camera-light $camera-light-all
everything $camera $camera-afresh $camera-afresh-all
flown=("$runs/$camera-all" "$runs/$camera-light-all" "$runs/$camera-afresh-all")
"$train" stack "${flown[@]}" --calibrated-by "$runs/stack.json" "${all[@]}" \
  --out "$runs/stack-all.json"
bundle --name right-whales "${all[@]}" --finder-of "$runs/bundle-measured" --aligner-of "$runs/bundle-measured" \
  --classifiers "${flown[@]}" --stack "$runs/stack-all.json" --conditions "$runs/conditions.json" --out models/right-whales
"$train" report --conditions "$runs/conditions.json" "${common[@]}" --out "$runs/report.html"
