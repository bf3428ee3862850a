"""Side-by-side pictures of what several detectors find in the same images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from PIL import Image
from ultralytics import YOLO
from ultralytics.data.utils import img2label_paths
from ultralytics.utils.metrics import batch_probiou, box_iou
from ultralytics.utils.ops import xywhn2xyxy

# Okabe and Ito's colours, which people with any colour vision tell apart
_COLOURS = {"object": "#009E73", "hit": "#56B4E9", "false alarm": "#D55E00", "miss": "#F0E442"}


@dataclass(frozen=True)
class Matched:
    """Boxes of one image, as they were given: detections that hit, false alarms, and objects that were missed."""

    hits: np.ndarray
    false_alarms: np.ndarray
    misses: np.ndarray


def match_detections(
    boxes: np.ndarray, classes: np.ndarray, objects: np.ndarray, labels: np.ndarray, threshold: float = 0.5
) -> Matched:
    """Assign detections to objects, the most confident first, each object once.

    Args:
        boxes (np.ndarray): Detections (D, 4) as xyxy pixels, or (D, 5) oriented as xywhr: pixels and radians; sorted
            by falling confidence.
        classes (np.ndarray): Their classes (D,).
        objects (np.ndarray): Ground truth (G, 4) or (G, 5), likewise.
        labels (np.ndarray): Their classes (G,).
        threshold (float): Intersection over union (of oriented boxes the probabilistic one, as Ultralytics validates
            with) from which a detection of the right class is a hit.

    Returns:
        (Matched): The three kinds.

    Example:
        >>> box = np.array([[0.0, 0.0, 9.0, 9.0]])
        >>> len(match_detections(box, np.array([1]), box, np.array([1])).hits)
        1
    """
    overlap = np.zeros((len(boxes), len(objects)))
    if overlap.size:
        measure = batch_probiou if boxes.shape[1] == 5 else box_iou
        overlap = measure(torch.from_numpy(boxes).float(), torch.from_numpy(objects).float()).numpy()
    overlap = overlap * (classes[:, None] == labels[None, :])
    taken = np.zeros(len(objects), dtype=bool)
    hit = np.zeros(len(boxes), dtype=bool)
    for index in range(len(boxes)):
        candidates = np.where(taken, 0.0, overlap[index])
        if len(candidates) and candidates.max() >= threshold:
            taken[candidates.argmax()] = hit[index] = True
    return Matched(boxes[hit], boxes[~hit], objects[~taken])


def draw_comparison(
    path: Path,
    images: Sequence[Path],
    models: Mapping[str, YOLO],
    imgsz: int,
    confidence: float = 0.25,
    names: Sequence[str] = (),
) -> Path:
    """Draw one row per image: the objects, then what each model finds, with hits, false alarms and misses marked.

    Args:
        path (Path): Picture to write.
        images (Sequence[Path]): Images of a YOLO data set; their labels are found beside them.
        models (Mapping[str, YOLO]): Models by the title of their column.
        imgsz (int): Side at which the models look at the images, in pixels.
        confidence (float): Least confidence of a detection to be drawn.
        names (Sequence[str]): Class names, written beside the objects of the first column.

    Returns:
        (Path): `path`.
    """
    columns = 1 + len(models)
    figure = Figure(figsize=(3.1 * columns, 3.1 * len(images) + 0.7), dpi=110, facecolor="white")
    FigureCanvasAgg(figure)
    grid = figure.subplots(len(images), columns, squeeze=False)
    for row, file in enumerate(images):
        pixels = np.asarray(Image.open(file).convert("RGB"))
        objects, labels = _read_labels(file, pixels.shape[1], pixels.shape[0])
        _show(grid[row, 0], pixels, "objects" if row == 0 else "")
        _outline(grid[row, 0], objects, "object")
        for box, label in zip(objects, labels, strict=True) if names and len(objects) <= 12 else []:
            grid[row, 0].annotate(names[label], box[:2], color="white", fontsize=6, va="bottom", annotation_clip=True)
        for column, (title, model) in enumerate(models.items(), 1):
            results: Any = model.predict(str(file), imgsz=imgsz, conf=confidence, verbose=False)
            boxes, classes = results[0].boxes.xyxy.cpu().numpy(), results[0].boxes.cls.cpu().numpy().astype(int)
            matched = match_detections(boxes, classes, objects, labels)
            score = f"{len(matched.hits)} hits, {len(matched.false_alarms)} false, {len(matched.misses)} missed"
            _show(grid[row, column], pixels, title if row == 0 else "", score)
            for kind, these in zip(
                ("hit", "false alarm", "miss"), (matched.hits, matched.false_alarms, matched.misses), strict=True
            ):
                _outline(grid[row, column], these, kind)
    handles = [
        Line2D([], [], color=colour, lw=2, ls=":" if kind == "miss" else "-", label=kind)
        for kind, colour in _COLOURS.items()
    ]
    figure.legend(handles=handles, loc="lower center", ncols=len(handles), frameon=False, fontsize=10)
    figure.tight_layout(rect=(0, 0.45 / figure.get_figheight(), 1, 1))
    figure.savefig(path)
    return path


def _read_labels(image: Path, width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the boxes (G, 4) as xyxy pixels and the classes (G,) of an image."""
    file = Path(img2label_paths([str(image)])[0])
    rows = [line.split() for line in file.read_text(encoding="utf-8").splitlines()] if file.is_file() else []
    values = np.array([[float(value) for value in row[:5]] for row in rows if row]).reshape(-1, 5)
    return xywhn2xyxy(values[:, 1:], width, height), values[:, 0].astype(int)


def _show(axes: Axes, pixels: np.ndarray, title: str, below: str = "") -> None:
    axes.imshow(pixels)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_title(title, fontsize=11)
    axes.set_xlabel(below, fontsize=8)


def _outline(axes: Axes, boxes: np.ndarray, kind: str) -> None:
    for x1, y1, x2, y2 in boxes:
        style = ":" if kind == "miss" else "-"
        axes.add_patch(
            Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, edgecolor=_COLOURS[kind], linewidth=1.3, linestyle=style)
        )
