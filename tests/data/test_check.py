"""The results of `ds2d2 check` for hand-made data sets, compared with Ultralytics' own loader."""

import io
import os
import shutil
import signal
import sys
import threading
import time
from collections import Counter

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from ultralytics.data.augment import RandomPerspective
from ultralytics.data.dataset import YOLODataset
from ultralytics.data.utils import check_image, verify_image_label
from ultralytics.utils.metrics import box_iou
from ultralytics.utils.patches import imread
from yolo_sets import CORNERS, GOOD, encoded, put, write

from ds2d2_yolo.data.check import (
    KINDS,
    SIZE_BANDS,
    SIZE_EDGES,
    Settings,
    Split,
    SplitReport,
    inspect_dataset,
    split,
)
from ds2d2_yolo.data.check.findings import PLACES_KEPT
from ds2d2_yolo.data.check.images import image_facts
from ds2d2_yolo.data.check.labels import parse_labels
from ds2d2_yolo.method.wavelet import band_size


def inspect(root, splits=("train", "val"), **wanted):
    """Inspect the folders `images/<split>`."""
    found = {}
    for name in splits:
        folder = root / "images" / name
        found[name] = Split(sorted(path for path in folder.rglob("*") if path.is_file()), [folder])
    return inspect_dataset(found, Settings(**({"names": ["ship", "plane"]} | wanted)), root)


def findings(report):
    return {kind: finding.count for kind, finding in report.findings.items() if finding.count}


def places(report, kind):
    return [str(place) for place in report.findings[kind].places]


def snapshot(folder):
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file()}


# ---------------------------------------------------------------------------------------------- label files

words = st.one_of(
    st.sampled_from(["0", "1", "2", "1.0", "0.5", "0.25", "0.1", "1e-1", "1.01", "1.02", "-0.01", "-0.02", "-1", "7"]),
    st.sampled_from(["nan", "inf", "-inf", "1e60", "0.5.5", "x", "½", "1_0"]),
)
fair_words = st.sampled_from(["0", "1", "0.5", "0.25", "0.1", "1e-1", "0.50"])
fair_rows = st.sampled_from([5, 5, 5, 5, 7, 9]).flatmap(
    lambda length: st.lists(fair_words, min_size=length, max_size=length)
)
rows = st.one_of(fair_rows, fair_rows, st.lists(words, max_size=11), st.lists(words, min_size=5, max_size=5))


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pair")
    write(folder / "a.png", encoded())
    return folder / "a.png"


@pytest.mark.slow
@settings(max_examples=400)
@given(
    table=st.lists(rows, max_size=6),
    gap=st.sampled_from([" ", "\t", "  "]),
    end=st.sampled_from(["\n", "\r\n", "\n\n", " \n"]),
    mark=st.sampled_from(["", "\ufeff"]),
    keypoints=st.sampled_from([(0, 0), (0, 0), (1, 2), (2, 3)]),
)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # Ultralytics' own arithmetic on inf
def test_a_label_file_is_read_as_ultralytics_reads_it(picture, table, gap, end, mark, keypoints):
    text = "".join(gap.join(row) + end for row in table)
    file = write(picture.with_suffix(".txt"), mark + text)
    _, theirs, _, segments, *_, corrupt, message = verify_image_label(
        (str(picture), str(file), "", False, 2, *keypoints, False)
    )
    ours = parse_labels(text, 2, keypoints)
    assert bool(ours.faults) == bool(corrupt), message
    if corrupt:
        assert len(ours.boxes) == 0
        return
    assert len(ours.duplicates) == (int(message.split()[1]) if "duplicate" in message else 0)
    mine = np.column_stack([ours.classes, ours.boxes]).astype(np.float32)
    order, other = np.lexsort(mine.T), np.lexsort(theirs.T)
    np.testing.assert_array_equal(mine[order], theirs[other])
    assert sorted(points.tolist() for points in ours.polygons) == sorted(points.tolist() for points in segments)


