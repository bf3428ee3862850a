"""Tools for pictures: figures of a fixed size, panels with images and maps, colour bars with units.

Figures use only matplotlib's `Figure`: no display, no pyplot, no settings of the process. Their background is a fixed
light colour with dark text: they look the same on light and dark pages.
"""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm, Normalize, PowerNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Polygon
from matplotlib.text import Text
from matplotlib.ticker import FixedLocator, FuncFormatter, Locator, LogLocator, MaxNLocator, NullLocator
from ultralytics.utils.ops import xywhr2xyxyxyxy

from ds2d2_yolo.report.fonts import families_for
from ds2d2_yolo.report.palette import AXIS, CARD, FAINT, FRAME, GRID, INK, OUTCOMES, Quantity

Grid = Literal["x", "y", "both"]
"""Axes whose grid lines are drawn."""

LABEL: dict[str, Any] = {
    **{"color": "white", "fontsize": 6.5},
    **{"bbox": {"facecolor": "black", "alpha": 0.5, "pad": 0.8, "edgecolor": "none"}},
}
"""Style of text inside a panel."""

_MOST_LABELS = 15


def scale_of(quantity: Quantity, arrays: Sequence[np.ndarray]) -> Normalize:
    """Return a common colour scale for several arrays.

    Args:
        quantity (Quantity): The quantity.
        arrays (Sequence[np.ndarray]): The arrays; values at least 0.

    Returns:
        (Normalize): From 0 to the largest value. Logarithmic scales span three decades at most.
    """
    largest = max(float(array.max()) for array in arrays)
    largest = largest if np.isfinite(largest) and largest > 0 else 1.0
    if quantity.scale == "log":
        positive = [float(array[array > 0].min()) for array in arrays if (array > 0).any()]
        smallest = max(min(positive, default=largest / 10), largest / 1000)
        return LogNorm(min(smallest, largest / 2), largest)
    if quantity.scale == "root":
        return PowerNorm(0.5, 0.0, largest)
    return Normalize(0.0, largest)


def plain_figure(width: float, height: float, dpi: int) -> Figure:
    """Return a white figure with a size in inches. Its layout makes room for the labels of the axes."""
    figure = Figure(figsize=(width, height), dpi=dpi, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def png_of(figure: Figure, dpi: float | None = None) -> bytes:
    """Return a figure as a PNG, optionally with another resolution in pixels per inch.

    Its texts are drawn as they are: `$` begins no formula, and signs of other scripts come from installed fonts.
    """
    texts: list[Any] = figure.findobj(Text)
    families = families_for("".join({text.get_text(): None for text in texts}))
    for text in texts:
        text.set_parse_math(False)
        text.set_fontfamily(families)
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")  # one per sign: `families_for` has warned
        figure.savefig(buffer, format="png", facecolor=figure.get_facecolor(), dpi=dpi or figure.dpi)
    return buffer.getvalue()


class Canvas:
    """A figure with axes at given positions, in inches from the top left: exact, and faster than a layout engine.

    Args:
        width (float): Inches.
        height (float): Inches.
        dpi (int): Pixels per inch.

    Example:
        >>> canvas = Canvas(4, 3)
        >>> float(canvas.axes(0.5, 0.5, 3, 2).get_position().width)
        0.75
    """

    def __init__(self, width: float, height: float, dpi: int = 100) -> None:
        self.width, self.height = width, height
        self.figure = Figure(figsize=(width, height), dpi=dpi, facecolor=CARD)
        FigureCanvasAgg(self.figure)

    def axes(self, left: float, top: float, width: float, height: float) -> Axes:
        """Return new axes with this top left corner and size, in inches."""
        bottom = self.height - top - height
        axes = self.figure.add_axes((left / self.width, bottom / self.height, width / self.width, height / self.height))
        axes.set_facecolor(CARD)
        return axes

    def text(self, left: float, top: float, text: str, size: float = 10, **style: Any) -> None:
        """Write text with this top left corner, in inches."""
        style = {"color": INK, "va": "top", **style}
        self.figure.text(left / self.width, 1 - top / self.height, text, fontsize=size, **style)

    def bar(self, left: float, top: float, height: float, quantity: Quantity, scale: Normalize) -> None:
        """Draw a colour bar with its unit, 0.85 inches wide."""
        axes = self.axes(left, top, 0.11, height)
        bar = self.figure.colorbar(ScalarMappable(scale, colormaps[quantity.colours]), cax=axes)
        bar.outline.set_visible(False)
        axes.yaxis.set_major_locator(_log_ticks(scale) if quantity.scale == "log" else MaxNLocator(4))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))
        axes.tick_params(labelsize=7, color=INK, labelcolor=INK, length=2, pad=2)
        axes.set_ylabel(quantity.unit, fontsize=7, color=INK, labelpad=3)

    def png(self, dpi: int | None = None) -> bytes:
        """Return the picture as a PNG, optionally with another resolution in pixels per inch."""
        return png_of(self.figure, dpi)

    def save(self, path: Path) -> Path:
        """Write the picture as a PNG and return its path."""
        path.write_bytes(self.png())
        return path


