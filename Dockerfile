# ds2d2 in a container. DEVICE=gpu installs torch with CUDA, which is several times as large:
#   docker build --tag ds2d2 .
#   docker build --tag ds2d2:gpu --build-arg DEVICE=gpu .
#   docker run --rm --volume "$PWD:/work" --user "$(id -u):$(id -g)" ds2d2 train teacher=... student=... data=...
#   docker run --rm --gpus all --ipc host --volume "$PWD:/work" --user "$(id -u):$(id -g)" ds2d2:gpu train ...
FROM python:3.12-slim

# Libraries that OpenCV's wheel loads
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libgl1 libglib2.0-0 \
    && rm -rf /var/lib/apt/lists/*

ARG DEVICE=cpu
RUN case "$DEVICE" in \
      cpu) pip install --no-cache-dir torch torchvision --index-url https://download.pytorch.org/whl/cpu ;; \
      gpu) pip install --no-cache-dir torch torchvision ;; \
      *) echo "DEVICE is cpu or gpu, not $DEVICE" >&2; exit 1 ;; \
    esac

COPY pyproject.toml README.md LICENSE /src/
COPY cfg /src/cfg
COPY datasets /src/datasets
COPY ds2d2_yolo /src/ds2d2_yolo
RUN pip install --no-cache-dir /src

# Settings and caches, for whatever user the container runs as
ENV HOME=/tmp YOLO_CONFIG_DIR=/tmp/Ultralytics MPLCONFIGDIR=/tmp/matplotlib
USER nobody
WORKDIR /work
ENTRYPOINT ["ds2d2"]
CMD ["help"]
