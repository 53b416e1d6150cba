#!/usr/bin/env bash
# `make demo` and `make demo-down`: installs what is missing on Debian or Ubuntu, builds, and runs the demo as root.
#
# usage: run.sh up|down
# DHOW_BIN_DIR=DIR        dhow, dhow-agent, dhow-controller and dhow-demo are there; they are not built
# DHOW_PROXY_IMAGE=FILE   a docker-archive with the kamal-proxy to use, instead of pulling it
set -euo pipefail
cd "$(dirname "$0")/../.."

say() { printf 'demo: %s\n' "$*"; }
fail() { printf 'demo: %s\n' "$*" >&2; exit 1; }
as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo -E env "PATH=$PATH" "$@"; fi; }

# Debian keeps some of these in /usr/sbin, which is not on every user's PATH; cargo in the user's home.
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin:$HOME/.cargo/bin
case ${CARGO_TARGET_DIR:=target} in
  /*) target=$CARGO_TARGET_DIR ;;
  *) target=$PWD/$CARGO_TARGET_DIR ;;
esac
program=$target/release/dhow-demo

[ "$(uname -s)" = Linux ] || fail "this needs Linux: an agent drives the Docker Engine of its own machine"

need_cargo() {
  command -v cargo >/dev/null && return
  fail "no cargo, which builds dhow. Install Rust 1.95 or newer, as you, not as root:
    curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y --profile minimal
    . \"\$HOME/.cargo/env\"
  and run \`make demo\` again"
}

# Every line: a program that must be there, and the package that brings it.
missing_packages() {
  while read -r program package; do
    command -v "$program" >/dev/null 2>&1 || echo "$package"
  done <<'LIST'
dockerd docker.io
docker-registry docker-registry
skopeo skopeo
cc build-essential
setsid util-linux
LIST
  # Where Docker comes in two packages, the client is in the second.
  if ! command -v docker >/dev/null 2>&1; then
    if apt-cache show docker-cli >/dev/null 2>&1; then echo docker-cli; else echo docker.io; fi
  fi
}

install_packages() {
  local packages log
  packages=$(missing_packages | sort -u | tr '\n' ' ')
  [ -n "${packages// /}" ] || return 0
  command -v apt-get >/dev/null || fail "no apt-get here; install by hand: $packages"
  say "installing Debian packages: $packages"
  log=$(mktemp)
  as_root env DEBIAN_FRONTEND=noninteractive apt-get update -q > "$log" 2>&1 &&
    # shellcheck disable=SC2086
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $packages >> "$log" 2>&1 || {
      tail -n 30 "$log" >&2
      fail "apt-get could not install: $packages"
    }
  rm -f "$log"
  if [[ $packages == *docker-registry* ]]; then
    as_root systemctl disable --now docker-registry >/dev/null 2>&1 || true
  fi
  packages=$(missing_packages | sort -u | tr '\n' ' ')
  [ -z "${packages// /}" ] || fail "still missing after apt-get: $packages"
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
  if [ -n "${DHOW_BIN_DIR:-}" ]; then
    program=$DHOW_BIN_DIR/dhow-demo
    [ -x "$program" ] || fail "DHOW_BIN_DIR is set, but there is no $program"
  else
    say "building dhow (release; some minutes the first time)"
    cargo build --release -p dhow -p dhow-controller -p dhow-agent -p dhow-tests \
      --bin dhow --bin dhow-controller --bin dhow-agent --bin dhow-demo
    export DHOW_BIN_DIR=$target/release
  fi
  say "building the images of the sample app and of the stand-in for kamal-proxy"
  local images
  mapfile -t images < <("$program" images)
  [ "${#images[@]}" = 2 ] || fail "the images could not be made"
  export DHOW_DEMO_APP=${images[0]} DHOW_DEMO_STAND_IN=${images[1]}
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
    [ -x "$program" ] || { [ -z "${DHOW_BIN_DIR:-}" ] || program=$DHOW_BIN_DIR/dhow-demo; }
    [ -x "$program" ] || fail "there is no $program: the demo was not run from here, or with another CARGO_TARGET_DIR or DHOW_BIN_DIR"
    as_root "$program" down
    ;;
  *) fail "usage: run.sh up|down" ;;
esac
