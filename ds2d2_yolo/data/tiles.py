"""Cuts large images into tiles: windows, their objects and pixels, and the map back to the source.

Windows are placed as in the DOTA devkit and in Ultralytics. docs/datasets/tiles.md lists the differences.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import cv2
import numpy as np
import shapely
from PIL import Image, ImageOps, TiffImagePlugin
from ultralytics.data.split_dota import get_windows

from ds2d2_yolo.data.annotations import AnnotatedImage, Annotation, Task
from ds2d2_yolo.data.depth import Stretch
from ds2d2_yolo.data.formats.geometry import place
from ds2d2_yolo.errors import DS2D2Error
from ds2d2_yolo.files import refuse_unusable

TILE_MAP = "tiles.jsonl"
"""Name of the tile map in the folder of a converted data set."""

UNREADABLE = "not an image that can be read"

_FORMAT = 1  # of the tile map
_LARGEST = 2**31  # pixels: no image format has more
_LEAST = 10  # pixels: Ultralytics refuses smaller images
_JPEG = (".jpg", ".jpeg")
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # first bytes; + is for files above 4 GiB
_SUBFILE, _WIDTH, _HEIGHT, _PHOTOMETRIC, _SAMPLES, _EXTRA_SAMPLES = 254, 256, 257, 262, 277, 338  # tags of TIFF
_PAGES = 1000  # of a TIFF that are looked at
_CODED = (3, 5, 6, 8)  # palette, CMYK, YCbCr and Lab: decoders make three colours of them
_SLACK = 1e-9  # share of an area: tolerance of `min_visible` for rounding
_FUZZ = 1e-6  # pixels: tolerance of the side of a window for rounding


class UnsuitableImageError(DS2D2Error):
    """An image that cannot be cut or stretched.

    Args:
        path (Path): The image.
        reason (str): Always the same words for the same reason.
        advice (str): What to do.
        detail (str): Added to the reason in the message.
    """

    def __init__(self, path: Path, reason: str, advice: str, detail: str = "") -> None:
        super().__init__(f"{path}: {reason}{detail and f' ({detail})'}; {advice}")
        self.reason = reason


@dataclass(frozen=True)
class TileSettings:
    """Settings of the tiles.

    Attributes:
        patch (int): Side of a tile in pixels of the resampled image, 32 or more.
        overlap (int): Least number of pixels that neighbouring tiles share, less than `patch`. Smaller objects are
            complete in at least one tile.
        scales (tuple[float, ...]): The image is resampled by each factor before it is cut; each from 0.05 to 20.
        min_visible (float): Share of an object's area that a tile must show to label it, above 0 and up to 1.
        empty (str): Tiles without objects: `keep` or `drop`.
        cut (str): Objects that no tile shows enough of: `drop` them, or keep the part in the `best` tile.

    Raises:
        DS2D2Error: If a value is out of its range.

    Example:
        >>> TileSettings(scales=(0.5, 1.0, 1.5)).overlap
        200
    """

    patch: int = 1024
    overlap: int = 200
    scales: tuple[float, ...] = (1.0,)
    min_visible: float = 0.7
    empty: Literal["keep", "drop"] = "keep"
    cut: Literal["drop", "best"] = "drop"

    def __post_init__(self) -> None:
        for name in ("patch", "overlap"):
            if not isinstance(value := getattr(self, name), int) or isinstance(value, bool):
                raise DS2D2Error(f"{name}={value}: expected a whole number of pixels", 2)
        if self.patch < 32:
            raise DS2D2Error(f"patch={self.patch}: tiles need 32 pixels; pass for example patch=1024", 2)
        if not 0 <= self.overlap < self.patch:
            raise DS2D2Error(
                f"overlap={self.overlap}: must be 0 or more and less than patch={self.patch}; pass for example "
                f"overlap={self.patch // 5}",
                2,
            )
        if not self.scales or not all(0.05 <= scale <= 20 for scale in self.scales):
            raise DS2D2Error(
                f"scales={list(self.scales)}: pass one or more numbers from 0.05 to 20, such as scales=[0.5,1.0]", 2
            )
        if len({_scale_word(scale) for scale in self.scales}) < len(self.scales):
            raise DS2D2Error(f"scales={list(self.scales)}: a scale is given twice; leave one out", 2)
        if not 0 < self.min_visible <= 1:
            raise DS2D2Error(
                f"min_visible={self.min_visible}: must be above 0 and up to 1; pass for example min_visible=0.7", 2
            )
        for name, choices in (("empty", ("keep", "drop")), ("cut", ("drop", "best"))):
            if getattr(self, name) not in choices:
                raise DS2D2Error(f"{name}={getattr(self, name)}: choose {' or '.join(choices)}", 2)


@dataclass(frozen=True, slots=True)
class Tile:
    """One window of an image.

    Attributes:
        name (str): `{source}__{scale}__{left}___{top}`, left and top in pixels of the resampled image, as in the DOTA
            devkit. Name of the tile's files without their suffix.
        source (str): Name of its source image.
        window (tuple[float, float, float, float]): x, y, width and height of the visible area, in pixels of the source.
            Whole numbers at scale 1.
        size (tuple[int, int]): Width and height of the tile in its own pixels.
        scale (float): Factor by which the image was resampled.
        objects (tuple[Annotation, ...]): Labelled objects, in pixels of the tile. `detect` has boxes (four numbers).
            `obb` has corners (eight), which may be outside. Class, difficulty and line are those of the source.
    """

    name: str
    source: str
    window: tuple[float, float, float, float]
    size: tuple[int, int]
    scale: float
    objects: tuple[Annotation, ...] = ()


@dataclass(frozen=True, slots=True)
class CutImage:
    """The tiles of one image.

    Attributes:
        name (str): Name of the source image.
        size (tuple[int, int]): Its width and height in pixels.
        tiles (list[Tile]): By scale, from left to right, in each column from top to bottom.
        lost (list[tuple[Annotation, str]]): Objects that no tile labels, unchanged, with the reason.
        deep (bool): Whether the image has more than 8 bits per value.
    """

    name: str
    size: tuple[int, int]
    tiles: list[Tile]
    lost: list[tuple[Annotation, str]]
    deep: bool = False


def cut_tiles(image: AnnotatedImage, size: tuple[int, int], settings: TileSettings, task: Task) -> CutImage:
    """Place the windows over an image and assign its objects to the tiles.

    A tile labels an object if it shows at least the share `min_visible` of the area inside the image. For `detect`, the
    label of a cut object is the box around its visible part. For `obb` the object keeps its corners, also outside of
    the tile: see `formats.geometry.place`.

    Args:
        image (AnnotatedImage): The image's name and objects. All objects are used.
        size (tuple[int, int]): Width and height of the image in pixels.
        settings (TileSettings): How to cut.
        task (str): `detect` or `obb`.

    Returns:
        (CutImage): Tiles and lost objects. Each object of the image is in one tile or more, or it is lost.

    Example:
        >>> ship = Annotation("ship", (1000.0, 10.0, 1100.0, 60.0))
        >>> image = AnnotatedImage("P1", Path("P1.txt"), Path("P1.png"), None, [ship])
        >>> cut = cut_tiles(image, (1800, 900), TileSettings(), "detect")
        >>> [(tile.name, [item.points for item in tile.objects]) for tile in cut.tiles]
        [('P1__1__0___0', []), ('P1__1__776___0', [(224.0, 10.0, 324.0, 60.0)])]
    """
    placed = [place(item, *size, oriented=True) for item in image.objects]
    lost = [(item, reason) for item, reason in zip(image.objects, placed, strict=True) if isinstance(reason, str)]
    objects = [item for item, reason in zip(image.objects, placed, strict=True) if not isinstance(reason, str)]
    frames = [frame for scale in settings.scales for frame in _frames(image.name, size, scale, settings)]
    corners = np.array([item.corners for item in objects], dtype=np.float64).reshape(-1, 4, 2)
    # The hulls: some quadrilaterals cross themselves or are not convex.
    outlines = shapely.intersection(shapely.convex_hull(shapely.polygons(corners)), shapely.box(0, 0, *size))
    frame_of, item_of, share, box = _visible_parts(outlines, frames)
    kept = share >= settings.min_visible - _SLACK
    if settings.cut == "best":
        for item in np.setdiff1d(item_of, item_of[kept]):
            candidates = np.flatnonzero(item_of == item)
            kept[candidates[share[candidates].argmax()]] = True

    found: list[list[Annotation]] = [[] for _ in frames]
    labelled = np.zeros(len(objects), dtype=bool)
    for pair in np.flatnonzero(kept):
        number, item = frame_of[pair], item_of[pair]
        label = _label(objects[item], box[pair], frames[number], task)
        if label is not None:
            found[number].append(label)
            labelled[item] = True
    too_little = f"less than {100 * settings.min_visible:g} % visible in every tile"
    lost += [(objects[item], too_little) for item in np.flatnonzero(~labelled)]
    tiles = [replace(frame, objects=tuple(items)) for frame, items in zip(frames, found, strict=True)]
    if settings.empty == "drop":
        tiles = [tile for tile in tiles if tile.objects]
    return CutImage(image.name, size, tiles, lost)


def write_tiles(
    image: AnnotatedImage, settings: TileSettings, task: Task, folder: Path, stretch: Stretch | None = None
) -> CutImage:
    """Cut an image and write its tiles: `folder/<name of the tile>.png`, or `.jpg` if the source is a JPEG.

    The image is decoded once and kept in memory with one resampled copy. Tiles have the depth (8 or 16 bits) and the
    channels of the image.

    Args:
        image (AnnotatedImage): The image, with its file, and the objects to label.
        settings (TileSettings): How to cut.
        task (str): `detect` or `obb`.
        folder (Path): An existing folder.
        stretch (Stretch | None): Converts an image with more than 8 bits to 8 before it is cut. None: no conversion.

    Returns:
        (CutImage): As from `cut_tiles`. Its size is that of the pixels, not the one stated in the labels.

    Raises:
        DS2D2Error: If the image cannot be read, or tiles of its kind cannot be written.
    """
    pixels = read_pixels(image.image)
    deep = pixels.dtype != np.uint8
    if deep and stretch:
        pixels = stretch(pixels)
    height, width = pixels.shape[:2]
    smallest = min(settings.scales)
    if min(_resampled_size((width, height), smallest)) < _LEAST:
        reason = f"less than {_LEAST} pixels at scale {smallest:g}, which Ultralytics refuses"
        raise UnsuitableImageError(image.image, reason, "pass larger scales=")
    cut = replace(cut_tiles(image, (width, height), settings, task), deep=deep)
    if pixels.dtype not in (np.uint8, np.uint16):
        reason = f"pixels of type {pixels.dtype}"
        raise UnsuitableImageError(image.image, reason, "pass stretch=2,98 to make 8 bits of them")
    # A JPEG has 8 bits, whatever the name of the source says.
    suffix = ".jpg" if image.image.suffix.lower() in _JPEG and pixels.dtype == np.uint8 else ".png"
    for scale in settings.scales:
        tiles = [tile for tile in cut.tiles if tile.scale == scale]
        if tiles:
            resampled = _resample(pixels, scale)
        for tile in tiles:
            left, top = _offset(tile)
            shown = resampled[top : top + tile.size[1], left : left + tile.size[0]]
            # Encoded in memory: OpenCV's own writer fails silently, for example on paths that are not ASCII.
            done, data = cv2.imencode(suffix, shown)
            if not done:
                raise DS2D2Error(
                    f"{image.image}: a tile of {tile.size[0]} x {tile.size[1]} pixels cannot be written; pass a "
                    "lower patch=",
                    2,
                )
            (folder / f"{tile.name}{suffix}").write_bytes(data.tobytes())
    return cut


def read_pixels(path: Path) -> np.ndarray:
    """Read an image of any size, rotated by its EXIF tag and without transparency, as Ultralytics' trainers do.

    Args:
        path (Path): PNG, JPEG, TIFF, BMP or another format of OpenCV or Pillow.

    Returns:
        (np.ndarray): (H, W) grey, or (H, W, 3) in the order blue, green, red; uint8, uint16, or as stored.

    Raises:
        UnsuitableImageError: If it cannot be read, or if it is a TIFF with other bands than grey or three colours.
    """
    try:
        data = np.fromfile(path, np.uint8)
    except OSError as error:
        raise UnsuitableImageError(
            path, "cannot be read", "check its permissions", error.strerror or str(error)
        ) from None
    if surplus := _surplus_bands(path):
        advice = (
            "make images of 1 or 3 bands, such as with 'gdal_translate -b 1 -b 2 -b 3', or keep all bands with patch=0 "
            "and without stretch="
        )
        raise UnsuitableImageError(
            path, "a TIFF with more bands than are kept in tiles or by stretch=", advice, surplus
        )
    try:
        pixels = cv2.imdecode(data, cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH)
    except cv2.error:  # an empty file, or more pixels than OPENCV_IO_MAX_IMAGE_PIXELS allows
        pixels = None
    if pixels is not None:
        return np.asarray(pixels)
    try:
        with _no_size_limit(), Image.open(path) as image:
            upright = ImageOps.exif_transpose(image)
            if upright.mode in ("L", "I;16", "I;16B"):
                return np.asarray(upright)
            return np.ascontiguousarray(np.asarray(upright.convert("RGB"))[..., ::-1])
    except (OSError, SyntaxError, ValueError, ImportError):  # ImportError: Ultralytics looks for a HEIF decoder
        raise UnsuitableImageError(path, UNREADABLE, "replace or remove it") from None


def _surplus_bands(path: Path) -> str:
    """Return how many bands or pages a TIFF has, if decoders would read only some of them; else an empty text."""
    sizes: list[tuple[object, object]] = []
    bands, seen = 0, set[int]()
    try:
        with path.open("rb") as file:
            head = file.read(4)
            if head not in _TIFF:
                return ""
            page = TiffImagePlugin.ImageFileDirectory_v2(head + file.read(12 if b"+" in head else 4))
            while page.next and page.next not in seen and len(seen) < _PAGES:
                seen.add(page.next)
                file.seek(page.next)
                page.load(file)
                if not page.get(_SUBFILE, 0):  # not a smaller copy, and not a mask
                    sizes.append((page.get(_WIDTH), page.get(_HEIGHT)))
                    alpha = sum(value in (1, 2) for value in page.get(_EXTRA_SAMPLES, ()))
                    coded = page.get(_PHOTOMETRIC, 1) in _CODED
                    bands = bands or (3 if coded else page.get(_SAMPLES, 1) - alpha)
    except Exception:  # damaged tags raise a dozen kinds; the decoder reports the file
        return ""
    pages = sizes.count(sizes[0]) if sizes else 1
    return f"{pages} pages" if pages > 1 else f"{bands} bands" if bands not in (0, 1, 3) else ""


@contextmanager
def _no_size_limit() -> Iterator[None]:
    """Let Pillow open images of any size: it refuses those of DOTA as attacks."""
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def _resample(pixels: np.ndarray, scale: float) -> np.ndarray:
    if scale == 1:
        return pixels
    size = _resampled_size((pixels.shape[1], pixels.shape[0]), scale)
    try:
        return cv2.resize(pixels, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    except cv2.error:
        raise DS2D2Error(
            f"scales: an image of {size[0]} x {size[1]} pixels at scale {scale:g} needs too much memory; leave this "
            "scale out",
            2,
        ) from None


# ------------------------------------------------------------------------------------------------ windows


def _frames(name: str, size: tuple[int, int], scale: float, settings: TileSettings) -> Iterator[Tile]:
    """Yield the tiles of one scale, without objects."""
    width, height = _resampled_size(size, scale)
    # One window size per call and no threshold: otherwise windows that show little of a small image are left out.
    windows = get_windows((height, width), (settings.patch,), (settings.overlap,), im_rate_thr=0.0)
    for left, top, right, bottom in windows.tolist():
        shown = min(right, width) - left, min(bottom, height) - top
        zoom_x, zoom_y = size[0] / width, size[1] / height
        window = (left * zoom_x, top * zoom_y, shown[0] * zoom_x, shown[1] * zoom_y)
        yield Tile(f"{name}__{_scale_word(scale)}__{left}___{top}", name, window, shown, scale)


def _resampled_size(size: tuple[int, int], scale: float) -> tuple[int, int]:
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _offset(tile: Tile) -> tuple[int, int]:
    """Return the left and top edge of a tile, in pixels of the resampled image."""
    x, y, width, height = tile.window
    return round(x * tile.size[0] / width), round(y * tile.size[1] / height)


def _scale_word(scale: float) -> str:
    return f"{scale:g}"


# ------------------------------------------------------------------------------------------------ objects


def _visible_parts(
    outlines: np.ndarray, frames: Sequence[Tile]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return which tile shows which object, with the share and the position of the visible part.

    Args:
        outlines (np.ndarray): (N,) convex polygons of Shapely, in pixels of the source.
        frames (Sequence[Tile]): The tiles.

    Returns:
        tiles (np.ndarray): For P pairs of a tile and a visible object: number of the tile (P,). Pairs are in the order
            of the tiles, then of the objects.
        objects (np.ndarray): Number of the object (P,).
        shares (np.ndarray): Visible share of the object's area (P,), above 0 and up to 1.
        boxes (np.ndarray): Box around the visible part (P, 2, 2): top left and bottom right in pixels of the source.
    """
    areas, hulls = shapely.area(outlines), shapely.bounds(outlines).reshape(-1, 2, 2)
    items, shares, boxes = [], [], []
    for frame in frames:
        start, stop = _bounds(frame)
        near = np.flatnonzero((areas > 0) & (hulls[:, 0] < stop).all(axis=1) & (hulls[:, 1] > start).all(axis=1))
        share, box = np.ones(len(near)), hulls[near]
        cut = ((box[:, 0] < start - _FUZZ) | (box[:, 1] > stop + _FUZZ)).any(axis=1)
        shown = shapely.intersection(outlines[near[cut]], shapely.box(*start, *stop))
        share[cut] = shapely.area(shown) / areas[near[cut]]
        box[cut] = shapely.bounds(shown).reshape(-1, 2, 2)
        items.append(near[share > 0])
        shares.append(share[share > 0])
        boxes.append(box[share > 0])
    numbers = np.repeat(np.arange(len(frames)), [len(item) for item in items])
    return numbers, np.concatenate(items), np.concatenate(shares), np.concatenate(boxes)


