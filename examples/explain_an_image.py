"""Draw the sheet of one image from Python, small enough for a document: the outputs and maps of student and teacher.

Example: python examples/explain_an_image.py teacher.pt student.pt image.png sheet.png --amplifier amplifier.pt
`ds2d2 explain` does it for many images, at full size, and with all checks.
"""

from __future__ import annotations

import argparse
import io
from functools import partial
from pathlib import Path

from PIL import Image

from ds2d2_yolo.explanation.images import read_image
from ds2d2_yolo.explanation.setup import load_trained_models, make_explainer
from ds2d2_yolo.loading.images import images_of_split
from ds2d2_yolo.report.sheet import draw_sheet


def main() -> None:
    """Explain the image and save the sheet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("teacher", "student", "image", "sheet"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--amplifier", type=Path)
    parser.add_argument("--plain", type=Path)
    parser.add_argument("--no-bands", action="store_true", help="leave out the bands and errors of every level")
    parser.add_argument("--imgsz", type=int, default=640)
    parser.add_argument("--dpi", type=int, default=84)
    options = parser.parse_args()

    paths = {"teacher": options.teacher, "student": options.student}
    models = load_trained_models(paths | ({"plain": options.plain} if options.plain else {}))
    explainer = make_explainer(models, options.amplifier, options.imgsz)
    names = models["student"].class_names
    read = partial(read_image, classes=len(names))
    if not explainer.load_adapters(options.student.with_name("adapters.pt")):
        explainer.fit_adapters(images_of_split(str(options.image.parent)), "of the images beside this one", read)
    explanation = explainer.explain(read(options.image))
    canvas = draw_sheet(explanation, names, explainer.origin, not options.no_bands)
    with Image.open(io.BytesIO(canvas.png(options.dpi))) as picture:
        # A palette of all colours: the rare colours of the boxes must not change
        small = picture.convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
        small.save(options.sheet, optimize=True)


if __name__ == "__main__":
    main()
