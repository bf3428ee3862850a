"""`ds2d2 explain`: what distillation compares, image by image, as sheets and one page."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from ultralytics.data.utils import IMG_FORMATS
from ultralytics.utils import TQDM, YAML
from ultralytics.utils.torch_utils import select_device

from ds2d2_yolo.detectors import Detector
from ds2d2_yolo.errors import DS2D2Error
from ds2d2_yolo.explanation.explainer import Explainer, Explanation, metrics_of, read_picture, spread_out
from ds2d2_yolo.loading.classes import class_difference, in_order
from ds2d2_yolo.loading.data import load_data
from ds2d2_yolo.loading.fingerprint import images_of_split
from ds2d2_yolo.loading.models import load_model
from ds2d2_yolo.method import WEIGHTS, filter_bank
from ds2d2_yolo.options import complete_options, new_folder, usable_path
from ds2d2_yolo.report.html import Section, page, paragraph, picture, table
from ds2d2_yolo.report.sheet import draw_sheet
from ds2d2_yolo.training.amplifier import load_amplifier, read_amplifier
from ds2d2_yolo.training.arguments import FOOTPRINTS
from ds2d2_yolo.training.checks import check_footprints
from ds2d2_yolo.training.pair import Pair, check_pair


def run_explain(given: Mapping[str, Any]) -> int:
    """Explain images: one PNG for each, and `index.html` with all of them.

    Args:
        given (Mapping[str, Any]): Options that differ from those of `cfg/explain.yaml`; `source`, `teacher` and
            `student` are required.

    Returns:
        (int): Exit code 0.

    Raises:
        DS2D2Error: If an option is wrong, the models do not belong together, or the source holds no images.

    Example:
        >>> run_explain({"source": "scenes.yaml", "teacher": "t.pt", "student": "s.pt"})  # doctest: +SKIP
        0
    """
    options = complete_options("explain", given, required=("source", "teacher", "student"))
    _check_options(options)
    models = _load_models(options)
    images, labelled, fit_images, fit_name = _find_images(options, models["student"].class_names)
    pair, imgsz = _match(models, options)
    check_footprints(options["disw"], models["teacher"])
    wavelet, amplifier = _load_amplifier(options, models["teacher"])
    try:
        device = select_device(options["device"] or "", verbose=False)
    except Exception as error:  # ValueError, AssertionError or RuntimeError, by device and release
        raise DS2D2Error(f"device={options['device']}: {error}", 2) from error
    for model in [*(detector.model for detector in models.values()), *([amplifier] if amplifier else [])]:
        model.float().to(device).requires_grad_(False)
    out = new_folder("explain", options["out"], options["exist_ok"])
    names = models["student"].class_names
    task, points = models["student"].task, models["student"].keypoints or (0, 0)
    read = partial(read_picture, classes=len(names), labelled=labelled, task=task, points=points)
    for path in images:  # what cannot be read is told before anything is written
        read(path)
    explainer = Explainer(
        models["teacher"],
        models["student"],
        pair,
        imgsz,
        amplifier,
        models.get("plain"),
        wavelet,
        float(options["conf"]),
        options["weight"] or _trained_weight(models["student"]),
        (options["disw"] or _argument(models["student"], "disw")) == "hull",
    )
    if not explainer.take_adapters(Path(options["student"]).with_name("adapters.pt")):
        explainer.fit_adapters(fit_images, fit_name, read)
    print(f"Adapters: {explainer.origin}")
    written = {}
    try:
        out.mkdir(parents=True, exist_ok=True)
        for number, path in enumerate(TQDM(images, desc="explaining", file=sys.stderr)):
            explanation = explainer.explain(read(path))
            file = out / f"{number + 1:02}-{path.stem}.png"
            file.write_bytes(draw_sheet(explanation, names, explainer.origin).png())
            written[file] = explanation
        (out / "index.html").write_text(_page(written, models, explainer.origin, options), encoding="utf-8")
    except OSError as error:
        raise DS2D2Error(f"out={out}: cannot write here ({error.strerror or error}), choose another folder") from error
    print(f"Saved in {out}: index.html and {len(written)} sheets")
    return 0


def _check_options(options: Mapping[str, Any]) -> None:
    number = options["max_images"]
    if type(number) is not int or number < 1:
        raise DS2D2Error(f"max_images={number}: expected a whole number of at least 1", 2)
    confidence = options["conf"]
    if isinstance(confidence, bool) or not 0 <= confidence <= 1:
        raise DS2D2Error(f"conf={confidence}: expected a number from 0 to 1", 2)
    imgsz = options["imgsz"]
    if imgsz is not None and (type(imgsz) is not int or imgsz < 1):
        raise DS2D2Error(f"imgsz={imgsz}: expected a whole number of pixels", 2)
    if options["weight"] not in {None, *WEIGHTS}:
        raise DS2D2Error(f"weight={options['weight']}: expected {' or '.join(WEIGHTS)}", 2)
    if options["disw"] not in {None, *FOOTPRINTS}:
        raise DS2D2Error(f"disw={options['disw']}: expected {' or '.join(FOOTPRINTS)}", 2)
    if options["wavelet"] is not None:
        try:
            filter_bank(options["wavelet"])
        except ValueError as error:
            raise DS2D2Error(str(error), 2) from error
    usable_path("source", str(options["source"]))


def _load_models(options: Mapping[str, Any]) -> dict[str, Detector]:
    """Return the detectors by role, all of the same classes."""
    models: dict[str, Detector] = {}
    for role in ("teacher", "student", "plain"):
        if options[role] is None:
            continue
        models[role], trained = load_model(role, options[role])
        if not trained:
            raise DS2D2Error(f"{role}={options[role]}: only a trained model can be explained, pass its .pt file", 2)
        if models[role].explicit_only:
            raise DS2D2Error(f"{role}={options[role]}: is an {models[role].family}, which is not explained here")
        channels = next(models[role].model.parameters()).shape[1]
        if channels != 3:
            raise DS2D2Error(f"{role}={options[role]}: takes images of {channels} channels, only 3 can be shown")
    expected = models["teacher"].class_names
    for role, detector in models.items():
        difference = class_difference(detector.class_names, expected, f"the teacher {options['teacher']}")
        if difference is not None:
            raise DS2D2Error(f"{role}={options[role]}: {difference}")
    return models


def _match(models: Mapping[str, Detector], options: Mapping[str, Any]) -> tuple[Pair, int]:
    """Return the pair and the image size."""
    student = models["student"]
    size = options["imgsz"]
    if size is None:
        size = _trained_size(student)
    pair = check_pair(models["teacher"], student, size)
    for role in ("teacher", "student"):
        models[role].model.eval()
    return pair, size


def _trained_weight(student: Detector) -> str:
    """Return the weight that a checkpoint was distilled with, or the default."""
    return str(_argument(student, "weight") or "confidence")


def _argument(student: Detector, name: str) -> Any:
    """Return an argument that a checkpoint was trained with, or None.

    From finished checkpoints Ultralytics takes the arguments that are not its own; `args.yaml` of their run has them.
    """
    args: Any = getattr(student.model, "args", None)
    value = args.get(name) if isinstance(args, dict) else getattr(args, name, None)
    path = getattr(student.model, "pt_path", None)
    if value is not None or path is None:
        return value
    file = Path(path).resolve().parent.parent / "args.yaml"
    return YAML.load(file).get(name) if file.is_file() else None


def _trained_size(student: Detector) -> int:
    """Return the image size that a checkpoint was trained at, or Ultralytics' default."""
    size = _argument(student, "imgsz")
    size = max(size) if isinstance(size, (list, tuple)) else size
    step = max(int(max(student.model.stride)), 32)
    return math.ceil(size / step) * step if isinstance(size, int) else 640


