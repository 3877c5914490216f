# What can be done here. `make` alone lists it, from the comments behind the targets.

# Arguments for `make run` and `make upgrade-demo`, e.g. ARGS="--listen 0.0.0.0:80", and for `make handover`.
ARGS ?=
# How long `make fuzz` runs each target.
SECONDS ?= 600
# In a shell's environment it would be the time since its start.
unexport SECONDS

.DEFAULT_GOAL := help
.PHONY: help run upgrade-demo build test lint autobahn test-clients fuzz bench soak handover ci clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 22

run: ## build the server and serve on 127.0.0.1:8000 (ARGS="--workers 2 …")
	@cargo run --release --bin steadfast -- serve $(ARGS)

upgrade-demo: ## replace the server of `make run` with a new build, under its clients (ARGS="--listen …" as there)
	cargo run --release --bin steadfast -- upgrade $(ARGS)

build: ## build the release binary, target/release/steadfast
	cargo build --release --bin steadfast

test: ## run the tests: units, integration, documentation, tidiness
	cargo test
	cargo test -p steadfast-bench --lib --test checker
	cargo test --all-features --test upgrades

lint: ## formatting, clippy and rustdoc, without a warning
	cargo fetch --locked --quiet
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	cargo clippy --all-features --lib --bins --test upgrades -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps

autobahn: ## run all 517 cases of the Autobahn suite, in both roles (ROLE=server for one)
	cargo build --release --bin steadfast --example autobahn_client
	autobahn/install.sh
	autobahn/run.sh $(ROLE)

test-clients: ## run Python, Node, tungstenite and Chromium against the server
	tests/clients/run.sh

fuzz: ## run each fuzz target for SECONDS=600
	fuzz/run.sh $(SECONDS)

bench: ## measure the server beside others; see benches/README.md
	cargo run --release -p steadfast-bench -- all

soak: ## attack the server, and print what it costs
	cargo run --release -p steadfast-bench --bin soak

handover: ## replace the server under load (ARGS="basic churn --upgrades 5")
	cargo build --release --bin steadfast
	cargo run --release -p steadfast-bench --bin handover -- $(ARGS)

ci: ## what .ci/run does: tests, lint, Autobahn, real clients, some fuzzing
	bash .ci/run

clean: ## remove what was built; not what the suites have installed
	cargo clean
	rm -rf autobahn/reports tests/clients/out
