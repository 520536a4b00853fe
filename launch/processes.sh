#!/usr/bin/env bash
# Run a command as several processes of this machine that make one computation on CPU devices: a cluster to try things on.
#   launch/processes.sh COUNT DEVICES COMMAND...
# Each process has DEVICES devices, every line it writes begins with its index, and SIGTERM and Ctrl-C are passed on to all.
# Exits when all have ended, with the code that explains the end: one that a restart cannot mend (2 bad input, 3 diverged,
# 1 failed, ...) before one that it can (75 hung, 137 killed, 134 a peer died, 143 preempted), and 0 if all have 0.
# Processes that one of them left behind are given PROCESSES_PATIENCE=10 seconds, and then killed.
set -uo pipefail
say() { printf 'launch/processes.sh: %s\n' "$*" >&2; }
refuse() { say "$*"; exit 2; }

case "${1:-}" in -h | --help) sed -n '2,7s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;; esac
count="${1:-}" devices="${2:-}"
case "$count" in "" | *[!0-9]* | 0*) refuse "the number of processes must be a whole number from 1; it is '$count'." ;; esac
case "$devices" in "" | *[!0-9]* | 0*) refuse "the devices of a process must be a whole number from 1; it is '$devices'." ;; esac
shift 2
[ $# -gt 0 ] || refuse "there must be a command. Example: launch/processes.sh 2 4 transformer-jax train ..."

port="$("${PYTHON:-python3}" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')" ||
  refuse "a Python must be there to choose a port: '${PYTHON:-python3}' is not. Name one with PYTHON=..."
pipes="$(mktemp -d "${TMPDIR:-/tmp}/processes.XXXXXX")" || exit 1
trap 'rm -rf "$pipes"' EXIT

named() { while IFS= read -r line || [ -n "$line" ]; do printf '[%s] %s\n' "$1" "$line"; done; }

export JAX_PLATFORMS=cpu JAX_NUM_CPU_DEVICES="$devices" TRANSFORMER_JAX_LINES_NAMED=1
export TRANSFORMER_JAX_HEARTBEAT="${TRANSFORMER_JAX_HEARTBEAT:-20}"     # on one machine silence means death sooner
pids=() readers=()
# shellcheck disable=SC2329  # called by the traps
pass_on() { for pid in ${pids[@]+"${pids[@]}"}; do kill -TERM "$pid" 2>/dev/null; done; }
trap pass_on TERM INT HUP

set -m      # every process gets its own group: Ctrl-C reaches each once, through the trap
for ((index = 0; index < count; index++)); do
  mkfifo "$pipes/$index.out" "$pipes/$index.err"
  named "$index" <"$pipes/$index.out" &
  readers+=($!)
  named "$index" <"$pipes/$index.err" >&2 &
  readers+=($!)
  TRANSFORMER_JAX_PROCESSES="127.0.0.1:$port,$count,$index" "$@" >"$pipes/$index.out" 2>"$pipes/$index.err" &
  pids+=($!)
done

codes=()
for pid in "${pids[@]}"; do
  while :; do
    wait "$pid" 2>/dev/null
    code=$?
    kill -0 "$pid" 2>/dev/null || break      # else a signal ended the wait, not the process
  done
  wait "$pid" 2>/dev/null
  again=$?
  if [ "$again" -ne 127 ]; then code=$again; fi
  codes+=("$code")
done

# What outlives a process (a worker of it) may hold its output open: it is not waited for, and ended with it.
end_groups() { for pid in "${pids[@]}"; do kill -KILL -- "-$pid"; done; }
{ sleep "${PROCESSES_PATIENCE:-10}"; end_groups; sleep 1; kill -KILL "${readers[@]}"; } >/dev/null 2>&1 &
timer=$!
for reader in "${readers[@]}"; do wait "$reader" 2>/dev/null; done
{ kill -KILL -- "-$timer"; wait "$timer"; end_groups; } 2>/dev/null

for wanted in 2 3 1 final 75 137 134 143 0; do
  for code in "${codes[@]}"; do
    case "$wanted $code" in
      "final 0" | "final 75" | "final 134" | "final 137" | "final 143") ;;
      final\ *) exit "$code" ;;
      *) [ "$wanted" != "$code" ] || exit "$code" ;;
    esac
  done
done
