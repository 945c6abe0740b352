# One image with everything `torpor serve` needs. Built by the same set-up code as a host's.
#
# Sandboxes need user namespaces, which Docker's default profiles forbid:
#   docker run --security-opt seccomp=unconfined --security-opt apparmor=unconfined -p 8000:8000 -v torpor:/data torpor
FROM debian:trixie-slim AS build
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install --yes --no-install-recommends ca-certificates gpgv python3 python3-venv \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /source
COPY constraints.txt pyproject.toml README.md ./
COPY sdk sdk
COPY api api
COPY worker worker
COPY snapshotter snapshotter
RUN python3 -m venv /usr/local/torpor \
 && /usr/local/torpor/bin/pip install --no-cache-dir --constraint constraints.txt --upgrade pip \
 && /usr/local/torpor/bin/pip install --no-cache-dir --constraint constraints.txt \
    --build-constraint constraints.txt ./sdk .
RUN /usr/local/torpor/bin/torpor runtime build --data-dir /tmp/data \
 && /usr/local/torpor/bin/torpor runtime export --data-dir /tmp/data /runtime.tar \
 && rm -rf /tmp/data /root/.cache /root/go

FROM debian:trixie-slim
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install --yes --no-install-recommends ca-certificates python3 \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --create-home --uid 1000 torpor \
 && install --directory --owner=torpor --group=torpor /data
COPY --from=build /usr/local/torpor /usr/local/torpor
COPY --from=build /runtime.tar /usr/local/share/torpor/runtime.tar
ENV PATH=/usr/local/torpor/bin:$PATH TORPOR_DATA_DIR=/data TORPOR_LISTEN=0.0.0.0:8000
USER 1000
VOLUME /data
EXPOSE 8000
ENTRYPOINT ["sh", "-c", "torpor runtime import /usr/local/share/torpor/runtime.tar && exec torpor serve \"$@\"", "torpor"]
