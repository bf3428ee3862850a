"""A data set in its original layout, recognised but not yet read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ds2d2_yolo.data.annotations import Account, Reader


@dataclass(frozen=True)
class Layout:
    """A data set in its original layout, not yet read.

    Attributes:
        name (str): Name in messages: `DIOR`, `DIOR-R`, `DOTA v1.0`, `COCO` or `VOC`.
        splits (Mapping[str, tuple[str, ...]]): For every split of the result, the splits of the source in it.
        inputs (tuple[Path, ...]): Files, and folders of files, that the result depends on.
        open (Callable[[Account], Reader]): Makes the reader.
        notes (tuple[str, ...]): Notes for the user about automatic choices, one line each.
    """

    name: str
    splits: Mapping[str, tuple[str, ...]]
    inputs: tuple[Path, ...]
    open: Callable[[Account], Reader]
    notes: tuple[str, ...] = ()
