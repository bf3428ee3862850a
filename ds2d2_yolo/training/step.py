"""The distillation of one training step: what happens between the student's forward pass and its backward pass."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import torch
from torch import nn
from torch.func import functional_call
from torch.utils.hooks import RemovableHandle
from ultralytics.utils import LOGGER, RANK, colorstr

from ds2d2_yolo.detectors import Detector, Taps
from ds2d2_yolo.method import DS2D2Loss
from ds2d2_yolo.training.calibration import Calibration, ShareMeter


class Distiller:
    """Adds the terms to the loss of a student.

    Teacher and amplifier are guests, held here and nowhere in the student's module tree: optimiser, EMA, checkpoints
    and DDP never see them. For every batch `arm` runs the teacher and puts hooks on the student for its next forward
    pass alone; when that pass returns (loss, items), the terms are appended to both and the hooks are gone. Validation,
    copies, exports and checkpoints therefore always meet a plain student.

    Args:
        teacher (Detector): The teacher; it is frozen and fused here.
        amplifier (nn.Module | None): The high-frequency amplifier, frozen; it is fused here. None where the term
            im_high is off.
        loss (DS2D2Loss): The terms; its adapters belong to the student's module tree.
        student_layers (Sequence[int]): Layers of the student to tap, in the order of the loss's levels.
        teacher_layers (Sequence[int]): Layers of the teacher to tap, likewise.
        calibration (Calibration | None): What finds the gains of some terms over the first batches, where any are to be
            found.
        meter (ShareMeter | None): What measures the shares that the terms have of the gradient, where it is wanted.
        assignment (str): Whose predictions assign the objects in the student's own loss, `student` or `teacher`; the
            latter for families that `Detector.assigns_by_predictions`.
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
    ) -> None:
        teacher.freeze()
        for guest in (teacher.model, amplifier):
            if guest is not None:
                teacher.fuse(guest)
        self.teacher = teacher
        self.amplifier = amplifier
        self.loss = loss
        self.calibration = calibration
        self.meter = meter
        self.assignment = assignment
        self._student_layers = tuple(student_layers)
        self._teacher_layers = tuple(teacher_layers)
        self._student_taps, self._teacher_taps = Taps(), Taps()
        self._handles: list[RemovableHandle] = []
        self._values: dict[str, torch.Tensor] = {}
        self._sums: tuple[torch.Tensor, ...] = ()
        self._reported: set[tuple[str, str]] = set()

    def arm(self, student: Detector, batch: Mapping[str, Any]) -> None:
        """Run the teacher on a batch and make the student's next forward pass append the terms.

        Where the teacher assigns the objects, it does so in that pass.

        Args:
            student (Detector): The student, its model in training mode.
            batch (Mapping[str, Any]): The batch as the model will be given it: `img` (B, 3, H, W) in [0, 1], `bboxes`
                (N, 4) as normalised xywh or (N, 5) as xywhr, `batch_idx` (N,), all on the model's device.
        """
        self.disarm()
        by_teacher = self.assignment == "teacher"
        if not self.loss.gains.active and not by_teacher:
            return
        images = batch["img"]
        predictions, known = self.consult(images)
        if by_teacher:
            self._handles.append(student.assign_by(predictions, [known[i] for i in self.loss.levels.head]))
        self.watch(student)

        def append(module: nn.Module, inputs: Any, output: tuple[torch.Tensor, dict[str, torch.Tensor]]) -> Any:
            outputs = self._student_taps.close()
            self._remove_handles()
            if not self.loss.gains.active:
                return output
            features = [outputs[index] for index in self._student_layers]
            adapted: list[torch.Tensor] = []
            handles = [
                adapter.register_forward_hook(lambda *passed: adapted.append(_sum(passed[-1])))
                for adapter in dict.fromkeys(self.loss.adapters)
            ]
            try:
                terms = self._terms(student, batch, features, known, predictions, outputs)
            finally:
                for handle in handles:
                    handle.remove()
            if not self._values:
                self._inspect(terms, features)
            self._values = {name: value.detach() for name, value in terms.items()}
            self._sums = (_sums(features), torch.stack(adapted), _sums(known))
            loss, items = output
            # Criteria return the loss times a factor, in Ultralytics the batch size, and the items without it.
            factor = student.loss_factor(images.shape[0])
            if self.calibration is not None and not self.calibration.finished:
                terms = self._calibrate(self.calibration, loss.sum() / factor, terms, features)
                self._values = {name: value.detach() for name, value in terms.items()}
            if self.meter is not None and self.meter.is_due():
                self.meter.observe(loss.sum() / factor, terms, features)
            vector = torch.stack(list(terms.values())) * factor
            items = {**items, **{f"{name}_loss": value for name, value in self._values.items()}}
            return torch.cat([loss.reshape(-1), vector]), items  # RT-DETR's loss is a scalar

        self._handles.append(student.model.register_forward_hook(append))

    def consult(self, images: torch.Tensor) -> tuple[Any, list[torch.Tensor]]:
        """Ask the teacher about images.

        Args:
            images (torch.Tensor): Images (B, 3, H, W) in [0, 1], on the models' device.

        Returns:
            predictions (Any): Its raw predictions, as its family gives them.
            known (list[torch.Tensor]): Its tapped maps (B, Ct_l, H_l, W_l).
        """
        self._teacher_taps.open({index: self.teacher.layer(index) for index in self._teacher_layers})
        with torch.no_grad():
            predictions = self.teacher.forward_teacher(images)
        maps = self._teacher_taps.close()
        return predictions, [maps[index] for index in self._teacher_layers]

    def watch(self, student: Detector) -> None:
        """Tap the next pass of a student, for `measure`; the pass is to compute the student's loss, too."""
        taps = {index: student.layer(index) for index in self._student_layers}
        response = student.response_modules() if self.loss.gains.response else {}
        self._student_taps.open({**taps, **student.assignment_modules(), **response})

    def measure(
        self,
        student: Detector,
        batch: Mapping[str, Any],
        predictions: Any,
        known: Sequence[torch.Tensor],
        adapters: Mapping[str, torch.Tensor],
    ) -> dict[str, torch.Tensor]:
        """Return the terms of a batch in evaluation, once the student that `watch` taps has seen it.

        Args:
            student (Detector): The student.
            batch (Mapping[str, Any]): The batch, as for `arm`.
            predictions (Any): The teacher's raw predictions for it, from `consult`.
            known (Sequence[torch.Tensor]): The teacher's maps, likewise.
            adapters (Mapping[str, torch.Tensor]): Parameters of this student's adapters by name: those of an average of
                students are not those in training.

        Returns:
            (dict[str, torch.Tensor]): The terms by name, each times its gain.
        """
        outputs = self._student_taps.close()
        features = [outputs[index] for index in self._student_layers]
        with torch.no_grad():
            return self._terms(student, batch, features, known, predictions, outputs, adapters)

    def detections(self, predictions: Any, known: Sequence[torch.Tensor], confidence: float) -> list[torch.Tensor]:
        """Return what the teacher finds in images that `consult` has asked it about, as `Detector.detections_of`."""
        return self.teacher.detections_of(predictions, [known[i] for i in self.loss.levels.head], confidence)

    def disarm(self, report: bool = True) -> None:
        """Remove what `arm` put on the student, and report what the last batch revealed.

        Args:
            report (bool): Whether to report; not where the batch was a made-up one.
        """
        self._student_taps.close()
        self._teacher_taps.close()
        self._remove_handles()
        # Reading values waits for the device. On these ranks the progress bar has just done so; on others it does not.
        if not report or RANK not in {-1, 0} or not self._values:
            return
        numbers = torch.stack(list(self._values.values())).tolist()
        for name, number in zip(self._values, numbers, strict=True):
            if not math.isfinite(number):
                why = f"{number}, {self._origin()}: lower its gain or train with amp=False"
                self._report(name, "is not finite", why)
            elif number < 0:
                self._report(name, "is negative", "it has no bound then: do the family's boxes turn inside out?")
            elif number == 0:
                self._report(name, "is zero", "it adds nothing: is the student a copy of the teacher?")

    def _terms(
        self,
        student: Detector,
        batch: Mapping[str, Any],
        features: Sequence[torch.Tensor],
        known: Sequence[torch.Tensor],
        predictions: Any,
        outputs: Mapping[Any, Any],
        adapters: Mapping[str, torch.Tensor] | None = None,
    ) -> dict[str, torch.Tensor]:
        """Return the terms of a batch, each times its gain; with other adapters than its own where some are given."""
        images = batch["img"]
        boxes = self.teacher.footprints(batch)
        assignment = student.assignment(outputs)
        answers = None
        if {"im_full", "response"} & set(self.loss.gains.active):
            answers = self.teacher.answers(predictions, [known[i] for i in self.loss.levels.head], assignment)

        def full(seen: Sequence[torch.Tensor], maps: Sequence[torch.Tensor]) -> torch.Tensor:
            part = self.teacher.implicit_part(self.teacher.head)
            return self.teacher.compare(part, seen, maps, assignment, answers)

        def high(seen: Sequence[torch.Tensor], maps: Sequence[torch.Tensor]) -> torch.Tensor:
            assert self.amplifier is not None
            return self.teacher.compare(self.amplifier, seen, maps, assignment)

        def response() -> torch.Tensor:
            return self.teacher.compare_predictions(self.teacher.response(student.head, outputs), answers, assignment)

        confidence = None
        if self.loss.weight == "confidence" and {"ex_low", "ex_high"} & set(self.loss.gains.active):
            confidence = self._confidence(predictions, known)
        size = (images.shape[2], images.shape[3])
        arguments = (features, known, boxes, batch["batch_idx"], size, full, high, confidence, response)
        terms: dict[str, torch.Tensor] = (
            self.loss(*arguments)
            if adapters is None
            else functional_call(self.loss, {f"adapters.{name}": value for name, value in adapters.items()}, arguments)
        )
        return terms

    def _confidence(self, predictions: Any, known: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Return the teacher's confidence for every explicit map: of the head's map that is nearest in size."""
        levels = self.loss.levels
        grids = self.teacher.confidence(predictions, [known[i] for i in levels.head])
        heights = torch.tensor([grid.shape[2] for grid in grids])
        nearest = [int((heights - known[i].shape[2]).abs().argmin()) for i in levels.explicit]
        return [grids[index] for index in nearest]

    def _calibrate(
        self,
        calibration: Calibration,
        detection: torch.Tensor,
        terms: Mapping[str, torch.Tensor],
        features: Sequence[torch.Tensor],
    ) -> dict[str, torch.Tensor]:
        """Return the terms with the gains that the calibration finds with this batch."""
        before = asdict(self.loss.gains)
        calibration.observe(detection, {name: value / before[name] for name, value in terms.items()}, features)
        self.loss.gains = replace(self.loss.gains, **calibration.gains)
        after = asdict(self.loss.gains)
        return {name: value * (after[name] / before[name]) for name, value in terms.items()}

    def _inspect(self, terms: Mapping[str, torch.Tensor], features: Sequence[torch.Tensor]) -> None:
        """Check on the first batch that every term has a gradient to the student's maps."""
        sources = [x for x in features if x.requires_grad]
        for name, value in terms.items():
            gradients: Sequence[torch.Tensor | None] = []
            if sources and value.requires_grad:
                gradients = torch.autograd.grad(value, sources, retain_graph=True, allow_unused=True)
            if not any(gradient is not None and gradient.any() for gradient in gradients):
                self._report(name, "has no gradient to the student", "it teaches nothing: are its layers frozen?")

    def _origin(self) -> str:
        """Return which maps of the last batch are not finite, level by level."""
        places = []
        for level, values in enumerate(zip(*(sums.tolist() for sums in self._sums), strict=True)):
            student, adapted, teacher = map(math.isfinite, values)
            where = f"level {level} (student's layer {self._student_layers[level]}"
            where += f", teacher's {self._teacher_layers[level]})"
            if not student:
                places.append(f"the student's map of {where}")
            elif not adapted:
                places.append(f"the adapter of {where}")
            if not teacher:
                places.append(f"the teacher's map of {where}")
        return f"from {', '.join(places)}" if places else "from the predictions, as all maps are finite"

    def _report(self, name: str, what: str, why: str) -> None:
        if (name, what) not in self._reported and RANK in {-1, 0}:
            self._reported.add((name, what))
            LOGGER.warning(f"{colorstr('DS2D2:')} {name}_loss {what}: {why}")

    def _remove_handles(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []


def _sum(values: torch.Tensor) -> torch.Tensor:
    """Return a sum that is finite where all values are, without waiting for the device."""
    return values.detach().sum(dtype=torch.float32)


def _sums(maps: Sequence[torch.Tensor]) -> torch.Tensor:
    return torch.stack([_sum(values) for values in maps])
