# unblur on a Jetson's GPU, JetPack 6. On the Jetson, from the root of the repository:
#   docker build -f deploy/jetson.Dockerfile -t unblur:jetson .
#   docker run --rm --runtime nvidia --device /dev/video0 -v "$PWD:/data" unblur:jetson doctor lprn-s
# For JetPack 7 give an image with Python 3.12, CUDA 13 and TensorRT's Python module: --build-arg BASE=...
ARG BASE=nvcr.io/nvidia/l4t-jetpack:r36.4.0
FROM ${BASE}

RUN apt-get update \
 && apt-get install --yes --no-install-recommends \
      python3-venv gstreamer1.0-tools gstreamer1.0-plugins-good gstreamer1.0-plugins-bad \
 && rm -rf /var/lib/apt/lists/*
# TensorRT's Python module is the system's, and the driver is mounted only when the container runs.
RUN python3 -m venv --system-site-packages /opt/unblur && python3 -c 'import tensorrt'

COPY pyproject.toml README.md LICENSE /src/
COPY calibration /src/calibration
COPY export /src/export
COPY runtime /src/runtime
COPY train /src/train
RUN /opt/unblur/bin/pip install --no-cache-dir '/src[tensorrt,metrics,preview]' && rm -r /src \
 && useradd --system --create-home --home-dir /data --groups video unblur \
 && chown -R unblur /opt/unblur

USER unblur
WORKDIR /data
ENTRYPOINT ["/opt/unblur/bin/unblur"]
CMD ["--help"]
