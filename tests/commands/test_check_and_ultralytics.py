"""`ds2d2 check` counts what Ultralytics reads, in every set of the tests. Ultralytics accepts sets that it passes."""

import json
import shutil
from collections import Counter
from copy import copy
from pathlib import Path

import cv2
import miniatures
import numpy as np
import pytest
from training_helpers import write_data
from ultralytics.data.dataset import YOLODataset
from ultralytics.data.utils import check_det_dataset, img2label_paths
from ultralytics.utils import DEFAULT_CFG
from yolo_sets import CORNERS, GOOD, encoded, put, write

from ds2d2_yolo.cli import main
from ds2d2_yolo.data.convert import convert_dataset
from ds2d2_yolo.errors import DS2D2Error
from ds2d2_yolo.loading.data import load_training_data

PUBLISHED = {"DIOR": miniatures.dior, "DOTA": miniatures.dota, "COCO": miniatures.coco, "VOC": miniatures.voc}
TWO = {"train/a.png": GOOD, "train/b.png": f"1 0.2 0.2 0.1 0.1\n{GOOD}", "val/c.png": GOOD}
CUT = encoded("JPEG", 320, 200)[:9000]
ODD = {
    "good": (TWO, {}),
    "only background, empty files": ({"train/a.png": "", "train/b.png": "", "val/c.png": GOOD}, {}),
    "only background, no files": ({"train/a.png": None, "train/b.png": None, "val/c.png": GOOD}, {}),
    "background in val": ({**TWO, "val/c.png": None}, {}),
    "rows twice": ({**TWO, "train/a.png": f"{GOOD}{GOOD}0 .5 .50 2e-1 0.2\n1 0.5 0.5 0.2 0.2\n"}, {}),
    "outlines twice": ({**TWO, "train/a.png": CORNERS + CORNERS + CORNERS.replace("0.2", "0.25")}, {}),
    "class names twice": (TWO, {"names": ["ship", "ship"]}),
    "a class too many": ({**TWO, "train/a.png": f"{GOOD}2 0.5 0.5 0.2 0.2\n"}, {}),
    "boxes among outlines": ({**TWO, "train/a.png": GOOD + CORNERS}, {}),
    "not UTF-8": ({**TWO, "train/a.png": b"\xff\xfe0 0.5"}, {}),
    "a mark and CRLF": ({**TWO, "train/a.png": "\ufeff" + GOOD.replace("\n", "\r\n")}, {}),
    "slightly outside": ({**TWO, "train/a.png": "0 1.005 0.5 0.2 0.2\n0 -0.005 0.5 0.2 0.2\n"}, {}),
    "far outside": ({**TWO, "train/a.png": "0 1.05 0.5 0.2 0.2\n"}, {}),
    "without area": ({**TWO, "train/a.png": f"{GOOD}0 0.5 0.5 0 0.2\n"}, {}),
    "keypoints": (dict.fromkeys(TWO, "0 0.5 0.5 0.2 0.2 0.4 0.4\n"), {"kpt_shape": [1, 2]}),
    "two images, one label": ({**TWO, "train/a.jpg": None}, {}),
    "cut JPEG": ({**TWO, "train/d.jpg": (GOOD, CUT)}, {}),
    "JPEG with bytes behind its end": ({**TWO, "train/d.jpg": (GOOD, encoded("JPEG") + b"\0")}, {}),
    "9 pixels": ({**TWO, "train/d.png": (GOOD, encoded("PNG", 9, 40))}, {}),
    "no image": ({**TWO, "train/d.png": (GOOD, b"text")}, {}),
    "empty image": ({**TWO, "train/d.png": (GOOD, b"")}, {}),
    "GIF called JPEG": ({**TWO, "train/d.jpg": (GOOD, encoded("GIF", 40, 40))}, {}),
    "upper case": ({**TWO, "train/D.PNG": (GOOD, encoded())}, {}),
    "all unreadable": (dict.fromkeys(TWO, (GOOD, b"")), {}),
}


def odd_set(root, name):
    files, changes = ODD[name]
    for key, content in files.items():
        split, file = key.split("/")
        labels, image = content if isinstance(content, tuple) else (content, None)
        put(root, split, file, labels, image)
    return data_yaml(root, **changes)


def data_yaml(root, **changes):
    content = {"path": str(root), "train": "images/train", "val": "images/val", "names": ["ship", "plane"]} | changes
    return write(root / "data.yaml", json.dumps(content))


