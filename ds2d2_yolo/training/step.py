"""Distillation in one training step, between the student's forward pass and its backward pass."""

from __future__ import annotations

import math
from collections.abc import Container, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Generic

import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call
from torch.utils.hooks import RemovableHandle
from ultralytics.utils import LOGGER, RANK, colorstr

from ds2d2_yolo.detectors import (
    AssignsObjects,
    Batch,
    ComparesPredictions,
    Detector,
    Maps,
    Responds,
    Suppression,
    TapOutputs,
    Taps,
    tapped,
)
from ds2d2_yolo.detectors.base import AssignmentT, PredictionsT, RawT
from ds2d2_yolo.method import TERMS, DS2D2Loss, Gains, HeadComparison, LossInputs, high_frequency_maps
from ds2d2_yolo.training.adapters import AdapterFit
from ds2d2_yolo.training.calibration import Calibration, ShareMeter
from ds2d2_yolo.training.resume import ADAPTERS

Output = tuple[torch.Tensor, dict[str, torch.Tensor]]
"""Output of the student for a training batch: its losses, which the trainer adds up, and the loss items by name."""


@dataclass(frozen=True, eq=False)
class TeacherOutputs(Generic[RawT]):
    """The teacher's outputs for a batch.

    Attributes:
        raw (RawT): Predictions of all levels, in the format of the family.
        maps (list[torch.Tensor]): The compared feature maps (B, C, H, W), reduced to the grids of the student's.
        head_maps (list[torch.Tensor]): All inputs of the head, as they are.
    """

    raw: RawT
    maps: list[torch.Tensor]
    head_maps: list[torch.Tensor]


