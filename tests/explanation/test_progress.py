"""Pictures of a training show what the training computes."""

from types import SimpleNamespace

import numpy as np
import torch
from training_helpers import lively_model, write_data

from ds2d2_yolo.detectors import detector_of
from ds2d2_yolo.explanation.explainer import Explainer
from ds2d2_yolo.explanation.images import read_image
from ds2d2_yolo.explanation.progress import view_student
from ds2d2_yolo.method import DS2D2Loss, Gains
from ds2d2_yolo.training.pair import check_pair
from ds2d2_yolo.training.resume import ADAPTERS
from ds2d2_yolo.training.step import Distiller


def test_pictures_of_a_training_have_the_weight_of_its_loss(tmp_path):
    write_data(tmp_path, train=1, val=1)
    picture = read_image(tmp_path / "images" / "val" / "0.png", 2)
    teacher, student = (detector_of(lively_model(f"yolo11{scale}.yaml", seed=i).eval()) for i, scale in enumerate("sn"))
    pair = check_pair(teacher, student, 64, teacher_imgsz=128)
    explained = Explainer(teacher, student, pair, 64)
    loss = DS2D2Loss(pair.maps, Gains(ex_low=1.0, ex_high=1.0), weight="confidence")
    explained.adapters = [adapter.weight.flatten(1) for adapter in loss.adapters]
    with torch.no_grad():
        expected = explained.explain(picture).levels
    setattr(student.model, ADAPTERS, loss.adapters)
    trainer = SimpleNamespace(
        ema=SimpleNamespace(ema=student.model),
        distiller=Distiller(teacher, None, loss, pair.student_layers, pair.teacher_layers),
        pair=pair,
        args=SimpleNamespace(imgsz=64, footprint="box"),
        device=torch.device("cpu"),
    )
    levels, _ = view_student(trainer, picture)
    for level, other in zip(levels, expected, strict=True):
        assert level.stride == other.stride
        np.testing.assert_allclose(level.weight, other.weight, rtol=1e-4)
        np.testing.assert_allclose(level.low, other.low, rtol=1e-3, atol=1e-6)
