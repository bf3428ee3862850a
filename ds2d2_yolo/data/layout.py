"""Which layout a folder has, found out by looking: DIOR, DIOR-R, DOTA, COCO JSON or plain PASCAL VOC."""

from __future__ import annotations

import heapq
import json
import mmap
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from ds2d2_yolo.data.annotations import Account, Reader
from ds2d2_yolo.data.classes import DIOR_CLASSES, DOTA_ADDED_CLASSES
from ds2d2_yolo.data.formats.coco import COCOReader
from ds2d2_yolo.data.formats.dota import DOTAReader
from ds2d2_yolo.data.formats.files import IMAGE_SUFFIXES
from ds2d2_yolo.data.formats.voc import VOCReader
from ds2d2_yolo.errors import DS2D2Error

LAYOUTS: tuple[str, ...] = ("dior", "dior-r", "dota", "coco", "voc")
"""What `layout=` takes."""

SPLITS: tuple[str, ...] = ("train", "val", "test")
"""The splits that a converted data set can have."""

_EXPECTED = (
    "expected DIOR (Annotations/Horizontal Bounding Boxes/*.xml, ImageSets/Main/*.txt, JPEGImages-trainval), "
    "DOTA (train/images, train/labelTxt/*.txt, or images, labelTxt), "
    "COCO (trainval.json, test.json beside folders of images), "
    "or VOC (Annotations/*.xml, ImageSets/Main/*.txt, JPEGImages)"
)
_DEPTH = 4  # folders below the source; DOTA's labels lie deepest: train/labelTxt-v1.5/DOTA-v1.5_train
_SAMPLE = 40  # label files that are looked into


@dataclass(frozen=True)
class Layout:
    """A data set in its original layout, not read yet.

    Attributes:
        name (str): For people: `DIOR`, `DIOR-R`, `DOTA v1.0`, `COCO` or `VOC`.
        splits (Mapping[str, tuple[str, ...]]): For every split of the result those of the source that make it up.
        inputs (tuple[Path, ...]): Files, and folders of files, that the result depends on.
        open (Callable[[Account], Reader]): Makes the reader.
        notes (tuple[str, ...]): What the user should know about the choices made, one line each.
    """

    name: str
    splits: Mapping[str, tuple[str, ...]]
    inputs: tuple[Path, ...]
    open: Callable[[Account], Reader]
    notes: tuple[str, ...] = ()


def recognise(
    src: Path, task: str = "detect", splits: str = "paper", layout: str | None = None, version: str | None = None
) -> Layout:
    """Find out which layout a folder has.

    What its files hold counts, not what the folders are called: the first annotations are looked into. DIOR and DOTA
    come before COCO JSON, as files of that form beside them are made from them.

    Args:
        src (Path): The folder.
        task (str): `detect` or `obb`; of DIOR's annotations it chooses the horizontal or the oriented ones.
        splits (str): `paper`, `train-val-test`, or which splits of the source make up which of the result, such as
            `train:train+val,val:test`.
        layout (str | None): One of `LAYOUTS`, if it is not to be recognised.
        version (str | None): `1.0`, `1.5` or `2.0` of DOTA. None: by names of folders, or by the classes that occur.

    Returns:
        (Layout): What was found.

    Raises:
        DS2D2Error: If the folder has none of the layouts, or several, or not the splits or the annotations asked for.

    Example:
        >>> recognise(Path("DIOR")).name  # doctest: +SKIP
        'DIOR'
    """
    if layout is not None and layout.lower() not in LAYOUTS:
        raise DS2D2Error(f"layout={layout}: no such layout, choose {', '.join(LAYOUTS)}", 2)
    if not src.is_dir():
        advice = "unpack it and pass the folder" if src.is_file() else "pass the folder of the unpacked data set"
        raise DS2D2Error(f"src={src}: no such folder, {advice}")
    wanted = layout.lower() if layout else None
    source = _Source(src, list(_look(src)))
    xml, dota, coco = _xml_folders(source), _dota_folders(source), _coco_files(source)
    found = {
        "DIOR": [item for item in xml if item.is_dior],
        "DOTA": dota,
        "COCO": coco,
        "VOC": [item for item in xml if not item.is_dior],
    }
    if wanted is None:
        names = [name for name, items in found.items() if items]
        if len(names) == 2 and names[1] == "COCO":
            names.pop()  # made from what lies beside it
        if not names:
            raise DS2D2Error(f"src={src}: no known layout, found {source.summary()}; {_EXPECTED}")
        if len(names) > 1:
            raise DS2D2Error(
                f"src={src}: has the layouts of {' and '.join(names)}, say which with layout=, or pass a folder of one"
            )
        wanted = names[0].lower()
    notes = []
    if coco and wanted != "coco":
        notes.append(f"{coco[0].name} is not read: layout=coco converts COCO JSON")
    if version is not None and wanted != "dota":
        raise DS2D2Error(f"version={version}: only DOTA has versions, leave it out", 2)
    if wanted == "dota":
        return _dota(source, dota, splits, version, notes)
    if wanted == "coco":
        return _coco(source, coco, task, splits, notes)
    return _voc(source, xml, wanted, task, splits, notes)


