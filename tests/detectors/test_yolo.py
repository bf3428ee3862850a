"""The YOLO family: accepted models, tapped layers, decoded and compared predictions."""

import pytest
import torch
from torch import nn
from training_helpers import assert_assigns_as_ever, batch_of, lively_model, run_teacher
from ultralytics.nn.tasks import ClassificationModel, DetectionModel, yaml_model_load
from ultralytics.utils import LOGGER
from ultralytics.utils.ops import xywh2xyxy

from ds2d2_yolo.detectors import DenseAssignment, Detector, YOLODetector, build_model, detector_of, register_detector
from ds2d2_yolo.errors import DS2D2Error

FAMILIES = ["yolov5n", "yolov8n", "yolov9t", "yolov10n", "yolo11n", "yolo12n", "yolo26n"]


@pytest.fixture(scope="module", params=FAMILIES)
def detector(request):
    return detector_of(lively_model(f"{request.param}.yaml"))


def test_taps_the_inputs_of_the_head(detector):
    seen = []
    handle = detector.head.register_forward_pre_hook(lambda module, inputs: seen.extend(inputs[0]))
    outputs = {}
    handles = [
        detector.layer(i).register_forward_hook(lambda m, x, out, i=i: outputs.__setitem__(i, out))
        for i in detector.head_layers
    ]
    detector.model.eval()(torch.rand(1, 3, 64, 64))
    for h in (handle, *handles):
        h.remove()
    assert len(seen) == len(detector.head_layers) == 3
    assert all(outputs[index] is x for index, x in zip(detector.head_layers, seen, strict=True))


def test_building_with_other_classes_is_silent(caplog):
    LOGGER.addHandler(caplog.handler)
    config = yaml_model_load("yolo11n.yaml")
    model = build_model(config, nc=3)
    LOGGER.removeHandler(caplog.handler)
    assert (caplog.text, model.yaml["nc"], config["nc"]) == ("", 3, 80)


