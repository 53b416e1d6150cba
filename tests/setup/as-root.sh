#!/usr/bin/env bash
# Runs a command as root: by sudo where this is not root already.
#
# usage: as-root.sh COMMAND [ARG]...
# What the command may need of the environment goes along as words, for there are sudos that have no -E (sudo-rs) and others that
# are set up to refuse it. Words are seen by everybody: nothing that looks like a secret is among them.
set -euo pipefail

[ $# -gt 0 ] || { echo "usage: as-root.sh COMMAND [ARG]..." >&2; exit 64; }
[ "$(id -u)" != 0 ] || exec "$@"
command -v sudo >/dev/null || { echo "\`$*\` needs root, and there is no sudo here: run this as root" >&2; exit 1; }

# Cargo looks for these in its user's home, which root's is not.
[ -n "${CARGO_HOME:-}" ] || [ ! -d "$HOME/.cargo" ] || export CARGO_HOME=$HOME/.cargo
[ -n "${RUSTUP_HOME:-}" ] || [ ! -d "$HOME/.rustup" ] || export RUSTUP_HOME=$HOME/.rustup

words=()
for name in $(compgen -e); do
  # An address may hold a password.
  [[ ${!name} != *://*@* ]] || continue
  case $name in
    *TOKEN* | *SECRET* | *PASS* | *CREDENTIAL*) ;;
    PATH | DHOW_* | CARGO | CARGO_* | RUST* | INSTA_* | DOCKER_HOST | NO_COLOR) words+=("$name=${!name}") ;;
    *_proxy | *_PROXY) [[ ${!name} == *@* ]] || words+=("$name=${!name}") ;;
  esac
done
exec sudo env "${words[@]}" "$@"