# ------------------------------------------------------------------------------------------------- looking


@dataclass
class _Folder:
    """What lies in one folder: the first names, sorted, of each kind of file, and how many there are."""

    path: Path
    first: dict[str, list[str]] = field(default_factory=dict)
    count: dict[str, int] = field(default_factory=dict)


@dataclass
class _Source:
    root: Path
    folders: list[_Folder]

    def having(self, kind: str) -> list[_Folder]:
        """Folders in which files of a kind lie."""
        return [folder for folder in self.folders if folder.count.get(kind)]

    def words(self, path: Path) -> str:
        """Path below the source in lower case, of which parts are compared."""
        return "/" + path.relative_to(self.root).as_posix().lower()

    def summary(self) -> str:
        """Say in a few words what was found."""
        filled = [folder for folder in self.folders if folder.count]
        shown = [
            f"{folder.path.relative_to(self.root).as_posix()}/ ({_counts(folder)})"
            for folder in heapq.nlargest(4, filled, key=lambda folder: sum(folder.count.values()))
        ]
        return ", ".join(shown) or "no files"


def _counts(folder: _Folder) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in folder.count.items())


def _look(folder: Path, depth: int = _DEPTH) -> Iterator[_Folder]:
    names: dict[str, list[str]] = {}
    below = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith((".", "__MACOSX")):
                    continue
                if entry.is_dir():
                    below.append(entry.name)
                else:
                    names.setdefault(_kind_of(entry.name), []).append(entry.name)
    except OSError as error:
        raise DS2D2Error(f"{folder}: this folder cannot be read ({error.strerror or error})") from error
    counts = {kind: len(found) for kind, found in sorted(names.items())}
    # Not the first ones alone: neighbours show the same scene, and only some of its classes.
    chosen = {kind: sorted(found)[:: max(1, len(found) // _SAMPLE)][:_SAMPLE] for kind, found in names.items()}
    yield _Folder(folder, chosen, counts)
    if depth:
        for name in sorted(below):
            yield from _look(folder / name, depth - 1)


def _kind_of(name: str) -> str:
    suffix = Path(name).suffix.lower()
    if suffix in IMAGE_SUFFIXES:
        return "images"
    return suffix[1:] if suffix in (".xml", ".txt", ".json", ".zip") else "other files"


def _head(path: Path, size: int = 1 << 16) -> str:
    try:
        with path.open("rb") as file:
            return file.read(size).decode("utf-8", errors="replace")
    except OSError as error:
        raise DS2D2Error(f"{path}: cannot be read ({error.strerror or error})") from error


def _role_of(words: str) -> str | None:
    """Which split a name stands for.

    Example:
        >>> _role_of("instances_train2017"), _role_of("JPEGImages-trainval"), _role_of("labelTxt")
        ('train', 'trainval', None)
    """
    roles = re.findall(r"(?<![a-z])(trainval|train|val|test)(?![a-z])", words.lower())
    return roles[-1] if roles else None


# -------------------------------------------------------------------------------------------------- splits


def _assign(
    found: Mapping[str, str | None], wish: str, src: Path, unite: bool, scored: bool = True
) -> dict[str, tuple[str, ...]]:
    """Say which splits of the source make up which of the result.

    Args:
        found (Mapping[str, str | None]): Role of every split of the source.
        wish (str): What the user asked for.
        src (Path): For messages.
        unite (bool): Whether several splits can make up one.
        scored (bool): Whether the labels of test are published, so that it can be evaluated on.
    """
    shown = ", ".join(found)
    if ":" in wish:
        return _assign_as_told(found, wish, src, unite)
    if wish not in ("paper", "train-val-test"):
        raise DS2D2Error(f"splits={wish}: expected paper, train-val-test, or such as train:trainval,val:test", 2)
    by_role: dict[str, list[str]] = {}
    for name, role in found.items():
        by_role.setdefault(role or "train", []).append(name)
    for role, names in by_role.items():
        if len(names) > 1:
            raise DS2D2Error(
                f"src={src}: {' and '.join(names)} could both be {role}, say which with splits=, such as "
                f"splits=train:{names[0]}"
            )
    plain: dict[str, tuple[str, ...]] = {split: (by_role[split][0],) for split in SPLITS if split in by_role}
    if wish == "train-val-test":
        if "trainval" in by_role and "train" not in plain:
            raise DS2D2Error(f"splits={wish}: {src} has only {shown}; splits=paper trains on trainval")
        return plain
    if "test" in by_role and "trainval" in by_role:
        return {"train": (by_role["trainval"][0],), "val": plain["test"]}
    if unite and {"train", "val", "test"} <= set(by_role):
        return {"train": plain["train"] + plain["val"], "val": plain["test"]}
    if "trainval" in by_role and "train" not in plain:
        plain["train"] = (by_role["trainval"][0],)
    if "val" not in plain and scored and "test" in plain:
        plain["val"] = plain.pop("test")
    return {split: plain[split] for split in SPLITS if split in plain}


def _assign_as_told(
    found: Mapping[str, str | None], wish: str, src: Path, unite: bool, scored: bool = True
) -> dict[str, tuple[str, ...]]:
    assigned: dict[str, tuple[str, ...]] = {}
    for part in wish.split(","):
        split, _, names = (word.strip() for word in part.partition(":"))
        made_of = tuple(name.strip() for name in names.split("+"))
        if split not in SPLITS or split in assigned:
            raise DS2D2Error(f"splits={wish}: '{part}', expected train:, val: and test: once each", 2)
        for name in made_of:
            if name not in found:
                raise DS2D2Error(f"splits={wish}: {src} has no split '{name}', only {', '.join(found)}", 2)
        if len(made_of) > 1 and not unite:
            raise DS2D2Error(f"splits={wish}: '{part}', splits of this layout cannot be united, name one", 2)
        assigned[split] = made_of
    return assigned


# ------------------------------------------------------------------------------------------- DIOR and VOC


@dataclass
class _XMLFolder:
    path: Path
    oriented: bool
    is_dior: bool


def _xml_folders(source: _Source) -> list[_XMLFolder]:
    found = []
    for folder in source.having("xml"):
        heads = [_head(folder.path / name) for name in folder.first["xml"]]
        heads = [head for head in heads if "<annotation" in head]
        if heads:
            names = set(re.findall(r"<name>\s*([^<]*?)\s*</name>", "".join(heads)))
            named_so = re.search(r"(horizontal|oriented) bounding boxes", source.words(folder.path)) is not None
            oriented = any("<robndbox>" in head for head in heads)
            found.append(_XMLFolder(folder.path, oriented, named_so or (bool(names) and names <= set(DIOR_CLASSES))))
    return found


def _voc(source: _Source, xml: Sequence[_XMLFolder], wanted: str, task: str, splits: str, notes: list[str]) -> Layout:
    oriented = wanted == "dior-r" or task == "obb"
    fitting = [item for item in xml if item.oriented == oriented]
    if not fitting and not oriented and xml:
        fitting, oriented = list(xml), True  # the hulls of oriented boxes are horizontal ones
    kind = "oriented" if oriented else "horizontal"
    if not fitting:
        raise DS2D2Error(
            f"src={source.root}: has no {kind} annotations (*.xml with {'robndbox' if oriented else 'bndbox'}), "
            f"found {source.summary()}"
        )
    if len(fitting) > 1:
        shown = " and ".join(item.path.relative_to(source.root).as_posix() for item in fitting)
        raise DS2D2Error(f"src={source.root}: has {kind} annotations in {shown}, pass the folder of one data set")
    annotations = fitting[0].path
    dior = wanted in ("dior", "dior-r")
    lists = _lists(source)
    assigned = _assign({name: _role_of(name) for name in lists}, splits, source.root, unite=True) if lists else {}
    if not lists and ":" in splits:
        raise DS2D2Error(f"splits={splits}: {source.root} has no lists (ImageSets/Main/train.txt, ...)", 2)
    if not lists:
        notes.append("no ImageSets/Main/*.txt: all images become the split train")
    images = _image_folders(source)
    files = {split: [lists[name] for name in names] for split, names in assigned.items()} or {"train": []}
    name = ("DIOR-R" if oriented else "DIOR") if dior else "VOC"
    if name == "DIOR-R" and task == "detect":
        notes.append("oriented annotations, of which the hulls are taken")

    def open_reader(account: Account) -> Reader:
        classes = DIOR_CLASSES if dior else None
        return VOCReader(
            annotations, images, files, account, source.root, classes, oriented, name, first_pixel=0 if dior else 1
        )

    inputs = (annotations, *images, *sorted({path for paths in files.values() for path in paths}))
    return Layout(name, assigned or {"train": ("all",)}, inputs, open_reader, tuple(notes))


def _lists(source: _Source) -> dict[str, Path]:
    """The lists of the splits by name; those for detection where there are others, too."""
    folders = [
        folder.path
        for folder in source.having("txt")
        if any((folder.path / f"{name}.txt").is_file() for name in ("train", "val", "test", "trainval"))
    ]
    folders = [path for path in folders if path.name.lower() == "main"] or folders
    if len(folders) > 1:
        shown = " and ".join(path.relative_to(source.root).as_posix() for path in folders)
        raise DS2D2Error(f"src={source.root}: lists of splits in {shown}, pass the folder of one data set")
    names = ("train", "val", "trainval", "test")
    return {name: folder / f"{name}.txt" for folder in folders for name in names if (folder / f"{name}.txt").is_file()}


def _image_folders(source: _Source) -> list[Path]:
    """Folders of the images; not those of VOC's masks, which bear the same names."""
    folders = [folder.path for folder in source.having("images")]
    for pattern in (r"/jpegimages[^/]*", r"/(images?|imgs?)(?![a-z])[^/]*"):
        named_so = [path for path in folders if re.search(pattern, source.words(path))]
        if named_so:
            return named_so
    return folders


# --------------------------------------------------------------------------------------------------- DOTA


def _dota_folders(source: _Source) -> list[Path]:
    found = [
        folder.path
        for folder in source.having("txt")
        if any(_is_dota(_head(folder.path / name, 4096)) for name in folder.first["txt"])
    ]
    # A folder of which all images are empty, or all files are malformed, lies as the others do.
    shapes = {_without_role(source.words(path)) for path in found}
    found = [folder.path for folder in source.having("txt") if _without_role(source.words(folder.path)) in shapes]
    # DOTA v1.5 brings the hulls of its boxes along, in the same format.
    return [path for path in found if "hbb" not in path.name.lower()] or found


def _without_role(words: str) -> str:
    return re.sub(r"(?<![a-z])(train|val|test)(?![a-z])", "", words)


def _is_dota(head: str) -> bool:
    lines = (line for line in head.splitlines() if line.strip() and not line.lower().startswith(("imagesource", "gsd")))
    number = r"[+-]?[\d.]+(?:e[+-]?\d+)?"
    return re.match(rf"\s*(?:{number}\s+){{8}}[a-z][\w-]*(\s+\d+)?\s*$", next(lines, ""), re.IGNORECASE) is not None


def _dota(source: _Source, folders: Sequence[Path], splits: str, version: str | None, notes: list[str]) -> Layout:
    if not folders:
        raise DS2D2Error(
            f"src={source.root}: has no labels of DOTA (*.txt with x1 y1 ... x4 y4 class difficulty), "
            f"found {source.summary()}"
        )
    if version is not None and version not in DOTA_ADDED_CLASSES:
        raise DS2D2Error(f"version={version}: no such version of DOTA, choose {', '.join(DOTA_ADDED_CLASSES)}", 2)
    stated = {path: _stated_version(source.words(path)) for path in folders}
    if version is not None and version in stated.values():
        folders = [path for path in folders if stated[path] == version]
    labels: dict[str, Path] = {}
    for path in folders:
        split = _role_of(source.words(path)) or "train"
        if split in labels:
            shown = " and ".join(item.relative_to(source.root).as_posix() for item in (labels[split], path))
            raise DS2D2Error(
                f"src={source.root}: labels of {split} in {shown}, say which with version=, or pass one data set"
            )
        labels[split] = path
    if version is None:
        names = {stated[path] for path in labels.values()} - {None}
        version = names.pop() if len(names) == 1 else _occurring_version(list(labels.values()))
        assert version is not None
        notes.append(f"taken for version {version}, version= says otherwise")
    images = _dota_images(source, labels, notes)
    found: dict[str, str | None] = {split: split for split in SPLITS if split in images}
    found |= {split: split for split in labels if split in images}
    assigned = _assign(found, splits, source.root, unite=False, scored=False)
    pairs = {split: (images[names[0]], labels.get(names[0])) for split, names in assigned.items()}
    inputs = tuple(path for pair in pairs.values() for path in pair if path is not None)
    return Layout(
        f"DOTA v{version}",
        assigned,
        inputs,
        partial(DOTAReader, pairs, root=source.root, version=version),
        tuple(notes),
    )


def _stated_version(words: str) -> str | None:
    stated = re.findall(r"(?<![\d.])v?([12]\.[05])(?![\d.])", words)
    return stated[-1] if stated and stated[-1] in DOTA_ADDED_CLASSES else None


def _occurring_version(folders: Sequence[Path]) -> str:
    """The first version that has all classes which occur."""
    added = {name for names in DOTA_ADDED_CLASSES.values() for name in names}
    pattern = re.compile(rf"\s({'|'.join(map(re.escape, sorted(added)))})(?:\s|$)".encode())
    occurring: set[str] = set()
    for folder in folders:
        for path in folder.glob("*.txt"):
            try:
                occurring.update(name.decode() for name in pattern.findall(path.read_bytes()))
            except OSError:
                continue  # told when it is read
    return next(version for version, names in DOTA_ADDED_CLASSES.items() if occurring <= set(names))


def _dota_images(source: _Source, labels: Mapping[str, Path], notes: list[str]) -> dict[str, Path]:
    """Folders of the images by split; with labels or, of test, without."""
    images: dict[str, Path] = {}
    for folder in source.having("images"):
        split = _role_of(source.words(folder.path)) or "train"
        if split not in labels and split != "test":
            where = folder.path.relative_to(source.root).as_posix()
            notes.append(f"{where} with {folder.count['images']} image(s) is not read: no labels")
            continue
        if split in images:
            shown = " and ".join(path.relative_to(source.root).as_posix() for path in (images[split], folder.path))
            raise DS2D2Error(
                f"src={source.root}: images of {split} in {shown}, put those of a split into one folder (links will do)"
            )
        images[split] = folder.path
    missing = [split for split in labels if split not in images]
    if missing:
        raise DS2D2Error(
            f"src={source.root}: no images for the labels in {labels[missing[0]].relative_to(source.root).as_posix()}, "
            f"expected a folder such as {missing[0]}/images; found {source.summary()}"
        )
    return images


# --------------------------------------------------------------------------------------------------- COCO


def _coco_files(source: _Source) -> list[Path]:
    pattern = re.compile(r'\s*\{\s*"(info|licenses|images|annotations|categories|type)"\s*:')
    return [
        path
        for folder in source.having("json")
        for path in (folder.path / name for name in folder.first["json"])
        if pattern.match(_head(path, 4096).removeprefix("\ufeff"))
    ]


def _coco(source: _Source, files: Sequence[Path], task: str, splits: str, notes: list[str]) -> Layout:
    if not files:
        raise DS2D2Error(f"src={source.root}: has no COCO JSON, found {source.summary()}")
    by_name = {path.stem: path for path in files}
    if len(by_name) < len(files):
        raise DS2D2Error(f"src={source.root}: has JSON files of the same name, pass the folder of one data set")
    assigned = _assign({name: _role_of(name) for name in by_name}, splits, source.root, unite=False)
    folders = [folder.path for folder in source.folders]
    used = {split: by_name[names[0]] for split, names in assigned.items()}
    pairs = {split: (path, _folder_of(path, folders, source)) for split, path in used.items()}
    notes += [f"{path.name} is not read: in no split" for path in files if path not in used.values()]
    inputs = tuple(dict.fromkeys(path for pair in pairs.values() for path in pair))
    return Layout(
        "COCO", assigned, inputs, partial(COCOReader, pairs, root=source.root, oriented=task == "obb"), tuple(notes)
    )


def _folder_of(path: Path, folders: Sequence[Path], source: _Source) -> Path:
    """The folder in which most of the first images of a JSON file lie; if none does, the one that bears its name."""
    names = _first_file_names(path)
    present = {
        folder: sum(os.path.isfile(folder / name) for name in names)  # noqa: PTH113 - `is_file` raises for names that are too long
        for folder in folders
    }
    role = _role_of(path.stem)
    alike = {folder: role is not None and _role_of(source.words(folder)) == role for folder in folders}
    best = max(folders, key=lambda folder: (present[folder], alike[folder]))
    return best if present[best] or alike[best] else source.root


def _first_file_names(path: Path) -> list[str]:
    names: list[str] = []
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        for found in re.finditer(rb'"file_name"\s*:\s*("(?:[^"\\]|\\.)*")', content):
            try:
                names.append(json.loads(found.group(1)))
            except ValueError:
                continue  # told when it is read
            if len(names) == _SAMPLE:
                break
    return names
