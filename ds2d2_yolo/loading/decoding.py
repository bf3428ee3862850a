"""A clear error for damaged images, which Ultralytics' scan accepts but its loaders cannot read."""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
from ultralytics.utils.patches import imread

from ds2d2_yolo.errors import DS2D2Error


@contextmanager
def name_undecodable_images(data: str) -> Iterator[None]:
    """Replace the errors of Ultralytics' loaders for an image that cannot be loaded by one line with its name.

    An image is only called damaged if it still cannot be decoded when nothing else is loaded.

    The scan before training reads headers only, as decoding all images of a large data set takes minutes.

    Args:
        data (str): The data YAML, for the message.

    Raises:
        DS2D2Error: Instead of Ultralytics' "Image Not Found", and instead of errors of OpenCV while it decodes or lacks
            memory. Also for errors from worker processes.

    Example:
        >>> _ = Path("a.bmp").write_bytes(b"BM")
        >>> with name_undecodable_images("ships.yaml"):  # doctest: +ELLIPSIS
        ...     raise FileNotFoundError("Image Not Found a.bmp")
        Traceback (most recent call last):
        ...
        ds2d2_yolo.errors.DS2D2Error: a.bmp: cannot be decoded, ...
    """
    try:
        yield
    except (FileNotFoundError, cv2.error) as error:
        if (line := _describe(error, data)) is None:
            raise
        raise DS2D2Error(line) from error


def _describe(error: Exception, data: str) -> str | None:
    """Return one line about an image that could not be loaded. None if the error has another cause."""
    # The message of a worker process contains its traceback, with the source line that raises the error
    text = "".join(traceback.format_exception(error))
    advice = f"replace it, or remove it from the data set; 'ds2d2 check data={data}' lists all such images"
    if found := re.search(r"^FileNotFoundError: Image Not Found (.+)$", text, re.MULTILINE):
        file = found[1].strip()
        if not Path(file).is_file():
            return f"{file}: no such file; put it back, or remove it from the data set and run the same command again"
        if _is_damaged(file):
            return f"{file}: cannot be decoded, the file is damaged; {advice}"
        return f"{file}: could not be loaded, but is intact; if memory ran out, pass a smaller workers= or batch="
    if not isinstance(error, cv2.error):
        return None
    reason = (str(error).strip() or type(error).__name__).splitlines()[-1]
    if "Insufficient memory" in reason:
        return f"not enough memory for the images ({reason}); pass a smaller workers= or batch="
    if re.search(rf", in {imread.__name__}$", text, re.MULTILINE):
        return f"an image cannot be decoded ({reason}); {advice}"
    return None


def _is_damaged(file: str) -> bool:
    """Return whether an image cannot be decoded when nothing else is loaded."""
    try:
        return imread(file) is None
    except cv2.error:
        return True
