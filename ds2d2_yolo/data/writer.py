"""Writes and counts the images and labels of a converted data set."""

from __future__ import annotations

import glob
import math
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
from PIL import Image
from ultralytics.data.utils import exif_size
from ultralytics.utils import TQDM

from ds2d2_yolo.data.annotations import Account, AnnotatedImage, Annotation, Reader, Task
from ds2d2_yolo.data.check.images import ends_as_jpeg
from ds2d2_yolo.data.depth import Stretch, is_deep
from ds2d2_yolo.data.formats.geometry import place
from ds2d2_yolo.data.formats.rules import relative
from ds2d2_yolo.data.tiles import (
    UNREADABLE,
    TileMapWriter,
    TileSettings,
    UnsuitableImageError,
    read_pixels,
    write_tiles,
)
from ds2d2_yolo.errors import DS2D2Error
from ds2d2_yolo.files import put_file
from ds2d2_yolo.tables import counted

OTHER_SIZE = "another size than its labels state"

_SMALL_CHANGE = 0.02  # of the size: less would not move a box by much
_ROUNDING = 2.0  # pixels that boxes may be outside of the image: tools count pixels from 0 or from 1


@dataclass(frozen=True)
class OtherSize:
    """An image whose labels state another size. Sizes are width and height in pixels."""

    file: str
    actual: tuple[int, int]
    stated: tuple[int, int]

    def text(self) -> str:
        """Return both sizes as text."""
        return "{} x {} pixels, not {} x {}".format(*self.actual, *self.stated)


@dataclass
class _Tally:
    """The counts of one split."""

    files: int = 0  # written images: those of the source, or tiles
    labels: int = 0  # written lines
    entered: Counter[str] = field(default_factory=Counter)  # images and objects of the source
    written: Counter[str] = field(default_factory=Counter)
    found: Counter[str] = field(default_factory=Counter)  # objects by class
    kept: Counter[str] = field(default_factory=Counter)


