"""Data sets that a training cannot use are refused before it starts."""

import json

import pytest
from yolo_sets import put, write

from ds2d2_yolo.errors import DS2D2Error
from ds2d2_yolo.loading.data import load_training_data


@pytest.fixture
def data(tmp_path):
    """The YAML of a data set with a training and a validation image, and an empty folder of test images."""
    root = tmp_path / "set"
    for split in ("train", "val"):
        put(root, split, "a.png")
    (root / "images" / "test").mkdir()
    splits = {name: f"images/{name}" for name in ("train", "val", "test")}
    return write(root / "data.yaml", json.dumps({"path": str(root), **splits, "names": ["ship"]}))


def test_the_split_for_evaluation_must_have_images(data):
    with pytest.raises(DS2D2Error, match="has no images; put some there, or correct 'test:'"):
        load_training_data(str(data), "detect", "test")
    put(data.parent, "test", "a.png", labels="7 0.5 0.5 0.2 0.2\n")
    with pytest.raises(DS2D2Error, match="none of the 1 validation images can be used"):
        load_training_data(str(data), "detect", "test")


@pytest.mark.parametrize("split", ["val", "test"])
@pytest.mark.parametrize("labels", [None, ""])
def test_the_split_for_evaluation_must_have_objects(split, labels, data):
    put(data.parent, split, "a.png", labels=labels)
    if labels is None:
        (data.parent / "labels" / split / "a.txt").unlink(missing_ok=True)
    with pytest.raises(DS2D2Error, match="none of the 1 validation images has objects; write label files, such as"):
        load_training_data(str(data), "detect", split)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (r"images\train\a.png", r"none of the 1 training images exists, .*; in list\.txt write / in place of \\"),
        (r"C:\ships\a.png", r"none of the 1 training images exists, .*; in list\.txt write / in place of \\"),
        ("b.png", "none of the 1 training images exists, for example b.png; correct the paths in the list"),
        ("a.png", "names a.png without a folder, .*; write its whole path, or ./a.png if the list lies beside it"),
    ],
)
def test_lists_that_ultralytics_cannot_read_get_advice(line, message, data, monkeypatch):
    write(data.parent / "list.txt", f"{line}\n")
    write(data, data.read_text().replace('"images/train"', '"list.txt"'))
    monkeypatch.chdir(data.parent / "images" / "train")
    with pytest.raises(DS2D2Error, match=message):
        load_training_data(str(data), "detect")


@pytest.mark.parametrize("split", ["train", "val"])
def test_both_splits_must_have_an_object_of_the_chosen_classes(split, data):
    for name in ("train", "val"):
        put(data.parent, name, "a.png", labels="1 0.5 0.5 0.2 0.2\n" if name == split else "0 0.5 0.5 0.2 0.2\n")
    write(data, data.read_text().replace('["ship"]', '["ship", "plane"]'))
    which = {"train": "training", "val": "validation"}[split]
    for classes in (0, [0], [0, 7]):
        with pytest.raises(DS2D2Error, match=rf"none of the 1 {which} images has an object of classes="):
            load_training_data(str(data), "detect", classes=classes)
    assert load_training_data(str(data), "detect", classes=[0, 1])


def test_a_split_that_is_not_used_may_be_unusable(data):
    put(data.parent, "test", "a.png")
    put(data.parent, "val", "a.png", image=b"")
    assert load_training_data(str(data), "detect", "test")
