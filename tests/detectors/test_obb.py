"""YOLO heads for oriented boxes, masks and keypoints: outputs that are decoded, compared and left out."""

import math
from copy import deepcopy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from training_helpers import assert_assigns_as_ever, batch_of, lively_model, run_teacher
from ultralytics.nn.modules.head import OBB, OBB26
from ultralytics.nn.tasks import DetectionModel, SegmentationModel
from ultralytics.utils.loss import RotatedBboxLoss

from ds2d2_yolo.detectors import DenseAssignment, build_model, detector_of, is_supported
from ds2d2_yolo.detectors.yolo import probabilistic_iou
from ds2d2_yolo.method import similarity_loss

ORIENTED = ["yolov8n-obb", "yolo11n-obb", "yolo12n-obb", "yolo26n-obb"]
OTHERS = ["yolo11n-seg", "yolo26n-seg", "yolov8n-pose", "yolo26n-pose"]
TASKS = {"obb": "obb", "seg": "segment", "pose": "pose"}


@pytest.fixture(scope="module", params=ORIENTED + OTHERS)
def detector(request):
    return detector_of(lively_model(f"{request.param}.yaml"))


def test_the_task_is_that_of_the_head(detector):
    assert detector.task == TASKS[detector.title.split("-")[1]]
    assert build_model(f"{detector.title}.yaml").__class__ is detector.model.__class__


