"""RT-DETR as teacher and as student, with its encoder's feature maps. Impossible options are refused in one line."""

from copy import deepcopy
from pathlib import Path

import pytest
import torch
from torch import nn
from training_helpers import batch_of, lively_model, save_checkpoint, short, write_data
from ultralytics.models.rtdetr.train import RTDETRTrainer
from ultralytics.nn.tasks import DetectionModel, RTDETRDetectionModel, load_checkpoint

from ds2d2_yolo import AmplifierTrainer, DS2D2Trainer, plan
from ds2d2_yolo.cli import main
from ds2d2_yolo.detectors import RTDETRDetector, build_model, detector_of
from ds2d2_yolo.errors import DS2D2Error
from ds2d2_yolo.method import DS2D2Loss, Gains
from ds2d2_yolo.training.pair import check_pair
from ds2d2_yolo.training.results import read_rows
from ds2d2_yolo.training.step import Distiller

SHORT = short()


@pytest.fixture(scope="module")
def teacher():
    torch.manual_seed(0)
    model = build_model("rtdetr-l.yaml", nc=2)
    model.names = {0: "ship", 1: "vehicle"}
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):  # that of the data: maps of a new model are near zero
            module.momentum = 1.0
            module.train()
    with torch.no_grad():
        model.eval()
        for module in model.modules():
            module.training = isinstance(module, nn.BatchNorm2d)
        model(torch.rand(4, 3, 64, 64))
    return model.eval()


@pytest.fixture(scope="module")
def files(teacher, tmp_path_factory):
    folder = tmp_path_factory.mktemp("rtdetr")
    return {
        "teacher": str(save_checkpoint(teacher, folder / "teacher.pt")),
        "student": "yolo11n.yaml",
        "data": str(write_data(folder / "set", train=4, val=2)),
    }


def test_its_maps_are_those_of_a_yolo_student(teacher):
    detector = detector_of(teacher)
    assert isinstance(detector, RTDETRDetector)
    assert type(teacher) is RTDETRDetectionModel
    pair = check_pair(detector, detector_of(build_model("yolo11n.yaml")), 64)
    assert [level.stride for level in pair.taps] == [8, 16, 32]
    assert [level.teacher_channels for level in pair.taps] == [256] * 3
    with pytest.raises(IndexError, match="rtdetr-l has layers 0 to 28, not 29"):
        detector.layer(29)


