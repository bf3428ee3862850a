"""Shared fixtures."""

from types import SimpleNamespace

import pytest
from golden_arrays import Golden

# Fixtures that train: tests that use them are slow.
TRAINING = {"compared", "distilled", "finished", "parts", "results", "run", "trained"}


def pytest_collection_modifyitems(items):
    for item in items:
        if TRAINING & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.slow)


@pytest.fixture
def golden():
    return Golden


@pytest.fixture(scope="session")
def distilled(tmp_path_factory):
    """A teacher, its amplifier, a student distilled with plots, and a plain one.

    `logged` are the values for loggers, `connections` the requests to the network.
    """
    from training_helpers import lively_model, no_network, save_checkpoint, short, write_data
    from ultralytics.utils.checks import check_font

    from ds2d2_yolo import DS2D2Trainer

    folder = tmp_path_factory.mktemp("distilled")
    data = write_data(folder / "set", train=6, val=3, size=96)
    teacher = save_checkpoint(lively_model("yolo11s.yaml", seed=1), folder / "teacher.pt")
    plain = save_checkpoint(lively_model("yolo11n.yaml", seed=2), folder / "plain.pt")
    overrides = {"teacher": str(teacher), "student": str(plain), "data": str(data), "project": str(folder / "runs")}
    overrides |= short(name="student", epochs=2, amplifier_epochs=1, batch=3, nbs=64, plots=True, adapters="random")
    logged = []
    with no_network():
        check_font("Arial.ttf")  # Ultralytics looks for its font only once per process
    with no_network() as connections:
        trainer = DS2D2Trainer(overrides=overrides)
        trainer.add_callback(
            "on_train_epoch_end", lambda trainer: logged.append(trainer.label_loss_items(trainer.tloss, prefix="train"))
        )
        trainer.train()
    return SimpleNamespace(
        folder=folder, data=data, teacher=teacher, plain=plain, run=trainer.save_dir, trainer=trainer, logged=logged,
        student=trainer.best, amplifier=trainer.args.amplifier, connections=connections,
    )  # fmt: skip