def _label(item: Annotation, box: np.ndarray, frame: Tile, task: Task) -> Annotation | None:
    """Return the label of an object in a tile, in pixels of the tile.

    Args:
        item (Annotation): The object, in pixels of the source.
        box (np.ndarray): (2, 2) the box around its visible part, top left and bottom right.
        frame (Tile): The tile.
        task (str): `detect` or `obb`.

    Returns:
        (Annotation | None): None if the visible part has no area or position at the tile's scale.
    """
    start, stop = _bounds(frame)
    points = np.array(item.corners).reshape(4, 2) if task == "obb" else box
    label = replace(item, points=tuple(((points - start) * (frame.size / (stop - start))).ravel().tolist()))
    shares = place(label, *frame.size, oriented=task == "obb")
    if isinstance(shares, str):
        return None
    if task == "obb":  # other corners than before if too much of the object is outside
        label = replace(label, points=tuple((np.array(shares).reshape(4, 2) * frame.size).ravel().tolist()))
    return label


def _bounds(frame: Tile) -> tuple[np.ndarray, np.ndarray]:
    """Return the top left and the bottom right corner of a tile's window, (2,) float64, pixels of the source."""
    x, y, width, height = frame.window
    return np.array([x, y]), np.array([x + width, y + height])


# ---------------------------------------------------------------------------------------------------- map


