"""Merges detections of tiles into their source images, and writes them in DOTA's submission format."""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torchvision.ops import nms
from ultralytics.utils import SETTINGS, TQDM, YAML
from ultralytics.utils.metrics import probiou

from ds2d2_yolo.data.tiles import Tile, TileMap, read_tile_map
from ds2d2_yolo.errors import DS2D2Error, message_of, similar_file
from ds2d2_yolo.files import atomic_folder, refuse_unusable
from ds2d2_yolo.options import usable_path
from ds2d2_yolo.resources import resource_folder

_IOU = {False: 0.5, True: 0.3}  # default; the key is whether the boxes are oriented
_BLOCK = 1024  # detections that are compared with all others in one step
_PAIRS = 2_000_000  # pairs per step: limits the memory


@dataclass(frozen=True)
class Merged:
    """Result of a merge.

    Attributes:
        folder (Path): Folder of the files, absolute.
        oriented (bool): Whether the boxes are oriented (Task 1) or horizontal (Task 2).
        tiles (int): Number of tiles with detections.
        images (int): Number of images with detections.
        found (int): Number of detections in the tiles from `min_confidence` on.
        kept (dict[str, int]): Number of written detections, by class.
    """

    folder: Path
    oriented: bool
    tiles: int
    images: int
    found: int
    kept: dict[str, int]


def merge_detections(
    predictions: Path | str,
    data: Path | str,
    out: Path | str,
    split: str | None = None,
    iou: float | None = None,
    min_confidence: float = 0.0,
) -> Merged:
    """Merge detections of tiles into their source images, remove duplicates, and write a DOTA submission.

    Duplicates are removed by non-maximum suppression per class and image, with threshold `iou`. The IoU of oriented
    boxes is Ultralytics' ProbIoU. Boxes whose hulls do not touch are never duplicates.

    `out` gets one file per class, which is empty for a class without detections. Coordinates are pixels of the image:

    - oriented boxes: `Task1_<class>.txt` with lines `image score x1 y1 x2 y2 x3 y3 x4 y4`
    - horizontal boxes: `Task2_<class>.txt` with lines `image score xmin ymin xmax ymax`

    Args:
        predictions (Path | str): `predictions.json` of `yolo val save_json=True`, or the folder of label files of
            `yolo predict save_txt=True save_conf=True`.
        data (Path | str): Folder of the tiled data set, or its data YAML.
        out (Path | str): Folder to make.
        split (str | None): Split of the tiles; None finds it by their names.
        iou (float | None): IoU threshold from 0 to 1; None takes 0.5 for horizontal and 0.3 for oriented boxes.
        min_confidence (float): Less confident detections are removed first, 0 to 1.

    Returns:
        (Merged): Numbers of detections.

    Raises:
        DS2D2Error: If an option is out of range, `out` exists or cannot be written, or the predictions are unreadable
            or for other tiles.

    Example:
        >>> merge_detections("runs/detect/val/predictions.json", "DOTAv1-hbb", "merged").oriented  # doctest: +SKIP
        False
    """
    for name, value in (("iou", iou), ("min_confidence", min_confidence)):
        if value is not None and not (isinstance(value, (int, float)) and 0 <= value <= 1):
            raise DS2D2Error(f"{name}={value}: must be from 0 to 1; pass for example {name}=0.3", 2)
    target = usable_path("out", str(out)).absolute()
    _check_absent(target)
    tile_map = read_tile_map(_folder_of(usable_path("data", str(data))))
    files = _file_words(tile_map.names)
    found = _read(usable_path("predictions", str(predictions)), tile_map, split)
    found = found.where(found.scores >= min_confidence)
    if broken := next((name for name in found.sources if "\n" in name or "\r" in name), None):
        raise DS2D2Error(f"data={data}: the image '{broken}' has a line break in its name; rename it and convert again")
    kept = found.where(_without_duplicates(found, _IOU[found.oriented] if iou is None else iou))
    with atomic_folder(target, "merge", _check_absent) as folder:
        for number, word in enumerate(files):
            lines = kept.where(kept.classes == number).lines()
            (folder / f"Task{1 if kept.oriented else 2}_{word}.txt").write_text(
                "".join(lines), encoding="utf-8", errors="surrogateescape"
            )
    counts = np.bincount(kept.classes, minlength=len(files)).tolist()
    return Merged(
        target,
        found.oriented,
        tiles=len(np.unique(found.tiles)),
        images=len({found.sources[number] for number in np.unique(found.tiles)}),
        found=len(found.scores),
        kept=dict(zip(tile_map.names, counts, strict=True)),
    )


