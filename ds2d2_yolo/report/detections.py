"""Draws detections in images. In labelled images they are marked as hits, false alarms and misses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes

from ds2d2_yolo.evaluation.matching import match
from ds2d2_yolo.explanation.images import InputImage
from ds2d2_yolo.report.figures import Canvas, label_boxes, outcome_legend, outline, plain_figure, png_of, show_image

_MOST_FALSE = 8  # false alarms with a text


def draw_outcomes(axes: Axes, image: InputImage, detections: np.ndarray, title: str, names: Sequence[str] = ()) -> None:
    """Show an image with detections. In a labelled image they are marked as hits, false alarms and misses.

    The most confident false alarms also show class and confidence: many are at an object of another class.

    Args:
        axes (Axes): The axes to draw in.
        image (InputImage): The image and its objects.
        detections (np.ndarray): Detections (N, 6) by decreasing confidence: xyxy pixels, confidence, class. Oriented
            detections are (N, 7) with xywhr.
        title (str): Title.
        names (Sequence[str]): Class names; without them no class is written.
    """
    if not image.labelled:
        show_image(axes, image.pixels, title, f"{len(detections)} detections")
        outline(axes, detections[:, :-2], "detection")
        return
    boxes = detections[:, :-2]
    hit, taken = match(boxes, detections[:, -1].astype(int), image.boxes, image.labels)
    show_image(axes, image.pixels, title, f"{hit.sum()} hits, {(~hit).sum()} false, {(~taken).sum()} missed")
    outline(axes, image.boxes[~taken], "miss")
    outline(axes, boxes[~hit], "false alarm")
    outline(axes, boxes[hit], "hit")
    if names:
        wrong = detections[~hit][:_MOST_FALSE]
        label_boxes(axes, wrong[:, :-2], [f"{names[int(kind)]} {confidence:.2f}" for confidence, kind in wrong[:, -2:]])


def draw_sides(image: InputImage, sides: Mapping[str, np.ndarray], names: Sequence[str]) -> bytes:
    """Return the detections of two models beside each other, as a PNG.

    Args:
        image (InputImage): The image and its objects.
        sides (Mapping[str, np.ndarray]): Detections by title, as for `draw_outcomes`.
        names (Sequence[str]): Class names.
    """
    aspect = image.panel_aspect
    width = 3.4
    canvas = Canvas(2 * width + 0.5, width * aspect + 0.95)
    for index, (title, detections) in enumerate(sides.items()):
        axes = canvas.axes(0.2 + index * (width + 0.1), 0.3, width, width * aspect)
        draw_outcomes(axes, image, detections, title, names)
    canvas.figure.legend(
        handles=outcome_legend(("hit", "false alarm", "miss")), loc="lower center", ncols=3, frameon=False, fontsize=8.5
    )
    return canvas.png()


def draw_table(
    images: Sequence[InputImage], detections: Mapping[str, Sequence[np.ndarray]], names: Sequence[str]
) -> bytes:
    """Return one row per image as a PNG: the objects, then the detections of each model.

    Args:
        images (Sequence[InputImage]): The labelled images.
        detections (Mapping[str, Sequence[np.ndarray]]): By the title of the column: detections for each image, as for
            `draw_outcomes`.
        names (Sequence[str]): Class names.
    """
    columns = 1 + len(detections)
    figure = plain_figure(3.1 * columns, 3.1 * len(images) + 0.7, dpi=110)
    grid = figure.subplots(len(images), columns, squeeze=False)
    for row, image in enumerate(images):
        first = row == 0
        show_image(grid[row, 0], image.pixels, "objects" if first else "")
        outline(grid[row, 0], image.boxes, "object")
        label_boxes(grid[row, 0], image.boxes, [names[label] for label in image.labels])
        for column, (title, found) in enumerate(detections.items(), 1):
            draw_outcomes(grid[row, column], image, found[row], title if first else "", names)
    handles = outcome_legend(("object", "hit", "false alarm", "miss"))
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False, fontsize=10)
    return png_of(figure)
