# `make help` lists what there is. Everything that is installed goes into .venv/, which git ignores, or
# comes from Debian.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.NOTPARALLEL:

VENV ?= .venv
# An environment with PyTorch that is there already saves its gigabytes: make test TORCH_VENV=…
TORCH_VENV ?= .venv/torch
CARGO_DENY_VERSION := 0.20.2
CARGO_DEB_VERSION := 3.8.0

export CALLOSITY_DATA ?= $(abspath ../shared/data/right_whales)
export CARGO_TERM_COLOR ?= auto
# Where .ci/native puts what Debian could not install.
export PATH := $(abspath .venv/native/bin):$(PATH)
# Where it says that libclang is; that of PyPI lacks the compiler's own headers.
export LIBCLANG_PATH := $(abspath .venv/native/libclang)
export BINDGEN_EXTRA_CLANG_ARGS = $(shell [ ! -e .venv/native/clang ] || echo "-I$$(cc -print-file-name=include)")

venv := $(abspath $(VENV))
torch := $(abspath $(TORCH_VENV))
arch := $(shell uname -m)
built_deny := .venv/cargo-deny-$(CARGO_DENY_VERSION)/bin/cargo-deny
# One that is there already saves minutes: make test CARGO_DENY=cargo-deny
CARGO_DENY ?= $(built_deny)
# What links libtorch asks the first python3 for it, and finds its libraries at run time here.
with_torch = export PATH="$(torch)/bin:$$PATH" LIBTORCH_USE_PYTORCH=1; \
	torch_lib=$$(echo $(torch)/lib/python3*/site-packages/torch/lib); \
	export LD_LIBRARY_PATH="$$torch_lib$${LD_LIBRARY_PATH:+:$$LD_LIBRARY_PATH}"
say = @printf '== %(%H:%M:%S)T %s\n' -1

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-24s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo "  DEMO='--count 10'   arguments of callosity demo;  BENCH='--rounds 5'   of benches/compare.py"
	@echo "  CALLOSITY_DATA      folder of real photographs [$(CALLOSITY_DATA)]"

# --- flying -------------------------------------------------------------------------------------

.PHONY: demo
demo: features = $$([ ! -e $(VENV)/.has-onnxruntime ] || echo --no-default-features)
demo: onnxruntime build ## fly a virtual survey on this machine and show what arrives over MQTT
	target/release/callosity demo $(DEMO)

.PHONY: build
build: native ## build the program that flies
	$(say) "building (the first time takes some minutes)"
	@cargo build --release --locked --bin callosity $(features)

# libjpeg-turbo is built from source: cmake, and on x86-64 nasm for its vector code.
.PHONY: native
native:
	@.ci/native $(if $(filter x86_64,$(arch)),nasm)

.PHONY: onnxruntime
onnxruntime:
	@[ -e $(VENV)/.has-onnxruntime ] || { .ci/python $(VENV) .ci/onnxruntime.txt && touch $(VENV)/.has-onnxruntime; } \
		|| echo "== no ONNX Runtime: going on with the built-in engine, which is slower and takes longer to build"

# --- packaging ----------------------------------------------------------------------------------

built_deb := .venv/cargo-deb-$(CARGO_DEB_VERSION)/bin/cargo-deb
# One that is there already saves minutes: make package CARGO_DEB=cargo-deb
CARGO_DEB ?= $(built_deb)
# Two packages of one commit are the same: they are packed when it was made.
of_commit = export SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct 2>/dev/null || stat -c %Y Cargo.toml)

$(built_deb):
	$(say) "building cargo-deb $(CARGO_DEB_VERSION)"
	@CARGO_TARGET_DIR=target/cargo-deb CARGO_PROFILE_RELEASE_OPT_LEVEL=1 CARGO_PROFILE_RELEASE_LTO=off \
		CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 CARGO_PROFILE_RELEASE_DEBUG=0 \
		cargo install --quiet --locked --version $(CARGO_DEB_VERSION) \
		--root .venv/cargo-deb-$(CARGO_DEB_VERSION) cargo-deb
	@rm -rf target/cargo-deb

.PHONY: package
package: native $(filter $(built_deb),$(CARGO_DEB)) ## build a Debian package for this machine's processor: target/debian/
	$(say) "building the package"
	@cargo build --release --locked --bin callosity
	@rm -rf target/manual && target/release/callosity manual target/manual
	@$(of_commit); $(CARGO_DEB) --no-build --locked --dbgsym

