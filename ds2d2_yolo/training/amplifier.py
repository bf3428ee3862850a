"""Stage 2: the high-frequency amplifier, a copy of the teacher's head trained on high-frequency maps."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from torch import nn
from ultralytics import __version__ as ultralytics_version
from ultralytics.nn.tasks import load_checkpoint
from ultralytics.utils import DEFAULT_CFG, LOGGER, RANK, colorstr

from ds2d2_yolo import __version__
from ds2d2_yolo.detectors import Detector, detector_of
from ds2d2_yolo.errors import DS2D2Error
from ds2d2_yolo.files import refuse_unusable, whole_file
from ds2d2_yolo.loading.data import load_training_data, resolve_data
from ds2d2_yolo.loading.fingerprint import fingerprint_of_model
from ds2d2_yolo.loading.models import load_model
from ds2d2_yolo.loading.safety import check_safety
from ds2d2_yolo.method import high_frequency_maps
from ds2d2_yolo.training.arguments import check_arguments
from ds2d2_yolo.training.checks import check_has_amplifier, check_teacher, with_task
from ds2d2_yolo.training.trainer import PlainTrainer
from ds2d2_yolo.training.types import Callbacks, Configuration, ModelConfiguration

_FORMAT = "ds2d2-amplifier"
_FORMAT_VERSION = 1


class HighFrequencyInput:
    """Forward pre-hook that replaces a head's input maps by their high-frequency maps.

    A class instead of a closure, because models with this hook are copied and pickled.

    Args:
        wavelet (str): Name of an orthogonal wavelet of PyWavelets.
    """

    def __init__(self, wavelet: str) -> None:
        self.wavelet = wavelet

    def __call__(self, module: nn.Module, inputs: tuple[Any, ...]) -> tuple[list[torch.Tensor]]:
        """Return the head's inputs with all maps replaced."""
        return (high_frequency_maps(inputs[0], self.wavelet),)


class AmplifierTrainer(PlainTrainer):
    """Train the high-frequency amplifier of a teacher.

    The amplifier is a copy of the teacher's head. It is trained with the ordinary detection loss on LH + HL + HH of
    every map. The teacher's backbone and neck are frozen, including BatchNorm statistics. Validation evaluates the
    teacher with this head. The result is `weights/amplifier.pt`: the head and the teacher's fingerprint. For a
    two-stage head, both stages are trained and only the second is saved.

    Args:
        cfg (Configuration): As for Ultralytics' trainers.
        overrides (dict[str, Any] | None): Ultralytics' train arguments. `model` (or `teacher`) is the trained teacher,
            `wavelet` the basis.
        _callbacks (dict[str, list] | None): As for Ultralytics' trainers.

    Attributes:
        amplifier (Path): The amplifier file, written at the end of training.

    Raises:
        DS2D2Error: If an argument is wrong, or the teacher does not match the data.

    Example:
        >>> overrides = {"teacher": "yolo11s.pt", "data": "DIOR.yaml", "epochs": 24}
        >>> AmplifierTrainer(overrides=overrides).train()  # doctest: +SKIP

    Source:
        Stage 2 of DS2D2 (doi 10.1109/TGRS.2025.3600098).
    """

    def __init__(
        self,
        cfg: Configuration = DEFAULT_CFG,
        overrides: dict[str, Any] | None = None,
        _callbacks: Callbacks | None = None,
    ) -> None:
        overrides = dict(overrides or {})
        teacher = overrides.pop("teacher", None)
        if teacher is not None:
            overrides["model"] = teacher
        if not overrides.get("resume") and RANK == -1:  # workers of a DDP run get arguments that their parent checked
            arguments = check_arguments(overrides, cfg)
            if arguments.safe:
                check_safety({"teacher": arguments.model})
            detector, trained = load_model("teacher", arguments.model)
            arguments = with_task(arguments, detector)
            if not trained:
                raise DS2D2Error(
                    f"teacher={arguments.model}: an amplifier needs a trained teacher; pass its .pt as teacher="
                )
            check_has_amplifier(detector, arguments.model, arguments.data)
            path = overrides["data"] = resolve_data(arguments.data)
            data = load_training_data(path, arguments.task, arguments.split, arguments.single_cls, arguments.classes)
            check_teacher(detector, arguments.model, data)
        super().__init__(cfg, overrides, _callbacks)
        self.amplifier = self.wdir / "amplifier.pt"

    def train(self) -> None:
        """Train the head."""
        try:
            super().train()
        finally:
            LOGGER.removeFilter(_is_not_freezing)

    def complete(self) -> None:
        """Write the final checkpoints and the amplifier of a run that was killed before its end."""
        super().complete()
        export_amplifier(self.best if self.best.exists() else self.last, self.amplifier, self.args.wavelet)

    def get_model(
        self, cfg: ModelConfiguration | None = None, weights: nn.Module | None = None, verbose: bool = True
    ) -> nn.Module:
        """Return the teacher with a head that gets high-frequency maps."""
        assert weights is not None  # the constructor refuses a YAML
        # A resumed checkpoint of this stage has another head than the teacher, but contains the teacher's fingerprint.
        fingerprint = getattr(weights, "ds2d2_teacher", None) or fingerprint_of_model(weights)
        model: Any = super().get_model(cfg, weights, verbose)
        model.ds2d2_teacher = fingerprint
        detector_of(model).head.register_forward_pre_hook(HighFrequencyInput(self.args.wavelet))
        return model

    def set_model_attributes(self) -> None:
        """Attach names and arguments, and freeze everything before the head by Ultralytics' `freeze`."""
        super().set_model_attributes()
        self.args.freeze = list(range(self.detector.head_index))
        LOGGER.info(f"Freezing backbone and neck (layers 0 to {self.args.freeze[-1]})")
        LOGGER.addFilter(_is_not_freezing)  # until training starts: hides hundreds of lines, one per parameter

    def resume_training(self, ckpt: dict[str, Any] | None) -> None:
        """Resume as Ultralytics does. This is the last step of the set-up."""
        LOGGER.removeFilter(_is_not_freezing)
        super().resume_training(ckpt)

    def final_eval(self) -> None:
        """Validate the best checkpoint and write its head as the amplifier."""
        super().final_eval()
        if RANK in {-1, 0}:
            source = self.best if self.best.exists() else self.last
            export_amplifier(source, self.amplifier, self.args.wavelet)
            LOGGER.info(f"Amplifier saved as {colorstr('bold', self.amplifier)}")


