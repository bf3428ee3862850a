"""Planning and running the stages: `plan` checks everything, `Plan.run` trains what is missing.

`StudentTrainer` and the commands `train`, `teacher`, `amplifier`, `demo` and `compare` use this module.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from ultralytics.utils import LOGGER, colorstr

from ds2d2_yolo.detectors import Detector
from ds2d2_yolo.errors import DS2D2Error
from ds2d2_yolo.evaluation import validate
from ds2d2_yolo.loading.classes import in_order
from ds2d2_yolo.loading.data import describe_data, load_data, load_training_data
from ds2d2_yolo.loading.models import Models, load_model, load_models
from ds2d2_yolo.loading.place import check_place
from ds2d2_yolo.loading.unlabeled import (
    Unlabeled,
    find_unlabeled,
    is_set_file,
    read_pseudo_set,
    refuse_shared_images,
    unlabeled_entries,
)
from ds2d2_yolo.tables import counted
from ds2d2_yolo.training.amplifier import load_amplifier
from ds2d2_yolo.training.arguments import DEFAULTS, UNLABELED, Arguments, Goal, check_arguments, preset_arguments
from ds2d2_yolo.training.checks import check_batches, check_unlabeled, complete_run
from ds2d2_yolo.training.pair import Pair, check_image_sizes, check_pair, check_size
from ds2d2_yolo.training.schedule import IMPLICIT
from ds2d2_yolo.training.stages import Stage, StageKind, State, amplifier_stage, teacher_stage
from ds2d2_yolo.training.types import Callbacks, Configuration
from ds2d2_yolo.training.unlabeled import unlabeled_stage


@dataclass(frozen=True)
class Plan:
    """The plan of a run. Everything is checked, but nothing is trained yet and no run folder exists.

    Attributes:
        goal (str): `teacher`, `amplifier`, `unlabeled` or `student`.
        arguments (Arguments): Complete arguments: paths are resolved, task and reference gains are those of the models.
            `teacher` and `amplifier` are the paths of files. They may not be trained yet, see `states`.
            `amplifier` is None if none is needed, and `auto` if its name depends on a teacher that is not trained yet.
            `unlabeled` is the file of a set with the teacher's labels, as soon as its stage is finished.
        data (dict[str, Any]): The data set, as described by Ultralytics.
        teacher (Detector): The teacher, loaded, or built from its YAML if it is not trained yet.
        student (Detector | None): The student. None if it is not the goal.
        pair (Pair | None): The paired maps. None if the student is not the goal, or the models are not compared.
        states (dict[str, str]): State of the stages `teacher`, `amplifier` and `unlabeled`, in this order, if the run
            needs them.
        metrics (dict[str, float] | None): Ultralytics' metrics of a trained teacher. None if it was not evaluated yet.
        teacher_stage (Stage | None): The stage that trains the teacher. None if a trained teacher was given.
        start (str | None): A printed line that describes fine-tuning of a checkpoint for other classes.
        entries (list[str]): Folders and lists of unlabelled images.
        unlabeled (Unlabeled | None): The unlabelled images, for the summary. None if the teacher has labelled them.

    Example:
        >>> plan({"teacher": "yolo11l.pt", "data": "DIOR.yaml"}, "amplifier").states  # doctest: +SKIP
        {'teacher': 'given', 'amplifier': 'to be trained'}
    """

    goal: Goal
    arguments: Arguments
    data: dict[str, Any]  # Any: the output of Ultralytics' `check_det_dataset`
    teacher: Detector
    student: Detector | None = None
    pair: Pair | None = None
    states: dict[StageKind, State] = field(default_factory=dict)
    metrics: dict[str, float] | None = None
    teacher_stage: Stage | None = None
    start: str | None = None
    entries: list[str] = field(default_factory=list)
    unlabeled: Unlabeled | None = None

    @property
    def is_ready(self) -> bool:
        """Whether all stages before the goal are finished."""
        return not {"to be trained", "to be made", "to be continued"} & set(self.states.values())

    def run(self, callbacks: Callbacks | None = None) -> Plan:
        """Train the missing stages and reuse the finished ones.

        Args:
            callbacks (dict[str, list] | None): Ultralytics' callbacks by event, for training.

        Returns:
            (Plan): The plan with all stages finished. Its arguments name the files.

        Raises:
            DS2D2Error: If a stage cannot be trained.
        """
        arguments, teacher, metrics = self.arguments, self.teacher, self.metrics
        states = dict(self.states)
        if self.start is not None and self.goal != "student":  # for a student, the summary contains this line
            LOGGER.info(self.start.strip())
        if self.teacher_stage is not None and "teacher" in states:
            arguments = arguments.replace(teacher=str(self.teacher_stage.ensure(callbacks)))
            if states["teacher"] != "reused":
                teacher, _ = load_model("teacher", arguments.teacher)
                if self.goal != "teacher":  # before the next stage: a poor one is not worth it
                    LOGGER.info("\n".join(replace(self, metrics=self.teacher_stage.metrics).measure_teacher()))
            states["teacher"], metrics = "reused", self.teacher_stage.metrics or metrics
        if "amplifier" in states and states["amplifier"] != "given":
            stage = amplifier_stage(arguments, self.data, teacher)
            arguments = arguments.replace(amplifier=str(stage.ensure(callbacks)))
            states["amplifier"] = "reused"
        if states.get("unlabeled", "given") != "given":
            labels = unlabeled_stage(arguments, self.data, teacher, self.entries)
            arguments = arguments.replace(unlabeled=str(labels.ensure()))
            states["unlabeled"] = "reused"
        return replace(self, arguments=arguments, teacher=teacher, metrics=metrics, states=states)

    @property
    def completed(self) -> dict[str, Any]:
        """The completed arguments, for a trainer."""
        return {name: vars(self.arguments)[name] for name in ("model", "data", *DEFAULTS)}

    def summary(self) -> list[str]:
        """Return the printed summary of a student's run."""
        assert self.student is not None
        arguments, shares = self.arguments, self.arguments.shares
        how = "running" if arguments.has_running_gains else "auto"
        gains = {
            name: f"{how} (share {shares[name]:g})" if name in shares else f"{gain:g}"
            for name, gain in asdict(arguments.gains).items()
        }
        classes = counted(self.data["nc"], "class", "classes")
        coding = f"student {self.student.box_coding}; teacher {self.teacher.box_coding}"
        lines = [
            f"{colorstr('DS2D2:')} {self.student.title} learns from {self.teacher.title}, {classes}",
            *([] if self.start is None else [self.start]),
            *([] if self.pair is None else [f"  box coding: {coding}", *self.pair.table_lines()]),
            *_describe_sizes(arguments),
            f"  gains: {', '.join(f'{name} {text}' for name, text in gains.items())}",
        ]
        trained = getattr(self.teacher.model, "args", None)
        if isinstance(trained, dict) and trained.get("data") and trained["imgsz"] != arguments.teacher_size:
            name = "imgsz" if arguments.teacher_imgsz is None else "teacher_imgsz"
            sizes = (
                f"the teacher was trained with imgsz={trained['imgsz']}, this run has {name}={arguments.teacher_size}"
            )
            lines.append(f"  note: {sizes}")
        if arguments.assignment == "teacher":
            lines.append("  assignment: by the teacher's predictions")
        lines += [*_describe_unlabeled(self), *_describe_steps(arguments), *_describe_preset(arguments)]
        if not arguments.needs_teacher and not arguments.unlabeled:
            lines.append("  WARNING: all terms are off, so this trains the student alone; pass other gains or shares=")
        return [*lines, f"  stages: {', '.join(self._stages())}"]

    def _stages(self) -> list[str]:
        """Return the stages of a student's run for its summary, with their states and epochs."""
        arguments, epochs = self.arguments, {"amplifier": self.arguments.epochs_of("amplifier")}
        if self.teacher_stage is not None:
            epochs["teacher"] = self.teacher_stage.overrides["epochs"]
        stages = [
            f"{kind} ({state}{', ' + counted(epochs[kind], 'epoch') if state == 'to be trained' else ''})"
            for kind, state in self.states.items()
            if (kind, state) != ("teacher", "given")
        ]
        if not arguments.gains.im_high:
            stages.append("no amplifier, im_high is off")
        return [*stages, f"student ({counted(arguments.epochs, 'epoch')})"]

    def with_metrics(self) -> Plan:
        """Return the plan with the metrics of its trained teacher. A given teacher is evaluated first."""
        args = self.arguments
        if self.metrics:
            return self
        return replace(self, metrics=validate(args.teacher, args.data, args.replace(imgsz=args.teacher_size)))

    def measure_teacher(self) -> list[str]:
        """Return the printed lines about the AP of a trained teacher. A given teacher is evaluated first."""
        metrics = self.with_metrics().metrics or {}
        ap50, ap = metrics.get("metrics/mAP50(B)", 0.0), metrics.get("metrics/mAP50-95(B)", 0.0)
        lines = [f"  teacher on the validation set: mAP50 {ap50:.3f}, mAP50-95 {ap:.3f}"]
        if ap < 0.01:
            lines.append(
                "  WARNING: this teacher detects almost nothing; pass a better one, or increase teacher_epochs="
            )
        return lines