@settings(max_examples=150)
@given(st.text(max_size=80))
def test_any_text_is_parsed_or_rejected_with_its_lines(text):
    labels = parse_labels(text, 3)
    assert labels.written == len(labels.lines) + len(labels.duplicates) or labels.faults
    numbers = {number for number, line in enumerate(text.splitlines(), 1) if line.strip()}
    assert {fault.line for fault in labels.faults} <= numbers


@pytest.mark.parametrize(
    ("line", "kind", "detail"),
    [
        ("0 0.5 0.5 0.1", "malformed_label", "4 fields"),
        ("0 0.5 0.5 0.1 0.1 0.9", "malformed_label", "6 fields"),
        ("0 0.5 abc 0.1 0.1", "malformed_label", "'abc' is not a number"),
        ("0 0.5 nan 0.1 0.1", "malformed_label", "not finite"),
        ("0 320 200 64 64", "malformed_label", "shares of the image"),
        ("0 0.5 0.5 -0.001 0.1", "malformed_label", "w=-0.001"),
        ("0.5 0.5 0.5 0.1 0.1", "malformed_label", "class 0.5"),
        ("-1 0.5 0.5 0.1 0.1", "malformed_label", "class -1"),
        ("2 0.5 0.5 0.1 0.1", "unknown_class", "class 2, the data set has 0 to 1"),
    ],
)
def test_a_bad_line_is_named_with_its_number_and_what_is_wrong(line, kind, detail):
    (fault,) = parse_labels(f"\n{GOOD}\n{line}\n1 0.2 0.2 0.1 0.1\n", 2).faults
    assert (fault.kind, fault.line) == (kind, 4)
    assert detail in fault.detail


def test_boxes_among_polygons_are_named():
    (fault,) = parse_labels(CORNERS + GOOD, 1).faults
    assert (fault.line, fault.detail) == (2, "a box in a file of polygons")


def test_repeated_lines_are_left_out_and_second_classes_kept():
    labels = parse_labels(f"{GOOD}0 .5 .50 2e-1 0.2\n1 0.5 0.5 0.2 0.2\n0 0.1 0.1 0.1 0.1\n{GOOD}", 2)
    assert labels.duplicates == (2, 5)
    assert labels.ambiguous == (3,)
    assert labels.lines.tolist() == [1, 3, 4]


# --------------------------------------------------------------------------------------------------- images


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "BMP", "TIFF"])
@pytest.mark.parametrize("share", [0.5, 0.95])
def test_truncated_images_are_found_by_decoding(tmp_path, form, share):
    content = encoded(form, 320, 200)
    suffix = {"JPEG": "jpg", "TIFF": "tif"}.get(form, form.lower())
    put(tmp_path, "train", f"whole.{suffix}", image=content)
    put(tmp_path, "train", f"cut.{suffix}", image=content[: int(share * len(content))])
    report = inspect(tmp_path, ["train"]).splits["train"]
    assert report.kept == 1
    assert report.lost_objects == 1
    (kind,) = findings(report).keys() - {"class_without_object"}
    assert kind in {"truncated_image", "unreadable_image"}
    assert KINDS[kind].error
    assert places(report, kind)[0].startswith(f"images/train/cut.{suffix}: ")


