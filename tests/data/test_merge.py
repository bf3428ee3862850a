"""Merging: detections of tiles return to their source images, each object once, in DOTA's submission format."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml
from command_words import words
from hypothesis import given, settings
from hypothesis import strategies as st
from ultralytics import YOLO
from ultralytics.utils.metrics import batch_probiou

from ds2d2_yolo.commands import merge as merge_command
from ds2d2_yolo.data.annotations import AnnotatedImage, Annotation
from ds2d2_yolo.data.merge import _rectangles, _suppress_oriented, merge_detections
from ds2d2_yolo.data.tiles import TileMapWriter, TileSettings, cut_tiles, write_tiles
from ds2d2_yolo.errors import DS2D2Error

NAMES = ("small-vehicle", "ship")


def tiled(folder, images, settings, task, split="val"):
    """Write the tile map of some images. Return the cut images."""
    cuts = [cut_tiles(image, size, settings, task) for image, size in images]
    with TileMapWriter(folder, task, NAMES, settings) as tile_map:
        for cut in cuts:
            tile_map.add(split, cut)
    return cuts


def detections(cuts, score):
    """The labels of the tiles as entries of a `predictions.json`, as Ultralytics' validators write them."""
    entries = []
    for cut in cuts:
        for tile in cut.tiles:
            for item in tile.objects:
                entry = {"image_id": tile.name, "file_name": f"{tile.name}.png"}
                entry |= {"category_id": NAMES.index(item.name) + 1, "score": round(score(cut, tile, item), 5)}
                if len(item.points) == 8:
                    entry["poly"] = [round(value, 3) for value in item.points]
                else:
                    x1, y1, x2, y2 = item.points
                    entry["bbox"] = [round(value, 3) for value in (x1, y1, x2 - x1, y2 - y1)]
                entries.append(entry)
    return entries


def write_json(path, entries):
    path.write_text(json.dumps(entries))
    return path


def submission(folder):
    """Rows of a submission by the name of the file: image, score, coordinates."""
    rows = {}
    for path in sorted(folder.iterdir()):
        fields = [line.split(" ") for line in path.read_text().splitlines()]
        rows[path.name] = [(image, float(score), list(map(float, points))) for image, score, *points in fields]
    return rows


@pytest.fixture
def folder(tmp_path):
    """A data set of one image of 180 x 100 pixels, cut into two tiles, at 0 and 80."""
    (tmp_path / "data").mkdir()
    tiled(
        tmp_path / "data",
        [(AnnotatedImage("P1", Path("P1.txt"), Path("P1.png"), None), (180, 100))],
        TileSettings(100, 20),
        "detect",
    )
    return tmp_path


def entry(left=0, bbox=(10, 10, 20, 20), number=1, score=0.5, **change):
    name = f"P1__1__{left}___0"
    return {
        "image_id": name,
        "file_name": f"{name}.png",
        "category_id": number,
        "bbox": bbox,
        "score": score,
    } | change


def merge(folder, entries, **options):
    write_json(folder / "predictions.json", entries)
    return merge_detections(folder / "predictions.json", folder / "data", folder / "merged", **options)


# -------------------------------------------------------------------------------------------- round trips


