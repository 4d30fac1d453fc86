# The workshop. `make` lists what it can do. It needs Go, make, git and, for the
# race detector, a C compiler; every other tool is built by Go from the versions
# that tools/go.mod, tools/buf/go.mod and tools/lint/go.mod pin.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules --no-print-directory

GO         ?= go
PKGS       ?= ./...
TESTFLAGS  ?=
BENCH      ?= .
BENCHTIME  ?= 200ms
BENCHCOUNT ?= 6
FUZZTIME   ?= 20s
ARGS       ?=
BROKER     ?= kafka

# The tools work in any directory of the tree. buf and golangci-lint have modules
# of their own because their requirements differ from everybody else's.
BUF        := $(GO) tool -modfile=$(CURDIR)/tools/buf/go.mod buf
LINT       := $(GO) tool -modfile=$(CURDIR)/tools/lint/go.mod golangci-lint
GOTESTSUM  := $(GO) tool -modfile=$(CURDIR)/tools/go.mod gotestsum
BENCHSTAT  := $(GO) tool -modfile=$(CURDIR)/tools/go.mod benchstat

# The module of the library, and the parts that are modules of their own: each broker,
# otel, ops, and examples that need one of them.
MODULES    := . $(patsubst ./%/go.mod,%,$(shell find . -mindepth 2 -name go.mod -not -path './tools/*' -not -path './.*' -not -path '*/node_modules/*' 2>/dev/null | sort))
ifneq ($(PKGS),./...)
MODULES    := . # packages named one by one are packages of the library
endif
TOOLMODS   := tools tools/buf tools/lint
SCRIPTS    := .ci/run tools/testall tools/benchall tools/fuzzall tools/generatecheck tools/apicheck proto/model/check
OUT        := out

# go.mod asks for the lowest versions that the library works with, and `make test` tests those.
# This file has newer ones, and so does the next Go. `go get -u -t -modfile=tools/newest.mod ./...` brings it up to date.
NEWEST     := -modfile=$(CURDIR)/tools/newest.mod
NEWEST_GO  := go1.27.3

export GO MODULES

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo 'Variables: PKGS=./admit/... TESTFLAGS="-run Gate -count=1" BENCH=Acquire BENCHTIME=1s BENCHCOUNT=10'
	@echo '           FUZZTIME=1m (or 100000x) ARGS="-duration 2m" (for demo)'

# One run over all packages, and so one line that counts them all.
each-test = $(GOTESTSUM) --format pkgname --format-hide-empty-pkg --raw-command -- tools/testall

.PHONY: test
test: ## Test the library, with the lowest versions that it asks for
	@MODULES=. $(each-test) -timeout 10m $(TESTFLAGS) $(PKGS)

.PHONY: test-modules
test-modules: ## Test the modules beside it: brokers, otel, ops, examples; with real servers where they are installed
	@MODULES='$(filter-out .,$(MODULES))' $(each-test) -timeout 10m $(TESTFLAGS) ./...

.PHONY: test-newest
test-newest: ## Test what depends on Go and gRPC with newer versions of both
	@GOTOOLCHAIN=$(NEWEST_GO) $(GO) test $(NEWEST) -timeout 10m $(TESTFLAGS) ./admit ./interceptors/...

.PHONY: race
race: ## Test the library with the race detector, in random order, with newer versions of its dependencies
	@MODULES=. $(each-test) $(NEWEST) -race -shuffle=on -timeout 15m $(TESTFLAGS) $(PKGS)

.PHONY: cover
cover: ## Test the library and show which lines were reached (out/cover.html)
	@mkdir -p $(OUT)
	@$(GO) test -count=1 -coverprofile=$(OUT)/cover.out -coverpkg="$$($(GO) list ./... | grep -v -e /examples/ -e /internal/ | paste -sd, -)" ./...
	@$(GO) tool cover -html=$(OUT)/cover.out -o $(OUT)/cover.html
	@$(GO) tool cover -func=$(OUT)/cover.out | tail -n 1

.PHONY: lint lint-go lint-mod lint-proto lint-sh lint-size
lint: lint-go lint-mod lint-proto lint-sh lint-size ## Run every check that is not a test (-k: do not stop at the first that fails)

