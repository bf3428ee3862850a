"""Explanations agree with the training: maps, errors and differences add up to the terms of the loss."""

import copy
import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.text import Text
from training_helpers import lively_model, save_checkpoint, tiny_yaml, write_data
from ultralytics import YOLO
from ultralytics.utils.ops import xywh2xyxy
from yolo_sets import encoded, write

from ds2d2_yolo.detectors import DenseAssignment, build_model, detector_of
from ds2d2_yolo.detectors.torchvision.faster_rcnn import Pooled, Regions
from ds2d2_yolo.errors import DS2D2Error
from ds2d2_yolo.explanation.explainer import Explainer
from ds2d2_yolo.explanation.images import read_image, spread_out
from ds2d2_yolo.explanation.setup import ImageSource, load_trained_models
from ds2d2_yolo.explanation.views import spread_over
from ds2d2_yolo.method import WEIGHTS, DS2D2Loss, Gains, LossInputs
from ds2d2_yolo.report.sheet import draw_sheet
from ds2d2_yolo.training.adapters import adapt, find_adapters, fit_adapters, keep_adapters
from ds2d2_yolo.training.pair import check_pair

SIZE = 128


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "set"
    write_data(folder, train=6, val=2, size=SIZE)
    return sorted((folder / "images" / "train").iterdir())


@pytest.fixture(scope="module")
def explainer(images):
    teacher, student = (detector_of(lively_model(f"yolo11{scale}.yaml", seed=i).eval()) for i, scale in enumerate("sn"))
    made = Explainer(teacher, student, check_pair(teacher, student, SIZE), SIZE, confidence=0.05)
    made.fit_adapters(images, "images", lambda path: read_image(path, 2))
    return made


def batch_for(picture):
    height, width = picture.pixels.shape[:2]
    boxes = torch.from_numpy(picture.boxes).float()
    return boxes, torch.zeros(len(boxes)), (height, width)


@pytest.mark.parametrize("weight", WEIGHTS)
def test_errors_under_their_weight_are_the_explicit_terms(weight, explainer, images):
    picture = read_image(images[0], 2)
    teacher, student = explainer.teacher, explainer.student
    own = Explainer(teacher, student, check_pair(teacher, student, SIZE), SIZE, confidence=0.05, weight=weight)
    own.adapters = explainer.adapters
    explanation = own.explain(picture)
    student, teacher = explainer.maps(picture)
    pair = check_pair(explainer.teacher, explainer.student, SIZE)
    loss = DS2D2Loss(pair.maps, Gains(ex_low=1.0, ex_high=1.0), weight=weight)
    with torch.no_grad():
        for layer, weight in zip(loss.adapters, explainer.adapters, strict=True):
            layer.weight.copy_(weight[:, :, None, None])
        detector = explainer.teacher
        scores = detector.head.forward_head(teacher, **detector.head.one2many)["scores"].sigmoid().amax(1)
        cells = scores.split([x.shape[2] * x.shape[3] for x in teacher], 1)
        sure = [own.view(1, 1, *x.shape[2:]) for own, x in zip(cells, teacher, strict=True)]
        terms = loss(LossInputs(student, teacher, *batch_for(picture), confidence=sure))
    for name in ("low", "high"):
        total = sum((getattr(level, name) * level.weight).mean() for level in explanation.levels)
        assert total == pytest.approx(terms[f"ex_{name}"].item(), rel=1e-4)
    numbers = explanation.numbers
    weighted = sum(value for key, value in numbers.items() if key.startswith("ex_low_weighted/"))
    assert weighted == pytest.approx(terms["ex_low"].item(), rel=1e-4)


def test_bands_hold_the_energy_of_the_maps(explainer, images):
    picture = read_image(images[0], 2)
    _, teacher = explainer.maps(picture)
    for level, x in zip(explainer.explain(picture).levels, teacher, strict=True):
        bands = sum((energy**2).sum() for energy in level.teacher.values())
        assert bands == pytest.approx(x.square().sum().item() / x.shape[1], rel=1e-4)  # Haar is orthonormal


