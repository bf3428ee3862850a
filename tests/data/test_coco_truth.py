"""Ground truth as COCO: label files as read by Ultralytics, in pixels, and the reverse conversion."""

import json

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from ultralytics.data.utils import check_det_dataset

from ds2d2_yolo.data.coco_truth import coco_truth, read_truth, refused_images, yolo_lines
from ds2d2_yolo.errors import DS2D2Error

NAMES = {0: "ship", 1: "vehicle"}


def write_set(folder, labels, size=(200, 100)):
    """Write a data set of black images and label texts by name; None is an image without a label file."""
    for kind in ("images", "labels"):
        (folder / kind / "val").mkdir(parents=True)
    for name, text in labels.items():
        Image.new("RGB", size).save(folder / "images" / "val" / f"{name}.png")
        if text is not None:
            (folder / "labels" / "val" / f"{name}.txt").write_text(text, newline="")
    (folder / "data.yaml").write_text(
        yaml.safe_dump({"path": str(folder), "train": "images/val", "val": "images/val", "names": NAMES})
    )
    return check_det_dataset(str(folder / "data.yaml"))


def label_of(boxes=(), segments=(), classes=None, shape=(100, 200)):
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    classes = np.zeros(len(segments) or len(boxes)) if classes is None else np.array(classes)
    polygons = [np.array(points, np.float32).reshape(-1, 2) for points in segments]
    return {
        "im_file": "a.png",
        "shape": shape,
        "cls": classes.reshape(-1, 1).astype(np.float32),
        "bboxes": boxes,
        "segments": polygons,
    }


def parse(lines):
    return np.array([[float(word) for word in line.split()] for line in lines])


def test_boxes_come_out_in_pixels_with_ids_from_1(tmp_path):
    data = write_set(tmp_path, {"b": "1 0.5 0.5 0.25 0.5\n0 0.1 0.2 0.1 0.2\n", "a": ""})
    truth = read_truth(data)
    assert truth["images"] == [
        {"id": 1, "file_name": "images/val/a.png", "width": 200, "height": 100},
        {"id": 2, "file_name": "images/val/b.png", "width": 200, "height": 100},
    ]
    assert truth["categories"] == [{"id": 1, "name": "ship"}, {"id": 2, "name": "vehicle"}]
    first, second = truth["annotations"]
    assert {key: first[key] for key in ("id", "image_id", "category_id", "bbox", "area", "iscrowd")} == {
        **{"id": 1, "image_id": 2, "category_id": 2},
        **{"bbox": [75.0, 25.0, 50.0, 50.0], "area": 2500.0, "iscrowd": 0},
    }
    assert (second["id"], second["category_id"]) == (2, 1)
    assert second["bbox"] == pytest.approx([10, 10, 20, 20], abs=1e-5)


def test_labels_are_read_as_ultralytics_reads_them(tmp_path):
    data = write_set(
        tmp_path,
        {
            "duplicate": "0 0.5 0.5 0.2 0.2\r\n0 0.5 0.5 0.2 0.2\r\n1 0.5 0.5 0.2 0.2\r\n",
            "polygon": "0 0.2 0.2 0.6 0.2 0.6 0.4 0.2 0.4\n",
            "empty": "\n",
            "missing": None,
        },
    )
    truth = read_truth(data)
    names = {image["id"]: image["file_name"].split("/")[-1] for image in truth["images"]}
    assert sorted(names.values()) == ["duplicate.png", "empty.png", "missing.png", "polygon.png"]
    found = [(names[item["image_id"]], item["category_id"]) for item in truth["annotations"]]
    assert found == [("duplicate.png", 1), ("duplicate.png", 2), ("polygon.png", 1)]
    assert truth["annotations"][2]["bbox"] == pytest.approx([40, 20, 80, 20], abs=1e-4)


