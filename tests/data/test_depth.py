"""Images of 16 bits are stretched if asked for. Otherwise there is a warning before a training."""

import cv2
import exports
import miniatures
import numpy as np
import pytest
import yaml
from ultralytics.utils import LOGGER

from ds2d2_yolo.cli import main
from ds2d2_yolo.commands.convert import summary
from ds2d2_yolo.data.check.images import image_facts
from ds2d2_yolo.data.convert import convert_dataset
from ds2d2_yolo.data.depth import Stretch, warn_of_depth
from ds2d2_yolo.errors import DS2D2Error
from ds2d2_yolo.loading.data import load_training_data


def satellite(path, bands=3, dtype=np.uint16):
    """An image of 80 x 80 pixels that uses 11 bits, with another range per band and edges without data."""
    pixels = np.random.default_rng(0).integers(100, 400, (80, 80, bands)) * np.arange(1, bands + 1)
    pixels[:8] = 0
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), pixels.astype(dtype))
    return pixels


@pytest.fixture
def source(tmp_path):
    """Two images of 16 bits, two of 8."""
    miniatures.dota(tmp_path / "DOTA")
    for name in ("train/images/P0001", "val/images/P0003"):
        satellite(tmp_path / "DOTA" / f"{name}.png")
    return tmp_path / "DOTA"


@pytest.mark.parametrize("patch", [0, 64])
@pytest.mark.parametrize("stretch", ["2,98", "0:2047"])
def test_stretched_images_have_8_bits_and_the_report_says_so(tmp_path, source, stretch, patch):
    options = {"overlap": 0} if patch else {}
    conversion = convert_dataset(source, tmp_path / "out", stretch=stretch, patch=patch, **options)
    written = sorted((tmp_path / "out/images/train").glob("P0001*.png"))
    first = cv2.imread(str(written[0]), cv2.IMREAD_UNCHANGED)
    whole = Stretch.of(stretch)(cv2.imread(str(source / "train/images/P0001.png"), cv2.IMREAD_UNCHANGED))
    np.testing.assert_array_equal(first, whole[: first.shape[0], : first.shape[1]])
    assert conversion.manifest["options"]["stretch"] == stretch
    assert conversion.manifest["deep"] == {"images": 2, "stretched": 2}
    assert yaml.safe_load(conversion.data.read_text())["stretch"] == stretch
    assert f"stretched to 8 bits by stretch={stretch}" in summary(conversion)
    eight = cv2.imread(str(next((tmp_path / "out/images/train").glob("P0002*"))), cv2.IMREAD_UNCHANGED)
    assert eight.dtype == np.uint8


@pytest.mark.parametrize("bands", [1, 3])
def test_jpeg_2000_of_16_bits_is_stretched_and_reported(tmp_path, bands):
    source = miniatures.coco(tmp_path / "coco")
    text = (source / "trainval.json").read_text()
    (source / "trainval.json").write_text(text.replace("a.jpg", "a.jp2").replace("b.jpg", "b.jp2"))
    pixels = satellite(source / "trainval" / "a.jp2", bands)
    cv2.imwrite(str(source / "trainval" / "b.jp2"), (pixels % 255).astype(np.uint8))
    conversion = convert_dataset(source, tmp_path / "out", stretch="2,98")
    assert conversion.manifest["deep"] == {"images": 1, "stretched": 1}
    assert cv2.imread(str(tmp_path / "out/images/train/a.png"), cv2.IMREAD_UNCHANGED).max() == 255
    assert image_facts(source / "trainval" / "a.jp2", channels=3).kind == "deep_image"
    assert not image_facts(source / "trainval" / "b.jp2", channels=3).deep


def test_without_stretch_a_note_says_what_to_type(tmp_path, source):
    conversion = convert_dataset(source, tmp_path / "out", patch=0)
    assert (tmp_path / "out/images/train/P0001.png").read_bytes() == (source / "train/images/P0001.png").read_bytes()
    assert conversion.manifest["deep"] == {"images": 2, "stretched": 0}
    (note,) = [note for note in conversion.manifest["notes"] if "8 bits" in note]
    assert "2 images of more than 8 bits, such as train/images/P0001.png" in note
    assert convert_dataset(source, tmp_path / "new", patch=0, stretch=note.partition("stretch=")[2].split()[0]).made


