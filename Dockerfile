# gogate in a container: docker build -t gogate . ; docs/deployment.md has the rest.
FROM python:3.12-slim AS build
WORKDIR /src
RUN python -m venv /opt/gogate
COPY pyproject.toml setup.cfg README.md LICENSE ./
COPY gogate_py gogate_py
# The wheel, as a release has it, with traces; dependencies are wheels of PyPI, so that no compiler is needed.
RUN python -m pip wheel --no-cache-dir --no-deps --wheel-dir /wheels . \
 && /opt/gogate/bin/pip install --no-cache-dir --only-binary :all: "$(ls /wheels/*.whl)[otel]" \
 && /opt/gogate/bin/pip uninstall --yes pip

FROM python:3.12-slim
COPY --from=build /opt/gogate /opt/gogate
COPY deployments/docker/config.yaml /etc/gogate/config.yaml
# Nothing is written at run time: the root file system may be read-only.
ENV PATH=/opt/gogate/bin:$PATH PYTHONDONTWRITEBYTECODE=1
WORKDIR /
USER 65532:65532
# TCP, HTTP, admin API, metrics
EXPOSE 8080 8081 9090 9091
# SIGTERM drains: give it longer than server.shutdown.gracePeriod (docker stop -t 40).
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=5s --retries=3 CMD ["gogate", "health"]
ENTRYPOINT ["gogate"]
CMD ["-config", "/etc/gogate/config.yaml"]
