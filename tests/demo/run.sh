#!/usr/bin/env bash
# `make demo` and `make demo-down`: installs what is missing on Debian or Ubuntu, builds, and runs the demo as root.
#
# usage: run.sh up|down
# DHOW_BIN_DIR=DIR        dhow, dhow-agent, dhow-controller and dhow-demo are there; they are not built
# DHOW_DEMO_APP=FILE, DHOW_DEMO_STAND_IN=FILE   the images that `dhow-demo images` makes; they are not built
# DHOW_PROXY_IMAGE=FILE   a docker-archive with the kamal-proxy to use, instead of pulling it
set -euo pipefail
cd "$(dirname "$0")/../.."

say() { printf 'demo: %s\n' "$*"; }
fail() { printf 'demo: %s\n' "$*" >&2; exit 1; }
as_root() { tests/setup/as-root.sh "$@"; }

# Debian keeps some of these in /usr/sbin, which is not on every user's PATH; cargo in the user's home.
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin:$HOME/.cargo/bin
case ${CARGO_TARGET_DIR:=target} in
  /*) target=$CARGO_TARGET_DIR ;;
  *) target=$PWD/$CARGO_TARGET_DIR ;;
esac
program=${DHOW_BIN_DIR:-$target/release}/dhow-demo

[ "$(uname -s)" = Linux ] || fail "this needs Linux: an agent drives the Docker Engine of its own machine"
case $(uname -m) in
  x86_64 | aarch64) ;;
  *) fail "this machine is $(uname -m), and the demo's images are made for x86_64 and aarch64 only: run it on one of those" ;;
esac

builds_programs() { [ -z "${DHOW_BIN_DIR:-}" ]; }
builds_images() { [ -z "${DHOW_DEMO_APP:-}" ] || [ -z "${DHOW_DEMO_STAND_IN:-}" ]; }
builds() { builds_programs || builds_images; }

# Before anything is installed: without it all of that is in vain.
need_cargo() {
  builds || return 0
  local wanted found why
  wanted=$(sed -n 's/^rust-version = "\(.*\)"$/\1/p' Cargo.toml)
  # Rustup's cargo is there before any toolchain is.
  found=$(cargo --version 2>/dev/null | cut -d ' ' -f 2) || true
  [ -z "$found" ] || ! printf '%s\n' "$wanted" "$found" | sort -V -C || return 0
  why="no cargo, which builds dhow"
  [ -z "$found" ] || why="$(command -v cargo) is $found, which is too old to build dhow"
  fail "$why. Install Rust $wanted or newer, as you, not as root:
    curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y --profile minimal
    . \"\$HOME/.cargo/env\"
  (where rustup is there already: \`rustup update stable\`) and run \`make demo\` again"
}

# Every line: a program that must be there, and the package that brings it.
missing_packages() {
  while read -r program package; do
    command -v "$program" >/dev/null 2>&1 || echo "$package"
  done <<'LIST'
dockerd docker.io
docker-registry docker-registry
skopeo skopeo
setsid util-linux
LIST
  ! builds || command -v cc >/dev/null 2>&1 || echo build-essential
  # Where Docker comes in two packages, the client is in the second.
  if ! command -v docker >/dev/null 2>&1; then
    if apt-cache show docker-cli >/dev/null 2>&1; then echo docker-cli; else echo docker.io; fi
  fi
}

install_packages() {
  local packages log
  mapfile -t packages < <(missing_packages | sort -u)
  [ "${#packages[@]}" != 0 ] || return 0
  command -v apt-get >/dev/null || fail "no apt-get here; install by hand: ${packages[*]}"
  say "installing Debian packages: ${packages[*]}"
  log=$(mktemp)
  if ! as_root env DEBIAN_FRONTEND=noninteractive apt-get update -q > "$log" 2>&1 ||
    ! as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${packages[@]}" >> "$log" 2>&1; then
    tail -n 30 "$log" >&2
    rm -f "$log"
    fail "apt-get could not install: ${packages[*]}"
  fi
  rm -f "$log"
  if [[ " ${packages[*]} " == *" docker-registry "* ]]; then
    as_root systemctl disable --now docker-registry >/dev/null 2>&1 || true
  fi
  mapfile -t packages < <(missing_packages | sort -u)
  [ "${#packages[@]}" = 0 ] || fail "still missing after apt-get: ${packages[*]}"
}

engine_answers() { as_root docker version >/dev/null 2>&1; }

start_engine() {
  engine_answers && return
  say "starting the Docker Engine"
  as_root systemctl start docker >/dev/null 2>&1 || as_root service docker start >/dev/null 2>&1 || true
  for _ in $(seq 40); do
    engine_answers && return
    sleep 0.5
  done
  fail "no Docker Engine answers. Start it (\`systemctl start docker\`, or \`dockerd\` in another terminal) and run this again"
}

build() {
  if builds_programs; then
    say "building dhow (release; some minutes the first time)"
    cargo build --release -p dhow -p dhow-controller -p dhow-agent -p dhow-tests \
      --bin dhow --bin dhow-controller --bin dhow-agent --bin dhow-demo
    export DHOW_BIN_DIR=$target/release
  else
    [ -x "$program" ] || fail "DHOW_BIN_DIR is set, but there is no $program"
  fi
  if builds_images; then
    say "building the images of the sample app and of the stand-in for kamal-proxy"
    local images
    mapfile -t images < <("$program" images)
    [ "${#images[@]}" = 2 ] || fail "the images could not be made"
    export DHOW_DEMO_APP=${DHOW_DEMO_APP:-${images[0]}} DHOW_DEMO_STAND_IN=${DHOW_DEMO_STAND_IN:-${images[1]}}
  fi
}

case ${1:-} in
  up)
    need_cargo
    install_packages
    start_engine
    build
    as_root "$program" up
    ;;
  down)
    [ -x "$program" ] || fail "there is no $program: the demo was not run from here, or with another CARGO_TARGET_DIR or DHOW_BIN_DIR"
    as_root "$program" down
    ;;
  *) fail "usage: run.sh up|down" ;;
esac