@settings(max_examples=12)
@given(st.data(), st.sampled_from(["detect", "obb"]))
def test_every_object_comes_back_once(tmp_path_factory, data, task):
    tmp_path = tmp_path_factory.mktemp("merge")
    overlap = data.draw(st.integers(40, 70))
    scales = tuple(data.draw(st.lists(st.sampled_from([0.5, 1.0, 1.5]), min_size=1, max_size=3, unique=True)))
    # A grid of separate objects. Each is small enough to be complete in a tile of every scale.
    images, expected = [], []
    for name in ("P1", "P__1__0___0"):
        objects = []
        for x in range(12, 260, 37):
            for y in range(12, 180, 37):
                if not data.draw(st.booleans()):
                    continue
                size = data.draw(st.tuples(st.floats(6, 22), st.floats(6, 22)))
                angle = data.draw(st.floats(0, 90)) if task == "obb" else 0
                points = cv2.boxPoints(((x + 6, y + 6), size, angle))
                points = points if task == "obb" else np.stack([points.min(0), points.max(0)])
                objects.append(Annotation(data.draw(st.sampled_from(NAMES)), tuple(map(float, points.ravel()))))
        images.append((AnnotatedImage(name, Path("a.txt"), Path("a.png"), None, objects), (280, 200)))
        expected += [(name, item.name, item.points) for item in objects]
    cuts = tiled(tmp_path, images, TileSettings(96, overlap, scales), task)
    areas = {
        item.points: cv2.contourArea(np.float32(item.corners).reshape(4, 2))
        for image, _ in images
        for item in image.objects
    }

    def seen(cut, tile, item):
        # A detector is more confident for complete objects.
        zoom = tile.size[0] / tile.window[2]
        return min(1.0, cv2.contourArea(np.float32(item.corners).reshape(4, 2)) / zoom**2 / max(areas.values()))

    entries = detections(cuts, seen)
    data.draw(st.randoms(use_true_random=False)).shuffle(entries)
    merge_detections(write_json(tmp_path / "predictions.json", entries), tmp_path, tmp_path / "out")
    task_name = "Task1" if task == "obb" else "Task2"
    found = [
        (image, name, points)
        for name in NAMES
        for image, _, points in submission(tmp_path / "out")[f"{task_name}_{name}.txt"]
    ]
    assert len(found) == len(expected)
    for image, name, points in expected:
        errors = [np.abs(np.subtract(points, other)).max() for i, n, other in found if (i, n) == (image, name)]
        assert min(errors) < 0.02


def test_an_oriented_object_cut_by_all_tiles_comes_back_whole(tmp_path):
    ship = Annotation("ship", tuple(cv2.boxPoints(((90, 50), (50, 12), 20)).ravel().tolist()))
    cuts = tiled(
        tmp_path,
        [(AnnotatedImage("P1", Path("a"), Path("a.png"), None, [ship]), (180, 100))],
        TileSettings(100, 20),
        "obb",
    )
    assert [len(tile.objects) for tile in cuts[0].tiles] == [1, 1]
    merge_detections(write_json(tmp_path / "p.json", detections(cuts, lambda *_: 0.9)), tmp_path, tmp_path / "out")
    ((image, score, points),) = submission(tmp_path / "out")["Task1_ship.txt"]
    assert (image, score) == ("P1", 0.9)
    np.testing.assert_allclose(points, ship.points, atol=0.01)


def test_both_kinds_of_files_give_the_same_submission(folder):
    entries = [
        entry(0, (5, 10, 40, 30), 2, 0.75),
        entry(80, (50, 20, 20, 10), 1, 0.5),
        entry(80, (0, 40, 12, 8), 2, 0.25),
    ]
    labels = folder / "labels"
    labels.mkdir()
    for item in entries:
        x, y, width, height = item["bbox"]
        shares = [(x + width / 2) / 100, (y + height / 2) / 100, width / 100, height / 100]
        with (labels / f"{item['image_id']}.txt").open("a") as file:
            file.write(f"{item['category_id'] - 1} {' '.join(f'{share:g}' for share in shares)} {item['score']}\n")
    merge(folder, entries)
    merge_detections(labels, folder / "data", folder / "from_labels")
    assert (
        submission(folder / "from_labels")
        == submission(folder / "merged")
        == {
            "Task2_small-vehicle.txt": [("P1", 0.5, [130, 20, 150, 30])],
            "Task2_ship.txt": [("P1", 0.75, [5, 10, 45, 40]), ("P1", 0.25, [80, 40, 92, 48])],
        }
    )


