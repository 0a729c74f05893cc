#!/usr/bin/env bash
# Every recipe at one budget, scored on scenes it did not see, in two tables.
#
#     bench/train_all.sh PHOTOGRAPHS [OUT]
#
# PHOTOGRAPHS is a folder of dual-aperture photographs with depth; the last of FOLDS blocks of its scenes is held out. Table 1: the
# pictures at the narrow aperture, rendered at F/2 and F/14 (config/lenses/protocol.yaml), train and score all systems. Table 2:
# the photographs themselves, for the systems that need no all-in-focus picture.
#
# STEPS    for each system (2500: on one H200 all of it should take less than 25 minutes); those of one system after its name, such
#          as STEPS="2500 two_headed=400", where not steps but time shall be the same for all
# ONLY     train these alone, such as ONLY="single two_headed", and make no tables; what is there is not trained again
# OURS     weights of ours to tune, a file or a name of the zoo; without them it is trained first, on made-up scenes
# LENS     lens file of the photographs; without one it is calibrated here, on the scenes trained on
# FOLDS    blocks of scenes (5)
# SET      more changes for all recipes, such as SET="train.devices=8 data.workers=4"
set -euo pipefail
cd "$(dirname "$0")/.."
photographs=$(realpath "${1:?expected a folder of dual-aperture photographs}")
out=${2:-runs/all}
folds=${FOLDS:-5} dfd=.venv/bin/dfd
fold=$((folds - 1))
protocol=$PWD/config/lenses/protocol.yaml
mkdir -p "$out"

lens=${LENS:-}
if [[ -z $lens ]]; then
  lens=$out/lens.yaml
  scenes=$(find "$photographs" -maxdepth 1 -name '*_depth_mm.png' | wc -l)
  [[ -f $lens ]] || $dfd calibrate "$photographs" --last $((fold * scenes / folds - 1)) --out "$lens"
fi
lens=$(realpath "$lens")
held_out=(data.{train.0,validate_on}.folds="$folds" data.{train.0,validate_on}.fold="$fold")

# steps_of NAME: from STEPS.
steps_of() {
  local steps=2500 entry
  for entry in ${STEPS:-}; do
    case $entry in
      "$1"=*) steps=${entry#*=}; break ;;
      *=*) ;;
      *) steps=$entry ;;
    esac
  done
  echo "$steps"
}

# train NAME RECIPE DATA [CHANGE...]: into OUT/NAME; gone on with if it was stopped.
train() {
  local name=$1 recipe=$2 data=$3 steps
  [[ -z ${ONLY:-} || " $ONLY " == *" $name "* ]] || return 0
  steps=$(steps_of "$name")
  local changes=(name="$name" train.steps="$steps" train.round=$(((steps + 4) / 5)) ${SET:-} "${@:4}")
  echo "== $name"
  $dfd train "$recipe" --data "$data" --out "$out/$name" --resume "${changes[@]/#/--set=}"
}

# score TITLE DATA LENS NAME...: a report in OUT/TITLE.
score() {
  local title=$1 data=$2 calibration=$3
  [[ -z ${ONLY:-} ]] || return 0
  shift 3
  local others=()
  for name in "${@:2}"; do others+=(--compare "$name"); done
  $dfd eval "$1" "${others[@]}" --data "$data" --calibration "$calibration" --folds "$folds" --fold "$fold" \
    --out "$out/$title" | tee "$out/$title.txt"
}

weights() { for name in "$@"; do echo "$out/$name/$name.safetensors"; done; }

ours=${OURS:-$out/ours/ours.safetensors}
[[ -n ${OURS:-} ]] || train ours ours synthetic

rendered=dslr-rendered:$photographs
systems=(dual_aperture dual_aperture_no_cue single all_in_focus d3net_single d3net_dual two_headed defocus_focus dense_aspp)
for name in "${systems[@]}"; do train "$name" "$name" "$rendered" "${held_out[@]}"; done
for sequence in 1:[0.2] 6:[0.2,0.8,0.1,0.9,0.3,0.7] 10:[0.2,0.8,0.1,0.9,0.3,0.7,0.4,0.6,0.5,0.35]; do
  train "dense_aspp_f${sequence%%:*}" dense_aspp "$rendered" "loss.0.focus=${sequence#*:}" "${held_out[@]}"
  systems+=("dense_aspp_f${sequence%%:*}")
done
# Ours is given them at half their size, where no blur is wider than 14 pixels, and a step takes a third of the time.
source="{spec: '$rendered', lens: '$protocol', size: [216, 322]"
on_rendered=("data.train=[$source}]" "data.validate_on=$source, held_out: true, count: 16}" "data.augment.zoom=[0.8,1.3]")
on_rendered+=("${held_out[@]}")
train ours-rendered ours "$rendered" "${on_rendered[@]}"
train ours-tuned ours "$rendered" "model.init=$ours" "${on_rendered[@]}"
mapfile -t files < <(weights ours-rendered ours-tuned "${systems[@]}")
score rendered "$rendered" "$protocol" "${files[@]}" "$ours" classical s_transform edge_ratio constant:1.8

plain=(data.train.0.lens= data.validate_on.lens= data.train.0.register_pairs=true data.validate_on.register_pairs=true)
for name in d3net_single d3net_dual dual_aperture; do
  train "$name-dslr" "$name" "dslr:$photographs" "${plain[@]}" "${held_out[@]}"
done
train ours-dslr ours_dslr "$photographs" "model.init=$ours" data.{train.{0,1},validate_on}.lens="$lens" "${held_out[@]}"
mapfile -t files < <(weights ours-dslr d3net_single-dslr d3net_dual-dslr dual_aperture-dslr)
score photographs "dslr:$photographs" "$lens" "${files[@]}" "$ours" classical s_transform edge_ratio constant:1.8
