# A Triton server on CPUs: pip's tritonserver and gomin-server, which watches it. For GPUs use NVIDIA's image as it is.
# Build it in the project's directory:  docker build -f deploy/docker/server.Dockerfile -t gomin-server:0.1.0 .
# This stage has the C++ compiler for the operators of --target native. A wheel without them ends the build.
FROM python:3.11-bookworm AS wheel
COPY . /src
RUN pip wheel --no-cache-dir --no-deps -w /wheels /src && ls /wheels/*-linux_*.whl

FROM python:3.11-slim-bookworm
COPY constraints.txt /src/
COPY --from=wheel /wheels /src/wheels
RUN set -- /src/wheels/*.whl \
    && pip install --no-cache-dir -c /src/constraints.txt "${1}[server,local]" \
    && rm -rf /src \
    && useradd --system --uid 10001 gomin
USER 10001

# gRPC for clients, metrics for Prometheus. HTTP stays on the loopback address: one request there can end the server.
EXPOSE 8001 8002
VOLUME /models
STOPSIGNAL SIGTERM
ENTRYPOINT ["gomin-server", "--model-repository", "/models"]
CMD ["--host", "0.0.0.0", "--metrics-host", "0.0.0.0"]
