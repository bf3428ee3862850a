"""`ds2d2 val`: AP computed by hand, by libraries from the saved files, and of Ultralytics' models end to end."""

import contextlib
import csv
import inspect
import io
import json
import math
import re
import tracemalloc

import cv2
import numpy as np
import pycocotools.coco
import pycocotools.cocoeval
import pytest
import torch
from command_words import words
from faster_coco_eval import COCO, COCOeval_faster
from training_helpers import NAMES, lively_model, save_checkpoint, write_data
from ultralytics import RTDETR, YOLO
from ultralytics.nn.tasks import ClassificationModel, DetectionModel, OBBModel, PoseModel, SegmentationModel
from ultralytics.utils import DEFAULT_CFG
from ultralytics.utils.ops import xywhr2xyxyxyxy

from ds2d2_yolo.commands import val
from ds2d2_yolo.commands.val import table_lines
from ds2d2_yolo.errors import DS2D2Error
from ds2d2_yolo.evaluation import AP_COLUMNS, Evaluation, evaluate
from ds2d2_yolo.evaluation.detections import coco_detections
from ds2d2_yolo.evaluation.results import save_evaluation
from ds2d2_yolo.evaluation.scores import Scores, coco_scores
from ds2d2_yolo.options import option_defaults

SIZE = 320  # side of the images, pixels
PAD = 16  # padding of Ultralytics in rectangular batches of this size


# ------------------------------------------------------------------------------------------- AP by hand


def truth_of(boxes, images=1):
    """Ground truth of (image, class, x, y, width, height) or (..., cx, cy, width, height, angle)."""
    return {
        "images": [{"id": number, "width": SIZE, "height": SIZE} for number in range(1, images + 1)],
        "categories": [{"id": index + 1, "name": name} for index, name in NAMES.items()],
        "annotations": [{**shape_of(box), "id": number, "iscrowd": 0} for number, box in enumerate(boxes, start=1)],
    }


def shape_of(box):
    image, label, *numbers = box
    shape = {"image_id": image, "category_id": label, "area": numbers[2] * numbers[3]}
    if len(numbers) == 4:
        return {**shape, "bbox": numbers}
    corners = xywhr2xyxyxyxy(np.array(numbers))
    first, last = corners.min(axis=0), corners.max(axis=0)
    return {**shape, "bbox": [*first.tolist(), *(last - first).tolist()], "rbox": numbers}


def found(*boxes):
    return [{**shape_of(box), "score": score} for *box, score in boxes]


def of(scores, *columns):
    return [getattr(scores, name) for name in columns or AP_COLUMNS]


def test_perfect_detections_have_an_ap_of_1():
    boxes = [(1, 1, 10, 10, 20, 20), (1, 2, 50, 50, 60, 60), (2, 1, 5, 5, 200, 200)]
    total, classes = coco_scores(truth_of(boxes, 2), found(*((*box, 0.5) for box in boxes)))
    assert total.objects == 3
    assert of(total) == pytest.approx([1] * 6)
    assert classes["ship"].objects == 2
    assert of(classes["vehicle"], "APm") == pytest.approx([1])
    assert math.isnan(classes["vehicle"].APs)
    assert math.isnan(classes["vehicle"].APl)


def test_a_false_alarm_between_two_hits_costs_what_it_should():
    boxes = [(1, 1, 10, 10, 20, 20), (1, 1, 100, 100, 20, 20)]
    total, _ = coco_scores(truth_of(boxes), found((*boxes[0], 0.9), (1, 1, 200, 200, 20, 20, 0.8), (*boxes[1], 0.7)))
    # Precision 1 at the 51 recalls 0.00 to 0.50, 2/3 at the 50 above
    assert of(total, "AP50") == pytest.approx([(51 + 50 * 2 / 3) / 101])
    assert of(total, "AP", "AP75") == pytest.approx([total.AP50] * 2)


def test_a_loose_box_counts_at_the_thresholds_that_it_reaches():
    total, _ = coco_scores(truth_of([(1, 1, 0, 0, 100, 100)]), found((1, 1, 0, 0, 100, 62, 0.9)))
    assert of(total, "AP50", "AP75") == pytest.approx([1, 0])
    assert of(total, "AP") == pytest.approx([0.3])  # 0.50, 0.55 and 0.60 of the ten thresholds


