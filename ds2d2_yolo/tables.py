"""Tables of plain text, as the commands print them."""

from __future__ import annotations

from collections.abc import Sequence


def text_table(rows: Sequence[Sequence[str]], texts: int = 1, indent: str = "") -> list[str]:
    """Return rows as lines of aligned columns, two spaces apart.

    Args:
        rows (Sequence[Sequence[str]]): Cells, as many in every row; the first row is usually the header.
        texts (int): Columns from the left that hold texts, aligned left; the others hold numbers, aligned right.
        indent (str): What every line begins with.

    Returns:
        (list[str]): A line per row, without spaces at its end.

    Example:
        >>> text_table([["class", "objects"], ["ship", "7"]])
        ['class  objects', 'ship         7']
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    aligned = (
        [
            cell.ljust(width) if number < texts else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        for row in rows
    )
    return [(indent + "  ".join(cells)).rstrip() for cells in aligned]
