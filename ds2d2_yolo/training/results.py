"""Ultralytics' `results.csv`: a header, then a row per epoch. A row that a killed run left half written is no row."""

from __future__ import annotations

from pathlib import Path

from ds2d2_yolo.errors import DS2D2Error
from ds2d2_yolo.files import whole_file


def column_names(path: Path) -> list[str]:
    """Return the names of the columns, without the spaces around them; none of a missing file."""
    return _names(_lines(path)[0]) if path.is_file() else []


def read_rows(path: Path) -> list[dict[str, float]]:
    """Return the rows in their order; an epoch that was trained again after an interruption may have two.

    Args:
        path (Path): The file.

    Returns:
        (list[dict[str, float]]): Values by column; NaN where a cell is empty.

    Raises:
        DS2D2Error: If the file is missing or holds something else than numbers.
    """
    try:
        header, lines = _lines(path)
        cells = [[float(cell.strip() or "nan") for cell in line.split(",")] for line in lines]
        return [dict(zip(_names(header), row, strict=True)) for row in cells]
    except (OSError, ValueError) as error:
        raise DS2D2Error(
            f"{path}: cannot be read as a table of results ({error}); restore it, or start a new run with another name="
        ) from error


def read_columns(path: Path) -> dict[str, list[float]]:
    """Return the columns by name, empty where there is no row yet; arguments and errors as `read_rows`."""
    rows = read_rows(path)
    return {name: [row[name] for row in rows] for name in (rows[0] if rows else {})}


def keep_epochs(path: Path, epochs: int) -> None:
    """Drop the rows of epochs that a resumed run trains again.

    A run killed between writing its row and its checkpoint has a row too many, or a part of one.

    Args:
        path (Path): The file; nothing happens where it is missing.
        epochs (int): Number of epochs that are done.
    """
    if not path.is_file():
        return
    header, lines = _lines(path)
    kept = header + "".join(line for line in lines if int(float(line.split(",")[0])) <= epochs)
    with whole_file(path) as partial:
        partial.write_text(kept, encoding="utf-8")


def _names(header: str) -> list[str]:
    return [name.strip() for name in header.split(",")] if header.strip() else []


def _lines(path: Path) -> tuple[str, list[str]]:
    """Return the header and the whole rows, with their line ends."""
    header, *lines = path.read_text(encoding="utf-8").splitlines(keepends=True) or [""]
    return header, [line for line in lines if line.endswith("\n") and line.count(",") == header.count(",")]