def _load_amplifier(options: Mapping[str, Any], teacher: Detector) -> tuple[str, Any]:
    wavelet = options["wavelet"]
    if options["amplifier"] is None:
        return str(wavelet or "haar"), None
    if wavelet is None:
        wavelet = read_amplifier(options["amplifier"])["wavelet"]
    return str(wavelet), load_amplifier(options["amplifier"], teacher, wavelet)


def _find_images(options: Mapping[str, Any], names: Sequence[str]) -> tuple[list[Path], bool, list[Path], str]:
    """Return the images to explain, whether one without label file has no objects, images to fit to and their name."""
    source = Path(str(options["source"])).expanduser()
    if source.suffix.lower() in {".yaml", ".yml"}:
        data = _load_data("source", str(options["source"]), options["split"], names)
        images, labelled = images_of_split(data[options["split"]]), True
    elif source.is_dir():
        images, labelled = images_of_split(str(source)), False
    elif source.suffix[1:].lower() in IMG_FORMATS and source.is_file():
        images, labelled, data = [source], False, None
    else:
        kind = "is no image, folder or data YAML" if source.exists() else "no such image, folder or data YAML"
        raise DS2D2Error(f"source={source}: {kind}", 2)
    if not images:
        raise DS2D2Error(f"source={source}: there are no images in it")
    if source.is_dir():
        data = None
    if options["data"] is not None:
        data = _load_data("data", str(options["data"]), "train", names)
    fit = images_of_split(data.get("train")) if data else []
    chosen = spread_out(images, options["max_images"])
    return chosen, labelled, fit or images, "training images" if fit else "of the images of the source itself"