def plan(arguments: Mapping[str, Any], goal: Goal = "student", cfg: Configuration | None = None) -> Plan:
    """Plan a run and check that it can work.

    This trains nothing and creates no run folder. If images of a data set are missing that ships with ds2d2 or
    Ultralytics, they are rendered or downloaded, as the checks need them.

    Args:
        arguments (Mapping[str, Any]): The user's arguments: `teacher`, `student` (or `model`), `data`, and all
            arguments of ds2d2 and of Ultralytics' training.
        goal (str): The last stage to run: `teacher`, `amplifier`, `unlabeled` or `student`.
        cfg (Configuration | None): Base configuration that the arguments override, as for Ultralytics' trainers.

    Returns:
        (Plan): The plan.

    Raises:
        DS2D2Error: If the run cannot work. The message has one line: what is wrong, where, and what to do.

    Example:
        >>> asked = {"teacher": "yolo11l.yaml", "data": "DIOR.yaml", "epochs": 24}
        >>> plan(asked, "amplifier").run().arguments.amplifier  # doctest: +SKIP
        '/runs/detect/amplifier-yolo11l-1f0c2d3e/weights/amplifier.pt'
    """
    args = check_arguments(arguments, cfg, goal)
    student_file = args.model if goal == "student" else None
    # Check names and models first, before data are rendered or downloaded
    classes = describe_data(args.data, args.single_cls)
    models = load_models(args.teacher, student_file, args.pretrained, args.safe, classes)
    if classes is None:  # an archive must be unpacked first
        classes = load_data(args.data, args.split, args.single_cls)
        models = load_models(args.teacher, student_file, args.pretrained, args.safe, classes)
    args, models = complete_run(args, goal, models, classes)
    teacher, student = models.teacher, models.student
    pair: Pair | None = None
    if student is not None and args.needs_teacher:
        pair = check_pair(teacher, student, args.imgsz, args.layers, args.teacher_imgsz)
    else:
        check_image_sizes(teacher, args.imgsz, args.teacher_imgsz)
        if student is not None:
            check_size(student, args.imgsz)
    check_place(args.device, args.amp, args.project, args.run_folder)
    data = load_training_data(args.data, args.task, args.split, args.single_cls, args.classes)
    # Initial weights of a new teacher if it is the goal. With a student, `pretrained` concerns the student.
    start = args.pretrained if goal == "teacher" and isinstance(args.pretrained, (str, Path)) else None
    # Public weights for new models must be available
    if not models.teacher_is_trained and models.start is None and start is None and args.pretrained is not False:
        teacher.load_backbone()
    if student is not None and not models.student_is_trained and args.pretrained is True:
        student.load_backbone()
    planned = _with_entries(Plan(goal, args, data, teacher, student, pair))
    planned = _with_teacher(planned, models, start)
    planned = _with_unlabeled(_with_amplifier(planned, architecture=args.teacher))
    if {"to be trained", "to be continued"} & {planned.states.get(kind) for kind in ("teacher", "amplifier")}:
        check_batches(args.replace(imgsz=args.teacher_size), data, planned.teacher)
    # With unlabelled images, a student's batches are not known yet: the trainer checks them
    if student is not None and not planned.arguments.unlabeled:
        check_batches(args, data, student)
    return planned


