#!/usr/bin/env bash
# Train on a Cloud TPU VM or slice, from this machine, through gcloud.
#   launch/tpu_vm.sh train --config FILE --workdir DIR ...   create, set up, train; after a preemption all of it again
#   launch/tpu_vm.sh create | setup | status | stop | delete
#   launch/tpu_vm.sh run COMMAND                             a shell command on all workers
#   launch/tpu_vm.sh fetch REMOTE LOCAL                      copy a folder from worker 0
#   launch/tpu_vm.sh --dry-run VERB ...                      print the commands, run none
# Variables: NAME ZONE ACCELERATOR RUNTIME; PROJECT, SPOT=1 (0), QUEUE=1 (0: no queued resource), RESTARTS=20,
#   PREPARE (a command for every worker, a mount for example), POLL=30 (seconds between two looks at the state)
# shellcheck disable=SC2016  # what is for the workers is theirs to expand
set -euo pipefail
launcher=launch/tpu_vm.sh
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
# shellcheck source=launch/require.sh
source "$root/launch/require.sh"
: "${SPOT:=1}" "${QUEUE:=1}" "${RESTARTS:=20}" "${POLL:=30}" "${PREPARE:=}" "${PROJECT:=}"
mark="${HOME:-}/.transformer_jax"       # on a worker: the process that trains there, and whether it was told to stop

dry=""
if [ "${1:-}" = --dry-run ]; then dry=1; shift; fi
verb="${1:-}"
case "$verb" in
  "" | -h | --help) sed -n '2,9s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; [ -n "$verb" ] && exit 0 || exit 2 ;;
esac
shift

tpu() {  # tpu GROUP VERB ARGUMENT...
  local group="$1" what="$2"
  shift 2
  run gcloud compute tpus "$group" "$what" "$NAME" --zone="$ZONE" ${PROJECT:+--project="$PROJECT"} "$@"
}

look() {  # look GROUP FIELD: of what is called NAME; ABSENT if it is not there, UNKNOWN if gcloud could not say
  local found
  found="$(gcloud compute tpus "$1" list --zone="$ZONE" ${PROJECT:+--project="$PROJECT"} --filter="name~(^|/)$NAME\$" \
    --format="value($2)")" && printf '%s' "${found:-ABSENT}" || printf UNKNOWN
}

state() { look tpu-vm state; }                       # READY, PREEMPTED, ...
queued() {                                           # ACTIVE, WAITING_FOR_RESOURCES, FAILED, ...
  if [ "$QUEUE" = 0 ]; then printf ABSENT; else look queued-resources state.state; fi      # who may not use it is not asked
}

everywhere() { tpu tpu-vm ssh --worker=all --command="$1"; }

create() {
  need ACCELERATOR "the type of the slice, as 'gcloud compute tpus accelerator-types list' has it" v5litepod-16
  need RUNTIME "the software of the machine" v2-alpha-tpuv5-lite
  local spot=()
  [ "$SPOT" = 0 ] || spot=(--spot)
  if [ "$QUEUE" = 0 ]; then
    tpu tpu-vm create --accelerator-type="$ACCELERATOR" --version="$RUNTIME" ${spot[@]+"${spot[@]}"}
  else
    tpu queued-resources create --node-id="$NAME" --accelerator-type="$ACCELERATOR" --runtime-version="$RUNTIME" \
      ${spot[@]+"${spot[@]}"}
  fi
  wait_until_ready
}

wait_until_ready() {
  if [ -n "$dry" ]; then echo "# until 'launch/tpu_vm.sh status', every $POLL s, says that the machine is READY:"; return; fi
  local now waiting
  until now="$(state)"; [ "$now" = READY ]; do
    waiting="$(queued)"
    case "$QUEUE,$now,$waiting" in
      *,FAILED)
        printf '%s: the queued resource %s is FAILED: see launch/tpu_vm.sh status, then delete.\n' "$launcher" "$NAME" >&2
        exit 1 ;;
      *,SUSPENDED | *,PREEMPTED,* | *,TERMINATED,* | 0,ABSENT,*)
        printf '%s: %s was taken before it was ready.\n' "$launcher" "$NAME" >&2
        exit 143 ;;
    esac
    printf '%s: %s is %s\n' "$launcher" "$NAME" "$now" >&2
    sleep "$POLL"
  done
}

