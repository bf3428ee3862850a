"""Plain text tables and counts for printed output."""

from __future__ import annotations

from collections.abc import Sequence


def counted(number: int, one: str, many: str = "") -> str:
    """Return a number with its noun.

    Args:
        number (int): The number.
        one (str): The noun in the singular.
        many (str): The noun in the plural; unset = the singular with an s.

    Example:
        >>> counted(1, "class", "classes"), counted(1200, "epoch")
        ('1 class', '1,200 epochs')
    """
    return f"{number:,} {one if number == 1 else many or f'{one}s'}"


def text_table(rows: Sequence[Sequence[str]], texts: int = 1, indent: str = "") -> list[str]:
    """Return rows as lines with aligned columns, two spaces apart.

    Args:
        rows (Sequence[Sequence[str]]): Cells, equally many in every row. The first row is usually the header.
        texts (int): Number of text columns from the left, aligned left. The other columns are aligned right.
        indent (str): Prefix of every line.

    Returns:
        (list[str]): One line per row, without trailing spaces.

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