def _describe_sizes(args: Arguments) -> list[str]:
    """Return the line that tells at which sizes images are seen; none where both models see the same."""
    if args.teacher_size == args.imgsz:
        return []
    if not args.needs_teacher:
        return [f"  images: {args.imgsz} pixels; the teacher works at {args.teacher_size}, before the training"]
    how = f"loaded at {args.teacher_size} pixels for the teacher, reduced to {args.imgsz} for the student"
    return [f"  images: {how}, and so are the teacher's maps"]


def _describe_steps(args: Arguments) -> list[str]:
    """Return the printed line about plain steps and reduced terms, if there are any."""
    words = []
    if not args.needs_teacher:
        return []
    if args.distill_every > 1:
        words.append(f"teacher and terms at 1 of {args.distill_every} batches")
    if args.im_every > 1 and any(name in IMPLICIT for name in args.gains.active):
        words.append(
            f"implicit terms at 1 of {args.im_every} of these"
            if words
            else f"implicit terms at 1 of {args.im_every} batches"
        )
    if plain := args.plain_epochs(args.epochs):
        words.append(f"no distillation in the last {plain} of {counted(args.epochs, 'epoch')}")
    return [f"  steps: {'; '.join(words)}"] if words else []


def _describe_unlabeled(planned: Plan) -> list[str]:
    """Return the printed line about unlabelled images, if there are any."""
    args = planned.arguments
    if not args.unlabeled:
        return []
    which = planned.unlabeled.describe() if planned.unlabeled else f"those of {args.unlabeled}"
    how = f"at most {args.unlabeled_ratio:g} per labelled image in an epoch, weight {args.unlabeled_weight:g}"
    return [f"  unlabelled: {which}; {how}"]