@dataclass(frozen=True)
class _Detections:
    """N detections, in pixels of the source images.

    Attributes:
        oriented (bool): Whether the boxes are oriented.
        sources (list[str]): Name of the source image by number of the tile.
        tiles (np.ndarray): (N,) int64 number of the tile.
        classes (np.ndarray): (N,) int64.
        scores (np.ndarray): (N,) float64.
        corners (np.ndarray): (N, 4, 2) float64.
    """

    oriented: bool
    sources: list[str]
    tiles: np.ndarray
    classes: np.ndarray
    scores: np.ndarray
    corners: np.ndarray

    def where(self, chosen: np.ndarray) -> _Detections:
        """Return some of the detections, by a mask or by their numbers."""
        return _Detections(
            self.oriented,
            self.sources,
            self.tiles[chosen],
            self.classes[chosen],
            self.scores[chosen],
            self.corners[chosen],
        )

    def lines(self) -> Iterator[str]:
        """Yield the detections as lines of a submission."""
        points = self.corners.reshape(-1, 8) if self.oriented else _hulls(self.corners).reshape(-1, 4)
        for tile, score, row in zip(self.tiles, self.scores, points.tolist(), strict=True):
            yield f"{self.sources[tile]} {score:.5f} {' '.join(f'{value:.2f}' for value in row)}\n"


def _check_absent(folder: Path) -> None:
    if folder.exists() or folder.is_symlink():
        raise DS2D2Error(f"out={folder}: exists; pass another out=, or remove it")


def _folder_of(data: Path) -> Path:
    """Return the folder of a data set from this folder or its data YAML."""
    if data.suffix not in (".yaml", ".yml"):
        return data
    refuse_unusable(data)
    path = data if data.is_file() else resource_folder("datasets") / data
    if not path.is_file():
        hint = similar_file("data", data, "pass the folder that 'ds2d2 convert' made, or its data YAML")
        raise DS2D2Error(f"data={data}: no such file; {hint}")
    try:
        # As in Ultralytics
        folder = usable_path("path", YAML.load(path).get("path") or path.parent)
    except Exception as error:
        raise DS2D2Error(
            f"{path}: cannot be read as a data YAML ({message_of(error)}); pass the folder that 'ds2d2 convert' made"
        ) from None
    return folder if folder.exists() or folder.is_absolute() else Path(SETTINGS["datasets_dir"]) / folder


def _file_words(names: tuple[str, ...]) -> list[str]:
    """Return the classes as file names: DOTA's have no blanks."""
    words = [re.sub(r"\s+", "-", name) for name in names]
    for name, word in zip(names, words, strict=True):
        if re.search(r'[/\\:*?"<>|]', word) or words.count(word) > 1:
            raise DS2D2Error(
                f"class '{name}': cannot be the name of a file; rename it under 'names:' and convert again"
            )
    return words


# ------------------------------------------------------------------------------------------------ reading


class _Collector:
    """Collects detections one by one, and checks that they belong to the tile map."""

    def __init__(self, tile_map: TileMap, split: str | None) -> None:
        if split is not None and split not in tile_map.tiles:
            raise DS2D2Error(f"split={split}: no such split; pass split={' or split='.join(tile_map.tiles)}", 2)
        self._classes = len(tile_map.names)
        self._splits = tile_map.tiles if split is None else {split: tile_map.tiles[split]}
        self._oriented = tile_map.task == "obb"  # if there are no detections
        self._numbers: dict[str, int] = {}
        self._tiles: list[Tile] = []
        self._rows: list[tuple[float, ...]] = []
        self._tile_of: list[int] = []

    def tile(self, name: str, place: str) -> Tile:
        """Return a tile by its name."""
        if name not in self._numbers:
            found = [split for split, tiles in self._splits.items() if name in tiles]
            if not found:
                raise DS2D2Error(
                    f"{place}: '{name}' is not a tile of {' or '.join(self._splits) or 'any split'}; pass data= and "
                    "split= of what was predicted"
                )
            if len(found) > 1:
                raise DS2D2Error(
                    f"{place}: '{name}' is a tile of {' and '.join(found)}; pass split={found[0]} or another of them", 2
                )
            self._numbers[name] = len(self._tiles)
            self._tiles.append(self._splits[found[0]][name])
        return self._tiles[self._numbers[name]]

    def add(self, name: str, number: int, score: float, points: list[float], place: str) -> None:
        """Append a detection: four numbers (x1, y1, x2, y2) or eight (corners), in pixels of its tile."""
        if not 0 <= number < self._classes:
            raise DS2D2Error(
                f"{place}: class {number}, but the data set has {self._classes}; pass data= of what was predicted"
            )
        if not (0 <= score <= 1 and all(map(math.isfinite, points))):
            raise DS2D2Error(f"{place}: a score outside of 0 to 1, or a coordinate that is not a number; predict again")
        oriented = len(points) == 8
        if self._rows and oriented != self._oriented:
            raise DS2D2Error(
                f"{place}: oriented and horizontal boxes together; merge each with its own predictions= and out="
            )
        self._oriented = oriented
        self.tile(name, place)
        self._tile_of.append(self._numbers[name])
        self._rows.append((number, score, *points))

    def finish(self) -> _Detections:
        """Return all detections in pixels of their source images."""
        rows = np.array(self._rows, dtype=np.float64).reshape(-1, 10 if self._oriented else 6)
        order = [0, 1, 2, 3, 4, 5, 6, 7] if self._oriented else [0, 1, 2, 1, 2, 3, 0, 3]
        corners = rows[:, 2:][:, order].reshape(-1, 4, 2)
        windows = np.array([tile.window for tile in self._tiles], dtype=np.float64).reshape(-1, 2, 2)
        sizes = np.array([tile.size for tile in self._tiles], dtype=np.float64).reshape(-1, 2)
        tiles = np.array(self._tile_of, dtype=np.int64)
        corners = corners * (windows[:, 1] / sizes)[tiles, None] + windows[tiles, None, 0]
        sources = [tile.source for tile in self._tiles]
        return _Detections(self._oriented, sources, tiles, rows[:, 0].astype(np.int64), rows[:, 1], corners)