def test_sizes_are_distinguished_by_area_in_pixels():
    boxes = [(1, 1, 0, 0, 31, 31), (1, 1, 100, 0, 33, 32), (1, 1, 0, 150, 97, 97)]
    total, _ = coco_scores(truth_of(boxes), found((*boxes[1], 0.9)))
    assert of(total, "APs", "APm", "APl") == pytest.approx([0, 1, 0])
    # A false alarm counts only for its own size
    total, _ = coco_scores(truth_of(boxes), found((1, 1, 200, 200, 10, 10, 0.95), *found_args(boxes, 0.5)))
    assert of(total, "APs", "APm", "APl") == pytest.approx([0.5, 1, 1])


def found_args(boxes, score):
    return [(*box, score) for box in boxes]


def test_images_without_objects_and_without_detections_count():
    box = (1, 1, 10, 10, 20, 20)
    alarm = (3, 1, 10, 10, 20, 20)  # in an image without any object
    assert of(coco_scores(truth_of([box], 3), found((*box, 0.5)))[0], "AP") == pytest.approx([1])
    assert of(coco_scores(truth_of([box], 3), found((*box, 0.5), (*alarm, 0.9)))[0], "AP") == pytest.approx([0.5])
    missed = coco_scores(truth_of([box, (2, 1, 10, 10, 20, 20)], 3), found((*box, 0.5)))[0]
    assert of(missed, "AP") == pytest.approx([51 / 101])
    assert coco_scores(truth_of([box]), [])[0].AP == 0
    nothing, classes = coco_scores(truth_of([]), found((*box, 0.5)))
    assert nothing.objects == 0
    assert math.isnan(nothing.AP)
    assert math.isnan(classes["ship"].AP50)


def test_classes_that_do_not_occur_do_not_enter_the_mean():
    box = (1, 1, 10, 10, 20, 20)
    total, classes = coco_scores(truth_of([box]), found((*box, 0.5), (1, 2, 90, 90, 9, 9, 0.9)))
    assert of(total, "AP") == pytest.approx([1])
    assert math.isnan(classes["vehicle"].AP)


def test_images_that_are_listed_twice_have_detections_twice():
    rows = np.array([[1.0, 2.0, 3.0, 4.0, 0.9, 0.0]])
    truth = {"images": [{"id": number, "file_name": "a.png"} for number in (1, 2)]}
    found = coco_detections([("a.png", rows), ("a.png", rows)], ["a.png", "a.png"], truth, "detect")
    assert [item["image_id"] for item in found] == [1, 2]


def test_many_detections_need_little_memory():
    number, names = 20_000, [f"class {index}" for index in range(10)]
    truth = truth_of([(1, index + 1, 10, 10, 20, 20) for index in range(10)])
    truth["categories"] = [{"id": index + 1, "name": name} for index, name in enumerate(names)]
    rows = np.tile([10.0, 10.0, 30.0, 30.0, 0.5, 0.0], (number, 1))
    rows[:, 5] = np.arange(number) % 10
    truth["images"][0]["file_name"] = "a.png"
    tracemalloc.start()
    total, classes = coco_scores(truth, coco_detections([("a.png", rows)], ["a.png"], truth, "detect"))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert list(classes) == names
    assert pytest.approx(1) == total.AP
    assert peak / number < 500  # bytes; as dictionaries alone they would need twice that


def test_oriented_boxes_are_compared_by_oriented_overlap():
    # Two thin neighbours along a diagonal: their hulls overlap by 0.67, but not the boxes
    ship = (1, 1, 100, 100, 100, 8, math.pi / 4)
    beside = (1, 1, 107, 93, 100, 8, math.pi / 4)
    truth = truth_of([ship])
    assert of(coco_scores(truth, found((*beside, 0.9)))[0], "AP50") == pytest.approx([1])
    assert coco_scores(truth, found((*beside, 0.9)), "obb")[0].AP50 == 0
    same = coco_scores(truth, found((*ship, 0.9)), "obb")[0]
    assert of(same, "AP") == pytest.approx([1])
    assert of(same, "APs") == pytest.approx([1]), "800 square pixels, though the hull has 5800"
    assert math.isnan(same.APm)
    # The same rectangle with its sides exchanged
    turned = (1, 1, 100, 100, 8, 100, -math.pi / 4)
    assert of(coco_scores(truth, found((*turned, 0.9)), "obb")[0], "AP") == pytest.approx([1])


