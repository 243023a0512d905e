# Farm Tunnel. `make help` lists the targets.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

CARGO ?= cargo
CARGO_DENY_VERSION := 0.20.2
PROGRAMS := -p farm-agent -p farm-broker -p farm-connect -p farm-tests -p farm-powercut

.PHONY: help
help: ## Show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

# --- what a fresh machine needs -------------------------------------------

.PHONY: need-rust need-cc need-node tools tools-nats
need-rust:
	@command -v $(CARGO) >/dev/null || { echo "cargo is missing: install Rust 1.95 or newer (https://rustup.rs)"; exit 1; }

need-cc:
	@command -v cc >/dev/null || { echo "a C compiler is missing: apt-get install gcc"; exit 1; }

need-node:
	@command -v node >/dev/null && command -v npm >/dev/null \
		|| { echo "node or npm is missing: install Node.js 20.19 or newer (Debian 13: apt-get install nodejs npm; else https://nodejs.org)"; exit 1; }

# What the lock file says and nothing else; again when it changes.
app/node_modules/.package-lock.json: app/package-lock.json | need-node
	cd app && npm ci --no-audit --no-fund --loglevel=error
	@touch $@

# Debian starts it at once, on all addresses.
tools-nats:
	@command -v nats-server >/dev/null || { test "$$(id -u)" = 0 && command -v apt-get >/dev/null && apt-get install -y nats-server && { systemctl disable --now nats-server >/dev/null 2>&1 || true; }; } \
		|| echo "nats-server is missing, the test of several brokers will be skipped: apt-get install nats-server"

tools: need-rust need-cc tools-nats ## Install what the checks need (cargo-deny; as root also Debian's OpenSSH, nftables, coturn, pebble and NATS)
	@test -x /usr/sbin/sshd || { test "$$(id -u)" = 0 && command -v apt-get >/dev/null && apt-get install -y openssh-server openssh-client; } \
		|| echo "sshd is missing, its test will be skipped: apt-get install openssh-server openssh-client"
	@{ command -v ip && command -v nft && command -v conntrack; } >/dev/null \
		|| { test "$$(id -u)" = 0 && command -v apt-get >/dev/null && apt-get install -y iproute2 nftables conntrack; } \
		|| echo "ip, nft or conntrack is missing, the fault lab will be skipped: apt-get install iproute2 nftables conntrack"
	@command -v turnutils_uclient >/dev/null || { test "$$(id -u)" = 0 && command -v apt-get >/dev/null && apt-get install -y coturn && { systemctl disable --now coturn >/dev/null 2>&1 || true; }; } \
		|| echo "coturn is missing, its client's test of the relay will be skipped: apt-get install coturn"
	@command -v pebble >/dev/null || { test "$$(id -u)" = 0 && command -v apt-get >/dev/null && apt-get install -y pebble; } \
		|| echo "pebble is missing, the tests of ACME will be skipped: apt-get install pebble"
	@command -v chromium >/dev/null || test -n "$${CHROMIUM:-}" \
		|| { test "$$(id -u)" = 0 && command -v apt-get >/dev/null && apt-get install -y chromium; } \
		|| echo "chromium is missing, the app's browser tests will fail: apt-get install chromium, or name one in CHROMIUM"
	@$(CARGO) deny --version >/dev/null 2>&1 || $(CARGO) install --locked cargo-deny --version $(CARGO_DENY_VERSION)

# --- run it ----------------------------------------------------------------

.PHONY: build app demo lab bench card served sim powercut abuse load cluster cluster-quick cluster-test
build: need-rust need-cc ## Build every program, optimised, and the phone app where Node.js is
	$(CARGO) build --release --locked $(PROGRAMS)
	@if command -v npm >/dev/null; then $(MAKE) -s app; else \
		echo "npm is missing, the phone app is not built: install Node.js 20.19 or newer"; fi

app: app/dist/index.html ## Build the phone app into app/dist, which the broker serves

