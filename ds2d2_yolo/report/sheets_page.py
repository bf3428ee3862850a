"""Saves the sheets of several images, and a page with all of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ds2d2_yolo.errors import DS2D2Error
from ds2d2_yolo.explanation.explainer import Explanation
from ds2d2_yolo.report.page import Paragraph, Part, Picture, Section, Table, render_page
from ds2d2_yolo.report.sheet import draw_sheet


def save_sheets(
    folder: Path, explanations: Iterable[Explanation], names: Sequence[str], models: str, origin: str
) -> list[Path]:
    """Write one PNG for each image, and `index.html` with all of them.

    Args:
        folder (Path): The folder; it is made if it does not exist.
        explanations (Iterable[Explanation]): The explanations, one per image.
        names (Sequence[str]): Class names.
        models (str): Text about the models.
        origin (str): Text about the origin of the adapters.

    Returns:
        (list[Path]): The sheets.

    Raises:
        DS2D2Error: If the folder cannot be written.
    """
    sheets: dict[Path, Explanation] = {}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for number, explanation in enumerate(explanations, 1):
            file = folder / f"{number:02}-{explanation.image.shown_path.stem}.png"
            file.write_bytes(draw_sheet(explanation, names, origin).png())
            sheets[file] = explanation
        (folder / "index.html").write_text(_page(sheets, models, origin), encoding="utf-8")
    except OSError as error:
        raise DS2D2Error(f"out={folder}: cannot write here ({error.strerror or error}); pass another out=") from error
    return list(sheets)


def _page(sheets: Mapping[Path, Explanation], models: str, origin: str) -> str:
    """Return the page of all sheets."""
    introduction: list[Part] = [
        Paragraph(
            "Each sheet goes from the output back to the feature maps. First come the detections. Second, the implicit "
            "terms: one frozen head gets the feature maps of both models, and the sheet shows where its predictions "
            "differ. Third, the weight of the errors. Last, for each level, the explicit terms: the four bands of both "
            "models, and their squared difference before and after weighting."
        ),
        Paragraph(
            f"The student's feature maps are shown after adapters: {origin}. Energies are the root mean square over "
            "the channels. Teacher and student share one colour scale."
        ),
        Paragraph(
            "Numbers of the explicit terms are for one level, named by its stride, without gains. Numbers of the "
            "implicit terms are sums over all anchors or regions."
        ),
        _numbers_table(sheets.values()),
    ]
    sections = [Section("How to read the sheets", introduction)]
    for file, explanation in sheets.items():
        path = explanation.image.shown_path
        sections.append(Section(path.name, [Picture(file, f"Sheet of {path.name}", str(path))]))
    return render_page("What the student learns from its teacher", models, sections)


def _numbers_table(explanations: Iterable[Explanation]) -> Table:
    numbers = [(explanation.image.shown_path.name, explanation.numbers) for explanation in explanations]
    columns = list(numbers[0][1])
    rows = [[name, *(f"{values[column]:.3g}" for column in columns)] for name, values in numbers]
    return Table(["image", *(column.replace("_weighted", " weighted").replace("/", ", ") for column in columns)], rows)
