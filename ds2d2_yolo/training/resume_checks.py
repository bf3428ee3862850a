"""Checks of an interrupted student before it is continued."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ultralytics.cfg import get_cfg
from ultralytics.nn.tasks import load_checkpoint
from ultralytics.utils import DEFAULT_CFG_DICT, LOGGER, colorstr

from ds2d2_yolo.detectors import Detector
from ds2d2_yolo.errors import DS2D2Error, message_of, similar_file
from ds2d2_yolo.loading.data import load_training_data, resolve_data
from ds2d2_yolo.loading.fingerprint import fingerprint_of_data, fingerprint_of_file, fingerprint_of_model
from ds2d2_yolo.loading.models import load_model
from ds2d2_yolo.loading.place import check_place
from ds2d2_yolo.loading.soundness import read_checkpoint
from ds2d2_yolo.loading.unlabeled import is_set_file, read_pseudo_set
from ds2d2_yolo.training.arguments import DEFAULTS, Arguments, check_arguments
from ds2d2_yolo.training.resume import peek_state


def check_checkpoint(asked: str | Path) -> None:
    """Check that a file is the checkpoint of a distilled student.

    Args:
        asked (str | Path): The argument `resume`.

    Raises:
        DS2D2Error: If there is no such file, or it is another kind of checkpoint.
    """
    if not Path(asked).is_file():  # Ultralytics would use the last run
        raise DS2D2Error(f"resume={asked}: no checkpoint there; {_what_to_resume(Path(asked))}")
    _check_entries(asked, read_checkpoint("resume", asked)[1])


def is_before_its_stage(name: str, value: str) -> bool:
    """Return whether a stage of the run has made a file from this one: the user has repeated the run's command.

    Args:
        name (str): `teacher`, `amplifier` or `unlabeled`.
        value (str): The argument's value.

    Example:
        >>> is_before_its_stage("teacher", "yolo11l.yaml"), is_before_its_stage("teacher", "elsewhere/best.pt")
        (True, False)
    """
    if name == "unlabeled":
        return not is_set_file(value)
    return name == "teacher" and Path(value).suffix.lower() in {".yaml", ".yml"}


def check_continuation(last: Path, arguments: Arguments, ignored: Mapping[str, object], is_over: bool) -> None:
    """Check that a run can be continued. Warn of files that it does not use.

    Args:
        last (Path): last.pt of the run.
        arguments (Arguments): Arguments of the rest of the run.
        ignored (Mapping[str, object]): Files that were asked for and are not used, by role: `student`, or those from
            which a stage of the run has made another file.
        is_over (bool): Whether no epoch is left.

    Raises:
        DS2D2Error: If files, device or data for the remaining epochs are missing, or files are other ones.
    """
    _, checkpoint = load_checkpoint(last)
    began = checkpoint["train_args"]
    _warn_of_ignored(last, ignored, {**began, "student": began.get("model")})
    if not is_over:
        if arguments.teacher_imgsz is not None and arguments.imgsz != began.get("imgsz"):
            raise DS2D2Error(
                f"imgsz={arguments.imgsz}: this run began with imgsz={began.get('imgsz')} and "
                f"teacher_imgsz={arguments.teacher_imgsz}; leave imgsz= out"
            )
        _check_sources(last, arguments, checkpoint)
    check_place(arguments.device, arguments.amp, arguments.project, last.parent)
    split, classes = arguments.split, arguments.classes
    data = load_training_data(resolve_data(arguments.data), arguments.task, split, arguments.single_cls, classes)
    old = Path(str(began.get("data")))
    if not is_over and Path(arguments.data).resolve() != old.resolve():  # images that changed in place get a warning
        expected = peek_state(last, checkpoint["epoch"]).get("data")
        if expected and expected != fingerprint_of_data(data, arguments.split):
            raise DS2D2Error(
                f"data={arguments.data}: its images or labels are not those that this run began with, of {old}; "
                "leave data= out, or start the run again"
            )


def sources_of(arguments: Arguments, teacher: Detector | None) -> dict[str, str]:
    """Return fingerprints of what a student learns from.

    Args:
        arguments (Arguments): Arguments of the run.
        teacher (Detector | None): The teacher. Plain epochs have none.

    Returns:
        (dict[str, str]): Fingerprints by argument: `teacher`, `amplifier` and `unlabeled`.
    """
    sources = {}
    if teacher is not None:
        sources["teacher"] = fingerprint_of_model(teacher.model)
        if arguments.gains.im_high:
            sources["amplifier"] = fingerprint_of_file(Path(str(arguments.amplifier)))
    if arguments.unlabeled:
        sources["unlabeled"] = read_pseudo_set(str(arguments.unlabeled)).fingerprint
    return sources


def _what_to_resume(asked: Path) -> str:
    """Return what to do if there is no checkpoint at a path: the folder of a run, a wrong path in it, or any other."""
    folder = asked if asked.is_dir() else asked.parent.parent
    last = folder / "weights" / "last.pt"
    if asked.is_dir() and last.is_file():
        return f"pass resume={last}"
    if (folder / "args.yaml").is_file() and not last.is_file():
        return f"{folder} has no finished epoch; run its command again"
    return similar_file("resume", asked, "pass the last.pt of a run, from its folder weights", {".pt"})


def _check_entries(last: str | Path, content: Mapping[str, Any]) -> None:
    """Raise an error if the entries of a checkpoint, except the model, have another form than Ultralytics' entries."""
    try:
        epoch, arguments = content["epoch"], content["train_args"]
        if type(epoch) is not int or not isinstance(arguments, dict):
            raise TypeError(f"epoch is {epoch!r:.100}, train_args is of type {type(arguments).__name__}")
        if epoch >= 0 and arguments.get("teacher"):
            if type(arguments["epochs"]) is not int or not isinstance(content.get("optimizer"), (dict, type(None))):
                raise TypeError(f"epochs is {arguments['epochs']!r:.100}, or optimizer is not an optimizer state")
            get_cfg(DEFAULT_CFG_DICT | arguments)
            check_arguments({name: arguments[name] for name in DEFAULTS if name in arguments})
    except Exception as error:  # missing entries, other types, values out of range: one message for all
        raise DS2D2Error(
            f"resume={last}: its entries are not those of an Ultralytics checkpoint ({message_of(error)}); resume from "
            "another checkpoint of the run, or start it again"
        ) from error
    if epoch >= 0 and not arguments.get("teacher"):  # passing a teacher does not turn it into a distilled run
        raise DS2D2Error(
            f"resume={last}: is not a distilled student; to continue a stage, run its 'ds2d2' command again; for a "
            f"plain training, run 'yolo train resume model={last}'"
        )


