# The gateway: HTTP, WebSocket and the page, in front of one or several Triton servers.
# Build it in the project's directory:  docker build -f deploy/docker/gateway.Dockerfile -t gomin-gateway:0.1.0 .
FROM python:3.11-slim-bookworm

COPY . /src
RUN pip install --no-cache-dir -c /src/constraints.txt '/src[gateway,formats]' \
    && rm -rf /src \
    && useradd --system --uid 10001 gomin
USER 10001

EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8080/healthz', timeout=4)"]
ENTRYPOINT ["gomin-gateway"]
CMD ["--host", "0.0.0.0", "--log-json"]