def test_its_encoder_gives_the_confidence_of_every_cell(teacher):
    detector = detector_of(teacher)
    with torch.no_grad():
        images = torch.rand(2, 3, 64, 96)
        predictions = detector.forward_teacher(images)
        _, (_, _, _, chosen, _) = teacher(images)
    assert predictions.shape == (2, 126, 2)
    highest = predictions.amax(2).sort(1, descending=True).values
    torch.testing.assert_close(chosen.amax(2).sort(1, descending=True).values, highest[:, : chosen.shape[1]])
    maps = [torch.zeros(2, 256, 8 // 2**i, 12 // 2**i) for i in range(3)]
    grids = detector.confidence(predictions, maps)
    assert [tuple(grid.shape) for grid in grids] == [(2, 1, 8, 12), (2, 1, 4, 6), (2, 1, 2, 3)]
    assert all((grid >= 0).all() and (grid <= 1).all() for grid in grids)
    assert not any(module._forward_hooks for module in teacher.modules())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("weight", "kind"), [("confidence", "yolo11n"), ("disw", "yolo11n"), ("confidence", "rtdetr-l")]
)
def test_explicit_terms_reach_the_student(teacher, weight, kind):
    learner = deepcopy(teacher) if kind == "rtdetr-l" else lively_model(f"{kind}.yaml")
    learner.nc = 2  # as trainers do
    teacher = deepcopy(teacher)  # it is fused
    detector, student = detector_of(teacher), detector_of(learner)
    pair = check_pair(detector, student, 64)
    distiller = Distiller(
        detector, None, DS2D2Loss(pair.maps, Gains(1.0, 1.0), weight=weight), pair.student_layers, pair.teacher_layers
    )
    batch = batch_of()
    student.model.train()
    distiller.begin_step(student, batch)
    loss, items = student.model(batch)
    distiller.end_step()
    assert {"ex_low_loss", "ex_high_loss"} < set(items)
    assert all(items[name] > 0 for name in ("ex_low_loss", "ex_high_loss"))
    loss.sum().backward()
    assert next(student.model.parameters()).grad.any()
    assert all(p.grad is None for p in teacher.parameters())


@pytest.mark.slow
def test_a_student_is_trained_and_plain(files, tmp_path):
    trainer = DS2D2Trainer(overrides={**SHORT, **files, "project": str(tmp_path), "name": "student"})
    trainer.train()
    (row,) = read_rows(trainer.csv)
    assert row["train/ex_low_loss"] > 0
    assert "train/im_full_loss" not in row
    assert "train/im_high_loss" not in row
    assert "train/response_loss" not in row
    assert type(load_checkpoint(trainer.best)[0]) is DetectionModel
    assert [path.name for path in tmp_path.iterdir()] == ["student"]  # no other stage


@pytest.mark.slow
def test_as_a_student_it_learns_from_a_yolo(files, tmp_path):
    given = {**SHORT, **files, "student": "rtdetr-l.yaml", "project": str(tmp_path), "name": "student"}
    given["teacher"] = str(save_checkpoint(lively_model("yolo11s.yaml"), tmp_path / "yolo.pt"))
    trainer = DS2D2Trainer(overrides=given)
    assert isinstance(trainer, RTDETRTrainer)
    trainer.train()
    (row,) = read_rows(trainer.csv)
    assert all(row[f"train/{name}_loss"] > 0 for name in ("ex_low", "ex_high", "giou", "l1"))
    assert row["gain/ex_low"] > 0
    assert "train/im_full_loss" not in row
    model, _ = load_checkpoint(trainer.best)
    assert type(model) is RTDETRDetectionModel
    assert not hasattr(model, "ds2d2_adapters")


@pytest.mark.slow
def test_the_terms_are_added_to_its_loss_unscaled(teacher):
    # Unlike YOLO's criteria, RT-DETR's does not multiply its loss by the batch size.
    frozen, student = detector_of(lively_model("yolo11s.yaml")), detector_of(deepcopy(teacher))
    pair = check_pair(frozen, student, 64)
    loss = DS2D2Loss(pair.maps, Gains(1.0, 1.0), weight="confidence")
    distiller = Distiller(frozen, None, loss, pair.student_layers, pair.teacher_layers)
    batch = batch_of()
    student.model.nc = 2  # as trainers do
    student.model.train()
    distiller.begin_step(student, batch)
    total, items = student.model(batch)
    distiller.end_step()
    assert total.shape == (3,)
    torch.testing.assert_close(total[1:].detach(), torch.stack([items["ex_low_loss"], items["ex_high_loss"]]))
    total[1:].sum().backward()
    assert student.model.model[0].stem1.conv.weight.grad.any()


MISTAKES = [
    ({"im_full": 1}, "im_full=1: rtdetr-l predicts by queries, .* pass im_full=0"),
    ({"im_high": 0.5}, "im_high=0.5: rtdetr-l predicts by queries, .* pass im_high=0"),
    ({"response": 1}, "response=1: rtdetr-l predicts by queries, .* pass response=0"),
    ({"amplifier": "amplifier.pt"}, "amplifier=amplifier.pt: rtdetr-l .* pass amplifier=none"),
    ({"assignment": "teacher"}, "assignment=teacher: rtdetr-l cannot assign objects for .*; leave assignment= out"),
    ({"val_kd": True}, "val_kd=True: rtdetr-l predicts by queries"),
    ({"teacher": "rtdetr-l.yaml"}, "teacher=rtdetr-l.yaml: .* run 'yolo train model=rtdetr-l.yaml data=.*best.pt"),
    (
        {"teacher_epochs": 1},
        "an RT-DETR is not fine-tuned here; leave teacher_epochs= out, or run 'yolo train model=.*",
    ),
    ({"student": "rtdetr-l.yaml", "im_full": 1}, "im_full=1: rtdetr-l predicts by queries"),
    ({"student": "yolo11n.yaml", "layers": [[16], [29]]}, "layers=: rtdetr-l has layers 0 to 28, not 29"),
    ({"student": "yolo11n-obb.yaml"}, "teacher rtdetr-l is for task=detect, student yolo11n-obb for task=obb"),
    ({"student": "yolov8n-p2.yaml"}, "teacher rtdetr-l has 3 levels, student yolov8n-p2 has 4"),
    ({"gains": "reference"}, "gains=reference: the paper's authors have none for RT-DETR"),
]


@pytest.mark.parametrize(("changes", "message"), MISTAKES)
def test_impossible_pairs_are_refused_before_writing(changes, message, files, tmp_path):
    with pytest.raises(DS2D2Error, match=message):
        DS2D2Trainer(overrides={**SHORT, **files, "project": str(tmp_path / "runs"), **changes})
    assert not (tmp_path / "runs").exists()


def test_no_advice_to_fine_tune_it_here(files, tmp_path):
    other = tmp_path / "data.yaml"
    other.write_text(Path(files["data"]).read_text().replace("ship", "boat"))
    same, similar = "pass it to 'ds2d2 train' as it is, or", "if they are the same classes, .*; if not,"
    for data, advice in ((files["data"], same), (other, similar)):
        with pytest.raises(DS2D2Error, match=f"is not fine-tuned here; {advice} run 'yolo train") as caught:
            plan({"teacher": files["teacher"], "data": str(data)}, "teacher")
        assert "teacher_epochs" not in str(caught.value)


def test_as_a_student_it_is_not_compared(files, fresh_machine, capsys):
    given = {**files, "teacher": "yolo11s.yaml", "student": "rtdetr-l.yaml", "device": "cpu"}
    assert main(["compare", *(f"{key}={value}" for key, value in given.items())]) == 1
    assert "student=rtdetr-l.yaml: is an RT-DETR, whose AP is not compared here" in capsys.readouterr().err
    assert not any(fresh_machine.iterdir())


@pytest.mark.parametrize(
    ("mode", "message"),
    [
        ("amplifier", "an RT-DETR has no amplifier"),
        ("teacher", "is trained already"),
        ("compare", "is an RT-DETR, whose AP is not compared here"),
        ("explain", "is an RT-DETR, which cannot be explained"),
    ],
)
def test_other_modes_refuse_it_in_one_line(mode, message, files, fresh_machine, capsys):
    given = {**files, "device": "cpu"}
    if mode == "explain":
        given = {"source": given.pop("data"), **given}
    elif mode in {"amplifier", "teacher"}:
        given.pop("student")
    assert main([mode, *(f"{key}={value}" for key, value in given.items())]) in {1, 2}
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


def test_an_amplifier_of_queries_is_refused_by_its_trainer(files):
    with pytest.raises(DS2D2Error, match="an RT-DETR has no amplifier, and its students need none"):
        AmplifierTrainer(overrides={**SHORT, "teacher": files["teacher"], "data": files["data"]})
