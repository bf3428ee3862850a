"""`ds2d2 val`: evaluates the COCO-style AP of a detector on a data set."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ultralytics.utils import DEFAULT_CFG_DICT

from ds2d2_yolo.commands.words import parse_arguments
from ds2d2_yolo.errors import DS2D2Error, did_you_mean
from ds2d2_yolo.evaluation import AP_COLUMNS, Evaluation, evaluate
from ds2d2_yolo.loading.safety import check_safety
from ds2d2_yolo.options import complete_options, option_defaults
from ds2d2_yolo.tables import text_table


def run(words: Sequence[str]) -> None:
    """Evaluate a detector and print the results.

    Args:
        words (Sequence[str]): `key=value` words: `model`, `data`, the options of `cfg/val.yaml` and Ultralytics' val
            arguments.

    Raises:
        DS2D2Error: See `evaluate`. Also if an argument is unknown or missing.
    """
    given = parse_arguments(words)
    defaults = option_defaults("val")
    choices = [*defaults, *DEFAULT_CFG_DICT, "save_dir"]
    for name, value in given.items():
        if name not in choices:
            hint = did_you_mean(name, choices, "see 'ds2d2 cfg val' for all options")
            raise DS2D2Error(f"{name}={value}: 'ds2d2 val' has no such option; {hint}", 2)
    for name, example in (("model", "path/to/best.pt"), ("data", "path/to/data.yaml")):
        if not given.get(name):
            raise DS2D2Error(f"{name}= is missing; pass for example {name}={example}", 2)
    options = complete_options("val", {name: value for name, value in given.items() if name in defaults})
    if options.pop("safe"):
        check_safety({"model": given["model"]})
    arguments = {name: value for name, value in given.items() if name != "safe"}
    print("\n".join(table_lines(evaluate(**{**arguments, **options}))))


def table_lines(evaluation: Evaluation) -> list[str]:
    """Return an evaluation as a table, with warnings."""
    rows = [["class", "objects", *AP_COLUMNS]]
    for name, scores in [("all", evaluation), *evaluation.classes.items()]:
        values = (getattr(scores, column) for column in AP_COLUMNS)
        rows.append([name, str(scores.objects), *("-" if math.isnan(value) else f"{value:.3f}" for value in values)])
    sizes = ", ".join(f"{count} {name}" for name, count in evaluation.sizes.items())
    figures = {"mAP50": evaluation.mAP50, "mAP50-95": evaluation.mAP50_95}
    figures |= {name.removeprefix("metrics/"): value for name, value in evaluation.figures.items()}
    lines = [
        *text_table(rows),
        f"{evaluation.images} images, {evaluation.objects} objects: {sizes} (below 32 x 32, 96 x 96 pixels, above)",
        f"Ultralytics' own figures: {', '.join(f'{name} {value:.3f}' for name, value in figures.items())}",
    ]
    if evaluation.objects == 0:
        lines.append("WARNING: this split has no objects, so AP is undefined; label some, or pass another split=")
    if evaluation.most > evaluation.max_dets:
        lines.append(
            f"WARNING: only max_dets={evaluation.max_dets} detections per class and image count, but an image has "
            f"{evaluation.most} objects of one class; pass max_dets={evaluation.most}"
        )
    if evaluation.refused:
        file, reason = next(iter(evaluation.refused.items()))
        lines.append(
            f"WARNING: {len(evaluation.refused)} images left out, all are in coco.json; correct {file}: {reason}"
        )
    return [*lines, f"saved in {evaluation.folder}: coco.json, coco.csv, ground_truth.json, predictions.json"]