@pytest.mark.parametrize("name", ORIENTED)
def test_decodes_oriented_boxes_as_ultralytics_inference_does(name):
    detector = detector_of(lively_model(f"{name}.yaml"))
    for branch in detector.head.cv4:  # different angles, over half a turn if the head's are raw
        torch.nn.init.normal_(branch[-1].weight)
    model = detector.model.eval()
    model.end2end = False
    images = torch.rand(2, 3, 64, 96)
    with torch.no_grad():
        inference = model(images)[0].transpose(1, 2)
        detector.freeze()
        predictions = detector.forward_teacher(images)
    strides = torch.cat([torch.full((n,), s) for n, s in ((96, 8.0), (24, 16.0), (6, 32.0))])[:, None]
    assert inference[..., -1].std() > 0.05
    torch.testing.assert_close(predictions.boxes[..., :4] * strides, inference[..., :4], rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(predictions.boxes[..., 4], inference[..., -1], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(predictions.logits.sigmoid(), inference[..., 4:-1], rtol=1e-4, atol=1e-5)


def test_differing_maps_give_a_gradient_to_the_student_alone(detector):
    detector.freeze()
    teacher, predictions = run_teacher(detector, torch.rand(1, 3, 64, 64))
    student = [(x + 0.1 * torch.randn_like(x)).requires_grad_() for x in teacher]
    positives = DenseAssignment(torch.tensor(3))
    reused = detector.compare(detector.head, student, teacher, positives, predictions)
    torch.testing.assert_close(reused, detector.compare(detector.head, student, teacher, positives))
    classes, boxes = detector.differences(detector.head, student, teacher, detector.places(teacher))
    torch.testing.assert_close((classes + boxes).sum() / 3, reused.detach(), rtol=1e-4, atol=1e-5)
    # The probabilistic IoU of a box with itself is 1 minus the square root of its epsilon.
    floor = 84 * 5e-4 / 3
    same = detector.compare(detector.head, teacher, teacher, positives).item()
    assert same < (floor if detector.task == "obb" else 1e-4)
    assert reused.item() > 2 * floor
    reused.backward()
    assert all(x.grad.any() for x in student)
    assert all(p.grad is None for p in detector.model.parameters())


def test_parts_for_masks_and_keypoints_are_not_run(detector):
    detector.freeze()
    teacher, _ = run_teacher(detector, torch.rand(1, 3, 64, 64))
    ran = []
    handles = [branch.register_forward_hook(lambda *_: ran.append(1)) for branch in detector.head.cv4]
    detector.compare(detector.head, teacher, teacher, DenseAssignment(torch.tensor(1)))
    for handle in handles:
        handle.remove()
    assert bool(ran) == (detector.task == "obb")


def test_counts_the_positives_of_the_tasks_own_assigner(detector):
    outputs = {}
    (handle,) = [
        module.register_forward_hook(lambda m, x, out, n=name: outputs.__setitem__(n, out))
        for name, module in detector.assignment_modules().items()
    ]
    loss, _ = detector.model.train()(batch_of(task=detector.task))
    handle.remove()
    assert torch.isfinite(loss).all()
    positives = detector.assignment(outputs).avg_factor.item()
    assert positives == outputs["assigner"][3].sum(1).clamp(min=1).sum().item()
    assert positives > 2


def test_oriented_objects_can_be_assigned_by_a_teacher(detector):
    batch = batch_of(task=detector.task)
    if detector.task == "obb":
        assert_assigns_as_ever(detector, batch)
        return
    assert not detector.assigns_by_predictions  # masks or keypoints influence it, too


def test_objects_cover_their_oriented_box_or_its_hull():
    detector = detector_of(build_model("yolo11n-obb.yaml"))
    batch = {"img": torch.zeros(1, 3, 64, 128), "bboxes": torch.tensor([[0.5, 0.5, 0.25, 0.25, math.pi / 2]])}
    assert detector.footprints(batch)[0].tolist() == pytest.approx([64, 32, 32, 16, math.pi / 2])
    detector.configure(sum_regions=False, hulls=True)
    assert detector.footprints(batch)[0].tolist() == pytest.approx([56, 16, 72, 48], abs=1e-4)
    assert batch["bboxes"][0, 0] == 0.5  # the input of the student's own loss does not change


def test_horizontal_objects_cover_their_box():
    detector = detector_of(build_model("yolo11n-seg.yaml"))
    batch = {"img": torch.zeros(1, 3, 64, 128), "bboxes": torch.tensor([[0.5, 0.5, 0.25, 0.25]])}
    assert detector.footprints(batch).tolist() == [[48, 24, 80, 40]]


def test_detects_boxes_of_every_task(detector):
    (found,) = detector_of(deepcopy(detector.model)).detect(torch.rand(1, 3, 64, 64), confidence=0.05)
    assert found.shape[1] == (7 if detector.task == "obb" else 6)
    assert len(found)
    assert set(found[:, -1].tolist()) <= {0.0, 1.0}


def test_detects_oriented_boxes_with_their_angle():
    detector = detector_of(lively_model("yolo11n-obb.yaml", seed=1))
    (found,) = detector.detect(torch.rand(1, 3, 64, 64), confidence=0.1)
    assert found.shape[1] == 7
    assert len(found)
    assert (found[:, 5].diff() <= 0).all()
    assert set(found[:, 6].tolist()) <= {0.0, 1.0}
    assert found[:, 4].abs().max() <= 3 * math.pi / 4


side = st.floats(0.5, 30)
box = st.tuples(st.floats(0, 40), st.floats(0, 40), side, side, st.floats(-7, 7))


def similarity(*pair):
    return probabilistic_iou(*(torch.tensor([values], dtype=torch.float64) for values in pair)).item()


@given(first=box, second=box, turns=st.integers(-3, 3))
@settings(max_examples=40)
def test_half_turns_change_nothing(first, second, turns):
    turned = (*first[:4], first[4] + turns * math.pi)
    assert similarity(first, second) == pytest.approx(similarity(turned, second), abs=1e-6)
    assert similarity(first, turned) > 0.999


@given(first=box, second=box)
@settings(max_examples=40)
def test_exchanged_sides_and_a_quarter_turn_change_nothing(first, second):
    x, y, w, h, angle = first
    assert similarity(first, second) == pytest.approx(similarity((x, y, h, w, angle + math.pi / 2), second), abs=1e-6)


@given(square=box, ratio=st.floats(0.97, 1.03), turn=st.floats(-4, 4))
@settings(max_examples=40)
def test_nearly_square_boxes_hardly_have_an_angle(square, ratio, turn):
    x, y, w, _, angle = square
    assert similarity((x, y, w, w * ratio, angle), (x, y, w, w * ratio, angle + turn)) > 0.97
    assert similarity((x, y, w, w, angle), (x, y, w, w, angle + turn)) > 0.999


@given(first=box, second=box)
@settings(max_examples=40)
def test_similarity_is_symmetric_and_highest_for_equal_boxes(first, second):
    value = similarity(first, second)
    assert -1e-6 <= value <= similarity(first, first) + 1e-9  # its epsilon is inside a root
    assert value == pytest.approx(similarity(second, first), abs=1e-9)


def test_turning_a_long_box_makes_it_less_and_less_alike():
    values = [similarity((9, 9, 12, 2, 0), (9, 9, 12, 2, angle)) for angle in (0, 0.2, 0.5, 1.0, math.pi / 2)]
    assert values == sorted(values, reverse=True)
    assert values[-1] < 0.5 * values[0]


def test_the_box_term_is_what_ultralytics_trains_with():
    torch.manual_seed(0)
    ours, theirs = (torch.rand(2, 30, 5) * torch.tensor([20, 20, 8, 8, 3.0]) + 0.5 for _ in range(2))
    weights = torch.rand(2, 30)
    loss, _ = RotatedBboxLoss(1)(
        torch.rand(2, 30, 4), ours, torch.rand(30, 2), theirs, weights[..., None], 7.0,
        torch.ones(2, 30, dtype=torch.bool), torch.tensor([64.0, 64.0]), torch.ones(30, 1),
    )  # fmt: skip
    torch.testing.assert_close(similarity_loss(ours, theirs, weights, 7.0, probabilistic_iou), loss)


@pytest.mark.parametrize(("kind", "bins"), [(OBB, 4), (OBB26, 1)])
def test_the_whole_term_has_the_right_gradient(kind, bins):
    torch.manual_seed(0)
    head = kind(nc=2, reg_max=bins, ch=(3, 4)).double()
    head.stride = torch.tensor([8.0, 16.0])
    for module in head.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_var.fill_(0.05)  # otherwise the outputs of a new head hardly depend on its inputs
    detector = detector_of(build_model("yolo11n-obb.yaml"))
    detector.freeze_head(head)
    shapes = [(1, 3, 2, 3), (1, 4, 1, 2)]
    teacher = [torch.randn(*shape, dtype=torch.float64) for shape in shapes]
    student = [(x + torch.randn_like(x)).requires_grad_() for x in teacher]
    assert torch.autograd.gradcheck(
        lambda *maps: detector.compare(head, maps, teacher, DenseAssignment(torch.tensor(2))),
        student,
        rtol=1e-3,
        atol=1e-6,
    )


def test_heads_derived_from_known_ones_are_refused():
    class Other(OBB):
        pass

    model = build_model("yolo11n-obb.yaml")
    model.model[-1].__class__ = Other
    assert not is_supported(model)
    assert isinstance(build_model("yolo11n-seg.yaml"), SegmentationModel)
    assert type(build_model("yolo11n.yaml")) is DetectionModel
