"""The stage in which the teacher labels images: its detections are stored, and confident ones become labels."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ultralytics.utils import LOGGER, TQDM, colorstr
from ultralytics.utils.ops import xywhr2xyxyxyxy, xyxy2xywhn

from ds2d2_yolo.data.labels import pixel_boxes, usable_labels
from ds2d2_yolo.detectors import Detector
from ds2d2_yolo.errors import DS2D2Error
from ds2d2_yolo.evaluation.predictions import Prediction, predict
from ds2d2_yolo.evaluation.thresholds import LabelledImage, Threshold, find_thresholds
from ds2d2_yolo.files import atomic_folder, put_file, report_full_disk, write_json
from ds2d2_yolo.loading.fingerprint import (
    fingerprint_of_data,
    fingerprint_of_images,
    fingerprint_of_inputs,
    fingerprint_of_model,
)
from ds2d2_yolo.loading.images import images_of_split
from ds2d2_yolo.loading.unlabeled import (
    SET_FILE,
    PseudoSet,
    Unlabeled,
    find_unlabeled,
    fingerprint_of_labels,
    fingerprint_of_unlabeled,
    read_pseudo_set,
)
from ds2d2_yolo.training.arguments import Arguments
from ds2d2_yolo.training.records import stamp
from ds2d2_yolo.training.stages import State, folder_lock

_FLOOR = 0.02
"""Minimum confidence of stored detections. A teacher with a lower threshold would be useless."""

_SHOWN = 100  # maximum number of classes in the printed table


class _Found(NamedTuple):
    """The stored detections of an image.

    Attributes:
        number (int): Index of the image.
        size (tuple[int, int]): Height and width in pixels. Zeros if the image cannot be decoded.
        rows (np.ndarray): Detections in the format of `predict`.
    """

    number: int
    size: tuple[int, int]
    rows: np.ndarray


@dataclass(frozen=True)
class UnlabeledStage:
    """Labelling of images by a teacher. The folder's name contains the fingerprint of all inputs.

    The teacher's detections are in `validation.jsonl` and `unlabeled.jsonl`, one line per image. They are written batch
    by batch, so a killed stage continues at the same place. The labels are in a subfolder, one for each way to choose
    thresholds.

    Attributes:
        folder (Path): The stage's folder.
        inputs (dict[str, Any]): All inputs that affect the detections, as JSON values.
        entries (list[str]): Folders and lists of the images.
        arguments (Arguments): Arguments of the run. `teacher` is the teacher's checkpoint.
        data (Mapping[str, Any]): The data set. Its validation images determine thresholds.
    """

    folder: Path
    inputs: dict[str, Any]
    entries: list[str]
    arguments: Arguments
    data: Mapping[str, Any]

    @property
    def file(self) -> Path:
        """The stage's output file. It describes the images and labels in its folder."""
        precision = self.arguments.unlabeled_precision
        return self.folder / ("best-f1" if precision is None else f"precision-{precision:g}") / SET_FILE

    @property
    def state(self) -> State:
        """State of the stage."""
        if self._finished() is not None:
            return "reused"
        return "to be continued" if any(self.folder.glob("*.jsonl")) else "to be made"

    def ensure(self) -> Path:
        """Reuse the labels if they exist, otherwise create them. Return the stage's output file.

        Other processes that need the same labels wait until they are finished.

        Raises:
            DS2D2Error: If the teacher is not better than chance on the validation set, or detects no object with enough
                confidence.
        """
        with folder_lock(self.folder, "unlabelled images"), report_full_disk():
            if self._finished() is not None:
                LOGGER.info(f"{colorstr('DS2D2:')} unlabelled images: reusing {self.file}")
            else:
                images = find_unlabeled(self.entries, self.data)
                LOGGER.info(
                    f"{colorstr('DS2D2:')} unlabelled images: the teacher labels {images.describe()} in {self.folder}"
                )
                self._make(images)
        LOGGER.info("\n".join(describe_set(read_pseudo_set(self.file), self.arguments.unlabeled_weight)))
        return self.file

    def _finished(self) -> PseudoSet | None:
        if not self.file.is_file():
            return None
        try:
            made = read_pseudo_set(self.file)
        except DS2D2Error as error:
            LOGGER.warning(f"{colorstr('DS2D2:')} {error}")
            return None
        return made if made.content["inputs"] == self.inputs else None

    def _make(self, images: Unlabeled) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        thresholds = self._thresholds()
        found = self._detect("unlabeled", images.images)
        folder = self.file.parent
        shutil.rmtree(folder, ignore_errors=True)  # labels that have changed
        with atomic_folder(folder, "unlabeled", check=lambda other: read_pseudo_set(other / SET_FILE)) as new:
            write_json(new / SET_FILE, self._write(new, images, found, thresholds))

    def _thresholds(self) -> list[Threshold]:
        """Return the thresholds of all classes, from the teacher's detections on the validation set."""
        arguments = self.arguments
        images = images_of_split(self.data["val"])
        labelled = list(_labelled(images, self._detect("validation", images), self.data, arguments))
        thresholds, total, chance = find_thresholds(labelled, self.data["nc"], arguments.unlabeled_precision)
        if total.f1 <= chance.f1:
            raise DS2D2Error(
                f"teacher={arguments.teacher}: is no better than chance on the validation set (F1 {total.f1:.3f}, with "
                f"labels of other images {chance.f1:.3f}), so it cannot label images; train it longer, or pass "
                "unlabeled=False"
            )
        if all(threshold.confidence is None for threshold in thresholds):
            raise DS2D2Error(
                f"unlabeled_precision={arguments.unlabeled_precision}: the teacher does not reach it for any class of "
                "the validation set; pass a lower one, or leave it out"
            )
        return thresholds

    def _detect(self, name: str, images: Sequence[Path]) -> Iterator[_Found]:
        """Run the teacher on images without stored detections. Return the detections of all decodable images."""
        path, key = self.folder / f"{name}.jsonl", fingerprint_of_inputs(self.inputs)
        _cut(path, key)
        done = {found.number for found in _stored(path)}
        numbers = {image: number for number, image in enumerate(images) if number not in done}
        if numbers:
            title = {"validation": "Validation images", "unlabeled": "Unlabelled images"}[name]
            progress = TQDM(total=len(images), initial=len(done), desc=f"  {title}", unit="image")
            with path.open("a", encoding="utf-8") as file:
                if not file.tell():
                    file.write(json.dumps({"inputs": key}) + "\n")
                for batch in predict(self.arguments.teacher, list(numbers), _FLOOR, self.arguments):
                    file.write("".join(_line(numbers[image], prediction) for image, prediction in batch))
                    file.flush()
                    progress.update(len(batch))
            progress.close()
        return (found for found in _stored(path) if any(found.size))

    def _write(
        self,
        folder: Path,
        images: Unlabeled,
        found: Iterator[_Found],
        thresholds: Sequence[Threshold],
    ) -> dict[str, Any]:
        """Write images and labels, and return their description."""
        least = np.array([np.inf if t.confidence is None else t.confidence for t in thresholds])
        (folder / "images").mkdir()
        (folder / "labels").mkdir()
        labels, boxes, empty = [], np.zeros(len(thresholds), int), 0
        sources: dict[str, str] = {}
        for number, size, rows in found:
            image, name = images.images[number], f"{number:07d}"
            # Ultralytics repairs truncated JPEGs in place, and a link would lead to the user's own file
            put_file(image, folder / "images" / f"{name}{image.suffix}", copy=image in images.unfinished)
            sources[name] = str(image.absolute())
            good = rows[rows[:, -2] >= least[rows[:, -1].astype(int)]]
            labels.append(folder / "labels" / f"{name}.txt")
            labels[-1].write_text("".join(_label_lines(good, size)), encoding="utf-8", newline="")
            boxes += np.bincount(good[:, -1].astype(int), minlength=len(boxes))
            empty += not len(good)
        if not boxes.sum():
            raise DS2D2Error(
                f"unlabeled={','.join(self.entries)}: the teacher detects no object with enough confidence in "
                f"{len(labels):,} images; pass other images"
            )
        left_out = {**images.left_out, "not to be decoded": len(images.images) - len(labels)}
        names = self.data["names"]
        return {
            "inputs": self.inputs,
            "teacher": str(self.arguments.teacher),
            "images": len(labels),
            "without_boxes": empty,
            "boxes": int(boxes.sum()),
            "left_out": {reason: number for reason, number in left_out.items() if number},
            "thresholds": {
                names[index]: {**asdict(threshold), "boxes": int(boxes[index])}
                for index, threshold in enumerate(thresholds)
            },
            "precision": self.arguments.unlabeled_precision,
            "labels": fingerprint_of_labels(labels),
            "sources": sources,
            **stamp(),
        }


