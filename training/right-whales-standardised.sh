#!/usr/bin/env bash
# Made models/right-whales 1.6.0 and models/right-whales-measured: the networks of earlier bundles, which this repository's
# history keeps, behind standardised inputs. No network is trained: gallery, temperature, what tells strangers and
# thresholds are fitted anew. Takes half an hour on two cores, most of it for the table of conditions.
# Usage: training/right-whales-standardised.sh DATA [RUNS [MODELS]]; after `make trainer`
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

# history COMMIT FOLDER: models/right-whales as it was.
history() {
  mkdir -p "$2" && git archive "$1" models/right-whales | tar -x --strip-components=2 -C "$2"
}
history eb80673 "$runs/right-whales-1.4.0"
history 6302cca "$runs/right-whales-1.5.1"
# 1.5.1 says on which split its classifiers were trained, all photographs. Its finder and aligner are those of its
# measured bundle, as its card says: trained on the split on which the classifiers of 1.4.0 were.
start=$runs/right-whales-start
rm -rf "$start" && cp -r "$runs/right-whales-1.4.0" "$start"
cp "$runs"/right-whales-1.5.1/{finder,aligner}.onnx "$start"
cp "$runs"/right-whales-1.5.1/self_test/{finder,aligner}.* "$start/self_test"
python3 - "$runs/right-whales-1.5.1/manifest.json" "$start/manifest.json" <<'PYTHON'
import json, sys

newer, start = (json.load(open(path)) for path in sys.argv[1:])
networks = ("finder", "aligner")
for role in networks:
    start[role] = newer[role]
tests = [test for test in start["self_test"] if test["role"] not in networks]
start["self_test"] = [test for test in newer["self_test"] if test["role"] in networks] + tests
from_newer = ("aligner-heat-maps", "finder-longer")
provenance = start["provenance"]
provenance.pop("frames_trained_on", None)
for kind in ("recipes", "metrics"):
    kept = {k: v for k, v in provenance[kind].items() if not k.startswith(("aligner.", "finder-real."))}
    kept = {k: v for k, v in kept.items() if k not in ("aligner", "finder-real")}
    theirs = newer["provenance"][kind].items()
    provenance[kind] = kept | {k: v for k, v in theirs if k.split(".")[0] in from_newer}
json.dump(start, open(sys.argv[2], "w"), indent=1)
PYTHON

# standardised RUN RECIPE BUNDLE MEMBER ARGUMENTS...: a classifier of a bundle behind a standardised input, as it is.
standardised() {
  local run=$runs/$1 recipe=training/recipes/$2.toml bundle=$3 member=$4
  shift 4
  [ -e "$run/last.safetensors" ] || "$train" train "$recipe" --cache "$runs/data/cache" --out "$run" --from-bundle "$bundle" \
    --member "$member" --last-layer averaged --set schedule.epochs=0 "$@"
}
strong=resnet-18-fine-any-camera light=resnet-18-fine-any-camera-light
standardised standardised $strong "$start" 1 "${split[@]}"
standardised standardised-light $light "$start" 2 "${split[@]}"
"$train" stack "$runs/standardised" "$runs/standardised-light" --views 4 --average --power fit --unknown-score features \
  --gallery-photographs 16 "${split[@]}" --out "$runs/stack.json"
# bundle ARGUMENTS
bundle() {
  "$train" bundle --bundle-version 1.6.0 --cache "$runs/data/cache" --finder-of "$start" --aligner-of "$start" --storage int8 \
    --about training/model_cards/right-whales.md "$@"
}
bundle --name right-whales-measured "${split[@]}" --classifiers "$runs/standardised" "$runs/standardised-light" \
  --stack "$runs/stack.json" --out "$runs/bundle-measured"
"$train" evaluate --bundle "$runs/bundle-measured" --enroll 5 --heads "$data/heads" \
  --labels "$runs/data/validation_and_unknown.csv"
[ -e "$runs/conditions.json" ] || "$train" evaluate --bundle "$runs/bundle-measured" --conditions --out "$runs/conditions.json" \
  --heads "$data/heads" --labels "$runs/data/validation_and_unknown.csv" \
  --frames "$data/frames" --truth "$data/frames.csv" --open-water training/data/open_water.csv
bundle --name right-whales-measured "${split[@]}" --classifiers "$runs/standardised" "$runs/standardised-light" \
  --stack "$runs/stack.json" --conditions "$runs/conditions.json" --out "$models/right-whales-measured"

standardised standardised-all $strong "$runs/right-whales-1.5.1" 1 "${all[@]}"
standardised standardised-light-all $light "$runs/right-whales-1.5.1" 2 "${all[@]}"
"$train" stack "$runs/standardised-all" "$runs/standardised-light-all" --calibrated-by "$runs/stack.json" "${all[@]}" \
  --out "$runs/stack-all.json"
bundle --name right-whales "${all[@]}" --classifiers "$runs/standardised-all" "$runs/standardised-light-all" \
  --stack "$runs/stack-all.json" --conditions "$runs/conditions.json" --out "$models/right-whales"