def _describe_preset(args: Arguments) -> list[str]:
    """Return the printed line about the arguments that a preset has set."""
    if args.preset is None:
        return []
    entries, own = vars(args), preset_arguments(args.preset)
    groups = (
        ", ".join(f"{name}={entries[name]}" for name in own if (entries[name] == own[name]) is kept)
        for kept in (True, False)
    )
    kept, others = groups
    return [f"  preset {args.preset}: {kept or 'nothing'}{f'; changed: {others}' if others else ''}"]


def _with_entries(planned: Plan) -> Plan:
    """Return the plan with the paths of its unlabelled images, or with the given set of labels."""
    args, student = planned.arguments, planned.student
    if planned.goal not in {"student", "unlabeled"}:
        return planned
    if is_set_file(args.unlabeled):
        made = read_pseudo_set(str(args.unlabeled))
        names, task = list(made.content["thresholds"]), made.content["inputs"].get("task", args.task)
        if task != args.task:
            raise DS2D2Error(
                f"unlabeled={args.unlabeled}: is for task={task}, this run is for task={args.task}; pass images"
            )
        if names != in_order(planned.data["names"]):
            raise DS2D2Error(f"unlabeled={args.unlabeled}: has the classes {names}; pass a set of the data's classes")
        refuse_shared_images(made, planned.data)
        planned = replace(planned, arguments=args.replace(unlabeled=str(made.file)), states={"unlabeled": "given"})
    else:
        entries = unlabeled_entries(args.unlabeled, planned.data)
        planned = replace(planned, entries=entries, arguments=args.replace(unlabeled=", ".join(entries) or None))
        if planned.goal == "unlabeled" and not entries:
            raise DS2D2Error("unlabeled= is missing: pass a folder of images, or a text file with one path per line", 2)
        if args.preset == "self-training" and not entries:
            raise DS2D2Error("preset=self-training: pass unlabeled=path/to/images, or another preset", 2)
        if entries and args.split != "val":  # the teacher's thresholds are those of the validation set
            load_training_data(args.data, args.task, "val", args.single_cls, args.classes)
    if planned.arguments.unlabeled:
        check_unlabeled(planned.arguments, planned.teacher, student)
    elif args.unlabeled is not False and (unused := [name for name in UNLABELED if vars(args)[name] != DEFAULTS[name]]):
        raise DS2D2Error(
            f"{unused[0]}={vars(args)[unused[0]]}: there are no images without labels; pass unlabeled=path/to/images, "
            f"or leave {unused[0]}= out",
            2,
        )
    return planned


