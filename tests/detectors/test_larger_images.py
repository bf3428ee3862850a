"""Predictions of a teacher whose images are larger than the student's."""

import pytest
import torch
from training_helpers import batch_of, lively_model, run_teacher, tiny_yaml

from ds2d2_yolo.detectors import ComparesPredictions, DenseAssignment, RTDETRDetector, Taps, build_model, detector_of
from ds2d2_yolo.method import dense_implicit_terms
from ds2d2_yolo.training.step import reduce_confidence, reduce_maps

NAMES = ["yolov8n", "yolov10n", "yolo26n", "yolo11n-obb", "yolo26n-obb", "yolo11n-seg", "yolo11n-pose", "RetinaNet"]
POSITIVES = DenseAssignment(torch.tensor(3.0, dtype=torch.float64))


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
def larger(teacher):
    """The same teacher, whose images have twice the side of the student's."""
    detector = type(teacher)(teacher.model)
    detector.ratio = 2
    return detector


@pytest.fixture(scope="module")
def seen(teacher):
    """What the teacher makes of two images: its maps, one with sides of three cells, and its predictions with noise."""
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(2, 3, 96, 96, generator=generator, dtype=torch.float64)
    with torch.no_grad():
        maps, raw = run_teacher(teacher, images)
    return maps, raw._replace(
        logits=raw.logits + torch.randn(raw.logits.shape, generator=generator, dtype=torch.float64)
    )


def anchors_of(predictions, maps):
    """The number of anchors of a cell."""
    return predictions.logits.shape[1] // sum(x.shape[2] * x.shape[3] for x in maps)


def surest_of(predictions, maps):
    """For each anchor of each two by two cells, the prediction of the highest logit, in units of half the image."""
    number, start, logits, boxes = anchors_of(predictions, maps), 0, [], []
    unit = torch.tensor([2, 2, 2, 2, 1.0])[: predictions.boxes.shape[2]]
    for height, width in (x.shape[2:] for x in maps):
        for row in range(0, height, 2):
            for column in range(0, width, 2):
                cells = [
                    start + (y * width + x) * number
                    for y in range(row, min(row + 2, height))
                    for x in range(column, min(column + 2, width))
                ]
                for anchor in range(number):
                    index = torch.tensor([cell + anchor for cell in cells])
                    best = index[predictions.logits[:, index].amax(2).argmax(1)]
                    images = torch.arange(len(best))
                    logits.append(predictions.logits[images, best])
                    boxes.append(predictions.boxes[images, best] / unit)
        start += height * width * number
    return predictions._replace(logits=torch.stack(logits, 1), boxes=torch.stack(boxes, 1))


def test_anchors_take_the_surest_prediction_of_their_cells(larger, seen):
    maps, raw = seen
    found, expected = larger.predictions_of(raw, maps, POSITIVES), surest_of(raw, maps)
    for values, others in zip(found, expected, strict=True):
        torch.testing.assert_close(values, others)
    sizes = [x.shape[2] * x.shape[3] for x in reduce_maps(maps, 2)]
    assert found.logits.shape[1] == sum(sizes) * anchors_of(raw, maps)


def test_heads_predict_sizes_in_the_students_pixels(teacher, larger, seen):
    maps = reduce_maps(seen[0], 2)
    whole, found = teacher.predict(teacher.head, maps), larger.predict(larger.head, maps)
    torch.testing.assert_close(found.logits, whole.logits)
    cells = teacher.places(maps)
    centres = ((cells[:, :2] + cells[:, 2:]) / 2).double()
    if teacher.task == "obb":  # grid cells
        centres = centres / (cells[:, 2:] - cells[:, :2])
        around = torch.cat([centres, torch.zeros_like(centres)], 1)
        torch.testing.assert_close(found.boxes[..., 4], whole.boxes[..., 4])
    else:
        around = centres.repeat(1, 2)
    expected = around + (whole.boxes[..., :4] - around) / 2
    torch.testing.assert_close(found.boxes[..., :4], expected, rtol=1e-5, atol=1e-4)


