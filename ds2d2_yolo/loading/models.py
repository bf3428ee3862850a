"""Models from what the user wrote: a checkpoint or a model YAML becomes a `Detector`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn
from ultralytics.utils.torch_utils import intersect_dicts

from ds2d2_yolo.compatibility import warn_of_untested_release
from ds2d2_yolo.detectors import TASKS, Detector, build_model, detector_of
from ds2d2_yolo.errors import DS2D2Error, message_of
from ds2d2_yolo.loading.safety import check_safety
from ds2d2_yolo.loading.soundness import read_checkpoint


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
    warn_of_untested_release()
    name, suffix = str(path), Path(str(path)).suffix.lower()
    if suffix in {".yaml", ".yml"}:
        classes = {"ch": data["channels"], "nc": data["nc"]} if data else {}
        try:
            model: Any = build_model(name, **classes)
        except Exception as error:  # a missing file, YAML syntax, or modules that do not fit: all the user's to mend
            raise DS2D2Error(
                f"{role}={name}: no model can be built from it, {message_of(error)}; pass another model .yaml as "
                f"{role}="
            ) from error
        model.names = data["names"] if data else model.names
    elif suffix == ".pt":
        model, _, _ = read_checkpoint(role, name)
        if hasattr(model, "ds2d2_teacher"):
            raise DS2D2Error(
                f"{role}={name}: is a checkpoint of the amplifier stage, whose head takes other maps; pass the best.pt "
                "of a teacher or a student"
            )
    elif suffix:
        raise DS2D2Error(
            f"{role}={name}: {suffix} files are exported models without layers to tap; pass {role}="
            f"{Path(name).with_suffix('.pt').name}, or whichever .pt it was made from"
        )
    else:
        raise DS2D2Error(f"{role}={name}: expected a .pt or a model .yaml; pass {role}={name}.pt or {role}={name}.yaml")
    detector = detector_of(model)
    if detector is None:
        raise DS2D2Error(
            f"{role}={name}: {_describe(model)} cannot be distilled; pass a YOLO model of the tasks "
            f"{', '.join(TASKS)}, a RetinaNet or a Faster R-CNN"
        )
    if model.is_fused():
        raise DS2D2Error(
            f"{role}={name}: is fused for inference and cannot be trained; pass best.pt or last.pt of its run"
        )
    return detector, suffix == ".pt"


@dataclass(frozen=True)
class Models:
    """The models of a run.

    Attributes:
        teacher (Detector): The teacher.
        teacher_is_trained (bool): Whether it can teach as it is; else it was built anew, for its stage to train.
        student (Detector | None): The student, where the run has one.
        student_is_trained (bool): Whether it comes from a checkpoint; else it was built from a model YAML.
        start (Detector | None): The model of the checkpoint that the teacher's stage fine-tunes, where there is one.
        carried (tuple[int, int]): Number of tensors that carry over from the start, of how many.
    """

    teacher: Detector
    teacher_is_trained: bool
    student: Detector | None = None
    student_is_trained: bool = False
    start: Detector | None = None
    carried: tuple[int, int] = (0, 0)

    def with_start(self, data: Mapping[str, Any]) -> Models:
        """Return the models where the teacher's checkpoint is what its fine-tuning on other classes starts from.

        Args:
            data (Mapping[str, Any]): The data set: `names`, `nc`, `channels`, and `kpt_shape` for keypoints.

        Returns:
            (Models): The same with a teacher of its architecture for these classes, with the weights that fit.
        """
        start = self.teacher
        points = {"kpt_shape": data["kpt_shape"]} if start.keypoints else {}
        model: Any = build_model({**start.model.yaml, **points}, ch=data["channels"], nc=data["nc"])
        model.names = data["names"]
        model.load(start.model, verbose=False)
        teacher, state = detector_of(model), model.state_dict()
        assert teacher is not None
        carried = len(intersect_dicts(start.model.state_dict(), state)), len(state)
        return replace(self, teacher=teacher, teacher_is_trained=False, start=start, carried=carried)


def load_models(
    teacher: str | Path,
    student: str | Path | None,
    pretrained: bool | str | Path,
    safe: bool,
    data: Mapping[str, Any] | None,
) -> Models:
    """Load the models of a run, and see that what they start from can be had.

    Args:
        teacher (str | Path): A .pt file or a model YAML.
        student (str | Path | None): Likewise; None where the run has none.
        pretrained (bool | str | Path): A checkpoint that a new model starts from, or whether it starts from the public
            weights of its family.
        safe (bool): Whether checkpoints are refused that could run code.
        data (Mapping[str, Any] | None): As for `load_model`.

    Returns:
        (Models): The models.

    Raises:
        DS2D2Error: As `load_model` and `check_safety`, and if a checkpoint or public weights cannot be had.
    """
    if safe:
        check_safety({"teacher": teacher, "model": student, "pretrained": pretrained})
    models = Models(*load_model("teacher", teacher, data))
    if student is not None:
        models = Models(models.teacher, models.teacher_is_trained, *load_model("student", student, data))
    if isinstance(pretrained, (str, Path)):
        read_checkpoint("pretrained", pretrained)
    return models


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
            f"kpt_shape={list(data['kpt_shape'])}; fine-tune it with 'ds2d2 teacher teacher={path} "
            f"data={data.get('yaml_file', 'path/to/data.yaml')}' and pass its result as {role}="
        )


def _describe(model: nn.Module) -> str:
    """Return what a model is, for a person."""
    head = getattr(model, "model", [model])
    head = head[-1] if isinstance(head, nn.Sequential) else model
    return f"a {type(model).__name__} with a {type(head).__name__} head"
