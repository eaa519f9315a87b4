# For GNU make and BSD make alike: POSIX rules only; what is clever is plain sh.
.POSIX:
.PHONY: help build run docker test test-all docker-test verifiers bench soak lint format clean

# Fetched from PyPI into .uv/ when the machine has no uv of its own.
UV_VERSION = 0.13.9

# Defines pythons(): each CPython that really runs, newest first, as "minor path". A name on PATH
# proves nothing: pyenv puts shims there for versions that are not active, and those only fail.
# It names the base interpreter, so that the virtual environment of the day is never built upon,
# and stops at 3.14 because compiled dependencies trail a new Python by months.
PYTHONS = pythons() { \
	for python in python3 python3.14 python3.13 python3.12 python3.11 python3.10 python3.9 \
		"$${PYENV_ROOT:-$$HOME/.pyenv}"/versions/*/bin/python; do \
		"$$python" -c 'import sys, sysconfig; \
			assert sys.implementation.name == "cpython" and sys.version_info[:2] in [(3, n) for n in range(9, 15)]; \
			assert sys.version_info[3] == "final" and not sysconfig.get_config_var("Py_GIL_DISABLED"); \
			print(sys.version_info[1], getattr(sys, "_base_executable", sys.executable))' \
			</dev/null 2>/dev/null || :; \
	done | sort -rn; }

help: ## show this help (the default)
	@sed -n 's/^\([a-z][a-z-]*\):.*## /\1|/p' Makefile | while IFS='|' read -r target text; do \
		printf 'make %-11s %s\n' "$$target" "$$text"; \
	done

build: .venv/.built ## make .venv: jwtproxy itself (editable), what it needs, and the developers' tools

# UV_PROJECT_ENVIRONMENT: whatever the caller's shell says, the result belongs in .venv.
.venv/.built: pyproject.toml uv.lock addons/jwtproxy/__init__.py
	@$(PYTHONS); \
	unset VIRTUAL_ENV; \
	uv=uv; \
	if ! uv cache dir >/dev/null 2>&1; then \
		uv=.uv/bin/uv; \
		[ "`$$uv --version 2>/dev/null | cut -d' ' -f2`" = $(UV_VERSION) ] || \
		pythons | while read -r minor python; do \
			echo "fetching uv $(UV_VERSION) into .uv"; \
			rm -rf .uv; \
			"$$python" -m venv .uv && .uv/bin/python -m pip install -q uv==$(UV_VERSION) && break; \
		done || :; \
		$$uv --version >/dev/null 2>&1 || { \
			echo "jwtproxy: error: there is no uv, and no Python here that could install it" >&2; \
			echo "jwtproxy: hint: install uv (https://docs.astral.sh/uv/), or Python 3.12, 3.13 or 3.14 with its venv module" >&2; \
			exit 1; }; \
	fi; \
	best=`pythons | sed -n '1s/^1[2-9] //p'`; \
	if [ "$$best" ]; then set -- --python "$$best"; \
	else set -- --python 3.13 --managed-python; fi; \
	echo "installing into .venv (with $${best:-a Python 3.13 that uv fetches})"; \
	UV_PROJECT_ENVIRONMENT=.venv $$uv sync --quiet --locked "$$@" || { \
		[ "$$best" ] || echo "jwtproxy: hint: install Python 3.12, 3.13 or 3.14; none was found on PATH or in pyenv" >&2; \
		exit 1; }
# For both ways it runs, or each start would take three times as long.
	@for flag in -P -OP; do .venv/bin/python $$flag -m compileall -q -j 0 .venv/lib || break; done 2>/dev/null; touch $@

run: build ## serve on HTTP_PORT (8080); makes a .env with a new secret if there is none
	@if [ ! -e .env ] && [ ! -L .env ]; then \
		(umask 077 && set -C && .venv/bin/python -c \
			'import secrets; print("JWT_SHARED_SECRET=" + secrets.token_hex(64))' >.env) && \
		echo "made .env with a new random secret (64 bytes, mode 0600)"; \
	fi; \
	exec .venv/bin/jwtproxy-run

# The name of the image, and of the container that runs it.
IMAGE = jwtproxy

# Published for this machine alone. Variables win over .env, which is read by what reads it in `make run`:
# docker's own --env-file takes quotes for a part of the value.
docker: ## the same in a container: build the image, serve on HTTP_PORT (8080) with the same .env
	@if [ ! -e .env ] && [ ! -L .env ]; then \
		(umask 077 && set -C && \
			{ printf JWT_SHARED_SECRET= && od -An -tx1 -v -N64 /dev/urandom | tr -d ' \n' && echo; } >.env) && \
		echo "made .env with a new random secret (64 bytes, mode 0600)"; \
	fi
	docker build --tag $(IMAGE) --build-arg PYTHON_IMAGE .
	@settings=`docker run --rm -i --network none --entrypoint dotenv $(IMAGE) --file /dev/stdin list <.env` && \
	settings=`printf '%s\n' "$$settings" | sed -n -e '/^JWT_/p' -e '/^HTTP_PORT=/p' -e '/^WORKERS=/p'` && \
	port=$${HTTP_PORT:-`printf '%s\n' "$$settings" | sed -n 's/^HTTP_PORT=//p'`} && port=$${port:-8080} && \
	variables=`env | sed -n -e 's/^\(JWT_[A-Z_]*\)=..*/--env \1/p' -e 's/^\(WORKERS\)=..*/--env \1/p'` && \
	container=`printf '%s\n' "$$settings" | docker create --name $(IMAGE) --rm --env-file /dev/stdin $$variables \
		--env HTTP_PORT="$$port" --publish "127.0.0.1:$$port:$$port" --volume $(IMAGE)-ca:/ca \
		--read-only --tmpfs /tmp --cap-drop=ALL --security-opt=no-new-privileges --memory 512m $(IMAGE)` && \
	exec docker start --attach "$$container"

test: lint ## lint, then run the tests and report the branch coverage
	@rm -f .coverage .coverage.*
	.venv/bin/coverage run -m pytest --numprocesses=auto -m 'not thorough'
	@.venv/bin/coverage combine --quiet
	.venv/bin/coverage report

test-all: lint ## the same with every variant of every test: three times as many proxies
	@rm -f .coverage .coverage.*
	.venv/bin/coverage run -m pytest --numprocesses=auto
	@.venv/bin/coverage combine --quiet
	.venv/bin/coverage report

docker-test: build ## prove what is said of the image and of compose.yaml, with a real Docker engine
	.venv/bin/pytest --verbose --capture=no tests/docker/acceptance.py

verifiers: build ## install what the tests of README's recipes need beside Python: Envoy, and jose for Node
	@uv=uv; uv cache dir >/dev/null 2>&1 || uv=.uv/bin/uv; unset VIRTUAL_ENV; \
	UV_PROJECT_ENVIRONMENT=.venv $$uv sync --quiet --locked --inexact --group recipes --python .venv/bin/python
	@npm ci --silent --no-audit --no-fund --prefix tests/verifiers

# The peers come on top of what is installed; the next `make build` that has something to do takes them away again.
bench: build ## measure the proxy beside others (BENCH_QUICK=1: in two minutes), write table, JSON and chart
	@uv=uv; uv cache dir >/dev/null 2>&1 || uv=.uv/bin/uv; unset VIRTUAL_ENV; \
	UV_PROJECT_ENVIRONMENT=.venv $$uv sync --quiet --locked --inexact --group bench --python .venv/bin/python
	@.venv/bin/python -m tests.benchmarks.bench

soak: build ## ten minutes (SOAK_SECONDS) of mixed traffic: memory, descriptors and threads must not grow
	@.venv/bin/python -m tests.benchmarks.soak

# mypy wants modules where their names say they are: .mypy_cache/installed is the package as setuptools lays it out.
lint: build ## check style and types
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	@rm -rf .mypy_cache/installed
	@mkdir -p .mypy_cache/installed/jwtproxy/addons .mypy_cache/installed/jwtproxy/launcher
	@(cd .mypy_cache/installed/jwtproxy && ln -s ../../../addons/jwtproxy/*.py .)
	@(cd .mypy_cache/installed/jwtproxy/addons && ln -s ../../../../addons/*.py .)
	@(cd .mypy_cache/installed/jwtproxy/launcher && ln -s ../../../../launcher/*.py .)
	.venv/bin/mypy

format: build ## put the code into the one format, and fix what can be fixed
	.venv/bin/ruff check --fix
	.venv/bin/ruff format

clean: ## remove everything that make made, but never .env
	rm -rf tests/verifiers/node_modules
	rm -rf .venv .uv .coverage .coverage.* .hypothesis .mypy_cache .pytest_cache .ruff_cache build dist *.egg-info
	find addons launcher tests -name __pycache__ -exec rm -rf {} +
