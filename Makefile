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
.PHONY: help check test fmt docs fuzz verify-browser verify-lab bench eval-bots build explain-page lab-page lab-picture dashboard-page setup \
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

verify-lab: ## make every run of the lab's lessons in Chromium, also those that try to break them
	go test ./e2e -run LabLessons -v -timeout 30m -lab.all

bench: ## run the benchmarks
	cd bench && go test -run '^$$' -bench . -benchmem ./...

# Rates do not depend on what else the machine does, costs do. ARGS="-only regexp -tools n -browsers n -costs=false"
# makes it shorter.
eval-bots: setup ## measure the bot signals over real tools and browsers: the tables of docs/bots.md, ten minutes
	@sh eval/bots/setup.sh
	@cd eval/bots && go run . $(ARGS)

build: ## build bin/moat, one static binary
	CGO_ENABLED=0 go build -trimpath -ldflags "-s -w" -o bin/moat ./cmd/moat

explain-page: ## build the page of explain/web into explain/web/dist, and print its size
	@sh explain/web/build.sh

lab-page: ## build the lab's page of lab/web into lab/web/dist, where cmd/moat embeds it
	@cd lab/web && npm ci --no-audit --no-fund && npm run build

dashboard-page: ## build the page of dashboard/web into dashboard/web/dist, where the gate embeds it
	@cd dashboard/web && npm ci --no-audit --no-fund && npm run build

lab-picture: ## take README's picture of the lab anew
	go test ./e2e -run LabPicture -lab.picture

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

# Tests of real browsers and stores that are killed wait for real time. One that fails on a
# machine which gave it too little of that runs once more when all others are through, and the
# summary says so; many failures, or a data race, are final.
test-root:
	$(TOOL) gotestsum --format pkgname --format-hide-empty-pkg \
		--rerun-fails=1 --rerun-fails-max-failures=5 --rerun-fails-run-root-test --rerun-fails-abort-on-data-race \
		--packages=./... -- -race -shuffle=on -timeout 40m
