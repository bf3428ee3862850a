"""Results of a check of a data set, by split."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from statistics import median

import numpy as np

from ds2d2_yolo.data.check.findings import KINDS, Finding

SIZE_BANDS: tuple[float, ...] = (8.0, 16.0, 32.0, 96.0)
"""Limits of the size bands, in pixels: square roots of areas. 32 and 96 are COCO's limits of small, medium, large."""

SIZE_EDGES: np.ndarray = 2.0 ** np.linspace(0, 12, 49)
"""Edges of the size histogram, in pixels, in steps of a quarter octave. The end bins include everything beyond."""


@dataclass
class SplitReport:
    """Results for one split.

    Attributes:
        images (int): Listed images.
        kept (int): Images that the loader keeps.
        background (int): Kept images without objects.
        lost_objects (int): Label lines of rejected images and of files without image, and boxes without area or
            outside the image.
        class_counts (np.ndarray): Objects of every class in kept images, (classes,) int64.
        objects_per_image (Counter[int]): Number of kept images by their number of objects.
        measured (bool): Whether image sizes were read. They are needed for `size_bands`, `sizes` and `cells`.
        size_bands (np.ndarray): Objects per band between the limits `SIZE_BANDS`; the last band has no upper limit.
        sizes (np.ndarray): Objects per bin of `SIZE_EDGES`.
        cells (dict[int, Counter[int]]): By stride: number of objects by the number of centres in their LL cell, their
            own included.
        findings (dict[str, Finding]): By kind.
    """

    images: int
    class_counts: np.ndarray
    measured: bool
    kept: int = 0
    background: int = 0
    lost_objects: int = 0
    objects_per_image: Counter[int] = field(default_factory=Counter)
    size_bands: np.ndarray = field(default_factory=lambda: np.zeros(len(SIZE_BANDS) + 1, np.int64))
    sizes: np.ndarray = field(default_factory=lambda: np.zeros(len(SIZE_EDGES) - 1, np.int64))
    cells: dict[int, Counter[int]] = field(default_factory=dict)
    findings: dict[str, Finding] = field(default_factory=lambda: defaultdict(Finding))

    @property
    def objects(self) -> int:
        """Number of objects in kept images."""
        return int(self.class_counts.sum())

    def median_objects(self) -> float:
        """Return the median number of objects per kept image; 0 without images."""
        return float(median(self.objects_per_image.elements())) if self.objects_per_image else 0.0

    def most_objects(self) -> int:
        """Return the largest number of objects in one kept image."""
        return max(self.objects_per_image, default=0)

    def crowded_share(self, stride: int) -> float:
        """Return the share of objects that share their LL cell with another object's centre, 0 to 1."""
        counts = self.cells[stride]
        return 1 - counts[1] / counts.total() if counts else 0.0

    def most_in_cell(self, stride: int) -> int:
        """Return the largest number of centres in one LL cell."""
        return max(self.cells[stride], default=0)


@dataclass
class Inspection:
    """Results for a data set: a report per split, and shared images by the names of the two splits."""

    splits: dict[str, SplitReport]
    shared: dict[tuple[str, str], Finding]

    @property
    def has_errors(self) -> bool:
        """Whether training would stop, or lose images or labels."""
        return any(
            KINDS[kind].error and finding.count
            for report in self.splits.values()
            for kind, finding in report.findings.items()
        )
