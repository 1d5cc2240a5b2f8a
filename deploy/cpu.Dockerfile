# unblur on the CPU, x86-64 or ARM64. From the root of the repository:
#   docker build -f deploy/cpu.Dockerfile -t unblur .
#   docker run --rm -v "$PWD:/data" unblur run lprn-s --source blurred.jpg --sink restored.jpg
FROM python:3.11-slim-bookworm

COPY pyproject.toml README.md LICENSE /src/
COPY calibration /src/calibration
COPY export /src/export
COPY runtime /src/runtime
COPY train /src/train
RUN pip install --no-cache-dir '/src[metrics,preview]' && rm -r /src \
 && useradd --system --create-home --home-dir /data unblur

USER unblur
WORKDIR /data
ENTRYPOINT ["unblur"]
CMD ["--help"]
