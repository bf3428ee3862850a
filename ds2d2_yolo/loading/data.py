"""Loading of data sets: finds, renders or downloads them, and checks them for training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import shorten
from typing import Any

import numpy as np
from ultralytics.data.utils import check_det_dataset, get_split_fraction, img2label_paths
from ultralytics.nn.autobackend import check_class_names
from ultralytics.utils import LOGGER, ROOT, SETTINGS, YAML, colorstr
from ultralytics.utils.checks import check_file

from ds2d2_yolo.data.check.images import image_facts
from ds2d2_yolo.data.depth import warn_of_depth
from ds2d2_yolo.data.labels import usable_labels
from ds2d2_yolo.data.shipped import hint_for
from ds2d2_yolo.errors import DS2D2Error
from ds2d2_yolo.files import refuse_unusable
from ds2d2_yolo.loading.classes import check_unique, in_order
from ds2d2_yolo.loading.images import SPLITS, images_of_split
from ds2d2_yolo.loading.missing import lists_elsewhere, missing_images, what_to_change
from ds2d2_yolo.loading.safety import refuse_unsafe_caches
from ds2d2_yolo.resources import is_shipped, own_file

_MOST_CHANNELS = _MOST_KEYPOINTS = 1000  # more is a typing error, and would build a model of gigabytes


def resolve_data(data: Any) -> str:
    """Return the path of a data YAML. A bare name can also be that of a YAML that ships with ds2d2.

    Args:
        data (Any): The user's value: a path, or a name such as `scenes.yaml`.

    Returns:
        (str): The path of a shipped YAML, or otherwise the given value.

    Raises:
        DS2D2Error: If the value is empty.
    """
    if not data:
        raise DS2D2Error("data= is missing: pass a data YAML, such as data=scenes.yaml", 2)
    return own_file(str(data), "datasets")


def describe_data(path: str, single_cls: bool = False) -> dict[str, Any] | None:
    """Return the classes of a data YAML, without searching, rendering or downloading its images.

    Args:
        path (str): The data YAML, as returned by `resolve_data`.
        single_cls (bool): Whether all classes count as one.

    Returns:
        (dict[str, Any] | None): `names` by index, `nc`, `channels` of the images, and `kpt_shape` if it is valid. None
            if the file is an archive or no valid YAML. `load_data` handles both.
    """
    try:
        content = YAML.load(check_file(path))
        names = content.get("names") or [f"class_{index}" for index in range(content["nc"])]
        names = {0: "item"} if single_cls else check_class_names(names)
        check_unique(path, in_order(names))
        description = {"names": names, "nc": len(names), "channels": int(content.get("channels", 3))}
        if _is_keypoint_shape(content.get("kpt_shape")):
            description["kpt_shape"] = content["kpt_shape"]
        return description
    except Exception:  # many types, from missing files to YAML syntax
        return None


def load_data(path: str, split: str = "val", single_cls: bool = False) -> dict[str, Any]:
    """Read and check a data set. The embedded data set is rendered first if it does not exist yet.

    Args:
        path (str): The data YAML, as returned by `resolve_data`.
        split (str): The split for evaluation.
        single_cls (bool): Whether all classes count as one.

    Returns:
        (dict[str, Any]): The data set, as described by Ultralytics.

    Raises:
        DS2D2Error: If the YAML is missing or malformed, a class name occurs twice, images are missing, or a cache of
            labels could run code.
    """
    if is_shipped(path) and (how := YAML.load(path).get("render")):
        from ds2d2_yolo.scenes import render_dataset  # imported only when it is needed

        render_dataset(Path(SETTINGS["datasets_dir"]) / YAML.load(path)["path"], **how)
    if (hint := hint_for(path)) is not None:
        raise DS2D2Error(f"data={path}: {hint}")
    data = read_description(path)
    if data.get(split) and split != "val":
        read_description(path, split)
    if single_cls:
        data["names"], data["nc"] = {0: "item"}, 1
    check_unique(path, in_order(data["names"]))
    if not data.get(split):
        raise DS2D2Error(f"split={split}: {path} has no line '{split}:'; add it, or pass split=val")
    refuse_unsafe_caches(f"data={path}", [data.get(name) for name in {*SPLITS, split}])
    return data


def read_description(path: str, split: str = "", download: bool = True) -> dict[str, Any]:
    """Return Ultralytics' description of a data YAML, after the checks that every mode needs.

    Args:
        path (str): The data YAML, as returned by `resolve_data`.
        split (str): Split whose images must exist. If empty, the validation set.
        download (bool): Whether to download missing images, if the YAML has an address.

    Returns:
        (dict[str, Any]): The data set, as described by Ultralytics.

    Raises:
        DS2D2Error: If the YAML is missing or malformed, has values that would fail later, or images are missing.
    """
    try:
        try:
            data = dict(check_det_dataset(path, autodownload=False, split=split))
        except FileNotFoundError:
            if not download:
                raise
            _announce_download(path)
            data = dict(check_det_dataset(path, split=split))
        _check_values(path, data)
    except DS2D2Error:
        raise
    except Exception as error:  # many types, from YAML syntax to missing folders: one message for all
        raise DS2D2Error(f"data={path}: {what_to_change(path, error, split or 'val')}") from error
    return data


def _check_values(path: str, data: Mapping[str, Any]) -> None:
    """Refuse values of a data YAML that Ultralytics accepts but that fail during training."""
    names = YAML.load(str(data["yaml_file"])).get("names") or []  # the description has converted them to text
    for name in names.values() if isinstance(names, Mapping) else names:
        if not isinstance(name, (str, int, float)) or not str(name).strip():
            raise DS2D2Error(f"data={path}: names holds {name!r}, which is not a class name; write it as text")
    if sorted(data["names"]) != list(range(data["nc"])):
        raise DS2D2Error(
            f"data={path}: classes are numbered {sorted(data['names'])}; number them 0 to {data['nc'] - 1}"
        )
    channels = data["channels"]
    if type(channels) is not int or not 1 <= channels <= _MOST_CHANNELS:
        raise DS2D2Error(f"data={path}: channels={channels} is not valid; write a whole number, such as 'channels: 3'")
    if "kpt_shape" in data:
        check_keypoint_shape(path, data)
    for name in SPLITS:
        for entry in [data[name]] if isinstance(data.get(name), str) else data.get(name) or []:
            refuse_unusable(entry)


def load_training_data(
    path: str, task: str, split: str = "val", single_cls: bool = False, classes: int | Sequence[int] | None = None
) -> dict[str, Any]:
    """Read and check a data set for training. It must have usable images and labels.

    Args:
        path (str): The data YAML, as returned by `resolve_data`.
        task (str): Ultralytics' name of the task.
        split (str): The split for evaluation.
        single_cls (bool): Whether all classes count as one.
        classes (int | Sequence[int] | None): Classes to train on, by number. None means all.

    Returns:
        (dict[str, Any]): The data set, as described by Ultralytics.

    Raises:
        DS2D2Error: As for `load_data`, and if the training set or that split has no images or no objects: without
            objects in that split, no epoch can be chosen and every AP is 0.
    """
    data = load_data(path, split, single_cls)
    keys = {"training": "train", "validation": split}
    images = {name: images_of_split(data.get(key)) for name, key in keys.items()}
    for name, key in reversed(keys.items()):
        _check_images(path, name, data.get(key), images[name], key)
    if task == "pose":
        check_keypoint_shape(path, data)
    for name in keys:
        labels = [Path(label) for label in img2label_paths([str(image) for image in images[name]])]
        if not any(label.is_file() and label.stat().st_size for label in labels):
            raise DS2D2Error(
                f"data={path}: none of the {len(labels)} {name} images has objects; write label files, such as "
                f"{labels[0]}"
            )
    for name, files in images.items():
        if (complaint := _first_problem(path, files, data, task, single_cls)) is not None:
            raise DS2D2Error(
                f"data={path}: none of the {len(files)} {name} images can be used, {shorten(complaint, 300)}; "
                f"run 'ds2d2 check data={path}' for a list"
            )
        if classes is not None and not _has_class(files, data, task, single_cls, classes):
            raise DS2D2Error(
                f"data={path}: none of the {len(files)} {name} images has an object of classes={classes}; pass numbers "
                "of classes that have some, or leave classes= out"
            )
    warn_of_depth(path, images["training"])
    return data


def count_training_images(data: Mapping[str, Any], fraction: Any, task: str, single_cls: bool) -> int:
    """Return the number of training images that Ultralytics' loader can use.

    Args:
        data (Mapping[str, Any]): The data set, as described by Ultralytics.
        fraction (Any): Ultralytics' argument `fraction`: a share, a number of images, or one of these for each split.
        task (str): Ultralytics' name of the task.
        single_cls (bool): Whether all classes count as one.

    Returns:
        (int): Number of images.
    """
    share = get_split_fraction(fraction, "train")
    images = images_of_split(data["train"])
    images = images[: share if isinstance(share, int) else max(1, round(len(images) * share))]
    return sum(not isinstance(usable_labels(image, data, task, single_cls), str) for image in images)


def check_keypoint_shape(path: str | Path, data: Mapping[str, Any]) -> None:
    """Refuse a data set without a valid shape of keypoints.

    Args:
        path (str | Path): The data YAML.
        data (Mapping[str, Any]): The data set, as described by Ultralytics.

    Raises:
        DS2D2Error: If `kpt_shape` is missing, or is not a number of keypoints and of values per keypoint, 2 or 3.
    """
    if "kpt_shape" not in data:
        raise DS2D2Error(
            f"data={path}: the line 'kpt_shape:' is missing; write the number of keypoints and of values per keypoint, "
            "for example 'kpt_shape: [17, 3]'"
        )
    shape = data["kpt_shape"]
    if not _is_keypoint_shape(shape):
        raise DS2D2Error(
            f"data={path}: kpt_shape={shape}: expected the number of keypoints and of values per keypoint, 2 or 3, for "
            "example 'kpt_shape: [17, 3]'"
        )


def _check_images(path: str, name: str, entries: Any, images: Sequence[Path], split: str) -> None:
    """Refuse a split without images, or with a list of images that do not exist."""
    if not images:
        empty = f"the {name} set {entries} has no images; put some there, or correct '{split}:' in the YAML"
        raise DS2D2Error(f"data={path}: {missing_images(path, [split]) or empty}")
    refuse_missing_images(path, name, entries, images)


def refuse_missing_images(path: str, name: str, entries: str | Sequence[str], images: Sequence[Path]) -> None:
    """Refuse images of lists that Ultralytics cannot read, in place of its error.

    Args:
        path (str): The data YAML.
        name (str): What the images are, such as `training`.
        entries (str | Sequence[str]): The split's entry in the checked data YAML.
        images (Sequence[Path]): Its images, at least one.

    Raises:
        DS2D2Error: If none of them exists, or they are named without a folder.
    """
    if not any(image.is_file() for image in images):
        advice = lists_elsewhere(entries, images)
        raise DS2D2Error(
            f"data={path}: none of the {len(images)} {name} images exists, for example {images[0]}; {advice}"
        )
    if not Path(img2label_paths([str(images[0])])[0]).parent.name:
        raise DS2D2Error(
            f"data={path}: the list of {name} images names {images[0]} without a folder, which Ultralytics cannot "
            f"read; write its whole path, or ./{images[0]} if the list lies beside it"
        )


def _is_keypoint_shape(shape: object) -> bool:
    if not isinstance(shape, (list, tuple)) or [type(number) for number in shape] != [int, int]:
        return False
    return 1 <= shape[0] <= _MOST_KEYPOINTS and shape[1] in {2, 3}


def _first_problem(
    path: str, images: Sequence[Path], data: Mapping[str, Any], task: str, single_cls: bool
) -> str | None:
    """Return the problem of the first image if Ultralytics can use no image with objects. Otherwise None.

    The search stops at the first usable image with objects.

    Raises:
        DS2D2Error: If the labels of that image are boxes but the task needs more, or its pixels cannot be read.
    """
    reason = ""
    for image in images:
        labels = usable_labels(image, data, task, single_cls)
        if isinstance(labels, str):
            reason = reason or labels
        elif len(labels.boxes):
            if task in {"obb", "segment"} and not labels.polygons:
                (file,) = img2label_paths([str(image)])
                what = "the four corners" if task == "obb" else "the outline"
                raise DS2D2Error(
                    f"data={path}: {file} holds boxes, task={task} needs {what} of each object; label them, or pass "
                    "models for task=detect"
                )
            facts = image_facts(image, data["channels"])
            if facts.rejected:
                raise DS2D2Error(
                    f"{image}: cannot be used, {facts.detail}; 'ds2d2 check data={path}' lists all such images"
                )
            return None
    return reason or "no label file has an object"


def _has_class(
    images: Sequence[Path], data: Mapping[str, Any], task: str, single_cls: bool, classes: int | Sequence[int]
) -> bool:
    """Return whether an image has an object of one of the classes. Ultralytics leaves out the objects of others."""
    found = (usable_labels(image, data, task, single_cls) for image in images)
    return any(not isinstance(labels, str) and np.isin(labels.classes, classes).any() for labels in found)


def _announce_download(data: str) -> None:
    """Print the downloads of a data YAML. Refuse code in it, unless the YAML ships with a package.

    Raises:
        DS2D2Error: If Ultralytics would run code from the YAML.
    """
    path = Path(check_file(data))
    script = YAML.load(path).get("download")
    if not isinstance(script, str):
        return
    shipped = path.resolve().is_relative_to(ROOT) or is_shipped(path)
    if not shipped and not script.lower().startswith(("http://", "https://")):
        raise DS2D2Error(
            f"data={data}: its images are missing, and its download: entry is code, which is not run here; read the "
            "code, and run it yourself"
        )
    LOGGER.info(f"{colorstr('DS2D2:')} {path} downloads its images: {shorten(script, 200)}")
