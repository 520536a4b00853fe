#!/usr/bin/env bash
# Run a command again for as long as it ends in a way that another attempt can mend.
#   launch/supervise.sh [--restarts K] [--workdir DIR] [--pause SECONDS] -- COMMAND...
# It is started again, at most K times (default 10), after 75 (hung), 134 (a peer died), 137 (killed) and 143 (preempted
# and saved); every other code is final, and so is a SIGTERM or Ctrl-C to the supervisor, which it passes on. Two restarts
# that leave no new checkpoint and no new outcome.json of a run under DIR (default: what --workdir of the command says) are
# the end too: the third would be like them. A preemption (143) says nothing about the command and is not one of the two.
# Exits with the code of the last attempt.
set -uo pipefail
say() { printf 'launch/supervise.sh: %s\n' "$*" >&2; }
refuse() { say "$*"; exit 2; }

restartable="75 134 137 143"     # training/exits.py
restarts=10 workdir="" pause=5
while [ $# -gt 0 ]; do
  case "$1" in
    --restarts) restarts="${2:-}"; shift ;;
    --workdir) workdir="${2:-}"; shift ;;
    --pause) pause="${2:-}"; shift ;;
    -h | --help) sed -n '2,8s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;;
    --) shift; break ;;
    *) refuse "options end with --, then comes the command; '$1' is not an option. Example: launch/supervise.sh --restarts 3 -- COMMAND" ;;
  esac
  shift || refuse "an option needs a value. Example: launch/supervise.sh --restarts 3 -- COMMAND"
done
case "$restarts" in "" | *[!0-9]*) refuse "--restarts must be a whole number; it is '$restarts'." ;; esac
case "$pause" in "" | *[!0-9.]*) refuse "--pause must be seconds; it is '$pause'." ;; esac
[ $# -gt 0 ] || refuse "there must be a command after --. Example: launch/supervise.sh --restarts 3 -- COMMAND"

if [ -z "$workdir" ]; then
  follows=""
  for word in "$@"; do
    case "$follows$word" in
      "workdir "*) workdir="$word" ;;
      --workdir=*) workdir="${word#*=}" ;;
    esac
    follows=""
    if [ "$word" = --workdir ]; then follows="workdir "; fi
  done
fi

# reached: what is saved, as one line that changes with every new checkpoint and with every run of a protocol that is over,
# whether it kept a checkpoint or not; empty where the folder is not visible from here.
reached() {
  [ -n "$workdir" ] && [ -d "$workdir" ] || return 0
  find "$workdir" \( -type d -path '*/checkpoints/*' -prune -name '[0-9]*' ! -name '*[!0-9]*' -print \) \
    -o \( -name outcome.json -print \) 2>/dev/null | sort | cksum
}

told="" child=""
# shellcheck disable=SC2329  # called by the traps
pass_on() { told="$1"; [ -z "$child" ] || kill -TERM "$child" 2>/dev/null; }
trap 'pass_on SIGTERM' TERM
trap 'pass_on Ctrl-C' INT
trap 'pass_on SIGHUP' HUP

set -m      # the command gets its own process group: Ctrl-C reaches it once, through the trap
attempt=0 fruitless=0
while :; do
  before="$(reached)"
  "$@" &
  child=$!
  [ -z "$told" ] || kill -TERM "$child" 2>/dev/null     # told between two attempts
  while :; do
    wait "$child" 2>/dev/null
    code=$?
    kill -0 "$child" 2>/dev/null || break      # else a signal ended the wait, not the command
  done
  wait "$child" 2>/dev/null
  again=$?
  if [ "$again" -ne 127 ]; then code=$again; fi
  child=""
  if [ -n "$told" ]; then say "$told: the command ended with $code and is not started again."; exit "$code"; fi
  case " $restartable " in *" $code "*) ;; *) exit "$code" ;; esac
  after="$(reached)"
  if [ -z "$after" ] || [ "$before" != "$after" ]; then
    fruitless=0
  elif [ "$attempt" -gt 0 ] && [ "$code" -ne 143 ]; then
    fruitless=$((fruitless + 1))
  fi
  if [ "$fruitless" -ge 2 ]; then
    say "ended with $code; the last two restarts brought no new checkpoint under $workdir: given up. Its output above says what stops it."
    exit "$code"
  fi
  if [ "$attempt" -ge "$restarts" ]; then say "ended with $code; no restart is left of $restarts."; exit "$code"; fi
  attempt=$((attempt + 1))
  say "ended with $code; restart $attempt of $restarts in $pause s."
  sleep "$pause" &
  child=$!
  wait "$child" 2>/dev/null
  child=""
  if [ -n "$told" ]; then say "$told: not started again."; exit "$code"; fi
done
