"""Damaged archives of every layout: a conversion is complete or ends with one line. No other files are left."""

import os
import re
import shutil
import signal
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path

import exports
import miniatures
import numpy as np
import pytest
from format_helpers import mutated
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from ds2d2_yolo.data.convert import convert_dataset
from ds2d2_yolo.data.layouts.recognise import LAYOUTS
from ds2d2_yolo.errors import DS2D2Error

PUBLISHED = (miniatures.dior, miniatures.dota, miniatures.coco, miniatures.voc)
MAKERS = {make.__name__: make for make in PUBLISHED} | exports.ALL
LABELS = (".xml", ".txt", ".json")
SECONDS = 60  # an archive of a few images must not take longer


@pytest.fixture(scope="module")
def archives(tmp_path_factory):
    """The files of a small data set in each layout: content by path."""
    found = {}
    for name, make in MAKERS.items():
        root = make(tmp_path_factory.mktemp(name))
        found[name] = {
            path.relative_to(root).as_posix(): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()
        }
    return found


def encoded(pixels, form):
    with tempfile.TemporaryFile() as file:
        Image.fromarray(pixels).save(file, form)
        file.seek(0)
        return file.read()


JUNK = [
    b"",
    b"\0" * 20,
    b"\xff\xfe<\0a\0n\0",
    b"GIF89a",
    b"{}",
    b"[]",
    b"1 2 3 4 5 6 7 8 a 0",
    b"<annotation/>",
    b"<annotations/>",
    encoded(np.full((80, 80), 1500, np.uint16), "PNG"),
    encoded(np.ones((80, 80), np.float32), "TIFF"),
    encoded(np.zeros((1, 1, 3), np.uint8), "JPEG"),
    encoded(np.zeros((81, 79, 3), np.uint8), "PNG"),
]
NUMBERS = st.sampled_from([b"0", b"-1", b"1e9", b"nan", b"81", b"0.5", b"99999999999999999999", b"1e999", b"x", b""])
NAMES = st.sampled_from(["new", "val.txt", "train/a.xml", "ein Bild.jpg", "\u8239.PNG", "x" * 200, "a,b:c+d.json", "-"])


@st.composite
def damage(draw, files):
    """Damage some files of an archive. Return them, and other things to make at some paths."""
    files, special = dict(files), {}
    for _ in range(draw(st.integers(0, 4))):
        path = draw(st.sampled_from(sorted(files)))
        kind = draw(st.sampled_from(["mutate", "number", "junk", "delete", "move", "copy", "upper", "special", "cut"]))
        labels = [name for name in sorted(files) if name.lower().endswith(LABELS)] or [path]
        if kind == "mutate":
            path = draw(st.sampled_from(labels))
            files[path] = draw(mutated(files[path]))
        elif kind == "number":
            path = draw(st.sampled_from(labels))
            numbers = list(re.finditer(rb"-?\d+(\.\d+)?", files[path]))
            if numbers:
                found = draw(st.sampled_from(numbers))
                files[path] = files[path][: found.start()] + draw(NUMBERS) + files[path][found.end() :]
        elif kind == "junk":
            files[path] = draw(st.sampled_from(JUNK))
        elif kind == "cut":
            files[path] = files[path][: draw(st.integers(0, len(files[path])))]
        elif kind in ("move", "copy"):
            target = draw(st.one_of(NAMES, st.sampled_from(sorted(files))))
            files[target] = files[path] if kind == "copy" else files.pop(path)
        elif kind == "upper":
            files[str(Path(path).with_suffix(Path(path).suffix.upper()))] = files.pop(path)
        elif kind == "special":
            special[path] = draw(st.sampled_from(["folder", "loop", "dangling", "pipe"]))
            del files[path]
        else:
            del files[path]
        if not files:
            break
    return files, special