@pytest.mark.parametrize("name", ["yolo11n.yaml", "yolo26n.yaml", "yolov10n.yaml"])
def test_differences_of_a_dense_head_sum_to_its_implicit_term(name):
    detector = detector_of(lively_model(name).eval())
    layers = [detector.layer(index) for index in detector.head_layers]
    seen = []
    handles = [layer.register_forward_hook(lambda m, x, out: seen.append(out)) for layer in layers]
    with torch.no_grad():
        detector.model(torch.rand(1, 3, 64, 96))
    for handle in handles:
        handle.remove()
    other = [x + 0.3 * torch.rand_like(x) for x in seen]
    head = copy.deepcopy(detector.head)
    detector.freeze_head(head)
    places = detector.places(seen)
    classes, boxes = detector.differences(head, other, seen, places)
    assert classes.sum() > 0
    term = detector.compare(head, other, seen, DenseAssignment(torch.tensor(1.0)))
    torch.testing.assert_close(classes.sum() + boxes.sum(), term, rtol=1e-4, atol=1e-5)
    areas = (places[:, 2:] - places[:, :2]).prod(1)
    assert areas.sum().item() == pytest.approx(3 * 64 * 96)  # the cells of every level tile the input
    assert places.min() == 0
    assert places[:, 2].max() == 96


def test_differences_of_retinanet_add_up_to_its_implicit_term(tmp_path):
    torch.manual_seed(0)
    detector = detector_of(build_model(tiny_yaml(tmp_path, "RetinaNet"), nc=2).eval())
    with torch.no_grad():
        seen = detector.model.pyramid(torch.rand(1, 3, 64, 96))
        other = [x + 0.3 * torch.rand_like(x) for x in seen]
    places = detector.places(seen)
    classes, boxes = detector.differences(detector.head, other, seen, places)
    everything = DenseAssignment(torch.tensor(1.0), torch.ones(1, len(classes)))
    with torch.no_grad():
        term = detector.compare(detector.head, other, seen, everything)
    torch.testing.assert_close(classes.sum() + boxes.sum(), term, rtol=1e-4, atol=1e-5)
    assert len(places) == len(classes) == 9 * sum(x.shape[-2] * x.shape[-1] for x in seen)