@pytest.mark.parametrize("stretch", ["2,98", "0:2047"])
def test_what_the_note_says_can_be_typed(tmp_path, source, stretch):
    assert main(["convert", f"src={source}", f"out={tmp_path / 'new'}", f"stretch={stretch}", "patch=0"]) == 0


def test_another_stretch_is_another_conversion(tmp_path, source):
    convert_dataset(source, tmp_path / "out", patch=0)
    with pytest.raises(DS2D2Error, match="exists with stretch=None instead of 2,98"):
        convert_dataset(source, tmp_path / "out", patch=0, stretch=[2, 98])


@pytest.mark.parametrize("patch", [0, 64])
def test_images_of_8_bits_are_left_as_they_are(tmp_path, patch):
    options = {"patch": patch, **({"overlap": 0} if patch else {})}
    source = exports.roboflow_voc(tmp_path / "src")
    conversion = convert_dataset(source, tmp_path / "out", stretch="2,98", **options)
    assert "no image has more than 8 bits: stretch= changed nothing" in conversion.manifest["notes"]
    assert "stretch" not in yaml.safe_load(conversion.data.read_text())


def test_floats_can_be_stretched(tmp_path):
    source = exports.roboflow_voc(tmp_path / "src")
    (source / "train/train0_jpg.rf.0a.jpg").unlink()
    satellite(source / "train/train0_jpg.rf.0a.TIF", 1, np.float32)
    assert convert_dataset(source, tmp_path / "out", stretch="2,98").manifest["deep"]["stretched"] == 1
    read = cv2.imread(str(tmp_path / "out/images/train/train0_jpg.rf.0a.png"), cv2.IMREAD_UNCHANGED)
    assert (read.dtype, read.shape, read.max()) == (np.uint8, (80, 80), 255)


@pytest.mark.parametrize("dtype", [np.uint16, np.float32, np.int32])
def test_percentiles_are_those_of_each_band_without_zeros(tmp_path, dtype):
    pixels = satellite(tmp_path / "a.png")
    stretched = Stretch.of("2,98")(pixels.astype(dtype))
    for band in range(3):
        low, high = np.percentile(pixels[8:, :, band], [2, 98])
        expected = np.clip((pixels[..., band] - low) / (high - low), 0, 1) * 255
        np.testing.assert_allclose(stretched[..., band], expected, atol=2)


@pytest.mark.parametrize("value", [np.zeros((4, 4), np.uint16), np.full((4, 4, 3), 7, np.uint16)])
def test_an_image_of_one_value_is_stretched_to_something(value):
    assert Stretch.of("2,98")(value).shape == value.shape
    assert Stretch.of("2,98")(value.astype(np.float32)).dtype == np.uint8


@pytest.mark.parametrize("value", ["2", "a,b", "98,2", "0:nan", "5:5", "-1,50", "0:inf", [1, 2, 3]])
def test_an_unsuitable_stretch_is_reported_with_one_that_fits(tmp_path, source, value):
    with pytest.raises(DS2D2Error, match=r"stretch=.*: expected .*stretch=2,98") as caught:
        convert_dataset(source, tmp_path / "out", stretch=value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("stretch", [None, "2,98"])
def test_a_training_on_16_bits_warns_before_it_begins(tmp_path, source, stretch, monkeypatch, caplog):
    conversion = convert_dataset(source, tmp_path / "out", patch=0, stretch=stretch)
    monkeypatch.setattr(LOGGER, "propagate", True)
    load_training_data(str(conversion.data), "detect")
    warnings = [record.getMessage() for record in caplog.records if "16 bits" in record.getMessage()]
    assert bool(warnings) == (stretch is None)
    assert all("1 of 2 images looked at have 16 bits" in text and "stretch=2,98" in text for text in warnings)


def test_only_a_few_headers_are_looked_at(tmp_path, monkeypatch):
    opened = []
    monkeypatch.setattr("ds2d2_yolo.data.depth._is_deep_file", lambda path: opened.append(path))
    warn_of_depth("data.yaml", [tmp_path / f"{number}.png" for number in range(100_000)])
    warn_of_depth("data.yaml", [tmp_path / f"{number}.jpg" for number in range(100_000)])
    assert len(opened) == 36