.PHONY: package-arm64
package-arm64: $(filter $(built_deb),$(CARGO_DEB)) ## build the package for a Jetson on x86-64: see cross/
	$(say) "building the package for arm64"
	@CARGO_DEB=$(CARGO_DEB) cross/package

.PHONY: test-arm64
test-arm64: package-arm64 build ## the arm64 program names the same whales as this machine's, under qemu-user
	@cross/test

.PHONY: test-package
test-package: package ## check the package: lintian, install, upgrade, remove, purge, the same bytes twice (needs root)
	@packaging/check --twice

# --- checking -----------------------------------------------------------------------------------

.PHONY: test
test: tools torch fmt deny check-page test-callosity lint doc test-training ## install what tests need, then check and test everything
	$(say) "all is well"

.PHONY: tools
tools: native
	@.ci/debian mosquitto:mosquitto openssl:openssl gpsd:gpsd gpsfake:gpsd-clients \
		'/usr/lib/postgresql/*/bin/initdb:postgresql'
	@.ci/python $(VENV) tests/requirements.txt
	@touch $(VENV)/.has-onnxruntime

.PHONY: torch
torch:
	@.ci/python $(TORCH_VENV) training/requirements.txt

.PHONY: fmt
fmt: ## check formatting
	$(say) "formatting"
	@cargo fmt --all --check

$(built_deny):
	$(say) "building cargo-deny $(CARGO_DENY_VERSION)"
	@CARGO_TARGET_DIR=target/cargo-deny CARGO_PROFILE_RELEASE_OPT_LEVEL=1 CARGO_PROFILE_RELEASE_LTO=off \
		CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 CARGO_PROFILE_RELEASE_DEBUG=0 \
		cargo install --quiet --locked --no-default-features --version $(CARGO_DENY_VERSION) \
		--root .venv/cargo-deny-$(CARGO_DENY_VERSION) cargo-deny
	@rm -rf target/cargo-deny

.PHONY: deny
deny: $(filter $(built_deny),$(CARGO_DENY)) ## check licences, bans and sources of dependencies
	$(say) "licences, bans, sources"
	@$(CARGO_DENY) --log-level error check --hide-inclusion-graph bans licenses sources

# Apart from `make test`: it asks the RustSec database, so it needs the network, and fails by what others find out.
.PHONY: advisories
advisories: $(filter $(built_deny),$(CARGO_DENY)) ## check dependencies against the RustSec advisories (needs the network)
	$(say) "advisories"
	@$(CARGO_DENY) --log-level error check --hide-inclusion-graph advisories

.PHONY: lint
lint: native torch ## check lints of both crates
	$(say) "lints"
	@$(with_torch); cargo clippy --quiet --locked --workspace --all-targets --release -- -D warnings

.PHONY: doc
doc: native torch ## check and build the documentation
	$(say) "documentation"
	@$(with_torch); RUSTDOCFLAGS=-Dwarnings cargo doc --quiet --locked --release --workspace --no-deps

.PHONY: photographs
photographs:
	@if [ -e "$(CALLOSITY_DATA)/heads.csv" ]; then echo "== real photographs: $(CALLOSITY_DATA)"; \
		else echo "== SKIPPING tests on real photographs: none in $(CALLOSITY_DATA) (CALLOSITY_DATA)"; fi

.PHONY: test-cameras
test-cameras: native ## test cameras on the kernel's own drivers, in a virtual machine: some minutes
	$(say) "tests of cameras in a virtual machine"
	@.ci/debian qemu-system-x86_64:qemu-system-x86 cpio:cpio modprobe:kmod xz:xz-utils
	@program=$$(cargo test --locked --release --test camera_drivers --no-run --message-format json \
		| sed -n 's/.*"executable":"\([^"]*camera_drivers-[^"]*\)".*/\1/p' | tail -1); \
	tests/vm/run "$$program" $(VM_TESTS)

.PHONY: test-service
test-service: package ## test the package and its service under systemd, in a virtual machine (needs root): some minutes
	$(say) "tests of the service in a virtual machine"
	@.ci/debian qemu-system-x86_64:qemu-system-x86 cpio:cpio modprobe:kmod xz:xz-utils debootstrap:debootstrap mke2fs:e2fsprogs minisign:minisign
	@tests/vm/service/run "$$(ls -t target/debian/callosity_*_$$(dpkg --print-architecture).deb | head -1)"

page := src/ground/page
npm_ci = npm ci --prefix $(page) --silent --no-audit --no-fund

.PHONY: page
page: ## build the ground station's page anew (needs Node); what is built is committed
	@$(npm_ci) && npm run --prefix $(page) --silent build

