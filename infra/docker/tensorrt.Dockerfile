# provider-core on TensorRT (EXTRAS=tensorrt) or TensorRT for RTX (EXTRAS=tensorrt-rtx). Built from
# the repository's root; the libraries of TensorRT come from their vendor's package index:
#
#   docker build --file infra/docker/tensorrt.Dockerfile --build-arg EXTRAS=tensorrt --tag provider .
#
# Engines are built before, by `provider build-engine`, and lie beside the model.

ARG PYTHON=3.13

FROM python:${PYTHON}-slim AS build
ARG EXTRAS=tensorrt
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /src
COPY pyproject.toml infra/docker/requirements.py ./
RUN python -m venv /opt/provider \
    && python requirements.py > requirements.txt \
    && /opt/provider/bin/pip install --requirement requirements.txt
COPY README.md LICENSE ./
COPY provider_core provider_core
COPY plugins plugins
COPY handlers handlers
RUN /opt/provider/bin/pip install --no-deps --target /opt/project . \
    && /opt/provider/bin/python -m compileall -q /opt/project

FROM python:${PYTHON}-slim
LABEL org.opencontainers.image.title="provider-core for TensorRT" \
      org.opencontainers.image.description="A TensorRT engine as a listed, billable LLM provider" \
      org.opencontainers.image.licenses="Apache-2.0"
# The kernel drops signals for a container's first process until it handles them; this one does so at
# once, and passes them on.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends tini \
    && rm -rf /var/lib/apt/lists/*
RUN useradd --uid 10001 --create-home provider && install -d -o provider /data
COPY --from=build /opt/provider /opt/provider
COPY --from=build /opt/project /opt/project
COPY infra/docker/healthcheck.py /opt/healthcheck.py
ENV PATH=/opt/project/bin:/opt/provider/bin:$PATH \
    PYTHONPATH=/opt/project \
    PYTHONDONTWRITEBYTECODE=1 \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    PROVIDER_HOST=0.0.0.0 \
    PROVIDER_DATA_DIR=/data
USER 10001
VOLUME /data
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=120s CMD ["python", "/opt/healthcheck.py"]
ENTRYPOINT ["tini", "-s", "--", "provider"]
CMD ["serve"]
