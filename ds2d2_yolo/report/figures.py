"""The picture toolbox: one colour map per kind of quantity, colour bars with units, cards that suit any page.

Figures are made with matplotlib's `Figure` alone: no display, no pyplot, no setting of the process is touched. They are
opaque cards of a fixed light colour with dark text, so they read the same on a light page and on a dark one.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm, Normalize, PowerNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Polygon
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator
from ultralytics.utils.ops import xywhr2xyxyxyxy

CARD, INK, FAINT = "#FAFAF7", "#1B1F24", "#6A717B"
"""Background of every picture, its text, and text of less weight; 15:1 and 4.8:1 in contrast."""

OUTCOMES = {"object": "#009E73", "hit": "#56B4E9", "false alarm": "#D55E00", "miss": "#F0E442", "detection": "#CC79A7"}
"""Colours of boxes: Okabe and Ito's, which people with any colour vision tell apart."""

SERIES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#4D4D4D")
"""Colours of curves, likewise."""

LABEL: dict[str, Any] = {
    **{"color": "white", "fontsize": 6.5},
    **{"bbox": {"facecolor": "black", "alpha": 0.5, "pad": 0.8, "edgecolor": "none"}},
}
"""Style of text inside of a panel."""

BETTER, WORSE = "#0072B2", "#D55E00"
"""Colours of changes for the better and for the worse."""


@dataclass(frozen=True)
class Quantity:
    """How one kind of quantity is shown: perceptually uniform colour maps that are safe for all colour vision.

    Attributes:
        unit (str): What stands at the colour bar.
        colours (str): Name of the colour map.
        scale (str): `linear`, `root` (of the value, which lifts what is weak) or `log`.
    """

    unit: str
    colours: str
    scale: str


ENERGY = Quantity("RMS over channels", "viridis", "linear")
ERROR = Quantity("mean squared error", "inferno", "root")
WEIGHT = Quantity("extra weight, W - 1", "cividis", "log")
FOCUS = Quantity("weight / its mean", "cividis", "log")
DIFFERENCE = Quantity("difference per 4 x 4 pixels", "plasma", "root")


def scale_of(quantity: Quantity, arrays: Sequence[np.ndarray]) -> Normalize:
    """Return the one scale on which several arrays are shown.

    Args:
        quantity (Quantity): What they are.
        arrays (Sequence[np.ndarray]): The arrays; at least 0.

    Returns:
        (Normalize): From 0 to the largest value; logarithmic ones span three decades at most.
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


class Canvas:
    """A figure whose axes are placed by hand, in inches from the top left: exact, and faster than any layout engine.

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
        """Return new axes whose top left corner and size are given in inches."""
        bottom = self.height - top - height
        axes = self.figure.add_axes((left / self.width, bottom / self.height, width / self.width, height / self.height))
        axes.set_facecolor(CARD)
        return axes

    def text(self, left: float, top: float, text: str, size: float = 10, **style: Any) -> None:
        """Write text whose top left corner is given in inches."""
        style = {"color": INK, "va": "top", **style}
        self.figure.text(left / self.width, 1 - top / self.height, text, fontsize=size, **style)

    def bar(
        self, left: float, top: float, height: float, quantity: Quantity, scale: Normalize, unit: str | None = None
    ) -> None:
        """Draw a colour bar with its unit; 0.85 inches are taken."""
        axes = self.axes(left, top, 0.11, height)
        bar = self.figure.colorbar(ScalarMappable(scale, colormaps[quantity.colours]), cax=axes)
        bar.outline.set_visible(False)
        axes.yaxis.set_major_locator(LogLocator(10) if quantity.scale == "log" else MaxNLocator(4))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))
        axes.tick_params(labelsize=7, color=INK, labelcolor=INK, length=2, pad=2)
        axes.set_ylabel(quantity.unit if unit is None else unit, fontsize=7, color=INK, labelpad=3)

    def png(self, dpi: int | None = None) -> bytes:
        """Return the picture as a PNG, of other pixels per inch where they are given."""
        buffer = io.BytesIO()
        self.figure.savefig(buffer, format="png", facecolor=CARD, dpi=dpi or self.figure.dpi)
        return buffer.getvalue()

    def save(self, path: Path) -> Path:
        """Write the picture as a PNG and return its path."""
        path.write_bytes(self.png())
        return path


