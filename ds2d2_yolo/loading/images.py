"""The images of a data set's splits."""

from __future__ import annotations

import glob
from collections.abc import Iterable
from pathlib import Path

from ultralytics.data.utils import IMG_FORMATS

from ds2d2_yolo.errors import DS2D2Error
from ds2d2_yolo.files import refuse_special

SPLITS = ("train", "val", "test", "minival")
"""The splits of a data YAML that Ultralytics reads."""


def images_of_split(split: str | Iterable[str] | None) -> list[Path]:
    """Return the image files of one split, sorted, from folders and from text files that list images.

    Args:
        split (str | Iterable[str] | None): The split's entry in the checked data YAML.

    Returns:
        (list[Path]): Image files.

    Raises:
        DS2D2Error: If an entry is a file but not text, such as an image, or an image is a pipe, a socket or a device.
    """
    images: list[Path] = []
    for entry in [split] if isinstance(split, str) else split or []:
        if not entry:  # for Ultralytics this is no split; as a folder it would be the whole disk
            continue
        path = Path(entry)
        if path.is_dir():
            # Not `Path.rglob`, which skips linked folders: Ultralytics follows them.
            files = glob.glob(f"{glob.escape(entry)}/**/*.*", recursive=True)  # noqa: PTH207
            images.extend(map(Path, files))
        elif path.is_file():
            try:
                lines = path.read_text(encoding="utf-8-sig").strip().splitlines()
            except UnicodeDecodeError:
                raise DS2D2Error(
                    f"{path}: is not a list of images; pass a folder of images, or a text file with one path per line"
                ) from None
            images.extend(path.parent / line if line.startswith("./") else Path(line) for line in lines)
    images = sorted(image for image in images if image.suffix[1:].lower() in IMG_FORMATS)
    for image in images:
        refuse_special(image)  # Ultralytics would wait for it forever; images that it cannot open it skips
    return images


def splits_of_run(split: str) -> list[str]:
    """Return the splits that affect a run, without duplicates."""
    return list(dict.fromkeys(("train", "val", split)))
