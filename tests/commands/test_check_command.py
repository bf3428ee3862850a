"""`ds2d2 check` as a whole: exit codes, the table, the written files, and mistakes."""

import json
import os
import zlib
from contextlib import suppress

import cv2
import numpy as np
import pytest
from command_words import words
from training_helpers import describe_labels
from yolo_sets import put

from ds2d2_yolo.commands import check
from ds2d2_yolo.data.check import KINDS
from ds2d2_yolo.errors import DS2D2Error
from ds2d2_yolo.resources import resource_folder

GOOD = "0 0.5 0.5 0.2 0.2\n1 0.2 0.2 0.1 0.1\n"
PICTURES = ["classes.png", "density.png", "sizes.png"]


def make(root, labels, names=("ship", "plane"), extra=""):
    """Write a data set with `labels` by `split/name`, None for no label file. Return its YAML."""
    for key, text in labels.items():
        split, name = key.split("/")
        noise = np.random.default_rng(zlib.crc32(key.encode())).integers(0, 255, (48, 64, 3), dtype=np.uint8)
        image = root / "images" / split / f"{name}.png"
        image.parent.mkdir(parents=True, exist_ok=True)
        image.write_bytes(cv2.imencode(".png", noise)[1].tobytes())
        if text is not None:
            label = root / "labels" / split / f"{name}.txt"
            label.parent.mkdir(parents=True, exist_ok=True)
            label.write_text(text)
    splits = sorted({key.split("/")[0] for key in labels})
    entries = "".join(f"{split}: images/{split}\n" for split in splits)
    (root / "data.yaml").write_text(f"path: {root}\n{entries}names: {list(names)}\n{extra}")
    return root / "data.yaml"


@pytest.fixture
def good(tmp_path):
    return make(tmp_path / "set", {"train/a": GOOD, "train/b": "", "val/c": GOOD})


def snapshot(folder):
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file()}


def read(out):
    return json.loads((out / "check.json").read_text())


def test_a_good_data_set_ends_with_0_and_a_whole_report(good, tmp_path, capsys):
    before = snapshot(good.parent)
    assert check.run(words({"data": str(good), "out": str(tmp_path / "out")})) == 0
    assert snapshot(good.parent) == before
    printed = capsys.readouterr().out
    assert "Findings: none" in printed
    assert "no errors, training would neither stop nor lose labels" in printed
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["check.json", *PICTURES]
    content = read(tmp_path / "out")
    assert content["exit_code"] == 0
    train = content["splits"]["train"]
    assert (train["images"], train["used_images"], train["images_without_object"]) == (2, 2, 1)
    assert train["objects_per_class"] == [1, 1]
    assert train["objects_per_image"] == {"median": 1.0, "most": 2, "images_by_objects": {"0": 1, "2": 1}}
    # 128 x 96 and 64 x 48 pixels at 640
    assert train["sizes"]["objects_per_band"] == [0, 0, 0, 1, 1]
    assert sum(train["sizes"]["histogram"]) == 2
    assert train["cells"]["16"] == {
        "pixels": 32.0,
        "share_with_others": 0.0,
        "most": 1,
        "objects_by_centres_in_cell": {"1": 2},
    }
    for name in PICTURES:
        pixels = cv2.imread(str(tmp_path / "out" / name))
        assert pixels.std() > 5, f"{name} is empty"


def test_lost_labels_end_with_1_and_have_file_and_line(tmp_path, capsys):
    data = make(tmp_path / "set", {"train/a": GOOD, "train/b": GOOD + "7 0.5 0.5 0.1 0.1\n", "val/c": GOOD})
    assert check.run(words({"data": str(data), "out": str(tmp_path / "out"), "plots": False})) == 1
    printed = capsys.readouterr().out
    assert "ERROR   labels of unknown classes" in printed
    assert f"what to do: {KINDS['unknown_class'].advice}" in printed
    assert "labels/train/b.txt:3: class 7, the data set has 0 to 1" in printed
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["check.json"]
    content = read(tmp_path / "out")
    assert content["exit_code"] == 1
    assert content["splits"]["train"]["lost_objects"] == 3
    assert content["splits"]["train"]["findings"]["unknown_class"] == {
        "severity": "error",
        "title": KINDS["unknown_class"].title,
        "consequence": KINDS["unknown_class"].consequence,
        "advice": KINDS["unknown_class"].advice,
        "count": 1,
        "places": [{"file": "labels/train/b.txt", "line": 3, "detail": "class 7, the data set has 0 to 1"}],
    }