def test_headers_alone_are_judged_as_ultralytics_judges_them(tmp_path):
    whole = encoded("JPEG", 320, 200)
    cases = {
        "whole.jpg": whole,
        "cut.jpg": whole[: len(whole) // 2],
        "trailing.jpg": whole + b"\0\0",
        "empty.jpg": b"",
        "text.jpg": b"not an image at all",
        "tiny.png": encoded("PNG", 9, 40),
        "cut.png": encoded("PNG", 320, 200)[:4000],
        "drawing.jpg": encoded("GIF", 40, 40),
    }
    for name, content in cases.items():
        put(tmp_path, "train", name, image=content)
    before = snapshot(tmp_path)
    report = inspect(tmp_path, ["train"], images="header").splits["train"]
    assert snapshot(tmp_path) == before
    rejected = {place.file for kind, finding in report.findings.items() if "image" in kind for place in finding.places}
    shutil.copytree(tmp_path, tmp_path / "copy")
    theirs = set()
    for name in cases:
        try:
            check_image(str(tmp_path / "copy" / "images" / "train" / name))
        except Exception:
            theirs.add(f"images/train/{name}")
    assert rejected == theirs
    assert len(theirs) == 6
    assert places(report, "unfinished_jpeg") == ["images/train/trailing.jpg"]
    assert (tmp_path / "copy/images/train/trailing.jpg").read_bytes() != cases["trailing.jpg"], "theirs is rewritten"


def test_an_unknown_format_makes_nothing_be_installed(tmp_path, monkeypatch):
    monkeypatch.setattr("ultralytics.utils.checks.check_requirements", lambda *_: pytest.fail("would install"))
    put(tmp_path, "train", "text.jpg", image=b"not an image")
    assert findings(inspect(tmp_path, ["train"]).splits["train"])["unreadable_image"] == 1


def test_images_are_measured_upright(tmp_path):
    exif = Image.Exif()
    exif[274] = 6  # taken with the camera on its side
    buffer = io.BytesIO()
    Image.open(io.BytesIO(encoded("JPEG", 320, 160))).save(buffer, "JPEG", exif=exif)
    path = write(tmp_path / "a.jpg", buffer.getvalue())
    assert image_facts(path, channels=3).size == (160, 320)


def test_unopened_images_leave_sizes_and_shared_bytes_unknown(tmp_path):
    put(tmp_path, "train", "a.png", image=b"broken")
    put(tmp_path, "val", "a.png", image=b"broken")
    inspection = inspect(tmp_path, images="none")
    report = inspection.splits["train"]
    assert (report.kept, report.objects, report.measured) == (1, 1, False)
    assert report.sizes.sum() == 0
    assert inspection.shared == {}


# ------------------------------------------------------------------------------------------ kinds of findings


@pytest.mark.parametrize(
    ("labels", "kind", "line", "lost"),
    [
        ("0 0.5 0.5 0.0 0.2\n" + GOOD, "box_without_area", 1, 1),
        (GOOD + "0 1.005 0.5 0.006 0.1\n", "box_outside", 2, 1),
        (GOOD + "0 0.05 0.5 0.2 0.1\n", "box_beyond_edge", 2, 0),
        (GOOD + "0 0.3 0.3 0.003 0.1\n", "vanishing_box", 2, 0),
        (GOOD + "\n" + GOOD, "duplicate_label", 3, 0),
        (GOOD + "1 0.5 0.5 0.2 0.2\n", "ambiguous_box", 2, 0),
        (GOOD + "0 0.503 0.499 0.2 0.21\n", "near_duplicate", 2, 0),
        (GOOD + "0 0.1 0.1\n", "malformed_label", 2, 2),
        (GOOD + "9 0.5 0.5 0.2 0.2\n", "unknown_class", 2, 2),
        (b"\xff\xfe0 0.5 0.5 0.2 0.2", "unreadable_label", None, 0),
    ],
)
def test_each_wrong_label_is_reported_with_its_place(tmp_path, labels, kind, line, lost):
    put(tmp_path, "train", "a.png", labels)
    put(tmp_path, "train", "good.png", "1 0.5 0.5 0.2 0.2\n" + "0 0.2 0.2 0.1 0.1\n")
    inspection = inspect(tmp_path, ["train"])
    report = inspection.splits["train"]
    assert findings(report) == {kind: 1}
    (place,) = report.findings[kind].places
    assert (place.file, place.line) == ("labels/train/a.txt", line)
    assert report.lost_objects == lost
    assert inspection.has_errors == KINDS[kind].error


def test_rounded_coordinates_do_not_reach_beyond_the_edge(tmp_path):
    put(tmp_path, "train", "a.png", "0 0.0335 0.5 0.0671 0.1\n1 0.5 0.967 0.1 0.067\n")
    assert findings(inspect(tmp_path, ["train"]).splits["train"]) == {}


def test_augmentation_drops_boxes_as_stated():
    boxes = np.array([[10.0, 10.0, 10.0, 40.0], [10.0, 10.0, 12.0, 40.0], [10.0, 10.0, 12.1, 40.0]]).T
    assert RandomPerspective.box_candidates(boxes, boxes).tolist() == [False, False, True]


def test_unlabelled_images_are_background_unless_all_are(tmp_path):
    put(tmp_path, "train", "a.png", None)
    put(tmp_path, "val", "a.png", None)
    inspection = inspect(tmp_path)
    assert findings(inspection.splits["train"]).keys() >= {"image_without_label", "no_label_files"}
    assert findings(inspection.splits["val"]).keys() == {"no_objects", "image_without_label", "class_without_object"}
    put(tmp_path, "train", "b.png", "\n")
    report = inspect(tmp_path).splits["train"]
    assert findings(report) == {"no_objects": 1, "image_without_label": 1, "class_without_object": 2}
    assert KINDS["no_objects"].error, "`ds2d2 train` refuses such a set"
    assert (report.kept, report.background) == (2, 2)


def test_labels_beside_images_in_a_folder_images_are_never_read(tmp_path):
    put(tmp_path, "train", "a.png")
    for name in ("b", "c"):
        image = put(tmp_path, "train", f"{name}.png", None)
    write(image.with_suffix(".txt"), GOOD + GOOD.replace("0.5", "0.3"))
    images = Split(sorted((tmp_path / "images" / "train").glob("*.png")))
    report = inspect_dataset({"train": images}, Settings(["ship", "plane"]), tmp_path).splits["train"]
    assert findings(report) == {"label_beside_image": 1, "image_without_label": 1, "class_without_object": 1}
    assert places(report, "label_beside_image") == ["images/train/c.txt: 2 objects, expected in labels/train/c.txt"]
    assert report.lost_objects == 2
    labels = YOLODataset(img_path=str(tmp_path / "images/train"), data={"names": {0: "ship", 1: "plane"}}).labels
    assert sum(len(label["cls"]) for label in labels) == report.objects == 1


def test_labels_beside_images_in_another_folder_are_read(tmp_path):
    image = write(tmp_path / "pictures" / "a.png", encoded())
    write(image.with_suffix(".txt"), GOOD)
    report = inspect_dataset({"train": Split([image])}, Settings(["ship"]), tmp_path).splits["train"]
    assert (findings(report), report.objects) == ({}, 1)


def test_images_that_share_a_label_file_are_listed(tmp_path):
    put(tmp_path, "train", "a.jpg", image=encoded("JPEG"))
    put(tmp_path, "train", "a.png")
    report = inspect(tmp_path, ["train"]).splits["train"]
    assert places(report, "shared_label") == ["images/train/a.png: as images/train/a.jpg"]


def test_a_class_name_that_occurs_twice_is_an_error(tmp_path):
    put(tmp_path, "train", "a.png")
    inspection = inspect(tmp_path, ["train"], names=["ship", "plane", "ship"])
    assert places(inspection.splits["train"], "class_name_twice") == ["ship, 2 times"]
    assert inspection.has_errors


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("channels", [1, 3])
def test_images_of_16_bits_are_listed_with_their_values(tmp_path, suffix, channels):
    pixels = np.random.default_rng(0).integers(0, 2048, (48, 64, channels), np.uint16)
    pixels[0, 0] = 2047
    content = cv2.imencode(f".{suffix}", pixels)[1].tobytes()
    path = put(tmp_path, "train", f"deep.{suffix}", image=content)
    put(tmp_path, "train", "shallow.png")
    report = inspect(tmp_path, ["train"]).splits["train"]
    (place,) = places(report, "deep_image")
    read = imread(str(path)).max()
    assert read <= 8
    assert place == f"images/train/deep.{suffix}: values up to 2047, which become {read} of 255"
    assert (report.kept, KINDS["deep_image"].error) == (2, False)
    assert findings(inspect(tmp_path, ["train"], images="header").splits["train"])["deep_image"] == 1


def test_images_that_are_listed_twice_are_named(tmp_path):
    image = put(tmp_path, "train", "a.png")
    report = inspect_dataset({"train": Split([image, image])}, Settings(["ship"]), tmp_path).splits["train"]
    assert places(report, "listed_twice") == ["images/train/a.png"]
    assert "shared_label" not in findings(report)


def test_label_files_of_rejected_images_do_not_count_as_labels(tmp_path):
    put(tmp_path, "train", "a.png", GOOD, image=b"broken")
    put(tmp_path, "train", "b.png", None)
    assert "no_label_files" in findings(inspect(tmp_path, ["train"]).splits["train"])


def test_splits_without_usable_images_are_errors(tmp_path):
    put(tmp_path, "train", "a.png", "nonsense")
    (tmp_path / "images" / "val").mkdir()
    inspection = inspect(tmp_path)
    assert findings(inspection.splits["train"]) == {"malformed_label": 1, "no_usable_images": 1}
    assert findings(inspection.splits["val"]) == {"no_images": 1}
    assert inspection.has_errors


def test_listed_images_that_do_not_exist_are_found(tmp_path):
    good = put(tmp_path, "train", "a.png")
    missing = Split([good, tmp_path / "images" / "train" / "gone.png"])
    report = inspect_dataset({"train": missing}, Settings(["ship"]), tmp_path).splits["train"]
    assert places(report, "missing_image") == ["images/train/gone.png"]


def test_boxes_in_place_of_corners_stop_oriented_training(tmp_path):
    put(tmp_path, "train", "a.png", CORNERS)
    put(tmp_path, "train", "b.png", GOOD)
    assert "box_instead_of_polygon" not in findings(inspect(tmp_path, ["train"]).splits["train"])
    report = inspect(tmp_path, ["train"], task="obb").splits["train"]
    assert places(report, "box_instead_of_polygon")[0].startswith("labels/train/b.txt")


def test_corners_on_one_line_have_no_area(tmp_path):
    put(tmp_path, "train", "a.png", "0 0.1 0.1 0.2 0.2 0.3 0.3 0.4 0.4\n")
    assert findings(inspect(tmp_path, ["train"], task="obb").splits["train"])["box_without_area"] == 1


def test_only_the_first_places_are_kept_and_all_are_counted(tmp_path):
    put(tmp_path, "train", "a.png", "bad\n" * (PLACES_KEPT + 5))
    finding = inspect(tmp_path, ["train"]).splits["train"].findings["malformed_label"]
    assert (finding.count, len(finding.places)) == (PLACES_KEPT + 5, PLACES_KEPT)


def test_labels_without_image_are_found_class_lists_are_not(tmp_path):
    put(tmp_path, "train", "a.png")
    put(tmp_path, "train", "deep/b.png")
    write(tmp_path / "labels" / "train" / "deep" / "b.txt", GOOD)
    write(tmp_path / "labels" / "train" / "gone.txt", GOOD * 2)
    write(tmp_path / "labels" / "train" / "deep" / "lost.txt", GOOD)
    write(tmp_path / "labels" / "train" / "classes.txt", "ship\nplane\n")
    write(tmp_path / "labels" / "train" / "empty.txt", "\n")
    (tmp_path / "labels" / "train" / "b.txt").unlink()
    write(tmp_path / "images" / "train" / "unused.gif", b"")
    write(tmp_path / "labels" / "train" / "unused.txt", GOOD)
    folder = tmp_path / "images" / "train"
    splits = {"train": Split([folder / "a.png", folder / "deep" / "b.png"], [folder])}
    report = inspect_dataset(splits, Settings(["ship"]), tmp_path).splits["train"]
    assert sorted(places(report, "label_without_image")) == [
        "labels/train/deep/lost.txt: 1 objects",
        "labels/train/gone.txt: 2 objects",
        "labels/train/unused.txt: 1 objects",
    ]


def test_images_that_a_list_leaves_out_are_no_loss(tmp_path):
    first, second = put(tmp_path, "all", "a.png"), put(tmp_path, "all", "b.png")
    put(tmp_path, "all", "c.png")
    splits = {"train": Split([first]), "val": Split([second])}
    inspection = inspect_dataset(splits, Settings(["ship"]), tmp_path)
    assert not inspection.has_errors


# ------------------------------------------------------------------------------------------ across the splits


def test_identical_images_in_two_splits_are_found(tmp_path):
    content = encoded(seed=5)
    put(tmp_path, "train", "a.png", image=content)
    put(tmp_path, "val", "other.png", image=content)
    linked = put(tmp_path, "train", "linked.png", image=encoded(seed=6))
    os.link(linked, tmp_path / "images" / "val" / "linked.png")
    different = bytearray(content)
    different[-20] ^= 1
    put(tmp_path, "val", "different.png", image=bytes(different))
    shared = inspect(tmp_path).shared
    assert list(shared) == [("train", "val")]
    assert shared["train", "val"].count == 2
    assert sorted(place.detail for place in shared["train", "val"].places) == [
        "the same bytes as images/val/other.png",
        "the same file as images/val/linked.png",
    ]


def test_one_folder_as_two_splits_is_found_unopened(tmp_path):
    images = [put(tmp_path, "all", f"{index}.png") for index in range(3)]
    splits = {"train": Split(images), "val": Split(images)}
    for mode in ("full", "none"):
        inspection = inspect_dataset(splits, Settings(["ship"], images=mode), tmp_path)
        assert inspection.shared["train", "val"].count == 3
        assert not inspection.has_errors


# ------------------------------------------------------------------------------------------ sizes and density


def test_sizes_are_pixels_at_the_training_size(tmp_path):
    labels = "0 0.5 0.5 0.1 0.12\n0 0.2 0.2 0.02 0.01\n"
    put(tmp_path, "train", "a.png", labels, image=encoded(width=100, height=50))
    report = inspect(tmp_path, ["train"], imgsz=640).splits["train"]
    # 64 x 38.4 and 12.8 x 3.2 pixels: 49.6 and 6.4 a side
    assert report.size_bands.tolist() == [1, 0, 0, 1, 0]
    for bin, side in zip(np.flatnonzero(report.sizes), (6.4, 49.57), strict=True):
        assert SIZE_EDGES[bin] <= side < SIZE_EDGES[bin + 1]


def test_borders_of_bands_belong_to_the_band_above(tmp_path):
    labels = "".join(f"0 0.5 0.5 {side / 640} {side / 640}\n" for side in SIZE_BANDS)
    put(tmp_path, "train", "a.png", labels, image=encoded(width=64, height=64))
    assert inspect(tmp_path, ["train"]).splits["train"].size_bands.tolist() == [0, 1, 1, 1, 1]


def test_oriented_sizes_are_of_the_rectangle_not_its_hull(tmp_path):
    # A rectangle of 40 x 10 pixels rotated by 45 degrees: its hull is 35.4 x 35.4
    along, across = np.array([1, 1]) / np.sqrt(2) * 20, np.array([-1, 1]) / np.sqrt(2) * 5
    corners = np.array([along + across, along - across, -along - across, -along + across]) / 100 + 0.5
    line = "0 " + " ".join(f"{value:.6f}" for value in corners.ravel())
    put(tmp_path, "train", "a.png", line, image=encoded(width=100, height=100))
    for task, band in (("obb", 2), ("detect", 3)):
        bands = inspect(tmp_path, ["train"], task=task, imgsz=96, strides=[8]).splits["train"].size_bands
        assert bands.tolist() == [int(index == band) for index in range(5)], task


@settings(max_examples=60)
@given(
    points=st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=20),
    cells=st.integers(1, 60),
    stride=st.sampled_from([4, 8, 16, 32]),
)
def test_centres_are_counted_on_the_grid_of_the_weight(points, cells, stride):
    imgsz = cells * stride
    grid, _ = band_size(cells, cells)
    centres = np.array(points) * imgsz
    cell = [tuple(min(int(value * (grid / imgsz)), grid - 1) for value in centre) for centre in centres]
    occupied = Counter(cell)
    assert split._centres_per_cell(centres, imgsz, stride).tolist() == [occupied[item] for item in cell]


