"""From a data set in its original layout to one that Ultralytics trains on: images, labels, data YAML, and a report."""

from __future__ import annotations

import glob
import hashlib
import json
import math
import os
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml
from PIL import Image
from ultralytics.data.utils import exif_size

from ds2d2_yolo import __version__
from ds2d2_yolo.data.annotations import Account, AnnotatedImage, Annotation, Reader
from ds2d2_yolo.data.formats.files import file_names, relative
from ds2d2_yolo.data.formats.geometry import place
from ds2d2_yolo.data.layouts import SPLITS, Layout, recognise
from ds2d2_yolo.data.shipped import shipped_folder
from ds2d2_yolo.data.tiles import Task, TileMapWriter, TileSettings, write_tiles
from ds2d2_yolo.errors import DS2D2Error
from ds2d2_yolo.files import atomic_folder
from ds2d2_yolo.options import complete_options, usable_path

MANIFEST = "conversion.json"
"""Name of the report in the folder of a converted data set."""

_FORMAT = 1  # of the report and of the folder; raised whenever the same source and options give another result
_OTHER_SIZE = "another size than its labels state"
_UNREADABLE = "not an image that can be read"
_TILING = ("overlap", "scales", "min_visible", "empty", "cut")


@dataclass(frozen=True)
class Conversion:
    """A converted data set.

    Attributes:
        folder (Path): Where it is, absolute.
        manifest (dict[str, Any]): The content of `conversion.json`.
        made (bool): False if it was there already.
    """

    folder: Path
    manifest: dict[str, Any]
    made: bool

    @property
    def data(self) -> Path:
        """The data YAML."""
        return self.folder / self.manifest["data"]


