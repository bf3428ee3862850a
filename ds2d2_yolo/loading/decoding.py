"""Images that Ultralytics' scan lets pass and its loaders cannot read: named in one line when they are come to."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import cv2

from ds2d2_yolo.errors import DS2D2Error, message_of


@contextmanager
def undecodable_named(data: str) -> Iterator[None]:
    """Turn what Ultralytics' loaders raise at an image that cannot be decoded into one line that names it.

    The scan before a training opens headers alone, as decoding all images of a large set takes minutes.

    Args:
        data (str): The data YAML, for the message.

    Raises:
        DS2D2Error: In place of "Image Not Found", which Ultralytics says of files that are there, and of OpenCV's own
            errors, also where worker processes of a loader hand them on.

    Example:
        >>> with undecodable_named("ships.yaml"):  # doctest: +ELLIPSIS
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
            f"{what}, its file is damaged; replace it, or take it out of the data set; 'ds2d2 check "
            f"data={data}' lists all of them"
        ) from error
