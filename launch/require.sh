# shellcheck shell=bash
# Sourced by the launchers: one way to refuse, to demand a variable, to show a command instead of running it.

refuse() { printf '%s: %s\n' "${launcher:?}" "$*" >&2; exit 2; }

# need NAME RULE EXAMPLE: the variable NAME is set, or the launcher ends with the rule and an example.
need() { [ -n "${!1:-}" ] || refuse "$1 must be $2; it is not set. Example: $1=$3"; }

# client COMMAND WHERE: the command is on PATH, or the launcher ends with where to get it; a dry run does without.
client() { command -v "$1" >/dev/null || [ -n "${dry:-}" ] || refuse "$1 must be on PATH; it is not. $2"; }

# whole NAME SMALLEST: the variable NAME is a whole number, not smaller.
whole() {
  [[ ${!1} =~ ^[0-9]+$ ]] && [ "$((10#${!1}))" -ge "$2" ] || refuse "$1 must be a whole number of at least $2; it is '${!1}'."
}

# training ARGUMENT...: these are arguments of `transformer-jax train` that name an experiment and a run directory.
training() {
  local word config="" workdir=""
  for word in "$@"; do
    case "$word" in --config | --config=*) config=1 ;; --workdir | --workdir=*) workdir=1 ;; esac
  done
  [ -n "$config" ] || refuse "--config must name the experiment; it is not given. Example: --config experiments/digits/pretrain.py"
  [ -n "$workdir" ] || refuse "--workdir must name a folder that every host sees; it is not given. Example: --workdir /mnt/runs/first"
}

# value OPTION ARGUMENT...: what follows OPTION.
value() {
  local option="$1" found=""
  shift
  while [ $# -gt 0 ]; do
    case "$1" in "$option") found="${2:-}" ;; "$option"=*) found="${1#*=}" ;; esac
    shift
  done
  printf '%s' "$found"
}

# shown WORD...: the words as one could type them.
shown() {
  local word line=""
  for word in "$@"; do
    case "$word" in "" | *[!A-Za-z0-9_./:=@%,+-]*) word="'${word//\'/\'\\\'\'}'" ;; esac
    line+="${line:+ }$word"
  done
  printf '%s' "$line"
}

# run WORD...: do it, or with --dry-run print it.
run() { if [ -n "${dry:-}" ]; then printf '%s\n' "$(shown "$@")"; else "$@"; fi; }
