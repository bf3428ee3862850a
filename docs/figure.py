"""Draw the figure of the method: what is compared with what.

Example: python docs/figure.py docs/how/method.svg
"""

from __future__ import annotations

import sys

import matplotlib
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

COLOURS = {"teacher": "#cfe3f5", "student": "#fde2c6", "band": "#e8e8e8", "term": "#d3efe6"}


def box(axes: Axes, x: float, y: float, text: str, kind: str, width: float = 2.0) -> None:
    """Draw a box with its centre at (x, y)."""
    shape = FancyBboxPatch((x - width / 2, y - 0.32), width, 0.64, boxstyle="round,pad=0.06", lw=0.8)
    shape.set(facecolor=COLOURS[kind], edgecolor="#555555")
    axes.add_patch(shape)
    axes.text(x, y, text, ha="center", va="center", fontsize=9)


def arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    """Draw an arrow from edge to edge of two boxes."""
    axes.add_patch(FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=9, lw=0.9, color="#555555"))


def main(path: str) -> None:
    """Draw the figure and save it."""
    matplotlib.rcParams |= {"svg.hashsalt": "ds2d2", "svg.fonttype": "path"}
    figure, axes = plt.subplots(figsize=(10.5, 5.4))
    axes.set(xlim=(-1.3, 13.4), ylim=(-0.3, 7.2))
    axes.axis("off")
    for y, kind in ((6.4, "teacher"), (0.6, "student")):
        frozen = " (frozen)" if kind == "teacher" else ""
        box(axes, 0, y, f"{kind}{frozen}", kind)
        box(axes, 3, y, "neck maps T" if kind == "teacher" else "neck maps", kind)
        box(axes, 12, y, "its predictions", kind, 2.2)
        arrow(axes, (1.1, y), (1.9, y))
        arrow(axes, (4.1, y), (10.8, y))
    axes.text(1.9, 1.2, "adapter: S", ha="right", fontsize=9, color="#555555")
    bands = (("LL", 4.0), ("LH, HL, HH", 6.4), ("LH + HL + HH", 8.8))
    for text, x in (*bands, ("whole maps", 1.6)):
        for y, edge in ((5.0, 6.04), (2.0, 1.0)):
            box(axes, x, y, text, "band")
            arrow(axes, (3, edge), (x, y + 0.4 if y < edge else y - 0.4))
    terms = (("im_full:\nteacher's head", 1.6), ("ex_low:\nsquared error", 4.0))
    terms += (("ex_high:\nsquared error", 6.4), ("im_high:\namplifier", 8.8), ("response", 12.0))
    for text, x in terms:
        box(axes, x, 3.5, text, "term", 2.2)
        top, bottom = (6.0, 1.0) if x == 12.0 else (4.6, 2.4)
        arrow(axes, (x, top), (x, 3.9))
        arrow(axes, (x, bottom), (x, 3.1))
    figure.savefig(path, bbox_inches="tight", facecolor="white", metadata={"Date": None})


if __name__ == "__main__":
    main(sys.argv[1])
