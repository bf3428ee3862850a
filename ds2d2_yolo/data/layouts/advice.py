"""What to do with folders that have none of the layouts, by what lies in them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from ds2d2_yolo.data.layouts.source import Source, head_of

_NUMBER = r"[-+]?[\d.]+(?:e[-+]?\d+)?"
_YOLO = re.compile(rf"\s*\d+(\s+{_NUMBER}){{4,}}\s*$", re.IGNORECASE | re.MULTILINE)


def advice_for(source: Source) -> str:
    """Say in a few words what a folder of no known layout holds, and what to do with it; empty if nothing is known.

    Args:
        source (Source): The folder.

    Returns:
        (str): The advice.
    """
    advices = (*_on_xml(source), *_on_json(source), *_on_texts(source), *_on_archives(source))
    return next(iter(advices), "")


def _on_xml(source: Source) -> Iterator[str]:
    for path, head in _heads(source, "xml"):
        where = source.below(path)
        if "<annotations" in head:
            yield f"{where} is CVAT's own XML, export the task as 'COCO 1.0' or 'PASCAL VOC 1.1' and convert that"
        elif head.strip():
            yield f"{where} begins with {head.split(maxsplit=1)[0][:40]}, expected <annotation> as VOC has it"


def _on_json(source: Source) -> Iterator[str]:
    for path, head in _heads(source, "json"):
        where = source.below(path)
        if '"shapes"' in head or '"imagePath"' in head:
            yield f"{where} is labelme's own JSON, turn it into COCO with 'labelme2coco' (pip install labelme2coco)"
        if head.lstrip().startswith("["):
            yield f"{where} is a list, such as Label Studio's own JSON, export it as COCO and convert that"


def _on_texts(source: Source) -> Iterator[str]:
    texts = [(path, head) for path, head in _heads(source, "txt") if head.strip()]
    if any(_YOLO.match(head) for _, head in texts):
        yaml = next((folder.path / name for folder in source.having("yaml") for name in folder.first["yaml"]), None)
        data = yaml or "data.yaml, which lists train, val and names"
        yield f"labels are those of YOLO already, there is nothing to convert, train with data={data}"
    stems = {Path(name).stem for folder in source.having("images") for name in folder.first["images"]}
    for path, head in texts:
        if path.stem in stems:
            line = head.strip().splitlines()[0][:60]
            yield f"{source.below(path)}:1: expected 'x1 y1 x2 y2 x3 y3 x4 y4 class difficulty' of DOTA, found {line!r}"


def _on_archives(source: Source) -> Iterator[str]:
    if not any(source.having(kind) for kind in ("images", "xml", "txt", "json")):
        yield from (
            f"unpack {source.below(folder.path / folder.first['zip'][0])} first" for folder in source.having("zip")
        )


def _heads(source: Source, kind: str) -> Iterator[tuple[Path, str]]:
    """Yield the first files of a kind in each folder, and their first characters."""
    for folder in source.having(kind):
        for name in folder.first[kind][:5]:
            yield folder.path / name, head_of(folder.path / name, 4096)
