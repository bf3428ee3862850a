"""What a data set holds, split by split."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field

import numpy as np

from ds2d2_yolo.data.check.findings import KINDS, Finding

SIZE_BANDS: tuple[float, ...] = (8.0, 16.0, 32.0, 96.0)
"""Borders of the size bands, in pixels: square roots of areas. 32 and 96 are COCO's borders of small, medium, large."""

SIZE_EDGES: np.ndarray = 2.0 ** np.linspace(0, 12, 49)
"""Edges of the size histogram, in pixels, a quarter of an octave apart; its end bins take what lies beyond them."""


@dataclass
class SplitReport:
    """What one split holds.

    Attributes:
        images (int): Images that are listed.
        kept (int): Images that the loader keeps.
        background (int): Kept images without an object.
        lost_objects (int): Label lines of rejected images and of files without image, and boxes without area or
            outside the image.
        class_counts (np.ndarray): Objects of every class in kept images, (classes,) int64.
        objects_per_image (Counter[int]): Number of kept images by their number of objects.
        measured (bool): Whether the sizes of the images are known, and with them `size_bands`, `sizes` and `cells`.
        size_bands (np.ndarray): Objects below each border of `SIZE_BANDS` and not below the one before, then the rest.
        sizes (np.ndarray): Objects per bin of `SIZE_EDGES`.
        cells (dict[int, Counter[int]]): For every stride, the number of objects by how many centres are in the LL
            cell of theirs, their own included.
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
        """Return the median number of objects per kept image; 0 without any image."""
        counts = sorted(self.objects_per_image.items())
        total = sum(number for _, number in counts)
        middle = [_nth(counts, position) for position in ((total - 1) // 2, total // 2)] if total else [0]
        return sum(middle) / len(middle)

    def most_objects(self) -> int:
        """Return the largest number of objects in one kept image."""
        return max(self.objects_per_image, default=0)

    def together(self, stride: int) -> float:
        """Return the share of objects in whose LL cell there is another object's centre, 0 to 1."""
        counts = self.cells[stride]
        return 1 - counts[1] / counts.total() if counts else 0.0

    def most_together(self, stride: int) -> int:
        """Return the largest number of centres in one LL cell."""
        return max(self.cells[stride], default=0)


@dataclass
class Inspection:
    """What a data set holds: a report per split, and images that two splits share, by the names of the two."""

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


def _nth(counts: list[tuple[int, int]], position: int) -> int:
    """Return the value at a position, from 0, of a sorted list given as (value, how often)."""
    for value, number in counts:
        if position < number:
            return value
        position -= number
    raise IndexError(position)