app/dist/index.html: app/node_modules/.package-lock.json app/build.mjs app/index.html $(shell find app/src app/public -type f 2>/dev/null)
	cd app && npm run --silent build

demo: build ## A farm, a broker and a phone on this machine; one key per fault
	target/release/demo $(DEMO)

lab: build ## Every fault, measured, in network namespaces (root; RUNS=20, LAB='--scenario NAME …')
	target/release/lab $(if $(RUNS),--runs $(RUNS)) $(LAB)

bench: card ## Measure throughput, latency, memory and wakeups; prints one table
	FARM_BIN_DIR=target/card target/release/bench $(BENCH)

# Measured is the agent as it goes on the card, but for this machine, with the
# broker as it goes on a server and the other programs beside it.
card: served
	PROGRAMS=farm-agent image/cross $(shell uname -m)-unknown-linux-gnu
	mkdir -p target/card
	ln -sf ../cross/$(shell uname -m)-unknown-linux-gnu/device/farm-agent ../server/farm-broker $(foreach p,farm-connect greenhouse,../release/$(p)) target/card/

# The broker as it goes on a server, with the other programs beside it. A broker
# alone: it gets no more of its libraries than it asks for.
served: build
	$(CARGO) build --profile server --locked -p farm-broker
	mkdir -p target/served
	ln -sf ../server/farm-broker $(foreach p,abuse farm-agent farm-connect greenhouse load,../release/$(p)) target/served/

powercut: build ## Power cuts, kills and failing disks against the store (POWERCUT='--cuts N …')
	target/release/powercut $(POWERCUT)

load: served ## Ten thousand devices at one broker, beside mosquitto and node ws (LOAD='--devices N')
	FARM_BIN_DIR=target/served target/release/load $(LOAD)

# Built apart: what is in target/server, or target/release, stays the broker
# without it. The short form takes what the other tests take, which is there.
cluster: served
	mkdir -p target/cluster
	$(CARGO) build --profile server --locked -p farm-broker --features cluster
	cp -f target/server/farm-broker target/cluster/
	$(CARGO) build --profile server --locked -p farm-broker
	ln -sf $(foreach p,farm-agent farm-connect greenhouse,../release/$(p)) target/cluster/

cluster-quick: build
	mkdir -p target/cluster
	$(CARGO) build --release --locked --workspace --bin farm-broker --features farm-broker/cluster
	cp -f target/release/farm-broker target/cluster/
	$(CARGO) build --release --locked --workspace --bin farm-broker
	ln -sf $(foreach p,farm-agent farm-connect greenhouse,../release/$(p)) target/cluster/

cluster-test: tools-nats $(if $(findstring --quick,$(CLUSTER)),cluster-quick,cluster) ## Three brokers over NATS JetStream, and any of them killed (CLUSTER='--quick', '--kills N --seed N')
	FARM_BIN_DIR=target/cluster target/release/cluster-test $(CLUSTER)

abuse: served ## Hostile traffic against the broker, with honest devices beside it (ABUSE='--only tls …')
	FARM_BIN_DIR=target/served target/release/abuse $(ABUSE)

sim: need-rust need-cc ## Simulate faults on a virtual network; SIM='--seeds 100000'
	$(CARGO) run --release --locked -p farm-tests --bin sim -- $(SIM)

# --- check it --------------------------------------------------------------

.PHONY: test check unit unit-app e2e browser lint deny audit
test: ## Formatting, lints, unit, property and end-to-end tests; one summary
	@./tests/run-all

lint: need-rust need-cc app/node_modules/.package-lock.json ## Formatting and lints
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings
	$(CARGO) clippy --workspace --lib --bins --locked --features farm-broker/cluster -- -D warnings
	cd app && npm run --silent lint

deny: tools ## Licences, banned crates and sources
	$(CARGO) fetch --locked # those of other systems too
	$(CARGO) deny --offline check licenses bans sources

audit: tools ## Known vulnerabilities (needs the internet)
	$(CARGO) deny check advisories

