"""Loading of images without labels, and of images with a teacher's labels."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ds2d2_yolo.data.check import Split
from ds2d2_yolo.data.check.images import image_facts
from ds2d2_yolo.data.check.shared import images_also_in
from ds2d2_yolo.data.threads import threads
from ds2d2_yolo.errors import DS2D2Error, similar_file
from ds2d2_yolo.files import refuse_unusable
from ds2d2_yolo.loading.fingerprint import fingerprint_of_images
from ds2d2_yolo.loading.images import SPLITS, images_of_split
from ds2d2_yolo.loading.safety import refuse_unsafe_caches

SET_FILE = "unlabeled.json"
"""Name of the file that describes a set of images with a teacher's labels."""

_ENTRIES = {"inputs", "boxes", "without_boxes", "left_out", "thresholds", "precision", "sources"}
_BY_RANK = (*SPLITS[1:], "train")  # of an image that is in several splits, the first is reported


@dataclass(frozen=True)
class Unlabeled:
    """Images without labels that a student can learn from.

    Attributes:
        images (list[Path]): The images.
        left_out (dict[str, int]): Number of excluded images, by reason.
        unfinished (frozenset[Path]): Truncated JPEGs among the images. Ultralytics would repair them in place.
    """

    images: list[Path]
    left_out: dict[str, int]
    unfinished: frozenset[Path] = frozenset()

    def describe(self) -> str:
        """Return a printed text with the number of images and of excluded images."""
        without = ", ".join(f"{number:,} {reason}" for reason, number in self.left_out.items())
        return f"{len(self.images):,} images" + (f" (left out: {without})" if without else "")


@dataclass(frozen=True)
class PseudoSet:
    """Images with a teacher's labels in YOLO format, the output of a stage.

    Attributes:
        file (Path): The JSON file that describes the set.
        content (dict[str, Any]): Its content: `images`, `boxes`, `left_out`, `thresholds` by class, `sources` (paths of
            the original images by name) and more.
    """

    file: Path
    content: dict[str, Any]

    @property
    def folder(self) -> Path:
        """Folder of the images."""
        return self.file.parent / "images"

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the labels."""
        return str(self.content["labels"])


def is_set_file(value: object) -> bool:
    """Return whether `unlabeled` is the file of a set with a teacher's labels, not images."""
    return isinstance(value, (str, Path)) and Path(value).name == SET_FILE


def unlabeled_entries(value: Any, data: Mapping[str, Any]) -> list[str]:
    """Return the folders and lists of a run's unlabelled images.

    Args:
        value (Any): The argument `unlabeled`: one path, or several as a list or with commas. None or True means those
            of the data YAML, False means none.
        data (Mapping[str, Any]): The data set, as described by Ultralytics.

    Returns:
        (list[str]): Paths.

    Raises:
        DS2D2Error: If the value is True but the data YAML names no unlabelled images, or those that it names do not
            exist.

    Example:
        >>> Path("more").mkdir()
        >>> unlabeled_entries(None, {"unlabeled": "more", "path": Path()}), unlabeled_entries(False, {})
        (['more'], [])
    """
    if value is True and not data.get("unlabeled"):
        raise DS2D2Error(
            f"unlabeled=True: {data.get('yaml_file')} has no line 'unlabeled:'; add it, or pass the path of the images",
            2,
        )
    if value is False:
        return []
    root, named_in = Path(), None
    if value is None or value is True:
        value, root, named_in = data.get("unlabeled") or [], Path(data["path"]), data.get("yaml_file")
    if isinstance(value, str) and not (root / value).exists():
        value = [part.strip() for part in value.split(",") if part.strip()] or value
    entries = [value] if isinstance(value, (str, Path)) else value
    if not isinstance(entries, (list, tuple)) or not all(isinstance(entry, (str, Path)) for entry in entries):
        raise DS2D2Error(f"unlabeled={value}: expected a folder of images, or a text file with one path per line", 2)
    return _paths_of(entries, root, named_in)


def find_unlabeled(entries: Sequence[str], data: Mapping[str, Any]) -> Unlabeled:
    """Find images without labels. Exclude images of the data set and images that cannot be read.

    Args:
        entries (Sequence[str]): Folders of images, and text files with one path per line.
        data (Mapping[str, Any]): The data set, as described by Ultralytics.

    Returns:
        (Unlabeled): The images.

    Raises:
        DS2D2Error: If a path does not exist, or no image is left.
    """
    named = ",".join(entries)
    images = images_at(entries)
    splits = _splits_by_rank(data)
    _refuse_training_set(named, images, splits.get("train"))
    first: dict[tuple[int, int], Path] = {}
    for image in images:
        status = image.stat()
        first.setdefault((status.st_dev, status.st_ino), image)
    unique = list(first.values())
    left_out = Counter({"named twice": len(images) - len(unique)})
    with threads() as pool:
        elsewhere = images_also_in(unique, splits, pool)
        left_out.update(f"also in {name}" for name in elsewhere.values())
        others = [image for image in unique if image not in elsewhere]
        facts = pool.map(lambda image: image_facts(image, data["channels"], "header"), others)
    usable = [image for image, fact in zip(others, facts, strict=True) if not fact.rejected]
    unfinished = frozenset(image for image, fact in zip(others, facts, strict=True) if fact.kind == "unfinished_jpeg")
    left_out["unreadable"] = len(others) - len(usable)
    left_out = +left_out
    if not usable:
        reasons = ", ".join(f"{number:,} {reason}" for reason, number in left_out.items())
        raise DS2D2Error(
            f"unlabeled={named}: none of the {len(images):,} images is left ({reasons}); pass other images"
        )
    return Unlabeled(usable, dict(left_out), unfinished)


