"""`ds2d2 explain`: shows what distillation compares in each image, as sheets and one page."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ultralytics.utils import TQDM

from ds2d2_yolo.commands.words import parse_arguments
from ds2d2_yolo.errors import DS2D2Error
from ds2d2_yolo.explanation.setup import find_images, load_trained_models, make_explainer, trained_argument
from ds2d2_yolo.files import report_full_disk
from ds2d2_yolo.loading.place import chosen_device
from ds2d2_yolo.loading.safety import check_safety
from ds2d2_yolo.method import WEIGHTS, filter_length
from ds2d2_yolo.options import check_confidence, complete_options, new_folder, usable_path
from ds2d2_yolo.report.sheets_page import save_sheets
from ds2d2_yolo.tables import counted
from ds2d2_yolo.training.arguments import FOOTPRINTS


def run_explain(given: Mapping[str, Any]) -> None:
    """Explain images: one PNG for each, and `index.html` with all of them.

    Args:
        given (Mapping[str, Any]): Options that replace those of `cfg/explain.yaml`; `source`, `teacher` and `student`
            are required.

    Raises:
        DS2D2Error: If an option is wrong, the models do not match, or the source has no images.

    Example:
        >>> run_explain({"source": "scenes.yaml", "teacher": "t.pt", "student": "s.pt"})  # doctest: +SKIP
    """
    options = complete_options("explain", given, required=("source", "teacher", "student"))
    _check_options(options)
    if options["safe"]:
        check_safety({role: options[role] for role in ("teacher", "student", "plain", "amplifier")})
    paths = {role: options[role] for role in ("teacher", "student", "plain") if options[role] is not None}
    models = load_trained_models(paths)
    student = models["student"]
    source = find_images(
        str(options["source"]),
        student.class_names,
        options["split"],
        options["max_images"],
        options["data"],
        trained_argument(student, "unlabeled"),
    )
    device = chosen_device(options["device"])
    settings = {
        name: options[name] for name in ("amplifier", "imgsz", "teacher_imgsz", "wavelet", "weight", "footprint")
    }
    explainer = make_explainer(models, confidence=float(options["conf"]), device=device, **settings)
    out = new_folder("explain", options["out"], options["exist_ok"])
    for path in source.images:  # an unreadable image must end the command before anything is written
        source.read(path, student)
    if not explainer.load_adapters(Path(options["student"]).with_name("adapters.pt")):
        explainer.fit_adapters(source.fit_images, source.fit_name, lambda path: source.read(path, student))
    print(f"Adapters: {explainer.origin}")
    titles = ", ".join(f"{role} {detector.title} ({paths[role]})" for role, detector in models.items())
    images = TQDM(source.images, desc="explaining", file=sys.stderr)
    explanations = (explainer.explain(source.read(path, student)) for path in images)
    with report_full_disk(out):
        sheets = save_sheets(out, explanations, student.class_names, titles, explainer.origin)
    print(f"Saved in {out}: index.html and {counted(len(sheets), 'sheet')}")


def run(arguments: Sequence[str]) -> None:
    """Run the command with the words after its name."""
    run_explain(parse_arguments(arguments))


def _check_options(options: Mapping[str, Any]) -> None:
    number = options["max_images"]
    if type(number) is not int or number < 1:
        raise DS2D2Error(f"max_images={number}: expected a whole number of at least 1, such as max_images=8", 2)
    check_confidence(options["conf"])
    for name, example in (("imgsz", 640), ("teacher_imgsz", 1280)):
        size = options[name]
        if size is not None and (type(size) is not int or size < 1):
            raise DS2D2Error(f"{name}={size}: expected a whole number of pixels, such as {name}={example}", 2)
    if options["weight"] not in {None, *WEIGHTS}:
        raise DS2D2Error(f"weight={options['weight']}: expected {' or '.join(WEIGHTS)}", 2)
    if options["footprint"] not in {None, *FOOTPRINTS}:
        raise DS2D2Error(f"footprint={options['footprint']}: expected {' or '.join(FOOTPRINTS)}", 2)
    if options["wavelet"] is not None:
        try:
            filter_length(options["wavelet"])
        except ValueError as error:
            raise DS2D2Error(str(error), 2) from error
    usable_path("source", str(options["source"]))