def test_as_many_detections_count_as_max_dets_says():
    boxes = [(1, 1, 30 * (index % 10), 25 * (index // 10), 20, 20) for index in range(120)]
    detections = found(*((*box, 0.5) for box in boxes))
    # 100 of 120: precision 1 at the 84 recalls 0.00 to 0.83
    assert of(coco_scores(truth_of(boxes), detections)[0], "AP") == pytest.approx([84 / 101])
    assert of(coco_scores(truth_of(boxes), detections, max_dets=120)[0], "AP") == pytest.approx([1])


def test_what_is_handed_in_stays_as_it_is():
    box = (1, 1, 10, 10, 20, 20)
    truth, detections = truth_of([box]), found((*box, 0.5))
    before = json.dumps([truth, detections])
    coco_scores(truth, detections)
    assert json.dumps([truth, detections]) == before


def test_scores_that_make_no_sense_are_refused():
    box = (1, 1, 10, 10, 20, 20)
    for wrong in (0, 1.5, True, "many"):
        with pytest.raises(DS2D2Error, match=f"max_dets={wrong}: expected a whole number"):
            coco_scores(truth_of([box]), [], max_dets=wrong)
    with pytest.raises(DS2D2Error, match="image_id 9 is not in the ground truth"):
        coco_scores(truth_of([box]), found((9, 1, 10, 10, 20, 20, 0.5)))


# ------------------------------------------------------------- a model with given detections


class Oracle(torch.nn.Module):
    """Mixin for a model: reads the image's number from its grey value, and returns the stored detections."""

    noted = None

    def note(self, rows, channels):
        """Store (image, xywh in pixels, confidence, class, and other outputs of the task, as from the head)."""
        count = max(len(entries) for entries in rows.values())
        noted = torch.zeros(max(rows) + 1, channels, count)
        for image, entries in rows.items():
            for index, (x, y, w, h, confidence, label, *more) in enumerate(entries):
                noted[image, :4, index] = torch.tensor([x + PAD, y + PAD, w, h])
                noted[image, 4 + label, index] = confidence
                noted[image, 4 + len(NAMES) :, index] = torch.tensor(more)
        self.noted = noted
        return self

    def predict(self, x, *args, **kwargs):
        if self.noted is None:  # Ultralytics measures the strides
            return super().predict(x, *args, **kwargs)
        numbers = (x[:, 0, PAD + 1, PAD + 1] * 255).round().long()
        return self.noted.to(x)[numbers]


class BoxOracle(Oracle, DetectionModel):
    pass


class OrientedOracle(Oracle, OBBModel):
    pass


class MaskOracle(Oracle, SegmentationModel):
    """Return masks that are the boxes."""

    def predict(self, x, *args, **kwargs):
        found = super().predict(x, *args, **kwargs)
        return found if self.noted is None else (found, torch.ones(len(x), 1, x.shape[2] // 4, x.shape[3] // 4))


class PoseOracle(Oracle, PoseModel):
    def __init__(self, name, **settings):
        super().__init__(name, data_kpt_shape=(4, 2), **settings)


ORACLES = {  # and how many values a detection has beside box and classes
    "detect": (BoxOracle, "yolo11n.yaml", 0),
    "obb": (OrientedOracle, "yolo11n-obb.yaml", 1),
    "segment": (MaskOracle, "yolo11n-seg.yaml", 1),
    "pose": (PoseOracle, "yolo11n-pose.yaml", 8),
}


def corners_of(x, y, w, h):
    return xywhr2xyxyxyxy(np.array([x, y, w, h, 0.0]))


def oracle(rows, task="detect"):
    kind, name, more = ORACLES[task]
    model = YOLO(name)
    model.model = kind(name, nc=len(NAMES), verbose=False).note(rows, 4 + len(NAMES) + more)
    model.model.names, model.model.args, model.model.task = dict(NAMES), DEFAULT_CFG, task
    return model


def write_scenes(folder, rows, task="detect"):
    """Write grey images, each as bright as its number, and their labels."""
    for kind in ("images", "labels"):
        (folder / kind / "val").mkdir(parents=True)
    for image, entries in rows.items():
        cv2.imwrite(str(folder / "images" / "val" / f"{image}.png"), np.full((SIZE, SIZE, 3), image, np.uint8))
        lines = []
        for x, y, w, h, _, label, *angle in entries:
            values = np.array([x, y, w, h])
            if task == "obb":
                values = xywhr2xyxyxyxy(np.array([x, y, w, h, *angle]))
            elif task == "segment":  # a rhomb that fills half of the box
                values = np.array([x, y - h / 2, x + w / 2, y, x, y + h / 2, x - w / 2, y])
            elif task == "pose":
                values = np.array([*values, *corners_of(x, y, w, h).reshape(-1)])
            lines.append(" ".join([str(label), *(f"{value:.9g}" for value in (values / SIZE).reshape(-1))]))
        (folder / "labels" / "val" / f"{image}.txt").write_text("\n".join(lines))
    names = "".join(f"  {index}: {name}\n" for index, name in NAMES.items())
    points = "kpt_shape: [4, 2]\n" if task == "pose" else ""
    path = folder / "data.yaml"
    path.write_text(f"path: {folder}\ntrain: images/val\nval: images/val\n{points}names:\n{names}")
    return path


def scenes(task="detect", seed=0, images=6):
    """Objects of all sizes away from the edge, and imperfect detections of them."""
    generator = np.random.default_rng(seed)
    truth, detections = {}, {}
    for image in range(images):
        truth[image], detections[image] = [], []
        for index in range(0 if image == 1 else 14):
            w, h = (120, 90) if index == 0 else np.exp(generator.uniform(np.log(12), np.log(90), 2))
            w, h = max(w, 1.3 * h) if task == "obb" else w, h  # the longer side first, as in Ultralytics
            x, y = generator.uniform(90, SIZE - 90, 2)
            box, label = np.array([x, y, w, h]), int(generator.integers(2))
            angle = [float(generator.uniform(-0.7, 2.3))] if task == "obb" else []

            def more(box, angle=angle):  # outputs of the head: a coefficient, keypoints in pixels of the input
                values = {"segment": [1.0], "pose": (corners_of(*box) + PAD).reshape(-1)}
                return values.get(task, angle)

            truth[image].append((*box, 1.0, label, *angle))
            if generator.uniform() < 0.8 and image != 2:
                moved = box + generator.normal(0, 0.06, 4) * [w, h, w, h]
                detections[image].append((*moved, generator.uniform(0.3, 1), label, *more(moved)))
            if generator.uniform() < 0.3 and image != 2:
                alarm = (*generator.uniform(90, SIZE - 90, 2), *generator.uniform(10, 60, 2))
                detections[image].append((*alarm, generator.uniform(0.1, 0.9), label, *more(alarm)))
    return truth, detections


def measure(model, data, folder, **arguments):
    defaults = {"imgsz": SIZE, "device": "cpu", "plots": False, "save_dir": str(folder), "verbose": False}
    return evaluate(model, data, **(defaults | arguments))


def files_of(folder):
    return (json.loads((folder / f"{name}.json").read_text()) for name in ("coco", "ground_truth", "predictions"))


@pytest.fixture(scope="module", params=ORACLES)
def evaluated(request, tmp_path_factory):
    """An evaluation of imperfect detections, its task, and the detections of the model."""
    folder = tmp_path_factory.mktemp(request.param)
    truth, detections = scenes(request.param)
    data = write_scenes(folder / "set", truth, request.param)
    return measure(oracle(detections, request.param), data, folder / "run"), request.param, detections


def test_the_saved_files_give_the_same_numbers_to_others(evaluated):
    evaluation, task, _ = evaluated
    numbers, truth, predictions = files_of(evaluation.folder)
    total, classes = coco_scores(truth, predictions, task)
    assert of(total) == [numbers[name] for name in AP_COLUMNS]
    assert classes == evaluation.classes
    if task == "obb":
        return  # other libraries do not have the overlap of oriented boxes
    truth_file, prediction_file = (str(evaluation.folder / f"{name}.json") for name in ("ground_truth", "predictions"))
    reference = COCO(truth_file)
    theirs = COCOeval_faster(reference, reference.loadRes(prediction_file), "bbox")
    theirs.run()
    ours = of(evaluation)
    assert ours == pytest.approx(theirs.all_stats[:6].tolist(), rel=1e-12)
    assert 0.2 < ours[0] < 0.8
    with contextlib.redirect_stdout(io.StringIO()):
        reference = pycocotools.coco.COCO(truth_file)
        theirs = pycocotools.cocoeval.COCOeval(reference, reference.loadRes(prediction_file), "bbox")
        theirs.evaluate()
        theirs.accumulate()
        theirs.summarize()
    assert ours == pytest.approx(theirs.stats[:6].tolist(), rel=1e-12)


def test_the_numbers_are_close_to_ultralytics_own(evaluated):
    evaluation, _, _ = evaluated
    # They differ only in the integration of the curve, because no object is at the edge.
    assert of(evaluation, "AP50", "AP") == pytest.approx([evaluation.mAP50, evaluation.mAP50_95], abs=0.015)


@pytest.mark.parametrize("evaluated", ["segment", "pose"], indirect=True)
def test_masks_and_keypoints_are_measured_as_ultralytics_does(evaluated, tmp_path):
    evaluation, task, detections = evaluated
    data = evaluation.settings["data"]
    settings = {"imgsz": SIZE, "device": "cpu", "plots": False, "verbose": False, "save_dir": str(tmp_path)}
    theirs = oracle(detections, task).val(data=data, **settings).results_dict
    letter = {"segment": "M", "pose": "P"}[task]
    names = [f"metrics/mAP50({letter})", f"metrics/mAP50-95({letter})"]
    assert evaluation.figures == {name: theirs[name] for name in names}
    assert (evaluation.mAP50, evaluation.mAP50_95) == (theirs["metrics/mAP50(B)"], theirs["metrics/mAP50-95(B)"])
    assert 0 < evaluation.figures[names[1]] != evaluation.mAP50_95
    (line,) = (line for line in table_lines(evaluation) if line.startswith("Ultralytics' own figures"))
    assert line.endswith(f"mAP50-95({letter}) {evaluation.figures[names[1]]:.3f}")
    numbers, truth, _ = files_of(evaluation.folder)
    assert numbers["figures"] == evaluation.figures
    assert {*truth["annotations"][0]} == {"id", "image_id", "category_id", "bbox", "area", "iscrowd"}


@pytest.mark.parametrize("evaluated", ["detect", "obb"], indirect=True)
def test_tasks_of_boxes_alone_have_no_other_figures(evaluated):
    evaluation, _, _ = evaluated
    assert evaluation.figures == {}


def test_detections_are_saved_in_image_pixels_unrounded(evaluated):
    evaluation, task, detections = evaluated
    _, truth, predictions = files_of(evaluation.folder)
    names = {image["id"]: image["file_name"] for image in truth["images"]}
    found, told = {}, {}
    for item in predictions:
        assert item["file_name"] == names[item["image_id"]]
        shape = item.get("rbox") or [*np.array(item["bbox"][:2]) + np.array(item["bbox"][2:]) / 2, *item["bbox"][2:]]
        found.setdefault(item["file_name"], []).append([*shape[:4], item["score"], item["category_id"] - 1])
    for image, entries in detections.items():
        told[f"images/val/{image}.png"] = [list(entry[:6]) for entry in entries]
    suppressed = 0
    for name, entries in found.items():
        for entry in entries:
            nearest = np.abs(np.array(told[name]) - entry).max(axis=1).min()
            assert nearest < 1e-4
        suppressed += len(told[name]) - len(entries)
    assert sum(map(len, found.values())) > 40
    assert suppressed < 10
    assert any(abs(value * 1000 - round(value * 1000)) > 0.01 for item in predictions for value in item["bbox"])
    if task == "obb":
        corners = np.array(predictions[0]["poly"]).reshape(4, 2)
        np.testing.assert_allclose(corners, xywhr2xyxyxyxy(np.array(predictions[0]["rbox"])), rtol=1e-6)


def test_the_table_and_the_files_tell_the_same(evaluated):
    evaluation, task, _ = evaluated
    numbers, truth, _ = files_of(evaluation.folder)
    assert numbers["objects"] == evaluation.objects == len(truth["annotations"]) == 70
    assert sum(numbers["sizes"].values()) == 70
    assert all(numbers["sizes"].values())
    assert (numbers["images"], numbers["max_dets"], numbers["refused"]) == (6, 100, {})
    assert {"conf", "iou", "max_det", "imgsz", "split"} <= set(numbers["settings"])
    assert numbers["settings"]["task"] == task
    assert numbers["classes"]["ship"]["AP50"] == evaluation.classes["ship"].AP50
    rows = list(csv.DictReader((evaluation.folder / "coco.csv").open()))
    assert [row["class"] for row in rows] == ["all", "ship", "vehicle"]
    assert float(rows[0]["APs"]) == evaluation.APs
    assert float(rows[2]["AP50"]) == evaluation.classes["vehicle"].AP50
    lines = table_lines(evaluation)
    assert lines[0].split() == ["class", "objects", *AP_COLUMNS]
    assert lines[1].split() == ["all", "70", *(f"{value:.3f}" for value in of(evaluation))]
    assert not any("WARNING" in line for line in lines)


def test_a_class_called_all_does_not_replace_the_total(tmp_path):
    scores = {name: Scores(5, *[ap] * 6) for name, ap in (("all", 0.1), ("ship", 0.9))}
    none = {name: {} for name in ("figures", "refused", "settings")}
    figures = {"images": 1, "sizes": {"small": 10}, "mAP50": 0.5, "mAP50_95": 0.5, "max_dets": 100, "most": 1, **none}
    evaluation = Evaluation(10, *[0.5] * 6, classes=scores, folder=tmp_path, **figures)
    assert [line.split()[:3] for line in table_lines(evaluation)[1:4]] == [
        *(["all", "10", "0.500"], ["all", "5", "0.100"], ["ship", "5", "0.900"])
    ]
    save_evaluation(evaluation, {"images": [], "annotations": [], "categories": []}, [])
    rows = list(csv.DictReader((tmp_path / "coco.csv").open()))
    assert [(row["class"], row["AP"]) for row in rows] == [("all", "0.5"), ("all", "0.1"), ("ship", "0.9")]


# --------------------------------------------------------------------------------- what is worth a warning


def test_crowds_refused_images_and_absent_sizes_are_reported(tmp_path):
    crowd = [(18 + 30 * (i % 10), 14 + 26 * (i // 10), 20.0, 20.0, 0.9, 0) for i in range(110)]
    rows = {0: crowd, 1: [(50.0, 50.0, 30.0, 30.0, 0.8, 0)]}
    data = write_scenes(tmp_path / "set", rows)
    (tmp_path / "set" / "labels" / "val" / "1.txt").write_text("5 0.5 0.5 0.1 0.1\n")
    evaluation = measure(oracle(rows), data, tmp_path / "run")
    assert (evaluation.images, evaluation.objects, evaluation.most) == (1, 110, 110)
    assert evaluation.AP < 0.95
    (file,) = evaluation.refused
    assert file.endswith("1.png")
    assert "exceeds dataset class count" in evaluation.refused[file]
    text = "\n".join(table_lines(evaluation))
    assert "pass max_dets=110" in text
    assert re.search(r"WARNING: 1 images left out, all are in coco.json; correct .*1.png: ", text)
    numbers, *_ = files_of(evaluation.folder)
    assert numbers["APl"] is None
    assert next(csv.DictReader((evaluation.folder / "coco.csv").open()))["APl"] == ""

    everything = measure(oracle(rows), data, tmp_path / "all", max_dets=400)
    assert of(everything, "AP") == pytest.approx([1])
    assert everything.settings["max_det"] == 400, "Ultralytics keeps as many as may count"


def test_a_detection_ends_at_the_edge_of_its_image(tmp_path):
    rows = {0: [(20.0, 100.0, 40.0, 40.0, 0.9, 0)]}
    told = {0: [(13.0, 100.0, 54.0, 40.0, 0.9, 0)]}  # 14 pixels of it are in the padding
    evaluation = measure(oracle(told), write_scenes(tmp_path / "set", rows), tmp_path / "run")
    _, _, (only,) = files_of(evaluation.folder)
    assert only["bbox"] == pytest.approx([0, 80, 40, 40], abs=1e-4)
    assert of(evaluation, "AP") == pytest.approx([1])
    assert evaluation.mAP50_95 < 0.6, "Ultralytics compares what is not cut, at an IoU of 0.74"


def test_one_class_for_all_forgives_the_wrong_class(tmp_path):
    rows = {0: [(60.0, 60.0, 40.0, 40.0, 0.9, 0), (200.0, 200.0, 40.0, 40.0, 0.8, 1)]}
    told = {0: [(60.0, 60.0, 40.0, 40.0, 0.9, 1), (200.0, 200.0, 40.0, 40.0, 0.8, 0)]}
    data = write_scenes(tmp_path / "set", rows)
    assert measure(oracle(told), data, tmp_path / "run").AP == 0
    single = measure(oracle(told), data, tmp_path / "single", single_cls=True)
    assert of(single, "AP") == pytest.approx([1])
    assert list(single.classes) == ["item"]


# ------------------------------------------------------------------------------------------ from the shell


def test_a_checkpoint_is_evaluated_by_path_and_printed(tmp_path, capsys):
    weights = save_checkpoint(lively_model("yolo11n.yaml"), tmp_path / "best.pt")
    data = write_data(tmp_path / "set")
    given = {"model": str(weights), "data": str(data), "imgsz": 64, "batch": 2, "device": "cpu", "plots": False}
    val.run(words({**given, "project": str(tmp_path / "runs"), "name": "x", "max_dets": 50, "split": "train"}))
    printed = capsys.readouterr().out
    assert re.search(r"class +objects +AP +AP50 +AP75 +APs +APm +APl\nall +16 ", printed)
    assert f"saved in {tmp_path / 'runs' / 'x'}" in printed
    numbers, truth, predictions = files_of(tmp_path / "runs" / "x")
    assert len(truth["images"]) == 8
    assert predictions, "a lively model finds something"
    assert (numbers["settings"]["split"], numbers["max_dets"]) == ("train", 50)


def test_a_model_that_finds_nothing_has_an_ap_of_0(tmp_path):
    model = OBBModel("yolo11n-obb.yaml", nc=2, verbose=False)
    model.names, model.args, model.task = dict(NAMES), DEFAULT_CFG, "obb"
    rows = {0: [(60.0, 60.0, 40.0, 20.0, 0.9, 0, 0.3)]}
    data = write_scenes(tmp_path / "set", rows, "obb")
    evaluation = measure(
        str(save_checkpoint(model, tmp_path / "obb.pt")), data, tmp_path / "run", conf=0.9, imgsz=(SIZE, SIZE)
    )
    _, _, predictions = files_of(evaluation.folder)
    assert predictions == []
    assert (evaluation.objects, evaluation.AP, evaluation.settings["task"]) == (1, 0, "obb")


def test_the_default_of_max_dets_is_the_documented_one():
    assert option_defaults("val")["max_dets"] == inspect.signature(evaluate).parameters["max_dets"].default


@pytest.fixture(scope="module")
def belongings(tmp_path_factory):
    """Checkpoints and data sets, good and bad, by name."""
    folder = tmp_path_factory.mktemp("belongings")
    (folder / "broken.pt").write_bytes(b"nothing of the kind")
    model = lively_model("yolo11n.yaml")
    save_checkpoint(model, folder / "good.pt")
    model.names = {0: "vehicle", 1: "ship"}
    save_checkpoint(model, folder / "exchanged.pt")
    model.names, model.ds2d2_teacher = dict(NAMES), "a teacher's fingerprint"
    save_checkpoint(model, folder / "amplifier.pt")
    for name, kind, yaml, classes, task in (
        ("three.pt", DetectionModel, "yolo11n.yaml", 3, "detect"),
        ("segment.pt", SegmentationModel, "yolo11n-seg.yaml", 2, "segment"),
        ("pose.pt", PoseModel, "yolo11n-pose.yaml", 2, "pose"),
        ("classify.pt", ClassificationModel, "yolo11n-cls.yaml", 2, "classify"),
        ("obb.pt", OBBModel, "yolo11n-obb.yaml", 2, "obb"),
    ):
        model = kind(yaml, nc=classes, verbose=False)
        model.names, model.args = {index: NAMES.get(index, "other") for index in range(classes)}, DEFAULT_CFG
        model.task = task
        save_checkpoint(model, folder / name)
    data = write_data(folder / "set")
    text = data.read_text()
    (folder / "empty").mkdir()
    (folder / "set" / "empty.yaml").write_text(text.replace("val: images/val", f"val: {folder / 'empty'}"))
    (folder / "list.txt").write_text("images/val/gone.png\n")
    (folder / "set" / "lost.yaml").write_text(text.replace("val: images/val", f"val: {folder / 'list.txt'}"))
    (folder / "set" / "odd.yaml").write_text(f"{text}kpt_shape: [4]\n")
    (folder / "set" / "points.yaml").write_text(f"{text}kpt_shape: [4, 2]\n")
    (folder / "set" / "twice.yaml").write_text(text.replace("vehicle", "ship"))
    return folder


@pytest.mark.parametrize(
    ("change", "complaint", "code"),
    [
        ({"model": None}, "model= is missing", 2),
        ({"data": None}, "data= is missing", 2),
        ({"model": "there/is/none.pt"}, "model=there/is/none.pt: no such file", 1),
        ({"model": "broken.pt"}, "broken.pt: cannot be loaded", 1),
        ({"model": "classify.pt"}, "classify.pt: is trained for task=classify, .*run 'yolo val model=", 1),
        ({"model": "segment.pt"}, "Segment dataset requires equal numbers of boxes|label file holds boxes", 1),
        ({"data": "set/lost.yaml"}, "none of the 1 val images exists, for example images/val/gone.png; correct", 1),
        ({"model": "pose.pt"}, "set/data.yaml: the line 'kpt_shape:' is missing", 1),
        (
            {"model": "pose.pt", "data": "set/odd.yaml"},
            r"kpt_shape=\[4\]: expected the number of keypoints and of values",
            1,
        ),
        (
            {"model": "pose.pt", "data": "set/points.yaml"},
            r"pose.pt: predicts keypoints of kpt_shape=\[17, 3\], the data set has kpt_shape=\[4, 2\]; fine-tune it",
            1,
        ),
        ({"model": "amplifier.pt"}, "amplifier.pt: is a checkpoint of the amplifier stage", 1),
        ({"model": "three.pt"}, "three.pt: has 3 classes, the data set has 2", 1),
        ({"model": "exchanged.pt"}, "exchanged.pt: class 0 is 'vehicle', in the data set 'ship'", 1),
        ({"model": "obb.pt"}, "OBB dataset requires equal numbers of boxes|label file holds boxes", 1),
        ({"data": "nowhere.yaml"}, "data=.*nowhere.yaml", 1),
        ({"data": "set/empty.yaml"}, "split=val: .*empty has no images", 1),
        ({"data": "set/twice.yaml"}, "the class name 'ship' occurs twice", 1),
        ({"split": "test"}, "has no line 'test:'", 1),
        ({"task": "obb"}, "task=obb: model=.*good.pt is trained for task=detect", 2),
        ({"max_det_": 3}, "max_det_=3: 'ds2d2 val' has no such option; did you mean", 2),
        ({"qqq": 3}, "qqq=3: 'ds2d2 val' has no such option; see 'ds2d2 cfg val'", 2),
        ({"max_dets": 0}, "max_dets=0: expected a whole number of at least 1", 2),
        ({"max_dets": "all"}, "max_dets=all: expected a number", 2),
        ({"conf": "high"}, "conf=high", 2),
        ({"imgsz": "big"}, "big", 2),
        ({"imgsz": 0}, "imgsz=0: expected a whole number of pixels", 2),
        ({"model": "set"}, "set: is not a checkpoint; pass the .pt of a training", 1),
        ({"batch": 0}, "batch=0: expected a whole number", 2),
        ({"save_json": False}, "save_json=False: predictions.json is always saved", 2),
        ({"device": "cuda:77"}, "device=cuda:77", 2),
    ],
)
def test_a_mistake_is_reported_in_one_line_and_leaves_nothing(belongings, tmp_path, change, complaint, code):
    given = {"model": "good.pt", "data": "set/data.yaml", **change}
    for name in ("model", "data"):
        if given[name] and "/is/" not in given[name]:
            given[name] = str(belongings / given[name])
    given |= {"project": str(tmp_path), "name": "run", "imgsz": given.get("imgsz", 64), "plots": False}
    with pytest.raises(DS2D2Error, match=complaint) as raised:
        val.run(words({"device": "cpu", **given}))
    assert raised.value.exit_code == code
    assert "\n" not in str(raised.value)
    assert list(tmp_path.iterdir()) == []


def test_models_of_other_kinds_are_refused(belongings, tmp_path):
    data = write_data(tmp_path / "set")
    with pytest.raises(DS2D2Error, match="is an RT-DETR"):
        measure(RTDETR("rtdetr-l.yaml"), data, tmp_path / "run")
    with pytest.raises(DS2D2Error, match="amplifier stage"):
        measure(YOLO(belongings / "amplifier.pt"), data, tmp_path / "run")