class DatasetWriter:
    """Writes the images and labels of all splits into a folder, and counts them."""

    def __init__(
        self,
        folder: Path,
        root: Path,
        reader: Reader,
        account: Account,
        options: Mapping[str, Any],
        tiles: TileSettings | None,
        stretch: Stretch | None = None,
    ) -> None:
        self._folder = folder
        self._root = root
        self._reader = reader
        self._account = account
        self._tiles = tiles
        self._stretch = stretch
        self._deep: list[str] = []  # images with more than 8 bits
        self._task: Task = options["task"]
        self._copy = bool(options["copy"])
        self._keep_crowds = options["crowd"] == "keep"
        self._most_difficult = float({"keep": math.inf, "drop": 0}.get(options["difficult"], options["difficult"]))
        self._numbers = {name: number for number, name in enumerate(reader.class_names)}
        self._tallies: dict[str, _Tally] = {}
        self._put: Counter[str] = Counter()
        self._other_sizes: list[OtherSize] = []

    def write(self) -> None:
        """Write all splits."""
        counts = self._reader.splits()
        progress = TQDM(total=sum(counts.values()), desc="Converting", unit="image", file=sys.stderr)
        with ExitStack() as stack:
            stack.callback(progress.close)
            self._tile_map = (
                stack.enter_context(TileMapWriter(self._folder, self._task, self._reader.class_names, self._tiles))
                if self._tiles
                else None
            )
            for split in counts:
                self._write_split(split, progress.update)
        if not any(tally.files for tally in self._tallies.values()):
            reasons = {reason: n for (kind, reason), n in self._account.reasons().items() if kind == "image"}
            why = max(reasons, key=lambda reason: reasons[reason], default="it has none")
            raise DS2D2Error(f"src={self._root}: not one image can be converted: {why} ({reasons.get(why, 0)} images)")

    def _write_split(self, split: str, advance: Callable[[int], object]) -> None:
        account, tally = self._account, _Tally()
        self._tallies[split] = tally
        folders = [self._folder / kind / split for kind in ("images", "labels")]
        for folder in folders:
            folder.mkdir(parents=True)
        entered, written, shown = account.entered.copy(), account.written.copy(), account.entered["image"]
        for image in self._reader.read(split):
            advance(account.entered["image"] - shown)
            shown = account.entered["image"]
            tally.found.update(item.name for item in image.objects)
            if self._tiles:
                self._write_tiles(image, split, tally)
            else:
                self._write_whole(image, split, tally)
        advance(account.entered["image"] - shown)
        tally.entered, tally.written = account.entered - entered, account.written - written
        for folder in folders:
            if not any(folder.iterdir()):
                folder.rmdir()

    def _write_whole(self, image: AnnotatedImage, split: str, tally: _Tally) -> None:
        """Write an image without cutting it."""
        header = self._header_of(image)
        if header is None:
            return
        size, whole, deep = header
        if deep and not self._write_stretched(image, self._folder / "images" / split):
            return
        lines = []
        for item in self._chosen(image):
            shares = place(item, *size, oriented=self._task == "obb")
            if isinstance(shares, str):
                self._account.leave_out("object", self._shown(image.labels), shares, item.line)
            else:
                lines.append(self._line(item, shares))
                tally.kept[item.name] += 1
        # Some releases of Ultralytics repair a JPEG without end marker in place. A link would change the user's file.
        copy = self._copy or not whole
        if not (deep and self._stretch):
            way = put_file(image.image, self._folder / "images" / split / f"{image.name}{image.image.suffix}", copy)
            self._put[way] += 1
        self._write_labels(lines, split, image.name, image.labelled)
        tally.files += 1
        tally.labels += len(lines)
        self._account.write("image")
        self._account.write("object", len(lines))

    def _write_tiles(self, image: AnnotatedImage, split: str, tally: _Tally) -> None:
        """Write an image as tiles."""
        assert self._tiles is not None
        assert self._tile_map is not None
        folder = self._folder / "images" / split
        # Without published labels it is unknown which tiles are empty.
        settings = self._tiles if image.labelled else replace(self._tiles, empty="keep")
        chosen = replace(image, objects=list(self._chosen(image)))
        try:
            cut = write_tiles(chosen, settings, self._task, folder, self._stretch)
        except UnsuitableImageError as error:
            if self._account.on_error == "stop":
                raise
            self._leave_out_image(chosen, error.reason)
            return
        if not self._fits(chosen, cut.size):
            for tile in cut.tiles:
                next(folder.glob(f"{glob.escape(tile.name)}.*")).unlink()
            return
        if cut.deep:
            self._deep.append(self._shown(image.image))
        for item, reason in cut.lost:
            self._account.leave_out("object", self._shown(image.labels), reason, item.line)
        if not cut.tiles:
            self._account.leave_out("image", self._shown(image.image), "no tile with an object, empty=drop")
            return
        for tile in cut.tiles:
            lines = [self._line(item, _shares(item.points, *tile.size)) for item in tile.objects]
            self._write_labels(lines, split, tile.name, image.labelled)
            tally.labels += len(lines)
        self._tile_map.add(split, cut)
        kept = Counter(item.name for item in chosen.objects) - Counter(item.name for item, _ in cut.lost)
        tally.kept += kept
        tally.files += len(cut.tiles)
        self._account.write("image")
        self._account.write("object", kept.total())

    def _chosen(self, image: AnnotatedImage) -> Iterator[Annotation]:
        """Yield the objects that the options keep."""
        for item in image.objects:
            if item.difficult > self._most_difficult:
                self._account.leave_out("object", self._shown(image.labels), "difficult", item.line)
            elif item.crowd and not self._keep_crowds:
                self._account.leave_out("object", self._shown(image.labels), "a crowd, or to be ignored", item.line)
            else:
                yield item

    def _header_of(self, image: AnnotatedImage) -> tuple[tuple[int, int], bool, bool] | None:
        """Return size, whether the file is complete, and whether it has over 8 bits. None if the image is left out."""
        whole = True
        try:
            with Image.open(image.image) as opened:
                deep = is_deep(opened) or opened.mode in ("I", "F")  # before `exif_size`, which loads a PNG
                size: tuple[int, int] = exif_size(opened)
                if opened.format == "JPEG":
                    whole = ends_as_jpeg(image.image)
        except Image.DecompressionBombError:
            self._leave_out_image(image, "too large to be used uncut, pass patch=1024")
        except (ImportError, OSError, SyntaxError, ValueError):
            # ImportError: for formats that Pillow does not know, Ultralytics imports a plugin that is not installed.
            self._leave_out_image(image, UNREADABLE)
        else:
            if min(size) < 10:
                self._leave_out_image(image, "less than 10 pixels wide or high, which Ultralytics refuses")
            elif self._fits(image, size):
                return size, whole, deep
        return None

    def _fits(self, image: AnnotatedImage, size: tuple[int, int]) -> bool:
        """Compare an image's size with the one stated in its labels. Its own size counts; differences are listed."""
        if image.size is None or image.size == size:
            return True
        sizes, advice = OtherSize(file=self._shown(image.image), actual=size, stated=image.size), ""
        if image.size == size[::-1]:
            reason = f"{OTHER_SIZE}, with the sides swapped"
        elif any(_reaches_out(item, size, image.size) for item in image.objects):
            reason = f"{OTHER_SIZE}, too small for all of its objects"
        elif _is_resized(image.objects, size, image.size):
            reason = f"{OTHER_SIZE}, in the same proportion"
            advice = ": resize the boxes, too, or take the size out of the labels if the boxes fit the image"
        else:
            self._other_sizes.append(sizes)
            return True
        self._leave_out_image(image, reason, sizes.text() + advice)
        return False

    def _write_stretched(self, image: AnnotatedImage, folder: Path) -> bool:
        """List an image with more than 8 bits, and write it with 8 bits if asked for. Return whether it is usable."""
        if self._stretch:
            try:
                pixels = read_pixels(image.image)
            except UnsuitableImageError as error:
                if self._account.on_error == "stop":
                    raise
                self._leave_out_image(image, error.reason)
                return False
            _, data = cv2.imencode(".png", self._stretch(pixels))
            (folder / f"{image.name}.png").write_bytes(data.tobytes())
        self._deep.append(self._shown(image.image))
        return True

    def _leave_out_image(self, image: AnnotatedImage, reason: str, detail: str = "") -> None:
        self._account.malformed("image", self._shown(image.image), reason, detail=detail)
        if image.objects:
            self._account.leave_out("object", self._shown(image.labels), reason, count=len(image.objects))

    def _shown(self, path: Path) -> str:
        return relative(path, self._root)

    def _line(self, item: Annotation, shares: Iterable[float]) -> str:
        return " ".join([str(self._numbers[item.name]), *(f"{share:.8g}" for share in shares)]) + "\n"

    def _write_labels(self, lines: Sequence[str], split: str, name: str, labelled: bool) -> None:
        if labelled:
            path = self._folder / "labels" / split / f"{name}.txt"
            path.write_text("".join(lines), encoding="utf-8", newline="")

    def notes(self) -> list[str]:
        """Return notes for the user, one line each."""
        return [*self._notes_of_depth(), *self._notes_of_sizes()]

    def _notes_of_depth(self) -> list[str]:
        if not self._deep:
            return ["no image has more than 8 bits: stretch= changed nothing"] if self._stretch else []
        images = f"{counted(len(self._deep), 'image')} of more than 8 bits, such as {self._deep[0]}"
        if self._stretch:
            return [f"{images}: stretched to 8 bits by stretch={self._stretch}"]
        return [
            f"{images}. Training reads the upper 8 bits: images that use 11 bits become almost black. Convert into "
            "another folder with stretch=2,98 (percentiles of each band) or stretch=0:2047 (a range)"
        ]

    def _notes_of_sizes(self) -> list[str]:
        if not self._other_sizes:
            return []
        first, number = self._other_sizes[0], len(self._other_sizes)
        return [
            f"{counted(number, 'image')} of another size than the labels state; its own counts. {first.file} has "
            f"{first.text()}{f', {number - 1} more are under other_sizes in the report' if number > 1 else ''}"
        ]

    def report(self) -> dict[str, Any]:
        """Return the counts for `conversion.json`."""
        classes = self._reader.class_names
        account = self._account
        splits = {
            split: {
                "files": tally.files,
                "labels": tally.labels,
                **{f"{kind}s": {"in": tally.entered[kind], "out": tally.written[kind]} for kind in ("image", "object")},
                "classes": {name: {"in": tally.found[name], "out": tally.kept[name]} for name in classes},
            }
            for split, tally in self._tallies.items()
        }
        return {
            "classes": list(classes),
            "splits": splits,
            "images": {"in": account.entered["image"], "out": account.written["image"], "by": dict(self._put)},
            "objects": {"in": account.entered["object"], "out": account.written["object"]},
            "reasons": [
                {"kind": kind, "reason": reason, "count": count} for (kind, reason), count in account.reasons().items()
            ],
            "left_out": account.left_out,
            "deep": {"images": len(self._deep), "stretched": len(self._deep) if self._stretch else 0},
            "remarks": account.remarks,
            "other_sizes": [asdict(sizes) for sizes in self._other_sizes],
        }


def _reaches_out(item: Annotation, size: tuple[int, int], stated: tuple[int, int]) -> bool:
    """Whether an object is further outside of its image than outside of an image with the stated size."""
    return any(
        end - side > max(end - stated_side, 0) + _ROUNDING
        for end, side, stated_side in zip(item.box[2:], size, stated, strict=True)
    )


def _is_resized(objects: Sequence[Annotation], size: tuple[int, int], stated: tuple[int, int]) -> bool:
    """Whether an image was probably resized without its boxes: the same proportion, and all fit the stated size."""
    alike = abs(size[0] * stated[1] - size[1] * stated[0]) <= max(*size, *stated)
    fit = all(end <= side + _ROUNDING for item in objects for end, side in zip(item.box[2:], stated, strict=True))
    return alike and abs(size[0] / stated[0] - 1) > _SMALL_CHANGE and bool(objects) and fit


def _shares(points: Sequence[float], width: int, height: int) -> tuple[float, ...]:
    """Convert the points of an object from pixels of its tile to shares: a box, or the corners."""
    shares = [value / (width, height)[axis % 2] for axis, value in enumerate(points)]
    if len(shares) == 8:
        return tuple(shares)
    x1, y1, x2, y2 = shares
    return (x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1
