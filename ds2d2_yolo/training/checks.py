"""Checks that arguments, models and data of a run are compatible, before any training."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ds2d2_yolo.detectors import AssignsObjects, ComparesPredictions, Detector, Responds, WeighsImages, input_channels
from ds2d2_yolo.errors import DS2D2Error
from ds2d2_yolo.loading.classes import class_difference, in_order, side_by_side
from ds2d2_yolo.loading.data import count_training_images
from ds2d2_yolo.loading.models import Models, check_keypoints
from ds2d2_yolo.method import TERMS
from ds2d2_yolo.training.arguments import Arguments, Goal, preset_arguments
from ds2d2_yolo.training.pair import check_tasks


def complete_run(arguments: Arguments, goal: Goal, models: Models, data: Mapping[str, Any]) -> tuple[Arguments, Models]:
    """Check that models, arguments and goal of a run are compatible, and complete them.

    Args:
        arguments (Arguments): Arguments of the run.
        goal (str): The last stage of the run.
        models (Models): Its models.
        data (Mapping[str, Any]): The data set, as described by `describe_data` or Ultralytics.

    Returns:
        arguments (Arguments): The arguments with the models' task, reference gains if requested, and without terms that
            the models do not support.
        models (Models): The models, or with a teacher for fine-tuning.

    Raises:
        DS2D2Error: If models, arguments and goal are not compatible.
    """
    if models.student is not None:
        check_tasks(models.teacher, models.student)
    arguments = with_task(arguments, models.teacher)
    models = _complete_teacher(arguments, goal, models, data)
    teacher, student = models.teacher, models.student
    if goal == "amplifier":
        check_has_amplifier(teacher, arguments.teacher, arguments.data)
        return arguments, models
    arguments = _without_prediction_terms(arguments, models)
    return (arguments if student is None else complete_student(arguments, teacher, student)), models


def check_has_amplifier(teacher: Detector, path: str, data: str) -> None:
    """Refuse an amplifier for a query-based teacher, given with the paths of teacher and data YAML."""
    if teacher.explicit_only:
        raise DS2D2Error(
            f"teacher={path}: an {teacher.family} has no amplifier, and its students need none; run "
            f"'ds2d2 train teacher={path} student=path/to/model.yaml data={data}'"
        )


def complete_student(arguments: Arguments, teacher: Detector, student: Detector) -> Arguments:
    """Check that a student can learn from a teacher with these arguments, and complete them.

    Args:
        arguments (Arguments): Arguments of the run.
        teacher (Detector): The teacher.
        student (Detector): The student.

    Returns:
        (Arguments): The arguments, with reference gains if requested.

    Raises:
        DS2D2Error: If a model does not support an argument.
    """
    arguments = with_reference_gains(arguments, teacher)
    if (gain := arguments.gains.response) and not isinstance(teacher, Responds):
        raise DS2D2Error(
            f"response={gain:g}: the family {teacher.family} does not support this term; pass response=0", 2
        )
    check_teacher_size(arguments, teacher)
    by_predictions = isinstance(student, AssignsObjects) and student.assigns_by_predictions
    if arguments.assignment == "teacher" and (teacher.family != student.family or not by_predictions):
        raise DS2D2Error(
            f"assignment=teacher: {teacher.title} cannot assign objects for {student.title}, only YOLO models for the "
            "tasks detect and obb can; leave assignment= out",
            2,
        )
    return arguments


def _complete_teacher(arguments: Arguments, goal: Goal, models: Models, data: Mapping[str, Any]) -> Models:
    """Return the models of a run, with a new teacher if the trained one needs fine-tuning.

    A trained teacher is fine-tuned if its number of classes or its keypoints differ from the data, or if
    `teacher_epochs` is given. The new teacher starts from the trained one.

    Raises:
        DS2D2Error: If equally many classes have other names or another order without `teacher_epochs`, or the value of
            `teacher_epochs` is not possible for this teacher.
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
    if teacher.explicit_only and (difference is not None or epochs or goal == "teacher"):
        raise _not_fine_tuned(arguments, teacher, difference, is_same_number)
    if difference is None and not epochs:
        check_teacher(teacher, path, data)
        if goal == "teacher":
            raise DS2D2Error(
                f"teacher={path}: is trained already on these classes, 'ds2d2 train' can use it; to fine-tune it "
                f"further, pass teacher_epochs={arguments.epochs}",
                2,
            )
        return models
    if difference is not None and epochs == 0:
        raise DS2D2Error(f"teacher={path}: {difference}; leave teacher_epochs= out to fine-tune it")
    if is_same_number and epochs is None:
        raise DS2D2Error(
            f"teacher={path}: {difference}. If they are the same classes, write the teacher's names into the data "
            f"YAML; if not, pass teacher_epochs={arguments.epochs} to fine-tune it"
        )
    if isinstance(arguments.pretrained, (str, Path)) and goal == "teacher":
        raise DS2D2Error(f"pretrained={arguments.pretrained}: the teacher starts from {path}; leave pretrained= out", 2)
    return models.with_start(data)


