#!/usr/bin/env bash
# Train on whichever cloud SkyPilot finds, as a managed job that survives the loss of its machines.
#   launch/skypilot.sh [--dry-run] --config FILE --workdir DIR ...
# Variables: BUCKET (gs://..., s3://...), ACCELERATORS (H100:8), NODES=1, NAME=transformer-jax, SPOT=1 (0), EXTRAS=cuda (tpu)
set -euo pipefail
launcher=launch/skypilot.sh
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
# shellcheck source=launch/require.sh
source "$root/launch/require.sh"
: "${NODES:=1}" "${NAME:=transformer-jax}" "${SPOT:=1}" "${EXTRAS:=cuda}"

dry=""
case "${1:-}" in
  "" | -h | --help) sed -n '2,4s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; [ -n "${1:-}" ] && exit 0 || exit 2 ;;
  --dry-run) dry=1; shift ;;
esac
training "$@"
workdir="$(value --workdir "$@")"
[[ $workdir == /runs/?* ]] || refuse "--workdir must be in /runs, where BUCKET is mounted; it is '$workdir'. Example: --workdir /runs/first"
need BUCKET "the bucket that holds the run directories" gs://my-runs
need ACCELERATORS "the accelerators of one node, as 'sky show-gpus' has them" H100:8
[[ $BUCKET =~ ^[a-z0-9]+://.+ ]] || refuse "BUCKET must begin with the store it is in; it is '$BUCKET'. Example: BUCKET=gs://my-runs"
whole NODES 1
client sky "pip install skypilot, then: sky check"
spot=(--use-spot)
[ "$SPOT" != 0 ] || spot=(--no-use-spot)
cd "$root"
run sky jobs launch --yes --name "$NAME" --num-nodes "$NODES" --gpus "$ACCELERATORS" "${spot[@]}" \
  --env "EXTRAS=$EXTRAS" --env "BUCKET=$BUCKET" --env "TRAIN=$(shown "$@")" launch/skypilot.yaml
if [ -n "$dry" ]; then echo "# which runs, on every node:"; run .venv/bin/transformer-jax train "$@"; fi
