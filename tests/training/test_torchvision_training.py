"""RetinaNet and Faster R-CNN with the same trainers: all stages, an interruption, and files on disk."""

from pathlib import Path

import pytest
import torch
from torchvision.models import resnet18
from training_helpers import frozen_pair, make_stage, save_checkpoint, short, tiny_yaml, write_data
from ultralytics import YOLO
from ultralytics.nn.tasks import load_checkpoint
from ultralytics.utils import SETTINGS

from ds2d2_yolo import DS2D2Trainer
from ds2d2_yolo.cli import main
from ds2d2_yolo.detectors import build_model
from ds2d2_yolo.errors import DS2D2Error
from ds2d2_yolo.loading.models import load_model
from ds2d2_yolo.training.amplifier import read_amplifier
from ds2d2_yolo.training.arguments import check_arguments
from ds2d2_yolo.training.pair import check_pair
from ds2d2_yolo.training.results import read_columns
from ds2d2_yolo.training.trainer import PlainTrainer

pytestmark = pytest.mark.slow  # nearly all of them train

TERMS = ["ex_low_loss", "ex_high_loss", "im_full_loss", "im_high_loss", "response_loss"]
OWN = {"RetinaNet": ["cls_loss", "box_loss"], "FasterRCNN": ["obj_loss", "rpn_loss", "cls_loss", "box_loss"]}
SHORT = short(lr0=0.01, pretrained=False, adapters="random")  # tiny maps would be fitted without an error


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("data") / "set", train=4, val=2)


@pytest.fixture(scope="module", params=["RetinaNet", "FasterRCNN"])
def run(request, data, tmp_path_factory):
    """A student whose stages were made with it, interrupted after its first epoch and resumed."""
    folder = tmp_path_factory.mktemp(request.param)
    overrides = {**SHORT, "teacher": str(tiny_yaml(folder, request.param, "teacher")), "data": str(data), "epochs": 2}
    overrides |= {"student": str(tiny_yaml(folder, request.param, "student")), "lr_steps": [1], "project": str(folder)}
    trainer = DS2D2Trainer(overrides={**overrides, "teacher_epochs": 1, "amplifier_epochs": 1, "name": "student"})

    def stop(trainer):
        raise KeyboardInterrupt

    trainer.add_callback("on_fit_epoch_end", stop)
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    resumed = DS2D2Trainer(overrides={"resume": str(trainer.last)})
    resumed.train()
    return request.param, resumed


def test_strides_are_right_where_coarse_sizes_are_rounded_up(tmp_path):
    detector, _ = load_model("teacher", tiny_yaml(tmp_path, "RetinaNet", "teacher"))
    assert [tap.stride for tap in check_pair(detector, detector, 96).taps] == [8, 16, 32, 64, 128]


def test_losses_and_terms_are_logged_one_by_one(run):
    family, trainer = run
    table = read_columns(trainer.csv)
    for name in [*OWN[family], *TERMS]:
        assert len(table[f"train/{name}"]) == 2
        assert all(value > 0 for value in table[f"train/{name}"])
        assert (f"val/{name}" in table) == (name in OWN[family])
    assert table["lr/pg0"] == pytest.approx([0.01, 0.001])


def test_the_student_predicts_and_validates_in_ultralytics(run, data, tmp_path):
    _, trainer = run
    model = YOLO(trainer.best)
    (result,) = model.predict(data.parent / "images" / "val" / "0.png", imgsz=64, save=False, device="cpu")
    assert result.names == {0: "ship", 1: "vehicle"}
    assert result.boxes.data.shape[1] == 6
    metrics = model.val(data=str(data), imgsz=64, device="cpu", plots=False, workers=0, save_dir=str(tmp_path))
    assert 0 <= metrics.box.map50 <= 1
    assert not hasattr(model.model, "ds2d2_adapters")


def test_the_command_says_what_its_student_needs(run, data, tmp_path, capsys):
    _, trainer = run
    given = {**SHORT, "teacher": trainer.best, "student": trainer.best, "data": data, "amplifier": "none"}
    given |= {"im_high": 0, "project": tmp_path}
    assert main(["train", *(f"{name}={value}" for name, value in given.items())]) == 0
    *_, predict, _ = capsys.readouterr().out.splitlines()
    assert predict.endswith("# ds2d2_yolo must be installed")


def test_frozen_models_are_unchanged_one_adapter_was_trained(run):
    _, trainer = run
    frozen_models = (trainer.distiller.teacher.model, trainer.distiller.amplifier)
    for frozen, unused in zip(frozen_models, frozen_pair(trainer.args.teacher, trainer.args.amplifier), strict=True):
        before, after = unused.state_dict(), frozen.state_dict()
        assert before.keys() == after.keys()
        assert all(torch.equal(before[key], after[key]) for key in before)
    assert len({id(p) for p in trainer.distiller.loss.adapters.parameters()}) == 1
    names = [name for name, _ in trainer.model.named_modules()]
    assert not [name for name in names if "teacher" in name or "amplifier" in name]