def export_amplifier(checkpoint: Path, path: Path, wavelet: str) -> None:
    """Write the head of an `AmplifierTrainer` checkpoint to a separate file.

    Args:
        checkpoint (Path): The checkpoint.
        path (Path): The file to write. It is replaced in one step.
        wavelet (str): Wavelet that the head was trained with.
    """
    model, state = load_checkpoint(checkpoint)
    detector = detector_of(model)
    head = detector.implicit_part(detector.head).state_dict()
    metrics = {key: float(value) for key, value in (state.get("train_metrics") or {}).items()}
    content = {
        "format": _FORMAT,
        "version": _FORMAT_VERSION,
        "teacher": model.ds2d2_teacher,
        "wavelet": wavelet,
        "head": {name: value.half() if value.is_floating_point() else value for name, value in head.items()},
        "metrics": metrics,
        "ds2d2_yolo": __version__,
        "ultralytics": ultralytics_version,
    }
    with whole_file(path) as partial:
        torch.save(content, partial)


def load_amplifier(path: str | Path, teacher: Detector, wavelet: str) -> nn.Module:
    """Load an amplifier. Refuse one that does not belong to the teacher.

    Args:
        path (str | Path): File written by `AmplifierTrainer`. Code in it is never run.
        teacher (Detector): The teacher.
        wavelet (str): The wavelet of the run.

    Returns:
        (nn.Module): The head: float32, frozen, in evaluation mode, on the teacher's device.

    Raises:
        DS2D2Error: If the file is missing, is not an amplifier, or was made for another teacher or wavelet.
    """
    content = read_amplifier(path)
    if content["teacher"] != fingerprint_of_model(teacher.model):
        raise DS2D2Error(
            f"amplifier={path}: made for another teacher; pass the amplifier of this teacher, or leave amplifier= out"
        )
    if content["wavelet"] != wavelet:
        raise DS2D2Error(
            f"amplifier={path}: made with wavelet={content['wavelet']}, this run has wavelet={wavelet}; pass "
            f"wavelet={content['wavelet']}"
        )
    head = deepcopy(teacher.implicit_part(teacher.head))
    try:
        head.load_state_dict(content["head"])  # copies into float32
    except (RuntimeError, TypeError) as error:
        raise DS2D2Error(f"amplifier={path}: damaged, its head is not the teacher's; leave amplifier= out") from error
    teacher.freeze_head(head)
    return head


def read_amplifier(path: str | Path) -> dict[str, Any]:
    """Return the content of an amplifier file.

    Args:
        path (str | Path): The file.

    Returns:
        (dict[str, Any]): Its entries: `teacher` (fingerprint), `wavelet`, `head` (tensors), `metrics`, versions.

    Raises:
        DS2D2Error: If the file is missing or is not an amplifier.
    """
    path = Path(path)
    refuse_unusable(path)
    if not path.is_file():
        raise DS2D2Error(f"amplifier={path}: no such file; leave amplifier= out to train one")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many types for other formats, truncated files and unsafe classes
        raise DS2D2Error(
            f"amplifier={path}: not an amplifier file ({type(error).__name__}); leave amplifier= out, or pass an "
            "amplifier.pt from 'ds2d2 amplifier'"
        ) from error
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise DS2D2Error(
            f"amplifier={path}: not an amplifier file; leave amplifier= out, or pass an amplifier.pt from 'ds2d2 "
            "amplifier'"
        )
    if not {"version", "teacher", "wavelet", "head"} <= content.keys():
        raise DS2D2Error(f"amplifier={path}: damaged, entries are missing; leave amplifier= out")
    if content["version"] != _FORMAT_VERSION:
        raise DS2D2Error(
            f"amplifier={path}: has format version {content['version']}, expected {_FORMAT_VERSION}; leave "
            "amplifier= out"
        )
    head = content["head"]
    if not isinstance(head, Mapping) or not all(isinstance(content[name], str) for name in ("teacher", "wavelet")):
        raise DS2D2Error(f"amplifier={path}: damaged, entries have wrong types; leave amplifier= out")
    if not all(isinstance(value, torch.Tensor) and bool(value.isfinite().all()) for value in head.values()):
        raise DS2D2Error(f"amplifier={path}: damaged, its head has values that are not finite; leave amplifier= out")
    return content


def _is_not_freezing(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith("Freezing layer")