def test_oriented_label_files_are_read(folder):
    (folder / "labels").mkdir()
    (folder / "labels" / "P1__1__80___0.txt").write_text("1 0.1 0.2 0.3 0.2 0.3 0.4 0.1 0.4 0.5\n\n")
    merged = merge_detections(folder / "labels", folder / "data", folder / "merged")
    assert merged.oriented
    assert submission(folder / "merged")["Task1_ship.txt"] == [("P1", 0.5, [90, 20, 110, 20, 110, 40, 90, 40])]


# ------------------------------------------------------------------------------------------ suppression


def test_repetitions_across_tiles_are_dropped_class_by_class(folder):
    same = [entry(0, (85, 10, 10, 10), 1, 0.6), entry(80, (5, 10, 10, 11), 1, 0.9), entry(80, (5, 10, 10, 10), 2, 0.3)]
    merged = merge(folder, same)
    assert submission(folder / "merged") == {
        "Task2_small-vehicle.txt": [("P1", 0.9, [85, 10, 95, 21])],
        "Task2_ship.txt": [("P1", 0.3, [85, 10, 95, 20])],
    }
    assert (merged.tiles, merged.images, merged.found) == (2, 1, 3)
    assert merged.kept == {"small-vehicle": 1, "ship": 1}


@pytest.mark.parametrize(("iou", "count"), [(None, 2), (0.3, 1), (0.4, 2), (0.0, 1), (1.0, 2)])
def test_the_threshold_decides_what_is_a_duplicate(folder, iou, count):
    # Two boxes of 10 x 10 that share half of their area overlap by a third.
    merged = merge(folder, [entry(0, (10, 10, 10, 10)), entry(0, (15, 10, 10, 10))], iou=iou)
    assert merged.kept["small-vehicle"] == count


def test_uncertain_detections_are_dropped_on_request(folder):
    merged = merge(folder, [entry(score=0.2), entry(80, score=0.3)], min_confidence=0.3)
    assert (merged.found, merged.kept["small-vehicle"]) == (1, 1)


@settings(max_examples=40)
@given(st.integers(0, 2**32 - 1), st.integers(0, 120), st.floats(0.05, 0.9))
def test_oriented_boxes_are_suppressed_one_by_one(seed, count, iou):
    rng = np.random.default_rng(seed)
    boxes = [
        ((rng.uniform(0, 100), rng.uniform(0, 100)), rng.uniform(5, 40, 2), rng.uniform(0, 90)) for _ in range(count)
    ]
    corners = np.array([cv2.boxPoints(each) for each in boxes], dtype=np.float64).reshape(-1, 4, 2)
    rectangles = torch.from_numpy(_rectangles(corners))
    overlap = batch_probiou(rectangles, rectangles).numpy() > iou
    low, high = corners.min(1), corners.max(1)
    overlap &= ((low[:, None] < high[None]) & (low[None] < high[:, None])).all(-1)
    kept = []
    for number in range(count):
        if not overlap[kept, number].any():
            kept.append(number)
    assert _suppress_oriented(corners, iou).tolist() == kept


def test_many_oriented_boxes_are_suppressed_as_few_are():
    # More boxes than in one step: a grid, each box three times.
    centres = np.stack(np.meshgrid(np.arange(0, 1200, 30), np.arange(0, 1200, 30)), -1).reshape(-1, 2)
    shape = np.array([[-8, -4], [8, -4], [8, 4], [-8, 4]], dtype=np.float64)
    corners = np.concatenate([centres[:, None] + shape, centres[:, None] + shape + 1, centres[:, None] + shape - 1])
    np.testing.assert_array_equal(_suppress_oriented(corners, 0.3), np.arange(len(centres)))


def test_a_box_that_is_dropped_drops_no_other(folder):
    # Each overlaps the next, the first and the last do not.
    chain = np.array([[x, 0, x + 20, 0, x + 20, 10, x, 10] for x in (0, 8, 16)], dtype=np.float64).reshape(-1, 4, 2)
    assert _suppress_oriented(chain, 0.4).tolist() == [0, 2]


