"""`val_kd=true`: values by hand and in whole runs of every family. The training does not change."""

import csv
from itertools import permutations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from training_helpers import Killed, lively_model, save_checkpoint, short, stop_at, tiny_yaml, write_data
from ultralytics.nn.tasks import load_checkpoint

from ds2d2_yolo import DS2D2Trainer
from ds2d2_yolo.detectors import Taps, build_model, detector_of
from ds2d2_yolo.errors import DS2D2Error
from ds2d2_yolo.evaluation import AGREEMENT, Agreement
from ds2d2_yolo.method import TERMS, LossInputs
from ds2d2_yolo.training.arguments import check_arguments
from ds2d2_yolo.training.results import read_columns

SHORT = short(epochs=2, name="student")
OF_VALIDATION = {*AGREEMENT, *(f"val/{name}_loss" for name in TERMS)}
BOX = [0.0, 0.0, 10.0, 10.0]


def found(*rows):
    return torch.tensor([[*box, confidence, label] for box, confidence, label in rows]).reshape(-1, 6)


def shifted(by):
    return [BOX[0] + by, BOX[1], BOX[2] + by, BOX[3]]


# ---------------------------------------------------------------------------------------------------- the measures


def test_detections_are_paired_one_to_one_without_weak_ones():
    agreement = Agreement()
    teacher = found((BOX, 0.9, 0), (shifted(50), 0.8, 1))
    student = found((shifted(2), 0.5, 0), (shifted(1), 0.4, 1), (shifted(80), 0.3, 0), (shifted(50), 0.2, 1))
    agreement.update(student, teacher)
    # Pairs: the object at 0 with the nearer of two, which has another class. IoU of a shift by 1: 90 of 110
    expected = (2 * 1 / (2 + 3), 0.0, 90 / 110)
    assert list(agreement.results().values()) == pytest.approx(expected)


def test_images_add_up():
    agreement = Agreement()
    agreement.update(found((BOX, 0.9, 0)), found((BOX, 0.9, 0)))
    agreement.update(found(), found((BOX, 0.9, 0)))
    agreement.update(found(), found())
    assert list(agreement.results().values()) == pytest.approx([2 / 3, 1, 1])


def test_finding_nothing_is_no_agreement():
    assert Agreement().results() == dict.fromkeys(AGREEMENT, 0)


def test_among_equal_overlaps_boxes_of_one_class_are_paired():
    boxes = (BOX, 0.9, 0), (BOX, 0.8, 1), (BOX, 0.7, 1)
    for order in permutations(boxes):
        agreement = Agreement()
        agreement.update(found(*boxes), found(*order))
        assert list(agreement.results().values()) == pytest.approx([1, 1, 1])


rows = st.lists(st.tuples(st.floats(0, 30), st.floats(0.3, 1), st.integers(0, 1)), max_size=5)


@given(rows, rows)
@settings(max_examples=60)
def test_agreement_is_a_share_and_takes_no_side(ours, theirs):
    sides = [found(*((shifted(x), confidence, label) for x, confidence, label in side)) for side in (ours, theirs)]
    one, other, same = Agreement(), Agreement(), Agreement()
    one.update(*sides)
    other.update(*reversed(sides))
    same.update(sides[0], sides[0])
    assert list(one.results().values()) == pytest.approx(list(other.results().values()))
    assert all(0 <= value <= 1 + 1e-6 for value in one.results().values())
    if ours:
        assert list(same.results().values()) == pytest.approx([1, 1, 1])


@pytest.mark.parametrize("value", [1, "often", None])
def test_other_values_than_true_and_false_are_refused(value):
    with pytest.raises(DS2D2Error, match=f"val_kd={value}: expected True or False"):
        check_arguments({"teacher": "t.pt", "student": "yolo11n.yaml", "val_kd": value})


# ------------------------------------------------------------------------------------------------------ whole runs


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("data") / "set", train=8, val=5)


def save_teacher(model, folder):
    if isinstance(model, str):
        return save_checkpoint(lively_model(model, seed=1), folder / "teacher.pt")
    torch.manual_seed(1)
    built = build_model(model, nc=2)
    built.names = {0: "ship", 1: "vehicle"}
    return save_checkpoint(built, folder / "teacher.pt")