def test_an_amplifier_is_the_implicit_part_of_the_head(run):
    family, trainer = run
    teacher, _ = load_checkpoint(trainer.args.teacher)
    head = read_amplifier(trainer.args.amplifier)["head"]
    part = "regions." if family == "FasterRCNN" else ""
    own = {
        key.removeprefix(part): value for key, value in teacher.model[-1].state_dict().items() if key.startswith(part)
    }
    assert head.keys() == own.keys()
    assert any(not torch.equal(head[key], own[key].half()) for key in own)


def test_with_imagenet_weights_the_first_layers_are_frozen(data, fresh_machine, tmp_path):
    folder = fresh_machine / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    network = resnet18()
    torch.save(network.state_dict(), folder / "resnet18-f37072fd.pth")
    overrides = {**SHORT, "model": str(tiny_yaml(tmp_path, "RetinaNet")), "data": str(data), "pretrained": True}
    trainer = PlainTrainer(overrides={**overrides, "epochs": 1, "project": str(tmp_path), "freeze": [6]})
    trainer.train()
    assert trainer.args.freeze == [0, 1, 6]
    model, _ = load_checkpoint(trainer.best)
    assert model.yaml["imagenet"] is True
    for own, source in ((model.model[0][0], network.conv1), (model.model[1][0].conv1, network.layer1[0].conv1)):
        torch.testing.assert_close(own.weight, source.weight.half().float())
    deep, source = model.model[4][0], network.layer4[0]
    assert not torch.allclose(deep.conv1.weight, source.conv1.weight, atol=1e-5)
    assert torch.equal(deep.bn1.running_mean, source.bn1.running_mean)


def test_without_network_nothing_is_started(data, fresh_machine, tmp_path):
    model, project = str(tiny_yaml(tmp_path, "RetinaNet")), tmp_path / "runs"
    arguments = {**SHORT, "data": str(data), "pretrained": True, "project": str(project), "teacher": model}
    with pytest.raises(DS2D2Error, match="cannot get the ImageNet weights of resnet18"):
        DS2D2Trainer(overrides={**arguments, "student": model})
    with pytest.raises(DS2D2Error, match="cannot get the ImageNet weights of resnet18"):
        make_stage(arguments)
    assert not project.exists()


def test_a_teacher_trained_alone_may_start_from_a_checkpoint(data, fresh_machine, tmp_path):
    # There are no ImageNet weights here, and none are needed.
    model, starts, made = tiny_yaml(tmp_path, "RetinaNet"), [], []
    arguments = {**SHORT, "data": str(data), "project": str(tmp_path / "runs"), "teacher": str(model)}
    for seed in (0, 1):
        torch.manual_seed(seed)
        starts.append(save_checkpoint(build_model(str(model), nc=2), tmp_path / f"{seed}.pt"))
        made.append(make_stage({**arguments, "epochs": 1, "lr0": 1e-9, "pretrained": str(starts[-1])}))
    assert made[0].parents[1] != made[1].parents[1]
    for start, end in zip(starts, made, strict=True):
        before, after = (load_checkpoint(path)[0].model[0][0].weight for path in (start, end))
        torch.testing.assert_close(after, before, atol=2e-3, rtol=0)
    date = made[0].stat().st_mtime_ns
    named = Path(SETTINGS["weights_dir"]) / "start-of-a-teacher.pt"  # Ultralytics looks for bare names here, too
    named.parent.mkdir(parents=True, exist_ok=True)
    named.write_bytes(starts[0].read_bytes())
    assert make_stage({**arguments, "epochs": 1, "lr0": 1e-9, "pretrained": named.name}) == made[0]
    assert made[0].stat().st_mtime_ns == date


@pytest.mark.parametrize(
    ("teacher", "student", "message"),
    [
        ("yolo11n.yaml", "retinanet_r18.yaml", "teacher is a YOLO, student is a RetinaNet"),
        ("fasterrcnn_r18.yaml", "yolo11n.yaml", "teacher is a FasterRCNN, student is a YOLO"),
        ("retinanet_r18.yaml", "fasterrcnn_r18.yaml", "teacher is a RetinaNet, student is a FasterRCNN"),
    ],
)
def test_families_do_not_mix(teacher, student, message, data, tmp_path):
    overrides = {**SHORT, "teacher": teacher, "student": student, "data": str(data), "project": str(tmp_path / "runs")}
    with pytest.raises(DS2D2Error, match=f"{message}; pass a student of family"):
        DS2D2Trainer(overrides=overrides)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("steps", [[], [8, 4], [0], ["a"], 3, [True]])
def test_schedules_that_make_no_sense_are_refused(steps):
    with pytest.raises(DS2D2Error, match="expected epochs in ascending order"):
        check_arguments({"teacher": "t.pt", "model": "s.yaml", "lr_steps": steps})
