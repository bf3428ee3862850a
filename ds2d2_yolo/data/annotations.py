"""What every data set format is turned into before it is written as YOLO labels, and an account of what is left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol, TypedDict

from ds2d2_yolo.errors import DS2D2Error

OnError = Literal["stop", "skip"]
Kind = Literal["image", "object"]


class Omission(TypedDict):
    """Something that came in and did not go out."""

    file: str  # relative to the source where possible
    line: int | None  # of the file, or number of the object in it, from 1
    kind: Kind
    reason: str  # a few words that are the same for the same reason
    count: int


@dataclass(frozen=True, slots=True)
class Annotation:
    """One object, as its source has it.

    Attributes:
        name (str): Class, as the source spells it.
        points (tuple[float, ...]): Pixels of the source image: four numbers x1, y1, x2, y2 of a horizontal box, or
            eight numbers x1, y1, ... x4, y4 of the corners of an oriented one, in the source's order.
        difficult (int): The source's degree of difficulty; 0 where it has none.
        crowd (bool): Whether it stands for a group, or for something to be ignored (`iscrowd`, `ignore` of COCO).
        line (int | None): Line of the label file, or number of the object in it, from 1.
    """

    name: str
    points: tuple[float, ...]
    difficult: int = 0
    crowd: bool = False
    line: int | None = None

    @property
    def box(self) -> tuple[float, float, float, float]:
        """The horizontal box, or the hull of the oriented one, as x1, y1, x2, y2 in pixels of the source image.

        Example:
            >>> Annotation("ship", (0.0, 2.0, 4.0, 0.0, 6.0, 3.0, 1.0, 5.0)).box
            (0.0, 0.0, 6.0, 5.0)
        """
        if len(self.points) == 4:
            x1, y1, x2, y2 = self.points
            return x1, y1, x2, y2
        xs, ys = self.points[0::2], self.points[1::2]
        return min(xs), min(ys), max(xs), max(ys)

    @property
    def corners(self) -> tuple[float, ...]:
        """Eight numbers: the corners of the oriented box, or those of the horizontal one, clockwise from the top left.

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
        labels (Path): The label file, or the file that holds the labels of all images.
        image (Path | None): The image file; None where there is none.
        size (tuple[int, int] | None): Width and height in pixels as the labels state them; None where they do not.
        objects (list[Annotation]): Its objects; an image without any is a valid one.
        labelled (bool): False where the labels of the split are not published, as those of DOTA's test images; then
            nothing is known about its objects, and `labels` is the image file.
    """

    name: str
    labels: Path
    image: Path | None
    size: tuple[int, int] | None
    objects: list[Annotation] = field(default_factory=list)
    labelled: bool = True


class Reader(Protocol):
    """Reads one data set in its original layout, image by image, so that memory does not grow with the data set."""

    layout: str
    """Name of the layout for people, such as `DIOR`."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """Classes in the order in which they are numbered."""
        ...

    def splits(self) -> Mapping[str, int]:
        """Return the number of images of every split, for the progress bar."""
        ...

    def read(self, split: str) -> Iterator[AnnotatedImage]:
        """Yield the images of a split in a fixed order.

        The reader notes in its `Account` each image that it yields and each object in it, and whatever it can not
        read; the writer notes what it leaves out afterwards.
        """
        ...


@dataclass
class Account:
    """Keeps count of a conversion: what came in, what went out, and what did not, where and why.

    For images and for objects alike, what came in equals what went out plus what was left out (`check_balance`).

    Args:
        on_error (OnError): What a malformed file does: `stop` the conversion, or be left out and listed (`skip`).

    Attributes:
        entered (Counter[str]): Number of `images` and `objects` found in the source.
        written (Counter[str]): Number of `images` and `objects` in the result.
        left_out (list[Omission]): One entry per file, line and reason.
        remarks (dict[str, list[str]]): What was read otherwise than it is written, and where: `file:line`.

    Example:
        >>> account = Account()
        >>> account.enter("object", 2)
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

    def enter(self, kind: Kind, count: int = 1) -> None:
        """Count what was found in the source."""
        self.entered[kind] += count

    def write(self, kind: Kind, count: int = 1) -> None:
        """Count what was written to the result."""
        self.written[kind] += count

    def leave_out(
        self,
        kind: Kind,
        file: Path | str,
        reason: str,
        line: int | None = None,
        count: int = 1,
    ) -> None:
        """Note something that came in and is not carried over, by an option or because it is no object at all.

        Args:
            kind (Kind): `image` or `object`.
            file (Path | str): The file that it is in, relative to the source where possible.
            reason (str): A few words that are the same for the same reason.
            line (int | None): Line of the file, or number of the object in it, from 1.
            count (int): How many.
        """
        self.left_out.append({"file": str(file), "line": line, "kind": kind, "reason": reason, "count": count})

    def malformed(
        self, kind: Kind, file: Path | str, reason: str, line: int | None = None, count: int = 1, detail: str = ""
    ) -> None:
        """Stop at something that cannot be read, or leave it out where the user asked for that.

        Args:
            kind (Kind): As for `leave_out`.
            file (Path | str): As for `leave_out`.
            reason (str): As for `leave_out`.
            line (int | None): As for `leave_out`.
            count (int): As for `leave_out`.
            detail (str): What the message says beyond the reason.

        Raises:
            DS2D2Error: With `on_error="stop"`: one line that names file, line and reason.
        """
        if self.on_error == "stop":
            place = f"{file}:{line}" if line is not None else str(file)
            reason = f"{reason} ({detail})" if detail else reason
            raise DS2D2Error(f"{place}: {reason}; mend it, or pass on_error=skip to leave it out and list it")
        self.leave_out(kind, file, reason, line, count)

    def remark(self, what: str, file: Path | str, line: int | None = None) -> None:
        """Note something that is carried over, but was read otherwise than it is written.

        Args:
            what (str): A few words that are the same for the same thing, as they follow a number.
            file (Path | str): As for `leave_out`.
            line (int | None): As for `leave_out`.
        """
        self.remarks.setdefault(what, []).append(f"{file}:{line}" if line is not None else str(file))

    def notes(self) -> list[str]:
        """Return a line for each kind of remark."""
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
        """Raise `AssertionError` unless everything that came in went out or is listed: a mistake in this package."""
        for kind in ("image", "object"):
            lost = sum(entry["count"] for entry in self.left_out if entry["kind"] == kind)
            if self.entered[kind] != self.written[kind] + lost:
                raise AssertionError(
                    f"{self.entered[kind]} {kind}s came in, {self.written[kind]} were written and {lost} listed"
                )