def _read(path: Path, tile_map: TileMap, split: str | None) -> _Detections:
    collector = _Collector(tile_map, split)
    if path.is_dir():
        _read_labels(path, collector)
    elif path.is_file():
        _read_json(path, collector)
    else:
        raise DS2D2Error(f"{path}: no such file or folder; pass predictions.json or the folder of the label files")
    return collector.finish()


def _read_json(path: Path, collector: _Collector) -> None:
    """Read the file that Ultralytics' validators write with `save_json=True`."""
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DS2D2Error(f"{path}: is not a JSON file ({error}); run 'yolo val save_json=True' again") from None
    if not isinstance(entries, list):
        raise DS2D2Error(f"{path}: is not a list of detections; pass the predictions.json of 'yolo val save_json=True'")
    for index, entry in enumerate(TQDM(entries, desc="Reading detections", unit="box", file=sys.stderr), 1):
        place = f"{path}: detection {index}"
        try:
            # `file_name`: `image_id` becomes a number if the name looks like one.
            name = Path(entry["file_name"]).stem
            number, score = int(entry["category_id"]) - 1, float(entry["score"])
            if "poly" in entry:
                points = [float(value) for value in entry["poly"]]
                if len(points) != 8:
                    raise ValueError
            else:
                x, y, width, height = map(float, entry["bbox"])
                points = [x, y, x + width, y + height]
        except (KeyError, TypeError, ValueError, OverflowError):
            raise DS2D2Error(f"{place}: is not as 'yolo val save_json=True' writes it; run it again") from None
        collector.add(name, number, score, points, place)


def _read_labels(folder: Path, collector: _Collector) -> None:
    """Read the files that Ultralytics' predictors write with `save_txt=True save_conf=True`."""
    files = sorted(folder.glob("*.txt"))
    if not files:
        hint = (
            f"pass predictions={folder / 'labels'}"
            if (folder / "labels").is_dir()
            else "pass the folder labels of 'yolo predict save_txt=True save_conf=True'"
        )
        raise DS2D2Error(f"{folder}: has no label files; {hint}")
    for file in TQDM(files, desc="Reading detections", unit="file", file=sys.stderr):
        refuse_unusable(file)
        width, height = collector.tile(file.stem, str(file)).size
        try:
            lines = file.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise DS2D2Error(f"{file}: cannot be read ({error}); predict again") from None
        for number, line in enumerate(lines, 1):
            fields = line.split()
            if not fields:
                continue
            if len(fields) in (5, 9):
                raise DS2D2Error(f"{file}:{number}: has no confidence; predict again with save_conf=True")
            try:
                if len(fields) not in (6, 10):
                    raise ValueError
                index = int(fields[0])
                *shares, score = map(float, fields[1:])
            except ValueError:
                raise DS2D2Error(
                    f"{file}:{number}: is not as 'yolo predict save_txt=True' writes it; predict again"
                ) from None
            if len(shares) == 4:
                x, y, across, down = shares
                shares = [x - across / 2, y - down / 2, x + across / 2, y + down / 2]
            points = [share * (height if axis % 2 else width) for axis, share in enumerate(shares)]
            collector.add(file.stem, index, score, points, f"{file}:{number}")


# ------------------------------------------------------------------------------------------------ merging


