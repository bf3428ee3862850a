"""The command line: `ds2d2 MODE key=value ...`, in Ultralytics' grammar."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from ds2d2_yolo import __version__
from ds2d2_yolo.errors import DS2D2Error

HELP = """
    ds2d2 MODE key=value ...

    Distil a big detector into a small one that stays a plain Ultralytics model.

    MODES
      train      teacher -> amplifier -> student; stages that are finished already are reused
                   ds2d2 train teacher=yolo11l.pt student=yolo11n.yaml data=path/to/data.yaml epochs=100
      teacher    train the teacher alone
                   ds2d2 teacher teacher=yolo11l.yaml data=path/to/data.yaml
      amplifier  train the high-frequency amplifier of a teacher alone; one serves many students
                   ds2d2 amplifier teacher=path/to/best.pt data=path/to/data.yaml
      demo       all stages and a plain student on rendered scenes, compared in a table and pictures
      compare    a student trained plainly, with Ultralytics' distillation, with DS2D2: tables with intervals
                   ds2d2 compare teacher=yolo11l.pt student=yolo11n.yaml data=path/to/data.yaml seeds=0,1,2,3,4
      val        COCO-style AP of any model on any data set: all, small, medium, large, every class
                   ds2d2 val model=runs/detect/train/weights/best.pt data=path/to/data.yaml
      explain    what distillation compares, image by image: bands, weights, errors, predictions, as sheets and a page
                   ds2d2 explain source=path/to/data.yaml teacher=path/to/teacher.pt student=path/to/best.pt
      report     one page about a run or a comparison: pair, gains, curves, AP by class and size, what changed most
                   ds2d2 report runs/detect/train baseline=path/to/plain.pt
      convert    DIOR, DOTA, COCO JSON or VOC, as downloaded, into a data set to train on; DOTA is tiled
                   ds2d2 convert src=path/to/DIOR out=path/to/new
      check      what a data set holds, and whether training on it would fail or lose labels
                   ds2d2 check data=path/to/data.yaml
      merge      detections of tiles back into their images, in the submission format of DOTA
                   ds2d2 merge predictions=path/to/predictions.json data=path/to/converted out=path/to/new
      help       this text
      cfg        all arguments of training: ds2d2's own, then Ultralytics'; 'ds2d2 cfg convert': those of a mode
      version    versions of ds2d2-yolo and Ultralytics
      checks     what Ultralytics reports about this machine

    ARGUMENTS OF TRAINING
      teacher=    trained .pt, or a model .yaml that is trained first
      student=    model .yaml, or a pretrained .pt; model= means the same
      data=       data YAML: a path, one of ds2d2's (scenes.yaml) or of Ultralytics'
      amplifier=  auto (default), a .pt made for this teacher, or none
      cfg=        YAML file with arguments
      resume=     last.pt of an interrupted student's run
      ... and every train argument of Ultralytics: epochs=, imgsz=, batch=, device=, project=, name=, ...

    Docs: README.md and https://docs.ultralytics.com/usage/cfg
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments (Sequence[str] | None): Arguments without the program's name; None takes `sys.argv`.

    Returns:
        (int): Exit code: 0, 1 for a run that cannot work or a check that failed, 2 for a wrong command line, 130 when
            interrupted.

    Example:
        >>> main(["version"])  # doctest: +SKIP
        0
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    mode = None
    try:
        mode, rest = _mode_of(arguments)
        if mode in _TRAINING and os.environ.get("LOCAL_RANK", "-1") != "-1":
            raise DS2D2Error(
                f"ds2d2 {mode} starts one process per GPU itself: leave torchrun out and name GPUs, as in device=0,1",
                2,
            )
        code = _MODES[mode](rest) or 0
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # who reads has seen enough, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains when it flushes at exit
        return 0
    except DS2D2Error as error:
        print(f"ds2d2: error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        how = "; the same command continues its stages, resume= its student" if mode in _TRAINING else ""
        how = "; the same command continues it" if mode == "compare" else how
        print(f"\nds2d2: interrupted{how}", file=sys.stderr)
        return 130


def parse_arguments(arguments: Sequence[str]) -> dict[str, Any]:
    """Turn `key=value` words into arguments, as Ultralytics does.

    Args:
        arguments (Sequence[str]): Words of the command line; `cfg=file.yaml` stands for what the file holds, which the
            other words override.

    Returns:
        (dict[str, Any]): Arguments by name.

    Raises:
        DS2D2Error: If a word is no `key=value` pair, or the file of `cfg=` cannot be read.

    Example:
        >>> parse_arguments(["epochs=3", "amplifier=none", "layers=[15,18,21]"])
        {'epochs': 3, 'amplifier': None, 'layers': [15, 18, 21]}
    """
    from ultralytics.cfg import merge_equals_args, parse_key_value_pair
    from ultralytics.utils import DEFAULT_CFG_DICT

    from ds2d2_yolo.engine.arguments import DEFAULTS

    try:
        words = merge_equals_args(list(arguments))
    except (SyntaxError, IndexError) as error:
        raise DS2D2Error(str(error), 2) from error
    given: dict[str, Any] = {}
    from_file: dict[str, Any] = {}
    for word in words:
        word = word.removeprefix("--").removesuffix(",")
        if "=" not in word:
            if isinstance(DEFAULT_CFG_DICT.get(word), bool):
                given[word] = True  # Ultralytics' habit: a bare flag means true
                continue
            known = word in {*DEFAULT_CFG_DICT, *DEFAULTS, "student"}
            raise DS2D2Error(f"'{word}': expected {word if known else 'key'}=value, see 'ds2d2 help'", 2)
        try:
            key, value = parse_key_value_pair(word)
            if key in _TEXTS:
                value = word.split("=", 1)[1].strip()
        except (AssertionError, ValueError, SyntaxError) as error:
            raise DS2D2Error(f"'{word}': {error}", 2) from error
        if key == "cfg":
            from_file |= _read_configuration(value)
        else:
            given[key] = value
    if {"student", "model"} & given.keys():  # two names of one argument: either replaces either
        from_file = {key: value for key, value in from_file.items() if key not in {"student", "model"}}
    return from_file | given


def _train(arguments: Sequence[str]) -> None:
    from ds2d2_yolo.engine import DS2D2Trainer

    trainer = DS2D2Trainer(overrides=parse_arguments(arguments))
    trainer.train()
    _announce(trainer.best if trainer.best.exists() else trainer.last, "student")


def _teacher(arguments: Sequence[str]) -> None:
    from ds2d2_yolo.engine.stages import train_teacher

    _announce(train_teacher(parse_arguments(arguments)), "teacher")


def _amplifier(arguments: Sequence[str]) -> None:
    from ds2d2_yolo.engine.stages import train_amplifier

    _announce(train_amplifier(parse_arguments(arguments)), "amplifier")


def _demo(arguments: Sequence[str]) -> None:
    from ds2d2_yolo.report.demo import run_demo

    run_demo(parse_arguments(arguments))


def _compare(arguments: Sequence[str]) -> int:
    from ds2d2_yolo.report.comparison import run_compare

    return run_compare(parse_arguments(arguments))


def _val(arguments: Sequence[str]) -> int:
    from ds2d2_yolo.engine.evaluation import run_val

    return run_val(parse_arguments(arguments))


def _explain(arguments: Sequence[str]) -> int:
    from ds2d2_yolo.report.explain import run_explain

    return run_explain(parse_arguments(arguments))


def _report(arguments: Sequence[str]) -> int:
    from ds2d2_yolo.report.run import run_report

    first, *rest = arguments or [""]
    if first and "=" not in first and not (rest and rest[0].startswith("=")):  # the folder, without run= before it
        arguments = [f"run={first}", *rest]
    return run_report(parse_arguments(arguments))


def _convert(arguments: Sequence[str]) -> int:
    from ds2d2_yolo.data.convert import run_convert

    return run_convert(parse_arguments(arguments))


def _check(arguments: Sequence[str]) -> int:
    from ds2d2_yolo.report.dataset import run_check

    return run_check(parse_arguments(arguments))


def _merge(arguments: Sequence[str]) -> int:
    from ds2d2_yolo.data.merge import run_merge

    return run_merge(parse_arguments(arguments))


def _help(arguments: Sequence[str]) -> None:
    print(HELP)


def _cfg(arguments: Sequence[str]) -> None:
    from ultralytics.utils import DEFAULT_CFG_PATH

    from ds2d2_yolo.resources import resource_folder

    folder = resource_folder("cfg")
    for mode in arguments:
        if not (folder / f"{mode}.yaml").is_file() or mode == "default":
            raise DS2D2Error(
                f"'{mode}': no mode with options of its own, those of training are shown by 'ds2d2 cfg'", 2
            )
        print((folder / f"{mode}.yaml").read_text(encoding="utf-8"))
    if arguments:
        return
    print((folder / "default.yaml").read_text(encoding="utf-8"))
    print(Path(DEFAULT_CFG_PATH).read_text(encoding="utf-8"))


def _version(arguments: Sequence[str]) -> None:
    from ultralytics import __version__ as ultralytics_version

    print(f"ds2d2-yolo {__version__}, ultralytics {ultralytics_version}")


def _checks(arguments: Sequence[str]) -> None:
    from ultralytics.utils.checks import collect_system_info

    print(f"ds2d2-yolo {__version__}")
    collect_system_info()


_TEXTS = {"src", "out", "predictions", "source", "run", "baseline"}  # a folder called 2026_01 is no number

_TRAINING = {"train", "teacher", "amplifier", "demo"}

_MODES: dict[str, Callable[[Sequence[str]], int | None]] = {
    "train": _train,
    "teacher": _teacher,
    "amplifier": _amplifier,
    "demo": _demo,
    "compare": _compare,
    "val": _val,
    "explain": _explain,
    "report": _report,
    "convert": _convert,
    "check": _check,
    "merge": _merge,
    "help": _help,
    "cfg": _cfg,
    "version": _version,
    "checks": _checks,
}


def _mode_of(arguments: Sequence[str]) -> tuple[str, Sequence[str]]:
    """Return the mode and the remaining words; dashes before help and version are forgiven."""
    if not arguments:
        return "help", []
    for position, word in enumerate(arguments):
        name = word.lstrip("-").lower()
        name = {"h": "help", "v": "version"}.get(name, name)
        if name in _MODES:
            return name, [*arguments[:position], *arguments[position + 1 :]]
    first = arguments[0]
    close = get_close_matches(first, _MODES, n=2)
    hint = f"did you mean {' or '.join(close)}?" if close else f"modes are {', '.join(_MODES)}"
    raise DS2D2Error(f"'{first}': no such mode, {hint}", 2)


def _read_configuration(path: Any) -> dict[str, Any]:
    """Return the arguments in a YAML file."""
    from ultralytics.utils import YAML

    from ds2d2_yolo.resources import own_file

    try:
        content = YAML.load(own_file(str(path), "cfg", "recipes"))
    except Exception as error:  # missing, a folder, not YAML, wrong suffix: all the user's to mend
        raise DS2D2Error(f"cfg={path}: cannot be read, {error}", 2) from error
    # The args.yaml of an earlier run names its folder, which is not to be written over.
    return {key: value for key, value in content.items() if key not in {"cfg", "save_dir"}}


def _announce(path: Path, what: str) -> None:
    """Say where the result is, relative to the working folder where that is shorter."""
    relative = os.path.relpath(path)
    print(f"ds2d2: {what} saved as {relative if len(relative) < len(str(path)) else path}")


if __name__ == "__main__":
    sys.exit(main())
