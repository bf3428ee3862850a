"""Checks before anything long starts: can this pair be distilled on these data? And the summary that says so."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from textwrap import shorten
from typing import Any

import torch
from torch import nn
from ultralytics import YOLO
from ultralytics.cfg import get_save_dir
from ultralytics.data.utils import check_det_dataset, img2label_paths, verify_image_label
from ultralytics.nn.tasks import load_checkpoint, torch_safe_load
from ultralytics.utils import LOGGER, ROOT, SETTINGS, YAML, colorstr
from ultralytics.utils.checks import check_file
from ultralytics.utils.torch_utils import select_device

from ds2d2_yolo.data.shipped import hint_for
from ds2d2_yolo.detectors import Detector, Taps, build_model, detector_of
from ds2d2_yolo.engine.fingerprint import images_of_split
from ds2d2_yolo.engine.tasks import TRAINERS
from ds2d2_yolo.errors import DS2D2Error
from ds2d2_yolo.resources import own_file, resource_folder
from ds2d2_yolo.spectral import Levels


@dataclass(frozen=True)
class Level:
    """One pair of tapped maps: layer numbers, channels, and the stride in input pixels per grid cell."""

    student_layer: int
    teacher_layer: int
    student_channels: int
    teacher_channels: int
    stride: float


@dataclass(frozen=True)
class Pair:
    """What a teacher and a student have in common: the maps to compare, level by level.

    `explicit` and `head` index `taps`, as in `ds2d2_yolo.spectral.Levels`.
    """

    taps: tuple[Level, ...]
    explicit: tuple[int, ...]
    head: tuple[int, ...]

    @property
    def levels(self) -> Levels:
        """Channels and roles, for the loss."""
        return Levels(
            student=tuple(tap.student_channels for tap in self.taps),
            teacher=tuple(tap.teacher_channels for tap in self.taps),
            explicit=self.explicit,
            head=self.head,
        )

    @property
    def is_uniform(self) -> bool:
        """Whether student and teacher have the same channels on every level each."""
        return len({(tap.student_channels, tap.teacher_channels) for tap in self.taps}) == 1

    @property
    def student_layers(self) -> tuple[int, ...]:
        """Tapped layers of the student."""
        return tuple(tap.student_layer for tap in self.taps)

    @property
    def teacher_layers(self) -> tuple[int, ...]:
        """Tapped layers of the teacher."""
        return tuple(tap.teacher_layer for tap in self.taps)


def resolve_data(data: Any) -> str:
    """Return the path of a data YAML, looking for bare names among those that ship with ds2d2 too.

    Args:
        data (Any): What the user wrote: a path, or a name such as `scenes.yaml`.

    Returns:
        (str): The path of our own YAML where it is one of ours, else what was given.

    Raises:
        DS2D2Error: If nothing was given.
    """
    if not data:
        raise DS2D2Error("data= is missing: pass a data YAML, for example data=scenes.yaml", 2)
    return own_file(str(data), "datasets")


def load_data(args: Any) -> dict[str, Any]:
    """Read and check the data set of a run; the embedded one is rendered first, where it is not there yet.

    Args:
        args (Any): Arguments of the run; `args.data` is replaced by the path of the YAML.

    Returns:
        (dict[str, Any]): The data set as Ultralytics describes it.

    Raises:
        DS2D2Error: If the YAML is missing or malformed, or images are missing.
    """
    args.data = resolve_data(args.data)
    if Path(args.data).parent == resource_folder("datasets") and (how := YAML.load(args.data).get("render")):
        from ds2d2_yolo.data.scenes import render_dataset  # a renderer that no other data set needs

        render_dataset(Path(SETTINGS["datasets_dir"]) / YAML.load(args.data)["path"], **how)
    if (hint := hint_for(args.data)) is not None:
        raise DS2D2Error(f"data={args.data}: {hint}")
    try:
        data = _read_data(args.data)
        if data.get(args.split) and args.split != "val":
            _read_data(args.data, args.split)
    except DS2D2Error:
        raise
    except Exception as error:  # a dozen kinds, from YAML syntax to missing folders, all the user's to mend
        raise DS2D2Error(f"data={args.data}: {_message_of(error)}") from error
    if args.single_cls:
        data["names"], data["nc"] = {0: "item"}, 1
    if not data.get(args.split):
        raise DS2D2Error(f"split={args.split}: the data set {args.data} has no such split")
    return data


def load_training_data(args: Any) -> dict[str, Any]:
    """Read and check the data set of a training, as `load_data` does; its training set must hold something to learn.

    Args:
        args (Any): Arguments of the run; `args.data` is replaced by the path of the YAML.

    Returns:
        (dict[str, Any]): The data set as Ultralytics describes it.

    Raises:
        DS2D2Error: As `load_data`, and if training or validation set has no images, or the first no labels.
    """
    data = load_data(args)
    if not images_of_split(data.get("val")):
        raise DS2D2Error(f"data={args.data}: the validation set {data.get('val')} has no images")
    if args.task == "pose":
        check_keypoint_shape(args.data, data)
    images = images_of_split(data.get("train"))
    if not images:
        raise DS2D2Error(f"data={args.data}: the training set {data.get('train')} has no images")
    labels = (Path(label) for label in img2label_paths([str(image) for image in images]))
    if not any(label.is_file() and label.stat().st_size for label in labels):
        raise DS2D2Error(
            f"data={args.data}: none of the {len(images)} training images has objects, label files are missing or empty"
        )
    _check_samples(args, data, "training", images, need_objects=True)
    _check_samples(args, data, "validation", images_of_split(data["val"]), need_objects=False)
    return data


def check_keypoint_shape(path: str | Path, data: Mapping[str, Any]) -> None:
    """Refuse a data set that does not say what keypoints its labels hold.

    Args:
        path (str | Path): The data YAML.
        data (Mapping[str, Any]): The data set as Ultralytics describes it.

    Raises:
        DS2D2Error: If `kpt_shape` is missing, or is not a number of keypoints and of 2 or 3 values of each.
    """
    if "kpt_shape" not in data:
        raise DS2D2Error(f"data={path}: has no kpt_shape, number of keypoints and values each, such as [17, 3]")
    shape = data["kpt_shape"]
    fits = isinstance(shape, (list, tuple)) and [type(number) for number in shape] == [int, int]
    if not fits or shape[0] < 1 or shape[1] not in {2, 3}:
        raise DS2D2Error(f"data={path}: kpt_shape={shape}: expected the number of keypoints and 2 or 3 values each")


def _check_samples(args: Any, data: Mapping[str, Any], split: str, images: Sequence[Path], need_objects: bool) -> None:
    """Refuse a split of which Ultralytics would keep no image, or none with objects; stop at the first that it keeps.

    Raises:
        DS2D2Error: If there is none, with what is wrong with the first image that is left out.
    """
    reason = ""
    pose = args.task == "pose"
    points = data["kpt_shape"] if pose else (0, 0)
    for image, label in zip(images, img2label_paths([str(image) for image in images]), strict=True):
        found = verify_image_label((str(image), label, "", pose, data["nc"], *points, args.single_cls))
        if found[0] is not None and (len(found[1]) or not need_objects):
            if args.task in {"obb", "segment"} and len(found[1]) and not found[3]:
                what = "the four corners" if args.task == "obb" else "the outline"
                raise DS2D2Error(f"data={args.data}: {label} holds boxes, task={args.task} needs {what} of each object")
            return
        reason = reason or str(found[-1])
    raise DS2D2Error(
        f"data={args.data}: none of the {len(images)} {split} images can be used, {shorten(reason, 300)}; "
        f"'ds2d2 check data={args.data}' lists what is wrong"
    )


def _read_data(data: str, split: str = "") -> dict[str, Any]:
    """Return Ultralytics' description of a data set, whose images are downloaded only after `_announce_download`."""
    try:
        return dict(check_det_dataset(data, autodownload=False, split=split))
    except FileNotFoundError:
        _announce_download(data)
        return dict(check_det_dataset(data, split=split))


