"""Files of `cache=disk`: whether they still have the pixels of their images."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ultralytics.utils.patches import imread

from ds2d2_yolo.data.check.images import decoder_flag
from ds2d2_yolo.loading.images import images_of_split, splits_of_run

_COMPARED = 500  # cache files at most: after a copy of the data set all can be candidates


def outdated_caches(data: Mapping[str, Any], split: str) -> list[Path]:
    """Return the `.npy` files of `cache=disk` whose pixels differ from their images.

    Ultralytics reads such a file instead of its image, unless the image has a later date. Images from an archive or a
    copy can have an earlier date. Only cache files that are older than their image on this disk are compared,
    at most 500.

    Args:
        data (Mapping[str, Any]): A data set, as described by Ultralytics' `check_det_dataset`.
        split (str): The split for evaluation, compared beside `train` and `val`.

    Returns:
        (list[Path]): The files, sorted.

    Example:
        >>> outdated_caches({"train": "datasets/ships/images/train", "channels": 3}, "val")
        []
    """
    suspects = []
    for image in (image for name in splits_of_run(split) for image in images_of_split(data.get(name))):
        cached = image.with_suffix(".npy")
        if image.is_file() and cached.is_file():
            of_image, of_cache = image.stat(), cached.stat()
            # Ultralytics itself notices a later date of the image. st_ctime cannot be set, so copies do not keep it.
            if of_image.st_mtime <= of_cache.st_mtime and of_image.st_ctime >= of_cache.st_ctime:
                suspects.append((image, cached))
    chosen = suspects[:: math.ceil(len(suspects) / _COMPARED) or 1]
    return [cached for image, cached in chosen if not _has_same_pixels(cached, image, data["channels"])]


def describe_outdated(caches: Sequence[Path]) -> str:
    """Return one line about the files that `outdated_caches` has returned."""
    others = f" (and {len(caches) - 1} more)" if len(caches) > 1 else ""
    return (
        f"{caches[0]}{others}: this file of cache=disk differs from its image, and Ultralytics would read it; "
        "delete the .npy files next to the images"
    )


def _has_same_pixels(cached: Path, image: Path, channels: int) -> bool:
    """Return whether a `.npy` file has the pixels of its image. True also if Ultralytics would not read the file."""
    try:
        pixels = np.load(cached)
    except (OSError, ValueError, EOFError):
        return True
    shown = imread(str(image), decoder_flag(channels))
    return shown is None or np.array_equal(pixels.squeeze(), shown.squeeze())
