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
network finder-glitter finder-glitter --from "$runs/finder"
network finder-real finder-real --from "$runs/finder-glitter"
for fold in 0 1 2 3 4; do
  network finder-real "finder-real-without-$fold" --from "$runs/finder-glitter" --held-out-frame-fold "$fold"
done
network aligner aligner
network resnet-18-fine-small resnet-18-fine-small
network resnet-18-fine resnet-18-fine --from "$runs/resnet-18-fine-small"
network resnet-18-fine-snapshot resnet-18-fine-snapshot --from "$runs/resnet-18-fine"
# Photographs without names that networks are sure of are trained on too. The better networks that come of it name
# more of them, for another round.
classifiers=("$runs/resnet-18-fine" "$runs/resnet-18-fine-snapshot")
recipes=(resnet-18-fine-pseudo-labels resnet-18-fine-pseudo-labels-light)
for round in 1 2; do
  named=$runs/data/pseudo_labels_round_$round.json
  [ -e "$named" ] || "$train" pseudo-label "${classifiers[@]}" "${common[@]}" --precision 0.88 --out "$named"
  students=()
  for i in 0 1; do
    student=${recipes[i]}-round-$round
    network "${recipes[i]}" "$student" --from "${classifiers[i]}" --pseudo-labels "$named"
    students+=("$runs/$student")
  done
  classifiers=("${students[@]}")
done
"$train" stack "${classifiers[@]}" --views 8 --power fit --unknown-score concentration \
  --gallery-photographs 16 "${common[@]}" --out "$runs/stack.json"
# bundle FINDER OUT
bundle() {
  "$train" bundle --name right-whales --bundle-version 1.4.0 --finder "$runs/$1" --aligner "$runs/aligner" \
    --classifiers "${classifiers[@]}" --stack "$runs/stack.json" "${common[@]}" \
    --cache "$runs/data/cache" --about training/model_cards/right-whales.md --out "$2"
}
bundle finder-real models/right-whales
for fold in 0 1 2 3 4; do
  bundle "finder-real-without-$fold" "$runs/bundle-without-$fold"
done

"$train" evaluate --bundle models/right-whales \
  --heads "$data/heads" --labels "$runs/data/validation_and_unknown.csv"
"$train" evaluate --bundle "$runs"/bundle-without-[0-4] \
  --frames "$data/frames" --truth "$data/frames.csv" --open-water training/data/open_water.csv
