"""Checks before a training, compared with Ultralytics' own loader and with trainings."""

import pytest
import torch
from training_helpers import batch_of, lively_model, save_checkpoint, short, small_yolo, write_data

from ds2d2_yolo import plan
from ds2d2_yolo.detectors import detector_of
from ds2d2_yolo.errors import DS2D2Error
from ds2d2_yolo.method import DS2D2Loss, Gains
from ds2d2_yolo.training.calibration import Calibration, ShareMeter
from ds2d2_yolo.training.checks import check_last_batch, smallest_size
from ds2d2_yolo.training.pair import check_pair
from ds2d2_yolo.training.resume import ADAPTERS
from ds2d2_yolo.training.step import Distiller
from ds2d2_yolo.training.trainer import PlainTrainer


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """Five training images, teacher and student."""
    folder = tmp_path_factory.mktemp("given")
    data = write_data(folder / "set", train=5, val=2)
    (folder / "set" / "images" / "train" / "damaged.png").write_bytes(b"no image")  # left out by Ultralytics
    teacher = save_checkpoint(lively_model(small_yolo(folder, "big", 24)), folder / "teacher.pt")
    return {"data": str(data), "teacher": str(teacher), "student": str(small_yolo(folder))}


@pytest.mark.parametrize(
    ("imgsz", "multi_scale", "size"), [(64, 0, 64), (64, 0.1, 32), (65, 0.3, 64), (128, 0.5, 64), (64, 0.9, 32)]
)
def test_the_smallest_size_is_ultralytics_own(imgsz, multi_scale, size):
    assert smallest_size({"imgsz": imgsz, "multi_scale": multi_scale}, 32) == size


@pytest.mark.parametrize(
    ("images", "batch", "fails"), [(5, 4, True), (5, 5, False), (1, 4, True), (6, 4, False), (3, 1, True)]
)
def test_a_last_batch_of_one_small_image_is_refused(images, batch, fails):
    arguments = {"batch": batch, "imgsz": 64, "multi_scale": 0.5, "device": "cpu"}
    check_last_batch({**arguments, "multi_scale": 0}, images, batch, 32)
    if not fails:
        check_last_batch(arguments, images, batch, 32)
        return
    with pytest.raises(DS2D2Error, match="BatchNorm needs at least two images") as error:
        check_last_batch(arguments, images, batch, 32)
    advice = str(error.value).partition("pass batch=")[2].split(" ")[0]
    if advice:
        check_last_batch(arguments, images, int(advice), 32)
    check_last_batch({**arguments, "imgsz": 128}, images, batch, 32)


@pytest.mark.parametrize("goal", ["student", "teacher", "amplifier"])
def test_single_values_for_batchnorm_are_refused_first(goal, given, tmp_path):
    files = given | ({"teacher": given["student"]} if goal == "teacher" else {})
    files |= {} if goal == "student" else {"student": None}
    overrides = short(**{k: v for k, v in files.items() if v}, project=str(tmp_path / "runs"), multi_scale=0.5)
    with pytest.raises(
        DS2D2Error, match=r"the last batch of 5 training images .* pass batch=5 or an imgsz and multi_scale"
    ):
        plan(overrides, goal)
    assert not (tmp_path / "runs").exists()
    assert plan(overrides | {"batch": 5}, goal).goal == goal
    assert plan(overrides | {"fraction": 0.6}, goal).goal == goal  # four of the six files


@pytest.mark.slow
def test_what_is_refused_is_what_ultralytics_loader_has(given, tmp_path):
    overrides = short(model=given["student"], data=given["data"], project=str(tmp_path), multi_scale=0.5)
    with pytest.raises(DS2D2Error, match="the last batch of 5 training images"):
        PlainTrainer(overrides=overrides).train()


def distil_with_frozen_maps(given, calibration=None, meter=None):
    """Compute the terms of a batch for a student that trains only its head, and return the distiller."""
    teacher, student = (detector_of(lively_model(given["student"], seed=seed)) for seed in (1, 2))
    pair = check_pair(teacher, student, 64)
    loss = DS2D2Loss(pair.maps, Gains(ex_low=1, ex_high=0, im_full=0, im_high=0, response=1), "haar", "confidence")
    setattr(student.model, ADAPTERS, loss.adapters)
    for name, parameter in student.model.named_parameters():
        parameter.requires_grad = name.startswith((f"model.{student.head_index}.", ADAPTERS)) and ".dfl" not in name
    distiller = Distiller(teacher, None, loss, pair.student_layers, pair.teacher_layers, calibration, meter)
    batch = batch_of()
    distiller.begin_step(student, batch)
    student.model.train()(batch)
    return distiller


def test_a_frozen_backbone_leaves_the_head_to_learn(given, warnings):
    distil_with_frozen_maps(given)
    assert ["ex_low_loss has no gradient" in text for text in warnings()] == [True]  # and not response


def test_gains_are_found_where_the_head_alone_learns(given):
    calibration, meter = Calibration({"response": 0.5}), ShareMeter(["8", "16", "32"])
    distiller = distil_with_frozen_maps(given, calibration, meter)
    assert calibration.batches == 1
    shares = meter.shares(["ex_low", "response"])
    torch.testing.assert_close(torch.tensor(shares["share/response"]), torch.tensor(0.5), atol=1e-3, rtol=0)
    assert shares["share/ex_low"] == shares["share/response/8"] == 0
    assert distiller.loss.gains.response == calibration.gains["response"]


def test_the_summary_names_both_sizes_of_images(given, tmp_path):
    content = torch.load(given["teacher"], weights_only=False)
    overrides = short(**given, im_high=0, project=str(tmp_path))
    assert not any("was trained with" in line for line in plan(overrides).summary())
    for imgsz, expected in ((128, ["  note: the teacher was trained with imgsz=128, this run has imgsz=64"]), (64, [])):
        torch.save(content | {"train_args": {"imgsz": imgsz, "data": "DIOR.yaml"}}, tmp_path / "teacher.pt")
        lines = plan(overrides | {"teacher": str(tmp_path / "teacher.pt")}).summary()
        assert [line for line in lines if "was trained with" in line] == expected
