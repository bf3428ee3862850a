"""`ds2d2 check`: the contents of a YOLO data set, and whether training on it would fail or lose labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ds2d2_yolo.commands.words import parse_arguments
from ds2d2_yolo.data.check import UNLABELED_SPLIT, Inspection, Settings, Split, inspect_dataset
from ds2d2_yolo.errors import DS2D2Error
from ds2d2_yolo.files import report_full_disk, write_json
from ds2d2_yolo.loading.classes import in_order
from ds2d2_yolo.loading.data import load_data, read_description, resolve_data
from ds2d2_yolo.loading.images import SPLITS, images_of_split
from ds2d2_yolo.loading.missing import missing_images
from ds2d2_yolo.loading.unlabeled import images_at, is_set_file, read_pseudo_set, unlabeled_entries
from ds2d2_yolo.options import complete_options, new_folder, usable_path
from ds2d2_yolo.report.dataset_plots import draw_plots
from ds2d2_yolo.report.dataset_tables import report_content, report_lines
from ds2d2_yolo.resources import is_shipped


def run(words: Sequence[str]) -> int:
    """Check a data set: print a table, write `check.json`, `classes.png`, `sizes.png` and `density.png`.

    The data set itself is not changed. The exit code tells how Ultralytics' loader and augmentation treat it:

    - 1 if training would stop, for example without images or labels.
    - 1 if training would lose images or labels without stopping, for example because of unreadable images, malformed
      label lines or unknown classes.
    - 0 otherwise, also with warnings, for example about duplicates or images without labels.

    `ds2d2_yolo.data.check.KINDS` lists all findings, and which of them are errors. Errors count in every split.

    Images without labels, from `unlabeled` or the data YAML, are counted as a separate split. Images that are also in
    another split are listed.

    Args:
        words (Sequence[str]): `key=value` words, the options of `cfg/check.yaml`; `data` is required.

    Returns:
        (int): Exit code.

    Raises:
        DS2D2Error: If an option is wrong, the data YAML or its training or validation images are missing, or `out`
            cannot be written.

    Example:
        >>> run(["data=scenes.yaml"])  # doctest: +SKIP
        0
    """
    options = complete_options("check", parse_arguments(words), required=("data",))
    options["images"] = options["images"] or "none"  # the command line turns `none` into None
    _check_options(options)
    data = _load(options["data"])
    splits, missing = _splits_of(data)
    if entries := _unlabeled_entries(options["unlabeled"], data):
        splits[UNLABELED_SPLIT] = Split(images_at(entries), [Path(entry) for entry in entries if Path(entry).is_dir()])
    settings = Settings(
        names=in_order(data["names"]),
        task=options["task"],
        imgsz=options["imgsz"],
        strides=options["strides"],
        images=options["images"],
        channels=data["channels"],
        keypoints=tuple(data.get("kpt_shape") or (0, 0)),
    )
    out = _folder_for(options, splits)
    inspection = inspect_dataset(splits, settings, Path(data["path"]))
    code = int(inspection.has_errors)
    print("\n".join(report_lines(inspection, settings, str(data["yaml_file"]), missing)))
    try:
        with report_full_disk(out):
            out.mkdir(parents=True, exist_ok=True)
            content = report_content(inspection, settings, str(data["yaml_file"]), missing)
            write_json(out / "check.json", content, indent=1)
            if options["plots"]:
                draw_plots(inspection, settings, out)
    except OSError as error:
        raise DS2D2Error(f"out={out}: cannot write here ({error.strerror or error}); pass another out=") from error
    print(f"\nSaved in {out}")
    print(_verdict(inspection))
    return code


def _check_options(options: Mapping[str, Any]) -> None:
    for name, choices in {"task": ("detect", "obb"), "images": ("full", "header", "none")}.items():
        if options[name] not in choices:
            raise DS2D2Error(f"{name}={options[name]}: expected {', '.join(choices[:-1])} or {choices[-1]}", 2)
    imgsz, strides = options["imgsz"], options["strides"]
    if type(imgsz) is not int or imgsz < 1:
        raise DS2D2Error(f"imgsz={imgsz}: expected a whole number of pixels, such as imgsz=640", 2)
    if not strides or not all(type(stride) is int and stride > 0 and imgsz % stride == 0 for stride in strides):
        raise DS2D2Error(f"strides={strides}: expected whole numbers that divide imgsz={imgsz}, such as [8,16,32]", 2)


def _load(data: str) -> dict[str, Any]:
    """Return Ultralytics' description of the data set. Only data sets of this package are made if they are missing."""
    path = resolve_data(data)
    if is_shipped(path):
        return load_data(path)
    return read_description(path, download=False)


def _splits_of(data: Mapping[str, Any]) -> tuple[dict[str, Split], dict[str, str]]:
    """Return the splits of a data set, and missing paths of splits that training does not need."""
    splits, missing = {}, {}
    for name in SPLITS:
        if not data.get(name):
            if name in ("train", "val"):  # required in every data YAML
                splits[name] = Split([])
            continue
        entries = [data[name]] if isinstance(data[name], str) else list(data[name])
        absent = [entry for entry in entries if not Path(entry).exists()]
        if absent and name in ("train", "val"):
            path = data["yaml_file"]
            advice = missing_images(path, [name]) or f"'{name}' is {absent[0]}, which does not exist"
            raise DS2D2Error(f"data={path}: {advice}")
        if absent:
            missing[name] = absent[0]
            continue
        splits[name] = Split(images_of_split(entries), [Path(entry) for entry in entries if Path(entry).is_dir()])
    return splits, missing


def _unlabeled_entries(value: Any, data: Mapping[str, Any]) -> list[str]:
    """Return the folders and lists of images without labels. A set with a teacher's labels has one folder."""
    return [str(read_pseudo_set(value).folder)] if is_set_file(value) else unlabeled_entries(value, data)


def _folder_for(options: Mapping[str, Any], splits: Mapping[str, Split]) -> Path:
    """Return the folder to write to. It is made later, with the first file."""
    folder = new_folder("check", options["out"], options["exist_ok"], options["task"])
    wanted = usable_path("out", str(options["out"])).absolute() if options["out"] else folder
    for split in splits.values():
        for images in split.folders:
            if wanted.resolve().is_relative_to(images.resolve()):
                raise DS2D2Error(f"out={wanted}: is in a folder of the data set's images; pass another out=")
    return folder


def _verdict(inspection: Inspection) -> str:
    if inspection.has_errors:
        return "ds2d2 check: training would stop, or lose images or labels; correct the lines marked ERROR"
    return "ds2d2 check: no errors, training would neither stop nor lose labels"