def fingerprint_of_unlabeled(entries: Sequence[str]) -> str:
    """Return the fingerprint of images without labels, before any are excluded. Errors are as for `find_unlabeled`."""
    return fingerprint_of_images(images_at(entries))


def read_pseudo_set(file: str | Path) -> PseudoSet:
    """Read the description of a set with a teacher's labels, and check that the labels are unchanged and safe.

    Args:
        file (str | Path): Its JSON file.

    Returns:
        (PseudoSet): The set.

    Raises:
        DS2D2Error: If it is missing or damaged, its labels have changed, or a cache of labels could run code.
    """
    path = Path(file).resolve()
    advice = "run the command again with unlabeled=path/to/images, which creates it again"
    if not path.is_file():
        raise DS2D2Error(f"unlabeled={file}: no such file; {advice}")
    try:
        content = dict(json.loads(path.read_text(encoding="utf-8")))
        if missing := _ENTRIES - content.keys():
            raise KeyError(f"without {', '.join(sorted(missing))}")
        made = PseudoSet(path, content)
        expected = made.fingerprint, int(content["images"])
        names = sorted(image.stem for image in made.folder.iterdir() if image.suffix != ".npy")
        found = fingerprint_of_labels(path.parent / "labels" / f"{name}.txt" for name in names), len(names)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DS2D2Error(f"unlabeled={file}: is missing or damaged ({error}); {advice}") from error
    if found != expected:
        raise DS2D2Error(f"unlabeled={file}: its images or labels were changed; {advice}")
    refuse_unsafe_caches(f"unlabeled={file}", [str(made.folder)])
    return made


def refuse_shared_images(made: PseudoSet, data: Mapping[str, Any]) -> None:
    """Refuse a set that shares images with the data set. It was made for another data set or another split of it.

    Args:
        made (PseudoSet): The set.
        data (Mapping[str, Any]): The data set, as described by Ultralytics.

    Raises:
        DS2D2Error: If an image of the set is also in a split, as the same file or with the same bytes.
    """
    images = images_of_split(str(made.folder))
    with threads() as pool:
        elsewhere = Counter(images_also_in(images, _splits_by_rank(data), pool).values())
    if elsewhere:
        shared = ", ".join(f"{number:,} also in {name}" for name, number in elsewhere.items())
        raise DS2D2Error(
            f"unlabeled={made.file}: {elsewhere.total():,} of its {len(images):,} images are in data="
            f"{data.get('yaml_file')} ({shared}); pass unlabeled=path/to/images, which leaves them out"
        )


def fingerprint_of_labels(files: Iterable[Path]) -> str:
    """Return a fingerprint of a teacher's label files, as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.stem}\n".encode() + file.read_bytes())
    return digest.hexdigest()


def images_at(entries: Sequence[str]) -> list[Path]:
    """Return the images of folders, and of text files with one path per line.

    Args:
        entries (Sequence[str]): The folders and files.

    Returns:
        (list[Path]): Image files, including duplicates.

    Raises:
        DS2D2Error: If a path does not exist, or a list names an image that does not exist.
    """
    images: list[Path] = []
    for entry in entries:
        refuse_unusable(entry)
        if not Path(entry).exists():
            hint = similar_file("unlabeled", entry, "pass a folder of images, or a text file with one path per line")
            raise DS2D2Error(f"unlabeled={entry}: no such file or folder; {hint}")
        try:
            found = images_of_split(str(entry))
        except DS2D2Error as error:
            raise DS2D2Error(f"unlabeled={error}") from None
        if not found:
            is_list = Path(entry).is_file()
            advice = "write one path of an image per line" if is_list else "put some there, or pass another folder"
            if Path(entry).suffix.lower() in {".yaml", ".yml", ".json"}:
                advice = "pass a folder of images, or a text file with one path per line"
            raise DS2D2Error(f"unlabeled={entry}: there are no images in it; {advice}")
        if (missing := [image for image in found if not image.is_file()]) and Path(entry).is_file():
            raise DS2D2Error(
                f"unlabeled={entry}: {len(missing):,} of its {len(found):,} images do not exist, for example "
                f"{missing[0]}; correct the list, paths relative to it begin with ./"
            )
        images += [image for image in found if image.is_file()]
    return images


def _paths_of(entries: Sequence[str | Path], root: Path, data: str | None) -> list[str]:
    """Return the paths of unlabelled images. Those that a data YAML names must exist; `images_at` checks others."""
    paths = [root / Path(entry).expanduser() for entry in entries]
    for entry, path in zip(entries, paths, strict=True):
        if data is not None and not path.exists():
            raise DS2D2Error(
                f"data={data}: 'unlabeled: {entry}' is {path}, which does not exist; correct 'unlabeled:', or pass "
                "unlabeled=False"
            )
    return list(map(str, paths))


def _splits_by_rank(data: Mapping[str, Any]) -> dict[str, Split]:
    return {name: Split(images_of_split(data[name])) for name in _BY_RANK if data.get(name)}


def _refuse_training_set(named: str, images: Sequence[Path], train: Split | None) -> None:
    """Refuse images that are all in the training set."""
    labelled = {image.resolve() for image in train.images} if train else set()
    if labelled.issuperset(image.resolve() for image in images):
        raise DS2D2Error(f"unlabeled={named}: is the training set itself; pass images that have no labels yet")