def show_image(axes: Axes, pixels: np.ndarray, title: str = "", below: str = "", grey: bool = False) -> None:
    """Show an image (H, W, 3), in faded grey where something is going to be laid over it."""
    if grey:
        luminance = pixels @ np.array([0.299, 0.587, 0.114])
        axes.imshow(luminance * 0.5 + 20, cmap="gray", vmin=0, vmax=255)
    else:
        axes.imshow(pixels)
    axes.set_xlim(-0.5, pixels.shape[1] - 0.5)
    axes.set_ylim(pixels.shape[0] - 0.5, -0.5)
    frame(axes, title, below)


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
    """Show a map (h, w) in the place of the image that it belongs to, or laid over it.

    Args:
        axes (Axes): Where.
        values (np.ndarray): The map.
        quantity (Quantity): What it is.
        scale (Normalize): Its scale.
        window (tuple): Left, right, bottom and top of what the map covers, in pixels of the image.
        size (tuple[int, int]): Height and width of the image; what the window shows beyond it is cut off.
        title (str): Title.
        below (str): Line below.
        over (bool): Whether to let the image through where the values are small.
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
    """Take ticks away and write a title above and a line below."""
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set(color="#C9CCC6", linewidth=0.6)
    axes.set_title(title, fontsize=9, color=INK, pad=3)
    if below:
        axes.set_xlabel(below, fontsize=8, color=FAINT, labelpad=3)


def note(axes: Axes, text: str) -> None:
    """Write a short text into the lower left corner of a panel."""
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
    """Draw boxes in the colour of their kind, dashed where missed, on a dark edge.

    Args:
        axes (Axes): Where.
        boxes (np.ndarray): Boxes (N, 4) as xyxy or (N, 5) as xywhr, in pixels and radians.
        kind (str): One of `OUTCOMES`.
        width (float): Width of the lines, in points.
    """
    style: Any = (0, (2, 1.2)) if kind == "miss" else "-"
    for corners in corners_of(boxes) - 0.5:
        axes.add_patch(Polygon(corners, fill=False, edgecolor="black", linewidth=width + 1.0, alpha=0.45))
        axes.add_patch(Polygon(corners, fill=False, edgecolor=OUTCOMES[kind], linewidth=width, linestyle=style))


def outcome_legend(kinds: Sequence[str]) -> list[Line2D]:
    """Return handles that explain the colours of boxes."""
    return [
        Line2D([], [], color=OUTCOMES[kind], lw=2.5, ls=(0, (2, 1)) if kind == "miss" else "-", label=kind)
        for kind in kinds
    ]


def draw_curves(
    groups: Mapping[str, Mapping[str, Sequence[float]]],
    steps: Sequence[float],
    xlabel: str = "epoch",
    columns: int = 2,
    logarithmic: Sequence[str] = (),
    colours: Sequence[str] = SERIES,
) -> Canvas:
    """Draw curves, one panel per group, labelled at their ends instead of in a legend.

    Args:
        groups (Mapping): Values by name of the curve, by title of the panel; NaN leaves a gap.
        steps (Sequence[float]): Where the values belong along the horizontal axis.
        xlabel (str): Its name.
        columns (int): Panels beside each other.
        logarithmic (Sequence[str]): Titles of panels with a logarithmic axis.
        colours (Sequence[str]): Colours of the curves, in order; they begin anew where there are more curves.

    Returns:
        (Canvas): The picture.
    """
    columns = min(columns, len(groups))
    rows = -(-len(groups) // columns)
    width, height = 4.9, 2.9
    canvas = Canvas(columns * width + 0.1, rows * height + 0.1)
    for index, (title, curves) in enumerate(groups.items()):
        axes = canvas.axes(
            0.65 + index % columns * width, 0.38 + index // columns * height, width - 1.95, height - 0.95
        )
        ends = {}
        for colour, (name, values) in zip(cycle(colours), curves.items(), strict=False):
            points = np.array(values, float)
            axes.plot(steps, points, color=colour, linewidth=1.7, marker="o" if len(steps) < 3 else None, markersize=4)
            known = np.flatnonzero(np.isfinite(points))
            if len(known):
                ends[name] = (points[known[-1]], colour)
        everything = np.concatenate([np.array(values, float) for values in curves.values()])
        if title in logarithmic and (everything[np.isfinite(everything)] > 0).all():
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(LogLocator(10, subs=(1, 2, 5), numticks=12))
            axes.yaxis.set_minor_locator(NullLocator())
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))
        elif np.isfinite(everything).any():
            axes.set_ylim(bottom=min(0.0, float(np.nanmin(everything))))
        _label_ends(axes, ends)
        axes.set_title(title, fontsize=10, color=INK, loc="left")
        axes.set_xlabel(xlabel, fontsize=8, color=INK)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        tidy(axes, "y")
    return canvas


def draw_changes(
    changes: Mapping[str, float],
    xlabel: str,
    notes: Mapping[str, str] | None = None,
    intervals: Mapping[str, tuple[float, float]] | None = None,
) -> Canvas:
    """Draw changes as bars, sorted, those for the better on top.

    Args:
        changes (Mapping[str, float]): Change by name; NaN is left out.
        xlabel (str): What changes, with its unit.
        notes (Mapping[str, str] | None): What is written after a name, such as the number of objects.
        intervals (Mapping[str, tuple[float, float]] | None): Lower and upper ends of intervals, drawn as lines.

    Returns:
        (Canvas): The picture.
    """
    order = sorted((name for name in changes if np.isfinite(changes[name])), key=lambda name: -changes[name])
    canvas = Canvas(8.2, 0.78 + 0.26 * max(len(order), 1))
    axes = canvas.axes(2.6, 0.2, 4.9, 0.26 * max(len(order), 1))
    values = [changes[name] for name in order]
    axes.barh(range(len(order)), values, height=0.7, color=[BETTER if value >= 0 else WORSE for value in values])
    axes.axvline(0, color=INK, linewidth=0.8)
    ends = [(intervals or {}).get(name, (value, value)) for name, value in zip(order, values, strict=True)]
    reach = max((abs(end) for pair in ends for end in pair), default=1.0) or 1.0
    for row, (value, (lower, upper)) in enumerate(zip(values, ends, strict=True)):
        if lower < upper:
            axes.plot([lower, upper], [row, row], color=INK, linewidth=1.1, marker="|", markersize=5)
        side = "left" if value >= 0 else "right"
        axes.text(
            max(value, upper) + reach * 0.02 if value >= 0 else min(value, lower) - reach * 0.02,
            row,
            f"{round(value, 1) + 0.0:+.1f}",
            va="center",
            ha=side,
            fontsize=8,
        )
    names = [f"{name} ({notes[name]})" if notes and name in notes else name for name in order]
    axes.set_yticks(range(len(order)), [name if len(name) < 34 else f"{name[:31]}..." for name in names])
    axes.set_ylim(len(order) - 0.4, -0.6)
    low, high = min([0.0, *(pair[0] for pair in ends)]), max([0.0, *(pair[1] for pair in ends)])
    axes.set_xlim(low - reach * (0.25 if low < 0 else 0.05), high + reach * (0.25 if high > 0 else 0.05))
    axes.set_xlabel(xlabel, fontsize=8, color=INK)
    tidy(axes, "x")
    return canvas


def tidy(axes: Axes, grid: str = "y") -> None:
    """Leave axes with what carries information: no box, small labels, a faint grid."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#9A9F98")
    axes.tick_params(labelsize=8, color="#9A9F98", labelcolor=INK)
    axes.set_axisbelow(True)
    axes.grid(axis=grid, color="#E3E5DF", linewidth=0.7)  # type: ignore[arg-type]


def _label_ends(axes: Axes, ends: Mapping[str, tuple[float, str]]) -> None:
    """Write the names of curves at their ends, moved apart where they would overlap."""
    if not ends:
        return
    places = {
        name: axes.transAxes.inverted().transform(axes.transData.transform((0, value)))[1]
        for name, (value, _) in ends.items()
    }
    spacing, last = 0.105, -np.inf
    moved = {}
    for name in sorted(places, key=lambda name: places[name]):
        last = moved[name] = max(places[name], last + spacing)
    excess = max(0.0, last - 1.0)
    for name, (value, colour) in ends.items():
        text = f"{name} {value:.3g}"
        axes.annotate(
            text,
            (1.0, places[name]),
            xytext=(
                1.05,
                moved[name] - excess * (moved[name] - min(moved.values())) / max(last - min(moved.values()), 1e-9),
            ),
            xycoords="axes fraction",
            textcoords="axes fraction",
            fontsize=7.5,
            color=colour,
            va="center",
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.5, "shrinkA": 0, "shrinkB": 0},
            annotation_clip=False,
        )