# ------------------------------------------------------------------------------------------------- files


def test_no_detections_give_empty_files(folder):
    merged = merge(folder, [])
    assert submission(folder / "merged") == {"Task2_ship.txt": [], "Task2_small-vehicle.txt": []}
    assert sum(merged.kept.values()) == merged.images == 0


def test_the_data_set_may_be_named_by_its_yaml(folder):
    (folder / "anywhere.yaml").write_text(yaml.safe_dump({"path": str(folder / "data"), "names": list(NAMES)}))
    (folder / "data" / "inside.yaml").write_text(yaml.safe_dump({"names": list(NAMES)}))
    write_json(folder / "p.json", [entry()])
    for number, path in enumerate(("anywhere.yaml", "data/inside.yaml")):
        merge_detections(folder / "p.json", folder / path, folder / f"out{number}")
    assert submission(folder / "out0") == submission(folder / "out1")


def test_the_command_prints_the_numbers_of_detections(folder, capsys):
    write_json(folder / "p.json", [entry(score=0.4), entry(score=0.5), entry(80, number=2)])
    options = {
        "predictions": str(folder / "p.json"),
        "data": str(folder / "data"),
        "out": str(folder / "new" / "merged"),
    }
    merge_command.run(words(options))
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert lines[:2] == ["small-vehicle 1", "ship 1"]
    assert lines[2].startswith("3 detections in 2 tiles of 1 images, 2 after merging: ")
    assert lines[2].endswith("/new/merged/Task2_<class>.txt")


@pytest.mark.parametrize("missing", ["predictions", "data", "out"])
def test_missing_options_are_reported(missing):
    options = {"predictions": "p.json", "data": "d", "out": "o"}
    del options[missing]
    with pytest.raises(DS2D2Error, match=f"{missing}= is missing"):
        merge_command.run(words(options))


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        (
            [entry(), entry(file_name="P2__1__0___0.png")],
            r"detection 2: 'P2__1__0___0' is not a tile of val; pass data=",
        ),
        ([entry(number=3)], "detection 1: class 2, but the data set has 2"),
        ([entry(number=0)], "detection 1: class -1"),
        ([entry(score=1.5)], "detection 1: a score outside of 0 to 1"),
        ([entry(score=float("nan"))], "detection 1: a score outside of 0 to 1"),
        ([entry(bbox=(1, 2, float("inf"), 4))], "or a coordinate that is not a number"),
        ([entry(bbox=(1, 2, 3))], "detection 1: is not as 'yolo val save_json=True' writes it"),
        ([entry(poly=[1, 2, 3, 4])], "detection 1: is not as"),
        ([entry(poly=[1, 2, 3, 4, 5])], "detection 1: is not as"),
        ([entry(score="high")], "detection 1: is not as"),
        ([entry(bbox=None)], "detection 1: is not as"),
        ([entry(category_id=float("inf"))], "detection 1: is not as"),
        ([entry(score=10**400)], "detection 1: is not as"),
        ([{"image_id": 1}], "detection 1: is not as"),
        (["text"], "detection 1: is not as"),
        ([entry(), entry(poly=[1, 2, 3, 4, 5, 6, 7, 8])], "detection 2: oriented and horizontal boxes together"),
        ({"annotations": []}, "is not a list of detections"),
    ],
)
def test_predictions_that_do_not_fit_are_reported_in_one_line(folder, entries, message):
    with pytest.raises(DS2D2Error, match=message):
        merge(folder, entries)
    assert not (folder / "merged").exists()
    assert not list(folder.glob("merged*"))