def _log_ticks(scale: Normalize) -> Locator:
    """Return ticks at decades, or at both ends if fewer than two decades are inside: two numbers show a scale."""
    assert scale.vmin is not None
    assert scale.vmax is not None
    decades = math.floor(math.log10(scale.vmax)) - math.ceil(math.log10(scale.vmin)) + 1
    return LogLocator(10) if decades > 1 else FixedLocator([scale.vmin, scale.vmax])


def show_image(axes: Axes, pixels: np.ndarray, title: str = "", below: str = "", grey: bool = False) -> None:
    """Show an image (H, W, 3), in light grey as the background of a map if asked for."""
    height, width = pixels.shape[:2]
    shown, place = _for_panel(axes, pixels), (-0.5, width - 0.5, height - 0.5, -0.5)
    if grey:
        luminance = shown @ np.array([0.299, 0.587, 0.114])
        axes.imshow(luminance * 0.5 + 20, cmap="gray", vmin=0, vmax=255, extent=place)
    else:
        axes.imshow(shown, extent=place)
    axes.set_xlim(*place[:2])
    axes.set_ylim(*place[2:])
    frame(axes, title, below)


def _for_panel(axes: Axes, pixels: np.ndarray) -> np.ndarray:
    """Return an image (H, W, 3) with at most twice the resolution of its panel, as a figure keeps all its images."""
    panel = axes.get_window_extent()
    height, width = pixels.shape[:2]
    ratio = max(width / panel.width, height / panel.height) / 2
    if ratio <= 1:
        return pixels
    size = max(round(width / ratio), 1), max(round(height / ratio), 1)
    return cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)


def show_map(
    axes: Axes,
    values: np.ndarray,
    quantity: Quantity,
    scale: Normalize,
    window: tuple[float, float, float, float],
    size: tuple[int, int],
    title: str = "",
    below: str = "",
    over: bool = False,
) -> None:
    """Show a map (h, w) instead of its image, or over it.

    Args:
        axes (Axes): The axes to draw in.
        values (np.ndarray): The map.
        quantity (Quantity): Its quantity.
        scale (Normalize): Its scale.
        window (tuple): Left, right, bottom and top of the area that the map covers, in pixels of the image.
        size (tuple[int, int]): Height and width of the image. The map is clipped to it.
        title (str): Title.
        below (str): Line below.
        over (bool): Whether the image is visible where the values are small.
    """
    colours = colormaps[quantity.colours](scale(np.ma.masked_less_equal(values, 0) if over else values))
    if over:
        strength = np.ma.filled(np.ma.asarray(scale(np.ma.masked_less_equal(values, 0))), 0.0)
        colours[..., 3] = np.where(values > 0, np.clip(0.15 + 0.85 * strength, 0, 0.9), 0.0)
    left, right, bottom, top = window
    axes.imshow(colours, extent=(left - 0.5, right - 0.5, bottom - 0.5, top - 0.5), interpolation="nearest")
    axes.set_xlim(-0.5, size[1] - 0.5)
    axes.set_ylim(size[0] - 0.5, -0.5)
    frame(axes, title, below)