def _announce_download(data: str) -> None:
    """Say what a data YAML is going to download; refuse code in it unless it came with a package.

    Raises:
        DS2D2Error: If Ultralytics would run code that the YAML holds.
    """
    path = Path(check_file(data))
    script = YAML.load(path).get("download")
    if not isinstance(script, str):
        return
    shipped = path.resolve().is_relative_to(ROOT) or path.resolve().parent == resource_folder("datasets")
    if not shipped and not script.lower().startswith(("http://", "https://")):
        raise DS2D2Error(
            f"data={data}: its images are missing and its download: entry is code, which is not run here; read it, run "
            "it yourself, or get the images by hand"
        )
    LOGGER.info(f"{colorstr('DS2D2:')} {path} downloads its images: {shorten(script, 200)}")


def check_combination(args: Any) -> None:
    """Refuse arguments that do not go together with distillation.

    Raises:
        DS2D2Error: If one of them is set.
    """
    if args.distill_model is not None:
        raise DS2D2Error(f"distill_model={args.distill_model} is Ultralytics' own distillation: use it or teacher=", 2)
    if args.compile:
        raise DS2D2Error(f"compile={args.compile}: not available here, as a compiled model has no layers to tap", 2)
    if args.task not in TRAINERS:
        raise DS2D2Error(f"task={args.task}: only {', '.join(TRAINERS)} can be distilled", 2)
    if args.quantize == 8 and find_spec("modelopt") is None:
        raise DS2D2Error("quantize=8: needs NVIDIA ModelOpt, pip install nvidia-modelopt", 2)