class Distiller:
    """Adds the terms to the loss of a student.

    Teacher and amplifier are not part of the student's module tree. So optimiser, EMA, checkpoints and DDP do not
    include them. For every batch, `begin_step` begins a `Step`, which adds hooks to the student for one forward pass.
    Between steps the student is a plain model for validation, copies, exports and checkpoints.

    Args:
        teacher (Detector): The teacher, with its `ratio`. It is frozen and fused here.
        amplifier (nn.Module | None): The frozen high-frequency amplifier. It is fused here. None if im_high is off.
        loss (DS2D2Loss): The terms. Its adapters belong to the student's module tree.
        student_layers (Sequence[int]): Layers of the student to tap, in the order of the loss's maps.
        teacher_layers (Sequence[int]): Layers of the teacher to tap, in the same order.
        calibration (Calibration | None): Sets unset gains over the first batches. None if all gains are set.
        meter (ShareMeter | None): Measures each term's share of the gradient. None to measure nothing.
        assignment (str): Whose predictions assign the objects in the student's own loss: `student` or `teacher`.
            `teacher` needs a student that is `AssignsObjects`.
        fit (AdapterFit | None): Fits the adapters in the first batches. None if they are trained from their random or
            saved weights.
    """

    def __init__(
        self,
        teacher: Detector,
        amplifier: nn.Module | None,
        loss: DS2D2Loss,
        student_layers: Sequence[int],
        teacher_layers: Sequence[int],
        calibration: Calibration | None = None,
        meter: ShareMeter | None = None,
        assignment: str = "student",
        fit: AdapterFit | None = None,
    ) -> None:
        teacher.freeze()
        for module in (teacher.model, amplifier):
            if module is not None:
                teacher.fuse(module)
        self.teacher = teacher
        self.head = teacher.implicit_part(teacher.head)
        self.amplifier = amplifier
        self.loss = loss
        self.student_layers = tuple(student_layers)
        self.teacher_layers = tuple(teacher_layers)
        self.calibration = calibration
        self.meter = meter
        self.assignment = assignment
        self.fit = fit
        self.warnings = TermWarnings(self.student_layers, self.teacher_layers)
        self._student_taps = Taps()
        self._step: Step | None = None

    def begin_step(self, student: Detector, batch: Batch, terms: Container[str] = TERMS) -> None:
        """Run the teacher on a batch and make the student's next forward pass append the terms.

        With `assignment="teacher"`, the teacher assigns the objects in that pass.

        Args:
            student (Detector): The student, with its model in training mode.
            batch (Batch): The batch for that pass, on the model's device.
            terms (Container[str]): Names of the terms to compute. Terms without a gain stay off.
        """
        self.end_step()
        gains = self.loss.gains.only(terms)
        if gains.active or self.assignment == "teacher":
            self._step = Step(self, student, batch, gains)
            self._step.begin()

    def end_step(self, report: bool = True) -> None:
        """Remove the hooks of `begin_step` from the student, and print warnings about the last batch.

        Args:
            report (bool): Whether to print warnings. False for an artificial batch.
        """
        self._student_taps.close()
        if self._step is not None:
            self._step.close()
            self._step = None
        if report:
            self.warnings.report()

    def run_teacher(self, images: torch.Tensor) -> TeacherOutputs:
        """Run the teacher on images (B, 3, H, W) in [0, 1], of its size and on its device."""
        teacher, head_layers = self.teacher, self.teacher.head_layers
        modules = {index: teacher.layer(index) for index in (*self.teacher_layers, *head_layers)}
        with torch.no_grad():
            predictions, maps = tapped(modules, lambda: teacher.forward_teacher(images))
        compared = reduce_maps([maps[index] for index in self.teacher_layers], self.teacher.ratio)
        return TeacherOutputs(predictions, compared, [maps[index] for index in head_layers])

    def tap_student(self, student: Detector, gains: Gains | None = None) -> None:
        """Tap the student's next pass, for `terms`. That pass must compute the student's loss."""
        gains = self.loss.gains if gains is None else gains
        taps = {index: student.layer(index) for index in (*self.student_layers, *student.head_layers)}
        response = student.response_modules() if gains.response and isinstance(student, Responds) else {}
        self._student_taps.open({**taps, **student.assignment_modules(), **response})

    def tapped_outputs(self) -> TapOutputs:
        """Return the outputs of the modules that `tap_student` tapped, and remove the taps."""
        return self._student_taps.close()

    def terms(
        self,
        student: Detector,
        batch: Batch,
        student_outputs: TapOutputs,
        teacher_outputs: TeacherOutputs,
        adapters: Mapping[str, torch.Tensor] | None = None,
        gains: Gains | None = None,
    ) -> dict[str, torch.Tensor]:
        """Return the terms of a batch after the forward passes of both models.

        Args:
            student (Detector): The student.
            batch (Batch): The batch, as for `begin_step`.
            student_outputs (TapOutputs): Output of `tapped_outputs`.
            teacher_outputs (TeacherOutputs): Output of `run_teacher`.
            adapters (Mapping[str, torch.Tensor] | None): Parameters of other adapters by name, such as those of the
                EMA. None means the adapters in training.
            gains (Gains | None): Gains of the terms, for example to omit some. None means the gains of the loss.

        Returns:
            (dict[str, torch.Tensor]): The terms by name, each times its gain.
        """
        gains = self.loss.gains if gains is None else gains
        inputs = LossInputs(
            student_maps=[student_outputs[index] for index in self.student_layers],
            teacher_maps=teacher_outputs.maps,
            boxes=self.teacher.footprints(batch),
            batch_index=batch["batch_idx"],
            input_size=(batch["img"].shape[2], batch["img"].shape[3]),
            confidence=self._confidence(teacher_outputs, gains),
            heads=self._heads(student, student_outputs, teacher_outputs),
        )
        if adapters is None:
            terms: dict[str, torch.Tensor] = self.loss(inputs, gains)
        else:
            parameters = {f"adapters.{name}": value for name, value in adapters.items()}
            terms = functional_call(self.loss, parameters, (inputs, gains))
        return terms

    def detections(self, outputs: TeacherOutputs, suppression: Suppression) -> list[torch.Tensor]:
        """Return the teacher's detections from its outputs for a batch, in pixels of the student's images.

        The format is that of `Detector.detect`.
        """
        assert isinstance(self.teacher, ComparesPredictions)  # `val_kd` is refused for others
        found = self.teacher.detections_of(outputs.raw, outputs.head_maps, suppression)
        return [torch.cat([rows[:, :4] / self.teacher.ratio, rows[:, 4:]], 1) for rows in found]

    def confidence(self, outputs: TeacherOutputs) -> list[torch.Tensor]:
        """Return the teacher's highest object probability in every cell of the student's grids (B, 1, H_l, W_l)."""
        return reduce_confidence(self.teacher.confidence(outputs.raw, outputs.head_maps), self.teacher.ratio)

    def _heads(self, student: Detector, outputs: TapOutputs, teacher_outputs: TeacherOutputs) -> HeadComparison:
        """Return the comparison of predictions. It is empty if the family has explicit terms only."""
        if not isinstance(self.teacher, ComparesPredictions):
            return HeadComparison()
        heads = self.teacher, self.head, self.amplifier
        return BatchHeads(*heads, student, outputs, teacher_outputs, self.loss.wavelet)

    def _confidence(self, outputs: TeacherOutputs, gains: Gains) -> list[torch.Tensor] | None:
        """Return the teacher's confidence for every explicit map, from the head's map of the nearest size."""
        maps = self.loss.maps
        if self.loss.weight != "confidence" or not (gains.ex_low or gains.ex_high):
            return None
        grids = self.confidence(outputs)
        heights = [outputs.maps[index].shape[2] for index in maps.explicit]
        return [min(grids, key=lambda grid: abs(grid.shape[2] - height)) for height in heights]


