"""Checks a whole data set: first each split, then all splits together."""

from __future__ import annotations

import glob
import os
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path

from ultralytics.data.utils import IMG_FORMATS, img2label_paths
from ultralytics.utils import TQDM

from ds2d2_yolo.data.check.findings import Place, shown_path
from ds2d2_yolo.data.check.labels import number_of_labels
from ds2d2_yolo.data.check.report import Inspection, SplitReport
from ds2d2_yolo.data.check.settings import UNLABELED_SPLIT, Settings, Split
from ds2d2_yolo.data.check.shared import shared_images
from ds2d2_yolo.data.check.split import inspect_split
from ds2d2_yolo.data.threads import threads


def inspect_dataset(splits: Mapping[str, Split], settings: Settings, root: Path | None = None) -> Inspection:
    """Check all images and labels of a data set, in threads. Memory does not grow with the number of objects.

    Args:
        splits (Mapping[str, Split]): Splits by name. `train` must have label files. Those of `unlabeled` are not read.
        settings (Settings): Settings of the check.
        root (Path | None): Files below this folder are named relative to it.

    Returns:
        (Inspection): The results.

    Example:
        >>> inspect_dataset({"val": Split([])}, Settings(names=["ship"])).splits["val"].findings["no_images"].count
        1
    """
    reports: dict[str, SplitReport] = {}
    total = sum(len(split.images) for split in splits.values())
    progress = TQDM(total=total, desc="Checking images and labels", unit="image", file=sys.stderr)
    with threads() as pool:
        for name, split in splits.items():
            reports[name] = inspect_split(name, split, settings, root, pool, progress)
        progress.close()
        labelled = {name: split for name, split in splits.items() if name != UNLABELED_SPLIT}
        for name, path, objects in _labels_without_image(labelled):
            place = Place(shown_path(path, root), None, f"{objects} objects")
            reports[name].findings["label_without_image"].add(place)
            reports[name].lost_objects += objects
        for report in islice(reports.values(), 1):
            for name, count in Counter(settings.names).items():
                if count > 1:
                    report.findings["class_name_twice"].add(Place("", None, f"{name}, {count} times"))
        shared = shared_images(splits, settings.images != "none", root, pool)
    return Inspection(reports, shared)


def _labels_without_image(splits: Mapping[str, Split]) -> Iterator[tuple[str, Path, int]]:
    """Yield split, path and number of objects of label files without an image of the same name."""
    claimed: set[str] = set()
    folders: dict[Path, tuple[str, Path]] = {}  # label folders: split, folder of the images
    for name, split in splits.items():
        labels = img2label_paths([str(image) for image in split.images])
        claimed.update(labels)
        for image, label in zip(split.images, labels, strict=True):
            folders.setdefault(Path(label).parent, (name, image.parent))
        for folder in split.folders:
            top = Path(img2label_paths([str(folder / "any.jpg")])[0]).parent
            # Not `Path.rglob`, which skips linked folders: Ultralytics follows them.
            for below in glob.glob(f"{glob.escape(str(top))}/**/", recursive=True):  # noqa: PTH207
                folders.setdefault(Path(below), (name, folder / os.path.relpath(below, top)))
    for labels_in, (name, images_in) in folders.items():
        unclaimed = [path for path in sorted(labels_in.glob("*.txt")) if str(path) not in claimed]
        if not unclaimed:
            continue
        stems = {path.stem for path in images_in.glob("*.*") if path.suffix[1:].lower() in IMG_FORMATS}
        for path in unclaimed:
            if path.stem not in stems and (objects := number_of_labels(path)):
                yield name, path, objects