@pytest.mark.parametrize("content", [b"", b'[{"image_id": ', b"\xff\xfe", b"[" * 100_000])
def test_a_file_that_is_no_json_is_reported_in_one_line(folder, content):
    (folder / "p.json").write_bytes(content)
    with pytest.raises(DS2D2Error, match=r"p\.json: is not a JSON file"):
        merge_detections(folder / "p.json", folder / "data", folder / "merged")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("P1__1__0___0.txt", "0 0.5 0.5 0.1 0.1\n", r"P1__1__0___0\.txt:1: has no confidence; .* save_conf=True"),
        ("P1__1__0___0.txt", "0 .5 .5 .1 .1 .9\n0 .5\n", r":2: is not as 'yolo predict save_txt=True' writes it"),
        ("P1__1__0___0.txt", "x 0.5 0.5 0.1 0.1 0.9\n", ":1: is not as"),
        ("P1__1__0___0.txt", "0 0.5 0.5 nan 0.1 0.9\n", ":1: a score outside of 0 to 1, or a coordinate"),
        ("P1__1__0___0.txt", "7 0.5 0.5 0.1 0.1 0.9\n", ":1: class 7"),
        ("P9.txt", "", "'P9' is not a tile of val"),
        ("P1__1__0___0.json", "", "has no label files; pass the folder labels"),
    ],
)
def test_label_files_that_do_not_fit_are_reported_in_one_line(folder, name, content, message):
    (folder / "labels").mkdir()
    (folder / "labels" / name).write_text(content)
    with pytest.raises(DS2D2Error, match=message):
        merge_detections(folder / "labels", folder / "data", folder / "merged")
    assert not (folder / "merged").exists()


def test_the_folder_above_the_label_files_is_reported(folder):
    (folder / "labels").mkdir()
    with pytest.raises(DS2D2Error, match=r"has no label files; pass predictions=.*labels$"):
        merge_detections(folder, folder / "data", folder / "merged")


def test_a_folder_that_exists_is_left_as_it_is(folder):
    (folder / "merged").mkdir()
    (folder / "merged" / "notes.txt").write_text("precious")
    with pytest.raises(DS2D2Error, match="merged: exists; pass another out="):
        merge(folder, [entry()])
    assert [path.name for path in (folder / "merged").iterdir()] == ["notes.txt"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"iou": 1.5}, "iou=1.5: must be from 0 to 1"),
        ({"iou": "half"}, "iou=half: must be from 0 to 1"),
        ({"min_confidence": -1}, "min_confidence=-1"),
        ({"split": "test"}, "split=test: no such split; pass split=val"),
    ],
)
def test_senseless_options_are_refused(folder, options, message):
    with pytest.raises(DS2D2Error, match=message):
        merge(folder, [entry()], **options)


@pytest.mark.parametrize("name", ["predictions", "data", "out"])
def test_impossible_paths_are_reported(folder, name):
    paths = {"predictions": folder / "p.json", "data": folder / "data", "out": folder / "merged"}
    with pytest.raises(DS2D2Error, match=f"{name}=~nobody-of-this-name: is not a usable path"):
        merge_detections(**(paths | {name: "~nobody-of-this-name"}))


def test_missing_files_are_reported(folder):
    with pytest.raises(DS2D2Error, match=r"nowhere\.json: no such file or folder"):
        merge_detections(folder / "nowhere.json", folder / "data", folder / "merged")
    with pytest.raises(DS2D2Error, match=r"nowhere\.yaml: no such file"):
        merge_detections(folder / "nowhere.json", folder / "nowhere.yaml", folder / "merged")
    with pytest.raises(DS2D2Error, match=r"tiles\.jsonl: no such file"):
        merge_detections(folder / "nowhere.json", folder, folder / "merged")


def test_a_tile_that_two_splits_have_needs_the_split(tmp_path):
    (tmp_path / "data").mkdir()
    cut = cut_tiles(AnnotatedImage("P1", Path("a"), Path("a.png"), None), (180, 100), TileSettings(100, 20), "detect")
    with TileMapWriter(tmp_path / "data", "detect", NAMES, TileSettings(100, 20)) as tile_map:
        tile_map.add("train", cut)
        tile_map.add("val", cut)
    with pytest.raises(DS2D2Error, match="'P1__1__0___0' is a tile of train and val; pass split=train"):
        merge(tmp_path, [entry()])
    assert merge(tmp_path, [entry()], split="val").kept["small-vehicle"] == 1