delete() {
  if [ "$QUEUE" = 0 ]; then tpu tpu-vm delete --quiet; else tpu queued-resources delete --force --quiet; fi
}

setup() {  # what is committed here, at the same commit, and an environment for it, on every worker
  local bundle="transformer_jax.bundle"
  [ -z "$(git -C "$root" status --porcelain --untracked-files=no)" ] \
    || printf '%s: what is not committed is not sent.\n' "$launcher" >&2
  bundle="${TMPDIR:-/tmp}/$bundle"
  run git -C "$root" bundle create --quiet "$bundle" HEAD
  run gcloud compute tpus tpu-vm scp "$bundle" "$NAME:transformer_jax.bundle" --worker=all --zone="$ZONE" \
    ${PROJECT:+--project="$PROJECT"}
  [ -z "$PREPARE" ] || everywhere "$PREPARE"
  # The machines come with Python 3.10: uv brings a newer one.
  everywhere 'set -e; mkdir -p transformer_jax; cd transformer_jax; git init -q .
git fetch -q ../transformer_jax.bundle HEAD; git checkout -q -f FETCH_HEAD
command -v "$HOME/.local/bin/uv" >/dev/null || python3 -m pip install --quiet --user uv
export PATH="$HOME/.local/bin:$PATH"; uv python install --quiet 3.12
EXTRAS=tpu PYTHON="$(uv python find 3.12)" ./launch/local.sh --version'
}

ensure() {  # a machine that is ready, with the code on it
  if [ -n "$dry" ]; then create; setup; return; fi
  local now waiting
  while now="$(state)" waiting="$(queued)"; do
    case "$now,$waiting" in DELETING,* | STOPPING,* | *,DELETING | *,SUSPENDING) ;; *) break ;; esac
    printf '%s: %s is %s, its queued resource %s: nothing can be done before that has ended\n' "$launcher" "$NAME" "$now" "$waiting" >&2
    sleep "$POLL"
  done
  case "$now,$waiting" in
    READY,*) ;;
    UNKNOWN,* | *,UNKNOWN) exit 255 ;;               # gcloud has said why; nothing is created on a guess
    ABSENT,ABSENT) create ;;
    CREATING,* | STARTING,* | RESTARTING,* | REPAIRING,* | REIMAGING,*) wait_until_ready ;;
    ABSENT,WAITING_FOR_RESOURCES | ABSENT,ACCEPTED | ABSENT,CREATING | ABSENT,PROVISIONING) wait_until_ready ;;
    *) delete; create ;;
  esac
  setup
}

attempt() {  # train once; the exit code is the run's, whatever it was that ended it
  local command log code status
  command="cd transformer_jax && ./launch/tpu_vm.sh worker $(shown "$@")"
  if [ -n "$dry" ]; then
    ensure
    everywhere "$command"
    echo "# which runs, on every worker:"
    run .venv/bin/transformer-jax train "$@"
    return
  fi
  "$root/launch/tpu_vm.sh" ensure && code=0 || code=$?
  [ "$code" -ne 255 ] || return 134                # the connection broke: try again
  [ "$code" -eq 0 ] || return "$code"
  log="$(mktemp)"
  everywhere "$command" 2>&1 | tee "$log" && code=0 || code="${PIPESTATUS[0]}"
  [ "$code" -ne 0 ] || { rm -f "$log"; return 0; }
  # gcloud ends with the code of the first worker that failed, and names all: one that must not be repeated decides.
  for status in $(sed -n 's/.*failed with exit status \([0-9]*\).*/\1/p' "$log") "$code"; do
    case "$status" in 75 | 134 | 137 | 143 | 255) ;; *) code="$status" ;; esac
  done
  rm -f "$log"
  case "$(state),$code" in
    READY,255 | UNKNOWN,255) return 134 ;;         # the connection broke, the machine may be there: try again
    READY,* | UNKNOWN,* | *,2 | *,3 | *,130) return "$code" ;;
    *) return 143 ;;                               # the machine is gone
  esac
}

