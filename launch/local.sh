#!/usr/bin/env bash
# Set up this checkout's .venv (once) and run transformer-jax in it.
#   ./launch/local.sh test [pytest arguments]       lint, types, layer contract, tests
#   ./launch/local.sh VERB [arguments]              transformer-jax VERB, for example: train, protocol, doctor
#   ./launch/local.sh --procs 2 --devices 4 [--restarts K] VERB ...
#                                                   as a cluster on this machine: 2 processes of 4 CPU devices each, every line
#                                                   with its process; restarted together at most K times (launch/supervise.sh)
#   ./launch/local.sh --dry-run ...                 print what would be installed and run, do nothing
# Variables: PYTHON=python3 (another interpreter), VENV=.venv (another folder for the environment),
#   EXTRAS= (other extras of pyproject.toml, for example dev,cuda; `test` adds dev and images)
set -euo pipefail
launcher=launch/local.sh
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
# shellcheck source=launch/require.sh
source "$root/launch/require.sh"
venv="${VENV:-$root/.venv}"
case "$venv" in /*) ;; *) venv="$PWD/$venv" ;; esac
say() { printf 'launch/local.sh: %s\n' "$*" >&2; }

procs="" devices="" restarts="" dry=""
while :; do
  case "${1:-}" in
    --dry-run) dry=1; shift; continue ;;
    --procs=* | --devices=* | --restarts=*) name="${1%%=*}" value="${1#*=}" ;;
    --procs | --devices | --restarts) name="$1" value="${2:-}"; if [ $# -gt 1 ]; then shift; fi ;;
    *) break ;;
  esac
  case "$value" in "" | *[!0-9]*) say "$name must be a whole number; it is '$value'. Example: --procs 2 --devices 4"; exit 2 ;; esac
  case "$name" in --procs) procs="$value" ;; --devices) devices="$value" ;; *) restarts="$value" ;; esac
  shift
done

verb="${1:-}"
if [ -n "$procs$devices" ]; then
  case "$verb" in
    train | protocol | evaluate | bench) ;;
    *) say "several processes can train, protocol, evaluate or bench; '$verb' is for one."; exit 2 ;;
  esac
fi
case "$verb" in
  "" | -h | --help) sed -n '2,10s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; [ -n "$verb" ] && exit 0 || exit 2 ;;
esac

extras="${EXTRAS:-}"
[ "$verb" = test ] && extras="${extras:+$extras,}dev,images"

# What is installed is remembered as one line an extra set: the hash of the two files that decide it, and of PYTHON if named.
digest="$({ cat "$root/pyproject.toml" "$root/constraints.txt"; echo "${PYTHON:-}"; } \
  | { sha256sum 2>/dev/null || shasum -a 256; } | cut -d' ' -f1)"
stamp="$venv/.installed"
have() { if [ -n "$extras" ]; then grep -qsxF "$digest [$extras]" "$stamp"; else grep -qsF "$digest " "$stamp"; fi; }

make_venv() {
  python="${PYTHON:-python3}"
  command -v "$python" >/dev/null || {
    say "no '$python' on this machine: install Python 3.11 or newer, or name one with PYTHON=..."; exit 2; }
  "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    say "Python 3.11 or newer is needed, '$python' is $("$python" -V 2>&1): name another with PYTHON=..."; exit 2; }
  if [ -x "$venv/bin/python" ] && [ "$("$python" -V)" = "$("$venv/bin/python" -V)" ]; then return; fi
  [ ! -e "$venv" ] || [ -f "$venv/pyvenv.cfg" ] || {
    say "VENV=$venv is there and no virtual environment: name another folder, or one that does not exist"; exit 2; }
  rm -rf "$venv"
  if command -v uv >/dev/null; then
    uv venv --quiet --python "$(command -v "$python")" "$venv"
  else
    "$python" -m venv "$venv" || { rm -rf "$venv"; say "install the venv module (Debian: python3-venv), or uv"; exit 2; }
  fi
}

if [ -n "$dry" ]; then
  if [ ! -x "$venv/bin/python" ] || ! have; then
    echo "# installs transformer-jax${extras:+[$extras]} into $venv with ${PYTHON:-python3}, as constraints.txt has it"
  fi
elif [ ! -x "$venv/bin/python" ] || ! have; then
  make_venv
  target="$root${extras:+[$extras]}"
  say "installing transformer-jax${extras:+[$extras]} into ${venv#"$root"/}"
  if command -v uv >/dev/null; then
    uv pip install --quiet --python "$venv/bin/python" --constraint "$root/constraints.txt" --editable "$target"
  else
    "$venv/bin/python" -m pip --version >/dev/null 2>&1 || "$venv/bin/python" -m ensurepip --upgrade >/dev/null
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-compile \
      --constraint "$root/constraints.txt" --editable "$target"
  fi
  grep -qsF "$digest " "$stamp" || : >"$stamp"      # the files changed: what was installed before counts no more
  printf '%s [%s]\n' "$digest" "$extras" >>"$stamp"
  say "installed"
fi

finish() { if [ -n "$dry" ]; then run "$@"; exit 0; else exec "$@"; fi; }

if [ "$verb" = test ]; then
  shift
  cd "$root"
  bin="$venv/bin"
  say "ruff, ty"
  run "$bin/ruff" check --quiet .
  run "$bin/ruff" format --quiet --check .
  run "$bin/ty" check --quiet
  say "pytest"
  finish "$bin/python" -m pytest --numprocesses "${PROCESSES:-2}" --dist worksteal -m "${MARK:-not slow and not nightly}" "$@"
fi
set -- "$venv/bin/transformer-jax" "$@"
if [ -n "$procs$devices" ]; then
  export PYTHON="$venv/bin/python"     # chooses the port
  set -- "$root/launch/processes.sh" "${procs:-1}" "${devices:-1}" "$@"
fi
if [ -n "$restarts" ]; then set -- "$root/launch/supervise.sh" --restarts "$restarts" -- "$@"; fi
finish "$@"