def check_place(args: Any) -> None:
    """Refuse a device that is not there, or a project folder that cannot be written to.

    Raises:
        DS2D2Error: If Ultralytics refuses the device, or the closest existing parent of the run's folder is no folder
            or not writable.
    """
    try:
        device = select_device(args.device, verbose=False)
    except Exception as error:  # ValueError, AssertionError or RuntimeError, by device and release
        raise DS2D2Error(f"device={args.device}: {_message_of(error)}", 2) from error
    if args.amp == "bf16" and (device.type != "cuda" or not torch.cuda.is_bf16_supported(including_emulation=False)):
        raise DS2D2Error(f"amp=bf16: needs a GPU that computes in bfloat16, this run is on {device}", 2)
    folder = get_save_dir(args)
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise DS2D2Error(f"project={args.project}: cannot write to {existing}, choose another project= folder")


def load_model(role: str, path: str | Path, data: Mapping[str, Any] | None = None) -> tuple[Detector, bool]:
    """Load a detector from a checkpoint, or build it from a model YAML.

    Args:
        role (str): `teacher` or `student`, for messages.
        path (str | Path): A .pt file or a model YAML.
        data (Mapping[str, Any] | None): Data set whose classes a model built from a YAML is given; None leaves those of
            the YAML, to find out before the data are touched whether it can be distilled at all.

    Returns:
        detector (Detector): The detector, on the CPU.
        trained (bool): Whether it comes from a checkpoint.

    Raises:
        DS2D2Error: If the file is missing or damaged, or holds no detector that can be distilled.
    """
    name, suffix = str(path), Path(str(path)).suffix.lower()
    if suffix in {".yaml", ".yml"}:
        classes = {"ch": data["channels"], "nc": data["nc"]} if data else {}
        try:
            model: Any = build_model(name, **classes)
        except Exception as error:  # a missing file, YAML syntax, or modules that do not fit: all the user's to mend
            raise DS2D2Error(f"{role}={name}: no model can be built from it, {_message_of(error)}") from error
        model.names = data["names"] if data else model.names
    elif suffix == ".pt":
        # A bare name may be one that Ultralytics knows where to find or to download.
        if not Path(name).is_file() and Path(name).name != name and "://" not in name:
            raise DS2D2Error(f"{role}={name}: no such file")
        try:
            model, _ = load_checkpoint(name)
        except Exception as error:  # missing, not downloadable, truncated, foreign classes: torch raises many kinds
            raise DS2D2Error(f"{role}={name}: cannot be loaded, {_message_of(error)}") from error
        if hasattr(model, "ds2d2_teacher"):
            raise DS2D2Error(f"{role}={name}: is a checkpoint of the amplifier stage, its head sees other maps")
    elif suffix:
        raise DS2D2Error(
            f"{role}={name}: {suffix} files are exported models without layers to tap; pass the .pt they came from"
        )
    else:
        raise DS2D2Error(f"{role}={name}: expected a .pt checkpoint or a model .yaml")
    detector = detector_of(model)
    if detector is None:
        raise DS2D2Error(
            f"{role}={name}: {_describe(model)} cannot be distilled - take a YOLO model of the tasks "
            f"{', '.join(TRAINERS)}, a RetinaNet or a Faster R-CNN"
        )
    if model.is_fused():
        raise DS2D2Error(f"{role}={name}: is fused for inference and cannot be trained or tapped; pass the unfused .pt")
    return detector, suffix == ".pt"


