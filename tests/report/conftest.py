"""One distilled student with all that belongs to it, for all tests of reports."""

from types import SimpleNamespace

import pytest
from engine_helpers import lively_model, save_checkpoint, write_data

from ds2d2_yolo.engine import DS2D2Trainer


@pytest.fixture(scope="session")
def distilled(tmp_path_factory):
    """A teacher, its amplifier, a student distilled with plots, and a plain one; `logged` is what loggers were told."""
    folder = tmp_path_factory.mktemp("distilled")
    data = write_data(folder / "set", train=6, val=3, size=96)
    teacher = save_checkpoint(lively_model("yolo11s.yaml", seed=1), folder / "teacher.pt")
    plain = save_checkpoint(lively_model("yolo11n.yaml", seed=2), folder / "plain.pt")
    overrides = {"teacher": str(teacher), "student": str(plain), "data": str(data), "project": str(folder / "runs")}
    overrides |= {"name": "student", "epochs": 2, "amplifier_epochs": 1, "imgsz": 64, "batch": 3, "device": "cpu"}
    overrides |= {"workers": 0, "plots": True, "optimizer": "SGD", "lr0": 0.001}
    trainer = DS2D2Trainer(overrides=overrides)
    logged = []
    trainer.add_callback(
        "on_train_epoch_end", lambda trainer: logged.append(trainer.label_loss_items(trainer.tloss, prefix="train"))
    )
    trainer.train()
    return SimpleNamespace(
        folder=folder, data=data, teacher=teacher, plain=plain, run=trainer.save_dir, trainer=trainer, logged=logged,
        student=trainer.best, amplifier=trainer.args.amplifier,
    )  # fmt: skip