def test_a_term_compares_with_the_surest_and_has_gradients(teacher, larger, seen):
    maps, _ = seen
    noise = [0.1 * torch.randn(x.shape, generator=torch.Generator().manual_seed(1), dtype=x.dtype) for x in maps]
    student = [x.requires_grad_() for x in reduce_maps([x + e for x, e in zip(maps, noise, strict=True)], 2)]
    with torch.no_grad():
        target = surest_of(teacher.predict(teacher.head, maps), maps)
    found = larger.compare(larger.head, student, maps, POSITIVES)
    predictions = larger.predict(larger.head, student)
    expected = dense_implicit_terms(predictions, target, POSITIVES.avg_factor, similarity=larger.similarity)
    torch.testing.assert_close(found, sum(expected), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(larger.compare(larger.head, student, maps, POSITIVES, target), found)
    found.backward()
    assert all(x.grad.any() for x in student)


def test_differences_add_up_to_the_term(larger, seen):
    maps = [x[:1] for x in seen[0]]  # of one image
    student = [x + 0.1 for x in reduce_maps(maps, 2)]
    places = larger.places(student)
    classes, boxes = larger.differences(larger.head, student, maps, places)
    assert len(places) == len(classes) == len(boxes)
    total = larger.compare(larger.head, student, maps, DenseAssignment(torch.tensor(1.0, dtype=torch.float64)))
    torch.testing.assert_close((classes + boxes).sum(), total, rtol=1e-4, atol=1e-5)


def test_images_of_one_size_change_nothing(teacher, seen):
    maps, raw = seen
    assert teacher.ratio == 1
    assert teacher.predictions_of(raw, maps, POSITIVES) is raw
    assert all(x is y for x, y in zip(reduce_maps(maps, 1), maps, strict=True))
    assert all(x is y for x, y in zip(reduce_confidence(maps, 1), maps, strict=True))


def test_grids_and_maps_are_reduced_alike(larger, seen):
    maps, raw = seen
    grids = larger.confidence(raw, maps)
    for grid, confidence, x in zip(grids, reduce_confidence(grids, 2), reduce_maps(maps, 2), strict=True):
        assert confidence.shape[2:] == x.shape[2:] == tuple((side + 1) // 2 for side in grid.shape[2:])
        assert confidence.max() == grid.max()
        torch.testing.assert_close(confidence[..., 0, 0], grid[..., :2, :2].amax((2, 3)))


def test_regions_are_larger_in_the_teachers_images(tmp_path):
    torch.manual_seed(0)
    teacher, student = (detector_of(build_model(tiny_yaml(tmp_path, "FasterRCNN"), nc=2)) for _ in range(2))
    taps = Taps()
    taps.open(student.assignment_modules())
    student.model.train()(batch_of())
    assignment = student.assignment(taps.close())
    teacher.freeze()
    teacher.ratio = 2
    maps, raw = run_teacher(teacher, torch.rand(2, 3, 128, 128))
    head = teacher.implicit_part(teacher.head)
    expected = head(maps, [2 * boxes for boxes in assignment.regions.boxes])
    for found in (teacher.predictions_of(raw, maps, assignment), teacher.target(head, maps, assignment)):
        for values, others in zip(found, expected, strict=True):
            torch.testing.assert_close(values, others)
    own = teacher.predict(head, reduce_maps(maps, 2), assignment)
    assert own.deltas.shape == expected.deltas.shape
    assert not torch.allclose(own.deltas, expected.deltas)


def test_families_say_whether_they_take_larger_images(tmp_path):
    assert detector_of(build_model("yolo11n.yaml")).takes_larger_images
    assert detector_of(build_model(tiny_yaml(tmp_path, "FasterRCNN"), nc=2)).takes_larger_images
    assert not issubclass(RTDETRDetector, ComparesPredictions)