def take_task(args: Any, teacher: Detector, student: Detector | None = None) -> None:
    """Take the task of a run from its models.

    Args:
        args (Any): Arguments of the run; `task` is replaced.
        teacher (Detector): The teacher.
        student (Detector | None): The student, where the run has one.

    Raises:
        DS2D2Error: If the models are for different tasks, another task was asked for, or an argument is not about it.
    """
    if student is not None:
        _check_tasks(teacher, student)
    if args.task not in {"detect", teacher.task}:  # detect is Ultralytics' default
        raise DS2D2Error(f"task={args.task}: teacher {teacher.title} is for task={teacher.task}, leave task= out", 2)
    args.task = teacher.task
    check_footprints(args.disw, teacher)


def check_footprints(disw: str | None, teacher: Detector) -> None:
    """Refuse to say what oriented objects weigh on where there are none.

    Args:
        disw (str | None): The argument; None where it was not given.
        teacher (Detector): The teacher.

    Raises:
        DS2D2Error: If it was given, and the teacher is for another task.
    """
    if disw is not None and teacher.task != "obb":
        raise DS2D2Error(
            f"disw={disw}: is about oriented boxes, but teacher {teacher.title} is for task={teacher.task}; leave it "
            "out",
            2,
        )


def take_explicit_terms(args: Any, teacher: Detector, trained: bool, student: Detector | None = None) -> None:
    """Drop the terms that compare predictions from a run with a model that makes them by queries.

    Args:
        args (Any): Arguments of the run; `im_full`, `im_high`, `response` and `amplifier` are replaced.
        teacher (Detector): The teacher.
        trained (bool): Whether it comes from a checkpoint.
        student (Detector | None): The student, where the run has one.

    Raises:
        DS2D2Error: If such a term or an amplifier was asked for, or such a teacher is still to be trained.
    """
    by_maps = next((model for model in (teacher, student) if model is not None and model.explicit_only), None)
    if by_maps is None:
        return
    for name, none in (("im_full", 0), ("im_high", 0), ("response", 0), ("amplifier", "none")):
        if getattr(args, name) not in {None, 0, "auto"}:
            raise DS2D2Error(
                f"{name}={getattr(args, name)}: {by_maps.title} makes its predictions by queries, not cell by cell: "
                f"only maps are compared; leave it out or pass {name}={none}",
                2,
            )
    if args.val_kd:
        raise DS2D2Error(f"val_kd=True: {by_maps.title} makes its detections by queries, they are not compared here", 2)
    if teacher.explicit_only and not trained:
        raise DS2D2Error(
            f"teacher={args.teacher}: is an {teacher.family}, a teacher that is not trained here; run "
            f"'yolo train model={args.teacher} data={args.data}' and pass its best.pt"
        )
    args.im_full, args.im_high, args.response, args.amplifier = 0.0, 0.0, 0.0, None


def check_response(gain: float, teacher: Detector) -> None:
    """Refuse the response term where the family does not say what a student predicts by its own head.

    Args:
        gain (float): Gain, or share, of the term.
        teacher (Detector): The teacher, of the student's family.

    Raises:
        DS2D2Error: If the family has neither a `decode` nor a `response` of its own.
    """
    kind = type(teacher)
    if gain and kind.decode is Detector.decode and kind.response is Detector.response:
        raise DS2D2Error(
            f"response: {teacher.family} does not say what a student predicts by its own head; pass response=0", 2
        )


