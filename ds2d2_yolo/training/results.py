"""Reading Ultralytics' `results.csv`: a header and a row per epoch. Incomplete rows of a killed run are ignored."""

from __future__ import annotations

from pathlib import Path

from ds2d2_yolo.errors import DS2D2Error
from ds2d2_yolo.files import whole_file

TEACHER_FILE = "teacher.json"
"""File in a student's run folder: `mAP50` and `mAP50-95` of its teacher on the validation set, and `imgsz`."""

PAIR_FILE = "pair.json"
"""File in a student's run folder: the compared models and layers. A run with `plots=False` has none."""

OF_A_STUDENT = (TEACHER_FILE, PAIR_FILE, "ds2d2_*.png")
"""Patterns of the files that only this package writes into a student's run folder."""


def column_names(path: Path) -> list[str]:
    """Return the names of the columns, without spaces around them. A missing file has none."""
    return _names(_lines(path)[0]) if path.is_file() else []


def read_rows(path: Path) -> list[dict[str, float]]:
    """Return the rows in their order. An epoch that was trained again after an interruption can have two rows.

    Args:
        path (Path): The file.

    Returns:
        (list[dict[str, float]]): Values by column. Empty cells are NaN.

    Raises:
        DS2D2Error: If the file is missing or has values that are not numbers.
    """
    try:
        header, lines = _lines(path)
        cells = [[float(cell.strip() or "nan") for cell in line.split(",")] for line in lines]
        return [dict(zip(_names(header), row, strict=True)) for row in cells]
    except (OSError, ValueError) as error:
        raise DS2D2Error(
            f"{path}: cannot be read as a results table ({error}); restore it, or start a new run with another name="
        ) from error


def read_columns(path: Path) -> dict[str, list[float]]:
    """Return the columns by name, empty if there is no row yet. Arguments and errors are those of `read_rows`."""
    rows = read_rows(path)
    return {name: [row[name] for row in rows] for name in (rows[0] if rows else {})}


def keep_epochs(path: Path, epochs: int) -> None:
    """Delete the rows of epochs that a resumed run trains again.

    There are such rows if the run was killed after it wrote a row and before it saved the checkpoint.

    Args:
        path (Path): The file. It may be missing.
        epochs (int): Number of finished epochs.
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
    """Return the header and the complete rows, with their line ends."""
    header, *lines = path.read_text(encoding="utf-8").splitlines(keepends=True) or [""]
    return header, [line for line in lines if line.endswith("\n") and line.count(",") == header.count(",")]
