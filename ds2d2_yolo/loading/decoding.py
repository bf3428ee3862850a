"""A clear error for damaged images, which Ultralytics' scan accepts but its loaders cannot read."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import cv2

from ds2d2_yolo.errors import DS2D2Error, message_of


@contextmanager
def name_undecodable_images(data: str) -> Iterator[None]:
    """Replace the errors of Ultralytics' loaders for an image that cannot be decoded by one line with its name.

    The scan before training reads headers only, as decoding all images of a large data set takes minutes.

    Args:
        data (str): The data YAML, for the message.

    Raises:
        DS2D2Error: Instead of Ultralytics' "Image Not Found" for an existing file, and instead of OpenCV's errors, also
            from worker processes.

    Example:
        >>> with name_undecodable_images("ships.yaml"):  # doctest: +ELLIPSIS
        ...     raise FileNotFoundError("Image Not Found ships/a.bmp")
        Traceback (most recent call last):
        ...
        ds2d2_yolo.errors.DS2D2Error: ships/a.bmp: cannot be decoded, ...
    """
    try:
        yield
    except (FileNotFoundError, cv2.error) as error:
        found = re.search("Image Not Found (.+)", str(error))
        if found is None and not isinstance(error, cv2.error):
            raise
        what = (
            f"{found[1].strip()}: cannot be decoded" if found else f"an image cannot be decoded ({message_of(error)})"
        )
        raise DS2D2Error(
            f"{what}, the file is damaged; replace it, or remove it from the data set; 'ds2d2 check data={data}' lists "
            "all such images"
        ) from error