def convert_dataset(src: Path | str, out: Path | str | None = None, **options: Any) -> Conversion:
    """Convert a data set into `out`, unless it is there already.

    `out` holds `images/<split>/`, `labels/<split>/` (`class x y width height` or, for `task=obb`, `class x1 y1 ... x4
    y4`, as shares of the image), the data YAML `<name of out>.yaml` and the report `conversion.json`; `tiles.jsonl`,
    too, where images are cut. It is made under another name beside its place and renamed when it is complete.

    Args:
        src (Path | str): The data set in its original layout.
        out (Path | str | None): Folder to be made. None: where the data YAML that ships for this data set expects it.
        **options (Any): The other options of `cfg/convert.yaml`.

    Returns:
        (Conversion): Where the result is, and the report.

    Raises:
        DS2D2Error: If an option, the source or the place of the result is unfit, and at the first malformed file with
            `on_error="stop"`. Then nothing is written.

    Example:
        >>> convert_dataset("path/to/DIOR", "path/to/new", on_error="skip").data  # doctest: +SKIP
        PosixPath('/home/me/path/to/new/new.yaml')
    """
    chosen = complete_options("convert", {"src": str(src), "out": out and str(out), **options}, required=("src",))
    _check_choices(chosen)
    source = usable_path("src", str(src)).absolute()
    named = None if chosen["layout"] is None else str(chosen["layout"])
    layout = recognise(source, chosen["task"], str(chosen["splits"]), named, _version(chosen["version"]))
    account = Account(on_error=chosen["on_error"])
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
            "patch": tiles.patch if tiles else 0,
            **({name: chosen[name] for name in _TILING} if tiles else {}),
        },
    }
    if target.exists() or target.is_symlink():
        return Conversion(target, _check_finished(target, identity), made=False)
    with atomic_folder(target, "conversion", lambda folder: _check_finished(folder, identity)) as folder:
        writer = _Writer(folder, source, reader or layout.open(account), account, chosen, tiles)
        writer.write()
        account.check_balance()
        notes = list(layout.notes)
        manifest = {**identity, "data": f"{target.name}.yaml", **writer.report(), "notes": notes}
        _write_data_yaml(folder / manifest["data"], manifest, notes)
        (folder / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    return Conversion(target, _check_finished(target, identity), made=True)


# ------------------------------------------------------------------------------------------------- options


def _check_choices(chosen: Mapping[str, Any]) -> None:
    for name, choices in {"task": ("detect", "obb"), "crowd": ("keep", "drop"), "on_error": ("stop", "skip")}.items():
        if chosen[name] not in choices:
            raise DS2D2Error(f"{name}={chosen[name]}: choose {' or '.join(choices)}", 2)
    difficult = chosen["difficult"]
    whole = isinstance(difficult, int) and not isinstance(difficult, bool) and difficult >= 0
    if difficult not in ("keep", "drop") and not whole:
        raise DS2D2Error(f"difficult={difficult}: choose keep, drop, or a whole number from 0", 2)


def _version(given: Any) -> str | None:
    return None if given is None else f"{given:.1f}" if isinstance(given, (int, float)) else str(given).lstrip("v")


def _tile_settings(chosen: Mapping[str, Any], given: Mapping[str, Any], layout: Layout) -> TileSettings | None:
    """How images are cut; None if they are not."""
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
    return TileSettings(
        patch=patch,
        overlap=chosen["overlap"],
        scales=tuple(chosen["scales"]),
        min_visible=chosen["min_visible"],
        empty=chosen["empty"],
        cut=chosen["cut"],
    )


def _check_apart(source: Path, target: Path) -> None:
    inner, outer = target.resolve(), source.resolve()
    if inner == outer or inner.is_relative_to(outer):
        raise DS2D2Error(f"out={target}: lies in the source {source}, choose a folder outside of it")
    if outer.is_relative_to(inner):
        raise DS2D2Error(f"out={target}: the source {source} lies in it, choose another folder")


def _fingerprint(inputs: Iterable[Path], root: Path) -> str:
    """Return a hash of names, sizes and times of change of all files that the result depends on."""
    digest = hashlib.sha256()
    for path in inputs:
        digest.update(f"{relative(path, root)}\n".encode(errors="surrogateescape"))
        folder, names = (path.parent, [path.name]) if path.is_file() else (path, sorted(file_names(path)))
        for name in names:
            status = (folder / name).stat()
            digest.update(f"{name}\0{status.st_size}\0{status.st_mtime_ns}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()


def _check_finished(folder: Path, identity: Mapping[str, Any]) -> dict[str, Any]:
    """Return the report of a folder, or raise unless it holds this very conversion, complete."""
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
            raise DS2D2Error(f"{folder}: exists, made from another source or before files of it changed, {advice}")
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


# ------------------------------------------------------------------------------------------------- writing


@dataclass
class _Tally:
    """What was counted in one split."""

    files: int = 0  # images written: those of the source, or tiles
    labels: int = 0  # lines written
    entered: Counter[str] = field(default_factory=Counter)  # images and objects of the source
    written: Counter[str] = field(default_factory=Counter)
    found: Counter[str] = field(default_factory=Counter)  # objects by class
    kept: Counter[str] = field(default_factory=Counter)


class _Writer:
    """Writes the images and labels of all splits into a folder, and counts."""

    def __init__(
        self,
        folder: Path,
        root: Path,
        reader: Reader,
        account: Account,
        options: Mapping[str, Any],
        tiles: TileSettings | None,
    ) -> None:
        self._folder = folder
        self._root = root
        self._reader = reader
        self._account = account
        self._tiles = tiles
        self._task: Task = options["task"]
        self._copy = bool(options["copy"])
        self._keep_crowds = options["crowd"] == "keep"
        self._most_difficult = float({"keep": math.inf, "drop": 0}.get(options["difficult"], options["difficult"]))
        self._numbers = {name: number for number, name in enumerate(reader.class_names)}
        self._tallies: dict[str, _Tally] = {}
        self._put: Counter[str] = Counter()

    def write(self) -> None:
        """Write all splits."""
        from ultralytics.utils import TQDM

        counts = self._reader.splits()
        progress = TQDM(total=sum(counts.values()), desc="Converting", unit="image", file=sys.stderr)
        with ExitStack() as stack:
            stack.callback(progress.close)
            self._tile_map = (
                stack.enter_context(TileMapWriter(self._folder, self._task, self._reader.class_names, self._tiles))
                if self._tiles
                else None
            )
            for split in counts:
                self._write_split(split, progress.update)
        if not any(tally.files for tally in self._tallies.values()):
            reasons = {reason: n for (kind, reason), n in self._account.reasons().items() if kind == "image"}
            why = max(reasons, key=lambda reason: reasons[reason], default="it has none")
            raise DS2D2Error(f"src={self._root}: not one image can be converted: {why} ({reasons.get(why, 0)} images)")

    def _write_split(self, split: str, advance: Callable[[int], Any]) -> None:
        account, tally = self._account, _Tally()
        self._tallies[split] = tally
        folders = [self._folder / kind / split for kind in ("images", "labels")]
        for folder in folders:
            folder.mkdir(parents=True)
        entered, written, shown = account.entered.copy(), account.written.copy(), account.entered["image"]
        for image in self._reader.read(split):
            advance(account.entered["image"] - shown)
            shown = account.entered["image"]
            tally.found.update(item.name for item in image.objects)
            if self._tiles:
                self._write_tiles(image, split, tally)
            else:
                self._write_whole(image, split, tally)
        advance(account.entered["image"] - shown)
        tally.entered, tally.written = account.entered - entered, account.written - written
        for folder in folders:
            if not any(folder.iterdir()):
                folder.rmdir()

    def _write_whole(self, image: AnnotatedImage, split: str, tally: _Tally) -> None:
        """Write an image as it is."""
        assert image.image is not None
        header = self._header_of(image)
        if header is None:
            return
        size, whole = header
        lines = []
        for item in self._chosen(image):
            shares = place(item, *size, oriented=self._task == "obb")
            if isinstance(shares, str):
                self._account.leave_out("object", self._shown(image.labels), shares, item.line)
            else:
                lines.append(self._line(item, shares))
                tally.kept[item.name] += 1
        # Some releases of Ultralytics mend a JPEG without end in place: through a link, that is the user's own file.
        copy = self._copy or not whole
        self._put_image(image.image, self._folder / "images" / split / f"{image.name}{image.image.suffix}", copy)
        self._put_labels(lines, split, image.name, image.labelled)
        tally.files += 1
        tally.labels += len(lines)
        self._account.write("image")
        self._account.write("object", len(lines))

    def _write_tiles(self, image: AnnotatedImage, split: str, tally: _Tally) -> None:
        """Write an image as tiles."""
        assert image.image is not None
        assert self._tiles is not None
        assert self._tile_map is not None
        folder = self._folder / "images" / split
        # Of an image without published labels nobody knows which tiles are empty.
        settings = self._tiles if image.labelled else replace(self._tiles, empty="keep")
        chosen = replace(image, objects=list(self._chosen(image)))
        try:
            cut = write_tiles(chosen, settings, self._task, folder)
        except DS2D2Error as error:
            if self._account.on_error == "stop" or error.exit_code == 2:  # 2: an option, not the image
                raise
            self._leave_out_image(chosen, _UNREADABLE)
            return
        if image.size not in (None, cut.size):
            for tile in cut.tiles:
                next(folder.glob(f"{glob.escape(tile.name)}.*")).unlink()
            self._leave_out_image(chosen, _OTHER_SIZE)
            return
        for item, reason in cut.lost:
            self._account.leave_out("object", self._shown(image.labels), reason, item.line)
        if not cut.tiles:
            self._account.leave_out("image", self._shown(image.image), "no tile with an object, empty=drop")
            return
        for tile in cut.tiles:
            lines = [self._line(item, _shares(item.points, *tile.size)) for item in tile.objects]
            self._put_labels(lines, split, tile.name, image.labelled)
            tally.labels += len(lines)
        self._tile_map.add(split, cut)
        kept = Counter(item.name for item in chosen.objects) - Counter(item.name for item, _ in cut.lost)
        tally.kept += kept
        tally.files += len(cut.tiles)
        self._account.write("image")
        self._account.write("object", kept.total())

    def _chosen(self, image: AnnotatedImage) -> Iterator[Annotation]:
        """Yield the objects that the options keep."""
        for item in image.objects:
            if item.difficult > self._most_difficult:
                self._account.leave_out("object", self._shown(image.labels), "difficult", item.line)
            elif item.crowd and not self._keep_crowds:
                self._account.leave_out("object", self._shown(image.labels), "a crowd, or to be ignored", item.line)
            else:
                yield item

    def _header_of(self, image: AnnotatedImage) -> tuple[tuple[int, int], bool] | None:
        """Return width and height of an image, and whether the file has its end; None if the image is left out."""
        assert image.image is not None
        whole = True
        try:
            with Image.open(image.image) as opened:
                size: tuple[int, int] = exif_size(opened)
                if opened.format == "JPEG" and opened.fp is not None:
                    opened.fp.seek(-2, os.SEEK_END)
                    whole = opened.fp.read() == b"\xff\xd9"
        except Image.DecompressionBombError:
            self._leave_out_image(image, "too large to be used as a whole, pass patch=1024")
        except (ImportError, OSError, SyntaxError, ValueError):
            # ImportError: what Pillow does not know, Ultralytics tries with a plugin, which is not there.
            self._leave_out_image(image, _UNREADABLE)
        else:
            if min(size) < 10:
                self._leave_out_image(image, "less than 10 pixels wide or high, which Ultralytics refuses")
            elif image.size not in (None, size):
                self._leave_out_image(image, _OTHER_SIZE)
            else:
                return size, whole
        return None

    def _leave_out_image(self, image: AnnotatedImage, reason: str) -> None:
        assert image.image is not None
        self._account.malformed("image", self._shown(image.image), reason)
        if image.objects:
            self._account.leave_out("object", self._shown(image.labels), reason, count=len(image.objects))

    def _shown(self, path: Path) -> str:
        return relative(path, self._root)

    def _line(self, item: Annotation, shares: Iterable[float]) -> str:
        return " ".join([str(self._numbers[item.name]), *(f"{share:.8g}" for share in shares)]) + "\n"

    def _put_labels(self, lines: Sequence[str], split: str, name: str, labelled: bool) -> None:
        if labelled:
            path = self._folder / "labels" / split / f"{name}.txt"
            path.write_text("".join(lines), encoding="utf-8", newline="")

    def _put_image(self, image: Path, place: Path, copy: bool) -> None:
        # Of a link its target: one link to another would lead nowhere if that is relative.
        original = image.resolve() if image.is_symlink() else image
        if not copy:
            for way, link in (("hard links", os.link), ("symbolic links", os.symlink)):
                try:
                    link(original, place)
                except OSError:  # another file system, a file of somebody else, or nothing that can be linked
                    continue
                self._put[way] += 1
                return
        shutil.copyfile(original, place)
        self._put["copies"] += 1

    def report(self) -> dict[str, Any]:
        """Return what was counted, for `conversion.json`."""
        classes = self._reader.class_names
        account = self._account
        splits = {
            split: {
                "files": tally.files,
                "labels": tally.labels,
                **{f"{kind}s": {"in": tally.entered[kind], "out": tally.written[kind]} for kind in ("image", "object")},
                "classes": {name: {"in": tally.found[name], "out": tally.kept[name]} for name in classes},
            }
            for split, tally in self._tallies.items()
        }
        return {
            "classes": list(classes),
            "splits": splits,
            "images": {"in": account.entered["image"], "out": account.written["image"], "by": dict(self._put)},
            "objects": {"in": account.entered["object"], "out": account.written["object"]},
            "reasons": [
                {"kind": kind, "reason": reason, "count": count} for (kind, reason), count in account.reasons().items()
            ],
            "left_out": account.left_out,
        }


def _shares(points: Sequence[float], width: int, height: int) -> tuple[float, ...]:
    """Turn an object of a tile, in pixels that lie in the tile, into shares: a box, or the corners."""
    shares = [value / (width, height)[axis % 2] for axis, value in enumerate(points)]
    if len(shares) == 8:
        return tuple(shares)
    x1, y1, x2, y2 = shares
    return (x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1


def _write_data_yaml(path: Path, manifest: Mapping[str, Any], notes: list[str]) -> None:
    """Write the data YAML. Without `path`, Ultralytics takes its own folder, wherever that is moved."""
    source = manifest["source"]
    counts = {split: item["files"] for split, item in manifest["splits"].items() if item["files"]}
    # Names of folders may hold what a comment of a YAML cannot.
    place = "".join(char if char.isprintable() else repr(char)[1:-1] for char in source["folder"])
    lines = [
        f"# {source['layout']}, converted by ds2d2-yolo {__version__} from {place}",
        f"# {MANIFEST} says what was left out, and why.",
        "",
    ]
    for split in SPLITS:
        used = split if split in counts else next(iter(counts))
        if used == split:
            lines.append(f"{split}: images/{split} # {counts[split]} images")
        elif split != "test":  # Ultralytics requires the other two
            lines.append(f"{split}: images/{used} # no images of its own")
            notes.append(f"the split {split} has no images: {path.name} names those of {used} instead")
        if used == split and not (path.parent / "labels" / split).is_dir():
            notes.append(f"the split {split} has no labels: nothing can be measured on it")
    names = yaml.safe_dump({"names": dict(enumerate(manifest["classes"]))}, sort_keys=False, allow_unicode=True)
    path.write_text("\n".join([*lines, "", names]), encoding="utf-8")