def test_decodes_as_ultralytics_does_at_inference(detector):
    images = torch.rand(2, 3, 64, 96)
    model = detector.model.eval()
    model.end2end = False
    with torch.no_grad():
        inference = model(images)[0]
        detector.head.training = True
        predictions = detector.forward_teacher(images)
        detector.head.training = False
    torch.testing.assert_close(predictions.boxes, xywh2xyxy(inference[:, :4].transpose(1, 2)), rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(predictions.logits.sigmoid(), inference[:, 4:].transpose(1, 2), rtol=1e-4, atol=1e-5)


def test_negative_distances_make_empty_boxes_that_can_grow():
    # A head without DFL can predict this. The GIoU loss of inverted boxes would have no lower bound
    detector = detector_of(lively_model("yolo26n.yaml"))
    detector.freeze()
    maps = [torch.rand(1, channels, size, size) for channels, size in zip((64, 128, 256), (8, 4, 2), strict=True)]
    teacher = detector.predict(detector.head, maps)
    raw = detector.head(maps)
    distances = 5 * torch.randn_like(raw["boxes"])
    distances[..., 0] = torch.tensor([-1.0, 2.0, 3.0, 2.0])  # the left edge right of the centre
    raw["boxes"] = distances.requires_grad_()
    student = detector.decode(detector.head, raw)
    assert (student.boxes[..., 2:] >= student.boxes[..., :2]).all()
    assert student.boxes[0, 0].tolist() == [4, -12, 28, 20]  # centre (4, 4), stride 8
    loss = detector.compare_predictions(
        student, teacher._replace(boxes=student.boxes.detach() - 8), DenseAssignment(torch.ones(()))
    )
    assert loss > 0
    loss.backward()
    assert raw["boxes"].grad[0, 0, 0] < 0  # the teacher's box reaches farther left


@pytest.mark.parametrize(("name", "weights"), [("yolo11n", (1, 1, 1)), ("yolo26n", (0.8, 0.45, 0.1))])
def test_terms_are_weighted_like_the_loss_at_the_maps(name, weights):
    model = lively_model(f"{name}.yaml")
    model.args.epochs = 3
    detector = detector_of(model)
    found = []
    for _ in weights:
        found.append(detector.loss_factor(4) / 4)
        if hasattr(model.criterion, "update"):
            model.criterion.update()  # as Ultralytics' trainer does after every epoch
    assert found == pytest.approx(weights)


def test_comparing_through_the_head_equals_its_predictions(detector):
    images = torch.rand(1, 3, 64, 64)
    detector.freeze()
    maps = {}
    handles = [
        detector.layer(i).register_forward_hook(lambda m, x, out, i=i: maps.__setitem__(i, out))
        for i in detector.head_layers
    ]
    predictions = detector.forward_teacher(images)
    for handle in handles:
        handle.remove()
    teacher = [maps[i] for i in detector.head_layers]
    student = [(x + 0.1 * torch.randn_like(x)).requires_grad_() for x in teacher]
    positives = DenseAssignment(torch.tensor(3))
    reused = detector.compare(detector.head, student, teacher, positives, predictions)
    computed = detector.compare(detector.head, student, teacher, positives)
    torch.testing.assert_close(reused, computed)
    assert reused.item() > 0
    assert detector.compare(detector.head, teacher, teacher, positives).item() == pytest.approx(0, abs=1e-4)
    reused.backward()
    assert all(x.grad.any() for x in student)
    assert all(p.grad is None for p in detector.model.parameters())


def test_counts_the_positives_of_the_students_own_assigner(detector):
    model = detector.model.train()
    batch = batch_of()
    batch["batch_idx"] = torch.zeros(6)  # the second image has no object
    outputs = {}
    (handle,) = [
        module.register_forward_hook(lambda m, x, out, n=name: outputs.__setitem__(n, out))
        for name, module in detector.assignment_modules().items()
    ]
    model(batch)
    handle.remove()
    foreground = outputs["assigner"][3]
    positives = detector.assignment(outputs).avg_factor
    assert positives.item() == foreground[0].sum().item() + 1
    assert positives.item() > 1


def test_a_teacher_assigns_until_the_handle_is_removed(detector):
    teacher = detector_of(lively_model("yolov8s.yaml", seed=1))
    teacher.freeze()
    batch = batch_of()
    maps, predictions = run_teacher(teacher, batch["img"])
    (assigner,) = detector.assignment_modules().values()
    calls = []
    handle = assigner.register_forward_hook(lambda module, inputs, output: calls.append((inputs, output)))
    detector.model.train()
    assigned = detector.assign_by(predictions, maps)
    detector.model(batch)
    assigned.remove()
    detector.model(batch)
    handle.remove()
    (theirs, found), (own, _) = calls
    torch.testing.assert_close(theirs[0], predictions.logits.sigmoid())
    torch.testing.assert_close(theirs[1], predictions.boxes)
    assert all(torch.equal(x, y) for x, y in zip(theirs[2:], own[2:], strict=True))  # anchors and ground truth
    assert not torch.allclose(own[0], theirs[0], atol=0.01)
    # The assignment of the teacher's own criterion, if it was trained with this batch
    (expert,) = teacher.assignment_modules().values()
    expected = expert(predictions.logits.sigmoid(), predictions.boxes, *own[2:])
    for got, want in zip(found[1:4], expected[1:4], strict=True):  # boxes, scores, foreground
        torch.testing.assert_close(got, want)


def test_a_model_that_is_its_own_teacher_assigns_as_ever(detector):
    assert_assigns_as_ever(detector, batch_of())


@pytest.mark.parametrize("name", ["yolov8n-p2", "yolov8n-p6"])
def test_reads_other_layouts_from_the_model(name):
    detector = detector_of(DetectionModel(f"{name}.yaml", verbose=False))
    assert len(detector.head_layers) == 4


def test_refuses_other_heads_and_models():
    with pytest.raises(DS2D2Error, match="a Linear with a Linear head cannot be distilled; pass a YOLO"):
        detector_of(nn.Linear(1, 1))
    with pytest.raises(DS2D2Error, match="a ClassificationModel with a Classify head"):
        detector_of(ClassificationModel("yolo11n-cls.yaml", verbose=False))


def test_names_layers_that_do_not_exist():
    detector = detector_of(DetectionModel("yolo11n.yaml", verbose=False))
    with pytest.raises(IndexError, match="yolo11n has layers 0 to 23, not 24"):
        detector.layer(24)


def test_a_new_family_is_registered_with_one_line(monkeypatch):
    import ds2d2_yolo.detectors as detectors

    monkeypatch.setattr(detectors, "_FAMILIES", [YOLODetector])

    class Linear(YOLODetector):
        family = "linear"

        @staticmethod
        def accepts(model):
            return isinstance(model, nn.Linear)

    assert register_detector(Linear) is Linear
    found = detector_of(nn.Linear(1, 1))
    assert isinstance(found, Detector)
    assert found.family == "linear"


def test_confidence_is_the_highest_class_probability_per_cell():
    detector = detector_of(lively_model("yolo11n.yaml", seed=1))
    detector.freeze()
    images = torch.rand(2, 3, 64, 96)
    with torch.no_grad():
        predictions = detector.forward_teacher(images)
        raw = detector.model(images)
    grids = detector.confidence(predictions, raw["feats"])
    assert [tuple(grid.shape) for grid in grids] == [(2, 1, 8, 12), (2, 1, 4, 6), (2, 1, 2, 3)]
    flat = torch.cat([grid.flatten(2) for grid in grids], 2)
    torch.testing.assert_close(flat, raw["scores"].amax(1, keepdim=True).sigmoid())
