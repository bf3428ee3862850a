"""Assigns the splits of a source to the splits of the result."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from ds2d2_yolo.data.formats.rules import FileIndex, Part, file_names
from ds2d2_yolo.data.layouts.source import Source, role_of
from ds2d2_yolo.errors import DS2D2Error

SPLITS: tuple[str, ...] = ("train", "val", "test")
"""The splits that a converted data set can have."""

Assignment = dict[str, tuple[str, ...]]
"""For every split of the result, the splits of the source in it."""

Names = Literal["both", "labels"]

_SPLIT = re.compile("trainval|train(ing)?|val(id(ation)?)?|test(ing)?|default")  # `default` is CVAT's


def lists_of(source: Source, apart: Sequence[Path] = ()) -> dict[str, Path]:
    """Return the lists of the splits by name. If there are lists for other tasks, only those for detection.

    Args:
        source (Source): The data set.
        apart (Sequence[Path]): Folders whose text files are not lists.

    Raises:
        DS2D2Error: If there are lists in several folders.
    """
    by_folder: dict[Path, dict[str, Path]] = {}
    for folder in (folder for folder in source.having("txt") if folder.path not in apart):
        for path in sorted(folder.path.iterdir()):
            if path.suffix.lower() == ".txt" and _SPLIT.fullmatch(path.stem.lower()) and path.is_file():
                by_folder.setdefault(folder.path, {})[path.stem] = path
    main = {path: lists for path, lists in by_folder.items() if path.name.lower() == "main"} or by_folder
    if len(main) > 1:
        shown = " and ".join(map(source.below, main))
        example = source.root / next(iter(main)).relative_to(source.root).parts[0]
        raise DS2D2Error(
            f"src={source.root}: lists of splits in {shown}, pass the folder of one data set, such as src={example}"
        )
    lists = next(iter(main.values()), {})
    order = ("train", "val", "trainval", "test", None)
    return {name: lists[name] for name in sorted(lists, key=lambda name: order.index(role_of(name)))}


def with_published(parts: Mapping[str, Part], suffix: str) -> dict[str, Part]:
    """Return the parts; a test split of which no image has a label file becomes one without labels.

    Args:
        parts (Mapping[str, Part]): The splits of the source.
        suffix (str): Suffix of the label files, lower case.
    """
    result = dict(parts)
    for split, part in parts.items():
        names: Iterable[str] = ()
        if role_of(split) == "test" and part.names == "images":
            names = (name for folder in part.images for name in file_names(folder))
        elif role_of(split) == "test" and isinstance(part.names, Path) and os.access(part.names, os.R_OK):
            names = part.names.read_bytes().decode("utf-8", "replace").splitlines()
        names = [name.strip() for name in names]
        if names and not any(map(FileIndex(part.labels, [suffix]).find, names)):
            result[split] = replace(part, labels=())
    return result


def is_scored(parts: Mapping[str, Part]) -> bool:
    """Whether there is a test split with labels."""
    return any(part.labels for split, part in parts.items() if role_of(split) == "test")


def parts_by_folder(source: Source, labels: Sequence[Path], images: Sequence[Path], names: Names) -> dict[str, Part]:
    """Return the splits of a source without lists, by the names of its folders.

    Args:
        source (Source): The data set.
        labels (Sequence[Path]): Its folders of label files.
        images (Sequence[Path]): Its folders of images.
        names (Names): Source of the names of images, if labels and images are both divided into splits, or neither.

    Returns:
        (dict[str, Part]): By split. A part has no labels if only a folder of images has the name of the split.
    """
    by_labels, by_images = source.by_role(labels), source.by_role(images)
    if len(by_labels) > 1 and None in by_labels:
        by_labels["train"] = by_labels.get("train", ()) + by_labels.pop(None)
    parts: dict[str, Part] = {}
    if set(by_labels) == {None} and set(by_images) - {None}:
        by_images["train"] = by_images.get("train", ()) + by_images.pop(None, ())
        return {str(role): Part(tuple(labels), folders, "images") for role, folders in by_images.items() if folders}
    for role, folders in by_labels.items():
        # A folder of images that several splits share also has images of the other splits.
        shared = len(by_labels) > 1 and role not in by_images
        own = by_images.get(role) or by_images.get(None) or ()
        parts[role or "train"] = Part(folders, own, "labels" if shared else names)
    for role, folders in by_images.items():
        if role and role not in parts:
            parts[role] = Part((), folders, "images")
    return parts


def only_labelled(source: Source, parts: Mapping[str, Part], notes: list[str]) -> dict[str, Part]:
    """Return the parts with labels, and test also without. Add notes about images that are not read."""
    for role, part in parts.items():
        if not part.labels and role != "test":
            number = sum(folder.count["images"] for folder in source.having("images") if folder.path in part.images)
            notes.append(f"{source.below(part.images[0])} with {number} image(s) is not read: no labels")
    return {role: part for role, part in parts.items() if part.labels or role == "test"}


def assign_splits(
    found: Mapping[str, str | None], wish: str, src: Path, scored: bool, unite: bool = False
) -> Assignment:
    """Assign the splits of the source to the splits of the result.

    Args:
        found (Mapping[str, str | None]): Role of every split of the source, such as `trainval`; None means train.
        wish (str): The user's `splits=`: `paper`, `train-val-test`, or such as `train:train+val,val:test`.
        src (Path): The source, for messages.
        scored (bool): Whether the labels of test are published, so that a model can be evaluated on it.
        unite (bool): Whether papers train on train and val together, if there is a test split.

    Returns:
        (Assignment): Splits by name.

    Raises:
        DS2D2Error: If the source does not have these splits.

    Example:
        >>> assign_splits({"trainval": "trainval", "test": "test"}, "paper", Path("DIOR"), scored=True)
        {'train': ('trainval',), 'val': ('test',)}
    """
    if ":" in wish:
        return _assign_as_written(found, wish, src)
    if wish not in ("paper", "train-val-test"):
        raise DS2D2Error(f"splits={wish}: expected paper, train-val-test, or such as train:trainval,val:test", 2)
    by_role = _by_role(found, src)
    if wish == "paper":
        return _assign_as_in_papers(by_role, scored, unite)
    if "trainval" in by_role and "train" not in by_role:
        raise DS2D2Error(f"splits={wish}: {src} has only {', '.join(found)}; splits=paper trains on trainval")
    return {split: (by_role[split],) for split in SPLITS if split in by_role}


def _by_role(found: Mapping[str, str | None], src: Path) -> dict[str, str]:
    by_role: dict[str, list[str]] = {}
    for name, role in found.items():
        by_role.setdefault(role or "train", []).append(name)
    for role, names in by_role.items():
        if len(names) > 1:
            splits = {"trainval": "train"}
            chosen = {splits.get(role, role): listed[0] for role, listed in by_role.items()}
            example = ",".join(f"{split}:{name}" for split, name in chosen.items())
            raise DS2D2Error(
                f"src={src}: {' and '.join(names)} could both be {role}, choose one with splits=, such as "
                f"splits={example}; '+' joins several"
            )
    return {role: name for role, (name,) in by_role.items()}


def _assign_as_in_papers(by_role: Mapping[str, str], scored: bool, unite: bool) -> Assignment:
    """Train on train and val, evaluate on test, as far as these splits and their labels exist."""
    if scored and {"trainval", "test"} <= set(by_role):
        return {"train": (by_role["trainval"],), "val": (by_role["test"],)}
    if scored and unite and set(SPLITS) <= set(by_role):
        return {"train": (by_role["train"], by_role["val"]), "val": (by_role["test"],)}
    plain = {split: (by_role[split],) for split in SPLITS if split in by_role}
    if "trainval" in by_role and "train" not in plain:
        plain["train"] = (by_role["trainval"],)
    if "val" not in plain and scored and "test" in plain:
        plain["val"] = plain.pop("test")
    return {split: plain[split] for split in SPLITS if split in plain}


def _assign_as_written(found: Mapping[str, str | None], wish: str, src: Path) -> Assignment:
    assigned: Assignment = {}
    for part in wish.split(","):
        split, _, names = (word.strip() for word in part.partition(":"))
        made_of = tuple(name.strip() for name in names.split("+"))
        if split not in SPLITS or split in assigned:
            raise DS2D2Error(f"splits={wish}: '{part}', expected train:, val: and test: once each", 2)
        for name in made_of:
            if name not in found:
                raise DS2D2Error(f"splits={wish}: {src} has no split '{name}', only {', '.join(found)}", 2)
        assigned[split] = made_of
    return assigned
