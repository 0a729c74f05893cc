#!/usr/bin/env bash
# ours-dslr: ours, tuned to the photographs of one camera in two ways, and the mean of the two, the plain one counting threefold.
#
#     bench/photographs.sh PHOTOGRAPHS [OUT]
#
# PHOTOGRAPHS is a folder of dual-aperture photographs with depth. Into OUT (runs/photographs) go both trainings and their mean,
# ours-dslr.safetensors.
#
# FOLD     one of five blocks of scenes, 0 to 4, that is held out and scored; without it all scenes are trained on
# LENS     lens file of the photographs; without one it is calibrated here, on all scenes
# SET      more changes for both, such as SET="train.steps=20"
set -euo pipefail
cd "$(dirname "$0")/.."
photographs=$(realpath "${1:?expected a folder of dual-aperture photographs}")
out=${2:-runs/photographs}
dfd=.venv/bin/dfd
mkdir -p "$out"

lens=${LENS:-$out/lens.yaml}
[[ -f $lens ]] || $dfd calibrate "$photographs" --out "$lens"
lens=$(realpath "$lens")
common=(data.{train.{0,1,2},validate_on}.lens="$lens")
if [[ -n ${FOLD:-} ]]; then
  common+=(data.{train.{0,1},validate_on}.fold="$FOLD")
else
  common+=(data.{train.{0,1},validate_on}.folds=0 data.validate_on.held_out=false data.validate_on.count=16)
fi

# train NAME CHANGE...: into OUT/NAME; gone on with if it was stopped.
train() {
  local changes=("${common[@]}" "${@:2}" ${SET:-})
  echo "== $1"
  $dfd train ours_dslr --data "$photographs" --out "$out/$1" --resume "${changes[@]/#/--set=}"
}

train plain data.train.1.share=0 data.augment.mix=0
train mixed
mean=$out/ours-dslr.safetensors
$dfd average "$out"/{plain,plain,plain,mixed}/ours-dslr.safetensors --out "$mean"
[[ -z ${FOLD:-} ]] || $dfd eval "$mean" --data "dslr:$photographs" --calibration "$lens" --folds 5 --fold "$FOLD"
