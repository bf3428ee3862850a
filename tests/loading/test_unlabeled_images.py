"""Images without labels: found, and without those that the data set has."""

import os
import shutil
from pathlib import Path

import pytest
from yolo_sets import encoded, put, write

from ds2d2_yolo.errors import DS2D2Error
from ds2d2_yolo.loading.unlabeled import find_unlabeled, fingerprint_of_unlabeled, unlabeled_entries


@pytest.fixture
def data(tmp_path):
    """A data set with a validation and a test image, and three images without labels."""
    root = tmp_path / "set"
    for split in ("train", "val", "test"):
        put(root, split, "a.png")
    for index in range(3):
        write(tmp_path / "more" / f"{index}.png", encoded(seed=index))
    splits = {name: str(root / "images" / name) for name in ("train", "val", "test")}
    return {**splits, "path": root, "channels": 3, "yaml_file": "set.yaml"}


def more(data):
    return data["path"].parent / "more"


def test_images_of_a_folder_are_found(data):
    found = find_unlabeled([str(more(data))], data)
    assert [image.name for image in found.images] == ["0.png", "1.png", "2.png"]
    assert found.left_out == {}


def test_a_list_is_as_good_as_a_folder(data):
    listed = write(data["path"] / "list.txt", "".join(f"{more(data) / f'{i}.png'}\n" for i in range(2)))
    assert len(find_unlabeled([str(listed)], data).images) == 2


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_images_of_other_splits_are_left_out(data, split):
    """Whatever they are called: it is their bytes that count."""
    shutil.copyfile(data["path"] / "images" / split / "a.png", more(data) / "other.png")
    found = find_unlabeled([str(more(data))], data)
    assert found.left_out == {f"also in {split}": 1}
    assert "other.png" not in {image.name for image in found.images}


def test_a_linked_image_is_left_out(data):
    (more(data) / "link.png").symlink_to(data["path"] / "images" / "val" / "a.png")
    assert find_unlabeled([str(more(data))], data).left_out == {"also in val": 1}


def test_an_image_counts_once(data):
    os.link(more(data) / "0.png", more(data) / "again.png")
    found = find_unlabeled([str(more(data)), str(more(data))], data)
    assert len(found.images) == 3
    assert found.left_out == {"named twice": 5}


def test_unreadable_images_are_left_out(data):
    write(more(data) / "broken.png", b"no image")
    assert find_unlabeled([str(more(data))], data).left_out == {"unreadable": 1}


def test_jpegs_that_would_be_rewritten_are_known(data):
    write(more(data) / "cut.jpg", encoded("JPEG", seed=9) + b"  ")
    assert {image.name for image in find_unlabeled([str(more(data))], data).unfinished} == {"cut.jpg"}


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        (["missing"], "no such file or folder"),
        (["empty"], "no images in it; put some there"),
        (["empty.txt"], "no images in it; write one path of an image per line"),
        (["set.yaml"], "no images in it; pass a folder of images, or a text file"),
        (["list.txt"], "do not exist"),
        (["more/0.png"], "unlabeled=.*0.png: is not a list of images"),
        (["set/images/train"], "training set itself"),
        (["set/images/val"], "none of the 1 images is left"),
    ],
)
def test_what_cannot_be_used_is_refused(data, monkeypatch, entries, message):
    root = data["path"].parent
    (root / "empty").mkdir()
    write(root / "list.txt", "/no/such.png\n")
    write(root / "empty.txt", "")
    write(root / "set.yaml", "train: images/train\n")
    with pytest.raises(DS2D2Error, match=message):
        find_unlabeled([str(root / entry) for entry in entries], data)


def test_the_data_yaml_can_name_them(data):
    (data["path"] / "a").mkdir()
    inside = {**data, "unlabeled": ["a", str(more(data))]}
    both = [str(data["path"] / "a"), str(more(data))]
    assert unlabeled_entries(None, inside) == unlabeled_entries(True, inside) == both
    assert unlabeled_entries(False, inside) == []
    assert unlabeled_entries("c", inside) == ["c"]
    assert unlabeled_entries("c,d", inside) == unlabeled_entries("c, d,", inside) == ["c", "d"]
    assert unlabeled_entries(None, data) == []
    with pytest.raises(DS2D2Error, match="no line 'unlabeled:'"):
        unlabeled_entries(True, data)


def test_a_wrong_path_in_the_data_yaml_is_named_as_such(data):
    wrong = {**data, "unlabeled": "moer"}
    with pytest.raises(DS2D2Error, match=r"data=set\.yaml: 'unlabeled: moer' is .*moer, which does not exist"):
        unlabeled_entries(None, wrong)
    assert unlabeled_entries(False, wrong) == []
    assert unlabeled_entries("more", wrong) == ["more"]


def test_a_fingerprint_is_of_the_images(data):
    before = fingerprint_of_unlabeled([str(more(data))])
    moved = shutil.copytree(more(data), Path(f"{more(data)}-2"))
    assert fingerprint_of_unlabeled([str(moved)]) == before
    write(moved / "0.png", encoded(seed=77))
    assert fingerprint_of_unlabeled([str(moved)]) != before
