"""Heads cut to some of their levels, for a teacher whose images are larger than the student's."""

from copy import deepcopy

import pytest
import torch
from training_helpers import batch_of, lively_model, run_teacher, tiny_yaml

from ds2d2_yolo.detectors import CutsLevels, DenseAssignment, RTDETRDetector, Taps, build_model, detector_of
from ds2d2_yolo.method import dense_implicit_terms

NAMES = ["yolov8n", "yolov10n", "yolo26n", "yolo11n-obb", "yolo26n-obb", "yolo11n-seg", "yolo11n-pose", "RetinaNet"]
SIZE = 128  # of the teacher's images: maps of 16, 8 and 4 cells along a side


@pytest.fixture(scope="module", params=NAMES)
def teacher(request, tmp_path_factory):
    if request.param == "RetinaNet":
        torch.manual_seed(0)
        detector = detector_of(build_model(tiny_yaml(tmp_path_factory.mktemp("model"), "RetinaNet"), nc=2))
    else:
        detector = detector_of(lively_model(f"{request.param}.yaml"))
    detector.model.double()
    detector.freeze()
    return detector


@pytest.fixture
def cut(teacher):
    """The same teacher, of which all levels but the first are compared, in pixels twice as large."""
    detector = type(teacher)(teacher.model)
    detector.compare_levels(range(1, len(teacher.head_layers)), 2)
    return detector


