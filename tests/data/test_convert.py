"""Conversion: complete or missing, nothing lost, nothing invented, and read correctly by Ultralytics."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys

import cv2
import miniatures
import numpy as np
import pytest
import yaml
from command_words import words
from PIL import Image

from ds2d2_yolo.commands import convert
from ds2d2_yolo.commands.convert import summary
from ds2d2_yolo.data.classes import DIOR_CLASSES
from ds2d2_yolo.data.convert import convert_dataset
from ds2d2_yolo.data.tiles import read_tile_map
from ds2d2_yolo.data.writer import OTHER_SIZE
from ds2d2_yolo.errors import DS2D2Error

CLASS = {name: number for number, name in enumerate(DIOR_CLASSES)}

MISFIT = f"{OTHER_SIZE}, too small for all of its objects"
RESIZED = f"{OTHER_SIZE}, in the same proportion"


def lines(folder, split, name):
    text = (folder / "labels" / split / f"{name}.txt").read_text()
    return [[float(word) for word in line.split()] for line in text.splitlines()]


def reasons(conversion):
    return {(item["kind"], item["reason"]): item["count"] for item in conversion.manifest["reasons"]}


def snapshot(folder):
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file()}


def boxes_read_by_ultralytics(conversion, task="detect"):
    """Number of boxes per split that a stock data set reads, all images counted."""
    from ultralytics.data.dataset import YOLODataset
    from ultralytics.data.utils import check_det_dataset

    data = check_det_dataset(str(conversion.data))
    counts = {}
    for split, item in conversion.manifest["splits"].items():
        if item["files"]:
            assert data[split] == str(conversion.folder / "images" / split)
            read = YOLODataset(img_path=data[split], data=data, task=task, imgsz=64, augment=False).labels
            assert len(read) == item["files"]
            counts[split] = sum(len(label["cls"]) for label in read)
            if task == "obb":
                assert all(len(label["segments"]) == len(label["cls"]) for label in read)
    return counts


# ------------------------------------------------------------------------------------------------ layouts


def test_dior_becomes_boxes_and_every_object_is_accounted_for(tmp_path):
    conversion = convert_dataset(miniatures.dior(tmp_path / "DIOR"), tmp_path / "out")
    out = tmp_path / "out"
    assert conversion.folder == out
    assert sorted(path.name for path in out.iterdir()) == ["conversion.json", "images", "labels", "out.yaml"]
    assert lines(out, "train", "00001") == [
        pytest.approx([CLASS["golffield"], 0.50625, 0.5625, 0.6875, 0.55]),
        pytest.approx([CLASS["vehicle"], 0.05625, 0.05625, 0.1125, 0.1125]),
    ]
    assert lines(out, "val", "14558") == []
    assert reasons(conversion) == {("object", "no area"): 1, ("object", "outside the image"): 1}
    where = {(entry["file"], entry["line"], entry["reason"]) for entry in conversion.manifest["left_out"]}
    folder = "Annotations/Horizontal Bounding Boxes"
    assert where == {(f"{folder}/04137.xml", 5, "no area"), (f"{folder}/04137.xml", 6, "outside the image")}
    splits = conversion.manifest["splits"]
    assert {split: (item["images"], item["objects"]) for split, item in splits.items()} == {
        "train": ({"in": 2, "out": 2}, {"in": 5, "out": 3}),
        "val": ({"in": 2, "out": 2}, {"in": 1, "out": 1}),
    }
    assert splits["train"]["classes"]["ship"] == {"in": 2, "out": 1}
    description = yaml.safe_load(conversion.data.read_text())
    assert "path" not in description
    assert tuple(description["names"].values()) == DIOR_CLASSES
    assert boxes_read_by_ultralytics(conversion) == {"train": 3, "val": 1}


@pytest.mark.parametrize("make", [miniatures.dior, miniatures.dota, miniatures.coco, miniatures.voc])
def test_a_source_may_be_given_with_two_dots(tmp_path, make, monkeypatch):
    make(tmp_path / "data")
    (tmp_path / "elsewhere" / "work").mkdir(parents=True)
    (tmp_path / "work").symlink_to(tmp_path / "elsewhere" / "work")
    monkeypatch.chdir(tmp_path / "work")
    conversion = convert_dataset("../../data", tmp_path / "out", patch=0)
    assert conversion.manifest["images"]["in"] == conversion.manifest["images"]["out"] > 0
    assert conversion.manifest["remarks"] == {}
    assert conversion.manifest["source"]["folder"] == str(tmp_path.resolve() / "data")


def test_dior_r_becomes_corners(tmp_path):
    conversion = convert_dataset(miniatures.dior(tmp_path / "DIOR"), tmp_path / "out", task="obb")
    assert conversion.manifest["source"]["layout"] == "DIOR-R"
    expected = np.array([13, 23, 68, 23, 68, 67, 13, 67]) / miniatures.SIDE
    assert lines(tmp_path / "out", "train", "00001")[0] == pytest.approx([CLASS["golffield"], *expected])
    assert boxes_read_by_ultralytics(conversion, "obb") == {"train": 3, "val": 1}


def test_dota_is_cut_into_tiles_with_a_map_back(tmp_path):
    conversion = convert_dataset(
        miniatures.dota(tmp_path / "DOTA"), tmp_path / "out", patch=64, overlap=16, min_visible=0.5
    )
    out = tmp_path / "out"
    assert len(list((out / "images" / "train").iterdir())) == conversion.manifest["splits"]["train"]["files"] == 8
    assert (out / "tiles.jsonl").is_file()
    assert not (out / "labels" / "test").exists(), "the objects of the test images are unknown"
    assert conversion.manifest["splits"]["test"]["images"] == {"in": 1, "out": 1}
    assert conversion.manifest["objects"] == {"in": 3, "out": 3}
    assert conversion.manifest["splits"]["train"]["labels"] >= 2
    # The ship, at 10 10 30 20 of the source, is complete only in the first tile.
    assert lines(out, "train", "P0001__1__0___0")[0] == pytest.approx([4, 20 / 64, 15 / 64, 20 / 64, 10 / 64])
    counts = boxes_read_by_ultralytics(conversion)
    assert counts == {split: item["labels"] for split, item in conversion.manifest["splits"].items()}


def test_empty_tiles_are_dropped_on_request_except_in_test(tmp_path):
    options = {"patch": 64, "overlap": 16, "empty": "drop", "task": "obb"}
    conversion = convert_dataset(miniatures.dota(tmp_path / "DOTA"), tmp_path / "out", **options)
    assert reasons(conversion) == {("image", "no tile with an object, empty=drop"): 1}
    assert conversion.manifest["splits"]["test"]["files"] == 4
    assert all(path.read_text() for path in (tmp_path / "out" / "labels").rglob("*.txt"))


def test_dota_can_be_left_uncut(tmp_path):
    conversion = convert_dataset(miniatures.dota(tmp_path / "DOTA"), tmp_path / "out", patch=0, task="obb")
    expected = np.array([40, 40, 60, 45, 58, 55, 38, 50]) / np.tile([100, 70], 4)
    assert lines(tmp_path / "out", "train", "P0001")[1] == pytest.approx([0, *expected])
    assert boxes_read_by_ultralytics(conversion, "obb") == {"train": 2, "val": 1, "test": 0}


@pytest.mark.parametrize(("difficult", "kept"), [("keep", 3), (1, 2), (0, 1), ("drop", 1)])
def test_difficult_objects_are_kept_or_dropped_by_degree(tmp_path, difficult, kept):
    conversion = convert_dataset(miniatures.dota(tmp_path / "DOTA"), tmp_path / "out", patch=0, difficult=difficult)
    assert conversion.manifest["objects"] == {"in": 3, "out": kept}
    assert reasons(conversion).get(("object", "difficult"), 0) == 3 - kept


@pytest.mark.parametrize(("crowd", "kept"), [("drop", 3), ("keep", 4)])
def test_coco_with_gaps_in_its_ids_and_crowds(tmp_path, crowd, kept):
    conversion = convert_dataset(miniatures.coco(tmp_path / "coco"), tmp_path / "out", crowd=crowd)
    assert conversion.manifest["classes"] == ["ship", "truck", "dog"]
    assert conversion.manifest["objects"] == {"in": 5, "out": kept}
    assert lines(tmp_path / "out", "train", "a")[0] == pytest.approx([1, 0.25, 0.3125, 0.25, 0.375])
    assert sum(boxes_read_by_ultralytics(conversion).values()) == kept


def test_voc_counts_pixels_from_one(tmp_path):
    conversion = convert_dataset(miniatures.voc(tmp_path / "VOC"), tmp_path / "out")
    assert lines(tmp_path / "out", "train", "2007_000032")[0] == pytest.approx(
        [0, *np.array([19.5, 19.5, 39, 39]) / 80]
    )
    assert boxes_read_by_ultralytics(conversion) == {"train": 4, "val": 2}


def test_a_source_with_one_split_names_it_twice_and_says_so(tmp_path):
    shutil.rmtree(miniatures.voc(tmp_path / "VOC") / "ImageSets")
    conversion = convert_dataset(tmp_path / "VOC", tmp_path / "out")
    description = yaml.safe_load(conversion.data.read_text())
    assert description["train"] == description["val"] == "images/train"
    assert "note: the split val has no images: out.yaml names those of train instead" in summary(conversion)


def test_the_result_can_be_moved(tmp_path):
    from ultralytics.data.utils import check_det_dataset

    convert_dataset(miniatures.dior(tmp_path / "DIOR"), tmp_path / "out")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out").rename(tmp_path / "elsewhere" / "moved")
    data = check_det_dataset(str(tmp_path / "elsewhere" / "moved" / "out.yaml"))
    assert data["train"] == str(tmp_path / "elsewhere" / "moved" / "images" / "train")


# ------------------------------------------------------------------------------------------------- images


def test_images_are_linked_and_copied_where_asked(tmp_path):
    original = miniatures.dior(tmp_path / "DIOR") / "JPEGImages-trainval" / "00001.jpg"
    linked = convert_dataset(tmp_path / "DIOR", tmp_path / "linked")
    copied = convert_dataset(tmp_path / "DIOR", tmp_path / "copied", copy=True)
    assert (tmp_path / "linked/images/train/00001.jpg").samefile(original)
    assert not (tmp_path / "copied/images/train/00001.jpg").samefile(original)
    assert linked.manifest["images"]["by"] == {"hard links": 4}
    assert copied.manifest["images"]["by"] == {"copies": 4}


@pytest.mark.parametrize(("broken", "way"), [(["link"], "symbolic links"), (["link", "symlink"], "copies")])
def test_a_link_that_does_not_work_is_replaced_by_the_next_kind(tmp_path, monkeypatch, broken, way):
    def refuse(*_):
        raise OSError(18, "Invalid cross-device link")

    miniatures.dior(tmp_path / "DIOR")
    for name in broken:
        monkeypatch.setattr(os, name, refuse)
    conversion = convert_dataset(tmp_path / "DIOR", tmp_path / "out")
    assert conversion.manifest["images"]["by"] == {way: 4}
    assert boxes_read_by_ultralytics(conversion) == {"train": 3, "val": 1}


def test_an_image_that_is_a_relative_link_is_found(tmp_path):
    image = miniatures.dior(tmp_path / "DIOR") / "JPEGImages-trainval" / "00001.jpg"
    image.rename(tmp_path / "away.jpg")
    image.symlink_to("../../away.jpg")
    convert_dataset(tmp_path / "DIOR", tmp_path / "deep" / "er" / "out")
    assert (tmp_path / "deep/er/out/images/train/00001.jpg").samefile(tmp_path / "away.jpg")


def test_a_jpeg_without_end_is_copied_not_linked(tmp_path):
    image = miniatures.dior(tmp_path / "DIOR") / "JPEGImages-trainval" / "00001.jpg"
    image.write_bytes(image.read_bytes() + b"\0\0")
    before = image.read_bytes()
    conversion = convert_dataset(tmp_path / "DIOR", tmp_path / "out")
    assert conversion.manifest["images"]["by"] == {"hard links": 3, "copies": 1}
    boxes_read_by_ultralytics(conversion)
    assert image.read_bytes() == before


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda path: path.unlink(), "labels without image"),
        (lambda path: path.write_bytes(b"not an image"), "not an image that can be read"),
        (lambda path: miniatures.picture(path, (64, 80)), MISFIT),
    ],
    ids=["missing", "unreadable", "too small"],
)
def test_an_unsuitable_image_stops_the_conversion_or_is_listed(tmp_path, spoil, reason):
    spoil(miniatures.dior(tmp_path / "DIOR") / "JPEGImages-trainval" / "00001.jpg")
    with pytest.raises(
        DS2D2Error,
        match=rf"00001.*: {reason}( \(.*(, not 80 x 80|, perhaps src=.*)\))?; correct it, or pass on_error=skip",
    ):
        convert_dataset(tmp_path / "DIOR", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["DIOR"]
    conversion = convert_dataset(tmp_path / "DIOR", tmp_path / "out", on_error="skip")
    assert reasons(conversion)["image", reason] == 1
    assert reasons(conversion)["object", reason] == 2
    assert not (tmp_path / "out/labels/train/00001.txt").exists()


@pytest.mark.parametrize("patch", [0, 64])
@pytest.mark.parametrize("layout", ["dior", "coco"])
def test_the_size_of_the_file_counts_and_is_listed(tmp_path, layout, patch):
    source = getattr(miniatures, layout)(tmp_path / layout)
    image = {"dior": "JPEGImages-trainval/00001.jpg", "coco": "trainval/a.jpg"}[layout]
    with Image.open(source / image) as picture:
        stated = list(picture.size)
    before = convert_dataset(source, tmp_path / "before", patch=patch, **({"overlap": 16} if patch else {}))
    actual = [stated[0], stated[1] + 1]
    miniatures.picture(source / image, tuple(actual))
    conversion = convert_dataset(source, tmp_path / "out", patch=patch, **({"overlap": 16} if patch else {}))
    assert conversion.manifest["other_sizes"] == [{"file": image, "actual": actual, "stated": stated}]
    assert conversion.manifest["objects"] == before.manifest["objects"]
    (note,) = set(conversion.manifest["notes"]) - set(before.manifest["notes"])
    assert note.endswith(f"{image} has {stated[0]} x {stated[1] + 1} pixels, not {stated[0]} x {stated[1]}")
    assert note in summary(conversion)
    if not patch:
        label = f"labels/train/{image.split('/')[1][:-4]}.txt"
        new, old = (np.loadtxt(folder / label, ndmin=2)[:, 1:] for folder in (conversion.folder, before.folder))
        np.testing.assert_allclose(new * [*actual, *actual], old * [*stated, *stated], atol=1e-4)


@pytest.mark.parametrize("patch", [0, 64])
def test_an_image_with_swapped_sides_is_unfit(tmp_path, patch):
    source = miniatures.coco(tmp_path / "coco")
    with Image.open(source / "trainval/b.jpg") as picture:
        width, height = picture.size
    content = json.loads((source / "trainval.json").read_text())
    for item in content["images"]:
        if item["file_name"].endswith("b.jpg"):
            item["width"], item["height"] = width + 40, height
    (source / "trainval.json").write_text(json.dumps(content))
    miniatures.picture(source / "trainval/b.jpg", (height, width + 40))
    options = {"patch": patch, **({"overlap": 16} if patch else {})}
    with pytest.raises(DS2D2Error, match=r"b.jpg: .*with the sides swapped \(\d+ x \d+ pixels, not \d+ x \d+\)"):
        convert_dataset(source, tmp_path / "out", **options)


def test_an_image_too_small_for_ultralytics_is_unfit(tmp_path):
    source = miniatures.dior(tmp_path / "DIOR", both=False)
    small = miniatures.horizontal("11759", [("ship", 1, 1, 8, 8)], size=9)
    miniatures.write(source / "Annotations/Horizontal Bounding Boxes/11759.xml", small)
    miniatures.picture(source / "JPEGImages-test/11759.jpg", (9, 9))
    with pytest.raises(DS2D2Error, match="less than 10 pixels wide or high, which Ultralytics refuses"):
        convert_dataset(source, tmp_path / "out")


@pytest.mark.parametrize("patch", [0, 64])
@pytest.mark.parametrize("side", [40, 160])
def test_a_resized_image_with_its_old_boxes_stops_or_is_listed(tmp_path, side, patch):
    source = miniatures.coco(tmp_path / "coco")
    miniatures.picture(source / "trainval" / "a.jpg", (side, side))  # labelled at 80 x 80, with boxes up to 30, 40
    options = {"patch": patch, **({"overlap": 16} if patch else {})}
    complaint = rf"a\.jpg: {RESIZED} \({side} x {side} pixels, not 80 x 80: resize the boxes, too, or take the size out"
    with pytest.raises(DS2D2Error, match=complaint):
        convert_dataset(source, tmp_path / "out", **options)
    found = reasons(convert_dataset(source, tmp_path / "out", on_error="skip", **options))
    assert (found["image", RESIZED], found["object", RESIZED]) == (1, 2)


@pytest.mark.parametrize("change", ["sizeless", "box beyond", "no boxes", "a few pixels"])
def test_an_image_that_was_not_resized_is_converted(tmp_path, change):
    source = miniatures.coco(tmp_path / "coco")
    miniatures.picture(source / "trainval" / "a.jpg", (81, 81) if change == "a few pixels" else (160, 160))
    content = json.loads((source / "trainval.json").read_text())
    if change == "sizeless":
        del content["images"][0]["width"]
    elif change == "box beyond":
        content["annotations"][0]["bbox"] = [10, 10, 20, 130]
    elif change == "no boxes":
        content["annotations"] = []
    (source / "trainval.json").write_text(json.dumps(content))
    assert convert_dataset(source, tmp_path / "out").manifest["splits"]["train"]["images"]["out"] == 2


def test_an_image_that_cannot_be_cut_has_its_true_reason(tmp_path):
    source = miniatures.coco(tmp_path / "coco")
    cv2.imwrite(str(source / "trainval" / "a.tif"), np.ones((80, 80), np.float32))
    cv2.imwrite(str(source / "trainval" / "b.tif"), np.ones((80, 80, 4), np.uint8))
    miniatures.picture(source / "test" / "c.jpg", (80, 12))
    text = (source / "trainval.json").read_text()
    (source / "trainval.json").write_text(text.replace("a.jpg", "a.tif").replace("b.jpg", "b.tif"))
    options = {"patch": 64, "overlap": 0, "scales": [0.5], "on_error": "skip"}
    assert {reason for (kind, reason) in reasons(convert_dataset(source, tmp_path / "out", **options))} >= {
        "pixels of type float32",
        "a TIFF with more bands than are kept in tiles or by stretch=",
        "less than 10 pixels at scale 0.5, which Ultralytics refuses",
    }


def test_an_image_too_large_for_pillow_is_unsuitable_as_a_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 3000)
    with pytest.raises(DS2D2Error, match="too large to be used uncut, pass patch=1024"):
        convert_dataset(miniatures.dior(tmp_path / "DIOR"), tmp_path / "out")
    conversion = convert_dataset(tmp_path / "DIOR", tmp_path / "out", patch=64, overlap=16)
    assert conversion.manifest["images"] == {"in": 4, "out": 4, "by": {}}


@pytest.mark.parametrize("on_error", ["stop", "skip"])
def test_images_that_cannot_be_cut_are_unsuitable_too(tmp_path, on_error):
    source = miniatures.coco(tmp_path / "coco")
    (source / "trainval/a.jpg").write_bytes(b"not an image")
    miniatures.picture(source / "trainval/b.jpg", (20, 80))
    options = {"patch": 64, "overlap": 16, "on_error": on_error, "crowd": "keep"}
    if on_error == "stop":
        with pytest.raises(DS2D2Error, match=r"a\.jpg"):
            convert_dataset(source, tmp_path / "out", **options)
        return
    conversion = convert_dataset(source, tmp_path / "out", **options)
    found = reasons(conversion)
    assert found["image", "not an image that can be read"] == 1
    assert found["image", MISFIT] == 1
    assert not (tmp_path / "out" / "images" / "train").exists()


def test_a_conversion_without_any_image_is_refused(tmp_path):
    for folder in miniatures.dior(tmp_path / "DIOR").glob("JPEGImages-*"):
        for image in folder.iterdir():
            image.unlink()
    with pytest.raises(DS2D2Error, match=r"not one image can be converted: labels without image \(4 images\)"):
        convert_dataset(tmp_path / "DIOR", tmp_path / "out", on_error="skip")
    assert not (tmp_path / "out").exists()


# -------------------------------------------------------------------------------------------------- place


def test_the_same_conversion_is_not_repeated(tmp_path, capsys):
    options = {"src": str(miniatures.dior(tmp_path / "DIOR")), "out": str(tmp_path / "out")}
    convert.run(words(options))
    before = snapshot(tmp_path)
    capsys.readouterr()
    convert.run(words(options))
    assert capsys.readouterr().out.startswith("already converted, nothing to do: DIOR, task detect, 20 classes:")
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"task": "obb"}, "exists with task=detect instead of obb"),
        ({"copy": True}, "exists with copy=False instead of True"),
        ({"patch": 64, "overlap": 16}, "exists with patch=0 instead of 64"),
        ({"splits": "train-val-test"}, "exists with splits="),
    ],
    ids=lambda change: next(iter(change)) if isinstance(change, dict) else "",
)
def test_another_conversion_is_refused_and_left_as_it_is(tmp_path, change, complaint):
    convert_dataset(miniatures.dior(tmp_path / "DIOR"), tmp_path / "out")
    before = snapshot(tmp_path)
    with pytest.raises(DS2D2Error, match=complaint):
        convert_dataset(tmp_path / "DIOR", tmp_path / "out", **change)
    assert snapshot(tmp_path) == before


def test_a_source_that_has_changed_is_another_one(tmp_path):
    source = miniatures.dior(tmp_path / "DIOR")
    convert_dataset(source, tmp_path / "out")
    changed = miniatures.horizontal("00001", [("ship", 1, 1, 50, 50)])
    miniatures.write(source / "Annotations/Horizontal Bounding Boxes/00001.xml", changed)
    with pytest.raises(DS2D2Error, match="made from another source or before its files changed"):
        convert_dataset(source, tmp_path / "out")


def test_a_result_that_lost_images_is_refused(tmp_path):
    convert_dataset(miniatures.dior(tmp_path / "DIOR"), tmp_path / "out")
    (tmp_path / "out/images/train/00001.jpg").unlink()
    with pytest.raises(DS2D2Error, match="has 1 of 2 images of the split train"):
        convert_dataset(tmp_path / "DIOR", tmp_path / "out")
    shutil.rmtree(tmp_path / "out/images/train")
    with pytest.raises(DS2D2Error, match="has 0 of 2 images of the split train"):
        convert_dataset(tmp_path / "DIOR", tmp_path / "out")


@pytest.mark.parametrize("content", ["precious", "{}", "[1]", '{"format": 1}'])
def test_a_folder_of_the_user_is_refused_and_left_as_it_is(tmp_path, content):
    miniatures.dior(tmp_path / "DIOR")
    miniatures.write(tmp_path / "out" / "conversion.json", content)
    with pytest.raises(DS2D2Error, match="out: exists"):
        convert_dataset(tmp_path / "DIOR", tmp_path / "out")
    assert (tmp_path / "out" / "conversion.json").read_text() == content


def test_source_and_result_must_be_separate(tmp_path):
    source = miniatures.dior(tmp_path / "DIOR")
    before = snapshot(tmp_path)
    (tmp_path / "alias").symlink_to(source)
    for place in (source, source / "out", tmp_path / "alias" / "out"):
        with pytest.raises(DS2D2Error, match="is inside the source"):
            convert_dataset(source, place)
    with pytest.raises(DS2D2Error, match=r"the source .* is inside it"):
        convert_dataset(source, tmp_path)
    assert snapshot(tmp_path) == before


def test_an_unwritable_place_is_reported_in_one_line(tmp_path):
    miniatures.write(tmp_path / "file", "")
    with pytest.raises(DS2D2Error, match="file: cannot write here"):
        convert_dataset(miniatures.dior(tmp_path / "DIOR"), tmp_path / "file" / "out")


def test_the_default_place_is_that_of_the_shipped_yaml(fresh_machine, tmp_path):
    from ultralytics.data.utils import check_det_dataset

    from ds2d2_yolo.data.shipped import hint_for
    from ds2d2_yolo.resources import resource_folder

    shipped = resource_folder("datasets") / "DIOR.yaml"
    hint = hint_for(shipped)
    conversion = convert_dataset(miniatures.dior(tmp_path / "unpacked" / "DIOR"))
    assert hint_for(shipped) is None
    with pytest.raises(DS2D2Error, match=r"out= is missing: no data YAML ships for VOC with task=detect"):
        convert_dataset(miniatures.voc(tmp_path / "VOC"))
    with pytest.raises(DS2D2Error, match=r"out= is missing: no data YAML ships for COCO .* these classes"):
        convert_dataset(miniatures.coco(tmp_path / "coco"))
    assert hint == (
        f"the images of DIOR.yaml are not in {tmp_path / 'datasets' / 'DIOR'}: download the archive by hand from "
        "https://gcheng-nwpu.github.io/#Datasets, unpack it, and run 'ds2d2 convert src=path/to/DIOR'"
    )
    assert conversion.folder == tmp_path / "datasets" / "DIOR"
    data = check_det_dataset(str(shipped))
    assert data["train"] == str(conversion.folder / "images" / "train")


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_a_killed_conversion_is_cleared_up_by_the_next_call(tmp_path):
    source = miniatures.dior(tmp_path / "DIOR", both=False)
    folder, names = source / "Annotations/Horizontal Bounding Boxes", [f"2{index:04d}" for index in range(400)]
    for name in names:
        miniatures.write(folder / f"{name}.xml", miniatures.horizontal(name, [("ship", 1, 1, 50, 50)] * 5))
        os.link(source / "JPEGImages-test" / "11759.jpg", source / "JPEGImages-test" / f"{name}.jpg")
    miniatures.write(source / "ImageSets/Main/test.txt", "".join(f"{name}\n" for name in names))
    script = """
