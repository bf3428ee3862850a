"""Errors of loaders: an image is only called damaged if it is."""

import cv2
import numpy as np
import pytest
from torch.utils.data import DataLoader
from ultralytics.utils.patches import imread

from ds2d2_yolo.errors import DS2D2Error
from ds2d2_yolo.loading.decoding import name_undecodable_images


class Images:
    """Loads images as Ultralytics' data sets do, and enlarges them as an augmentation can."""

    def __init__(self, file, size=(8, 8)):
        self.file, self.size = str(file), size

    def __len__(self):
        return 1

    def __getitem__(self, index):
        image = imread(self.file)
        if image is None:
            raise FileNotFoundError(f"Image Not Found {self.file}")
        return cv2.resize(image, self.size)


@pytest.fixture
def image(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((64, 64, 3), np.uint8))
    return tmp_path / "a.png"


def load(images, workers=0):
    with name_undecodable_images("ships.yaml"):
        list(DataLoader(images, num_workers=workers))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_image_is_named(workers, image):
    image.write_bytes(image.read_bytes()[:20])
    with pytest.raises(DS2D2Error) as error:
        load(Images(image), workers)
    assert str(error.value).startswith(f"{image}: cannot be decoded, the file is damaged; replace it, ")


@pytest.mark.parametrize("workers", [0, 1])
def test_a_removed_image_is_not_called_damaged(workers, image):
    image.unlink()
    with pytest.raises(DS2D2Error, match=r"a\.png: no such file; put it back"):
        load(Images(image), workers)


def test_an_intact_image_is_not_called_damaged(image):
    message = r"a\.png: could not be loaded, but is intact; if memory ran out"
    with pytest.raises(DS2D2Error, match=message), name_undecodable_images("ships.yaml"):
        raise FileNotFoundError(f"Image Not Found {image}")


@pytest.mark.parametrize("workers", [0, 1])
def test_an_augmentation_that_fails_is_no_damaged_image(workers, image):
    with pytest.raises(cv2.error):
        load(Images(image, size=(0, 0)), workers)


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(
    ("reason", "message"),
    [
        ("Insufficient memory) Failed to allocate 99 bytes", "not enough memory for the images"),
        ("Assertion failed) pixels <= CV_IO_MAX_IMAGE_PIXELS", "an image cannot be decoded .*pixels.*; replace it"),
    ],
)
def test_errors_of_the_decoder_are_told_apart(reason, message, workers, image, monkeypatch):
    def fail(*_):
        raise cv2.error(f"OpenCV(5.0) error: (-4:{reason}")

    monkeypatch.setattr("cv2.imdecode", fail)
    with pytest.raises(DS2D2Error, match=message):
        load(Images(image), workers)