def unlabeled_stage(
    args: Arguments, data: Mapping[str, Any], teacher: Detector, entries: Sequence[str]
) -> UnlabeledStage:
    """Return the stage in which the teacher of a run labels images.

    Args:
        args (Arguments): Arguments of the run. `args.teacher` is the teacher's checkpoint.
        data (Mapping[str, Any]): The data set.
        teacher (Detector): The teacher, loaded from its checkpoint.
        entries (Sequence[str]): Folders and lists of the images, from `unlabeled_entries`.

    Returns:
        (UnlabeledStage): The stage.
    """
    args = args.replace(imgsz=args.teacher_size)
    others = [image for name in ("test", "minival") for image in images_of_split(data.get(name))]
    inputs = {
        "stage": "unlabeled",
        "teacher": fingerprint_of_model(teacher.model),
        "images": fingerprint_of_unlabeled(entries),
        "data": fingerprint_of_data(data, "val"),
        "others": fingerprint_of_images(image for image in others if image.is_file()),
        "single_cls": args.single_cls,
        **{name: getattr(args, name) for name in ("imgsz", "iou", "max_det", "task")},
    }
    folder = args.run_folder.parent / f"unlabeled-{teacher.title}-{fingerprint_of_inputs(inputs)[:8]}"
    return UnlabeledStage(folder, inputs, list(entries), args, data)


