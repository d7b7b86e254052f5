# An image that trains and compares: `docker run --rm contrastive-sr` is `make demo`.
#
#   docker build -t contrastive-sr .
#   docker build -t contrastive-sr:cuda --build-arg BASE=nvidia/cuda:13.0.2-runtime-ubuntu24.04 .
#   docker run --rm --gpus all -v "$PWD/demo:/contrastive-sr/demo" contrastive-sr:cuda
#
# Debian or Ubuntu with Python 3.10 to 3.12; where the base has no Python, its distribution's is installed.
# The torch of the package index runs on GPUs and on CPUs with either base, and is large. For PyTorch's smaller build for
# CPUs give the index that its page names: --build-arg PIP_EXTRA_INDEX_URL=...
ARG BASE=python:3.12-slim-bookworm
FROM ${BASE}

SHELL ["/bin/bash", "-euo", "pipefail", "-c"]

# libgl1 and libglib2.0-0: OpenCV's. Versions are the base image's affair.
# hadolint ignore=DL3008
RUN export DEBIAN_FRONTEND=noninteractive; \
    apt-get update; \
    packages=(make libgl1 libglib2.0-0); \
    command -v python3 >/dev/null || packages+=(python3 python3-venv); \
    apt-get install -y --no-install-recommends "${packages[@]}"; \
    rm -rf /var/lib/apt/lists/*

WORKDIR /contrastive-sr
COPY . .

ARG PIP_EXTRA_INDEX_URL=""
ENV PIP_NO_CACHE_DIR=1
RUN make install PYTHON=python3

CMD ["make", "demo"]