def _without_duplicates(found: _Detections, iou: float) -> np.ndarray:
    """Return the numbers of the detections to keep, ordered by class, image and decreasing confidence."""
    names = sorted(set(found.sources))
    image_of = np.searchsorted(names, found.sources)[found.tiles] if names else found.tiles
    group = found.classes * max(len(names), 1) + image_of
    order = np.lexsort((-found.scores, group))
    starts = np.flatnonzero(np.diff(group[order], prepend=-1))
    kept = [np.zeros(0, dtype=np.int64)]
    for members in TQDM(np.split(order, starts[1:]), desc="Merging", unit="group", file=sys.stderr):
        corners = found.corners[members]
        if found.oriented:
            kept.append(members[_suppress_oriented(corners, iou)])
        else:
            boxes = torch.from_numpy(_hulls(corners).reshape(-1, 4))
            kept.append(members[nms(boxes, torch.from_numpy(found.scores[members]), iou).numpy()])
    return np.concatenate(kept)


def _suppress_oriented(corners: np.ndarray, iou: float) -> np.ndarray:
    """Return the numbers of the oriented boxes to keep.

    Ultralytics' `TorchNMS.fast_nms` is not used: there, removed boxes still suppress others, and it needs a matrix of
    all pairs.

    Args:
        corners (np.ndarray): (N, 4, 2) float64, by decreasing confidence.
        iou (float): ProbIoU above which the less confident box is removed.
    """
    boxes, hulls = torch.from_numpy(_rectangles(corners)), _hulls(corners)
    kept = np.zeros(0, dtype=np.int64)
    for start in range(0, len(corners), _BLOCK):
        block = np.arange(start, min(start + _BLOCK, len(corners)))
        repeated = [block[second] for _, second in _overlapping(boxes, hulls, kept, block, iou)]
        block = np.setdiff1d(block, np.concatenate(repeated)) if repeated else block
        dropped = np.zeros(len(block), dtype=bool)
        pairs = [pair[:, pair[0] < pair[1]] for pair in map(np.stack, _overlapping(boxes, hulls, block, block, iou))]
        first, second = np.concatenate(pairs, axis=1) if pairs else np.zeros((2, 0), dtype=np.int64)
        by_first = np.argsort(first, kind="stable")
        bounds = np.searchsorted(first[by_first], np.arange(len(block) + 1))
        for number in range(len(block)):
            if not dropped[number]:
                dropped[second[by_first[bounds[number] : bounds[number + 1]]]] = True
        kept = np.concatenate([kept, block[~dropped]])
    return kept


def _overlapping(
    boxes: torch.Tensor, hulls: np.ndarray, first: np.ndarray, second: np.ndarray, iou: float
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the pairs of boxes that overlap more than `iou`: positions in `first` and in `second`.

    Args:
        boxes (torch.Tensor): (N, 5) float64 centre x, centre y, width, height, angle.
        hulls (np.ndarray): (N, 2, 2) float64, their hulls.
        first (np.ndarray): (A,) numbers of boxes.
        second (np.ndarray): (B,) numbers of boxes.
        iou (float): ProbIoU.
    """
    if not len(first) or not len(second):
        return
    # Sorted by the left edge: boxes that may overlap are neighbours.
    order = np.argsort(hulls[second, 0, 0])
    left = hulls[second[order], 0, 0]
    widest = (hulls[second, 1, 0] - hulls[second, 0, 0]).max()
    low = np.searchsorted(left, hulls[first, 0, 0] - widest)
    high = np.searchsorted(left, hulls[first, 1, 0])
    steps = np.cumsum(high - low) // _PAIRS
    for part in np.split(np.arange(len(first)), np.flatnonzero(np.diff(steps)) + 1):
        counts = (high - low)[part]
        a = np.repeat(part, counts)
        b = order[
            np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts) + np.repeat(low[part], counts)
        ]
        one, other = hulls[first[a]], hulls[second[b]]
        near = ((one[:, 0] < other[:, 1]) & (one[:, 1] > other[:, 0])).all(axis=1)
        a, b = a[near], b[near]
        overlap = probiou(boxes[first[a]], boxes[second[b]]).squeeze(-1).numpy() > iou
        yield a[overlap], b[overlap]


def _hulls(corners: np.ndarray) -> np.ndarray:
    """Return the hulls of N boxes, (N, 2, 2): top left and bottom right."""
    return np.stack([corners.min(axis=1), corners.max(axis=1)], axis=1)


def _rectangles(corners: np.ndarray) -> np.ndarray:
    """Return N oriented boxes, (N, 4, 2), as centre x, centre y, width, height, angle in radians, (N, 5)."""
    along, across = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 1]
    sides = np.hypot(*along.T), np.hypot(*across.T)
    return np.column_stack([corners.mean(axis=1), *sides, np.arctan2(along[:, 1], along[:, 0])])
