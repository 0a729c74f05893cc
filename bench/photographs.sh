#!/usr/bin/env bash
# ours-dslr: ours, tuned to the photographs of one camera, the mean of two trainings.
#
#     bench/photographs.sh PHOTOGRAPHS [OUT]
#
# PHOTOGRAPHS is a folder of dual-aperture photographs with depth. Into OUT (runs/photographs) go the trainings and their mean,
# ours-dslr.safetensors: one training scatters by a hundredth of rel and of d1 with its seed, and the mean is as good as both.
#
# FOLD     one of five blocks of scenes, 0 to 4, that is held out and scored; without it all scenes are trained on
# LENS     lens file of the photographs; without one it is calibrated here, on all scenes
# SET      more changes of the recipe, such as SET="train.steps=20"
set -euo pipefail
cd "$(dirname "$0")/.."
photographs=$(realpath "${1:?expected a folder of dual-aperture photographs}")
out=${2:-runs/photographs}
dfd=.venv/bin/dfd
mkdir -p "$out"

lens=${LENS:-$out/lens.yaml}
[[ -f $lens ]] || $dfd calibrate "$photographs" --out "$lens"
lens=$(realpath "$lens")
changes=(data.{train.{0,1},validate_on}.lens="$lens")
if [[ -n ${FOLD:-} ]]; then
  changes+=(data.{train.0,validate_on}.fold="$FOLD")
else
  changes+=(data.{train.0,validate_on}.folds=0 data.validate_on.held_out=false data.validate_on.count=16)
fi
changes+=(${SET:-})

for seed in 0 1; do
  $dfd train ours_dslr --data "$photographs" --out "$out/$seed" --resume "${changes[@]/#/--set=}" --set=train.seed=$seed
done
$dfd average "$out"/{0,1}/ours-dslr.safetensors --out "$out/ours-dslr.safetensors"
[[ -z ${FOLD:-} ]] || $dfd eval "$out/ours-dslr.safetensors" --data "dslr:$photographs" --calibration "$lens" --folds 5 --fold "$FOLD"