def test_warnings_alone_end_with_0(tmp_path, capsys):
    data = make(
        tmp_path / "set", {"train/a": GOOD + GOOD, "val/b": GOOD, "val/c": None}, names=("ship", "plane", "car")
    )
    copied = tmp_path / "set/images/val/c.png"
    copied.write_bytes((tmp_path / "set/images/train/a.png").read_bytes())
    assert check.run(words({"data": str(data), "out": str(tmp_path / "out")})) == 0
    printed = capsys.readouterr().out
    for kind in ("duplicate_label", "image_without_label", "class_without_object", "identical_images"):
        assert f"warning {KINDS[kind].title}" in printed
    assert "train and val share 1" in printed
    (shared,) = read(tmp_path / "out")["shared_images"]
    assert (shared["splits"], shared["count"]) == (["train", "val"], 1)


def test_a_set_of_boxes_fails_as_an_oriented_one(good, tmp_path):
    given = {"data": str(good), "plots": False, "out": str(tmp_path / "out")}
    assert check.run(words({**given, "task": "obb"})) == 1
    findings = read(tmp_path / "out")["splits"]["train"]["findings"]
    assert findings["box_instead_of_polygon"]["count"] == 1


def test_existing_results_are_left_alone_unless_asked(good, tmp_path):
    given = {"data": str(good), "plots": False, "out": str(tmp_path / "out")}
    for _ in range(2):
        check.run(words(given))
    assert (tmp_path / "out-2" / "check.json").is_file()
    (tmp_path / "out" / "check.json").write_text("{}")
    check.run(words({**given, "exist_ok": True}))
    assert read(tmp_path / "out")["exit_code"] == 0
    assert not (tmp_path / "out-3").exists()


def test_images_none_reports_the_labels_and_what_is_unknown(good, tmp_path, capsys):
    assert check.run(words({"data": str(good), "out": str(tmp_path / "out"), "images": "none"})) == 0
    assert "were not checked: images=none" in capsys.readouterr().out
    train = read(tmp_path / "out")["splits"]["train"]
    assert (train["objects"], train["sizes"], train["cells"]) == (2, None, None)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["check.json", "classes.png"]


def test_a_missing_test_split_is_a_warning(good, tmp_path, capsys):
    good.write_text(good.read_text() + "test: images/test\n")
    assert check.run(words({"data": str(good), "out": str(tmp_path / "out"), "plots": False})) == 0
    assert "test: " in capsys.readouterr().out
    assert list(read(tmp_path / "out")["missing_splits"]) == ["test"]


def test_four_splits_and_long_names_fit_into_100_columns(tmp_path, capsys):
    names = ["Expressway-toll-station of the northern ring", "plane"]
    data = make(tmp_path / "s", {f"{split}/a": GOOD for split in ("train", "val", "test", "minival")}, names)
    check.run(words({"data": str(data), "out": str(tmp_path / "out")}))
    lines = [line for line in capsys.readouterr().out.splitlines() if str(tmp_path) not in line]
    assert max(map(len, lines)) <= 100
    assert any("minival" in line for line in lines)


def test_splits_of_lists_and_pose_labels_are_read(tmp_path):
    pose = "0 0.5 0.5 0.2 0.2 0.4 0.4 2 0.6 0.6 2\n"
    data = make(tmp_path / "set", {"train/a": pose, "val/c": pose}, ["ship"], "kpt_shape: [2, 3]\n")
    (tmp_path / "set" / "train.txt").write_text("./images/train/a.png\n./images/train/gone.png\n")
    data.write_text(data.read_text().replace("train: images/train", "train: train.txt"))
    assert check.run(words({"data": str(data), "out": str(tmp_path / "out"), "plots": False})) == 1
    train = read(tmp_path / "out")["splits"]["train"]
    assert (train["images"], train["objects"]) == (2, 1)
    assert train["findings"]["missing_image"]["places"][0]["file"] == "images/train/gone.png"


@pytest.mark.parametrize(
    ("change", "complaint", "code"),
    [
        ({"data": None}, "data= is missing", 2),
        ({"task": "segment"}, "task=segment: expected detect or obb", 2),
        ({"images": "some"}, "images=some: expected full, header or none", 2),
        ({"imgsz": 0}, "imgsz=0", 2),
        ({"imgsz": 640.5}, "imgsz=640.5", 2),
        ({"imgsz": 100}, r"strides=\[8, 16, 32\]: .* divide imgsz=100", 2),
        ({"strides": []}, r"strides=\[\]", 2),
        ({"stride": [8]}, "did you mean strides", 2),
        ({"data": "nowhere.yaml"}, "nowhere.yaml", 1),
        ({"out": "a" * 300}, r"out=a+ \.\.\. a+: is not a usable path", 2),
    ],
)
def test_wrong_options_are_reported_in_one_line(good, tmp_path, change, complaint, code):
    with pytest.raises(DS2D2Error, match=complaint) as raised:
        check.run(words({"data": str(good), "out": str(tmp_path / "out"), **change}))
    assert raised.value.exit_code == code
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("split", ["train", "val"])
def test_missing_folders_are_reported_in_one_line(good, tmp_path, split):
    (good.parent / "images" / split).rename(tmp_path / "elsewhere")
    with pytest.raises(DS2D2Error, match=f"images.{split}"):
        check.run(words({"data": str(good), "out": str(tmp_path / "out")}))


