# setup         what building and testing need and this machine lacks
# build         dist/mirrord: one static executable; dist/libmirrord_layer.so, which it carries
# check         format, lints and unit tests; no engine, about a minute
# test          everything that this machine can run, against a real Docker Engine
# test-compose  services of compose projects, the example among them
# test-cluster  everything that takes a Kubernetes cluster, on the one of KUBECONFIG
# bench         figures against a direct connection and against two bare relays
# soak          two sessions under load for MINUTES, 60 by default, and whether anything grows
# fuzz          each decoder with RUNS inputs that are made up, 10,000,000 by default
# demo          the product in a minute, narrated
# clean         what was built

SHELL := /bin/bash
export PATH := $(HOME)/.cargo/bin:/usr/local/go/bin:$(PATH)
export RUST_TEST_THREADS ?= 3
export RUST_BACKTRACE ?= 0

target := $(or $(CARGO_TARGET_DIR),target)
out := $(target)/x86_64-unknown-linux-gnu/dist

.PHONY: setup build build-tests check test test-compose test-cluster bench bench-cluster soak fuzz demo clean

setup:
	tests/setup

build:
	cargo build --profile dist -p mirrord
	tests/deliver $(out)/mirrord $(out)/libmirrord_layer.so dist

build-tests:
	cargo build --profile dist -p mirrord-tests --bins

check:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	cargo clippy -p mirrord-tests --test cluster -- -D warnings
	tests/old-glibc
	cargo test --workspace --exclude mirrord-tests
	cargo test -p mirrord-tests --lib --test edges

test:
	tests/setup
	@$(MAKE) --no-print-directory build build-tests
	tests/engine
	tests/images probe go musl debian postgres web
	tests/layer-apps
	cargo test -p mirrord-tests --no-fail-fast

test-compose: build build-tests
	tests/engine
	tests/images probe debian postgres web
	tests/layer-apps
	cargo test -p mirrord-tests --test compose --test devcontainers --no-fail-fast
	@if [ -n "$$KUBECONFIG" ]; then tests/cluster-ready && tests/cluster-images && \
		cargo test -p mirrord-tests --test cluster -- compose::; fi

test-cluster: build build-tests
	tests/cluster-ready
	tests/engine
	tests/images
	tests/cluster-images
	cargo test -p mirrord-tests --test cluster --no-fail-fast

bench: build build-tests
	tests/engine
	tests/images probe debian
	tests/layer-apps
	$(out)/bench
	@if [ -n "$$KUBECONFIG" ]; then $(MAKE) --no-print-directory bench-cluster; fi

bench-cluster: build build-tests
	tests/cluster-ready
	tests/engine
	tests/images probe
	tests/cluster-images probe
	$(out)/bench cluster

soak: build build-tests
	tests/engine
	tests/images probe
	$(out)/bench soak $(or $(MINUTES),60)

fuzz:
	tests/fuzz/run $(or $(RUNS),10000000)

demo:
	tests/setup demo
	@$(MAKE) --no-print-directory build build-tests
	tests/engine
	tests/images probe
	tests/demo

clean:
	cargo clean
	rm -rf dist
