"""Oriented boxes in pictures: read as in Ultralytics, at the right place, drawn with their angle, and counted."""

import copy
import dataclasses
import math
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from pages import Page
from training_helpers import lively_model, save_checkpoint, write_data
from ultralytics import YOLO
from ultralytics.utils.ops import xywhr2xyxyxyxy

from ds2d2_yolo import DS2D2Trainer
from ds2d2_yolo.cli import main
from ds2d2_yolo.detectors import detector_of
from ds2d2_yolo.errors import DS2D2Error
from ds2d2_yolo.explanation.explainer import Explainer
from ds2d2_yolo.explanation.images import read_image
from ds2d2_yolo.explanation.setup import trained_argument
from ds2d2_yolo.loading.models import load_model
from ds2d2_yolo.report.changes import changes_by_image
from ds2d2_yolo.report.figures import corners_of, outline
from ds2d2_yolo.report.progress import draw_progress
from ds2d2_yolo.report.sheet import draw_sheet
from ds2d2_yolo.training.pair import check_pair

SIZE = 96


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("oriented")
    for task in ("obb", "pose", "segment"):
        write_data(folder / task, train=4, val=2, size=SIZE, task=task)
    for seed, role in enumerate(("teacher", "student")):
        save_checkpoint(lively_model("yolo11n-obb.yaml", seed=seed), folder / f"{role}.pt")
    return folder


@pytest.fixture(scope="module")
def image(folder):
    return folder / "obb/images/val/0.png"


def test_corners_of_labels_become_their_rectangles(folder, image):
    picture = read_image(image, 2, task="obb")
    lines = np.loadtxt(folder / "obb/labels/val/0.txt").reshape(-1, 9)
    for box, corners in zip(picture.boxes, lines[:, 1:].reshape(-1, 4, 2) * SIZE, strict=True):
        distances = np.linalg.norm(corners_of(box[None])[0][:, None] - corners[None], axis=2)
        assert distances.min(1).max() < 0.1
    assert picture.labels.tolist() == [0, 1]
    assert read_image(folder / "pose/images/val/0.png", 2, task="pose", points=(4, 2)).boxes.shape == (2, 4)
    assert read_image(folder / "segment/images/val/0.png", 2, task="segment").boxes.shape == (2, 4)


def test_boxes_without_corners_are_refused(tmp_path):
    write_data(tmp_path / "set", train=1, val=1)
    with pytest.raises(DS2D2Error, match=r"0\.txt: holds boxes, task=obb needs the four corners"):
        read_image(tmp_path / "set/images/val/0.png", 2, task="obb")


def test_detections_are_those_of_predict_with_their_angles(folder, image):
    model = lively_model("yolo11n-obb.yaml", seed=1).eval()
    plain = YOLO(folder / "student.pt")
    (expected,) = plain.predict(str(image), imgsz=SIZE, conf=0.3, device="cpu", verbose=False)
    detector = detector_of(copy.deepcopy(model))
    explainer = Explainer(detector, detector, check_pair(detector, detector, SIZE), SIZE, confidence=0.3)
    read = lambda path: read_image(path, 2, task="obb")  # noqa: E731
    explainer.fit_adapters([image], "images", read)
    explanation = explainer.explain(read(image))
    found = explanation.detections["distilled student"]
    assert found.shape[1] == 7
    assert len(found) == len(expected.obb) > 0
    expected_boxes = expected.obb.xywhr.numpy()
    for box in found[:, :5]:  # equal confidences have no order; Ultralytics writes the longer side first
        alike = corners_of(expected_boxes).mean(1) - box[:2]
        nearest = expected_boxes[np.abs(alike).sum(1).argmin()]
        assert nearest[2] * nearest[3] == pytest.approx(box[2] * box[3], rel=0.01)
    np.testing.assert_allclose(np.sort(found[:, 5]), np.sort(expected.obb.conf.numpy()), atol=1e-3)
    assert (explanation.levels[0].disw - 1).sum() == pytest.approx(2, rel=1e-3)  # two objects


@pytest.mark.parametrize("shape", [(90, 200), (200, 90), (33, 47)])
def test_oriented_objects_keep_their_place_in_any_shape(folder, image, shape):
    detector = detector_of(lively_model("yolo11n-obb.yaml", seed=1).eval())
    explainer = Explainer(detector, detector, check_pair(detector, detector, SIZE), SIZE)
    picture = read_image(image, 2, task="obb")
    explainer.fit_adapters([image], "images", lambda path: picture)
    box = np.array([[20.0, 15.0, 24.0, 8.0, 0.5]])
    explanation = explainer.explain(
        type(picture)(picture.path, np.zeros((*shape, 3), np.uint8), box, np.array([0]), True)
    )
    left, right, bottom, top = explanation.window
    weight = explanation.levels[0].disw - 1
    assert weight.sum() == pytest.approx(1, rel=1e-3)
    rows, columns = np.indices(weight.shape)
    cell = (right - left) / weight.shape[1]
    assert abs(left + ((columns + 0.5) * weight).sum() * cell - 20) < cell
    assert abs(top + ((rows + 0.5) * weight).sum() * (bottom - top) / weight.shape[0] - 15) < cell