def _load_data(option: str, path: str, split: str, names: Sequence[str]) -> dict[str, Any]:
    try:
        data = load_data(SimpleNamespace(data=path, single_cls=False, split=split))
    except DS2D2Error as error:
        raise DS2D2Error(str(error).replace("data=", f"{option}=", 1)) from error
    difference = class_difference(names, in_order(data["names"]))
    if difference is not None:
        raise DS2D2Error(f"{option}={path}: has other classes than the models (teacher: {difference})")
    return data


def _page(
    written: Mapping[Path, Explanation], models: Mapping[str, Detector], origin: str, options: Mapping[str, Any]
) -> str:
    """Return the page of all sheets."""
    roles = ", ".join(f"{role} {detector.title} ({options[role]})" for role, detector in models.items())
    introduction = [
        paragraph(
            "Each sheet goes from what comes out back to what is compared inside. Detections come first, then where "
            "the predictions of teacher and student differ when one frozen head looks at the maps of both (the "
            "implicit terms), then the weight of the errors, and by level the four bands of "
            "both and their squared difference before and after it is weighted (the explicit terms)."
        ),
        paragraph(
            f"The student's maps are shown through adapters: {origin}. Energies are the root of the mean square over "
            "the channels; teacher and student share one scale."
        ),
        paragraph(
            "Numbers of the explicit terms are those of one level each, named by its stride, without the terms' gains; "
            "those of the implicit terms are sums over all places."
        ),
        _numbers_table(written),
    ]
    sections = [Section("How to read the sheets", "\n".join(introduction))]
    for file, explanation in written.items():
        name = explanation.picture.path.name
        sections.append(Section(name, picture(file, f"Sheet of {name}", str(explanation.picture.path))))
    return page("What the student learns from its teacher", roles, sections)


def _numbers_table(written: Mapping[Path, Explanation]) -> str:
    numbers = [metrics_of(explanation) for explanation in written.values()]
    files = [explanation.picture.path.name for explanation in written.values()]
    rows = [[file, *(f"{own[key]:.3g}" for key in numbers[0])] for file, own in zip(files, numbers, strict=True)]
    return table(["image", *(key.replace("_weighted", " weighted").replace("/", ", ") for key in numbers[0])], rows)