@pytest.fixture(scope="module")
def seen(teacher):
    """What the teacher makes of two images: the maps of all levels, and its predictions."""
    images = torch.rand(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with torch.no_grad():
        return run_teacher(teacher, images)


def anchors_of(predictions, maps):
    """The number of anchors of a cell."""
    return predictions.logits.shape[1] // sum(x.shape[2] * x.shape[3] for x in maps)


def slices_of(teacher, predictions, maps):
    """Cut the first level off predictions of the whole head; pixels become those of images of half the size."""
    first = maps[0].shape[2] * maps[0].shape[3] * anchors_of(predictions, maps)
    boxes = predictions.boxes if teacher.task == "obb" else predictions.boxes / 2
    return predictions._replace(logits=predictions.logits[:, first:], boxes=boxes[:, first:])


def target_of(teacher, predictions, maps):
    """The same, where each anchor takes the surest prediction inside its cell, also of the first level."""
    target, number = slices_of(teacher, predictions, maps), anchors_of(predictions, maps)
    logits, boxes = target.logits.clone(), target.boxes.clone()
    height, width = maps[1].shape[2:]
    unit = torch.tensor([2, 2, 2, 2, 1.0])[: boxes.shape[2]]  # of finer cells, or of pixels of the larger image
    for anchor in range(number * height * width):
        (row, column), inner = divmod(anchor // number, width), anchor % number
        cells = [(2 * row + y) * maps[0].shape[3] + 2 * column + x for y in (0, 1) for x in (0, 1)]
        for image in range(len(logits)):
            best = max(cells, key=lambda cell: predictions.logits[image, cell * number + inner].max()) * number + inner
            if predictions.logits[image, best].max() > logits[image, anchor].max():
                logits[image, anchor] = predictions.logits[image, best]
                boxes[image, anchor] = predictions.boxes[image, best] / unit
    return predictions._replace(logits=logits, boxes=boxes)


def test_terms_and_gradients_are_those_of_the_whole_head_cut(teacher, cut, seen):
    maps, raw = seen
    generator = torch.Generator().manual_seed(1)
    noise = [0.1 * torch.randn(x.shape, generator=generator, dtype=x.dtype) for x in maps]
    student, same = ([(x + e).requires_grad_() for x, e in zip(maps, noise, strict=True)] for _ in range(2))
    positives = DenseAssignment(torch.tensor(3.0, dtype=torch.float64))
    expected = dense_implicit_terms(
        slices_of(teacher, teacher.predict(teacher.head, student), maps),
        target_of(teacher, raw, maps),
        positives.avg_factor,
        similarity=teacher.similarity,
    )
    predictions = cut.predictions_of(raw, maps, positives)
    found = cut.compare(teacher.head, same[1:], maps, positives, predictions)
    again = cut.compare(teacher.head, same[1:], maps, positives)
    torch.testing.assert_close(found, sum(expected), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(again, found, rtol=1e-9, atol=1e-9)
    sum(expected).backward()
    found.backward()
    for own, other in zip(same[1:], student[1:], strict=True):
        assert own.grad.any()
        torch.testing.assert_close(own.grad, other.grad, rtol=1e-7, atol=1e-9)
    assert not student[0].grad.any()


def test_finer_predictions_count_where_they_are_surer(teacher, cut, seen):
    maps, raw = seen
    logits = torch.randn(raw.logits.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    raw = raw._replace(logits=logits)
    found, own = cut.predictions_of(raw, maps, DenseAssignment(torch.tensor(1.0))), slices_of(teacher, raw, maps)
    for values, expected in zip(found, target_of(teacher, raw, maps), strict=True):
        torch.testing.assert_close(values, expected)
    same = (found.logits == own.logits).all(2)
    finest = len(same[0]) - sum(x.shape[2] * x.shape[3] for x in maps[2:]) * anchors_of(raw, maps)
    assert 0.1 < same[:, :finest].double().mean() < 0.3  # the surest of five
    assert same[:, finest:].all()


def test_finer_confidences_count_on_the_finest_level(teacher, cut, seen):
    maps, raw = seen
    grids = teacher.confidence(raw, maps)
    found = cut.compared_confidence(raw, maps)
    torch.testing.assert_close(found[1], torch.maximum(grids[1], torch.nn.functional.max_pool2d(grids[0], 2)))
    assert (found[1] > grids[1]).any()
    torch.testing.assert_close(found[2:], grids[2:])
    torch.testing.assert_close(teacher.compared_confidence(raw, maps), grids)


def test_the_head_itself_stays_whole(teacher, cut, seen):
    maps, raw = seen
    before = teacher.predict(teacher.head, maps)
    part = cut.level_part(teacher.head)
    assert part is not teacher.head
    torch.testing.assert_close(teacher.predict(teacher.head, maps), before)
    torch.testing.assert_close(cut.confidence(raw, maps), teacher.confidence(raw, maps))
    torch.testing.assert_close(cut.detections_of(raw, maps), teacher.detections_of(raw, maps))
    assert cut.level_part(teacher.head) is part
    assert teacher.level_part(teacher.head) is teacher.head
    assert all(own is other for own, other in zip(part.parameters(), part.parameters(), strict=True))
    assert {id(p) for p in part.parameters()} <= {id(p) for p in teacher.head.parameters()}


def test_places_and_differences_are_of_the_levels(teacher, cut, seen):
    maps = [x[:1] for x in seen[0]]  # of one image
    whole, places = teacher.places(maps), cut.places(maps[1:])
    torch.testing.assert_close(places, whole[-len(places) :].to(places.dtype) / 2)
    student = [x + 0.1 for x in maps[1:]]
    classes, boxes = cut.differences(teacher.head, student, maps, places)
    total = cut.compare(teacher.head, student, maps, DenseAssignment(torch.tensor(1.0, dtype=torch.float64)))
    torch.testing.assert_close((classes + boxes).sum(), total, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "RetinaNet"])
def test_a_student_is_asked_about_its_levels_alone(name):
    student = detector_of(lively_model(f"{name}.yaml", seed=3))
    own = type(student)(student.model)
    own.compare_levels((0, 1))
    taps = Taps()
    layers = {index: student.layer(index) for index in student.head_layers}
    taps.open({**layers, **student.assignment_modules(), **student.response_modules()})
    student.model.train()(batch_of(task=student.task))
    outputs = taps.close()
    foreground = outputs["assigner"][3]
    assert foreground.shape[1] == 64 + 16 + 4
    expected = foreground[:, :80].sum(1).clamp(min=1).sum()
    assert own.assignment(outputs).avg_factor == expected
    whole, cut = (detector.response(student.head, outputs) for detector in (student, own))
    for all_of_it, some in zip(whole, cut, strict=True):
        torch.testing.assert_close(some, all_of_it[:, :80])


def test_ignored_anchors_of_other_levels_do_not_count(tmp_path):
    torch.manual_seed(0)
    student = detector_of(build_model(tiny_yaml(tmp_path, "RetinaNet"), nc=2))
    taps = Taps()
    layers = {index: student.layer(index) for index in student.head_layers}
    taps.open({**layers, **student.assignment_modules()})
    student.model.train()(batch_of())
    outputs = taps.close()
    student.compare_levels((0, 1))
    assignment = student.assignment(outputs)
    anchors = 9 * (64 + 16)
    objects = outputs["assigner"].objects[:, :anchors]
    assert assignment.avg_factor == (objects >= 0).sum(1).clamp(min=1).sum()
    assert torch.equal(assignment.label_weights, (objects != -2).float())


def test_all_levels_at_one_size_are_no_cut():
    detector = detector_of(build_model("yolo11n.yaml"))
    detector.compare_levels((0, 1, 2))
    assert detector.levels is None
    detector.compare_levels((0, 1, 2), 2)  # a teacher whose finest stride is 16
    assert detector.levels == (0, 1, 2)
    part = detector.level_part(deepcopy(detector.head))
    assert part.stride.tolist() == [4, 8, 16]


def test_families_say_whether_they_can_be_cut(tmp_path):
    assert isinstance(detector_of(build_model("yolo11n.yaml")), CutsLevels)
    assert not issubclass(RTDETRDetector, CutsLevels)
    assert not isinstance(detector_of(build_model(tiny_yaml(tmp_path, "FasterRCNN"), nc=2)), CutsLevels)