def beside(root):
    """Labels beside images. In a folder `images` they are not read, in another folder they are."""
    for folder in ("images", "pictures"):
        for name in ("a", "b"):
            write(root / folder / f"{name}.png", encoded(seed=len(folder) + ord(name)))
            write(root / folder / f"{name}.txt", GOOD)
    return data_yaml(root, train=["images", "pictures"], val="pictures")


def listed(root):
    """Lists of images: with `./`, absolute, with a mark, and one that does not exist."""
    for number in range(4):
        put(root, "all", f"{number}.png")
    write(root / "train.txt", f"\ufeff./images/all/0.png\r\n{root}/images/all/1.png\r\n./images/all/none.png\r\n")
    write(root / "val.txt", "./images/all/2.png\n./images/all/2.png\n./images/all/3.png")
    return data_yaml(root, train="train.txt", val=["val.txt", "images/all"])


def linked(root):
    """A split that is a link to a folder, with folders below it."""
    write(root / "elsewhere/images/deep/a.png", encoded())
    write(root / "elsewhere/labels/deep/a.txt", GOOD)
    (root / "images").symlink_to(root / "elsewhere/images")
    (root / "labels").symlink_to(root / "elsewhere/labels")
    return data_yaml(root, train="images", val="images/deep")


def sixteen_bits(root):
    pixels = np.random.default_rng(0).integers(0, 2048, (48, 64), np.uint16)
    for split in ("train", "val"):
        put(root, split, "a.tif", image=cv2.imencode(".tif", pixels)[1].tobytes())
    return data_yaml(root)


SPECIAL = {"beside": beside, "listed": listed, "linked": linked, "16 bits": sixteen_bits}
SETS = [
    *(
        (f"{name} {task}", task)
        for name in PUBLISHED
        for task in ("detect", "obb")
        if name in {"DIOR", "DOTA"} or task == "detect"
    ),
    *((f"written {task}", "obb" if task == "obb" else "detect") for task in ("detect", "obb", "segment", "pose")),
    *((name, "detect") for name in (*ODD, *SPECIAL)),
    *((name, "obb") for name in ("good", "outlines twice")),
]


def made(root, name, task):
    kind = name.split(" ")[0]
    if kind in PUBLISHED:
        return Path(convert_dataset(PUBLISHED[kind](root.with_name("source")), root, task=task).data)
    if kind == "written":
        return write_data(root, train=3, val=2, task=name.split(" ")[1])
    return SPECIAL[name](root) if name in SPECIAL else odd_set(root, name)


def read_by_ultralytics(path, split, task):
    """Images, objects by class, images without objects and repeated lines, as Ultralytics reads a split; or None."""
    data = check_det_dataset(str(path), autodownload=False)
    try:
        training = split == "train"
        found = YOLODataset(
            img_path=data[split], data=data, task=task, imgsz=64, augment=training, hyp=copy(DEFAULT_CFG)
        ).labels
    except (RuntimeError, FileNotFoundError, ValueError):
        return None
    classes = Counter(int(number) for label in found for number in label["cls"].ravel())
    labels = map(Path, img2label_paths([label["im_file"] for label in found]))
    lines = sum(bool(line.strip()) for label in labels if label.is_file() for line in label.read_text().splitlines())
    background = sum(len(label["cls"]) == 0 for label in found)
    counts = [classes[number] for number in range(data["nc"])]
    return len(found), counts, background, lines - sum(counts)


@pytest.mark.parametrize(("name", "task"), SETS, ids=[f"{name}, {task}" for name, task in SETS])
def test_what_is_counted_is_what_ultralytics_reads(name, task, fresh_machine, tmp_path):
    path = made(tmp_path / "set", name, task)
    code = main(["check", f"data={path}", f"task={task}", "plots=False", f"out={tmp_path / 'out'}"])
    report = json.loads((tmp_path / "out/check.json").read_text())
    shutil.copytree(tmp_path / "set", tmp_path / "copy", symlinks=True)  # Ultralytics changes files
    for split, ours in report["splits"].items():
        duplicates = ours["findings"].get("duplicate_label", {"count": 0})["count"]
        counted = ours["used_images"], ours["objects_per_class"], ours["images_without_object"], duplicates
        theirs = read_by_ultralytics(path, split, task)
        assert counted == theirs if theirs else code, split
    shutil.rmtree(tmp_path / "set")
    (tmp_path / "copy").rename(tmp_path / "set")
    if code == 0:
        assert load_training_data(str(path), task)
        return
    try:
        load_training_data(str(path), task)
    except DS2D2Error:
        return
    lost = sum(split["lost_objects"] + split["images"] - split["used_images"] for split in report["splits"].values())
    assert lost, "a data set without losses must not have errors"