.PHONY: check-page
check-page: ## check that building the page gives the bytes that are committed
	$(say) "the ground station's page"
	@if ! command -v npm >/dev/null; then echo "== SKIPPING it: no npm"; exit 0; fi; \
	$(npm_ci); built=$$(mktemp -d); trap 'rm -rf "$$built"' EXIT; \
	npm run --prefix $(page) --silent build -- --logLevel error --outDir "$$built" && diff -r $(page)/dist "$$built" \
		|| { echo "what is committed is not what is built: make page"; exit 1; }

.PHONY: test-page
test-page: tools ## test the pages of box and ground station in Chromium; pictures go to CALLOSITY_PAGE_PICTURES
	$(say) "tests of the pages in Chromium"
	@.ci/debian chromium:chromium node:nodejs npm:npm
	@$(npm_ci)
	@env -u LIBTORCH -u LIBTORCH_USE_PYTORCH PATH="$$PATH:/usr/sbin" cargo test --quiet --locked --release --workspace \
		--exclude callosity-training --test ground --test box -- --ignored _page_

# Without libtorch in sight: the program that flies must not need it.
.PHONY: test-callosity
test-callosity: tools photographs ## test the program that flies, without libtorch
	$(say) "tests of callosity, without libtorch"
	@env -u LIBTORCH -u LIBTORCH_USE_PYTORCH CALLOSITY_PYTHON="$(venv)/bin/python" \
		PATH="$$PATH:/usr/sbin" cargo test --quiet --locked --release --workspace --exclude callosity-training

# Targets are chosen by name and the whole workspace is selected, so that dependencies have the features
# that lints and documentation build them with; the root's integration tests have run already.
.PHONY: test-training
test-training: tools torch photographs ## test the training crate
	$(say) "tests of callosity-training"
	@$(with_torch); export CALLOSITY_PYTHON="$(venv)/bin/python" PATH="$$PATH:/usr/sbin"; \
	tests=$$(for file in training/tests/*.rs; do echo --test "$$(basename "$$file" .rs)"; done); \
	cargo test --quiet --locked --release --workspace --lib --bins $$tests && \
	cargo test --quiet --locked --release --workspace --doc

# --- measuring ----------------------------------------------------------------------------------

.PHONY: bench
bench: tools torch ## measure speed and memory beside Python and PyTorch; writes benches/RESULTS.md
	$(say) "building"
	@$(with_torch); cargo build --quiet --locked --release --workspace --bins
	@$(with_torch); stages=$$(cargo bench --locked --workspace --bench stages --no-run --message-format json \
		| sed -n 's/.*"executable":"\([^"]*stages-[^"]*\)".*/\1/p' | tail -1); \
	$(venv)/bin/python benches/compare.py --stages "$$stages" --torch-python $(torch)/bin/python \
		--recipes training/recipes/oxfordnet-19.toml training/recipes/resnet-18-fine.toml $(BENCH)

# Flights that nothing was fitted on; some minutes on two cores, seconds when it is done again.
.PHONY: passes
passes: onnxruntime native ## measure names frame by frame and pass by pass on virtual flights; writes benches/PASSES.md
	@FLIGHT_SEEDS=201,202 FLIGHT_MINUTES=6 FLIGHT_RESULTS=$(abspath benches/PASSES.md) \
		cargo test --release --locked --test frame_evidence -- --ignored --nocapture virtual_flights

# --- training -----------------------------------------------------------------------------------

.PHONY: trainer
trainer: native torch ## build callosity-train (run it with `make train ARGS='…'`)
	@$(with_torch); cargo build --locked --release --workspace --bins

.PHONY: train
train: trainer ## run callosity-train with ARGS, such as ARGS='train training/recipes/finder.toml'
	@$(with_torch); target/release/callosity-train $(ARGS)

.PHONY: train-right-whales
train-right-whales: trainer ## train models/right-whales again from the real photographs
	@$(with_torch); training/right-whales.sh "$(CALLOSITY_DATA)"

.PHONY: train-right-whales-long
train-right-whales-long: trainer ## train one from random weights on long schedules, for a GPU or a fast processor
	@$(with_torch); training/right-whales-long.sh "$(CALLOSITY_DATA)"

.PHONY: train-virtual-survey
train-virtual-survey: trainer ## train models/virtual-survey again from drawn whales
	@$(with_torch); training/virtual-survey.sh

.PHONY: clean
clean: ## remove what was built; .venv and runs stay
	cargo clean