class TileMapWriter:
    """Writes the tile map of a data set, image by image. A context manager: its end closes the file.

    The map is a text file of JSON lines, `tiles.jsonl`. The first line has `ds2d2_tiles` (version of the format, 1),
    `task`, `names` (classes in the order of their numbers) and `settings`. Each further line is a source image:

    - `source`: its name
    - `split`
    - `size`: width and height in pixels
    - `tiles`: for each tile `name`, `window` (x, y, width, height in pixels of the source), `size` (width and height in
      its own pixels) and `scale`

    Args:
        folder (Path): Folder of the data set.
        task (str): `detect` or `obb`.
        names (Sequence[str]): Classes in the order of their numbers.
        settings (TileSettings): How the images are cut.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> image = AnnotatedImage("P1", Path("P1.txt"), Path("P1.png"), None)
        >>> with TileMapWriter(folder, "detect", ["ship"], TileSettings()) as tile_map:
        ...     tile_map.add("train", cut_tiles(image, (300, 200), TileSettings(), "detect"))
        >>> read_tile_map(folder).tiles["train"]["P1__1__0___0"].source
        'P1'
    """

    def __init__(self, folder: Path, task: Task, names: Sequence[str], settings: TileSettings) -> None:
        self._file = (folder / TILE_MAP).open("w", encoding="utf-8")
        self._write({"ds2d2_tiles": _FORMAT, "task": task, "names": list(names), "settings": asdict(settings)})

    def add(self, split: str, cut: CutImage) -> None:
        """Append an image of a split."""
        tiles = [
            {"name": tile.name, "window": tile.window, "size": tile.size, "scale": tile.scale} for tile in cut.tiles
        ]
        self._write({"source": cut.name, "split": split, "size": cut.size, "tiles": tiles})

    def __enter__(self) -> TileMapWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def _write(self, entry: Mapping[str, object]) -> None:
        self._file.write(json.dumps(entry) + "\n")