worker() {  # on a worker: end a training that a broken connection left behind, then train
  local left child code
  cd "$root"
  [ -x .venv/bin/transformer-jax ] || refuse "the environment must be there; $root/.venv has none. Run: launch/tpu_vm.sh setup"
  if left="$(cat "$mark.pid" 2>/dev/null)" && kill -TERM "$left" 2>/dev/null; then
    for _ in $(seq 300); do kill -0 "$left" 2>/dev/null || break; sleep 1; done
  fi
  rm -f "$mark.stop"
  # Not by local.sh, which would look for its environment again with this machine's own Python, an old one.
  .venv/bin/transformer-jax train "$@" &
  child=$!
  echo "$child" >"$mark.pid"
  trap 'kill -TERM "$child" 2>/dev/null || true' TERM INT
  wait "$child" && code=0 || code=$?
  while kill -0 "$child" 2>/dev/null; do wait "$child" && code=0 || code=$?; done
  rm -f "$mark.pid"
  [ "$code,$(ls "$mark.stop" 2>/dev/null)" != "143,$mark.stop" ] || code=130    # told to stop: nobody starts it again
  exit "$code"
}

case "$verb" in
  worker) worker "$@" ;;
  create | setup | status | delete | stop | run | fetch | train | ensure | attempt) ;;
  *) refuse "the verb must be one of train create setup run fetch status stop delete; it is '$verb'." ;;
esac
need NAME "the name of the TPU" vit-l16
need ZONE "the zone of the TPU" us-west4-a
client gcloud "Install the Google Cloud CLI."

case "$verb" in
  create) create ;;
  setup) setup ;;
  delete) delete ;;
  status) printf 'machine %s, queued resource %s\n' "$(state)" "$(queued)" ;;
  stop) everywhere 'touch ~/.transformer_jax.stop; kill -TERM "$(cat ~/.transformer_jax.pid)"' ;;
  run) [ $# -eq 1 ] || refuse "run takes one word, a shell command. Example: run 'df -h'"; everywhere "$1" ;;
  fetch)
    [ $# -eq 2 ] || refuse "fetch takes a folder there and one here. Example: fetch /mnt/runs/first runs/"
    run gcloud compute tpus tpu-vm scp --recurse "$NAME:$1" "$2" --worker=0 --zone="$ZONE" ${PROJECT:+--project="$PROJECT"} ;;
  ensure) ensure ;;
  attempt) attempt "$@" ;;
  train)
    training "$@"
    whole RESTARTS 0
    whole POLL 0
    case "$(value --workdir "$@")" in
      /*) ;;
      *) refuse "--workdir must be an absolute folder on a disk that all workers share and that outlives them (PREPARE mounts it);" \
           "it is '$(value --workdir "$@")'. Example: --workdir /mnt/runs/first" ;;
    esac
    need ACCELERATOR "the type of the slice, as 'gcloud compute tpus accelerator-types list' has it" v5litepod-16
    need RUNTIME "the software of the machine" v2-alpha-tpuv5-lite
    if [ -n "$dry" ]; then
      echo "# $(shown launch/supervise.sh --restarts "$RESTARTS" --pause "$POLL" -- launch/tpu_vm.sh attempt "$@"), each attempt:"
      attempt "$@"
    else
      export NAME ZONE ACCELERATOR RUNTIME PROJECT SPOT QUEUE PREPARE POLL
      exec "$root/launch/supervise.sh" --restarts "$RESTARTS" --pause "$POLL" -- "$root/launch/tpu_vm.sh" attempt "$@"
    fi ;;
esac
