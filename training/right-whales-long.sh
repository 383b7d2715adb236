#!/usr/bin/env bash
# Trains right-whales for any camera from random weights on long schedules, and measures it: meant for a GPU in less than
# half an hour or a fast processor in half a day; it has not been run to its end yet. Networks that do not need each other
# are trained at the same time where there is a GPU, one after the other where there is none. Rerun to go on where it stopped.
# Usage: training/right-whales-long.sh DATA [RUNS [OUT]]
# MINUTES=28 ends it in time: whatever still trains then leaves a checkpoint, and the script says what is missing.
# With SMOKE=1 all of it is so small that it learns nothing: a test runs it, so that each step keeps fitting the next.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
data=$1 runs=${2:-runs} out=${3:-$runs/bundle-long}
train=${CALLOSITY_TRAIN:-target/release/callosity-train}
common=(--index "$runs/data/index.json" --split "$runs/data/split.json")
composed=() photographs=() bundle=() split=() precision=0.85
if [ -n "${SMOKE:-}" ]; then
  composed=(--set schedule.epochs=1 --set schedule.samples_per_epoch=64)
  photographs=(--set schedule.epochs=1 --set schedule.batch=16)
  bundle=(--finder-threshold 0.3)
  split=(--unknown-whales 6 --unknown-maximum 15)
  precision=0
fi
at_once=${AT_ONCE:-$(nvidia-smi -L >/dev/null 2>&1 && echo 1 || true)}
ends=$((SECONDS + 60 * ${MINUTES:-100000}))

mkdir -p "$runs/data"
[ -e "$runs/data/index.json" ] || "$train" import "$data" --output "$runs/data/index.json"
[ -e "$runs/data/split.json" ] ||
  "$train" split --index "$runs/data/index.json" --output "$runs/data/split.json" "${split[@]}"

# network RECIPE RUN [ARGUMENTS]: trains it where it is not trained yet, on from a checkpoint where there is one. An
# interrupt, as Ctrl-C sends it, makes `train` leave a checkpoint.
network() {
  local recipe=$1 run=$2
  shift 2
  [ -e "$runs/$run/last.safetensors" ] && return
  timeout --signal INT $((ends > SECONDS ? ends - SECONDS : 1)) \
    "$train" train "training/recipes/$recipe.toml" "${common[@]}" --cache "$runs/data/cache" --out "$runs/$run" --resume "$@"
}
# each LINE...: one network a line, at the same time or one after the other.
each() {
  local line job jobs=() failed=0
  for line in "$@"; do
    # shellcheck disable=SC2086 # The line is the arguments.
    if [ -n "$at_once" ]; then network $line & jobs+=($!); else network $line || failed=1; fi
  done
  for job in "${jobs[@]}"; do wait "$job" || failed=1; done
  for line in "$@"; do
    line=($line)
    [ -e "$runs/${line[1]}/last.safetensors" ] || { echo "not trained to its end: $runs/${line[1]}" >&2; failed=1; }
  done
  return $failed
}
long=resnet-18-fine-any-camera-long
# As long as the weights took from which these recipes otherwise go on.
random="--set schedule.epochs=50 --set schedule.learning_rate=2e-3 ${composed[*]}"
each "finder-any-camera finder-long $random" "aligner-any-camera aligner-long $random" \
  "$long teacher ${photographs[*]}"
named=$runs/data/pseudo_labels_long.json
[ -e "$named" ] || "$train" pseudo-label "$runs/teacher" "${common[@]}" --precision $precision --out "$named"
students=()
for seed in 111 112 113; do students+=("$long student-$seed --pseudo-labels $named --set seed=$seed ${photographs[*]}"); done
each "${students[@]}"

members=("$runs/student-111" "$runs/student-112" "$runs/student-113")
"$train" stack "${members[@]}" --views 4 --average --power fit --unknown-score features --gallery-photographs 16 "${common[@]}" --out "$runs/stack-long.json"
"$train" bundle --name right-whales --bundle-version 2.0.0 "${common[@]}" --cache "$runs/data/cache" \
  --about training/model_cards/right-whales.md --finder "$runs/finder-long" --aligner "$runs/aligner-long" \
  --classifiers "${members[@]}" --stack "$runs/stack-long.json" --storage int8 "${bundle[@]}" --out "$out"
"$train" evaluate --bundle "$out" --heads "$data/heads" --labels "$runs/data/validation_and_unknown.csv"
# Other data have other water.
water=()
[ -n "${SMOKE:-}" ] || water=(--open-water training/data/open_water.csv)
"$train" evaluate --bundle "$out" --conditions --out "$runs/conditions-long.json" --heads "$data/heads" \
  --labels "$runs/data/validation_and_unknown.csv" --frames "$data/frames" --truth "$data/frames.csv" "${water[@]}"