@pytest.mark.parametrize("names", [("a/b", "c"), ("a b", "a-b")])
def test_classes_that_cannot_name_a_file_are_refused(tmp_path, names):
    (tmp_path / "data").mkdir()
    with TileMapWriter(tmp_path / "data", "detect", names, TileSettings()):
        pass
    with pytest.raises(DS2D2Error, match="cannot be the name of a file"):
        merge(tmp_path, [])


# ------------------------------------------------------------------------------------------- Ultralytics


@pytest.mark.parametrize("task", ["detect", "obb"])
def test_what_ultralytics_writes_for_tiles_is_merged(tmp_path, task):
    names = [f"class-{number}" for number in range(80)]  # as many as the models have
    pixels = np.random.default_rng(0).integers(0, 255, (100, 150, 3), np.uint8)
    cv2.imwrite(str(tmp_path / "P1.png"), pixels)
    for kind in ("images", "labels"):
        (tmp_path / "data" / kind / "val").mkdir(parents=True)
    ship = Annotation("ship", (10.0, 10.0, 40.0, 40.0))
    image = AnnotatedImage("P1", tmp_path / "P1.txt", tmp_path / "P1.png", None, [ship])
    chosen = TileSettings(64, 16)
    cut = write_tiles(image, chosen, task, tmp_path / "data/images/val")
    with TileMapWriter(tmp_path / "data", task, names, chosen) as tile_map:
        tile_map.add("val", cut)
    corners = "0.2 0.2 0.6 0.2 0.6 0.6 0.2 0.6" if task == "obb" else "0.4 0.4 0.4 0.4"
    for tile in cut.tiles:
        (tmp_path / "data" / "labels" / "val" / f"{tile.name}.txt").write_text(f"1 {corners}\n")
    description = {"path": str(tmp_path / "data"), "train": "images/val", "val": "images/val", "names": names}
    (tmp_path / "data" / "data.yaml").write_text(yaml.safe_dump(description))

    torch.manual_seed(0)
    model = YOLO("yolo11n-obb.yaml" if task == "obb" else "yolo11n.yaml")
    common = {"imgsz": 64, "conf": 1e-4, "max_det": 20, "device": "cpu", "project": str(tmp_path), "verbose": False}
    model.val(data=str(tmp_path / "data/data.yaml"), name="val", save_json=True, plots=False, workers=0, **common)
    model.predict(tmp_path / "data/images/val", name="predict", save_txt=True, save_conf=True, **common)
    from_val = merge_detections(tmp_path / "val/predictions.json", tmp_path / "data/data.yaml", tmp_path / "a")
    from_predict = merge_detections(tmp_path / "predict/labels", tmp_path / "data", tmp_path / "b")
    for merged, out in ((from_val, "a"), (from_predict, "b")):
        assert merged.oriented == (task == "obb")
        assert (merged.tiles, merged.images) == (len(cut.tiles), 1)
        rows = [row for rows in submission(tmp_path / out).values() for row in rows]
        assert merged.found >= len(rows) == sum(merged.kept.values()) > 0

    windows = {tile.name: tile.window for tile in cut.tiles}
    written = []
    for each in json.loads((tmp_path / "val/predictions.json").read_text()):
        x, y, width, height = each.get("bbox", (0, 0, 0, 0))
        points = each.get("poly", [x, y, x + width, y + height])
        written.append(np.array(points) + np.resize(windows[each["image_id"]][:2], len(points)))
    for _, _, points in [row for rows in submission(tmp_path / "a").values() for row in rows]:
        assert np.abs(np.array(written) - points).max(axis=1).min() < 0.01