@pytest.mark.parametrize("content", ["names: [ship\n", "train: images/train\nval: images/val\n", "- 1\n", ""])
def test_a_malformed_yaml_is_reported_in_one_line(good, tmp_path, content):
    good.write_text(content)
    with pytest.raises(DS2D2Error, match="data="):
        check.run(words({"data": str(good), "out": str(tmp_path / "out")}))


@pytest.mark.parametrize("out", ["images/train", "images/train/out"])
def test_nothing_is_written_among_the_images(good, out):
    before = snapshot(good.parent)
    with pytest.raises(DS2D2Error, match="in a folder of the data set's images"):
        check.run(words({"data": str(good), "out": str(good.parent / out)}))
    assert snapshot(good.parent) == before


def test_nothing_is_written_among_unlabelled_images(good, monkeypatch):
    (good.parent / "more").mkdir()
    (good.parent / "images" / "train" / "a.png").rename(good.parent / "more" / "a.png")
    monkeypatch.chdir(good.parent)
    with pytest.raises(DS2D2Error, match="in a folder of the data set's images"):
        check.run(words({"data": str(good), "unlabeled": "more", "out": "more/out"}))


def test_an_unwritable_place_is_reported_before_the_work(good, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    with pytest.raises(DS2D2Error, match="cannot write to"):
        check.run(words({"data": str(good), "out": str(tmp_path / "file" / "out")}))
    assert capsys.readouterr().out == ""


def test_names_of_shipped_yamls_are_found_from_any_folder(fresh_machine, tmp_path):
    (fresh_machine / "datasets" / "ds2d2-scenes").mkdir(parents=True)
    # Rendering all 550 images would take a minute. The refusal shows that the YAML is found and used.
    with pytest.raises(DS2D2Error, match="exists and is not a rendered data set"):
        check.run(words({"data": "scenes", "out": str(tmp_path / "out")}))


@pytest.mark.parametrize("entry", ["train: images/train\n", "val: images/val\n"])
def test_a_split_that_the_yaml_leaves_empty_is_an_error(good, tmp_path, entry):
    good.write_text(good.read_text().replace(entry, f"{entry.split()[0]}\n"))
    assert check.run(words({"data": str(good), "out": str(tmp_path / "out"), "plots": False})) == 1
    assert "no_images" in read(tmp_path / "out")["splits"][entry.split(":")[0]]["findings"]


def test_unlabelled_images_are_counted_and_compared(good, tmp_path, capsys):
    more = tmp_path / "more"
    more.mkdir()
    for name, key in (("x.png", "train/a"), ("y.png", None), ("z.png", None)):
        source = good.parent / "images" / f"{key}.png" if key else None
        noise = np.random.default_rng(ord(name[0])).integers(0, 255, (48, 64, 3), dtype=np.uint8)
        (more / name).write_bytes(source.read_bytes() if source else cv2.imencode(".png", noise)[1].tobytes())
    out = tmp_path / "out"
    assert check.run(words({"data": str(good), "unlabeled": str(more), "out": str(out)})) == 0
    printed = capsys.readouterr().out
    assert "train and unlabeled share 1" in printed
    assert "left out of the unlabelled images" in printed
    split = read(out)["splits"]["unlabeled"]
    assert (split["images"], split["used_images"], split["objects"], split["findings"]) == (3, 3, 0, {})


def test_the_data_yaml_can_name_unlabelled_images(tmp_path):
    data = make(tmp_path / "set", {"train/a": GOOD, "val/c": GOOD, "more/d": None}, extra="unlabeled: images/more\n")
    assert check.run(words({"data": str(data), "out": str(tmp_path / "out"), "plots": False})) == 0
    assert read(tmp_path / "out")["splits"]["unlabeled"]["images"] == 1


def test_a_shipped_set_is_rendered_by_any_of_its_paths(fresh_machine, monkeypatch):
    rendered = []
    monkeypatch.setattr("ds2d2_yolo.scenes.render_dataset", lambda folder, **how: rendered.append(folder))
    with suppress(DS2D2Error):  # there are still no images
        check.run([f"data={os.path.relpath(resource_folder('datasets') / 'scenes.yaml')}", "plots=False"])
    assert rendered


def test_a_set_with_a_teachers_labels_can_be_checked(good, tmp_path, capsys):
    folder = tmp_path / "labelled"
    put(folder, "", "0000000.png", labels=GOOD, image=(good.parent / "images/train/a.png").read_bytes())
    description = describe_labels(folder, [folder / "labels" / "0000000.txt"])
    given = {"data": str(good), "unlabeled": str(description), "out": str(tmp_path / "out"), "plots": False}
    assert check.run(words(given)) == 0
    assert "train and unlabeled share 1" in capsys.readouterr().out
