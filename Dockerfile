# The serving environment as an image: no compiler, no torch, no root.
#
#   docker build -t hlm .                        CPU, the default target `serve`
#   docker build -t hlm:gpu --target gpu .       CUDA libraries and onnxruntime-gpu; docs/gpu.md
#   docker build -t hlm --build-arg LOCK=otel .  CPU, with what traces need; LOCK=faiss for graphs of faiss
#   docker run --rm -p 8080:8080 -v "$PWD/var:/app/var:ro" hlm
#
# Encoders and indexes are mounted at /app/var, where config/serve.yaml looks for them.
# Settings come from HLM_SECTION__NAME variables or arguments after the image's name.

# onnxruntime-gpu 1.31 of PyPI is linked against CUDA 13 and cuDNN 9, which need a driver of 580 or later on the host.
# Ubuntu 24.04 brings Python 3.12, for which all of requirements/gpu.txt has wheels; the CPU image has 3.11, as CI does.
ARG CUDA_IMAGE=nvidia/cuda:13.0.2-cudnn-runtime-ubuntu24.04
ARG PYTHON_IMAGE=python:3.11-slim

# --- what runs, without what tests and measures it ---------------------------------------------------------------

FROM scratch AS app
COPY hlm.py cores.py memory.py plots.py terminal.py /app/
COPY artifacts /app/artifacts
COPY client /app/client
COPY export /app/export
COPY index /app/index
COPY loadtest /app/loadtest
COPY samples /app/samples
COPY service /app/service
COPY train /app/train
COPY config /app/config

# --- GPU ---------------------------------------------------------------------------------------------------------

FROM ${CUDA_IMAGE} AS gpu-builder
# Not pinned: a pinned version vanishes from the archive with the next fix.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends g++ python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/*
COPY requirements/build.txt requirements/gpu.txt requirements/hnswlib.sh requirements/install.sh /tmp/requirements/
RUN bash /tmp/requirements/install.sh /opt/venv gpu

FROM ${CUDA_IMAGE} AS gpu
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin hlm
COPY --from=gpu-builder /opt/venv /opt/venv
COPY --from=app /app /app
WORKDIR /app
# ONNX Runtime since 1.29 reports each session to its maker unless told not to.
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 ORT_DISABLE_TELEMETRY=1 HLM_SERVER__HOST=0.0.0.0 \
    GLIBC_TUNABLES=glibc.malloc.hugetlb=1
RUN python -m compileall -q /app && mkdir /app/var
USER 10001
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import http.client, os; c = http.client.HTTPConnection('127.0.0.1', int(os.environ.get('HLM_SERVER__PORT', 8080)), timeout=2); c.request('GET', '/health/ready'); raise SystemExit(c.getresponse().status != 200)"]
ENTRYPOINT ["python", "hlm.py"]
CMD ["serve", "--config", "config/serve.yaml"]
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="hlm-retrieval" \
      org.opencontainers.image.description="Low-latency sponsored-search retrieval: query text in, ads out, in one hop (CUDA)." \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"

# --- CPU ---------------------------------------------------------------------------------------------------------

FROM ${PYTHON_IMAGE} AS serve-builder
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends g++ \
    && rm -rf /var/lib/apt/lists/*
ARG LOCK=serve
COPY requirements/build.txt requirements/${LOCK}.txt requirements/hnswlib.sh requirements/install.sh /tmp/requirements/
RUN bash /tmp/requirements/install.sh /opt/venv "${LOCK}"

FROM ${PYTHON_IMAGE} AS serve
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin hlm
COPY --from=serve-builder /opt/venv /opt/venv
COPY --from=app /app /app
WORKDIR /app
# ONNX Runtime since 1.29 reports each session to its maker unless told not to.
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 ORT_DISABLE_TELEMETRY=1 HLM_SERVER__HOST=0.0.0.0 \
    GLIBC_TUNABLES=glibc.malloc.hugetlb=1
RUN python -m compileall -q /app && mkdir /app/var
USER 10001
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import http.client, os; c = http.client.HTTPConnection('127.0.0.1', int(os.environ.get('HLM_SERVER__PORT', 8080)), timeout=2); c.request('GET', '/health/ready'); raise SystemExit(c.getresponse().status != 200)"]
ENTRYPOINT ["python", "hlm.py"]
CMD ["serve", "--config", "config/serve.yaml"]
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="hlm-retrieval" \
      org.opencontainers.image.description="Low-latency sponsored-search retrieval: query text in, ads out, in one hop." \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