@dataclass(frozen=True, slots=True)
class TileMap:
    """The content of a tile map.

    Attributes:
        task (str): `detect` or `obb`.
        names (tuple[str, ...]): Classes in the order of their numbers.
        tiles (dict[str, dict[str, Tile]]): By split and name; without objects.
    """

    task: Task
    names: tuple[str, ...]
    tiles: dict[str, dict[str, Tile]]


def read_tile_map(folder: Path) -> TileMap:
    """Read the tile map of a data set.

    Args:
        folder (Path): Folder of the data set.

    Returns:
        (TileMap): Its content.

    Raises:
        DS2D2Error: If it is missing, of another version, or damaged. The message has the line.
    """
    path = folder / TILE_MAP
    tiles: dict[str, dict[str, Tile]] = {}
    number = 1
    try:
        refuse_unusable(path)
        with path.open(encoding="utf-8") as lines:
            head = json.loads(next(lines))
            if head["ds2d2_tiles"] != _FORMAT:
                raise DS2D2Error(f"{path}: has version {head['ds2d2_tiles']}, expected {_FORMAT}; convert again")
            task, names = head["task"], tuple(_text(name, "\0\n\r") for name in head["names"])
            if task not in get_args(Task) or not isinstance(head["names"], list):
                raise ValueError
            for line in lines:
                number += 1
                entry = json.loads(line)
                split, source = tiles.setdefault(_text(entry["split"]), {}), _text(entry["source"])
                for item in entry["tiles"]:
                    tile = _tile_of(item, source)
                    if tile.name in split:
                        raise ValueError
                    split[tile.name] = tile
    except FileNotFoundError:
        raise DS2D2Error(f"{path}: no such file; pass data= of a data set made by 'ds2d2 convert patch=1024'") from None
    except OSError as error:
        raise DS2D2Error(f"{path}: cannot be read ({error.strerror or error}); check its permissions") from None
    except DS2D2Error:
        raise
    except (StopIteration, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        raise DS2D2Error(f"{path}:{number}: is not as 'ds2d2 convert' writes it; convert again") from None
    return TileMap(task, names, tiles)


def _tile_of(item: Mapping[str, Any], source: str) -> Tile:
    """Return a tile of the map. Raise an error if the entry has another format."""
    (x, y, width, height), size = map(float, item["window"]), tuple(item["size"])
    columns, rows = size
    scale = float(item["scale"])
    if [type(side) for side in size] != [int, int] or not 0 < min(size) <= max(size) < _LARGEST:
        raise ValueError
    if not all(map(math.isfinite, (x, y, scale))) or not (0 < width < math.inf and 0 < height < math.inf):
        raise ValueError
    return Tile(_text(item["name"]), source, (x, y, width, height), (columns, rows), scale)


def _text(value: object, refused: str = "\0") -> str:
    """Return a text that is a possible file name, or raise an error. `refused` are the characters it must not have."""
    if not isinstance(value, str) or not value.strip() or any(sign in value for sign in refused):
        raise ValueError
    return value