def test_differences_of_faster_rcnn_are_on_the_teachers_regions(tmp_path):
    torch.manual_seed(0)
    detector = detector_of(build_model(tiny_yaml(tmp_path, "FasterRCNN"), nc=2).eval())
    with torch.no_grad():
        seen = detector.model.pyramid(torch.rand(1, 3, 64, 96))
        other = [x + 0.3 * torch.rand_like(x) for x in seen]
    places = detector.places(seen)
    assert places.shape[1] == 4
    part = detector.implicit_part(detector.head)
    classes, boxes = detector.differences(part, other, seen, places)
    empty = torch.zeros(0)
    regions = Regions([places], empty, empty, torch.tensor(1.0))
    pooled = part.box_roi_pool(other, [places])
    with torch.no_grad():
        term = detector.compare(part, other, seen, Pooled(regions, other, pooled, None))
        certainty = part(seen, [places]).logits.softmax(1)[:, :-1].amax(1)
    torch.testing.assert_close(0.5 * classes.mean() + boxes.sum() / certainty.sum(), term, rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_detections_are_those_of_predict(images, tmp_path):
    model = lively_model("yolo11n.yaml").eval()
    (expected,) = YOLO(save_checkpoint(copy.deepcopy(model), tmp_path / "m.pt")).predict(
        str(images[0]), imgsz=SIZE, conf=0.4, device="cpu", verbose=False
    )
    detector = detector_of(model)
    made = Explainer(detector, detector, check_pair(detector, detector, SIZE), SIZE, confidence=0.4)
    made.fit_adapters(images, "images", lambda path: read_image(path, 2))
    found = made.explain(read_image(images[0], 2)).detections["distilled student"]
    assert len(found) == len(expected.boxes) > 0
    np.testing.assert_allclose(found[:, :4], expected.boxes.xyxy, atol=0.1)
    np.testing.assert_allclose(found[:, 4], expected.boxes.conf, atol=1e-3)


@pytest.mark.parametrize("shape", [(90, 200), (200, 90), (33, 47), (128, 128)])
def test_objects_keep_their_place_in_images_of_any_shape(explainer, images, shape):
    pixels = np.zeros((*shape, 3), np.uint8)
    box = np.array([[10.0, 5.0, 30.0, 25.0]])
    picture = copy.copy(read_image(images[0], 2))
    picture = type(picture)(picture.path, pixels, box, np.array([0]), True)
    explanation = explainer.explain(picture)
    left, right, bottom, top = explanation.window
    assert left <= 0
    assert top <= 0
    assert right >= shape[1] - 1e-6
    assert bottom >= shape[0] - 1e-6
    weight = explanation.levels[0].disw
    rows, columns = np.nonzero(weight > weight.max() - 1e-6)
    x = left + (columns + 0.5) * (right - left) / weight.shape[1]
    y = top + (rows + 0.5) * (bottom - top) / weight.shape[0]
    cell = (right - left) / weight.shape[1]
    assert abs(x.mean() - 20) < 1.5 * cell
    assert abs(y.mean() - 15) < 1.5 * cell
    assert (weight - 1).sum() == pytest.approx(1, rel=1e-3)


def test_an_explainer_without_adapters_says_so(explainer, images):
    bare = Explainer(explainer.teacher, explainer.student, check_pair(explainer.teacher, explainer.student, SIZE), SIZE)
    with pytest.raises(ValueError, match="needs adapters"):
        bare.explain(read_image(images[0], 2))


def test_a_fit_finds_the_map_that_made_the_teacher():
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(12, 6, generator=generator)
    maps = [torch.randn(1, 6, 8, 8, generator=generator) for _ in range(10)]
    (fitted,) = fit_adapters(([x], [adapt(weight, x)]) for x in maps)
    torch.testing.assert_close(fitted, weight, rtol=0.01, atol=0.01)


def test_a_fit_survives_maps_without_any_signal():
    (fitted,) = fit_adapters([([torch.zeros(1, 3, 2, 2)], [torch.ones(1, 4, 2, 2)])])
    assert torch.isfinite(fitted).all()


def test_kept_adapters_are_found_again_by_their_student_alone(tmp_path):
    file, best, last = tmp_path / "adapters.pt", torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    layers = [torch.nn.ModuleList([torch.nn.Conv2d(2, 3, 1, bias=False)]) for _ in range(2)]
    keep_adapters(file, "last", last, layers[0])
    keep_adapters(file, "best", best, layers[1])
    for student, kept in ((last, layers[0]), (best, layers[1])):
        torch.testing.assert_close(find_adapters(file, student)[0], kept[0].weight.flatten(1), rtol=1e-3, atol=1e-3)
    assert find_adapters(file, torch.nn.Linear(2, 2)) == {}
    assert find_adapters(tmp_path / "missing.pt", best) == {}
    file.write_bytes(b"garbage")
    assert find_adapters(file, best) == {}


boxes = st.tuples(*[st.floats(-20, 80)] * 2, *[st.floats(0, 60)] * 2, st.floats(0, 5))


@given(st.lists(boxes, max_size=6))
@settings(max_examples=60)
def test_spreading_keeps_the_sum_of_all_places_inside(rows):
    numbers = torch.tensor([[x, y, x + w + 1, y + h + 1, value] for x, y, w, h, value in rows]).reshape(-1, 5)
    canvas = spread_over(numbers[:, :4], numbers[:, 4], (64, 48))
    assert canvas.shape == (16, 12)
    assert (canvas >= 0).all()
    inside = (numbers[:, 2] > 0) & (numbers[:, 3] > 0) & (numbers[:, 0] < 48) & (numbers[:, 1] < 64)
    assert canvas.sum() == pytest.approx(numbers[inside, 4].sum().item(), rel=1e-4, abs=1e-4)


def test_images_are_taken_at_even_distances():
    assert spread_out(list(range(10)), 3) == [0, 3, 6]
    assert spread_out([1, 2], 5) == [1, 2]


def test_a_teacher_is_not_graded_by_its_own_labels(explainer, images):
    picture = dataclasses.replace(read_image(images[0], 2), source=Path("harbour.tif"))
    canvas = draw_sheet(explainer.explain(picture), ["ship", "vehicle"], explainer.origin)
    texts = [text.get_text() for text in canvas.figure.findobj(Text)]
    assert {"harbour.tif", "image and the teacher's labels"} <= set(texts)
    assert sum(" missed" in text for text in texts) == 1  # the student's


def test_labels_are_read_as_ultralytics_reads_them(tmp_path, images):
    picture = read_image(images[0], 2)
    rows = np.loadtxt(str(images[0]).replace("images", "labels").replace(".png", ".txt"))
    expected = xywh2xyxy(rows[:, 1:]) * SIZE
    order = [0, 1] if picture.labels[0] == rows[0, 0] else [1, 0]
    np.testing.assert_allclose(picture.boxes[order], expected, atol=1e-3)
    assert picture.labelled
    bare = tmp_path / "bare.png"
    bare.write_bytes(images[0].read_bytes())
    assert not read_image(bare, 2).labelled
    assert read_image(bare, 2, labelled=True).labelled
    polygon = tmp_path / "bare.txt"
    polygon.write_text("1 0.1 0.1 0.5 0.1 0.5 0.3 0.1 0.3\n")
    np.testing.assert_allclose(read_image(bare, 2).boxes, [[12.8, 12.8, 64, 38.4]], atol=1e-3)
    with pytest.raises(DS2D2Error, match=r"bare\.txt: line 1: class 1, the data set has 0 to 0; correct the file"):
        read_image(bare, 1)
    assert read_image(bare, 1, single_cls=True).labels.tolist() == [0]
    assert [len(read_image(bare, 2, counted=classes).boxes) for classes in ([0], 1, [0, 1])] == [0, 1, 1]
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    with pytest.raises(DS2D2Error, match=r"broken\.png: cannot be read as an image"):
        read_image(broken, 2)


def test_models_for_grey_images_are_refused(tmp_path):
    model = build_model("yolo11n.yaml", ch=1, nc=2)
    path = save_checkpoint(model, tmp_path / "grey.pt")
    with pytest.raises(DS2D2Error, match=r"student=.*grey\.pt: is for images of 1 channel, only those of 3"):
        load_trained_models({"student": path})


@pytest.mark.parametrize(("classes", "expected"), [(None, [0, 1]), ([1], [1]), (0, [0])])
def test_objects_of_untrained_classes_are_left_out(images, classes, expected):
    student = detector_of(lively_model("yolo11n.yaml", seed=1))
    student.model.args = {"classes": classes}
    source = ImageSource(images, labelled=True, fit_images=images, fit_name="images")
    assert sorted({label for path in images for label in source.read(path, student).labels.tolist()}) == expected


def test_reading_an_image_does_not_repair_it(tmp_path):
    """Ultralytics rewrites JPEGs that do not end as they should."""
    picture = write(tmp_path / "picture.jpg", encoded("JPEG") + b"\0")
    content = picture.read_bytes()
    read_image(picture, 2)
    assert picture.read_bytes() == content


def test_a_larger_teacher_is_explained_in_the_students_pixels(images):
    teacher, student = (detector_of(lively_model(f"yolo11{scale}.yaml", seed=i).eval()) for i, scale in enumerate("sn"))
    pair = check_pair(teacher, student, 64, teacher_imgsz=SIZE)
    amplifier = copy.deepcopy(teacher.head)
    teacher.freeze_head(amplifier)
    made = Explainer(teacher, student, pair, 64, amplifier, student, confidence=0.05)
    made.fit_adapters(images, "images", lambda path: read_image(path, 2))
    picture = read_image(images[0], 2)
    student_maps, teacher_maps = made.maps(picture)
    assert [x.shape[2:] for x in student_maps] == [x.shape[2:] for x in teacher_maps] == [(8, 8), (4, 4), (2, 2)]
    explanation = made.explain(picture)
    assert explanation.sizes == {"teacher": (SIZE, SIZE), "plain student": (64, 64), "distilled student": (64, 64)}
    assert [level.stride for level in explanation.levels] == [8, 16, 32]
    assert set(explanation.differences) == {"im_full", "im_high"}
    _, all_maps = made._detect(teacher, made._inputs(picture)[1])
    same = [tap.student_channels == tap.teacher_channels for tap in pair.taps]
    compared = [x if own else adapt(w, x) for x, w, own in zip(student_maps, made.adapters, same, strict=True)]
    total = teacher.compare(teacher.head, compared, all_maps, DenseAssignment(torch.tensor(1.0)))
    view = explanation.differences["im_full"]
    assert view.classes.sum() + view.boxes.sum() == pytest.approx(total.item(), rel=1e-3)
    assert view.classes.shape == (16, 16)
    assert all(rows[:, :4].max() <= SIZE for rows in explanation.detections.values() if len(rows))
    draw_sheet(explanation, ["ship", "vehicle"], made.origin)