options = st.fixed_dictionaries(
    {
        "task": st.sampled_from(["detect", "obb"]),
        "on_error": st.sampled_from(["stop", "skip", "skip"]),
        "crowd": st.sampled_from(["keep", "drop"]),
    },
    optional={
        "layout": st.sampled_from(LAYOUTS),
        "splits": st.sampled_from(["train-val-test", "train:train", "train:train+val,val:test", "val:x"]),
        "difficult": st.sampled_from(["drop", 0]),
        "version": st.sampled_from(["1.0", "1.5", "own"]),
        "copy": st.just(True),
        "stretch": st.sampled_from(["2,98", "0:2047"]),
        "tiles": st.sampled_from(
            [{"patch": 0}, {"patch": 64, "overlap": 16}, {"patch": 32, "overlap": 0, "cut": "best"}]
        ),
    },
)


def write(root, files, special):
    for path, content in files.items():
        place = root / path
        if not any(parent.is_file() for parent in place.parents) and not place.is_dir():
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)
    for path, kind in special.items():
        place = root / path
        if not place.parent.is_dir() or os.path.lexists(place):
            continue
        if kind == "folder":
            place.mkdir()
        elif kind == "pipe" and hasattr(os, "mkfifo"):
            os.mkfifo(place)
        else:
            place.symlink_to(place.name if kind == "loop" else "nowhere")


def snapshot(root):
    return {path: path.read_bytes() if path.is_file() else None for path in root.rglob("*")}


@contextmanager
def no_hang():
    if not hasattr(signal, "SIGALRM"):
        yield
        return
    signal.signal(signal.SIGALRM, lambda *_: pytest.fail("hangs"))
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)


def check_result(conversion, task):
    """Every image has at most one label file, with known classes and numbers that Ultralytics accepts."""
    classes = len(conversion.manifest["classes"])
    for split, item in conversion.manifest["splits"].items():
        images = {path.stem for path in (conversion.folder / "images" / split).glob("*")}
        assert len(images) == item["files"]
        lines = 0
        for path in (conversion.folder / "labels" / split).glob("*.txt"):
            assert path.stem in images
            labels = np.loadtxt(path, ndmin=2) if path.stat().st_size else np.zeros((0, 5))
            assert task == "obb" or ((labels[:, 1:] >= 0) & (labels[:, 1:] <= 1)).all()
            assert np.isfinite(labels).all()
            assert ((labels[:, 0] >= 0) & (labels[:, 0] < classes)).all()
            lines += len(labels)
        assert lines == item["labels"]


@given(data=st.data(), name=st.sampled_from(sorted(MAKERS)), chosen=options)
def test_a_damaged_archive_is_converted_or_refused(archives, data, name, chosen):
    files, special = data.draw(damage(archives[name]))
    chosen = {key: value for key, value in chosen.items() if key != "tiles"} | chosen.get("tiles", {})
    root = Path(tempfile.mkdtemp())
    try:
        (root / "src").mkdir()
        write(root / "src", files, special)
        before = snapshot(root / "src")
        conversion = None
        with no_hang(), suppress(DS2D2Error):
            conversion = convert_dataset(root / "src", root / "out", **chosen)
        assert {path.name for path in root.iterdir()} == {"src", *(["out"] if conversion else [])}
        if conversion:
            check_result(conversion, chosen["task"])
        assert snapshot(root / "src") == before
    finally:
        shutil.rmtree(root)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
@pytest.mark.parametrize("name", sorted(MAKERS))
def test_a_pipe_in_place_of_labels_is_not_waited_for(archives, tmp_path, name):
    files = archives[name]
    labels = [path for path in files if path.lower().endswith(LABELS)]
    assert labels
    for number, path in enumerate(labels):
        root = tmp_path / str(number)
        root.mkdir()
        write(root / "src", {other: content for other, content in files.items() if other != path}, {path: "pipe"})
        with no_hang(), suppress(DS2D2Error):
            convert_dataset(root / "src", root / "out", on_error="skip")
