"""Steps of real trainings on a device whose tensors may not meet those of the CPU, as on a GPU."""

import copy
from collections import Counter

import pytest
import torch
from far_device import FAR, far_device, waits
from training_helpers import batch_of, lively_model, short, small_yolo, tiny_yaml, write_data

from ds2d2_yolo import DS2D2Trainer
from ds2d2_yolo.detectors import detector_of
from ds2d2_yolo.method import DS2D2Loss, Gains
from ds2d2_yolo.training.pair import check_pair
from ds2d2_yolo.training.results import read_columns
from ds2d2_yolo.training.step import Distiller

ALL = Gains(0.1, 0.2, 1.0, 1.0, 1.0)
pytestmark = pytest.mark.slow


def test_far_tensors_refuse_those_of_the_cpu():
    with far_device():
        model = torch.nn.Linear(3, 2).to(FAR)
        images = torch.rand(4, 3).to(FAR)
        model(images).sum().backward()
        tensors = images, model.weight, model.weight.grad, torch.zeros(2, device=FAR)
        assert {tensor.device for tensor in tensors} == {FAR}
        assert images.cpu().device == images[images > 0.5].cpu().device == torch.device("cpu")
        index = torch.zeros(1, dtype=torch.long)
        for mistake in (
            lambda: images + torch.ones(3),
            lambda: model(torch.rand(4, 3)),
            lambda: images.index_add(0, index, images[:1]),
            lambda: index[index.to(FAR)],
        ):
            with pytest.raises(RuntimeError, match="on the CPU are tensors"):
                mistake()


@pytest.mark.parametrize(
    "read", [torch.Tensor.cpu, lambda x: x.tolist(), torch.nonzero, lambda x: float(x[0]), lambda x: x[x > 0]]
)
def test_reading_values_is_counted(read):
    with far_device():
        values = torch.ones(3).to(FAR)
        waits.clear()
        values = values * 2 + values.sum()
        assert not +waits
        read(values)
        assert (+waits).total() == 1


@pytest.mark.parametrize(("teacher", "student"), [("yolo11s.yaml", "yolo11n.yaml"), ("yolov8n.yaml", "yolo26n.yaml")])
def test_a_distilled_step_waits_no_more_than_a_plain_one(teacher, student):
    """Work for a GPU is queued ahead until the program needs a value. Then the GPU idles until new work arrives."""
    pair = [detector_of(lively_model(name)) for name in (teacher, student)]
    maps = check_pair(*pair, 64)
    amplifier = copy.deepcopy(pair[0].head).eval().requires_grad_(False)
    distiller = Distiller(pair[0], amplifier, DS2D2Loss(maps.maps, ALL), maps.student_layers, maps.teacher_layers)
    with far_device() as device:
        for module in (pair[0].model, pair[1].model.train(), amplifier, distiller.loss):
            module.to(device)
        batch = {name: value.to(device) for name, value in batch_of().items()}
        counted = []
        for is_distilled in (True, False, True, False):  # the first distilled step of 50 measures shares
            waits.clear()
            if is_distilled:
                distiller.begin_step(pair[1], batch)
            loss, _ = pair[1].model(batch)
            loss.sum().backward()
            counted.append(+waits)
    # The terms of the step before are read to warn about them. The progress bar has waited for them by then.
    assert counted[1] == counted[3] == counted[2] - Counter(tolist=1)
    assert counted[0] > counted[2]


def steps_of(trainer, device):
    """Train without validation and checkpoints, and return the losses and gains of every epoch."""
    trainer.device = device
    trainer.validate = lambda: ({}, 0.0)
    trainer.save_model = trainer.final_eval = lambda: None
    trainer.train()
    columns = read_columns(trainer.csv)
    return {name: values for name, values in columns.items() if name.startswith(("train/", "gain/"))}


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("detect", {"epochs": 2, "gains": "running", "distill_every": 2}),
        ("detect", {"teacher_imgsz": 128, "im_every": 2}),
        ("detect", {"preset": "paper", "wavelet": "db2"}),
        ("obb", {}),
        ("segment", {}),
        ("pose", {}),
        ("RetinaNet", {"pretrained": False}),
        ("FasterRCNN", {"pretrained": False, "batch": 2, "nbs": 2}),
    ],
)
def test_steps_on_another_device_are_the_same(tmp_path, family, changes):
    task = "detect" if family in {"RetinaNet", "FasterRCNN"} else family
    make = tiny_yaml if task != family else lambda folder, task, name: small_yolo(folder, name, task=task)
    models = {role: str(make(tmp_path, family, role)) for role in ("teacher", "student")}
    data = str(write_data(tmp_path / "set", task=task))
    given = short(**models, data=data, project=str(tmp_path / "runs"), amp=False, **changes)
    near = steps_of(DS2D2Trainer(overrides=given | {"name": "near"}), torch.device("cpu"))
    trainer = DS2D2Trainer(overrides=given | {"name": "far"})
    with far_device() as device:
        trainer.accelerator = getattr(torch, device.type)  # Ultralytics asks it for the memory in use
        far = steps_of(trainer, device)
    assert {parameter.device for parameter in trainer.model.parameters()} == {FAR}
    assert far.keys() == near.keys()
    for name in near:
        assert far[name] == pytest.approx(near[name], rel=0.01, nan_ok=True), name
