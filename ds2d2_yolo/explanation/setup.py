"""Makes an explainer from the user's input: loads the checkpoints, reads their training settings, finds images."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from ultralytics.data.utils import IMG_FORMATS
from ultralytics.utils import YAML

from ds2d2_yolo.data.check import UNLABELED_SPLIT
from ds2d2_yolo.detectors import Detector, input_channels
from ds2d2_yolo.errors import DS2D2Error
from ds2d2_yolo.explanation.explainer import Explainer
from ds2d2_yolo.explanation.images import InputImage, read_image, spread_out
from ds2d2_yolo.loading.classes import class_difference, in_order
from ds2d2_yolo.loading.data import load_data, refuse_missing_images, resolve_data
from ds2d2_yolo.loading.images import images_of_split
from ds2d2_yolo.loading.models import load_model
from ds2d2_yolo.loading.unlabeled import read_pseudo_set
from ds2d2_yolo.tables import counted
from ds2d2_yolo.training.amplifier import load_amplifier, read_amplifier
from ds2d2_yolo.training.checks import check_footprint
from ds2d2_yolo.training.pair import check_pair


@dataclass(frozen=True)
class ImageSource:
    """Images to explain, and images to fit adapters to.

    Attributes:
        images (list[Path]): Images to explain.
        labelled (bool): Whether an image without a label file has no objects.
        fit_images (list[Path]): Images to fit adapters to.
        fit_name (str): Their name in messages.
        sources (dict[Path, Path]): The original images, if the labels are a teacher's detections.
    """

    images: list[Path]
    labelled: bool
    fit_images: list[Path]
    fit_name: str
    sources: dict[Path, Path] = field(default_factory=dict)

    def read(self, path: Path, student: Detector) -> InputImage:
        """Read one of the images with the labels that the student was trained on; see `read_image`."""
        points, counted = student.keypoints or (0, 0), trained_argument(student, "classes")
        image = read_image(
            path,
            len(student.class_names),
            self.labelled,
            task=student.task,
            points=points,
            counted=counted if isinstance(counted, (int, list)) else None,
        )
        return replace(image, source=self.sources.get(path))


def load_trained_models(paths: Mapping[str, str | Path]) -> dict[str, Detector]:
    """Load trained models that can be explained together.

    Args:
        paths (Mapping[str, str | Path]): Checkpoints by role: `teacher`, `student` and, optionally, `plain`.

    Returns:
        (dict[str, Detector]): Detectors by role, all with the same classes.

    Raises:
        DS2D2Error: If a model is missing, not trained, of a family that is not supported, or has other classes.
    """
    models: dict[str, Detector] = {}
    for role, path in paths.items():
        models[role], trained = load_model(role, path)
        if not trained:
            raise DS2D2Error(f"{role}={path}: only a trained model can be explained; pass its .pt as {role}=", 2)
        if models[role].explicit_only:
            raise DS2D2Error(
                f"{role}={path}: is an {models[role].family}, which cannot be explained; pass a YOLO as {role}="
            )
        channels = input_channels(models[role].model)
        if channels != 3:
            raise DS2D2Error(
                f"{role}={path}: is for images of {counted(channels, 'channel')}, only those of 3 can be explained; "
                "see 'ds2d2 report' for its training"
            )
    expected = models["teacher"].class_names
    for role, detector in models.items():
        difference = class_difference(detector.class_names, expected, f"the teacher {paths['teacher']}")
        if difference is not None:
            raise DS2D2Error(f"{role}={paths[role]}: {difference}; pass a {role} with the teacher's classes")
    return models


def find_images(
    source: str,
    names: Sequence[str],
    split: str = "val",
    number: int = 8,
    data: str | None = None,
    unlabeled: object = None,
) -> ImageSource:
    """Find the images to explain, and those to fit adapters to.

    Args:
        source (str): An image, a folder of images, or a data YAML.
        names (Sequence[str]): Classes of the models. Data sets must have the same.
        split (str): Split of a data YAML to take images from. `unlabeled` takes the pseudo-labelled images.
        number (int): Largest number of images to explain, taken at even distances.
        data (str | None): Data YAML with training images to fit adapters to; None takes `source` if it is a YAML.
        unlabeled (object): Argument `unlabeled` of the student's training, for this split.

    Returns:
        (ImageSource): The images.

    Raises:
        DS2D2Error: If there are no images, or a data set is missing or has other classes.
    """
    path = Path(source).expanduser()
    content, labelled = None, False
    sources: dict[Path, Path] = {}
    if path.suffix.lower() in {".yaml", ".yml"}:
        is_unlabeled = split == UNLABELED_SPLIT
        content, labelled = _load_data("source", source, "val" if is_unlabeled else split, names), True
        if is_unlabeled:
            sources = _labelled_by_teacher(unlabeled)
        images = list(sources) if is_unlabeled else images_of_split(content[split])
    elif path.is_dir():
        images = images_of_split(str(path))
    elif path.suffix[1:].lower() in IMG_FORMATS and path.is_file():
        images = [path]
    else:
        kind = "is none of these" if path.exists() else "no such file or folder"
        raise DS2D2Error(f"source={path}: {kind}; pass an image, a folder of images or a data YAML", 2)
    if not images:
        raise DS2D2Error(f"source={path}: there are no images in it; pass an image, a folder of images or a data YAML")
    if data is not None:
        content = _load_data("data", data, "train", names)
    fit = images_of_split(content.get("train")) if content else []
    what = "training images" if fit else "of the images of the source itself"
    return ImageSource(spread_out(images, number), labelled, fit or images, what, sources)


def _labelled_by_teacher(unlabeled: object) -> dict[Path, Path]:
    """Return the pseudo-labelled images of a run, each with the original image."""
    if not isinstance(unlabeled, (str, Path)) or not unlabeled:
        raise DS2D2Error("split=unlabeled: the student was trained only on labelled images; pass split=val", 2)
    made = read_pseudo_set(unlabeled)
    originals = made.content["sources"]
    return {image: Path(originals.get(image.stem, image)) for image in images_of_split(str(made.folder))}


def make_explainer(
    models: Mapping[str, Detector],
    amplifier: str | Path | None = None,
    imgsz: int | None = None,
    teacher_imgsz: int | None = None,
    wavelet: str | None = None,
    confidence: float = 0.25,
    weight: str | None = None,
    footprint: str | None = None,
    device: torch.device | None = None,
) -> Explainer:
    """Make an explainer of loaded models. Missing settings come from the student's training.

    Args:
        models (Mapping[str, Detector]): Detectors by role, from `load_trained_models`.
        amplifier (str | Path | None): The teacher's amplifier.
        imgsz (int | None): Input size of the students, in pixels; None takes that of the training.
        teacher_imgsz (int | None): Input size of the teacher, in pixels; None takes that of the training, in proportion
            to `imgsz`.
        wavelet (str | None): Name of an orthogonal wavelet; None takes the amplifier's, else Haar.
        confidence (float): Lowest confidence of a detection.
        weight (str | None): Weight of the explicit terms; None takes that of the training.
        footprint (str | None): `rotated` or `hull`, for oriented boxes; None takes that of the training.
        device (torch.device | None): Device to move the models to; None does not move them.

    Returns:
        (Explainer): The explainer, still without adapters.

    Raises:
        DS2D2Error: If models, amplifier and settings do not match.
    """
    teacher, student = models["teacher"], models["student"]
    trained = _trained_size(student)
    size = trained if imgsz is None else imgsz
    if teacher_imgsz is None:
        own = trained_argument(student, "teacher_imgsz")
        teacher_imgsz = size * own // trained if isinstance(own, int) else size
    pair = check_pair(teacher, student, size, teacher_imgsz=teacher_imgsz)
    for detector in (teacher, student):
        detector.model.eval()
    check_footprint(footprint, teacher)
    frozen_amplifier: nn.Module | None = None
    if amplifier is not None:
        wavelet = wavelet or read_amplifier(amplifier)["wavelet"]
        frozen_amplifier = load_amplifier(amplifier, teacher, str(wavelet))
    for model in filter(None, [*(detector.model for detector in models.values()), frozen_amplifier]):
        model.float().to(device).requires_grad_(False)
    weight = weight or str(trained_argument(student, "weight") or "confidence")
    hulls = (footprint or trained_argument(student, "footprint")) == "hull"
    plain, wavelet = models.get("plain"), str(wavelet or "haar")
    return Explainer(teacher, student, pair, size, frozen_amplifier, plain, wavelet, confidence, weight, hulls)


def trained_argument(student: Detector, name: str) -> object:
    """Return an argument of a checkpoint's training, or None.

    Ultralytics removes arguments that are not its own from finished checkpoints. `args.yaml` of the run has them.
    """
    args = getattr(student.model, "args", None)  # a namespace or a dict, depending on the release
    value: object = args.get(name) if isinstance(args, dict) else getattr(args, name, None)
    path = getattr(student.model, "pt_path", None)
    if value is not None or path is None:
        return value
    file = Path(path).resolve().parent.parent / "args.yaml"
    return YAML.load(file).get(name) if file.is_file() else None


def _trained_size(student: Detector) -> int:
    """Return the image size of a checkpoint's training, or Ultralytics' default."""
    size = trained_argument(student, "imgsz")
    size = max(size) if isinstance(size, (list, tuple)) else size
    step = max(int(max(student.model.stride)), 32)
    return math.ceil(size / step) * step if isinstance(size, int) else 640


def _load_data(option: str, path: str, split: str, names: Sequence[str]) -> dict[str, Any]:
    try:
        data = load_data(resolve_data(path), split)
        if images := images_of_split(data[split]):
            refuse_missing_images(path, split, data[split], images)
    except DS2D2Error as error:
        raise DS2D2Error(str(error).replace("data=", f"{option}=", 1)) from error
    difference = class_difference(names, in_order(data["names"]))
    if difference is not None:
        raise DS2D2Error(
            f"{option}={path}: has other classes than the models (teacher {difference}); pass {option}= with their "
            "classes"
        )
    return data
