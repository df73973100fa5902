# make check is the inner loop, make test is everything. The tools are pinned in
# tools/go.mod, a module of its own, so that they stay out of the product's go.sum.

TOOL := go tool -modfile="$(CURDIR)/tools/go.mod"

# Every module of the repository, and those beside the root one that hold code.
MODULES := $(patsubst %/go.mod,%,$(wildcard ./go.mod ./*/go.mod))
NESTED  := $(filter-out . ./tools,$(MODULES))

FUZZTIME ?= 10s

.DEFAULT_GOAL := help
# The steps of check and test run in the order in which they are written, the cheap ones
# first; each of them uses all cores by itself.
.NOTPARALLEL:
.PHONY: help check test fmt docs fuzz verify-browser bench build explain-page setup \
	format-check tidy-check vet lint short test-nested lint-nested deadcode interleave test-root

help: ## list what there is to make
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1|\2/p' $(MAKEFILE_LIST) | \
	while IFS='|' read -r target what; do printf '  make %-14s %s\n' "$$target" "$$what"; done

check: format-check tidy-check vet lint short ## the inner loop, under a minute: format, lint, vet, short tests

# test-root is the last one, so that the runner's own summary closes the output.
test: setup format-check tidy-check vet lint lint-nested deadcode test-nested fuzz interleave test-root ## everything: check, race detector, end to end, fuzzing, nested modules

setup: ## install the programs that the end-to-end tests run
	@sh scripts/setup.sh

fmt: ## format the code and tidy the modules
	$(TOOL) gofumpt -w .
	@set -e; for m in $(MODULES); do echo "go -C $$m mod tidy"; go -C $$m mod tidy; done

docs: ## write the generated pages and files anew
	go test ./guard ./config ./browser ./explain -run Generated -update

fuzz: ## fuzz every target for FUZZTIME (10s)
	@FUZZTIME=$(FUZZTIME) sh scripts/fuzz.sh

# Cookies have to be two minutes old in some of the cases, and a browser's clock cannot
# be turned: that is a part of the run time.
verify-browser: ## compare the browser model to Chromium: the vectors and 5,000 generated cases (SEED=n repeats a run)
	go test ./e2e/agree -run ChromiumAgrees -v -timeout 30m -agree.cases $(or $(CASES),5000) -agree.old 160 -agree.seed $(or $(SEED),0)

bench: ## run the benchmarks
	cd bench && go test -run '^$$' -bench . -benchmem ./...

build: ## build bin/moat, one static binary
	CGO_ENABLED=0 go build -trimpath -ldflags "-s -w" -o bin/moat ./cmd/moat

explain-page: ## build the page of explain/web into explain/web/dist, and print its size
	@sh explain/web/build.sh

format-check:
	@$(TOOL) gofumpt -d . || { echo "format: error: run make fmt"; exit 1; }

tidy-check:
	@set -e; for m in $(MODULES); do \
		go -C $$m mod tidy -diff || { echo "tidy: error: $$m/go.mod or go.sum is not tidy; run make fmt"; exit 1; }; \
	done

vet:
	go vet ./...

lint:
	$(TOOL) golangci-lint run --allow-parallel-runners ./...

lint-nested:
	@set -e; for m in $(NESTED); do \
		echo "lint: $$m"; (cd $$m && go vet ./... && $(TOOL) golangci-lint run --allow-parallel-runners ./...); \
	done

short:
	go test -short ./...

# A function that neither a program nor a test reaches is not part of anything.
deadcode:
	@dead=$$($(TOOL) deadcode -test ./...) || exit 1; \
	if [ -n "$$dead" ]; then \
		printf '%s\n' "$$dead"; echo "deadcode: error: nothing reaches these, no program and no test"; exit 1; \
	fi

test-nested:
	@set -e; for m in $(NESTED); do \
		echo "test: $$m"; (cd $$m && go test -timeout 10m ./...); \
	done

# The table of store/memory in every order in which two requests can take their steps.
interleave:
	go test -tags interleave -run Interleavings ./store/memory

test-root:
	$(TOOL) gotestsum --format pkgname --format-hide-empty-pkg -- -race -shuffle=on -timeout 10m ./...
