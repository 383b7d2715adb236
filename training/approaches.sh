#!/usr/bin/env bash
# Trains the approaches that are compared on one small input, one after the other, and puts each into the
# table training/results/approaches.json; rerun to go on where it stopped. Several at once, each with recipes and a
# thread of its own: OMP_NUM_THREADS=1 training/approaches.sh RUNS NAME… A name is that of a recipe, or `stacks`.
# Usage: training/approaches.sh [RUNS [RECIPE…]]; runs/data must have an index and a split
# (training/right-whales.sh makes them).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
runs=${1:-runs}
train=${CALLOSITY_TRAIN:-target/release/callosity-train}
common=(--index "$runs/data/index.json" --split "$runs/data/split.json")
cache=(--cache "$runs/data/cache")
results=training/results/approaches
names=("${@:2}")
if [ ${#names[@]} = 0 ]; then
  for recipe in training/recipes/small-*.toml; do
    names+=("$(basename "$recipe" .toml)")
  done
  names+=(stacks)
fi

# approach NAME: trains it, and before it what it goes on from.
approach() {
  local name=$1 start=()
  [ -e "$runs/$name/last.safetensors" ] && return
  case $name in
    small-transformer-fixed | small-transformer-joint)
      approach small-transformer-landmarks
      start=(--from "$runs/small-transformer-landmarks")
      ;;
    small-pretrained)
      approach small-pretraining
      start=(--from "$runs/small-pretraining")
      ;;
    small-net2net-*)
      approach small-oxfordnet-19-128
      start=(--grow "$runs/small-oxfordnet-19-128")
      ;;
    small-pseudo-labels)
      approach small-resnet-18
      [ -e "$runs/data/pseudo_labels.json" ] ||
        "$train" pseudo-label "$runs/small-resnet-18" "${common[@]}" --precision 0.3 \
          --out "$runs/data/pseudo_labels.json"
      start=(--pseudo-labels "$runs/data/pseudo_labels.json")
      ;;
  esac
  "$train" train "training/recipes/$name.toml" "${common[@]}" "${cache[@]}" \
    --out "$runs/$name" --resume "${start[@]}"
}
# Stacks of three of them: of all features, of principal components, with a fitted power, with a gallery.
stacks() {
  local members=() stacked=() name
  for name in small-resnet-18 small-pretrained small-heavy-augmentation; do
    approach "$name"
    members+=("$runs/$name")
  done
  # stack NAME ARGUMENTS…
  stack() {
    "$train" stack "${members[@]}" "${common[@]}" --out "$runs/$1.json" "${@:2}"
    stacked+=(--stack "$runs/$1.json")
  }
  stack stack-of-three
  stack stack-of-three-pca-64 --pca 64
  stack stack-of-three-power --power fit
  stack stack-of-three-gallery --gallery-photographs 8
  tabled "$runs/stacks.html" "${members[@]}" "${stacked[@]}"
}
# tabled OUT ARGUMENTS…: reports these runs into the table and the page OUT; one lane at a time.
tabled() {
  flock "$runs/data" "$train" report "${@:2}" "${common[@]}" "${cache[@]}" --table "$results.json" \
    --markdown "$results.md" --out "$1"
}
for name in "${names[@]}"; do
  if [ "$name" = stacks ]; then
    stacks
    continue
  fi
  approach "$name"
  # Nobody is named by features that are a start only.
  case $name in small-pretraining | small-transformer-landmarks) continue ;; esac
  [ "$runs/$name/report.html" -nt "$runs/$name/last.safetensors" ] ||
    tabled "$runs/$name/report.html" "$runs/$name"
done
