"""Loading of models: a checkpoint or a model YAML becomes a `Detector`."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ultralytics.utils.torch_utils import intersect_dicts

from ds2d2_yolo.compatibility import warn_of_untested_release
from ds2d2_yolo.detectors import Detector, build_model, detector_of, is_supported
from ds2d2_yolo.errors import DS2D2Error, message_of
from ds2d2_yolo.loading.safety import check_safety
from ds2d2_yolo.loading.soundness import read_checkpoint


def load_model(role: str, path: str | Path, data: Mapping[str, Any] | None = None) -> tuple[Detector, bool]:
    """Load a detector from a checkpoint, or build it from a model YAML.

    Args:
        role (str): `teacher` or `student`, for messages.
        path (str | Path): A .pt file or a model YAML.
        data (Mapping[str, Any] | None): Data set that defines the classes of a model from a YAML. None keeps those of
            the YAML, for a check before the data are loaded.

    Returns:
        detector (Detector): The detector, on the CPU.
        trained (bool): Whether it comes from a checkpoint.

    Raises:
        DS2D2Error: If the file is missing or damaged, or its model cannot be distilled.
    """
    warn_of_untested_release()
    name, suffix = str(path), Path(str(path)).suffix.lower()
    if suffix in {".yaml", ".yml"}:
        classes = {"ch": data["channels"], "nc": data["nc"]} if data else {}
        try:
            model: Any = build_model(name, **classes)
        except Exception as error:  # a missing file, YAML syntax, modules that do not match: one message for all
            raise DS2D2Error(
                f"{role}={name}: no model can be built from it, {message_of(error)}; pass another model .yaml as "
                f"{role}="
            ) from error
        model.names = data["names"] if data else model.names
    elif suffix == ".pt":
        model, _ = read_checkpoint(role, name)
    elif suffix:
        raise DS2D2Error(
            f"{role}={name}: {suffix} files are exported models without layers to tap; pass {role}="
            f"{Path(name).with_suffix('.pt').name}, or the .pt that it was exported from"
        )
    else:
        best = Path(name) / "weights" / "best.pt"  # the folder of a run was given
        advice = f"{role}={best}" if best.is_file() else f"{role}={name}.pt or {role}={name}.yaml"
        raise DS2D2Error(f"{role}={name}: expected a .pt or a model .yaml; pass {advice}")
    try:
        detector = detector_of(model)
    except DS2D2Error as error:
        raise DS2D2Error(f"{role}={name}: {error}") from error
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
        teacher_is_trained (bool): Whether it is trained already. Otherwise its stage trains it.
        student (Detector | None): The student. None if the run has none.
        student_is_trained (bool): Whether it comes from a checkpoint. Otherwise it comes from a model YAML.
        start (Detector | None): The checkpoint's model, if the teacher's stage fine-tunes one.
        carried (tuple[int, int]): Number of tensors that are loaded from `start`, and of all tensors.
    """

    teacher: Detector
    teacher_is_trained: bool
    student: Detector | None = None
    student_is_trained: bool = False
    start: Detector | None = None
    carried: tuple[int, int] = (0, 0)

    def with_start(self, data: Mapping[str, Any]) -> Models:
        """Return the models for fine-tuning the teacher's checkpoint on the classes of a data set.

        Args:
            data (Mapping[str, Any]): The data set: `names`, `nc`, `channels`, and `kpt_shape` for keypoints.

        Returns:
            (Models): The models. The teacher has the same architecture, the new classes, and all weights that match.
        """
        start = self.teacher
        points = {"kpt_shape": data["kpt_shape"]} if start.keypoints else {}
        model: Any = build_model({**start.model.yaml, **points}, ch=data["channels"], nc=data["nc"])
        model.names = data["names"]
        new = deepcopy(model.state_dict())
        model.load(start.model, verbose=False)
        state = model.state_dict()
        whole = intersect_dicts(start.model.state_dict(), state)
        # Newer releases also load rows of class layers, for classes of the same name
        loaded = [name for name, values in state.items() if name in whole or not values.equal(new[name])]
        carried = len(loaded), len(state)
        return replace(self, teacher=detector_of(model), teacher_is_trained=False, start=start, carried=carried)


def load_models(
    teacher: str | Path,
    student: str | Path | None,
    pretrained: bool | str | Path,
    safe: bool,
    data: Mapping[str, Any] | None,
) -> Models:
    """Load the models of a run, and check that their initial weights are available.

    Args:
        teacher (str | Path): A .pt file or a model YAML.
        student (str | Path | None): A .pt file or a model YAML. None if the run has no student.
        pretrained (bool | str | Path): A checkpoint with initial weights for new models, or whether to use the public
            weights of the family.
        safe (bool): Whether to refuse checkpoints that could run code.
        data (Mapping[str, Any] | None): As for `load_model`.

    Returns:
        (Models): The models.

    Raises:
        DS2D2Error: As for `load_model` and `check_safety`, and if a checkpoint or public weights are not available.
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
    """Refuse a trained model whose keypoints differ from those of the data set.

    Args:
        role (str): `teacher` or `model`, for the message.
        path (str | Path): Its checkpoint.
        model (nn.Module): The model.
        data (Mapping[str, Any]): The data set, as described by Ultralytics.

    Raises:
        DS2D2Error: If the number of keypoints or of their values differs.
    """
    found = detector_of(model).keypoints if is_supported(model) else None
    if found is not None and list(found) != list(data["kpt_shape"]):
        raise DS2D2Error(
            f"{role}={path}: predicts keypoints of kpt_shape={list(found)}, the data set has "
            f"kpt_shape={list(data['kpt_shape'])}; fine-tune it with 'ds2d2 teacher teacher={path} "
            f"data={data.get('yaml_file', 'path/to/data.yaml')}' and pass the result as {role}="
        )
