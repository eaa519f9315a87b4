# jwtproxy in a container: launcher/help/containers.md tells how to use it, `make docker-test` proves what it says.

# The base of every stage. Any image will do that has Python 3.12 or newer, pip, and the certificates to reach PyPI.
ARG PYTHON_IMAGE=python:3.13-slim-trixie

FROM ${PYTHON_IMAGE} AS uv
ARG UV_VERSION=0.13.9
RUN pip install --no-cache-dir --disable-pip-version-check --root-user-action=ignore "uv==${UV_VERSION}"
ENV UV_COMPILE_BYTECODE=true \
    UV_LINK_MODE=copy \
    UV_PROJECT_ENVIRONMENT=/venv \
    UV_PYTHON_DOWNLOADS=never \
    UV_SYSTEM_CERTS=true
WORKDIR /src

# What jwtproxy needs, built anew when pyproject.toml or uv.lock change, and not when code does.
# Byte code twice: as Python runs by default, and as it runs with -O.
FROM uv AS dependencies
RUN --mount=type=cache,target=/root/.cache/uv \
    --mount=type=bind,source=pyproject.toml,target=pyproject.toml \
    --mount=type=bind,source=uv.lock,target=uv.lock \
    uv sync --quiet --locked --no-dev --extra redis --no-install-project \
    && /venv/bin/python -O -m compileall -q /venv/lib \
    && rm /venv/.lock

# jwtproxy itself, put aside in /layer so that a new version is a new layer of some kilobytes.
FROM dependencies AS project
COPY . .
RUN --mount=type=cache,target=/root/.cache/uv \
    uv sync --quiet --locked --no-dev --extra redis --no-editable \
    && /venv/bin/python -O -m compileall -q /venv/lib/python3*/site-packages/jwtproxy \
    && mkdir /layer \
    && cp -a --parents /venv/bin/jwtproxy-run /venv/bin/jwtproxy-health /venv/lib/python3*/site-packages/jwtproxy* /layer

# The upstream of compose.yaml, from the same lock file.
FROM uv AS demo-dependencies
RUN --mount=type=cache,target=/root/.cache/uv \
    --mount=type=bind,source=pyproject.toml,target=pyproject.toml \
    --mount=type=bind,source=uv.lock,target=uv.lock \
    uv sync --quiet --locked --only-group demo

FROM ${PYTHON_IMAGE} AS demo
COPY --from=demo-dependencies /venv /venv
USER 65532:65532
EXPOSE 8000
# As the first process of a container, Python heeds Ctrl-C and ignores SIGTERM.
STOPSIGNAL SIGINT
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --start-interval=1s \
    CMD ["/venv/bin/python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/status/200')"]
ENTRYPOINT ["/venv/bin/flask", "--app", "httpbin", "run", "--host", "0.0.0.0", "--port", "8000"]

FROM ${PYTHON_IMAGE} AS jwtproxy
# mitmproxy keeps its CA in ~/.mitmproxy. A link rather than `--set confdir=/ca` in the entry point: an option may be
# set once, so users could not set it any more. Writable for every user, so that --user works with any.
RUN mkdir /ca && chown 65532:65532 /ca && chmod 1777 /ca && ln -s /ca /.mitmproxy
COPY --from=dependencies /venv /venv
COPY --from=project /layer /
ENV HOME=/ \
    PATH=/venv/bin:$PATH \
    HTTP_HOST=* \
    HTTP_PORT=8080 \
    WORKERS=auto
USER 65532:65532
VOLUME /ca
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --start-interval=1s CMD ["jwtproxy-health"]
LABEL org.opencontainers.image.title="jwtproxy" \
    org.opencontainers.image.description="An HTTP(S) forward proxy that signs every request with a fresh JSON Web Token" \
    org.opencontainers.image.source="https://github.com/jwtproxy/jwtproxy" \
    org.opencontainers.image.version="0.1.0" \
    org.opencontainers.image.licenses="MIT"
# No init: jwtproxy-run heeds SIGTERM from its first line, and whatever it starts, it waits for.
ENTRYPOINT ["jwtproxy-run"]
