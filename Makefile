# The door to everything; the work is in CMake and scripts/.  `make help` lists what there is.
SHELL := /bin/bash
.DEFAULT_GOAL := build
.NOTPARALLEL:
.PHONY: build run test check dev asan tsan sim bench fuzz valgrind tidy coverage format setup clean help

SEEDS ?= 1000
SEED_BASE ?= 1
PLANT ?=
JOBS ?= $(shell nproc)
FUZZ_SECONDS ?= 60

build: setup                    ## build/nexus, optimised
	@scripts/build release nexus toolbox

run: build                      ## set up, build, start the platform and let one agent work on real data
	@scripts/demo

test: setup                     ## everything; the last line is "N passed, N failed"
	@scripts/test

check: setup                    ## the minute before a commit: format, layers, headers, banned calls, sizes, unit tests
	@scripts/test check unit

dev asan tsan: setup            ## one of the other builds, complete: build/dev, build/asan, build/tsan
	@scripts/build $@

sim: setup                      ## simulate: SEEDS=1000 SEED_BASE=1 JOBS=cores, PLANT=name for a bug put in on purpose
	@scripts/build sim sim
	@build/sim/sim --seeds $(SEEDS) --seed-base $(SEED_BASE) --jobs $(JOBS) $(if $(PLANT),--plant $(PLANT))

bench:                          ## what it costs, beside nginx
	@scripts/setup --bench
	@scripts/build release nexus toolbox benchmarks
	@scripts/bench

fuzz: setup                     ## each fuzz target for FUZZ_SECONDS=60
	@scripts/build fuzz
	@scripts/fuzz $(FUZZ_SECONDS)

valgrind: setup                 ## unit tests under valgrind
	@scripts/build dev
	@scripts/valgrind

tidy: setup                     ## clang-tidy over src/
	@scripts/build dev
	@scripts/tidy

coverage: setup                 ## line and branch coverage of the unit tests: build/coverage/report
	@scripts/build coverage
	@scripts/coverage

format:                         ## lay all C files out as .clang-format says
	@scripts/check-format --fix

setup:                          ## install what is missing (says what; nothing to do the second time)
	@scripts/setup

clean:                          ## remove build/; the cache folder stays
	rm -rf build

help:
	@sed -n 's/^\([a-z ]*\):[^#]*## /\1\t/p' Makefile | column -t -s $$'\t'