def describe_set(made: PseudoSet, weight: float) -> list[str]:
    """Return the printed lines about a teacher's labels and their quality.

    Args:
        made (PseudoSet): The set.
        weight (float): Weight of its images in the student's own loss.

    Returns:
        (list[str]): Lines.
    """
    content = made.content
    thresholds: dict[str, Any] = content["thresholds"]
    left_out = ", ".join(f"{number:,} {reason}" for reason, number in content["left_out"].items())
    lines = [
        f"  unlabelled images: {content['images']:,} with {content['boxes']:,} boxes, {content['without_boxes']:,} "
        "without",
        *([f"  left out: {left_out}"] if left_out else []),
        f"  {'class':<24}{'confidence':>12}{'precision':>11}{'recall':>9}{'boxes':>10}   on the validation set",
    ]
    unmet = "no detection is correct there" if content["precision"] is None else "no threshold reaches the precision"
    for name, entry in list(thresholds.items())[:_SHOWN]:
        if entry["confidence"] is None:
            lines.append(f"  {name[:23]:<24}{'none':>12}   {unmet}, so it gets no boxes")
            continue
        figures = f"{entry['confidence']:>12.3f}"
        if entry["pooled"]:
            lines.append(
                f"  {name[:23]:<24}{figures}{entry['boxes']:>30,}   no objects there: threshold of all classes together"
            )
        else:
            numbers = f"{entry['precision']:>11.3f}{entry['recall']:>9.3f}{entry['boxes']:>10,}"
            lines.append(f"  {name[:23]:<24}{figures}{numbers}   {entry['objects']:,} objects")
    if len(thresholds) > _SHOWN:
        lines.append(f"  ... {len(thresholds) - _SHOWN} more classes in {made.file}")
    without = [name for name, entry in thresholds.items() if entry["confidence"] is None]
    if without and weight:
        more = f" and {len(without) - 3} more" if len(without) > 3 else ""
        lines.append(
            f"  WARNING: the student learns that objects of {', '.join(without[:3])}{more} are background in these "
            "images; if there are such objects, pass unlabeled_weight=0"
        )
    return lines


def _labelled(
    images: Sequence[Path], found: Iterator[_Found], data: Mapping[str, Any], args: Arguments
) -> Iterator[LabelledImage]:
    """Yield the images of a split that Ultralytics can use, with their labels and detections."""
    for number, size, rows in found:
        labels = usable_labels(images[number], data, args.task, args.single_cls)
        if isinstance(labels, str):
            continue
        boxes = pixel_boxes(labels.boxes, labels.polygons, size, oriented=args.task == "obb")
        classes = np.zeros(len(boxes)) if args.single_cls else np.asarray(labels.classes, np.float64)
        yield LabelledImage(rows, boxes, classes, size)


def _label_lines(rows: np.ndarray, size: tuple[int, int]) -> Iterator[str]:
    """Yield the lines of a label file in YOLO format for detections (N, 6) or (N, 7), clipped to the image."""
    height, width = size
    if rows.shape[1] == 7:
        values = xywhr2xyxyxyxy(rows[:, :5]).reshape(-1, 4, 2) / [width, height]
        values = values.clip(0, 1).reshape(-1, 8)
    else:
        values = xyxy2xywhn(rows[:, :4], w=width, h=height, clip=True)
    for label, numbers in zip(rows[:, -1].astype(int).tolist(), values, strict=True):
        yield f"{label} {' '.join(f'{number:.6f}' for number in numbers)}\n"


def _line(number: int, prediction: Prediction | None) -> str:
    """Return the line of an image for a file of detections. An image that cannot be decoded has no size."""
    found, size = prediction or (np.zeros((0, 6)), None)
    rows = [[*map(float, np.round(row[:-2], 2)), round(float(row[-2]), 4), int(row[-1])] for row in found]
    return json.dumps({"image": number, "size": size, "columns": found.shape[1], "found": rows}) + "\n"


def _stored(path: Path) -> Iterator[_Found]:
    """Yield the stored detections of every image. A missing file has none."""
    if path.is_file():
        with path.open(encoding="utf-8") as file:
            next(file, None)  # the first line is the fingerprint of the inputs
            for entry in map(json.loads, file):
                rows = np.array(entry["found"], np.float64).reshape(-1, entry["columns"])
                yield _Found(int(entry["image"]), tuple(entry["size"] or (0, 0)), rows)


def _cut(path: Path, inputs: str) -> None:
    """Remove an incomplete last line of a killed process. Remove the file if it belongs to other inputs."""
    if not path.is_file():
        return
    whole = 0
    with path.open("rb") as file:
        is_ours = file.readline() == (json.dumps({"inputs": inputs}) + "\n").encode()
        whole = file.tell()
        for line in file:
            whole += len(line) if line.endswith(b"\n") else 0
    if not is_ours:
        path.unlink()
    elif whole < path.stat().st_size:
        with path.open("rb+") as file:
            file.truncate(whole)