def check_assignment(assignment: str, teacher: Detector, student: Detector) -> None:
    """Refuse to have a teacher assign the objects of a student that assigns them by more than classes and boxes.

    Args:
        assignment (str): Whose predictions assign them, `student` or `teacher`.
        teacher (Detector): The teacher.
        student (Detector): The student.

    Raises:
        DS2D2Error: If the teacher was asked for, and is of another family or the family's assigner sees more.
    """
    if assignment == "teacher" and (teacher.family != student.family or not student.assigns_by_predictions):
        raise DS2D2Error(
            f"assignment=teacher: {teacher.title} cannot assign objects for {student.title}, this is for YOLO models "
            "of the tasks detect and obb; leave it out",
            2,
        )


def _check_tasks(teacher: Detector, student: Detector) -> None:
    if teacher.task != student.task:
        raise DS2D2Error(
            f"teacher {teacher.title} is for task={teacher.task}, student {student.title} for task={student.task}: "
            "both must be for one"
        )


def check_teacher(teacher: Detector, path: str | Path, data: Mapping[str, Any]) -> None:
    """Refuse a teacher that knows other classes or keypoints than the data set, or images of other channels.

    Args:
        teacher (Detector): The teacher; one built from a model YAML has yet to be given the keypoints of the data.
        path (str | Path): Where it comes from.
        data (Mapping[str, Any]): The data set as Ultralytics describes it.

    Raises:
        DS2D2Error: If number, names or order of the classes differ, or the number of channels, or the keypoints.
    """
    channels = next(teacher.model.parameters()).shape[1]
    if channels != data["channels"]:
        raise DS2D2Error(f"teacher={path}: takes images of {channels} channels, the data set has {data['channels']}")
    expected = [str(data["names"][index]) for index in sorted(data["names"])]
    known = teacher.class_names
    if len(known) != len(expected):
        raise DS2D2Error(
            f"teacher={path}: knows {len(known)} classes, the data set has {len(expected)}: train it on these"
        )
    for index, (ours, theirs) in enumerate(zip(expected, known, strict=True)):
        if ours != theirs:
            raise DS2D2Error(
                f"teacher={path}: class {index} is '{theirs}', in the data set '{ours}': train it on these"
            )
    if Path(path).suffix == ".pt":
        check_keypoints("teacher", path, teacher.model, data)


def check_keypoints(role: str, path: str | Path, model: Any, data: Mapping[str, Any]) -> None:
    """Refuse a trained model that finds other keypoints than those of the data set.

    Args:
        role (str): `teacher` or `model`, for the message.
        path (str | Path): Its checkpoint.
        model (nn.Module): The model.
        data (Mapping[str, Any]): The data set as Ultralytics describes it.

    Raises:
        DS2D2Error: If number or values of the keypoints differ.
    """
    detector = detector_of(model)
    found = detector.keypoints if detector else None
    if found is not None and list(found) != list(data["kpt_shape"]):
        raise DS2D2Error(
            f"{role}={path}: finds keypoints of kpt_shape={list(found)}, the data set has "
            f"kpt_shape={list(data['kpt_shape'])}: train it on these"
        )


def check_backbone(detector: Detector, args: Any) -> None:
    """Find out whether the public weights that a new model starts from are to be had, unless it starts from scratch.

    Raises:
        DS2D2Error: If they are not.
    """
    if args.pretrained is not False:
        detector.load_backbone()


def check_safety(args: Any) -> None:
    """Where `safe` asks for it, refuse checkpoints that hold more than tensors and classes of torch and Ultralytics.

    Args:
        args (Any): Arguments of the run, of which `teacher`, `model`, `pretrained` and `resume` may name checkpoints.

    Raises:
        DS2D2Error: If one of them holds anything else, or this torch cannot tell.
    """
    if not args.safe:
        return
    if not hasattr(torch.serialization, "get_unsafe_globals_in_checkpoint"):
        raise DS2D2Error(f"safe=True: needs torch 2.6 or newer, this is {torch.__version__}", 2)
    for name in ("teacher", "model", "pretrained", "resume"):
        path = getattr(args, name)
        if not isinstance(path, (str, Path)) or Path(path).suffix != ".pt" or not Path(path).is_file():
            continue
        try:
            torch_safe_load(path, safe_only=True)
        except Exception as error:  # as in `load_model`
            raise DS2D2Error(f"{name}={path}: refused by safe=True, {_message_of(error)}") from error


