"""Images that two splits share."""

from __future__ import annotations

import hashlib
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from multiprocessing.pool import ThreadPool
from pathlib import Path

from ultralytics.utils import TQDM

from ds2d2_yolo.data.check.findings import Finding, Place, shown_path
from ds2d2_yolo.data.check.settings import Split


@dataclass(eq=False)
class _File:
    """A file, which may have several paths: its size in bytes, and its first path in each split."""

    size: int
    paths: dict[str, Path] = field(default_factory=dict)


def shared_images(
    splits: Mapping[str, Split], compare_bytes: bool, root: Path | None, pool: ThreadPool
) -> dict[tuple[str, str], Finding]:
    """Find images that are in two splits: the same file, or another file with the same bytes.

    Args:
        splits (Mapping[str, Split]): Splits by name.
        compare_bytes (bool): Whether to compare the contents of files of the same size.
        root (Path | None): Files are named relative to this folder.
        pool (ThreadPool): Threads that read the files.

    Returns:
        (dict[tuple[str, str], Finding]): By the names of the two splits, for pairs that share images.
    """
    shared = {pair: Finding() for pair in combinations(splits, 2)}
    for group in _groups(splits, compare_bytes, pool):
        members: dict[str, _File] = {}
        for file in group:
            for name in file.paths:
                members.setdefault(name, file)
        for pair in combinations((name for name in splits if name in members), 2):
            file, other = members[pair[0]], members[pair[1]]
            how = "the same file" if file is other else "the same bytes"
            where = shown_path(other.paths[pair[1]], root)
            shared[pair].add(Place(shown_path(file.paths[pair[0]], root), None, f"{how} as {where}"))
    return {pair: finding for pair, finding in shared.items() if finding.count}


def images_also_in(images: Sequence[Path], splits: Mapping[str, Split], pool: ThreadPool) -> dict[Path, str]:
    """Find images that are also in a split: the same file, or another file with the same bytes.

    Args:
        images (Sequence[Path]): The images.
        splits (Mapping[str, Split]): Splits by name.
        pool (ThreadPool): Threads that read the files.

    Returns:
        (dict[Path, str]): The images that are in a split, with the name of the first such split.
    """
    found: dict[Path, str] = {}
    for group in _groups({**splits, "": Split(images)}, compare_bytes=True, pool=pool):
        names = {name for file in group for name in file.paths if name}
        if names:
            name = next(name for name in splits if name in names)
            found |= {file.paths[""]: name for file in group if "" in file.paths}
    return found


def _groups(splits: Mapping[str, Split], compare_bytes: bool, pool: ThreadPool) -> Iterable[list[_File]]:
    """Group all files that are not empty by content."""
    files = _files(splits)
    suspects = _of_same_size(files) if compare_bytes else []
    compared = set(suspects)
    return [*_of_same_bytes(suspects, pool), *([file] for file in files if file not in compared)]


def _files(splits: Mapping[str, Split]) -> list[_File]:
    """Return all files that are not empty, without repetitions."""
    files: dict[tuple[int, int], _File] = {}  # by device and inode
    for name, split in splits.items():
        for image in split.images:
            try:
                status = image.stat()
            except OSError:
                continue
            if status.st_size:
                file = files.setdefault((status.st_dev, status.st_ino), _File(status.st_size))
                file.paths.setdefault(name, image)
    return list(files.values())


def _of_same_size(files: Iterable[_File]) -> list[_File]:
    """Return the files that have the size of a file in another split."""
    by_size: dict[int, list[_File]] = defaultdict(list)
    for file in files:
        by_size[file.size].append(file)
    return [
        file
        for group in by_size.values()
        if len(group) > 1 and len({name for member in group for name in member.paths}) > 1
        for file in group
    ]


def _of_same_bytes(files: list[_File], pool: ThreadPool) -> Iterable[list[_File]]:
    """Group the files by content. A file that cannot be read forms its own group."""
    groups: dict[object, list[_File]] = defaultdict(list)
    if not files:
        return []
    progress = TQDM(total=len(files), desc="Comparing images", unit="image", file=sys.stderr)
    paths = (next(iter(file.paths.values())) for file in files)
    for file, digest in zip(files, pool.imap(_digest, paths), strict=True):
        groups[digest or file].append(file)
        progress.update(1)
    progress.close()
    return groups.values()


def _digest(path: Path) -> bytes | None:
    """Return the hash of a file, or None if it cannot be read."""
    digest = hashlib.blake2b(digest_size=16)
    try:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError:
        return None
    return digest.digest()