def test_hulls_weigh_more_cells_by_as_much_in_all(folder, image):
    detector = detector_of(lively_model("yolo11n-obb.yaml", seed=1).eval())
    pair = check_pair(detector, detector, SIZE)
    box = np.array([[48.0, 48.0, 80.0, 6.0, math.pi / 4]])
    picture = dataclasses.replace(read_image(image, 2, task="obb"), boxes=box, labels=np.array([0]))
    extra = {}
    for hulls in (False, True):
        explainer = Explainer(detector, detector, pair, SIZE, hulls=hulls)
        explainer.fit_adapters([image], "images", lambda path: picture)
        extra[hulls] = explainer.explain(picture).levels[0].disw - 1
        assert extra[hulls].sum() == pytest.approx(1, rel=1e-3)
    assert (extra[False] > 0).sum() * 2 < (extra[True] > 0).sum()


@pytest.mark.slow
def test_the_pictures_of_a_training_have_the_weight_of_the_run(folder, tmp_path, monkeypatch):
    drawn = {}

    def keep(image, window, looks):
        drawn[disw] = list(looks.values())[-1][0].disw
        return draw_progress(image, window, looks)

    monkeypatch.setattr("ds2d2_yolo.pictures.draw_progress", keep)
    given = {"teacher": folder / "teacher.pt", "student": folder / "student.pt", "data": folder / "obb/data.yaml"}
    given |= {"amplifier": "none", "im_full": 0, "epochs": 1, "imgsz": SIZE, "batch": 4, "device": "cpu", "workers": 0}
    for disw in ("rotated", "hull"):
        overrides = {name: str(value) if isinstance(value, Path) else value for name, value in given.items()}
        overrides |= {"plots": True, "project": str(tmp_path), "name": disw, "footprint": disw}
        DS2D2Trainer(overrides=overrides).train()
        student, _ = load_model("student", tmp_path / disw / "weights" / "best.pt")
        assert trained_argument(student, "footprint") == disw  # `explain` uses it
    assert drawn["hull"].sum() == pytest.approx(drawn["rotated"].sum(), rel=1e-3)
    assert (drawn["hull"] > 1).sum() > (drawn["rotated"] > 1).sum()


def test_outlines_follow_the_angle():
    figure, axes = plt.subplots()
    box = np.array([[20.0, 15.0, 24.0, 8.0, 0.5]])
    outline(axes, box, "hit")
    drawn = axes.patches[-1].get_xy()[:4]
    np.testing.assert_allclose(drawn, xywhr2xyxyxyxy(box)[0] - 0.5)
    plt.close(figure)


def test_changes_are_counted_by_oriented_boxes():
    item = {"image_id": 1, "category_id": 1, "bbox": [30, 30, 40, 40]}
    truth = {"images": [{"id": 1, "file_name": "a.png"}], "annotations": [{**item, "rbox": [50, 50, 40, 8, 0.0]}]}
    right, wrong = ({**item, "rbox": [50, 50, 40, 8, angle], "score": 0.9} for angle in (math.pi, math.pi / 2))
    assert changes_by_image(truth, [right], [wrong]) == [("a.png", 1.0)]
    assert changes_by_image(truth, [wrong], []) == [("a.png", 0.0)]


@pytest.mark.slow
def test_the_weight_of_the_training_is_explained_by_default(folder, tmp_path, monkeypatch):
    content = torch.load(folder / "student.pt", weights_only=False)
    torch.save({**content, "train_args": {"footprint": "hull", "imgsz": SIZE, "weight": "disw"}}, tmp_path / "hulls.pt")
    words = {"source": folder / "obb/data.yaml", "teacher": folder / "teacher.pt", "student": tmp_path / "hulls.pt"}
    words |= {"max_images": 1, "device": "cpu", "exist_ok": True}
    seen = []

    def keep(explanation, names, origin):
        seen.append(explanation.levels[0].disw)
        return draw_sheet(explanation, names, origin)

    monkeypatch.setattr("ds2d2_yolo.report.sheets_page.draw_sheet", keep)
    for more in ([], ["footprint=rotated"]):
        given = [*(f"{key}={value}" for key, value in words.items()), f"out={tmp_path / 'out'}", *more]
        assert main(["explain", *given]) == 0
    hulls, rotated = seen
    assert hulls.sum() == pytest.approx(rotated.sum(), rel=1e-3)
    assert (hulls > 1).sum() > (rotated > 1).sum()


@pytest.mark.slow
def test_the_command_explains_oriented_models(folder, tmp_path):
    words = {"source": folder / "obb/data.yaml", "teacher": folder / "teacher.pt", "student": folder / "student.pt"}
    words |= {"imgsz": SIZE, "max_images": 1, "device": "cpu", "conf": 0.3, "out": tmp_path / "out"}
    assert main(["explain", *(f"{key}={value}" for key, value in words.items())]) == 0
    assert (tmp_path / "out/01-0.png").stat().st_size > 50_000
    assert "im_full, boxes" in Page(tmp_path / "out/index.html").text