def check_pretrained(path: Any) -> None:
    """Find out whether the checkpoint that a student is to start from can be read.

    Args:
        path (Any): Value of `pretrained`; True and False name no file.

    Raises:
        DS2D2Error: If it cannot.
    """
    if not isinstance(path, (str, Path)):
        return
    try:
        load_checkpoint(path)
    except Exception as error:  # as in `load_model`
        raise DS2D2Error(f"pretrained={path}: cannot be loaded, {_message_of(error)}") from error


def check_pair(
    teacher: Detector,
    student: Detector,
    imgsz: int,
    layers: tuple[tuple[int, ...], tuple[int, ...]] | None = None,
) -> Pair:
    """Find out which maps of a pair belong together, by running both on an empty image.

    Args:
        teacher (Detector): The teacher.
        student (Detector): The student.
        imgsz (int): Side of the training images, in pixels.
        layers (tuple | None): (Student's, teacher's) layers for the explicit terms; None takes those that feed heads.

    Returns:
        (Pair): The pair.

    Raises:
        DS2D2Error: If the families differ, the heads take different numbers of levels or strides, the image size does
            not suit them, or a named layer cannot be tapped.
    """
    by_maps = teacher.explicit_only or student.explicit_only
    if teacher.family != student.family and not by_maps:
        raise DS2D2Error(f"teacher is a {teacher.family}, student a {student.family}: both must be of one family")
    _check_tasks(teacher, student)
    if len(teacher.head_layers) != len(student.head_layers):
        raise DS2D2Error(
            f"teacher {teacher.title} has {len(teacher.head_layers)} levels, student {student.title} "
            f"{len(student.head_layers)}: choose models with the same strides"
        )
    if teacher.head_layout != student.head_layout and not by_maps:
        raise DS2D2Error(
            f"teacher {teacher.title} has a head of {teacher.head_layout}, student {student.title} of "
            f"{student.head_layout}: choose models whose heads are alike"
        )
    for detector in (teacher, student):
        step = int(max(detector.model.stride))
        if not isinstance(imgsz, int) or imgsz % step or imgsz < 2 * step:
            fit = max(2 * step, round(float(imgsz) / step) * step) if isinstance(imgsz, (int, float)) else 20 * step
            raise DS2D2Error(
                f"imgsz={imgsz}: {detector.title} needs a multiple of {step}, at least {2 * step}; try {fit}"
            )
    student_layers, teacher_layers = list(student.head_layers), list(teacher.head_layers)
    head = tuple(range(len(student_layers)))
    explicit = head
    if layers is not None:
        named = list(zip(*layers, strict=True))
        known = list(zip(student_layers, teacher_layers, strict=True))
        known += [pair for pair in named if pair not in known]
        explicit = tuple(known.index(pair) for pair in named)
        student_layers, teacher_layers = [pair[0] for pair in known], [pair[1] for pair in known]

    student_shapes = _map_shapes(student, student_layers, imgsz)
    teacher_shapes = _map_shapes(teacher, teacher_layers, imgsz)
    taps = []
    for ours, theirs, own, other in zip(student_layers, teacher_layers, student_shapes, teacher_shapes, strict=True):
        if own[1:] != other[1:]:
            here, there = _stride(imgsz, own), _stride(imgsz, other)
            raise DS2D2Error(
                f"layer {ours} of student {student.title} has stride {here:g}, layer {theirs} of teacher "
                f"{teacher.title} stride {there:g}: choose models (or layers=) with the same strides"
            )
        taps.append(Level(ours, theirs, own[0], other[0], _stride(imgsz, own)))
    return Pair(tuple(taps), explicit, head)


