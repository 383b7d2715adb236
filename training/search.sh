#!/usr/bin/env bash
# A search over the numbers of the classifiers' recipe: trains resnet-18-fine-small.toml on a smaller input and a shorter
# schedule, and again with one thing changed each, and puts each into the table training/results/search.json; rerun to go on where it stopped. Several at once, each
# with names and a thread of its own: OMP_NUM_THREADS=1 training/search.sh RUNS NAME…
# Usage: training/search.sh [RUNS [NAME…]]; RUNS/data must have an index, a split and the pseudo-labels of the last
# round (training/right-whales.sh makes them).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
runs=${1:-runs}
train=${CALLOSITY_TRAIN:-target/release/callosity-train}
common=(--index "$runs/data/index.json" --split "$runs/data/split.json" --cache "$runs/data/cache")
table=training/results/search
short=(--set 'input = { width = 64, height = 52 }' --set 'schedule = { epochs = 6, weight_average = 0.99 }' --set 'seed = 91')

# Name, what it is in the table, and the settings: one line each.
variants() {
  cat <<'LIST'
search|as released, but small and short|
search-seed|the same, other random numbers: what differs by no more than this may be chance|seed = 92
search-learning-rate-half|learning rate 3e-3 instead of 6e-3|schedule.learning_rate = 3e-3
search-learning-rate-double|learning rate 12e-3|schedule.learning_rate = 12e-3
search-weight-decay-third|weight decay 0.1 instead of 0.3|schedule.weight_decay = 0.1
search-weight-decay-double|weight decay 0.6|schedule.weight_decay = 0.6
search-augmentation-light|turn 6°, scale 8 %, shift 5 %, shear 0.03, erased 15 % instead of 15°, 18 %, 10 %, 0.08, 50 %|augmentation = { rotation_degrees = 6, scale = 0.08, shift = 0.05, shear = 0.03, erase = 0.15 }
search-augmentation-middle|turn 10°, scale 13 %, shift 7.5 %, shear 0.05, erased 30 %|augmentation = { rotation_degrees = 10, scale = 0.13, shift = 0.075, shear = 0.05, erase = 0.3 }
search-crop-tight|crop 1.3 head lengths long instead of 1.56|input.head_crop = { bonnet_x = 0.86, blowhead_x = 0.09, landmark_y = 0.5, aspect = 2.23 }
search-crop-whole|crop 2 head lengths long, the whole photograph|input.head_crop = { bonnet_x = 0.80, blowhead_x = 0.30, landmark_y = 0.5, aspect = 2.0 }
search-natural-shape|natural 2.2 : 1 shape, as many pixels|input = { width = 86, height = 39 }
search-resolution-48|48 × 40 pixels, 0.58 times as many|input = { width = 48, height = 40 }
LIST
}

names=("${@:2}")
[ ${#names[@]} != 0 ] || mapfile -t names < <(variants | cut -d '|' -f 1)
for name in "${names[@]}"; do
  line=$(variants | grep "^$name|") || { echo "search.sh: no variant $name" >&2; exit 2; }
  IFS='|' read -r _ about setting <<<"$line"
  settings=("${short[@]}" --set "name = '$name'" --set "about = '$about'")
  [ -z "$setting" ] || settings+=(--set "$setting")
  [ -e "$runs/$name/last.safetensors" ] || "$train" train training/recipes/resnet-18-fine-small.toml "${settings[@]}" "${common[@]}" \
    --pseudo-labels "$runs/data/pseudo_labels_round_4.json" --out "$runs/$name" --resume
  # One lane at a time.
  [ "$runs/$name/report.html" -nt "$runs/$name/last.safetensors" ] ||
    flock "$runs/data" "$train" report "$runs/$name" "${common[@]}" --table "$table.json" --markdown "$table.md" \
      --out "$runs/$name/report.html"
done
