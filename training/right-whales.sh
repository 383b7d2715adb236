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

# bundle ARGUMENTS
bundle() {
  "$train" bundle --name right-whales --bundle-version 1.5.1 "${common[@]}" --cache "$runs/data/cache" \
    --about training/model_cards/right-whales.md "$@"
}
measured=("$runs/$strong-round-4" "$runs/$light-round-4" "$runs/$afresh")
"$train" stack "${measured[@]}" --views 4 --average --power fit --unknown-score features \
  --gallery-photographs 16 "${common[@]}" --out "$runs/stack.json"
# Composed frames ask for a threshold of 0.36, with which waves are taken for heads.
bundle --finder "$runs/finder-longer" --finder-threshold 0.41 --aligner "$runs/aligner-heat-maps" --classifiers "${measured[@]}" \
  --stack "$runs/stack.json" --out "$runs/bundle-measured"
"$train" evaluate --bundle "$runs/bundle-measured" --enroll 5 \
  --heads "$data/heads" --labels "$runs/data/validation_and_unknown.csv"
"$train" evaluate --bundle "$runs/bundle-measured" \
  --frames "$data/frames" --truth "$data/frames.csv" --open-water training/data/open_water.csv

# The bundle that flies: the same networks, two epochs more on all photographs.
[ -e "$runs/data/all.json" ] ||
  "$train" split --index "$runs/data/index.json" --hold-nothing-out --output "$runs/data/all.json"
all=(--index "$runs/data/index.json" --split "$runs/data/all.json")
# everything RECIPE FROM RUN
everything() {
  local common=("${all[@]}")
  network "$1" "$3" --set schedule.epochs=2 --from "$runs/$2" --pseudo-labels "$runs/data/pseudo_labels_round_4.json"
}
everything $strong $strong-round-4 $strong-all
everything $light $light-round-4 $light-all
everything $afresh $afresh $afresh-all
flown=("$runs/$strong-all" "$runs/$light-all" "$runs/$afresh-all")
"$train" stack "${flown[@]}" --calibrated-by "$runs/stack.json" "${all[@]}" \
  --out "$runs/stack-all.json"
# In other light and by other cameras: on the card of the bundle that flies, and on a page.
"$train" evaluate --bundle "$runs/bundle-measured" --conditions --out "$runs/conditions.json" \
  --heads "$data/heads" --labels "$runs/data/validation_and_unknown.csv" \
  --frames "$data/frames" --truth "$data/frames.csv" --open-water training/data/open_water.csv
bundle --finder-of "$runs/bundle-measured" --aligner-of "$runs/bundle-measured" --classifiers "${flown[@]}" \
  --stack "$runs/stack-all.json" --storage int8 --conditions "$runs/conditions.json" --out models/right-whales
"$train" report --conditions "$runs/conditions.json" "${common[@]}" --out "$runs/report.html"