def trained(folder, data, teacher, student, **changes):
    given = {**SHORT, "teacher": str(teacher), "student": str(student), "data": str(data), "amplifier": "none"}
    trainer = DS2D2Trainer(overrides={**given, "project": str(folder), "pretrained": False, **changes})
    told = []
    trainer.add_callback("on_fit_epoch_end", lambda trainer: told.append(dict(trainer.metrics)))
    trainer.train()
    return trainer, told


@pytest.mark.slow
@pytest.mark.parametrize("family", ["yolo11n", "yolo26n", "yolov10n", "RetinaNet", "FasterRCNN"])
def test_every_family_is_measured_and_logged(family, data, tmp_path):
    model = f"{family}.yaml" if family.startswith("yolo") else tiny_yaml(tmp_path, family)
    teacher = save_teacher(model, tmp_path)
    random = {"val_kd": True, "adapters": "random"}  # fitted ones leave nothing, as the student is the teacher's twin
    trainer, told = trained(tmp_path / "runs", data, teacher, model, **random)
    table = read_columns(trainer.csv)
    terms = [name for name in TERMS if name != "im_high"]
    for name in terms:
        assert len(table[f"val/{name}_loss"]) == 2
        assert all(value > 0 for value in table[f"val/{name}_loss"])
    for name in AGREEMENT:
        assert all(0 <= value <= 1 for value in table[name])
    # After each epoch, and after the final evaluation of the best checkpoint. Ultralytics has no losses there either
    assert len(told) == 3
    assert all(set(AGREEMENT) <= set(metrics) for metrics in told)
    assert {f"val/{name}_loss" for name in terms} <= set(told[0]) & set(told[1])
    assert not any(module._forward_hooks for module in trainer.ema.ema.modules())


@pytest.mark.slow
def test_a_teacher_agrees_with_a_student_that_is_its_copy(data, tmp_path):
    teacher = save_teacher("yolov8n.yaml", tmp_path)
    given = {
        "val_kd": True,
        "epochs": 1,
        "ex_low": 1,
        "ex_high": 0,
        "im_full": 1,
        "pretrained": True,
        "adapters": "random",
    }
    given["freeze"] = 23  # all but the adapters
    given |= {"iou": 0.3, "max_det": 7, "agnostic_nms": True}  # hold for both
    _, told = trained(tmp_path / "runs", data, teacher, teacher, **given)
    for metrics in told:
        assert [metrics[name] for name in AGREEMENT] == pytest.approx([1, 1, 1], abs=0.02)
    assert told[0]["val/im_full_loss"] == pytest.approx(0, abs=1e-4)
    assert told[0]["val/response_loss"] == pytest.approx(0, abs=1e-4)
    assert told[0]["val/ex_low_loss"] > 1e-3


@pytest.mark.slow
def test_terms_are_of_the_averaged_student_and_its_adapters(data, tmp_path):
    """Validated by hand: the saved EMA, its adapters, the validation batches."""
    teacher = save_teacher("yolov8n.yaml", tmp_path)
    given = {"val_kd": True, "epochs": 1, "ex_low": 1.0, "ex_high": 0, "im_full": 0, "weight": "disw", "lr0": 0.01}
    given["response"] = 0
    seen = []
    with pytest.MonkeyPatch.context() as patch:
        from ds2d2_yolo.training.validation import DistillationValidator

        update = DistillationValidator.update_metrics

        def keep(validator, preds, batch):
            seen.append(
                {key: batch[key].clone() for key in ("img", "bboxes", "batch_idx")} if validator.training else {}
            )
            update(validator, preds, batch)

        patch.setattr(DistillationValidator, "update_metrics", keep)
        trainer, told = trained(tmp_path / "runs", data, teacher, "yolov8n.yaml", **given)
    ema, distiller = trainer.ema.ema, trainer.distiller
    student = detector_of(ema)
    values = []
    for batch in filter(None, seen):
        teacher_maps = distiller.run_teacher(batch["img"]).maps
        taps = Taps()
        taps.open({index: student.layer(index) for index in trainer.pair.student_layers})
        with torch.no_grad():
            ema.eval()(batch["img"])
        maps = taps.close()
        size = batch["img"].shape[-2:]
        boxes = batch["bboxes"] * torch.tensor([size[1], size[0]] * 2)
        boxes = torch.cat([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2], 1)
        with torch.no_grad():
            distiller.loss.adapters.load_state_dict(ema.ds2d2_adapters.state_dict())
            features = [maps[i] for i in trainer.pair.student_layers]
            inputs = LossInputs(features, teacher_maps, boxes, batch["batch_idx"], tuple(size))
            values.append(distiller.loss(inputs)["ex_low"].item())
    assert told[0]["val/ex_low_loss"] == pytest.approx(sum(values) / len(values), abs=2e-5)


