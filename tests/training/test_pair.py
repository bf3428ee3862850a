"""Which maps belong together where the teacher's images are larger than the student's."""

import math
from dataclasses import replace

import pytest
import torch
from training_helpers import lively_model, small_yolo, tiny_yaml

from ds2d2_yolo.detectors import build_model, detector_of
from ds2d2_yolo.errors import DS2D2Error
from ds2d2_yolo.training.arguments import check_arguments
from ds2d2_yolo.training.checks import check_teacher_size
from ds2d2_yolo.training.pair import check_pair


def detectors(*names):
    return [detector_of(build_model(name)) for name in names]


@pytest.mark.parametrize("ratio", [2, 3, 4])
def test_larger_images_are_paired_by_their_strides(ratio):
    teacher, student = detectors("yolov8s.yaml", "yolov8n.yaml")
    pair = check_pair(teacher, student, 64, teacher_imgsz=ratio * 64)
    assert replace(pair, ratio=1) == check_pair(teacher, student, 64)
    assert pair.ratio == ratio


def test_explicit_only_families_are_paired_by_their_strides():
    teacher, student = detectors("rtdetr-l.yaml", "yolov8n.yaml")
    pair = check_pair(teacher, student, 64, teacher_imgsz=128)
    assert pair.teacher_layers == (21, 24, 27)


def test_levels_that_are_rounded_up_keep_their_partners(tmp_path):
    (retina,) = detectors(tiny_yaml(tmp_path, "RetinaNet"))
    pair = check_pair(retina, retina, 96, teacher_imgsz=192)  # sides of 2 and 1 cells to 3 and 2
    assert len(pair.head) == 5
    (smaller,) = detectors(tiny_yaml(tmp_path, "RetinaNet"))
    own, other = (
        [x.shape[2:] for x in detector.model.pyramid(torch.rand(1, 3, size, size))]
        for detector, size in ((retina, 192), (smaller, 96))
    )
    assert [tuple(math.ceil(side / 2) for side in shape) for shape in own] == [tuple(shape) for shape in other]


def test_named_layers_are_compared_at_equal_strides():
    teacher, student = detectors("yolov8s.yaml", "yolov8n.yaml")
    pair = check_pair(teacher, student, 64, ((4, 15), (4, 15)), teacher_imgsz=128)
    assert [(tap.student_layer, tap.teacher_layer) for tap in pair.taps] == [(15, 15), (18, 18), (21, 21), (4, 4)]
    assert pair.explicit == (3, 0)
    with pytest.raises(DS2D2Error, match=r"layer 15 .* stride 8, layer 18 .* stride 16; pass layers="):
        check_pair(teacher, student, 64, ((15,), (18,)), teacher_imgsz=128)


@pytest.mark.parametrize(
    ("size", "message"),
    [
        (32, "teacher_imgsz=32: is smaller than imgsz=64; pass teacher_imgsz=128, or leave it out"),
        (96, "teacher_imgsz=96: is 1.5 times imgsz=64, not a multiple; pass teacher_imgsz=128$"),
        (160, "teacher_imgsz=160: is 2.5 times imgsz=64, .*; pass teacher_imgsz=128 or teacher_imgsz=192$"),
    ],
)
def test_sizes_that_are_no_multiple_are_refused(size, message):
    (model,) = detectors("yolov8n.yaml")
    with pytest.raises(DS2D2Error, match=message):
        check_pair(model, model, 64, teacher_imgsz=size)


def test_a_larger_teacher_needs_as_many_levels():
    teacher, student = detectors("yolov8n-p6.yaml", "yolov8n.yaml")
    with pytest.raises(DS2D2Error, match="yolov8n-p6 has 4 levels, student yolov8n has 3"):
        check_pair(teacher, student, 64, teacher_imgsz=128)


MISTAKES = [
    (
        "yolov8n.yaml",
        {"assignment": "teacher"},
        "the teacher's predictions are for more anchors .*; leave assignment= out",
    ),
    ("yolov8n.yaml", {"rect": True}, "the grids of rectangles of two sizes need not coincide; leave rect= out"),
    ("third", {}, "YOLO models learn .* alone; pass im_full=0 im_high=0 response=0"),
    ("third", {"im_full": 0, "response": 0}, "YOLO models learn .* alone; pass im_high=0"),
]


@pytest.mark.parametrize(("model", "changes", "message"), MISTAKES)
def test_what_does_not_go_with_a_larger_teacher_is_refused(model, changes, message):
    (teacher,) = detectors("yolov8n.yaml")
    teacher.takes_larger_images = model != "third"  # a family from elsewhere
    given = {"teacher": "t.pt", "student": "s.pt", "imgsz": 64, **changes}
    check_teacher_size(check_arguments({**given, "teacher_imgsz": 64}), teacher)
    check_teacher_size(check_arguments(given), teacher)
    with pytest.raises(DS2D2Error, match=f"teacher_imgsz=128: {message}"):
        check_teacher_size(check_arguments({**given, "teacher_imgsz": 128}), teacher)


def test_a_size_that_is_rounded_up_is_refused(tmp_path):
    path = small_yolo(tmp_path, "fine")
    path.write_text(path.read_text().replace("[[2, 3, 4]", "[[2, 3]"))
    (fine,) = detectors(path)  # strides 8 and 16
    assert check_pair(fine, fine, 48).ratio == 1
    with pytest.raises(DS2D2Error, match=r"imgsz=48: is rounded up to 64, .* pass imgsz=64 teacher_imgsz=128"):
        check_pair(fine, fine, 48, teacher_imgsz=96)


@pytest.mark.parametrize("value", ["large", 0, 128.5, True])
def test_other_sizes_than_whole_numbers_are_refused(value):
    with pytest.raises(DS2D2Error, match=r"teacher_imgsz=.*expected a whole number of at least 1"):
        check_arguments({"teacher": "t.pt", "student": "s.pt", "teacher_imgsz": value})


def test_one_size_pairs_levels_by_their_order():
    teacher, student = (detector_of(lively_model(name)) for name in ("yolov8s.yaml", "yolov8n.yaml"))
    assert check_pair(teacher, student, 64) == check_pair(teacher, student, 64, teacher_imgsz=64)
    assert check_pair(teacher, student, 64).ratio == 1
