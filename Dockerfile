# Colloquy in one image: no shell is needed to run it, nothing but /data and /tmp is written.
#
#     docker build -t colloquy .
#     docker run --init --read-only --tmpfs /tmp -v colloquy:/data -p 127.0.0.1:8000:8000 \
#         -e AUTH_MODE=accounts -e TRUSTED_HOSTS=localhost colloquy
#
# What follows the image's name is a command of `python -m api`: `backup /data/backup.zip`, `migrate --status`.

ARG PYTHON=3.11-slim-bookworm

FROM python:${PYTHON} AS packages
ENV UV_PYTHON_DOWNLOADS=never UV_LINK_MODE=copy
WORKDIR /build
COPY requirements/uv.txt requirements/runtime.txt ./
RUN python -m venv installer \
 && installer/bin/pip install --no-cache-dir --disable-pip-version-check --require-hashes -r uv.txt \
 && python -m venv --without-pip /opt/colloquy \
 && installer/bin/uv pip sync --no-cache --require-hashes --compile-bytecode --python /opt/colloquy/bin/python runtime.txt

FROM python:${PYTHON}
# PostgreSQL's programs, for those who use the embedded database, want a name for whoever runs them.
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /data --shell /usr/sbin/nologin colloquy \
 && install --directory --owner=10001 --group=10001 --mode=0700 /data
WORKDIR /app
COPY --from=packages /opt/colloquy /opt/colloquy
COPY api ./api
COPY services ./services
COPY websocket ./websocket
COPY db ./db
COPY terminal ./terminal
RUN /opt/colloquy/bin/python -m compileall -q .

ENV PATH=/opt/colloquy/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    HOST=0.0.0.0 PORT=8000 DATA_DIR=/data AUTH_MODE=accounts LOG_FORMAT=json
USER 10001:10001
VOLUME /data
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request; urllib.request.urlopen(f\"http://127.0.0.1:{os.environ['PORT']}/readyz\", timeout=4)"]
ENTRYPOINT ["python", "-m", "api"]