def validate(path: str | Path, data: str, args: Any) -> dict[str, float]:
    """Measure a trained detector on the validation set, as Ultralytics does during training.

    Args:
        path (str | Path): Checkpoint.
        data (str): Data YAML.
        args (Any): Arguments of the run, of which size, batch, device and split are taken.

    Returns:
        (dict[str, float]): Ultralytics' metrics by name.
    """
    with tempfile.TemporaryDirectory() as folder:
        overrides = {
            name: getattr(args, name) for name in ("imgsz", "device", "workers", "split", "single_cls", "rect")
        }
        overrides |= {"model": str(path), "data": data, "plots": False, "mode": "val", "save_dir": folder}
        overrides["batch"] = args.batch if args.batch >= 1 else 16
        model = YOLO(str(path))  # of another class where the checkpoint is: it knows its validator
        metrics = model.task_map[args.task]["validator"](args=overrides | {"task": args.task})()
    return {key: float(value) for key, value in metrics.items()}


def summary_lines(
    teacher: Detector, student: Detector, pair: Pair, data: Mapping[str, Any], metrics: Mapping[str, float] | None
) -> list[str]:
    """Return the lines that tell a person what is going to be distilled."""
    lines = [
        f"{colorstr('DS2D2:')} {student.title} learns from {teacher.title}, {data['nc']} classes",
        f"  box coding: student {student.box_coding}; teacher {teacher.box_coding}",
        f"  {'stride':>8}{'student layer':>16}{'channels':>10}{'teacher layer':>16}{'channels':>10}   used by",
    ]
    for index, tap in enumerate(pair.taps):
        uses = [name for name, indices in (("explicit", pair.explicit), ("implicit", pair.head)) if index in indices]
        lines.append(
            f"  {tap.stride:>8g}{tap.student_layer:>16}{tap.student_channels:>10}{tap.teacher_layer:>16}"
            f"{tap.teacher_channels:>10}   {', '.join(uses)}"
        )
    if metrics:
        ap50, ap = metrics.get("metrics/mAP50(B)", 0.0), metrics.get("metrics/mAP50-95(B)", 0.0)
        lines.append(f"  teacher on the validation set: mAP50 {ap50:.3f}, mAP50-95 {ap:.3f}")
        if ap < 0.01:
            lines.append("  WARNING: this teacher knows next to nothing; the student will learn that")
    return lines


def _map_shapes(detector: Detector, layers: Sequence[int], imgsz: int) -> list[tuple[int, int, int]]:
    """Return channels, height and width of what each layer returns for one image."""
    stem = next(detector.model.parameters())
    taps = Taps()
    training = detector.model.training
    try:
        taps.open({index: detector.layer(index) for index in layers})
        detector.model.eval()  # an empty image must not touch the BatchNorm statistics
        with torch.no_grad():
            detector.model(torch.zeros(1, stem.shape[1], imgsz, imgsz, device=stem.device))
    except IndexError as error:
        raise DS2D2Error(f"layers=: {error}") from error
    finally:
        detector.model.train(training)
        outputs = taps.close()
    for index in layers:
        if not isinstance(outputs.get(index), torch.Tensor) or outputs[index].dim() != 4:
            raise DS2D2Error(f"layers=: layer {index} of {detector.title} returns no feature map, choose another")
    return [(outputs[i].shape[1], outputs[i].shape[2], outputs[i].shape[3]) for i in layers]


def _stride(imgsz: int, shape: tuple[int, int, int]) -> float:
    """Return the stride of a map (C, H, W): a power of two, also where a coarse level was rounded up."""
    return 2.0 ** round(math.log2(imgsz / shape[1]))


def _describe(model: nn.Module) -> str:
    """Return what a model is, for a person."""
    head = getattr(model, "model", [model])
    head = head[-1] if isinstance(head, nn.Sequential) else model
    return f"a {type(model).__name__} with a {type(head).__name__} head"


def _message_of(error: Exception) -> str:
    """Return an error's message as one line of a readable length, or its kind where it has none."""
    return shorten(str(error), 300, placeholder=" ...") or type(error).__name__
