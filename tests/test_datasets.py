"""The data YAMLs that ship: classes in the reference's order, valid for stock Ultralytics, and a way to the images."""

import re
import shlex

import pytest
import yaml

from ds2d2_yolo.data.classes import DIOR_CLASSES, DOTA_ADDED_CLASSES, DOTA_CLASSES
from ds2d2_yolo.data.shipped import hint_for
from ds2d2_yolo.options import complete_options
from ds2d2_yolo.resources import resource_folder
from ds2d2_yolo.scenes import CLASS_NAMES

CLASSES = {
    "DIOR": DIOR_CLASSES,
    "DIOR-R": DIOR_CLASSES,
    "DOTAv1-hbb": DOTA_CLASSES,
    "DOTAv1.5-hbb": DOTA_CLASSES + DOTA_ADDED_CLASSES["1.5"],
    "coco-folders": DIOR_CLASSES,
    "scenes": CLASS_NAMES,
    "scenes-close": CLASS_NAMES,
    "scenes-demo": ("airplane", "ship", "storagetank"),
    "scenes-demo-obb": ("airplane", "ship", "storagetank"),
    "scenes-obb": CLASS_NAMES,
}
CONVERTED = sorted(name for name in CLASSES if not name.startswith("scenes"))


def path_of(name):
    return resource_folder("datasets") / f"{name}.yaml"


def test_every_shipped_yaml_is_tested_here():
    assert {path.stem for path in resource_folder("datasets").glob("*.yaml")} == set(CLASSES)


@pytest.mark.parametrize("name", CLASSES)
def test_classes_are_those_of_the_reference_in_its_order(name):
    names = yaml.safe_load(path_of(name).read_text())["names"]
    assert list(names) == list(range(len(names)))
    assert tuple(names.values()) == CLASSES[name]


@pytest.mark.parametrize("name", CONVERTED)
def test_stock_ultralytics_reads_it(name, tmp_path, monkeypatch):
    from ultralytics.data import utils

    monkeypatch.setattr(utils, "DATASETS_DIR", tmp_path)
    with pytest.raises(FileNotFoundError, match="images not found"):
        utils.check_det_dataset(str(path_of(name)))
    for split in ("train", "val"):
        (tmp_path / name / "images" / split).mkdir(parents=True)
    data = utils.check_det_dataset(str(path_of(name)))
    assert data["train"] == str(tmp_path / name / "images" / "train")
    assert data["nc"] == len(CLASSES[name])


@pytest.mark.parametrize("name", CONVERTED)
def test_it_downloads_nothing_and_states_origin_and_terms(name):
    text = path_of(name).read_text()
    content = yaml.safe_load(text)
    assert "download" not in content
    assert content["path"] == name
    assert content["convert"]["archive"].startswith("https://")
    assert content["convert"]["command"] in text.partition("path:")[0]
    assert re.search(r"academic", text)
    assert re.search(r"images/train # .*\n.*images/val # ", text)


@pytest.mark.parametrize("name", CONVERTED)
def test_its_command_is_one_that_convert_takes(name):
    command = yaml.safe_load(path_of(name).read_text())["convert"]["command"]
    program, mode, *words = shlex.split(command)
    assert (program, mode) == ("ds2d2", "convert")
    complete_options("convert", dict(word.split("=", 1) for word in words), required=("src",))


@pytest.mark.parametrize("name", CONVERTED)
def test_the_hint_names_what_to_fetch_and_how_to_convert_it(name):
    hint = hint_for(path_of(name))
    how = yaml.safe_load(path_of(name).read_text())["convert"]
    assert hint is not None
    assert "\n" not in hint
    assert all(part in hint for part in (f"{name}.yaml", how["archive"], how["command"]))


def test_there_is_no_hint_for_rendered_scenes_or_other_files(tmp_path):
    assert hint_for(path_of("scenes")) is None
    copy = tmp_path / "DIOR.yaml"
    copy.write_text(path_of("DIOR").read_text())
    assert hint_for(copy) is None
    assert hint_for(tmp_path / "missing.yaml") is None
