"""What does not go together in a run: refused before anything long starts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ds2d2_yolo.detectors import AssignsObjects, Detector, Responds
from ds2d2_yolo.errors import DS2D2Error
from ds2d2_yolo.loading.classes import class_difference, in_order, side_by_side
from ds2d2_yolo.loading.data import count_training_images
from ds2d2_yolo.loading.models import Models, check_keypoints
from ds2d2_yolo.method import TERMS
from ds2d2_yolo.training.arguments import Arguments, Goal, preset_arguments
from ds2d2_yolo.training.pair import check_tasks


def settle(arguments: Arguments, goal: Goal, models: Models, data: Mapping[str, Any]) -> tuple[Arguments, Models]:
    """Return arguments and models of a run as they go together, after the checks of whether they do.

    Args:
        arguments (Arguments): Arguments of the run.
        goal (str): How far it goes.
        models (Models): Its models.
        data (Mapping[str, Any]): What the data set's classes are, as `describe_data` or Ultralytics describes it.

    Returns:
        arguments (Arguments): The same with the models' task, with reference gains where they are asked for, and
            without the terms that cannot be had.
        models (Models): The same, or with a teacher that is to be fine-tuned.

    Raises:
        DS2D2Error: If models, arguments and goal do not go together.
    """
    if models.student is not None:
        check_tasks(models.teacher, models.student)
    arguments = with_task(arguments, models.teacher)
    models = settle_teacher(arguments, goal, models, data)
    teacher, student = models.teacher, models.student
    if goal == "amplifier":
        if teacher.explicit_only:
            raise DS2D2Error(
                f"teacher={arguments.teacher}: an {teacher.family} has no amplifier, and its students need none; run "
                f"'ds2d2 train teacher={arguments.teacher} student=path/to/model.yaml data={arguments.data}'"
            )
        return arguments, models
    arguments = without_prediction_terms(arguments, models)
    if student is not None:
        arguments = with_reference_gains(arguments, teacher)
        check_response(arguments.gains.response, teacher)
        by_predictions = isinstance(student, AssignsObjects) and student.assigns_by_predictions
        if arguments.assignment == "teacher" and (teacher.family != student.family or not by_predictions):
            raise DS2D2Error(
                f"assignment=teacher: {teacher.title} cannot assign objects for {student.title}, only YOLO models of "
                "the tasks detect and obb can; leave assignment= out",
                2,
            )
    return arguments, models


def settle_teacher(arguments: Arguments, goal: Goal, models: Models, data: Mapping[str, Any]) -> Models:
    """Return the models of a run with the teacher that it is to have: as it is, or to be fine-tuned.

    A trained teacher is fine-tuned where it has another number of classes or other keypoints than the data, or where
    `teacher_epochs` asks for it.

    Args:
        arguments (Arguments): Arguments of the run.
        goal (str): How far it goes.
        models (Models): Its models.
        data (Mapping[str, Any]): The data set, as `describe_data` or Ultralytics describes it.

    Returns:
        (Models): The same, or with a new teacher that starts from the trained one.

    Raises:
        DS2D2Error: If as many classes have other names or another order, which `teacher_epochs` does not settle, or if
            a teacher is not to be trained that must be, or is to be trained that cannot or need not be.
    """
    teacher, path, epochs = models.teacher, arguments.teacher, arguments.teacher_epochs
    if not models.teacher_is_trained:
        if epochs == 0:
            raise DS2D2Error(
                f"teacher_epochs=0: teacher={path} must be trained first; leave teacher_epochs= out, or pass at least "
                "1",
                2,
            )
        return models
    difference, is_same_number = _difference(teacher, data)
    if difference is None and not epochs:
        check_teacher(teacher, path, data)
        if goal == "teacher":
            raise DS2D2Error(
                f"teacher={path}: is trained already on these classes, 'ds2d2 train' takes it as it is; to fine-tune "
                f"it further, pass teacher_epochs={arguments.epochs}",
                2,
            )
        return models
    if difference is not None and epochs == 0:
        raise DS2D2Error(f"teacher={path}: {difference}; leave teacher_epochs= out to have it fine-tuned")
    if is_same_number and epochs is None:
        raise DS2D2Error(
            f"teacher={path}: {difference}. If they are the same classes, write the teacher's names into the data "
            f"YAML; if not, pass teacher_epochs={arguments.epochs} to have it fine-tuned"
        )
    if difference is not None and teacher.explicit_only:
        raise DS2D2Error(
            f"teacher={path}: {difference}, and an {teacher.family} is not fine-tuned here; run 'yolo train "
            f"model={path} data={arguments.data}' and pass its best.pt"
        )
    if isinstance(arguments.pretrained, (str, Path)) and goal == "teacher":
        raise DS2D2Error(f"pretrained={arguments.pretrained}: the teacher starts from {path}; leave pretrained= out", 2)
    return models.with_start(data)


def _difference(teacher: Detector, data: Mapping[str, Any]) -> tuple[str | None, bool]:
    """Return how classes or keypoints of a teacher differ from those of the data, and whether they are as many."""
    names, expected = teacher.class_names, in_order(data["names"])
    keypoints = list(teacher.keypoints or data.get("kpt_shape") or ())
    is_same_number = len(names) == len(expected) and keypoints == list(data.get("kpt_shape") or keypoints)
    if not is_same_number:
        return class_difference(names, expected) or f"finds keypoints of kpt_shape={keypoints}", False
    return None if names == expected else side_by_side(names, expected), True


def with_task(arguments: Arguments, teacher: Detector) -> Arguments:
    """Return the arguments of a run with the task of its models.

    Args:
        arguments (Arguments): Arguments of the run.
        teacher (Detector): The teacher.

    Returns:
        (Arguments): The same with `task`.

    Raises:
        DS2D2Error: If another task was asked for, or an argument is not about it.
    """
    if arguments.task not in {"detect", teacher.task}:  # detect is Ultralytics' default
        raise DS2D2Error(
            f"task={arguments.task}: teacher {teacher.title} is for task={teacher.task}; leave task= out", 2
        )
    check_footprint(arguments.footprint, teacher)
    return arguments.replace(task=teacher.task)


def check_footprint(footprint: str | None, teacher: Detector) -> None:
    """Refuse to say what oriented objects cover where there are none.

    Args:
        footprint (str | None): The argument; None where it was not given.
        teacher (Detector): The teacher.

    Raises:
        DS2D2Error: If it was given, and the teacher is for another task.
    """
    if footprint is not None and teacher.task != "obb":
        raise DS2D2Error(
            f"footprint={footprint}: is for oriented boxes, and teacher {teacher.title} is for task={teacher.task}; "
            "leave footprint= out",
            2,
        )


def without_prediction_terms(arguments: Arguments, models: Models) -> Arguments:
    """Return the arguments of a run; where one of its models is query-based (RT-DETR), without the prediction terms.

    Args:
        arguments (Arguments): Arguments of the run.
        models (Models): Its models.

    Returns:
        (Arguments): The same, or with `im_full`, `im_high` and `response` 0 and no amplifier.

    Raises:
        DS2D2Error: If such a term or an amplifier was asked for, or such a teacher is still to be trained.
    """
    teacher = models.teacher
    by_maps = next((model for model in (teacher, models.student) if model is not None and model.explicit_only), None)
    if by_maps is None:
        return arguments
    for name, none in (("im_full", 0), ("im_high", 0), ("response", 0), ("amplifier", "none")):
        if (value := vars(arguments)[name]) not in {None, 0, "auto"}:
            raise DS2D2Error(
                f"{name}={value}: {by_maps.title} predicts by queries, so only feature maps are compared; "
                f"pass {name}={none}",
                2,
            )
    if arguments.val_kd:
        raise DS2D2Error(
            f"val_kd=True: {by_maps.title} predicts by queries, and val_kd cannot compare those; leave val_kd= out", 2
        )
    if teacher.explicit_only and not models.teacher_is_trained:
        raise DS2D2Error(
            f"teacher={arguments.teacher}: is an {teacher.family}, which is not trained here; run "
            f"'yolo train model={arguments.teacher} data={arguments.data}' and pass its best.pt"
        )
    return arguments.replace(im_full=0.0, im_high=0.0, response=0.0, amplifier=None)


def with_reference_gains(arguments: Arguments, teacher: Detector) -> Arguments:
    """Return the arguments of a run with `gains=reference` completed by the authors' gains; what was given stays.

    Args:
        arguments (Arguments): Arguments of the run.
        teacher (Detector): The teacher, for whose family the authors have gains or not.

    Returns:
        (Arguments): The same where the gains come from calibration, as in a preset where the authors have none.

    Raises:
        DS2D2Error: If the authors have none, and no preset has asked for them.
    """
    entries, reference = vars(arguments), teacher.reference_gains
    if entries["gains"] != "reference":
        return arguments
    if reference is None and preset_arguments(arguments.preset, arguments.epochs).get("gains") == "reference":
        return arguments.replace(gains="auto")  # which the summary of the run tells
    if reference is None:
        raise DS2D2Error(f"gains=reference: the paper's authors have none for {teacher.family}; pass gains=auto", 2)
    changes: dict[str, object] = {name: getattr(reference, name) for name in TERMS if entries[name] is None}
    if arguments.sum_regions is None:
        changes["sum_regions"] = True  # their coefficients go with sums; families without regions take no notice
    return arguments.replace(**changes, weight=arguments.weight or "disw")


def check_response(gain: float, teacher: Detector) -> None:
    """Refuse the response term where the family does not say what a student predicts by its own head.

    Args:
        gain (float): Gain, or share, of the term.
        teacher (Detector): The teacher, of the student's family.

    Raises:
        DS2D2Error: If it does not.
    """
    if gain and not isinstance(teacher, Responds):
        raise DS2D2Error(
            f"response={gain:g}: the family {teacher.family} does not support this term; pass response=0", 2
        )


def check_batches(arguments: Arguments, data: Mapping[str, Any], trained: Sequence[Detector]) -> None:
    """Refuse a training whose last batch of an epoch is one image of which BatchNorm would be given single values.

    With AutoBatch the batch is not known yet: the trainer checks it.

    Args:
        arguments (Arguments): Arguments of the run.
        data (Mapping[str, Any]): The data set as Ultralytics describes it.
        trained (Sequence[Detector]): The models that are trained.

    Raises:
        DS2D2Error: If there is such a batch.
    """
    if arguments.batch < 1:
        return
    strides = {model.title: max(int(max(model.model.stride)), 32) for model in trained}
    if not any(smallest_size(vars(arguments), stride) < 2 * stride for stride in strides.values()):
        return
    images = count_training_images(data, vars(arguments)["fraction"], arguments.task, arguments.single_cls)
    processes = str(arguments.device).count(",") + 1
    batch, images = max(int(arguments.batch) // processes, 1), -(-images // processes)
    for stride in strides.values():
        check_last_batch(vars(arguments), images, batch, stride)


def check_last_batch(arguments: Mapping[str, Any], images: int, batch: int, stride: int) -> None:
    """Refuse a last batch of one image at a size where the coarsest maps have one cell, as Ultralytics does.

    Args:
        arguments (Mapping[str, Any]): Arguments of the training.
        images (int): Number of images of a process.
        batch (int): Images of a batch of a process.
        stride (int): What the sides of images are multiples of.

    Raises:
        DS2D2Error: If there is such a batch.
    """
    size, batch = smallest_size(arguments, stride), min(batch, images)
    if size >= 2 * stride or (images % batch or batch) != 1:
        return
    fit = next((number for number in range(batch + 1, images + 1) if images % number != 1), None)
    advice = "" if fit is None else f"batch={fit}{' per GPU' if ',' in str(arguments['device']) else ''} or "
    raise DS2D2Error(
        f"batch={arguments['batch']}: the last of {images} training images is a batch of its own, and at {size} pixels "
        f"(imgsz={arguments['imgsz']}, multi_scale={arguments['multi_scale']}) BatchNorm needs at least two images; "
        f"pass {advice}an imgsz and multi_scale that keep every size at {2 * stride} or above"
    )


def smallest_size(arguments: Mapping[str, Any], stride: int) -> int:
    """Return the smallest side in pixels that images of a training have."""
    asked = arguments["imgsz"]
    asked = max(asked) if isinstance(asked, (list, tuple)) else asked
    imgsz = max(-(-int(asked) // stride) * stride, stride)  # rounded up, as Ultralytics does
    return max(int(imgsz * (1 - arguments["multi_scale"])) // stride, 1) * stride


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
        raise DS2D2Error(
            f"teacher={path}: takes images of {channels} channels, the data set has {data['channels']}; pass another "
            f"teacher, or write 'channels: {channels}' in the data YAML"
        )
    difference = class_difference(teacher.class_names, in_order(data["names"]))
    if difference is not None:
        raise DS2D2Error(
            f"teacher={path}: {difference}; fine-tune it with 'ds2d2 teacher teacher={path} "
            f"data={data.get('yaml_file', 'path/to/data.yaml')}' and pass its result"
        )
    if Path(path).suffix == ".pt" and "kpt_shape" in data:
        check_keypoints("teacher", path, teacher.model, data)
