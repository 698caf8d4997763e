# Images of the gateway, the ledger and the door for other agents: docker build --target gateway, audit or intake. `make image`
# builds all.
# BASE: any Debian with Python 3.11 or later, its venv module and CA certificates. Where no registry is reached,
# deploy/make-base makes one from Debian's packages.
ARG BASE=python:3.11-slim

FROM ${BASE} AS build
# Where pip finds packages, if not at its default; given by --build-arg, seen by this stage alone.
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ARG PIP_CERT
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src
RUN python3 -m venv /pip && python3 -m venv --without-pip /opt/onrecord
COPY pyproject.toml constraints.txt deploy/requirements.py deploy/requirements.lock deploy/install-locked ./
COPY clients/python/pyproject.toml clients/python/
RUN echo hatchling > build.txt && ./install-locked build.txt /pip/bin/python && rm -r /wheels && \
    python3 requirements.py common > common.txt && ./install-locked common.txt
COPY README.md LICENSE ./
COPY protos protos
COPY service_kit service_kit
COPY recording recording
COPY clients/python clients/python
COPY audit_svc audit_svc
COPY gateway_svc gateway_svc
COPY intake_svc intake_svc
RUN /pip/bin/pip wheel --quiet --no-deps --no-build-isolation --wheel-dir /wheels ./clients/python . && \
    { echo '#!/opt/onrecord/bin/python -IS'; cat service_kit/quick_probe.py; } > /opt/onrecord/bin/onrecord-health && \
    chmod 0755 /opt/onrecord/bin/onrecord-health

# EXTRAS_AUDIT, EXTRAS_GATEWAY, EXTRAS_INTAKE: extras of pyproject.toml. Traces are off until OTEL_… names a collector, and
# rules until GATEWAY_RULES_FILE or a hook names them, time-stamps until AUDIT_SEAL_TIMESTAMP_URL does; postgres is for what
# lies in PostgreSQL, ui for `audit-svc ui`.
FROM build AS build-audit
ARG EXTRAS_AUDIT="postgres timestamp"
# hadolint ignore=SC2086
RUN python3 requirements.py audit ${EXTRAS_AUDIT} > audit.txt && ./install-locked audit.txt && \
    /pip/bin/pip --python /opt/onrecord/bin/python install --quiet --no-deps /wheels/*.whl && \
    rm -r /opt/onrecord/bin/gateway-svc /opt/onrecord/bin/intake-svc /opt/onrecord/bin/onrecord-hook \
      /opt/onrecord/lib/python3*/site-packages/gateway_svc /opt/onrecord/lib/python3*/site-packages/intake_svc

FROM build AS build-gateway
ARG EXTRAS_GATEWAY="otel postgres rules"
# hadolint ignore=SC2086
RUN python3 requirements.py gateway ${EXTRAS_GATEWAY} > gateway.txt && ./install-locked gateway.txt && \
    /pip/bin/pip --python /opt/onrecord/bin/python install --quiet --no-deps /wheels/*.whl && \
    rm -r /opt/onrecord/bin/audit-svc /opt/onrecord/bin/intake-svc /opt/onrecord/bin/onrecord-hook \
      /opt/onrecord/lib/python3*/site-packages/audit_svc /opt/onrecord/lib/python3*/site-packages/intake_svc

FROM build AS build-intake
ARG EXTRAS_INTAKE="intake rules"
# hadolint ignore=SC2086
RUN python3 requirements.py intake ${EXTRAS_INTAKE} > intake.txt && ./install-locked intake.txt && \
    /pip/bin/pip --python /opt/onrecord/bin/python install --quiet --no-deps /wheels/*.whl && \
    rm -r /opt/onrecord/bin/audit-svc /opt/onrecord/bin/gateway-svc /opt/onrecord/bin/onrecord-hook \
      /opt/onrecord/lib/python3*/site-packages/audit_svc /opt/onrecord/lib/python3*/site-packages/gateway_svc

FROM ${BASE} AS runtime
# A service installs nothing: the base's own pip goes too.
RUN rm -rf /usr/local/bin/pip* /usr/local/lib/python3*/ensurepip /usr/local/lib/python3*/site-packages/* \
           /usr/lib/python3*/ensurepip /usr/share/python-wheels && \
    groupadd --gid 10001 onrecord && \
    useradd --uid 10001 --gid onrecord --no-log-init --no-create-home --home-dir /var/lib/onrecord \
            --shell /usr/sbin/nologin onrecord && \
    install -d -m 0700 -o onrecord -g onrecord /var/lib/onrecord
ENV PATH=/opt/onrecord/bin:/usr/local/bin:/usr/bin:/bin PYTHONDONTWRITEBYTECODE=1
WORKDIR /var/lib/onrecord
# The root file system can be read-only: what is kept lies in the volume, what is not in /tmp.
VOLUME /var/lib/onrecord
STOPSIGNAL SIGTERM

FROM runtime AS audit
ARG VERSION=0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="onrecord audit_svc" \
      org.opencontainers.image.description="The ledger of what agents' tools did" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build-audit /opt/onrecord /opt/onrecord
ENV AUDIT_LISTEN=0.0.0.0:50052 AUDIT_DB=/var/lib/onrecord/audit.db
EXPOSE 50052
USER 10001:10001
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 CMD ["onrecord-health", "audit"]
ENTRYPOINT ["audit-svc"]
CMD ["serve"]

FROM runtime AS intake
ARG VERSION=0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="onrecord intake_svc" \
      org.opencontainers.image.description="Puts the tool calls of other agents on the record" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build-intake /opt/onrecord /opt/onrecord
ENV INTAKE_LISTEN=0.0.0.0:4317 INTAKE_HTTP_LISTEN=0.0.0.0:4318 INTAKE_STATE_DIR=/var/lib/onrecord
EXPOSE 4317 4318
USER 10001:10001
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 CMD ["onrecord-health", "intake"]
ENTRYPOINT ["intake-svc"]
CMD ["serve"]

FROM runtime AS gateway
# The sandbox for commands, and a fast grep; --build-arg TOOLS= builds without them where apt reaches nothing.
ARG TOOLS="bubblewrap ripgrep"
# Debian keeps one version of each package: a pinned one is gone with the next security fix. TOOLS is a list of words.
# hadolint ignore=DL3008,SC2086
RUN if [ -n "${TOOLS}" ]; then \
      apt-get update -qq && \
      apt-get install -y -qq --no-install-recommends ${TOOLS} && \
      rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin; \
    fi
ARG VERSION=0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="onrecord gateway_svc" \
      org.opencontainers.image.description="Runs LLM agents with tools, and puts every tool call on the record" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build-gateway /opt/onrecord /opt/onrecord
ENV GATEWAY_LISTEN=0.0.0.0:50051 GATEWAY_STATE_DIR=/var/lib/onrecord
EXPOSE 50051
USER 10001:10001
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 CMD ["onrecord-health", "gateway"]
ENTRYPOINT ["gateway-svc"]
CMD ["serve"]