def test_padding_of_the_training_image_counts_for_the_cells(tmp_path):
    # 100 x 50 at 640: 320 pixels high, 160 of padding above. Both centres are in the row from 160 to 176
    put(tmp_path, "train", "a.png", "0 0.5 0.01 0.02 0.01\n0 0.5 0.045 0.02 0.01\n", encoded(width=100, height=50))
    report = inspect(tmp_path, ["train"], strides=[8, 16]).splits["train"]
    assert report.cells == {8: Counter({2: 2}), 16: Counter({2: 2})}
    assert report.crowded_share(8) == 1.0
    assert report.most_in_cell(8) == 2


@settings(max_examples=150)
@given(
    st.lists(
        st.tuples(st.integers(0, 1), st.integers(0, 12), st.integers(0, 12), st.integers(20, 26), st.integers(20, 26)),
        max_size=12,
    )
)
def test_near_duplicates_are_those_of_a_whole_overlap_matrix(rows):
    table = np.array(rows, float).reshape(-1, 5)
    classes, centre, extent = table[:, 0], table[:, 1:3], table[:, 3:]
    corners = torch.tensor(np.hstack([centre - extent / 2, centre + extent / 2]))
    overlap = np.tril(box_iou(corners, corners).numpy(), -1) * (classes[:, None] == classes)
    if (np.abs(overlap - 0.8) < 1e-9).any():
        return  # at the threshold, rounding decides
    found = split._near_duplicates(classes, centre, extent)
    assert sorted(found) == np.flatnonzero((overlap > 0.8).any(1)).tolist()
    assert all(overlap[index, other] > 0.8 for index, other in found.items())