class Step:
    """One training step with distillation.

    It begins before the student's forward pass and ends with it. After that, it keeps no reference to the batch.

    Args:
        distiller (Distiller): The distillation.
        student (Detector): The student.
        batch (Batch): The batch of the student's next forward pass.
        gains (Gains): Gains of the terms. Terms that this batch omits have gain 0.
    """

    def __init__(self, distiller: Distiller, student: Detector, batch: Batch, gains: Gains) -> None:
        self._distiller = distiller
        self._student = student
        self._batch = batch
        self._gains = gains
        self._handles: list[RemovableHandle] = []
        self._adapted_sums: list[torch.Tensor] = []

    def begin(self) -> None:
        """Run the teacher, and add taps and hooks to the student."""
        distiller, student = self._distiller, self._student
        images = self._batch.pop("teacher_img", self._batch["img"])  # the large ones are needed no longer
        self._teacher_outputs = outputs = distiller.run_teacher(images)
        if distiller.assignment == "teacher":
            assert isinstance(student, AssignsObjects)  # refused for others
            self._handles.append(student.assign_by(outputs.raw, outputs.head_maps))
        distiller.tap_student(student, self._gains)
        self._handles.append(student.model.register_forward_hook(self._end))

    def close(self) -> None:
        """Remove the hooks."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def _end(self, student: nn.Module, inputs: object, output: Output) -> Output:
        """Forward hook of the student: append the terms to its output."""
        distiller = self._distiller
        outputs = distiller.tapped_outputs()
        distiller.end_step(report=False)
        if not self._gains.active:
            return output
        has_all = self._gains.active == distiller.loss.gains.active
        maps = [outputs[index] for index in distiller.student_layers]
        taught = self._gradient_tensors(maps)
        if distiller.fit is not None and not distiller.fit.finished:
            distiller.fit.observe(maps, self._teacher_outputs.maps)
        terms = self._terms(outputs)
        distiller.warnings.inspect(terms, taught)

        loss, items = output
        # Criteria multiply the loss by a factor (the batch size in Ultralytics), but not the items.
        factor = self._student.loss_factor(self._batch["img"].shape[0])
        if has_all and distiller.calibration is not None and not distiller.calibration.finished:
            terms = self._calibrate(distiller.calibration, loss.sum() / factor, terms, taught)
        distiller.warnings.note(terms, maps, self._adapted_sums, self._teacher_outputs.maps)
        if distiller.meter is not None and distiller.meter.is_due(has_all):
            norms = distiller.meter.observe(loss.sum() / factor, terms, taught)
            if distiller.calibration is not None and distiller.calibration.is_running:
                self._follow(distiller.calibration, norms)
        vector = torch.stack(list(terms.values())) * factor
        items = {**items, **{f"{name}_loss": value.detach() for name, value in terms.items()}}
        return torch.cat([loss.reshape(-1), vector]), items  # RT-DETR's loss is a scalar

    def _gradient_tensors(self, maps: Sequence[torch.Tensor]) -> Sequence[torch.Tensor]:
        """Return the tensors for gradient norms: the maps, or the trained parameters if earlier layers are frozen."""
        if any(x.requires_grad for x in maps):
            return maps
        named = self._student.model.named_parameters()
        return [x for name, x in named if x.requires_grad and not name.startswith(f"{ADAPTERS}.")]

    def _terms(self, outputs: TapOutputs) -> dict[str, torch.Tensor]:
        """Return the terms, each times its gain, and record the sums of the adapted maps."""
        distiller = self._distiller
        for adapter in dict.fromkeys(distiller.loss.adapters):
            self._handles.append(adapter.register_forward_hook(self._sum_adapted))
        try:
            return distiller.terms(self._student, self._batch, outputs, self._teacher_outputs, gains=self._gains)
        finally:
            self.close()

    def _sum_adapted(self, adapter: nn.Module, inputs: object, output: torch.Tensor) -> None:
        """Forward hook of the adapters: record the sum of an adapted map."""
        self._adapted_sums.append(_sum(output))

    def _follow(self, calibration: Calibration, norms: Mapping[str, torch.Tensor]) -> None:
        """Update running gains for the next step."""
        loss = self._distiller.loss
        if calibration.finished:
            calibration.follow(norms, asdict(loss.gains))
            loss.gains = replace(loss.gains, **calibration.gains)

    def _calibrate(
        self,
        calibration: Calibration,
        detection: torch.Tensor,
        terms: Mapping[str, torch.Tensor],
        taught: Sequence[torch.Tensor],
    ) -> dict[str, torch.Tensor]:
        """Return the terms with the gains that the calibration computes from this batch."""
        loss = self._distiller.loss
        before = asdict(loss.gains)
        calibration.observe(detection, {name: value / before[name] for name, value in terms.items()}, taught)
        loss.gains = replace(loss.gains, **calibration.gains)
        after = asdict(loss.gains)
        return {name: value * (after[name] / before[name]) for name, value in terms.items()}


class BatchHeads(HeadComparison, Generic[RawT, AssignmentT, PredictionsT]):
    """Compares the predictions of heads for one batch: the teacher's head, the amplifier, and the student's own head.

    Args:
        teacher (ComparesPredictions): The teacher.
        head (nn.Module): Its `implicit_part`.
        amplifier (nn.Module | None): Its high-frequency amplifier. None if im_high is off.
        student (Detector): The student.
        student_outputs (TapOutputs): Outputs of its tapped modules for the batch.
        teacher_outputs (TeacherOutputs): The teacher's outputs for the batch.
        wavelet (str): Wavelet of the amplifier's maps.
    """

    def __init__(
        self,
        teacher: ComparesPredictions[RawT, AssignmentT, PredictionsT],
        head: nn.Module,
        amplifier: nn.Module | None,
        student: Detector,
        student_outputs: TapOutputs,
        teacher_outputs: TeacherOutputs[RawT],
        wavelet: str,
    ) -> None:
        self._teacher, self._head, self._amplifier = teacher, head, amplifier
        self._student, self._student_outputs = student, student_outputs
        self._teacher_outputs, self._wavelet = teacher_outputs, wavelet
        self._assignment: AssignmentT = student.assignment(student_outputs)

    @cached_property
    def _teacher_predictions(self) -> PredictionsT:
        """The teacher's predictions, for the terms im_full and response."""
        outputs = self._teacher_outputs
        return self._teacher.predictions_of(outputs.raw, outputs.head_maps, self._assignment)

    def full(self, student_maps: Maps, teacher_maps: Maps) -> torch.Tensor:
        """Compare two feature pyramids through the teacher's head."""
        maps = student_maps, teacher_maps
        return self._teacher.compare(self._head, *maps, self._assignment, self._teacher_predictions)

    def high(self, student_maps: Maps, teacher_maps: Maps) -> torch.Tensor:
        """Compare two feature pyramids of high frequencies through the amplifier."""
        assert self._amplifier is not None
        if self._teacher.ratio > 1:  # `teacher_maps` are of reduced maps
            teacher_maps = high_frequency_maps(self._teacher_outputs.head_maps, self._wavelet)
        return self._teacher.compare(self._amplifier, student_maps, teacher_maps, self._assignment)

    def response(self) -> torch.Tensor:
        """Compare the student's own predictions with the teacher's."""
        assert isinstance(self._student, Responds)  # refused for others
        predictions: PredictionsT = self._student.response(self._student.head, self._student_outputs)
        return self._teacher.compare_predictions(predictions, self._teacher_predictions, self._assignment)