lint-go:
	@for m in $(MODULES); do echo "lint: golangci-lint, go vet in $$m"; \
		(cd $$m && $(LINT) run --config=$(CURDIR)/.golangci.yml ./... && $(GO) vet ./...); done

lint-mod:
	@for m in $(MODULES) $(TOOLMODS); do echo "lint: go mod tidy -diff in $$m"; (cd $$m && $(GO) mod tidy -diff); done
	@echo 'lint: go mod tidy -diff of tools/newest.mod'; $(GO) mod tidy $(NEWEST) -diff

lint-proto:
	@echo 'lint: buf lint, buf format'
	@$(BUF) lint
	@$(BUF) format --diff --exit-code

lint-sh:
	@if command -v shellcheck >/dev/null; then echo 'lint: shellcheck'; shellcheck $(SCRIPTS); \
		else echo 'lint: shell scripts were not checked, since shellcheck is not installed'; fi

lint-size: # a program that was committed once stays in the history
	@echo 'lint: no file above 512 KiB'
	@large="$$(git ls-tree -r -l HEAD | awk '$$4 > 524288 {print $$5}')"; \
		if [ -n "$$large" ]; then echo "lint: files above 512 KiB: $$large"; exit 1; fi

.PHONY: fmt
fmt: ## Format Go and proto files
	@for m in $(MODULES); do (cd $$m && $(LINT) fmt --config=$(CURDIR)/.golangci.yml ./...); done
	@$(BUF) format --write

.PHONY: bench
bench: ## Run every benchmark BENCHCOUNT times, interleaved, and summarise (out/bench.txt)
	@mkdir -p $(OUT)
	@BENCH='$(BENCH)' BENCHTIME='$(BENCHTIME)' BENCHCOUNT='$(BENCHCOUNT)' tools/benchall $(PKGS) | tee $(OUT)/bench.txt
	@if grep -q '^Benchmark' $(OUT)/bench.txt; then $(BENCHSTAT) $(OUT)/bench.txt; else echo 'bench: there are no benchmarks'; fi

.PHONY: measure
measure: ## Measure what docs/measurements.md says, and write it there (a quiet machine, 15 minutes)
	@$(GO) run ./examples/internal/measure -write docs/measurements.md $(ARGS)

.PHONY: fuzz
fuzz: ## Fuzz every target for FUZZTIME
	@FUZZTIME='$(FUZZTIME)' tools/fuzzall $(PKGS)

.PHONY: generate
generate: ## Generate Go code from the proto files
	@$(BUF) generate

.PHONY: generate-check
generate-check: ## Fail where committed generated code is not what the proto files say
	@BUF='$(BUF)' tools/generatecheck

.PHONY: breaking
breaking: ## Fail where the wire contract breaks with what is frozen
	@$(BUF) breaking proto --against proto/frozen.binpb

.PHONY: freeze
freeze: breaking ## Freeze what was added to the wire contract
	@$(BUF) build proto --exclude-source-info -o proto/frozen.binpb

.PHONY: apicheck
apicheck: ## Fail where the API breaks with the last release and CHANGELOG.md does not say so
	@tools/apicheck

.PHONY: model
model: ## Search all states of the credit protocol's model (needs spin and a C compiler)
	@proto/model/check

.PHONY: conformance
conformance: ## Run the conformance suite against weir itself (ARGS="-target host:port" for another)
	@$(GO) run ./conformance $(ARGS)

.PHONY: node
node: ## Install what tests need from npm: a client in JavaScript, and a server of queues
	@for d in conformance/node broker/sqs/node; do (cd $$d && npm ci --no-audit --no-fund --ignore-scripts); done

.PHONY: demo
demo: ## Overload a server without weir and with it, in under a minute (ARGS="-duration 2m")
	@$(GO) run ./examples/overload $(ARGS)

.PHONY: incident
incident: ## Replay how an unbounded queue behind a broker killed a consumer, bare and with weir (BROKER=kafka, nats, rabbitmq, redis or sqs)
	@$(GO) -C examples/incident run . -broker $(BROKER) $(ARGS)
