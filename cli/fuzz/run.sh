#!/bin/sh
# Fuzzes the readers of deploy.yml, templates and secrets files. Usage: run.sh [SECONDS], for all targets
# together; a target that has an input it cannot bear ends the run and leaves the input under
# cli/fuzz/artifacts.
#
# No nightly compiler is needed: the code is safe Rust, so there is nothing for a sanitizer to find,
# and coverage works with the stable one. cargo-fuzz comes with `make setup`.
set -eu

seconds=${1:-60}
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
root=$(CDPATH='' cd -- "$here/../.." && pwd)
target=${CARGO_TARGET_DIR:-$root/target}
work=$target/fuzz

command -v cargo-fuzz >/dev/null || { echo "cargo-fuzz is missing: run \`make setup\`" >&2; exit 1; }
# -s none and stable Rust: cargo-fuzz passes options that stable calls unstable.
export RUSTC_BOOTSTRAP=1 CARGO_TARGET_DIR="$work/build"

cd "$root/cli"
cargo fuzz build --fuzz-dir fuzz -s none

# Before the clock starts, so that a long build takes nothing from the fuzzing.
each=$((seconds / 3))
[ "$each" -ge 1 ] || each=1
for name in config template dotenv; do
  mkdir -p "$work/corpus/$name"
  set -- "$work/corpus/$name" "fuzz/seeds/$name"
  case $name in
    config) set -- "$@" src/command/docs src/command/init ;;
    dotenv) set -- "$@" tests/secrets ;;
  esac
  echo "fuzz: $name for $each s"
  cargo fuzz run --fuzz-dir fuzz -s none "$name" "$@" -- \
    -max_total_time="$each" -timeout=10 -rss_limit_mb=1024 -max_len=16384 -print_final_stats=1 \
    -verbosity=0
done