@pytest.mark.slow
def test_training_does_not_notice_that_it_is_watched(data, tmp_path):
    teacher = save_teacher("yolo11n.yaml", tmp_path)
    runs = [trained(tmp_path / str(value), data, teacher, "yolo11n.yaml", val_kd=value)[0] for value in (False, True)]
    ours, theirs = (load_checkpoint(run.last)[0].state_dict() for run in runs)
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    plain, more = (read_columns(run.csv) for run in runs)
    assert set(more) - set(plain) == OF_VALIDATION - {"val/im_high_loss"}
    assert {key: plain[key] for key in plain if key != "time"} == {key: more[key] for key in plain if key != "time"}


@pytest.mark.slow
@pytest.mark.parametrize("validated", [True, False])
def test_a_resumed_run_keeps_its_columns(validated, data, tmp_path):
    teacher = save_teacher("yolo11n.yaml", tmp_path)
    given = {**SHORT, "teacher": str(teacher), "student": "yolo11n.yaml", "data": str(data), "amplifier": "none"}
    given |= {"project": str(tmp_path / "runs"), "pretrained": False, "val_kd": True, "val": validated}
    trainer = DS2D2Trainer(overrides=given)
    trainer.add_callback(*stop_at("on_model_save", 0))
    with pytest.raises(Killed):
        trainer.train()
    resumed = DS2D2Trainer(overrides={"resume": str(trainer.last), "device": "cpu"})
    resumed.train()
    with resumed.csv.open(newline="") as file:
        header, *lines = list(csv.reader(file))
    assert [len(line) for line in lines] == [len(header)] * 2
    table = read_columns(resumed.csv)
    assert OF_VALIDATION - {"val/im_high_loss"} <= set(table)
    assert table["val/ex_low_loss"][1] > 0
    assert (table["val/ex_low_loss"][0] > 0) is validated
    assert table["lr/pg0"][1] > 0


@pytest.mark.slow
def test_a_run_of_an_older_version_keeps_its_columns(data, tmp_path):
    teacher = save_teacher("yolo11n.yaml", tmp_path)
    given = {**SHORT, "teacher": str(teacher), "student": "yolo11n.yaml", "data": str(data), "amplifier": "none"}
    trainer = DS2D2Trainer(overrides={**given, "project": str(tmp_path / "runs"), "pretrained": False})
    trainer.add_callback(*stop_at("on_fit_epoch_end", 0))
    with pytest.raises(Killed):
        trainer.train()
    # As in older versions without shares and val_kd: fewer columns, and one argument less in the checkpoint
    table = read_columns(trainer.csv)
    old = {name: values for name, values in table.items() if not name.startswith(("share/", "gain/"))}
    assert len(old) < len(table)
    lines = [",".join(old), ",".join(f"{values[0]:g}" for values in old.values())]
    trainer.csv.write_text("\n".join(lines) + "\n")
    checkpoint = torch.load(trainer.last, weights_only=False)
    for arguments in (checkpoint["train_args"], getattr(checkpoint["ema"], "args", {})):
        (arguments if isinstance(arguments, dict) else vars(arguments)).pop("val_kd", None)
    torch.save(checkpoint, trainer.last)
    resumed = DS2D2Trainer(overrides={"resume": str(trainer.last), "device": "cpu"})
    resumed.train()
    assert resumed.args.val_kd is False
    table = read_columns(resumed.csv)
    assert list(table) == list(old)
    assert table["epoch"] == [1, 2]
    assert table["train/ex_low_loss"][1] > 0
