"""Fonts for texts of users, such as names of classes and files in any script."""

from __future__ import annotations

from functools import cache

from matplotlib import rcParams
from matplotlib.font_manager import FontProperties, findfont, fontManager
from matplotlib.ft2font import FT2Font
from ultralytics.utils import LOGGER, colorstr

_NORMAL = {400, "normal", "regular", "book"}
_warned: list[str] = []  # the signs of the first warning, as one per process is enough


def families_for(text: str) -> list[str]:
    """Return font families for a text: matplotlib's, and installed ones with the signs that it lacks.

    If no installed font has a sign, which is then drawn as a box, a warning says so, once per process.

    Args:
        text (str): All texts of a picture.

    Returns:
        (list[str]): The families. matplotlib takes each sign from the first one that has it.

    Example:
        >>> families_for("ship")
        ['sans-serif']
    """
    standard = FT2Font(findfont(FontProperties()))
    missing = frozenset(sign for sign in text if sign.isprintable() and not standard.get_char_index(ord(sign)))
    chosen, boxes = _fonts_with(missing)
    if boxes and not _warned:
        _warned.append(boxes)
        LOGGER.warning(
            f"{colorstr('DS2D2:')} no installed font has {boxes[:20]}, so pictures show boxes instead; install one, "
            "such as Noto Sans CJK for Chinese, Japanese and Korean"
        )
    return [*rcParams["font.family"], *chosen]


@cache
def _fonts_with(signs: frozenset[str]) -> tuple[list[str], str]:
    """Return few installed fonts that together have most of the signs, and the signs that none has."""
    left, chosen = set(signs), []
    found = _signs_by_font(signs) if signs else {}
    while any(left & own for own in found.values()):
        best = max(found, key=lambda name: (len(left & found[name]), "Sans" in name))
        chosen.append(best)
        left -= found[best]
    return chosen, "".join(sorted(left))


def _signs_by_font(signs: frozenset[str]) -> dict[str, set[str]]:
    """Return the signs that the upright fonts of every installed family have.

    The font that matplotlib draws with counts: the one of normal weight. A bold one can have fewer signs.
    """
    found: dict[str, set[str]] = {}
    for entry in sorted(fontManager.ttflist, key=lambda entry: entry.weight not in _NORMAL):
        if entry.style != "normal" or entry.name in found or "Last Resort" in entry.name:  # those have boxes alone
            continue
        try:
            font = FT2Font(entry.fname)
        except (OSError, RuntimeError):  # removed or damaged
            continue
        if font.scalable:
            found[entry.name] = {sign for sign in signs if font.get_char_index(ord(sign))}
    return found