# Always the whole workspace, and tests chosen by name: chosen by package, each
# choice would build the dependencies again, with other features. The property
# tests and simulations are many times faster optimised. With the feature that
# is off by default, so that its tests run, too; end to end without it.
END_TO_END := $(patsubst tests/tests/%.rs,--test %,$(wildcard tests/tests/*.rs)) \
	$(patsubst tests/powercut/tests/%.rs,--test %,$(wildcard tests/powercut/tests/*.rs))
# A crate's tests lie in tests/NAME.rs, or in tests/NAME/main.rs.
CRATES := protocol tunnel agent agent/store broker connect
UNIT := --lib --bins \
	$(foreach crate,$(CRATES),$(patsubst $(crate)/tests/%.rs,--test %,$(wildcard $(crate)/tests/*.rs))) \
	$(foreach crate,$(CRATES),$(patsubst $(crate)/tests/%/main.rs,--test %,$(wildcard $(crate)/tests/*/main.rs)))

unit: need-rust need-cc ## Unit and property tests
	$(CARGO) test --release --locked --workspace --features farm-broker/cluster $(UNIT)
	@$(MAKE) -s unit-app

unit-app: app/node_modules/.package-lock.json ## The app's unit tests
	cd app && npm run --silent unit

e2e: build ## The real programs against each other
	$(CARGO) test --release --locked --workspace $(END_TO_END)

browser: build app ## The app in a real browser, against the real broker and agent (needs chromium)
	cd app && npm run --silent browser

# --- the box at the farm ------------------------------------------------------

CROSS_VERSION := 0.2.5

.PHONY: tools-cross cross image image-test image-same deb
tools-cross: need-rust # The `cross` whose reading of cross.toml is tested
	@target/tools/bin/cross --version >/dev/null 2>&1 \
		|| $(CARGO) install --locked cross --version $(CROSS_VERSION) --root target/tools

cross: need-rust need-cc ## Build agent and broker for the Pi (CROSS='aarch64-… armv7-…'; installs what is missing as root)
	image/cross $(CROSS)

image: need-rust need-cc ## Make the card's image, target/image/farm-tunnel.img (IMAGE_MIRROR: see image/fetch)
	PROGRAMS=farm-agent image/cross
	image/build

image-test: build ## Boot the card's image in qemu: pairing, faults, power cuts (root; IMAGE_TEST=--short)
	@test -e target/image/farm-tunnel.img || { echo "no image yet: make image"; exit 1; }
	@image/install qemu-system-aarch64=qemu-system-arm mcopy=mtools ip=iproute2 ssh-keygen=openssh-client
	target/release/image-test $(IMAGE_TEST)

image-same: ## Make the image again elsewhere, and compare: the same bytes
	image/build target/image/again/farm-tunnel.img
	cmp target/image/farm-tunnel.img target/image/again/farm-tunnel.img
	cmp target/image/farm-tunnel.img.xz target/image/again/farm-tunnel.img.xz

NATIVE = $(shell dpkg --print-architecture)

# A package for each architecture that is built: armhf where it was.
deb: cross served app ## Make Debian packages in target/deb; as root also install, upgrade and purge them
	rm -rf target/deb
	for arch in arm64=aarch64-unknown-linux-gnu armhf=armv7-unknown-linux-gnueabihf; do \
		for program in farm-agent farm-broker; do \
			built=target/cross/$${arch#*=}/$$(image/cross --profile $$program)/$$program; \
			if test -e $$built; then image/deb/build target/deb $$program $${arch%=*} $$built; fi; \
		done; \
	done
	for program in farm-agent farm-broker farm-connect; do \
		image/deb/build target/deb $$program $(NATIVE) target/served/$$program; \
	done
	@test "$$(id -u)" = 0 || echo "not root: the packages are not installed anywhere to be checked"
	test "$$(id -u)" != 0 || image/deb/check target/deb

.PHONY: clean
clean: ## Remove what was built
	$(CARGO) clean
	rm -rf app/dist app/node_modules
