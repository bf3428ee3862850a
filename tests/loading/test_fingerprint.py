"""Image files of a data YAML, and fingerprints of what a run depends on."""

import os
import shutil

import numpy as np
import pytest
from training_helpers import write_data
from ultralytics.data.utils import check_det_dataset

from ds2d2_yolo.loading.caches import outdated_caches
from ds2d2_yolo.loading.fingerprint import fingerprint_of_data
from ds2d2_yolo.loading.images import images_of_split


def described(folder, more=""):
    """A data set with the splits train, val and test."""
    path = write_data(folder, train=2, val=2)
    for kind in ("images", "labels"):
        shutil.copytree(folder / kind / "val", folder / kind / "test")
    path.write_text(f"{path.read_text()}test: images/test\n{more}")
    return check_det_dataset(str(path))


@pytest.mark.parametrize("split", ["", [""], None])
def test_a_split_without_a_name_has_no_images(split):
    assert images_of_split(split) == []  # and the disk is not searched


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_whatever_changes_in_a_data_set_is_a_change(split, tmp_path):
    data = described(tmp_path / "set")
    image, label = (
        tmp_path / "set" / kind / split / f"0.{end}" for kind, end in (("images", "png"), ("labels", "txt"))
    )

    def appear(target, content):
        return lambda: target.write_bytes(content)

    changes = [
        appear(label, label.read_bytes().replace(b"1", b"2", 1)),  # of the same size
        label.unlink,
        appear(label, b""),
        appear(label, b"0 0.5 0.5 0.2 0.2\n"),
        appear(image, image.read_bytes() + b" "),
        appear(image.with_name("more.png"), image.read_bytes()),
        appear(label.with_name("more.txt"), b"0 0.5 0.5 0.2 0.2\n"),
        image.unlink,
    ]
    seen = [fingerprint_of_data(data, split)]
    for change in changes:
        change()
        seen.append(fingerprint_of_data(data, split))
    same = [number for number in range(len(changes)) if seen[number] == seen[number + 1]]
    assert same == [2]  # no label file and an empty one are the same: an image without objects
    assert len(set(seen)) == len(changes)


def test_a_split_that_is_not_evaluated_does_not_count(tmp_path):
    data = described(tmp_path / "set")
    before = fingerprint_of_data(data, "val"), fingerprint_of_data(data, "train")
    shutil.rmtree(tmp_path / "set" / "labels" / "test")
    assert before == (fingerprint_of_data(data, "val"),) * 2


@pytest.mark.parametrize("line", ["kpt_shape: [4, 2]", "flip_idx: [1, 0, 2, 3]", "kpt_oks_sigmas: [1, 1, 1, 2]"])
def test_keypoints_are_part_of_a_data_set(line, tmp_path):
    plain, other = (described(tmp_path / name, more) for name, more in (("a", ""), ("b", line)))
    assert fingerprint_of_data(plain, "val") != fingerprint_of_data(other, "val")


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_cached_pixels_of_every_used_split_are_compared(split, tmp_path):
    data = described(tmp_path / "set")
    image = tmp_path / "set" / "images" / split / "0.png"
    cached = image.with_suffix(".npy")
    np.save(cached, np.zeros((64, 64, 3), np.uint8))
    os.utime(cached, (2, 2))
    os.utime(image, (1, 1))
    assert outdated_caches(data, split) == [cached]
    assert outdated_caches(data, "val") == ([] if split == "test" else [cached])
