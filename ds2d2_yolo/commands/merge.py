"""`ds2d2 merge`: merges detections of tiles into their source images."""

from __future__ import annotations

from collections.abc import Sequence

from ds2d2_yolo.commands.words import parse_arguments
from ds2d2_yolo.data.merge import merge_detections
from ds2d2_yolo.options import complete_options


def run(words: Sequence[str]) -> None:
    """Merge the detections of a tiled data set and print their numbers.

    Args:
        words (Sequence[str]): `key=value` words, the options of `cfg/merge.yaml`.

    Raises:
        DS2D2Error: See `merge_detections`. Also if an option is unknown or missing.
    """
    options = complete_options("merge", parse_arguments(words), required=("predictions", "data", "out"))
    merged = merge_detections(**options)
    task = "Task1" if merged.oriented else "Task2"
    width = max(map(len, merged.kept))
    for name, count in merged.kept.items():
        print(f"{name:{width}}  {count:9,}")
    print(
        f"{merged.found:,} detections in {merged.tiles:,} tiles of {merged.images:,} images, "
        f"{sum(merged.kept.values()):,} after merging: {merged.folder}/{task}_<class>.txt"
    )
