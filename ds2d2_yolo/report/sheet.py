"""Draws the sheet of one image: from the detections of teacher and student back to the bands of their feature maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import cv2
import numpy as np

from ds2d2_yolo.explanation.explainer import Explanation
from ds2d2_yolo.explanation.images import InputImage
from ds2d2_yolo.explanation.views import BANDS, LevelView
from ds2d2_yolo.report.detections import draw_outcomes
from ds2d2_yolo.report.figures import (
    Canvas,
    label_boxes,
    note,
    outcome_legend,
    outline,
    scale_of,
    show_image,
    show_map,
)
from ds2d2_yolo.report.palette import DIFFERENCE, ENERGY, ERROR, FAINT, FOCUS, WEIGHT, Quantity

_WIDTH = 15.0  # inches
_MARGIN, _GAP, _BAR = 0.35, 0.12, 0.92
_TITLE, _BELOW = 0.26, 0.3  # above and below a panel
_HEADS = {"im_full": "the teacher's head", "im_high": "the high-frequency amplifier"}


def draw_sheet(explanation: Explanation, names: Sequence[str], origin: str, bands: bool = True) -> Canvas:
    """Draw the explanation of one image.

    Args:
        explanation (Explanation): The explanation.
        names (Sequence[str]): Class names.
        origin (str): Text about the origin of the adapters.
        bands (bool): Whether to draw the bands and errors of every level, too.

    Returns:
        (Canvas): One picture: detections, differences of predictions, weights, then bands and errors by level.
    """
    image = explanation.image
    aspect = image.panel_aspect
    inner = _WIDTH - 2 * _MARGIN
    levels = explanation.levels

    found = 1 + len(explanation.detections)
    found_width = (inner - (found - 1) * _GAP) / max(found, 4)
    difference_width = (inner - 4 * _BAR) / 4
    weight_width = min((inner - _BAR - (len(levels) - 1) * _GAP) / len(levels), found_width)
    band_width = (inner - 3 * _BAR - 3 * _GAP) / 6
    weighted = explanation.weight != "none", explanation.weight == "confidence"
    heights = [
        found_width * aspect + _TITLE + _BELOW + 0.3,
        (difference_width * aspect + _TITLE + _BELOW) if explanation.differences else 0.0,
        *[(weight_width * aspect + _TITLE + _BELOW) if image.labelled and shown else 0.0 for shown in weighted],
        *[2 * (band_width * aspect + _TITLE) + _BELOW] * (len(levels) if bands else 0),
    ]
    headed = sum(height > 0 for height in heights)
    canvas = Canvas(_WIDTH, 0.85 + sum(heights) + 0.62 * headed + 0.1)
    canvas.text(_MARGIN, 0.22, image.shown_path.name, 15, weight="bold")
    kind = "objects" if image.source is None else "labels of the teacher"
    objects = f"{len(image.boxes)} {kind}" if image.labelled else "labels unknown"
    size = f"{image.size[1]} x {image.size[0]} pixels"
    canvas.text(_MARGIN, 0.5, f"{size}, {objects}. Adapters of the student's maps: {origin}.", 9, color=FAINT)

    top = 0.85
    _heading(canvas, top, "Detections", _matching_note(explanation))
    _draw_detections(canvas, top + 0.62, found_width, aspect, explanation, names)
    top += heights[0] + 0.62
    if explanation.differences:
        hint = "the summands of the implicit terms, spread over the cell of each anchor or over each region proposal"
        _heading(canvas, top, "Differences of predictions through a frozen head", hint)
        _draw_differences(canvas, top + 0.62, difference_width, aspect, explanation)
        top += heights[1] + 0.62
    if heights[2]:
        hint = "each object adds 1 in total, whatever its size; elsewhere the weight is 1"
        _heading(canvas, top, "Density-independent scale weight (DISW)", hint)
        _draw_weights(
            canvas, top + 0.62, weight_width, aspect, explanation, WEIGHT, [level.disw - 1 for level in levels]
        )
        top += heights[2] + 0.62
    if heights[3]:
        hint = "the weight of the errors: low where the teacher is not confident, also at an object that it misses"
        _heading(canvas, top, "DISW times the teacher's confidence", hint)
        _draw_weights(canvas, top + 0.62, weight_width, aspect, explanation, FOCUS, [level.weight for level in levels])
        top += heights[3] + 0.62
    for level, height in zip(levels if bands else (), heights[4:], strict=True):
        explained = f"the student's adapted map explains {level.explained:.0%} of the teacher's energy"
        hint = f"grid of {level.weight.shape[1]} x {level.weight.shape[0]} cells; {explained}"
        _heading(canvas, top, f"Bands at stride {level.stride:g}", hint)
        _draw_level(canvas, top + 0.62, band_width, aspect, explanation, level)
        top += height + 0.62
    return canvas


def _heading(canvas: Canvas, top: float, title: str, hint: str) -> None:
    canvas.text(_MARGIN, top + 0.1, title, 12, weight="bold")
    # Aligned right: a text after the title would need its width, which matplotlib only knows after drawing.
    canvas.text(_WIDTH - _MARGIN, top + 0.13, hint, 8.5, color=FAINT, ha="right")


def _matching_note(explanation: Explanation) -> str:
    if not explanation.image.labelled:
        return "no labels: hits and misses are unknown"
    if explanation.image.source is not None:
        return "objects are the teacher's detections: a hit's box has IoU 0.5 or more with that of one of its class"
    return "a hit's box has IoU 0.5 or more with that of an object of its class"


def _draw_detections(
    canvas: Canvas, top: float, width: float, aspect: float, explanation: Explanation, names: Sequence[str]
) -> None:
    image, height = explanation.image, width * aspect
    axes = canvas.axes(_MARGIN, top, width, height)
    labels = "objects" if image.source is None else "the teacher's labels"
    show_image(axes, image.pixels, f"image and {labels}" if image.labelled else "image")
    outline(axes, image.boxes, "object")
    if image.labelled:
        label_boxes(axes, image.boxes, [names[label] for label in image.labels])
    for index, (role, found) in enumerate(explanation.detections.items(), 1):
        axes = canvas.axes(_MARGIN + index * (width + _GAP), top, width, height)
        shown = _as_given(explanation, role)
        if role == "teacher" and image.source is not None:  # it cannot be graded by its own labels
            shown = replace(shown, labelled=False)
        draw_outcomes(axes, shown, found, _role_title(explanation, role), names)
    kinds = ["object", "hit", "false alarm", "miss"] if image.labelled else []
    if not image.labelled or image.source is not None:
        kinds.append("detection")
    canvas.figure.legend(
        handles=outcome_legend(kinds),
        loc="upper left",
        bbox_to_anchor=((_MARGIN - 0.1) / canvas.width, 1 - (top + height + 0.26) / canvas.height),
        ncols=len(kinds),
        frameon=False,
        fontsize=8.5,
    )


def _as_given(explanation: Explanation, role: str) -> InputImage:
    """Return the image, reduced to the input size of a model if the models have different sizes."""
    image, (height, width) = explanation.image, explanation.sizes[role]
    if len({*explanation.sizes.values()}) == 1:
        return image
    left, right, bottom, top = explanation.window
    scale = min(width / (right - left), height / (bottom - top))
    if scale >= 1:
        return image
    inner = max(round(image.size[1] * scale), 1), max(round(image.size[0] * scale), 1)
    small = cv2.resize(image.pixels, inner, interpolation=cv2.INTER_AREA)
    return replace(image, pixels=cv2.resize(small, image.size[::-1], interpolation=cv2.INTER_NEAREST))


def _role_title(explanation: Explanation, role: str) -> str:
    height, width = explanation.sizes[role]
    return role if len({*explanation.sizes.values()}) == 1 else f"{role}, at {width} x {height} pixels"


def _draw_differences(canvas: Canvas, top: float, width: float, aspect: float, explanation: Explanation) -> None:
    image, height = explanation.image, width * aspect
    left = _MARGIN
    for head, view in explanation.differences.items():
        for part, values in (("classes", view.classes), ("boxes", view.boxes)):
            scale = scale_of(DIFFERENCE, [values])
            axes = canvas.axes(left, top, width, height)
            show_image(axes, image.pixels, grey=True)
            title, below = f"{part}, through {_HEADS[head]}", f"sum {values.sum():.3g}"
            show_map(axes, values, DIFFERENCE, scale, explanation.window, image.size, title, below, over=True)
            outline(axes, image.boxes, "object", 0.7)
            canvas.bar(left + width + 0.05, top, height, DIFFERENCE, scale)
            left += width + _BAR


def _draw_weights(
    canvas: Canvas,
    top: float,
    width: float,
    aspect: float,
    explanation: Explanation,
    quantity: Quantity,
    weights: Sequence[np.ndarray],
) -> None:
    image, height = explanation.image, width * aspect
    scale = scale_of(quantity, weights)
    left = _MARGIN
    for level, values in zip(explanation.levels, weights, strict=True):
        axes = canvas.axes(left, top, width, height)
        show_image(axes, image.pixels, grey=True)
        title, below = f"stride {level.stride:g}", f"highest {values.max():.3g}"
        show_map(axes, values, quantity, scale, explanation.window, image.size, title, below, over=True)
        outline(axes, image.boxes, "object", 0.5)
        left += width + _GAP
    canvas.bar(left - _GAP + 0.05, top, height, quantity, scale)


def _draw_level(
    canvas: Canvas, top: float, width: float, aspect: float, explanation: Explanation, level: LevelView
) -> None:
    height = width * aspect
    place = (explanation.window, explanation.image.size)
    rows: Mapping[str, Mapping[str, np.ndarray]] = {"teacher": level.teacher, "student, adapted": level.student}
    low = scale_of(ENERGY, [maps["LL"] for maps in rows.values()])
    high = scale_of(ENERGY, [maps[band] for maps in rows.values() for band in BANDS[1:]])
    tops = [top, top + height + _TITLE]
    lefts = [_MARGIN, _MARGIN + width + _BAR]
    lefts += [lefts[1] + width + _GAP, lefts[1] + 2 * (width + _GAP)]
    for row, (role, maps) in zip(tops, rows.items(), strict=True):
        for left, band in zip(lefts, BANDS, strict=True):
            axes = canvas.axes(left, row, width, height)
            show_map(axes, maps[band], ENERGY, low if band == "LL" else high, *place, title=f"{band}, {role}")
    both = 2 * height + _TITLE
    canvas.bar(lefts[0] + width + 0.05, top, both, ENERGY, low)
    canvas.bar(lefts[3] + width + 0.05, top, both, ENERGY, high)

    left = lefts[3] + width + _BAR
    for row, name, error in zip(tops, ("LL", "LH, HL, HH"), (level.low, level.high), strict=True):
        weighted = error * level.weight
        scale = scale_of(ERROR, [error, weighted])
        shown = [(f"error of {name}", error)]
        weighs = explanation.image.labelled and explanation.weight != "none"
        shown += [("the same, weighted", weighted)] if weighs else []
        for index, (title, values) in enumerate(shown):
            axes = canvas.axes(left + index * (width + _GAP), row, width, height)
            show_map(axes, values, ERROR, scale, *place, title=title)
            note(axes, f"mean {values.mean():.3g}")
        canvas.bar(left + 2 * width + _GAP + 0.05, row, height, ERROR, scale)