def frame(axes: Axes, title: str = "", below: str = "") -> None:
    """Remove ticks, and write a title above and a line below."""
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set(color=FRAME, linewidth=0.6)
    axes.set_title(title, fontsize=9, color=INK, pad=3)
    if below:
        axes.set_xlabel(below, fontsize=8, color=FAINT, labelpad=3)


def note(axes: Axes, text: str) -> None:
    """Write a short text in the lower left corner of a panel."""
    axes.text(0.02, 0.02, text, transform=axes.transAxes, **LABEL)


def corners_of(boxes: np.ndarray) -> np.ndarray:
    """Return the corners (N, 4, 2) of boxes (N, 4) as xyxy or (N, 5) as xywhr, in pixels and radians.

    Example:
        >>> corners_of(np.array([[0.0, 0.0, 4.0, 2.0]]))[0].tolist()
        [[0.0, 0.0], [4.0, 0.0], [4.0, 2.0], [0.0, 2.0]]
    """
    corners: np.ndarray = (
        xywhr2xyxyxyxy(boxes) if boxes.shape[1] == 5 else boxes[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 4, 2)
    )
    return corners


def outline(axes: Axes, boxes: np.ndarray, kind: str, width: float = 1.3) -> None:
    """Draw boxes in the colour of their kind, with a dark edge. Misses are dashed.

    Args:
        axes (Axes): The axes to draw in.
        boxes (np.ndarray): Boxes (N, 4) as xyxy or (N, 5) as xywhr, in pixels and radians.
        kind (str): One of `OUTCOMES`.
        width (float): Width of the lines, in points.
    """
    style: Any = (0, (2, 1.2)) if kind == "miss" else "-"
    for corners in corners_of(boxes) - 0.5:
        axes.add_patch(Polygon(corners, fill=False, edgecolor="black", linewidth=width + 1.0, alpha=0.45))
        axes.add_patch(Polygon(corners, fill=False, edgecolor=OUTCOMES[kind], linewidth=width, linestyle=style))


def label_boxes(axes: Axes, boxes: np.ndarray, texts: Sequence[str]) -> None:
    """Write a text above each box. Nothing is written for more than 15 boxes, since the texts would hide the image.

    Args:
        axes (Axes): The axes to draw in.
        boxes (np.ndarray): Boxes (N, 4) as xyxy or (N, 5) as xywhr, in pixels and radians.
        texts (Sequence[str]): The N texts.
    """
    if len(boxes) > _MOST_LABELS:
        return
    for corners, text in zip(corners_of(boxes), texts, strict=True):
        axes.annotate(text, corners.min(0).clip(0), va="bottom", clip_on=True, **LABEL)


def outcome_legend(kinds: Sequence[str]) -> list[Line2D]:
    """Return handles that explain the colours of boxes."""
    return [
        Line2D([], [], color=OUTCOMES[kind], lw=2.5, ls=(0, (2, 1)) if kind == "miss" else "-", label=kind)
        for kind in kinds
    ]


def tidy(axes: Axes, grid: Grid | None = "y", labels: float = 8, lines: str = AXIS) -> None:
    """Simplify axes: no box, labels of one size, a faint grid.

    Args:
        axes (Axes): The axes.
        grid (Grid | None): Axes whose grid lines are drawn.
        labels (float): Size of the labels of the ticks, in points.
        lines (str): Colour of the axes.
    """
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(lines)
    axes.tick_params(labelsize=labels, color=lines, labelcolor=INK)
    axes.set_axisbelow(True)
    if grid:
        axes.grid(axis=grid, color=GRID, linewidth=0.7)
