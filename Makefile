# Everything a developer types. Each target can be run by itself; `make test` is what CI runs.

# Programs that `make setup` installs where the machine has none.
SETUP_DIR ?= $(CURDIR)/target/dhow-setup
export PATH := $(PATH):$(SETUP_DIR)/venv/bin
export DHOW_SETUP_DIR := $(SETUP_DIR)
# Fleets need root. What matters of the environment goes along: cargo's settings, DHOW_PROXY_IMAGE, DHOW_KEEP.
AS_ROOT := tests/setup/as-root.sh
# One case or a few: make test-fleet FILTER=kamal
FILTER ?=
# Cargo is always given the whole workspace: with `-p` each selection has its own set of features, and builds nearly all dependencies
# once more. So the fleet takes programs that were built with the tests.
PROGRAMS := $(or $(CARGO_TARGET_DIR),$(CURDIR)/target)/debug

.PHONY: help build dist programs setup fmt lint check unit fuzz sim kills conformance test-fleet deny advisories test demo demo-down bench fleet-clean

help: ## list these targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 16

demo: ## deploy an app twice on this machine, under load, and leave it running; installs what is missing
	@tests/demo/run.sh up

demo-down: ## remove every trace of the demo
	@tests/demo/run.sh down

build: ## build dhow, dhow-controller and dhow-agent into target/release
	cargo build --release -p dhow -p dhow-controller -p dhow-agent

# The target is named because build scripts and macros cannot be static.
TARGET := $(shell uname -m)-unknown-linux-gnu
dist: ## build the static agent for any Linux of this architecture: target/TARGET/dist/dhow-agent (some minutes)
	RUSTFLAGS="-C target-feature=+crt-static" cargo build --profile dist --target $(TARGET) -p dhow-agent

setup: ## install what the tests need (Debian packages, Kamal, cargo tools)
	@tests/setup/install.sh

fmt: ## check the format
	cargo fmt --all --check

lint: ## check the lints, warnings are errors
	cargo clippy --workspace --all-targets -- -D warnings
	cargo clippy --workspace --test fleet --test sim --test kills -- -D warnings

check: fmt lint ## the quick half of `test`

unit: ## run all tests that need neither root nor Docker
	INSTA_UPDATE=no cargo nextest run --workspace --no-tests=pass -E 'not binary(conformance) and not test(/::real::/)'
	cargo test --workspace --doc --quiet

sim: ## run 500 simulated networks full of faults; DHOW_SIM_SEED=N for one of them, DHOW_SIM_SEEDS=N for so many
	cargo test --workspace --test sim

kills: ## kill each program at each kind of point of a rollout, simulated; DHOW_SIM_KILLS=all for every point of every play
	cargo test --workspace --test kills

programs: ## build everything the tests run
	cargo build --workspace --all-targets

# Seconds of fuzzing, over all targets together.
FUZZ_SECONDS ?= 60

fuzz: ## feed the readers of configs and secrets with hostile input; FUZZ_SECONDS=3600 for longer
	cli/fuzz/run.sh $(FUZZ_SECONDS)

conformance: programs ## hold the kamal-proxy stand-in (or DHOW_PROXY_IMAGE) to the real one's behaviour
	$(AS_ROOT) cargo test --workspace --test conformance

test-fleet: export DHOW_BIN_DIR ?= $(PROGRAMS)
test-fleet: programs ## run the tests on real Docker hosts; FILTER=WORD for some of them
	$(AS_ROOT) cargo test --workspace --test fleet -- $(FILTER)
	$(if $(FILTER),,$(AS_ROOT) cargo test --workspace --lib -- ::real::)

deny: ## check licenses, banned crates and sources of all dependencies
	cargo fetch --locked # those of other platforms as well, which no build has needed
	cargo deny --offline check bans licenses sources

advisories: ## look for known vulnerabilities; needs the network
	@cargo deny check advisories || { \
	  status=$$?; \
	  if [ -d "$${CARGO_HOME:-$$HOME/.cargo}/advisory-dbs" ] && [ -n "$$(find "$${CARGO_HOME:-$$HOME/.cargo}/advisory-dbs" -name '*.md' -print -quit)" ]; then exit $$status; fi; \
	  echo "advisories: SKIPPED, because the RustSec database could not be fetched (see above)"; }

# In the order in which a mistake is found soonest; the fleet last, with its runner's closing lines.
test: setup fmt lint deny advisories unit fuzz sim kills conformance test-fleet ## everything, as CI runs it

# Some groups only: make bench GROUP="deploy idle". The agent is the static one that is shipped, or with AGENT=release that of `build`.
GROUP ?=
AGENT ?= dist
RELEASE := $(or $(CARGO_TARGET_DIR),$(CURDIR)/target)/release

bench: $(if $(filter dist,$(AGENT)),dist) ## print figures of what is shipped: `figure NAME VALUE UNIT`; GROUP=WORD for some of them
	@case '$(AGENT)' in dist|release) ;; *) echo "bench: AGENT is '$(AGENT)'; there are dist and release" >&2; exit 64 ;; esac
	cargo build --release -p dhow -p dhow-controller -p dhow-agent -p dhow-tests --bins
	@rm -rf $(RELEASE)/bench && mkdir $(RELEASE)/bench
	@ln -s $(addprefix ../,dhow dhow-controller dhow-agent dhow-load dhow-demo) $(RELEASE)/bench/
	@[ $(AGENT) = release ] || ln -sf ../../$(TARGET)/dist/dhow-agent $(RELEASE)/bench/dhow-agent
	$(AS_ROOT) env DHOW_BIN_DIR=$(RELEASE)/bench $(RELEASE)/dhow-bench $(GROUP)

fleet-clean: programs ## remove fleets that were kept or left behind
	$(AS_ROOT) $(PROGRAMS)/dhow-fleet clean
