"""The common form of all data set formats before they are written as YOLO labels, and an account of a conversion."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol, TypedDict

from ds2d2_yolo.errors import DS2D2Error

OnError = Literal["stop", "skip"]
Kind = Literal["image", "object"]
Task = Literal["detect", "obb"]


class Omission(TypedDict):
    """An entry of the source that is not in the result."""

    file: str  # relative to the source where possible
    line: int | None  # line of the file, or number of the object in it, from 1
    kind: Kind
    reason: str  # always the same words for the same reason
    count: int


@dataclass(frozen=True, slots=True)
class Annotation:
    """One object, as in its source.

    Attributes:
        name (str): Class, spelled as in the source.
        points (tuple[float, ...]): Pixels of the source image. A horizontal box has four numbers x1, y1, x2, y2. An
            oriented box has eight numbers x1, y1, ... x4, y4: its corners in the order of the source.
        difficult (int): Degree of difficulty in the source; 0 if it has none.
        crowd (bool): Whether it is a group, or is to be ignored (`iscrowd`, `ignore` of COCO).
        line (int | None): Line of the label file, or number of the object in it, from 1.
    """

    name: str
    points: tuple[float, ...]
    difficult: int = 0
    crowd: bool = False
    line: int | None = None

    @property
    def box(self) -> tuple[float, float, float, float]:
        """The horizontal box, or the hull of the oriented box, as x1, y1, x2, y2 in pixels of the source image.

        Example:
            >>> Annotation("ship", (0.0, 2.0, 4.0, 0.0, 6.0, 3.0, 1.0, 5.0)).box
            (0.0, 0.0, 6.0, 5.0)
        """
        xs, ys = self.points[0::2], self.points[1::2]
        return min(xs), min(ys), max(xs), max(ys)

    @property
    def corners(self) -> tuple[float, ...]:
        """The corners, eight numbers. Those of a horizontal box go clockwise from the top left.

        Example:
            >>> Annotation("ship", (0.0, 0.0, 4.0, 2.0)).corners
            (0.0, 0.0, 4.0, 0.0, 4.0, 2.0, 0.0, 2.0)
        """
        if len(self.points) == 8:
            return self.points
        x1, y1, x2, y2 = self.points
        return x1, y1, x2, y1, x2, y2, x1, y2


@dataclass(slots=True)
class AnnotatedImage:
    """One image and its objects.

    Attributes:
        name (str): Name of the image without folder and suffix; unique in its split.
        labels (Path): The label file, or the file with the labels of all images.
        image (Path): The image file.
        size (tuple[int, int] | None): Width and height in pixels, as stated in the labels; None if not stated.
        objects (list[Annotation]): Its objects. An image without objects is valid.
        labelled (bool): False if the labels of the split are not published, as for DOTA's test images. Then `objects`
            is empty, and `labels` is the image file.
    """

    name: str
    labels: Path
    image: Path
    size: tuple[int, int] | None
    objects: list[Annotation] = field(default_factory=list)
    labelled: bool = True


class Reader(Protocol):
    """Reads one data set in its original layout, image by image: memory does not grow with the data set."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """Classes in the order of their numbers."""
        ...

    def splits(self) -> Mapping[str, int]:
        """Return the number of images of every split, for the progress bar."""
        ...

    def read(self, split: str) -> Iterator[AnnotatedImage]:
        """Yield the images of a split in a fixed order.

        The reader enters every image and object that it yields into its `Account`, and everything that it cannot read.
        The writer later adds what it leaves out.
        """
        ...


@dataclass
class Account:
    """Counts the images and objects of a conversion: found, written, and left out with place and reason.

    The number found equals the number written plus the number left out (`check_balance`).

    Args:
        on_error (OnError): A malformed file stops the conversion (`stop`), or is left out and listed (`skip`).

    Attributes:
        entered (Counter[str]): Number found in the source, by kind: `image` or `object`.
        written (Counter[str]): Number in the result, by kind.
        left_out (list[Omission]): One entry per file, line and reason.
        remarks (dict[str, list[str]]): Entries that were not read literally, with their places `file:line`.

    Example:
        >>> account = Account()
        >>> account.enter("object")
        >>> account.enter("object")
        >>> account.write("object")
        >>> account.leave_out("object", Path("04137.xml"), "no area", line=3)
        >>> account.check_balance()
        >>> account.reasons()
        {('object', 'no area'): 1}
    """

    on_error: OnError = "stop"
    entered: Counter[str] = field(default_factory=Counter)
    written: Counter[str] = field(default_factory=Counter)
    left_out: list[Omission] = field(default_factory=list)
    remarks: dict[str, list[str]] = field(default_factory=dict)

    def enter(self, kind: Kind) -> None:
        """Count an image or object of the source."""
        self.entered[kind] += 1

    def write(self, kind: Kind, count: int = 1) -> None:
        """Count images or objects of the result."""
        self.written[kind] += count

    def leave_out(
        self,
        kind: Kind,
        file: Path | str,
        reason: str,
        line: int | None = None,
        count: int = 1,
    ) -> None:
        """Add something that is left out because of an option, or because it is not a valid object.

        Args:
            kind (Kind): `image` or `object`.
            file (Path | str): Its file, relative to the source where possible.
            reason (str): Always the same words for the same reason.
            line (int | None): Line of the file, or number of the object in it, from 1.
            count (int): Number of images or objects.
        """
        self.left_out.append({"file": str(file), "line": line, "kind": kind, "reason": reason, "count": count})

    def malformed(self, kind: Kind, file: Path | str, reason: str, line: int | None = None, detail: str = "") -> None:
        """Stop at something that cannot be read, or leave it out with `on_error="skip"`.

        Args:
            kind (Kind): As for `leave_out`.
            file (Path | str): As for `leave_out`.
            reason (str): As for `leave_out`.
            line (int | None): As for `leave_out`.
            detail (str): Added to the reason in the message.

        Raises:
            DS2D2Error: With `on_error="stop"`: one line with file, line and reason.
        """
        if self.on_error == "stop":
            place = f"{file}:{line}" if line is not None else str(file)
            reason = f"{reason} ({detail})" if detail else reason
            raise DS2D2Error(f"{place}: {reason}; correct it, or pass on_error=skip to leave it out and list it")
        self.leave_out(kind, file, reason, line)

    def remark(self, what: str, file: Path | str, line: int | None = None) -> None:
        """Add something that is in the result, but was not read literally.

        Args:
            what (str): Always the same words for the same thing; in the message they follow a number.
            file (Path | str): As for `leave_out`.
            line (int | None): As for `leave_out`.
        """
        self.remarks.setdefault(what, []).append(f"{file}:{line}" if line is not None else str(file))

    def notes(self) -> list[str]:
        """Return one line per kind of remark."""
        return [
            f"{len(places)} {what}: {places[0]}{f' and {len(places) - 1} more' if len(places) > 1 else ''}"
            for what, places in self.remarks.items()
        ]

    def reasons(self) -> dict[tuple[str, str], int]:
        """Return the number of images and objects left out, by kind and reason."""
        totals: Counter[tuple[str, str]] = Counter()
        for entry in self.left_out:
            totals[entry["kind"], entry["reason"]] += entry["count"]
        return dict(totals)

    def check_balance(self) -> None:
        """Raise `AssertionError` if something is neither written nor listed: a bug of this package."""
        for kind in ("image", "object"):
            lost = sum(entry["count"] for entry in self.left_out if entry["kind"] == kind)
            if self.entered[kind] != self.written[kind] + lost:
                raise AssertionError(
                    f"{self.entered[kind]} {kind}s were found, {self.written[kind]} written and {lost} listed"
                )
