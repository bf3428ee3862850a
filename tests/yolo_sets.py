"""YOLO data sets for tests, made image by image."""

import io
import zlib

import cv2
import numpy as np
from PIL import Image

GOOD = "0 0.5 0.5 0.2 0.2\n"
CORNERS = "0 0.1 0.1 0.3 0.1 0.3 0.2 0.1 0.2\n"


def encoded(form="PNG", width=64, height=48, seed=0):
    """Bytes of a picture of smooth noise, different for every seed."""
    noise = np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(cv2.GaussianBlur(noise, (0, 0), 2)).save(buffer, form)
    return buffer.getvalue()


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def put(root, split, name, labels=GOOD, image=None):
    """Write an image and, unless None, its label file. Every image has different bytes."""
    path = root / "images" / split / name
    write(path, encoded(seed=zlib.crc32(f"{split}/{name}".encode())) if image is None else image)
    if labels is not None:
        write(root / "labels" / split / f"{path.stem}.txt", labels)
    return path
