"""Converts a data set from its original layout to Ultralytics': images, labels, data YAML and a report."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from ultralytics.utils import LOGGER, colorstr

from ds2d2_yolo import __version__
from ds2d2_yolo.data.annotations import Account, Reader
from ds2d2_yolo.data.depth import Stretch
from ds2d2_yolo.data.formats.rules import file_names, relative
from ds2d2_yolo.data.layouts import SPLITS, Layout, recognise
from ds2d2_yolo.data.shipped import shipped_folder
from ds2d2_yolo.data.tiles import TileSettings
from ds2d2_yolo.data.writer import DatasetWriter
from ds2d2_yolo.errors import DS2D2Error, printable
from ds2d2_yolo.files import atomic_folder
from ds2d2_yolo.options import complete_options, usable_path

MANIFEST = "conversion.json"
"""Name of the report in the folder of a converted data set."""

_FORMAT = 3  # of report and folder; raised when the same source and options give another result
_TILING = ("overlap", "scales", "min_visible", "empty", "cut")


@dataclass(frozen=True)
class Conversion:
    """A converted data set.

    Attributes:
        folder (Path): Its folder, absolute.
        manifest (dict[str, Any]): The content of `conversion.json`.
        made (bool): False if it existed already.
    """

    folder: Path
    manifest: dict[str, Any]
    made: bool

    @property
    def data(self) -> Path:
        """The data YAML."""
        return self.folder / self.manifest["data"]


def convert_dataset(src: Path | str, out: Path | str | None = None, **options: object) -> Conversion:
    """Convert a data set into `out`, unless it exists already.

    `out` is first made under another name beside its final place, and renamed when it is complete. It has:

    - `images/<split>/`
    - `labels/<split>/` with lines `class x y width height` or, for `task=obb`, `class x1 y1 ... x4 y4`, in shares of
      the image
    - the data YAML `<name of out>.yaml`
    - the report `conversion.json`
    - `tiles.jsonl`, if images are cut

    Args:
        src (Path | str): The data set in its original layout.
        out (Path | str | None): Folder to make. None: the folder of the shipped data YAML for this data set.
        **options (object): The other options of `cfg/convert.yaml`.

    Returns:
        (Conversion): The folder and the report.

    Raises:
        DS2D2Error: If an option, the source or `out` is unsuitable. With `on_error="stop"` also at the first malformed
            file. Then nothing is written.

    Example:
        >>> convert_dataset("path/to/DIOR", "path/to/new", on_error="skip").data  # doctest: +SKIP
        PosixPath('/home/me/path/to/new/new.yaml')
    """
    chosen = complete_options("convert", {"src": str(src), "out": out and str(out), **options}, required=("src",))
    _check_choices(chosen)
    source = usable_path("src", str(src)).absolute()
    if ".." in source.parts:  # files are found by paths that begin like that of the source
        source = source.resolve()
    named = None if chosen["layout"] is None else str(chosen["layout"])
    layout = recognise(source, chosen["task"], str(chosen["splits"]), named, _version(chosen["version"]))
    LOGGER.info(f"{colorstr('DS2D2:')} {printable(f'{source} is {layout.notes[0]}')}")
    account = Account(on_error=chosen["on_error"])
    stretch = None if chosen["stretch"] is None else Stretch.of(chosen["stretch"])
    tiles = _tile_settings(chosen, options, layout)
    reader: Reader | None = None
    if not out:
        reader = layout.open(account)
        shipped = shipped_folder(layout.name, chosen["task"], reader.class_names)
        if shipped is None:
            raise DS2D2Error(
                f"out= is missing: no data YAML ships for {layout.name} with task={chosen['task']} and these classes, "
                "name the folder to be made",
                2,
            )
        out = shipped
    target = usable_path("out", str(out)).absolute()
    _check_apart(source, target)
    identity = {
        "format": _FORMAT,
        "source": {"folder": str(source), "layout": layout.name, "fingerprint": _fingerprint(layout.inputs, source)},
        "options": {
            "task": chosen["task"],
            "splits": {split: list(names) for split, names in layout.splits.items()},
            "difficult": chosen["difficult"],
            "crowd": chosen["crowd"],
            "on_error": chosen["on_error"],
            "copy": chosen["copy"],
            "stretch": stretch and str(stretch),
            "patch": tiles.patch if tiles else 0,
            **({name: chosen[name] for name in _TILING} if tiles else {}),
        },
    }
    if target.exists() or target.is_symlink():
        return Conversion(target, _check_finished(target, identity), made=False)
    with atomic_folder(target, "conversion", lambda folder: _check_finished(folder, identity)) as folder:
        reader = reader or layout.open(account)
        writer = DatasetWriter(folder, source, reader, account, chosen, tiles, stretch)
        writer.write()
        if not reader.class_names:
            raise DS2D2Error(f"src={source}: no label file has an object that can be read; label some images first")
        account.check_balance()
        notes = [*layout.notes, *account.notes(), *writer.notes()]
        manifest = {**identity, "data": f"{target.name}.yaml", **writer.report(), "notes": notes}
        _write_data_yaml(folder / manifest["data"], manifest, notes)
        (folder / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    return Conversion(target, _check_finished(target, identity), made=True)


# ------------------------------------------------------------------------------------------------- options


def _check_choices(chosen: Mapping[str, object]) -> None:
    for name, choices in {"task": ("detect", "obb"), "crowd": ("keep", "drop"), "on_error": ("stop", "skip")}.items():
        if chosen[name] not in choices:
            raise DS2D2Error(f"{name}={chosen[name]}: choose {' or '.join(choices)}", 2)
    difficult = chosen["difficult"]
    whole = isinstance(difficult, int) and not isinstance(difficult, bool) and difficult >= 0
    if difficult not in ("keep", "drop") and not whole:
        raise DS2D2Error(f"difficult={difficult}: choose keep, drop, or a whole number from 0", 2)


def _version(given: object) -> str | None:
    return None if given is None else f"{given:.1f}" if isinstance(given, (int, float)) else str(given).lstrip("v")


def _tile_settings(chosen: Mapping[str, Any], given: Mapping[str, object], layout: Layout) -> TileSettings | None:
    """Return how images are cut; None if they are not cut."""
    patch = chosen["patch"]
    if patch is None:
        patch = TileSettings.patch if layout.name.startswith("DOTA") else 0
    if patch == 0:
        idle = [name for name in _TILING if name in given]
        if idle:
            raise DS2D2Error(
                f"{idle[0]}={given[idle[0]]}: images are not cut, pass patch=1024, too, or leave it out", 2
            )
        return None
    if not all(isinstance(scale, (int, float)) for scale in chosen["scales"]):
        raise DS2D2Error(f"scales={chosen['scales']}: expected numbers, such as scales=[0.5,1.0,1.5]", 2)
    return TileSettings(patch=patch, **{name: chosen[name] for name in _TILING} | {"scales": tuple(chosen["scales"])})


def _check_apart(source: Path, target: Path) -> None:
    inner, outer = target.resolve(), source.resolve()
    if inner == outer or inner.is_relative_to(outer):
        raise DS2D2Error(f"out={target}: is inside the source {source}, choose a folder outside of it")
    if outer.is_relative_to(inner):
        raise DS2D2Error(f"out={target}: the source {source} is inside it, choose another folder")


def _fingerprint(inputs: Iterable[Path], root: Path) -> str:
    """Return a hash of names, sizes and modification times of all files that the result depends on."""
    digest = hashlib.sha256()
    for path in inputs:
        digest.update(f"{relative(path, root)}\n".encode(errors="surrogateescape"))
        folder, names = (path.parent, [path.name]) if path.is_file() else (path, sorted(file_names(path)))
        for name in names:
            status = (folder / name).stat()
            digest.update(f"{name}\0{status.st_size}\0{status.st_mtime_ns}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()


def _check_finished(folder: Path, identity: Mapping[str, Any]) -> dict[str, Any]:
    """Return the report of a folder. Raise an error if it is not the same conversion, complete."""
    advice = "remove it or choose another folder"
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise DS2D2Error(f"{folder}: exists and is not a converted data set (no {MANIFEST}), {advice}") from None
    found: dict[str, Any] = manifest if isinstance(manifest, dict) else {}
    if found.get("format") != identity["format"] or not {"options", "source", "splits"} <= set(found):
        raise DS2D2Error(f"{folder}: exists, not made by this version of ds2d2-yolo, {advice}")
    for name in identity["options"] | found["options"]:
        value, wanted = found["options"].get(name), identity["options"].get(name)
        if value != wanted:
            raise DS2D2Error(f"{folder}: exists with {name}={value} instead of {wanted}, {advice}")
    for name in ("layout", "fingerprint"):
        if found["source"].get(name) != identity["source"][name]:
            raise DS2D2Error(f"{folder}: exists, made from another source or before its files changed, {advice}")
    for split, counts in found["splits"].items():
        images = folder / "images" / split
        # Links whose images were moved or removed do not count.
        present = sum(path.exists() for path in images.iterdir()) if images.is_dir() else 0
        if present < counts["files"]:
            raise DS2D2Error(f"{folder}: has {present} of {counts['files']} images of the split {split}, {advice}")
        if counts["labels"] and not (folder / "labels" / split).is_dir():
            raise DS2D2Error(f"{folder}: has no labels of the split {split} any more, {advice}")
    if not (folder / str(found.get("data"))).is_file():
        raise DS2D2Error(f"{folder}: has no {found.get('data')} any more, {advice}")
    return found


def _write_data_yaml(path: Path, manifest: Mapping[str, Any], notes: list[str]) -> None:
    """Write the data YAML. It has no `path`: then Ultralytics takes its folder, also after a move."""
    source = manifest["source"]
    counts = {split: item["files"] for split, item in manifest["splits"].items() if item["files"]}
    # Names of folders may have characters that a YAML comment cannot have.
    place = printable(source["folder"])
    lines = [
        f"# {source['layout']}, converted by ds2d2-yolo {__version__} from {place}",
        f"# {MANIFEST} lists what was left out, with reasons.",
        "",
    ]
    for split in SPLITS:
        used = split if split in counts else next(iter(counts))
        if used == split:
            lines.append(f"{split}: images/{split} # {counts[split]} images")
        elif split != "test":  # Ultralytics requires the other two
            lines.append(f"{split}: images/{used} # the split has no images")
            notes.append(f"the split {split} has no images: {path.name} names those of {used} instead")
        if used == split and not (path.parent / "labels" / split).is_dir():
            notes.append(f"the split {split} has no labels: nothing can be measured on it")
    if manifest["deep"]["stretched"]:
        how = manifest["options"]["stretch"]
        lines.append(f"stretch: '{how}' # {manifest['deep']['stretched']} images of more than 8 bits became 8 by this")
    names = yaml.safe_dump({"names": dict(enumerate(manifest["classes"]))}, sort_keys=False, allow_unicode=True)
    path.write_text("\n".join([*lines, "", names]), encoding="utf-8")
