"""Draws pictures of a training: the terms by epoch, and how a student's feature maps approached its teacher's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ds2d2_yolo.explanation.images import InputImage, Window
from ds2d2_yolo.explanation.views import LevelView
from ds2d2_yolo.method import TERMS
from ds2d2_yolo.report.figures import Canvas, note, outline, scale_of, show_image, show_map
from ds2d2_yolo.report.palette import ENERGY, ERROR, FAINT, WEIGHT, Quantity

TERMS_PICTURE, BANDS_PICTURE = "ds2d2_terms.png", "ds2d2_bands_{}.png"

_TITLES = {
    "train": "terms, times gain",
    "val": "terms in validation, times gain",
    "gain": "gains",
    "share": "gradient / detection loss",
}
LOGARITHMIC = (_TITLES["train"], _TITLES["val"], _TITLES["gain"])
"""Titles of curves that need a logarithmic axis."""


def curves_of_terms(columns: Mapping[str, Sequence[float]]) -> dict[str, dict[str, Sequence[float]]]:
    """Return the terms in a results.csv: values, gains, and shares of the gradient by level.

    Args:
        columns (Mapping[str, Sequence[float]]): Its columns.

    Returns:
        (dict[str, dict[str, Sequence[float]]]): Values by title of the group, then by term. Those of `LOGARITHMIC` span
            decades.

    Example:
        >>> curves_of_terms({"epoch": [1], "gain/ex_low": [0.5], "share/ex_low/8": [0.2]})
        {'gains': {'ex_low': [0.5]}, 'gradient / detection loss, stride 8': {'ex_low': [0.2]}}
    """
    groups: dict[str, dict[str, Sequence[float]]] = {}
    for name, values in columns.items():
        kind, term, *level = name.split("/")[:3] if "/" in name else (name, "")
        term = term.removesuffix("_loss")
        if kind in _TITLES and term in TERMS:
            groups.setdefault(_TITLES[kind] + (f", stride {level[0]}" if level else ""), {})[term] = values
    order = [*_TITLES.values(), *groups]
    return dict(sorted(groups.items(), key=lambda group: order.index(group[0])))


def draw_progress(image: InputImage, window: Window, history: Mapping[str, Sequence[LevelView]]) -> Canvas:
    """Draw how a student's feature maps approached its teacher's during a training.

    Args:
        image (InputImage): The image.
        window (Window): Window of the input.
        history (Mapping[str, Sequence[LevelView]]): Views of the levels by their time, in order.

    Returns:
        (Canvas): Three columns per level: weighted error, LL and detail. The first row is the teacher's.
    """
    last = list(history.values())[-1]
    aspect = image.panel_aspect
    width, gap, bar, margin = 1.55, 0.08, 0.8, 0.95
    height = width * aspect
    group = 3 * (width + gap) + 3 * bar
    canvas = Canvas(margin + len(last) * group, 0.75 + (1 + len(history)) * (height + 0.24) + 0.1)
    canvas.text(0.2, 0.15, image.path.name, 11, weight="bold")
    place = (window, image.size)
    for index, stride in enumerate(level.stride for level in last):
        left = margin + index * group
        canvas.text(left, 0.42, f"stride {stride:g}", 9.5, weight="bold")
        views = [levels[index] for levels in history.values()]
        extra = views[-1].disw - 1
        columns: list[tuple[str, Quantity, list[np.ndarray]]] = [
            ("weighted error", ERROR, [(view.low + 3 * view.high) / 4 * view.weight for view in views]),
            ("LL", ENERGY, [view.teacher["LL"] for view in views[-1:]] + [view.student["LL"] for view in views]),
            ("LH, HL, HH", ENERGY, [_detail(views[-1].teacher)] + [_detail(view.student) for view in views]),
        ]
        for column, (title, quantity, maps) in enumerate(columns):
            at = left + column * (width + gap + bar)
            scale = scale_of(quantity, maps)
            first = 1 if column == 0 else 0
            if column == 0:
                axes = canvas.axes(at, 0.75, width, height)
                show_image(axes, image.pixels, grey=True)
                show_map(axes, extra, WEIGHT, scale_of(WEIGHT, [extra]), *place, title="DISW", over=True)
                outline(axes, image.boxes, "object", 0.6)
                canvas.bar(at + width + 0.04, 0.75, height, WEIGHT, scale_of(WEIGHT, [extra]))
            for row, values in enumerate(maps, first):
                axes = canvas.axes(at, 0.75 + row * (height + 0.24), width, height)
                show_map(axes, values, quantity, scale, *place, title=title if row == first else "")
                if column == 0:
                    note(axes, f"mean {values.mean():.3g}")
            top = 0.75 + first * (height + 0.24)
            canvas.bar(at + width + 0.04, top, len(maps) * (height + 0.24) - 0.24, quantity, scale)
    for row, name in enumerate(["teacher", *history]):
        middle = 0.75 + row * (height + 0.24) + height / 2
        canvas.text(0.2, middle, name, 9, va="center", color=FAINT)
    return canvas


def _detail(bands: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return the mean energy of the three detail bands."""
    detail: np.ndarray = np.sqrt(sum(bands[name] ** 2 for name in ("LH", "HL", "HH")) / 3)
    return detail