def _with_unlabeled(planned: Plan) -> Plan:
    """Return the plan with the unlabelled images, and the state of the stage that labels them."""
    if not planned.entries:
        return planned
    args = planned.arguments
    state: State = "to be made"
    if planned.states.get("teacher") in {"given", "reused"}:
        stage = unlabeled_stage(args, planned.data, planned.teacher, planned.entries)
        if (state := stage.state) == "reused":
            args = args.replace(unlabeled=str(stage.file))
    images = None if state == "reused" else find_unlabeled(planned.entries, planned.data)
    return replace(planned, arguments=args, states={**planned.states, "unlabeled": state}, unlabeled=images)


def _with_teacher(planned: Plan, models: Models, start: str | Path | None) -> Plan:
    """Return the plan with the teacher's file, and with its stage if no trained teacher was given."""
    args, teacher = planned.arguments, planned.teacher
    if models.teacher_is_trained:
        source = getattr(teacher.model, "pt_path", None)  # the path that Ultralytics found for a bare name
        # A later run with the finished teacher must not fine-tune it again.
        args = args.replace(teacher=str(Path(source or args.teacher).resolve()), teacher_epochs=None)
        return replace(planned, arguments=args, states={"teacher": "given", **planned.states})
    stage = teacher_stage(args, planned.data, models, start)
    if planned.goal == "student" and not args.needs_teacher and not planned.entries:
        return replace(planned, teacher_stage=stage)  # no state: the stage is not run
    state = stage.state
    if state == "reused":
        teacher, _ = load_model("teacher", stage.weights)
    return replace(
        planned,
        arguments=args.replace(teacher=str(stage.weights), teacher_epochs=None),
        teacher=teacher,
        states={"teacher": state, **planned.states},
        metrics=stage.metrics or None,
        teacher_stage=stage,
        start=_describe_start(args, models),
    )


def _with_amplifier(planned: Plan, architecture: str) -> Plan:
    """Return the plan with the amplifier's file, if its name is known yet, and the state of its stage."""
    args, goal, amplifier = planned.arguments, planned.goal, planned.arguments.amplifier
    has_teacher = planned.states.get("teacher") in {"given", "reused"}
    given = goal == "student" and amplifier not in {None, "auto"}
    if given:
        if not has_teacher:
            raise DS2D2Error(
                f"amplifier={amplifier}: belongs to a trained teacher, and {architecture} is still to be trained; "
                "leave amplifier= out"
            )
        load_amplifier(str(amplifier), planned.teacher, args.wavelet)
        args = args.replace(amplifier=str(Path(str(amplifier)).resolve()))
    if goal in {"teacher", "unlabeled"} or (goal == "student" and not args.gains.im_high):
        return replace(planned, arguments=args if given else args.replace(amplifier=None))
    state: State = "given" if given else "to be trained"
    if has_teacher and not given:
        stage = amplifier_stage(args, planned.data, planned.teacher)
        state, args = stage.state, args.replace(amplifier=str(stage.weights))
    states = {**planned.states, "amplifier": state}
    order: tuple[StageKind, ...] = ("teacher", "amplifier", "unlabeled")
    return replace(planned, arguments=args, states={kind: states[kind] for kind in order if kind in states})


def _describe_start(args: Arguments, models: Models) -> str | None:
    """Return the printed line about fine-tuning of a checkpoint, if the teacher's stage does that."""
    if models.start is None:
        return None
    names, new = models.start.class_names, models.teacher.class_names
    carried, total = models.carried
    return (
        f"  teacher: {args.teacher} has {_shortened(names)} and is fine-tuned on {_shortened(new)} for "
        f"{counted(args.epochs_of('teacher'), 'epoch')}; {carried} of {total} tensors are loaded"
    )


def _shortened(names: Sequence[str]) -> str:
    more = ", ..." if len(names) > 3 else ""
    return f"{counted(len(names), 'class', 'classes')} ({', '.join(names[:3])}{more})"
