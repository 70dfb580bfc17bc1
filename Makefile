# Each target is a script of the same name. All that a machine needs is python3 (3.11 or newer), make and PyPI.
# Arguments: make test ARGS="-k retry -x"

FAIL_UNDER = 99   # per cent of the lines, over the Pythons tested; only a whole run of `make test-all` is held to it

help:         ## show this
	@grep -E '^[a-z-]+: .*##' Makefile | sed -E 's/^([a-z-]+): +##/make \1\t/' | expand -t 20

demo:         ## see it work: one interceptor, every kind of RPC
	@scripts/demo $(ARGS)

test:         ## run the whole suite on the newest Python found, on all cores
	@scripts/test $(ARGS)

quick:        ## run what answers within a minute or so, for the loop of edit and run
	@scripts/quick $(ARGS)

test-all:     ## run the suite on the oldest and the newest Python found, with coverage, then the floors
	@FAIL_UNDER=$(strip $(FAIL_UNDER)) scripts/test-all $(ARGS)

test-floors:  ## run the suite with the oldest dependencies that are allowed
	@scripts/test-floors $(ARGS)

interop:      ## install the system packages that some tests need, and run those tests
	@scripts/interop $(ARGS)

realworld:    ## install real clients of gRPC, run Interpose inside of them, and print one table; takes minutes
	@scripts/realworld $(ARGS)

flaky:        ## run the suite ten times in random order, three of them beside a busy program; ARGS=2: twice
	@scripts/flaky $(ARGS)

torture:      ## the long forms of the hardest tests, in one table
	@scripts/torture $(ARGS)

mutants:      ## break the source in many places, one after the other, and see which faults the suite catches
	@scripts/mutants $(ARGS)

storm:        ## a fleet of clients through faults of every kind, in one table and three pictures
	@scripts/storm $(ARGS)

rolling:      ## replace workers of `interpose serve` under load, and count what was lost
	@scripts/rolling $(ARGS)

check:        ## style, types, which file imports which, and the numbers of the prose
	@scripts/check

docs:         ## build the site, with a reference made from docstrings; a dead link is an error
	@scripts/docs

prose:        ## count the words of sentences, and the words to replace: docs/design/style.md
	@scripts/prose $(ARGS)

dist:         ## build wheel and sdist, check them, and run the README's example with the wheel
	@scripts/dist

bench:        ## measure what a layer costs
	@scripts/bench $(ARGS)

clean:        ## remove environments, caches and generated code
	@scripts/clean

.PHONY: help demo test quick test-all test-floors interop realworld flaky torture storm mutants rolling check prose docs dist bench clean