def test_a_rotated_image_has_the_size_it_is_shown_with(tmp_path):
    data = write_set(tmp_path, {})
    exif = Image.Exif()
    exif[274] = 6  # turn by 90 degrees to show
    Image.new("RGB", (200, 100)).save(tmp_path / "images" / "val" / "a.jpg", exif=exif)
    (tmp_path / "labels" / "val" / "a.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    truth = read_truth(data)
    assert (truth["images"][0]["width"], truth["images"][0]["height"]) == (100, 200)
    assert truth["annotations"][0]["bbox"] == pytest.approx([40, 80, 20, 40], abs=1e-4)


def test_damaged_images_and_labels_are_left_out_and_listed(tmp_path):
    data = write_set(
        tmp_path, {"good": "0 0.5 0.5 0.2 0.2\n", "class": "7 0.5 0.5 0.2 0.2\n", "far": "0 5 5 1 1\n", "torn": ""}
    )
    torn = tmp_path / "images" / "val" / "torn.png"
    torn.write_bytes(b"no image at all")
    assert [image["file_name"] for image in read_truth(data)["images"]] == ["images/val/good.png"]
    refused = refused_images(sorted((tmp_path / "images" / "val").iterdir()), data)
    assert {file.split("/")[-1]: "exceeds" in reason for file, reason in refused.items()} == {
        **{"class.png": True, "far.png": False, "torn.png": False}
    }
    assert "non-normalized" in refused[str(tmp_path / "images" / "val" / "far.png")]


def test_a_box_ends_at_the_edge_of_its_image():
    truth = coco_truth([label_of([[0.0, 0.5, 0.5, 0.5], [1.0, 1.0, 0.1, 0.1]])], NAMES)
    assert truth["annotations"][0]["bbox"] == [0.0, 25.0, 50.0, 50.0]
    assert truth["annotations"][0]["area"] == 2500.0
    assert truth["annotations"][1]["bbox"] == pytest.approx([190, 95, 10, 5], abs=1e-5)


def test_an_oriented_box_keeps_its_corners_and_its_own_area():
    # A square of side 20 * sqrt(2) rotated by 45 degrees, in an image that is twice as wide as high
    diamond = [0.5, 0.3, 0.6, 0.5, 0.5, 0.7, 0.4, 0.5]
    (item,) = coco_truth([label_of([[0.5, 0.5, 0.2, 0.4]], [diamond])], NAMES, "obb")["annotations"]
    assert item["segmentation"] == [pytest.approx([100, 30, 120, 50, 100, 70, 80, 50], abs=1e-4)]
    assert item["bbox"] == pytest.approx([80, 30, 40, 40], abs=1e-4)
    assert item["area"] == pytest.approx(800, rel=1e-5)
    assert item["rbox"][:4] == pytest.approx([100, 50, 800**0.5, 800**0.5], rel=1e-5)
    assert np.sin(2 * item["rbox"][4]) ** 2 == pytest.approx(1, rel=1e-5), "turned by 45 degrees"


def test_boxes_are_no_ground_truth_for_obb():
    with pytest.raises(DS2D2Error, match=r"a\.png: its label file holds boxes, task=obb needs the corners"):
        coco_truth([label_of([[0.5, 0.5, 0.2, 0.2]])], NAMES, "obb")


def test_file_names_outside_the_folder_stay_absolute(tmp_path):
    label = label_of()
    for file, root, name in (
        (tmp_path / "set" / "a.png", tmp_path / "set", "a.png"),
        (tmp_path / "a.png", tmp_path / "set", (tmp_path / "a.png").as_posix()),
        (tmp_path / "a.png", None, (tmp_path / "a.png").as_posix()),
    ):
        assert coco_truth([{**label, "im_file": str(file)}], NAMES, root=root)["images"][0]["file_name"] == name


def test_a_set_written_back_reads_the_same(tmp_path):
    texts = {"a": "0 0.123456 0.3 0.1 0.2\n1 0.7 0.7 0.31 0.22\n", "b": ""}
    truth = read_truth(write_set(tmp_path / "one", texts))
    again = {name.split("/")[-1][:-4]: "\n".join(lines) for name, lines in yolo_lines(truth).items()}
    second = read_truth(write_set(tmp_path / "two", again))
    assert second["images"] == truth["images"]
    for one, two in zip(truth["annotations"], second["annotations"], strict=True):
        assert two["bbox"] == pytest.approx(one["bbox"], rel=1e-6)
        assert two["category_id"] == one["category_id"]


inside = st.tuples(*[st.floats(1e-4, 0.9999)] * 4).filter(
    lambda ends: abs(ends[0] - ends[1]) > 1e-4 and abs(ends[2] - ends[3]) > 1e-4
)


@settings(max_examples=100)
@given(st.lists(st.tuples(inside, st.integers(0, 1)), max_size=5), st.integers(10, 9000), st.integers(10, 9000))
def test_boxes_survive_the_round_trip(objects, width, height):
    ends = np.array([item[0] for item in objects]).reshape(-1, 4)
    x, y = np.sort(ends[:, :2], axis=1), np.sort(ends[:, 2:], axis=1)
    boxes = np.stack([x.mean(1), y.mean(1), x[:, 1] - x[:, 0], y[:, 1] - y[:, 0]], 1)
    label = label_of(boxes, classes=[item[1] for item in objects], shape=(height, width))
    truth = json.loads(json.dumps(coco_truth([label], NAMES)))
    back = parse(yolo_lines(truth)["a.png"]).reshape(-1, 5)
    np.testing.assert_array_equal(back[:, 0], label["cls"][:, 0])
    np.testing.assert_allclose(back[:, 1:], label["bboxes"], rtol=1e-6)


@settings(max_examples=100)
@given(
    st.lists(st.lists(st.floats(0, 1, width=32), min_size=8, max_size=8), max_size=5),
    st.integers(10, 9000),
    st.integers(10, 9000),
)
def test_corners_survive_the_round_trip(polygons, width, height):
    boxes = np.full((len(polygons), 4), 0.5)
    label = label_of(boxes, polygons, shape=(height, width))
    truth = json.loads(json.dumps(coco_truth([label], NAMES, "obb")))
    back = parse(yolo_lines(truth, "obb")["a.png"]).reshape(-1, 9)
    np.testing.assert_allclose(back[:, 1:], np.reshape(polygons, (-1, 8)), rtol=1e-6)


def test_a_split_that_cannot_be_read_is_reported_in_one_line(tmp_path):
    data = write_set(tmp_path, {"a": "0 0.5 0.5 0.2 0.2\n"})
    with pytest.raises(DS2D2Error, match="split=test: the data YAML has no line 'test:'"):
        read_truth(data, "test")
    with pytest.raises(DS2D2Error, match=r"OBB dataset requires|label file holds boxes"):
        read_truth(data, task="obb")
    (tmp_path / "nothing").mkdir()
    with pytest.raises(DS2D2Error, match=r"split=val: .*Error loading data from"):
        read_truth({**data, "val": str(tmp_path / "nothing")})
    (tmp_path / "labels" / "val" / "a.txt").write_text("0 nan\n")
    with pytest.raises(DS2D2Error, match="split=val: No valid images found"):
        read_truth(data)