@settings(max_examples=60)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=30))
def test_the_median_of_objects_per_image_is_exact(numbers):
    report = SplitReport(0, np.zeros(1, np.int64), True, objects_per_image=Counter(numbers))
    assert report.median_objects() == np.median(numbers)


# ------------------------------------------------------------------------------------------------- Ultralytics


def test_it_keeps_what_ultralytics_keeps_and_writes_nothing(tmp_path):
    root = tmp_path / "set"
    cases = {"good": GOOD, "repeated": GOOD * 3, "empty": "", "unknown": "5 0.5 0.5 0.1 0.1\n", "words": "a b\n"}
    cases |= {"polygon": CORNERS, "mixed": CORNERS + GOOD, "none": None, "beyond": "0 1.005 0.5 0.2 0.2\n"}
    for name, labels in cases.items():
        put(root, "train", f"{name}.png", labels)
    put(root, "train", "broken.png", GOOD, b"broken")
    before = snapshot(root)
    report = inspect(root, ["train"]).splits["train"]
    assert snapshot(root) == before
    shutil.copytree(root, tmp_path / "copy")
    folder = str(tmp_path / "copy" / "images" / "train")
    theirs = YOLODataset(img_path=folder, data={"names": {0: "ship", 1: "plane"}, "channels": 3}, imgsz=64).labels
    assert report.kept == len(theirs)
    assert report.objects == sum(len(label["cls"]) for label in theirs)
    assert report.objects_per_image == Counter(len(label["cls"]) for label in theirs)


def test_cells_are_counted_at_any_size_without_a_map_of_all():
    centres = np.array([[1.0, 1.0], [2.0, 2.0], [9e7, 9e7]])
    assert split._centres_per_cell(centres, 10**8, 8).tolist() == [2, 2, 1]


@pytest.mark.skipif(sys.platform == "win32", reason="no such signals")
def test_an_interrupt_leaves_no_thread_behind(tmp_path, monkeypatch):
    for number in range(40):
        put(tmp_path, "train", f"{number}.png", "")
    look = split._read_sample

    def slow_look(settings, image, label):
        if image.stem == "3":
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        time.sleep(0.02)
        return look(settings, image, label)

    monkeypatch.setattr(split, "_read_sample", slow_look)
    before = set(threading.enumerate())
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored if tests run in the background
    try:
        with pytest.raises(KeyboardInterrupt):
            inspect(tmp_path, ["train"])
    finally:
        signal.signal(signal.SIGINT, handler)
    assert set(threading.enumerate()) <= before
