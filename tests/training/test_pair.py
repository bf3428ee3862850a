"""Which maps belong together where the teacher's images are larger than the student's."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from training_helpers import lively_model, small_yolo, tiny_yaml

from ds2d2_yolo.detectors import build_model, detector_of
from ds2d2_yolo.errors import DS2D2Error
from ds2d2_yolo.training.arguments import check_arguments
from ds2d2_yolo.training.checks import check_teacher_size
from ds2d2_yolo.training.pair import check_pair, pair_levels

strides = st.sets(st.sampled_from([2**k for k in range(1, 9)]), min_size=1, max_size=6).map(sorted)


@given(strides, strides, st.sampled_from([1, 1.25, 1.5, 2, 3, 4, 8]))
def test_levels_are_paired_by_their_grids(own, others, ratio):
    pairs = pair_levels(own, others, ratio)
    size = 256 * 60  # which every stride divides
    for student, teacher in pairs:
        assert size / own[student] == ratio * size / others[teacher]
    assert pairs == sorted(pairs)
    assert [teacher for _, teacher in pairs] == sorted(teacher for _, teacher in pairs)
    alone = [stride for level, stride in enumerate(own) if level not in dict(pairs)]
    assert not {ratio * stride for stride in alone} & set(others)


@given(strides, st.sampled_from([1, 2, 4]))
def test_a_copy_of_the_student_lacks_its_finest_levels(own, ratio):
    pairs = pair_levels(own, own, ratio)
    assert {own[student] for student, _ in pairs} == {stride for stride in own if ratio * stride in own}


def detectors(*names):
    return [detector_of(build_model(name)) for name in names]


def test_twice_the_size_pairs_each_level_with_the_next():
    teacher, student = detectors("yolov8s.yaml", "yolov8n.yaml")
    pair = check_pair(teacher, student, 64, teacher_imgsz=128)
    assert [(tap.student_layer, tap.teacher_layer, tap.stride) for tap in pair.taps] == [(15, 18, 8), (18, 21, 16)]
    assert (pair.student_levels, pair.teacher_levels, pair.ratio) == ((0, 1), (1, 2), 2)
    assert pair.explicit == pair.head == (0, 1)
    assert [(lone.layer, lone.stride) for lone in pair.alone] == [(21, 32)]
    assert "the student's own loss" in pair.table_lines()[-1]
    four = check_pair(teacher, student, 64, teacher_imgsz=256)
    assert (four.student_levels, four.teacher_levels, four.ratio) == ((0,), (2,), 4)


def test_a_teacher_with_a_coarser_level_has_partners_for_all():
    teacher, student = detectors("yolov8n-p6.yaml", "yolov8n.yaml")
    pair = check_pair(teacher, student, 64, teacher_imgsz=128)
    assert (pair.student_levels, pair.teacher_levels) == ((0, 1, 2), (1, 2, 3))
    assert pair.alone == ()


def test_explicit_only_families_are_paired_by_their_grids():
    teacher, student = detectors("rtdetr-l.yaml", "yolov8n.yaml")
    pair = check_pair(teacher, student, 64, teacher_imgsz=128)
    assert pair.teacher_layers == (24, 27)


def test_levels_that_are_rounded_up_keep_their_partners(tmp_path):
    (retina,) = detectors(tiny_yaml(tmp_path, "RetinaNet"))
    pair = check_pair(retina, retina, 96, teacher_imgsz=192)
    assert (pair.student_levels, pair.teacher_levels) == ((0, 1, 2, 3), (1, 2, 3, 4))


def test_named_layers_are_compared_where_their_grids_coincide():
    teacher, student = detectors("yolov8s.yaml", "yolov8n.yaml")
    pair = check_pair(teacher, student, 64, ((4, 15), (6, 18)), teacher_imgsz=128)
    assert [(tap.student_layer, tap.teacher_layer) for tap in pair.taps] == [(15, 18), (18, 21), (4, 6)]
    assert pair.explicit == (2, 0)
    with pytest.raises(DS2D2Error, match=r"has stride 8, .* stride 8, at imgsz=64 and teacher_imgsz=128; pass layers="):
        check_pair(teacher, student, 64, ((15,), (15,)), teacher_imgsz=128)


@pytest.mark.parametrize(
    ("size", "message"),
    [
        (32, "teacher_imgsz=32: is smaller than imgsz=64; pass teacher_imgsz=128, or leave it out"),
        (96, "teacher_imgsz=96: is 1.5 times imgsz=64, .*; pass teacher_imgsz=128 or teacher_imgsz=256"),
        (512, "teacher_imgsz=512: is 8 times imgsz=64, and no feature map of teacher yolov8n has the grid of one"),
    ],
)
def test_sizes_without_a_common_grid_are_refused(size, message):
    (model,) = detectors("yolov8n.yaml")
    with pytest.raises(DS2D2Error, match=message):
        check_pair(model, model, 64, teacher_imgsz=size)


def test_a_teacher_without_coarser_levels_has_no_larger_size(tmp_path):
    path = small_yolo(tmp_path, "fine")
    path.write_text(path.read_text().replace("[[2, 3, 4]", "[[2]"))
    fine, student = detectors(path, small_yolo(tmp_path))
    with pytest.raises(DS2D2Error, match=r"no feature map of teacher fine has .*; leave teacher_imgsz= out"):
        check_pair(fine, student, 64, teacher_imgsz=128)


MISTAKES = [
    ("yolov8n.yaml", {"assignment": "teacher"}, "some levels of the student have no partner .*; leave assignment= out"),
    ("yolov8n.yaml", {"rect": True}, "the grids of rectangles of two sizes need not coincide; leave rect= out"),
    ("faster", {}, "FasterRCNN models learn .* alone; pass im_full=0 im_high=0 response=0"),
    ("faster", {"im_full": 0, "response": 0}, "FasterRCNN models learn .* alone; pass im_high=0"),
]


@pytest.mark.parametrize(("model", "changes", "message"), MISTAKES)
def test_what_does_not_go_with_a_larger_teacher_is_refused(model, changes, message, tmp_path):
    model = tiny_yaml(tmp_path, "FasterRCNN") if model == "faster" else model
    (teacher,) = detectors(model)
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
