# `make help` lists what people use. Everything runs on this machine; nothing but package registries is asked.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help demo test bench deps crds images test-images load-test-images test-texts cluster-tool cluster-up cluster-down install uninstall lint unit sim worlds mutants fuzz chart e2e soak

NODES ?= 3
SEEDS ?= 10000
SEED_START ?= 1
RUNS ?= 5
PROFILE ?= dev
# `local` is a cluster of our own; `current` is whatever the current kube context points to.
CLUSTER ?= local
REGISTRY ?=
# Where the two programs are, if they are compiled already.
BINARIES ?=
INPUT ?= /var/lib/hyperflow-e2e/linux-source.tar
TEXTS := /var/lib/hyperflow-e2e/linux-documentation

ROOT := $(CURDIR)
TOOL := $(ROOT)/target/cluster
STATE := $(or $(HYPERFLOW_CLUSTER_DIR),/var/lib/hyperflow-cluster)

ifeq ($(CLUSTER),local)
  export KUBECONFIG := $(STATE)/admin.kubeconfig
  export HYPERFLOW_CLUSTER_TOOL := $(TOOL)
  export PATH := $(STATE)/bin:$(PATH)
  USE_CLUSTER := cluster-up
  INSTALL := charts/install.sh --cluster $(TOOL)
  LOAD := e2e/images/build --cluster $(TOOL)
else
  USE_CLUSTER :=
  INSTALL := charts/install.sh $(if $(REGISTRY),--registry $(REGISTRY))
  LOAD := e2e/images/build $(if $(REGISTRY),--registry $(REGISTRY))
  export HYPERFLOW_TEST_IMAGES := $(REGISTRY)
endif

help: ## list these commands
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' Makefile
	@echo "  CLUSTER=current uses the current kube context instead of a cluster of our own (REGISTRY=… to push the images)."

demo: install $(INPUT) ## a real cluster copies a real file, loses a worker half-way, and proves the result
	@cargo build --quiet --locked --workspace --bins
	@target/*/debug/demo --input $(INPUT)

test: ## everything: format, lints, unit, simulator, CRD drift, charts, end to end on a real cluster
	@.ci/test

bench: PROFILE := release
bench: install load-test-images ## our figures beside the peers', as a table and in bench.jsonl (RUNS=5 ROWS=copy_file,small_shards)
	@target/*/release/bench --runs $(RUNS) $(if $(ROWS),--rows $(ROWS))

deps: ## install what is missing on Debian (build tools; the cluster tool installs its own)
	@.ci/deps

crds: ## write crds/ and the CRD chart from the Rust types
	@UPDATE_CRDS=1 cargo test --quiet --locked --workspace --lib the_committed_definition >/dev/null
	@charts/sync-crds.sh

images: deps ## build both images into target/images
	@charts/images.sh --profile $(PROFILE) $(if $(BINARIES),--binaries $(BINARIES))

test-images: deps ## build the images of programs that tests run into target/images
	@e2e/images/build

test-texts: $(TEXTS)

load-test-images: deps $(USE_CLUSTER)
	@$(LOAD)

cluster-tool: deps
	@mkdir -p target
	@cd e2e/cluster && CGO_ENABLED=0 go build -o $(TOOL) .

cluster-up: cluster-tool ## start the local cluster, or repair it (NODES=3)
	@$(TOOL) up --nodes $(NODES)

cluster-down: cluster-tool ## stop the local cluster and remove what it left
	@$(TOOL) down

install: $(USE_CLUSTER) images ## build, and install the charts with Helm
	@$(INSTALL)

uninstall: ## remove the charts; ShardJobs and their definition stay
	@helm uninstall --namespace hyperflow-system hyperflow

lint: ## format and lints
	@cargo fmt --all --check
	@cargo clippy --quiet --locked --workspace --all-targets -- -D warnings

unit: ## unit tests of all crates
	@cargo test --locked --workspace --lib --bins --test properties --test mutants

sim: ## drive both ends of the protocol against each other (SEEDS=10000 SEED_START=1)
	@SEEDS=$(SEEDS) SEED_START=$(SEED_START) cargo test --locked --workspace --test sim -- --nocapture

worlds: ## every state of small worlds of the core (WORLDS=large for larger ones)
	@cargo test --locked --workspace --test worlds -- --nocapture

mutants: ## break the core in many ways, and see that the simulator catches each (SEEDS=10000)
	@MUTANTS_DIR=$(ROOT)/target/mutants cargo test --locked --quiet --workspace --test mutants
	@# A wrapper that does nothing keeps the compiled copy of the core apart from the core: their paths look the same to cargo.
	@cd target/mutants && SEEDS=$(SEEDS) CARGO_TARGET_DIR=$(ROOT)/target RUSTC_WORKSPACE_WRAPPER=env \
	  cargo test --offline --quiet --workspace --test sim hunt -- --nocapture

fuzz: ## fuzz every parser of foreign bytes, each for so long (SECONDS=20)
	@operator/fuzz/run.sh $(or $(SECONDS),20)

chart: cluster-tool ## lint, render and check the charts, here and with kubeconform and kube-score
	@$(TOOL) build
	@charts/test.sh

e2e: install load-test-images $(TEXTS) ## the promises, on the real cluster
	@cargo test --locked --workspace --test promises

soak: install load-test-images $(TEXTS) ## the promises in their long form, 200,000 seeds, and larger worlds
	@HYPERFLOW_SOAK=1 cargo test --locked --workspace --test promises
	@$(MAKE) --no-print-directory sim SEEDS=200000
	@WORLDS=large $(MAKE) --no-print-directory worlds

$(INPUT):
	@.ci/deps linux-source-6.1 xz-utils
	@mkdir -p $(@D)
	@echo "unpacking the kernel source to $@"
	@xz --decompress --stdout /usr/src/linux-source-6.1.tar.xz > $@.part && sync $@.part && mv $@.part $@

$(TEXTS):
	@.ci/deps linux-source-6.1 xz-utils
	@mkdir -p $@.part
	@echo "unpacking a part of the kernel's documentation to $@"
	@tar --extract --xz --file /usr/src/linux-source-6.1.tar.xz --directory $@.part --strip-components 2 \
	  linux-source-6.1/Documentation/admin-guide linux-source-6.1/Documentation/filesystems \
	  linux-source-6.1/Documentation/process
	@mv $@.part $@