def _not_fine_tuned(
    arguments: Arguments, teacher: Detector, difference: str | None, is_same_number: bool
) -> DS2D2Error:
    """Return the error for a query-based teacher that would have to be fine-tuned."""
    path = arguments.teacher
    advice = f"run 'yolo train model={path} data={arguments.data}' and pass its best.pt"
    if difference is None:
        other = "leave teacher_epochs= out" if arguments.teacher_epochs else "pass it to 'ds2d2 train' as it is"
        difference, advice = "is trained already on these classes", f"{other}, or {advice}"
    elif is_same_number:
        advice = f"if they are the same classes, write the teacher's names into the data YAML; if not, {advice}"
    return DS2D2Error(f"teacher={path}: {difference}, and an {teacher.family} is not fine-tuned here; {advice}")


def _difference(teacher: Detector, data: Mapping[str, Any]) -> tuple[str | None, bool]:
    """Return the difference between a teacher's classes or keypoints and those of the data.

    The second value is whether their numbers are equal.
    """
    names, expected = teacher.class_names, in_order(data["names"])
    keypoints = list(teacher.keypoints or data.get("kpt_shape") or ())
    is_same_number = len(names) == len(expected) and keypoints == list(data.get("kpt_shape") or keypoints)
    if not is_same_number:
        return class_difference(names, expected) or f"predicts keypoints of kpt_shape={keypoints}", False
    return None if names == expected else side_by_side(names, expected), True


def with_task(arguments: Arguments, teacher: Detector) -> Arguments:
    """Return the arguments of a run with the task of its models.

    Args:
        arguments (Arguments): Arguments of the run.
        teacher (Detector): The teacher.

    Returns:
        (Arguments): The arguments with `task`.

    Raises:
        DS2D2Error: If another task was given, or an argument does not apply to the task.
    """
    if arguments.task not in {"detect", teacher.task}:  # detect is Ultralytics' default
        raise DS2D2Error(
            f"task={arguments.task}: teacher {teacher.title} is for task={teacher.task}; leave task= out", 2
        )
    check_footprint(arguments.footprint, teacher)
    return arguments.replace(task=teacher.task)


def check_footprint(footprint: str | None, teacher: Detector) -> None:
    """Refuse `footprint` for a task without oriented boxes.

    Args:
        footprint (str | None): The argument. None if it was not given.
        teacher (Detector): The teacher.

    Raises:
        DS2D2Error: If it was given and the teacher is for another task.
    """
    if footprint is not None and teacher.task != "obb":
        raise DS2D2Error(
            f"footprint={footprint}: is for oriented boxes, but teacher {teacher.title} is for task={teacher.task}; "
            "leave footprint= out",
            2,
        )