import os, signal, sys, threading, time
from pathlib import Path
from ds2d2_yolo.data.convert import convert_dataset

def kill_half_way():
    while not list(Path(sys.argv[2]).parent.glob("out.partial-*/images/val/20003.jpg")):
        time.sleep(0.001)
    os.kill(os.getpid(), signal.SIGKILL)

threading.Thread(target=kill_half_way, daemon=True).start()
convert_dataset(sys.argv[1], sys.argv[2], on_error="skip")
"""
    command = [sys.executable, "-c", script, str(source), str(tmp_path / "out")]
    ended = subprocess.run(command, stderr=subprocess.DEVNULL, timeout=300)
    assert ended.returncode == -signal.SIGKILL
    assert not (tmp_path / "out").exists()
    left = list(tmp_path.glob("out.partial-*"))
    assert len(left) == 1
    assert 3 < len(list(left[0].glob("images/val/*"))) < len(names)
    conversion = convert_dataset(source, tmp_path / "out", on_error="skip")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["DIOR", "out"]
    assert conversion.manifest["splits"]["val"]["files"] == len(names)


def test_dangling_links_are_not_a_finished_conversion(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EXDEV, "another file system")

    monkeypatch.setattr(os, "link", refuse)
    convert_dataset(miniatures.dior(tmp_path / "DIOR"), tmp_path / "out")
    (tmp_path / "DIOR").rename(tmp_path / "moved")
    with pytest.raises(DS2D2Error, match="has 0 of 2 images of the split train, remove it"):
        convert_dataset(tmp_path / "moved", tmp_path / "out")


@pytest.mark.parametrize("lost", ["out.yaml", "labels/val"])
def test_a_conversion_that_lost_a_part_is_not_finished(tmp_path, lost):
    convert_dataset(miniatures.dior(tmp_path / "DIOR"), tmp_path / "out")
    (tmp_path / "out" / lost).rename(tmp_path / "elsewhere")
    with pytest.raises(DS2D2Error, match="any more, remove it or choose another folder"):
        convert_dataset(tmp_path / "DIOR", tmp_path / "out")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
@pytest.mark.parametrize("name", ["two\nlines", "not\udcffUTF-8", "[1] #a: b"])
def test_names_that_no_text_can_hold_are_converted(tmp_path, name):
    source = miniatures.dota(tmp_path / name)
    for folder, suffix in (("images", "png"), ("labelTxt", "txt")):
        (source / "train" / folder / f"P0001.{suffix}").rename(source / "train" / folder / f"{name}.{suffix}")
    conversion = convert_dataset(source, tmp_path / "out", patch=64, overlap=16)
    assert len(yaml.safe_load(conversion.data.read_text())["names"]) == 15
    assert {tile.source for tile in read_tile_map(tmp_path / "out").tiles["train"].values()} == {name, "P0002"}


def test_images_that_become_too_small_are_reported(tmp_path):
    miniatures.dota(tmp_path / "DOTA")
    miniatures.picture(tmp_path / "DOTA/train/images/P0001.png", (9, 70))
    with pytest.raises(DS2D2Error, match=r"P0001\.png: less than 10 pixels at scale 1"):
        convert_dataset(tmp_path / "DOTA", tmp_path / "out")
    conversion = convert_dataset(tmp_path / "DOTA", tmp_path / "out", on_error="skip")
    assert conversion.manifest["splits"]["train"]["images"] == {"in": 2, "out": 1}
    with pytest.raises(DS2D2Error, match=r"less than 10 pixels at scale 0\.1"):
        convert_dataset(tmp_path / "DOTA", tmp_path / "small", scales=[1.0, 0.1])


def test_tiles_too_large_for_jpeg_stop_and_leave_nothing(tmp_path):
    source = miniatures.dota(tmp_path / "DOTA")
    (source / "train/images/P0001.png").unlink()
    miniatures.picture(source / "train/images/P0001.jpg", (4000, 10))
    options = {"patch": 80_000, "scales": [1.0, 17.0], "on_error": "skip"}
    with pytest.raises(DS2D2Error, match="a tile of 68000 x 170 pixels cannot be written; pass a lower patch="):
        convert_dataset(source, tmp_path / "out", **options)
    assert [path.name for path in tmp_path.iterdir()] == ["DOTA"]


def test_a_split_without_labels_is_reported(tmp_path):
    source = miniatures.coco(tmp_path / "coco")
    content = json.loads((source / "test.json").read_text())
    del content["annotations"]
    (source / "test.json").write_text(json.dumps(content))
    conversion = convert_dataset(source, tmp_path / "out")
    assert "the split test has no labels: nothing can be measured on it" in conversion.manifest["notes"]


# ------------------------------------------------------------------------------------------------ options


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"task": "pose"}, "task=pose: choose detect or obb"),
        ({"crowd": "maybe"}, "crowd=maybe: choose keep or drop"),
        ({"on_error": "ignore"}, "on_error=ignore: choose stop or skip"),
        ({"difficult": -1}, "difficult=-1: choose keep, drop, or a whole number from 0"),
        ({"difficult": True}, "difficult=True: "),
        ({"difficult": "some"}, "difficult=some: "),
        ({"patch": 8}, "patch=8: tiles need 32 pixels"),
        ({"patch": "big"}, "patch=big: expected a whole number"),
        ({"scales": [0.5]}, r"scales=\[0.5\]: images are not cut, pass patch=1024, too"),
        ({"patch": 640, "scales": ["a"]}, "scales="),
        ({"patch": 64}, "overlap=200: must be 0 or more and less than patch=64"),
        ({"patch": 640, "empty": "maybe"}, "empty=maybe: choose keep or drop"),
        ({"tsak": "obb"}, "tsak=obb: 'ds2d2 convert' has no such option; did you mean task"),
        ({"src": ""}, "src= is missing"),
        ({"patch": 640, "scales": None}, "scales=None: expected a list"),
        ({"patch": 640, "min_visible": None}, "min_visible=None: expected a number"),
        ({"src": "~nobody-of-this-name/DIOR"}, "src=~nobody-of-this-name/DIOR: is not a usable path"),
        ({"src": "a" * 300}, "src=a+ ... a+: is not a usable path"),
        ({"out": "a" * 300}, "out=a+ ... a+: is not a usable path"),
    ],
)
def test_an_unfit_option_is_reported_before_anything_is_written(tmp_path, options, complaint):
    source = miniatures.dior(tmp_path / "DIOR")
    with pytest.raises(DS2D2Error, match=complaint):
        convert_dataset(**{"src": source, "out": tmp_path / "out"} | options)
    assert [path.name for path in tmp_path.iterdir()] == ["DIOR"]


def test_versions_of_dota_are_numbers_or_texts(tmp_path):
    miniatures.dota(tmp_path / "DOTA")
    for number, version in enumerate((2, 2.0, "2.0", "v2.0")):
        conversion = convert_dataset(tmp_path / "DOTA", tmp_path / f"out{number}", version=version, patch=0)
        assert conversion.manifest["source"]["layout"] == "DOTA v2.0"


def test_the_summary_shows_found_and_left_out_objects(tmp_path, capsys):
    convert.run(words({"src": str(miniatures.dior(tmp_path / "DIOR")), "out": str(tmp_path / "out")}))
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["train", "train+val", "2", "2", "0", "2", "5", "3", "2", "3"] in rows
    assert ["all", "4", "4", "0", "4", "6", "4", "2", "4"] in rows
    assert ["ship", "2", "1", "0", "0"] in rows
    assert ["1", "object", "no", "area", "Annotations/Horizontal", "Bounding", "Boxes/04137.xml:5"] in rows
    assert rows[-1] == ["train", "with", f"data={tmp_path / 'out' / 'out.yaml'}"]


@pytest.mark.skipif(sys.platform != "linux", reason="needs a file system on which names are any bytes")
def test_names_that_are_no_text_are_listed(tmp_path, capsys):
    source = miniatures.dior(tmp_path / "DIOR", both=False)
    with open(os.fsencode(source / "JPEGImages-test") + b"/\xff.jpg", "wb"):  # noqa: PTH123
        pass
    convert.run(words({"src": str(source), "out": str(tmp_path / "out")}))
    assert "JPEGImages-test/\\udcff.jpg" in capsys.readouterr().out
    assert json.loads((tmp_path / "out" / "conversion.json").read_text())["left_out"][0]["reason"] == "in no split"


def test_the_report_is_json_with_options_and_every_omission(tmp_path):
    conversion = convert_dataset(miniatures.dior(tmp_path / "DIOR"), tmp_path / "out")
    manifest = json.loads((tmp_path / "out" / "conversion.json").read_text())
    assert manifest == conversion.manifest
    assert manifest["source"]["folder"] == str(tmp_path / "DIOR")
    assert manifest["options"]["splits"] == {"train": ["train", "val"], "val": ["test"]}
    for kind in ("image", "object"):
        lost = sum(entry["count"] for entry in manifest["left_out"] if entry["kind"] == kind)
        assert manifest[f"{kind}s"]["in"] == manifest[f"{kind}s"]["out"] + lost
