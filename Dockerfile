# One image for the API and the workers; docker-compose.yml says which command makes which.

FROM python:3.11-slim AS build
WORKDIR /source
COPY . .
# The index to install from besides pip's own, such as one with PyTorch's CPU build, which is several gigabytes smaller.
ARG PIP_EXTRA_INDEX_URL=
RUN --mount=type=cache,target=/root/.cache/pip docker/install.sh /opt/ganvil

FROM python:3.11-slim
COPY --from=build /opt/ganvil /opt/ganvil
# A volume that is mounted on /data takes over its owner.
RUN useradd --system --uid 10001 --user-group --no-create-home --home-dir /data ganvil \
    && install --directory --owner ganvil --group ganvil /data
# Anybody may reach it there, so that it refuses to start without API keys.
ENV PATH=/opt/ganvil/bin:$PATH PYTHONUNBUFFERED=1 GANVIL_DATA_DIR=/data GANVIL_HOST=0.0.0.0
USER ganvil
WORKDIR /data
VOLUME /data
EXPOSE 8000
CMD ["python", "-m", "app"]
