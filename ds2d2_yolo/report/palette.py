"""Colours of all pictures and pages: those of Okabe and Ito, which are safe for all colour vision."""

from __future__ import annotations

from dataclasses import dataclass

BLUE, VERMILION, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
ORANGE, SKY, YELLOW = "#E69F00", "#56B4E9", "#F0E442"

CARD, INK, FAINT = "#FAFAF7", "#1B1F24", "#6A717B"
"""Background of a picture, its text, and lighter text. Contrast: 15:1 and 4.8:1."""

FRAME, AXIS, GRID = "#C9CCC6", "#9A9F98", "#E3E5DF"
"""Lines around a panel, axes, and the grid behind curves."""

OUTCOMES = {"object": GREEN, "hit": SKY, "false alarm": VERMILION, "miss": YELLOW, "detection": PURPLE}
"""Colours of boxes."""

SERIES = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, "#4D4D4D")
"""Colours of curves, in order."""

METHODS = ("#000000", BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, "#7F7F7F")
"""Colours of the methods of a comparison, in order."""

SPLIT_COLORS = {"train": BLUE, "val": VERMILION, "test": GREEN, "minival": PURPLE}
"""Colours of the splits of a data set."""

CROWDING = {"alone": "#E8EEF2", "2": "#9CC9E3", "3 to 4": "#3E8FC4", "5 or more": "#0B3C5D"}
"""Colours of the number of objects in one cell, from light to dark."""

BETTER, WORSE = BLUE, VERMILION
"""Colours of gains and losses."""

LIGHT = {"back": "#fff", "ink": INK, "faint": "#59616b", "line": "#d8dbd5", "link": "#0b5cad"}
DARK = {"back": "#14171b", "ink": "#e6e8ea", "faint": "#a3abb4", "line": "#343a41", "link": "#7cb8f5"}
"""Colours of a page, by the reader's system."""


@dataclass(frozen=True)
class Quantity:
    """Colour map of a quantity. All are perceptually uniform and safe for all colour vision.

    Attributes:
        unit (str): Text at the colour bar.
        colours (str): Name of the colour map.
        scale (str): `linear`, `root` (makes small values more visible) or `log`.
    """

    unit: str
    colours: str
    scale: str


ENERGY = Quantity("RMS over channels", "viridis", "linear")
ERROR = Quantity("mean squared error", "inferno", "root")
WEIGHT = Quantity("extra weight, W - 1", "cividis", "log")
FOCUS = Quantity("weight / its mean", "cividis", "log")
DIFFERENCE = Quantity("difference per 4 x 4 pixels", "plasma", "root")
