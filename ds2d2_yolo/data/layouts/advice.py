"""Advice for folders that have none of the layouts, from the files in them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from ds2d2_yolo.data.layouts.source import Source, has_words, head_of

_NUMBER = r"[-+]?[\d.]+(?:e[-+]?\d+)?"
_YOLO = re.compile(rf"\s*\d+(\s+{_NUMBER}){{4,}}\s*$", re.IGNORECASE | re.MULTILINE)


def advice_for(source: Source) -> str:
    """Return what a folder without a known layout has, and what to do with it. The text may be empty.

    Args:
        source (Source): The folder.

    Returns:
        (str): The advice.
    """
    advices = (*_on_xml(source), *_on_json(source), *_on_texts(source), *_on_rest(source))
    return next(iter(advices), "")


def _on_xml(source: Source) -> Iterator[str]:
    for path, head in _heads(source, "xml"):
        where = source.below(path)
        if "<annotations" in head:
            yield f"{where} is CVAT's own XML, export the task as 'COCO 1.0' or 'PASCAL VOC 1.1' and convert that"
        elif head.strip():
            begin = head.split(maxsplit=1)[0][:40]
            yield f"{where} begins with {begin}, expected <annotation> as in VOC; export the labels as VOC or COCO"


def _on_json(source: Source) -> Iterator[str]:
    for path, head in _heads(source, "json"):
        where = source.below(path)
        if has_words(path, '"shapes"', '"imagePath"'):
            yield f"{where} is labelme's own JSON, convert it to COCO with 'labelme2coco' (pip install labelme2coco)"
        elif head.lstrip().startswith("["):
            yield f"{where} is a list, such as Label Studio's own JSON, export it as COCO and convert that"


def _on_texts(source: Source) -> Iterator[str]:
    texts = [(path, head) for path, head in _heads(source, "txt") if head.strip()]
    if any(_YOLO.match(head) for _, head in texts):
        yaml = next((folder.path / name for folder in source.having("yaml") for name in folder.first["yaml"]), None)
        data = yaml or "data.yaml, which lists train, val and names"
        yield f"labels have YOLO's format already, there is nothing to convert, train with data={data}"
    stems = {Path(name).stem for folder in source.having("images") for name in folder.first["images"]}
    for path, head in texts:
        if path.stem in stems:
            line = head.strip().splitlines()[0][:60]
            yield f"{source.below(path)}:1: expected 'x1 y1 x2 y2 x3 y3 x4 y4 class difficulty' of DOTA, found {line!r}"


def _on_rest(source: Source) -> Iterator[str]:
    """Yield advice on the least specific files: other JSON, tables, archives, and images without labels."""
    for kind in ("json", "csv"):
        for folder in source.having(kind):
            where = source.below(folder.path / folder.first[kind][0])
            yield f"{where} has no known format, export the labels as COCO or VOC and convert that"
    if not any(source.having(kind) for kind in ("images", "xml", "txt")):
        yield from (
            f"unpack {source.below(folder.path / folder.first['archives'][0])} first"
            for folder in source.having("archives")
        )
    if source.having("images") and not source.having("xml") and not source.having("txt"):
        yield f"there are images and no labels, pass the folder with both, such as src={source.root.parent}"


def _heads(source: Source, kind: str) -> Iterator[tuple[Path, str]]:
    """Yield the first files of a kind in each folder, and their first characters."""
    for folder in source.having(kind):
        for name in folder.first[kind][:5]:
            yield folder.path / name, head_of(folder.path / name, 4096)