class TermWarnings:
    """Warns once about each term that cannot teach: it has no gradient, or is not finite, negative or zero.

    Args:
        student_layers (Sequence[int]): Layers of the student's maps.
        teacher_layers (Sequence[int]): Layers of the teacher's maps.
    """

    def __init__(self, student_layers: Sequence[int], teacher_layers: Sequence[int]) -> None:
        self._layers = list(zip(student_layers, teacher_layers, strict=True))
        self._values: dict[str, torch.Tensor] = {}
        self._sums: tuple[torch.Tensor, ...] = ()
        self._reported: set[tuple[str, str]] = set()

    def inspect(self, terms: Mapping[str, torch.Tensor], taught: Sequence[torch.Tensor]) -> None:
        """Check on the first batch that every term has a gradient at the student's maps or trained parameters."""
        if self._values:
            return
        sources = [x for x in taught if x.requires_grad]
        for name, value in terms.items():
            gradients: Sequence[torch.Tensor | None] = []
            if sources and value.requires_grad:
                gradients = torch.autograd.grad(value, sources, retain_graph=True, allow_unused=True)
            if not any(gradient is not None and gradient.any() for gradient in gradients):
                self._warn(
                    name, "has no gradient to the student", f"it teaches nothing; lower freeze=, or pass {name}=0"
                )

    def note(
        self,
        terms: Mapping[str, torch.Tensor],
        student_maps: Sequence[torch.Tensor],
        adapted_sums: Sequence[torch.Tensor],
        teacher_maps: Sequence[torch.Tensor],
    ) -> None:
        """Record the terms of a batch and the sums of its maps, without waiting for the device."""
        self._values = {name: value.detach() for name, value in terms.items()}
        sums = ([_sum(x) for x in maps] for maps in (student_maps, teacher_maps))
        student_sums, teacher_sums = map(torch.stack, sums)
        self._sums = (student_sums, torch.stack(list(adapted_sums)), teacher_sums)

    def report(self) -> None:
        """Print warnings about the last batch."""
        # Reading values waits for the device. On these ranks the progress bar has just done so.
        if RANK not in {-1, 0} or not self._values:
            return
        numbers = torch.stack(list(self._values.values())).tolist()
        for name, number in zip(self._values, numbers, strict=True):
            if not math.isfinite(number):
                why = f"{number}, {self._origin()}; pass a lower {name}=, or amp=False"
                self._warn(name, "is not finite", why)
            elif number < 0:
                self._warn(
                    name,
                    "is negative",
                    f"it has no lower bound; pass {name}=0, or correct how the family decodes boxes",
                )
            elif number == 0:
                self._warn(
                    name, "is zero", f"it adds nothing; pass {name}=0, or a student that is not a copy of the teacher"
                )

    def _origin(self) -> str:
        """Describe which maps of the last batch are not finite, for each level."""
        places = []
        finite = zip(*([math.isfinite(value) for value in sums.tolist()] for sums in self._sums), strict=True)
        for level, ((student_layer, teacher_layer), (student, adapted, teacher)) in enumerate(
            zip(self._layers, finite, strict=True)
        ):
            where = f"level {level} (student's layer {student_layer}, teacher's {teacher_layer})"
            if not student:
                places.append(f"the student's map of {where}")
            elif not adapted:
                places.append(f"the adapter of {where}")
            if not teacher:
                places.append(f"the teacher's map of {where}")
        return f"from {', '.join(places)}" if places else "from the predictions, as all maps are finite"

    def _warn(self, name: str, what: str, why: str) -> None:
        if (name, what) not in self._reported and RANK in {-1, 0}:
            self._reported.add((name, what))
            LOGGER.warning(f"{colorstr('DS2D2:')} {name}_loss {what}: {why}")


def _sum(values: torch.Tensor) -> torch.Tensor:
    """Return a sum that is finite if all values are, without waiting for the device."""
    return values.detach().sum(dtype=torch.float32)


def reduce_maps(maps: Maps, ratio: int) -> list[torch.Tensor]:
    """Return the means of every `ratio` x `ratio` cells of maps (B, C_l, H_l, W_l)."""
    return list(maps) if ratio == 1 else [F.avg_pool2d(x, ratio, ceil_mode=True) for x in maps]


def reduce_confidence(grids: Maps, ratio: int) -> list[torch.Tensor]:
    """Return the highest of every `ratio` x `ratio` cells of grids (B, 1, H_l, W_l)."""
    return list(grids) if ratio == 1 else [F.max_pool2d(x, ratio, ceil_mode=True) for x in grids]