def _without_prediction_terms(arguments: Arguments, models: Models) -> Arguments:
    """Disable the prediction terms and the amplifier if a model is query-based (RT-DETR).

    Raises:
        DS2D2Error: If such a term or an amplifier was given, or a query-based teacher is not trained yet.
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
    """Complete `gains=reference` by the authors' gains. Gains that were given do not change.

    Args:
        arguments (Arguments): Arguments of the run.
        teacher (Detector): The teacher. Its family decides whether there are reference gains.

    Returns:
        (Arguments): The arguments. If a preset sets `gains=reference` and the authors have none, they have
            `gains=auto`.

    Raises:
        DS2D2Error: If the authors have no gains for the family, and `gains=reference` does not come from a preset.
    """
    entries, reference = vars(arguments), teacher.reference_gains
    if entries["gains"] != "reference":
        return arguments
    if reference is None and preset_arguments(arguments.preset).get("gains") == "reference":
        return arguments.replace(gains="auto")  # the summary of the run shows this
    if reference is None:
        raise DS2D2Error(f"gains=reference: the paper's authors have none for {teacher.family}; pass gains=auto", 2)
    changes: dict[str, object] = {name: getattr(reference, name) for name in TERMS if entries[name] is None}
    if arguments.sum_regions is None:
        changes["sum_regions"] = True  # their coefficients are for sums; families without regions ignore this
    return arguments.replace(**changes, weight=arguments.weight or "disw")


def check_unlabeled(arguments: Arguments, teacher: Detector, student: Detector | None) -> None:
    """Refuse unlabelled images that the teacher cannot label or the student cannot use.

    Args:
        arguments (Arguments): Arguments of the run.
        teacher (Detector): The teacher.
        student (Detector | None): The student. None if the run has none.

    Raises:
        DS2D2Error: If the task is not `detect` or `obb`, the student is not a `WeighsImages`, or batches are
            rectangular.
    """
    if teacher.task not in {"detect", "obb"}:
        raise DS2D2Error(
            f"unlabeled={arguments.unlabeled}: is for the tasks detect and obb, but teacher {teacher.title} is for "
            f"task={teacher.task}; pass unlabeled=False",
            2,
        )
    if student is not None and not isinstance(student, WeighsImages):
        raise DS2D2Error(
            f"unlabeled={arguments.unlabeled}: the loss of {student.title}, a {student.family}, cannot weigh images; "
            "pass a YOLO as student=, or unlabeled=False",
            2,
        )
    if arguments.rect:
        raise DS2D2Error("rect=True: is not supported with unlabeled=; leave rect= out", 2)


def check_teacher_size(arguments: Arguments, teacher: Detector) -> None:
    """Refuse what does not go together with a teacher whose images are larger than the student's.

    Args:
        arguments (Arguments): Arguments of the run.
        teacher (Detector): The teacher.

    Raises:
        DS2D2Error: If the family cannot compare predictions from images of two sizes, the teacher is to assign objects,
            or batches are to be rectangles.
    """
    if arguments.teacher_size == arguments.imgsz:
        return
    gains = arguments.gains
    by_predictions = [name for name in ("im_full", "im_high", "response") if getattr(gains, name)]
    advice = ""
    if by_predictions and not (isinstance(teacher, ComparesPredictions) and teacher.takes_larger_images):
        zeros = " ".join(f"{name}=0" for name in by_predictions)
        advice = f"{teacher.family} models learn from larger images by feature maps alone; pass {zeros}"
    elif arguments.assignment == "teacher":
        advice = "the teacher's predictions are for more anchors than the student has; leave assignment= out"
    elif arguments.rect:
        advice = "the grids of rectangles of two sizes need not coincide; leave rect= out"
    if advice:
        raise DS2D2Error(f"teacher_imgsz={arguments.teacher_imgsz}: {advice}", 2)


def check_batches(arguments: Arguments, data: Mapping[str, Any], trained: Detector) -> None:
    """Refuse a training whose last batch of an epoch is a single small image, for which BatchNorm fails.

    With AutoBatch, the batch size is not known yet, and the trainer checks it.

    Args:
        arguments (Arguments): Arguments of the run.
        data (Mapping[str, Any]): The data set, as described by Ultralytics.
        trained (Detector): The model that is trained.

    Raises:
        DS2D2Error: If there is such a batch.
    """
    stride = max(int(max(trained.model.stride)), 32)
    if arguments.batch < 1 or smallest_size(vars(arguments), stride) >= 2 * stride:
        return
    images = count_training_images(data, vars(arguments)["fraction"], arguments.task, arguments.single_cls)
    processes = str(arguments.device).count(",") + 1
    batch, images = max(int(arguments.batch) // processes, 1), -(-images // processes)
    check_last_batch(vars(arguments), images, batch, stride)


def check_last_batch(arguments: Mapping[str, Any], images: int, batch: int, stride: int) -> None:
    """Refuse a last batch of one image if the coarsest map has one cell, as Ultralytics does.

    Args:
        arguments (Mapping[str, Any]): Arguments of the training.
        images (int): Number of images per process.
        batch (int): Batch size per process.
        stride (int): Largest stride. The sides of images are multiples of it.

    Raises:
        DS2D2Error: If there is such a batch.
    """
    size, batch = smallest_size(arguments, stride), min(batch, images)
    if size >= 2 * stride or (images % batch or batch) != 1:
        return
    fit = next((number for number in range(batch + 1, images + 1) if images % number != 1), None)
    advice = "" if fit is None else f"batch={fit}{' per GPU' if ',' in str(arguments['device']) else ''} or "
    raise DS2D2Error(
        f"batch={arguments['batch']}: the last batch of {images} training images has one image, and at {size} pixels "
        f"(imgsz={arguments['imgsz']}, multi_scale={arguments['multi_scale']}) BatchNorm needs at least two images; "
        f"pass {advice}an imgsz and multi_scale with sizes of at least {2 * stride}"
    )


def smallest_size(arguments: Mapping[str, Any], stride: int) -> int:
    """Return the smallest side of the training images, in pixels."""
    asked = arguments["imgsz"]
    asked = max(asked) if isinstance(asked, (list, tuple)) else asked
    imgsz = max(-(-int(asked) // stride) * stride, stride)  # rounded up, as Ultralytics does
    return max(int(imgsz * (1 - arguments["multi_scale"])) // stride, 1) * stride


def check_teacher(teacher: Detector, path: str | Path, data: Mapping[str, Any]) -> None:
    """Refuse a teacher whose classes, keypoints or channels differ from those of the data set.

    Args:
        teacher (Detector): The teacher. Keypoints are checked only for a checkpoint, not for a model YAML.
        path (str | Path): Its file.
        data (Mapping[str, Any]): The data set, as described by Ultralytics.

    Raises:
        DS2D2Error: If number, names or order of the classes differ, or the number of channels, or the keypoints.
    """
    channels = input_channels(teacher.model)
    if channels != data["channels"]:
        raise DS2D2Error(
            f"teacher={path}: takes images of {channels} channels, the data set has {data['channels']}; pass another "
            f"teacher, or write 'channels: {channels}' in the data YAML"
        )
    difference = class_difference(teacher.class_names, in_order(data["names"]))
    if difference is not None:
        raise DS2D2Error(
            f"teacher={path}: {difference}; fine-tune it with 'ds2d2 teacher teacher={path} "
            f"data={data.get('yaml_file', 'path/to/data.yaml')}' and pass the result"
        )
    if Path(path).suffix == ".pt" and "kpt_shape" in data:
        check_keypoints("teacher", path, teacher.model, data)
