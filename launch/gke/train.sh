#!/usr/bin/env bash
# Train on Google Kubernetes Engine: fill in a JobSet and hand it to kubectl.
#   launch/gke/train.sh [--dry-run] tpu|gpu --config FILE --workdir DIR ...
#   launch/gke/train.sh [--dry-run] image          build IMAGE with EXTRAS (tpu or cuda) and push it
# Variables: NAME IMAGE CLAIM (a persistent volume claim that many nodes may write, mounted at /runs), RESTARTS=20
#   tpu: ACCELERATOR TOPOLOGY CHIPS (of a node), SLICES=1      gpu: ACCELERATOR NODES GPUS_PER_NODE
# --dry-run prints the JobSet and applies nothing.
# shellcheck disable=SC2034,SC2153  # variables come from the caller, and are read by their names
set -euo pipefail
launcher=launch/gke/train.sh
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"
# shellcheck source=launch/require.sh
source "$root/launch/require.sh"
: "${RESTARTS:=20}" "${SLICES:=1}"

words() {  # the arguments as a JSON list, which YAML is a superset of
  local word list=""
  for word in "$@"; do
    [[ $word != *[$'\n\t']* ]] || refuse "an argument must be one line without tabs; it is '$word'."
    word="${word//\\/\\\\}"
    word="${word//\$(/\$\$(}"          # Kubernetes would put a variable there
    list+="${list:+, }\"${word//\"/\\\"}\""
  done
  printf '[%s]' "$list"
}

hosts() {  # HOSTS of a slice: the product of the topology over the chips of a node
  local chips=1 side
  for side in ${TOPOLOGY//x/ }; do chips=$((chips * side)); done
  [ $((chips % CHIPS)) -eq 0 ] || refuse "CHIPS must divide the slice: $TOPOLOGY has $chips chips, CHIPS is $CHIPS."
  HOSTS=$((chips / CHIPS))
}

fill() {  # fill FILE NAME...: the file with @NAME@ replaced by the variables
  local text name
  text="$(grep -v '^#' "$1")"
  shift
  for name in "$@"; do text=${text//"@$name@"/"${!name}"}; done
  [[ $text != *@[A-Z]*@* ]] || refuse "a placeholder was left in the JobSet: ${text#*@}"
  printf '%s\n' "$text"
}

plain() {  # plain NAME PATTERN RULE: the variable can go into the JobSet as it is
  [[ ${!1} =~ ^$2$ ]] || refuse "$1 must be $3; it is '${!1}'."
}

jobset() {
  local kind="$1" names=(NAME IMAGE CLAIM RESTARTS ACCELERATOR COMMAND) workdir
  shift
  training "$@"
  workdir="$(value --workdir "$@")"
  [[ $workdir == /runs/?* ]] || refuse "--workdir must be in /runs, where CLAIM is mounted; it is '$workdir'. Example: --workdir /runs/first"
  need NAME "the name of the JobSet" vit-l16
  need IMAGE "the container image, as launch/gke/train.sh image pushes it" us-docker.pkg.dev/project/repository/transformer-jax:tpu
  need CLAIM "a persistent volume claim of access mode ReadWriteMany" runs
  plain NAME '[a-z]([-a-z0-9]{0,38}[a-z0-9])?' "a name of Kubernetes: small letters, digits, dashes, at most 40"
  plain CLAIM '[a-z0-9]([-a-z0-9.]*[a-z0-9])?' "a name of Kubernetes: small letters, digits, dashes"
  plain IMAGE '[-A-Za-z0-9_./:@]+' "an image name"
  whole RESTARTS 0
  COMMAND="$(words transformer-jax train "$@")"
  if [ "$kind" = tpu ]; then
    need ACCELERATOR "the node label cloud.google.com/gke-tpu-accelerator" tpu-v5-lite-podslice
    need TOPOLOGY "the node label cloud.google.com/gke-tpu-topology" 4x4
    need CHIPS "the chips of one node" 4
    plain TOPOLOGY '[0-9]+x[0-9]+(x[0-9]+)?' "sizes with x between"
    whole CHIPS 1; whole SLICES 1
    hosts
    names+=(TOPOLOGY CHIPS SLICES HOSTS)
  else
    need ACCELERATOR "the node label cloud.google.com/gke-accelerator" nvidia-h100-80gb
    need NODES "the number of nodes" 2
    need GPUS_PER_NODE "the GPUs of one node" 8
    whole NODES 1; whole GPUS_PER_NODE 1
    names+=(NODES GPUS_PER_NODE)
  fi
  plain ACCELERATOR '[-a-z0-9]+' "a label of the nodes"
  if [ "$kind" = tpu ]; then fill "$root/launch/gke/jobset.yaml" "${names[@]}"; else
    fill "$root/launch/gke/jobset-gpu.yaml" "${names[@]}"; fi
}

image() {
  need IMAGE "the container image to build and push" us-docker.pkg.dev/project/repository/transformer-jax:tpu
  need EXTRAS "the extras of pyproject.toml to install, tpu or cuda" tpu
  client docker "Install Docker, or make a link of that name to podman."
  run docker build --file "$root/launch/gke/Dockerfile" --build-arg "EXTRAS=$EXTRAS" \
    --build-arg "COMMIT=$(git -C "$root" rev-parse HEAD)" --tag "$IMAGE" "$root"
  run docker push "$IMAGE"
}

dry=""
if [ "${1:-}" = --dry-run ]; then dry=1; shift; fi
kind="${1:-}"
case "$kind" in
  "" | -h | --help) sed -n '2,7s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; [ -n "$kind" ] && exit 0 || exit 2 ;;
  image) image ;;
  tpu | gpu)
    shift
    text="$(jobset "$kind" "$@")"
    client kubectl "Install kubectl and log in to the cluster (gcloud container clusters get-credentials)."
    if [ -n "$dry" ]; then printf '# kubectl apply --filename -\n%s\n' "$text"; else kubectl apply --filename - <<<"$text"; fi ;;
  *) refuse "the first word must be tpu, gpu or image; it is '$kind'." ;;
esac