def _warn_of_ignored(last: Path, ignored: Mapping[str, object], began: Mapping[str, object]) -> None:
    """Warn of files that a resumed run does not use, as Ultralytics does for other arguments."""
    for name, value in ignored.items():
        if value and Path(str(value)).resolve() not in {last.resolve(), Path(str(began.get(name))).resolve()}:
            LOGGER.warning(
                f"{colorstr('DS2D2:')} Resume ignores {name}={value}, using {began.get(name)}, which this run began "
                "with. Start a new run to change it."
            )


def _check_sources(last: Path, arguments: Arguments, checkpoint: Mapping[str, Any]) -> None:
    """Raise an error if what the student learns from after a checkpoint is missing or another than before."""
    epoch = checkpoint["epoch"]
    is_distilled = not arguments.is_plain(epoch + 1)
    needed = {"teacher": arguments.needs_teacher, "amplifier": arguments.gains.im_high}
    for role in (role for role, is_needed in needed.items() if is_needed and is_distilled):
        if not Path(str(path := getattr(arguments, role))).is_file():
            raise DS2D2Error(
                f"{role}={path}: no such file, and the run needs it; run 'ds2d2 train resume={last} "
                f"{role}=path/to/{Path(str(path)).name}'"
            )
    sources = peek_state(last, epoch).get("distillation", {}).get("sources", {})
    teacher = load_model("teacher", arguments.teacher)[0] if is_distilled and arguments.needs_teacher else None
    for role, found in sources_of(arguments, teacher).items():
        if sources.get(role, found) != found:
            given, began = str(getattr(arguments, role)), str(checkpoint["train_args"].get(role))
            advice = f"run 'ds2d2 train resume={last} {role}=path/to/it', or start the run again"
            if given != began and Path(began).is_file():
                advice = f"leave {role}= out, then it is {began}"
            raise DS2D2Error(f"{role}={given}: is not the one that this run began with; {advice}")
