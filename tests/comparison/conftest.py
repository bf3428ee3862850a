"""Fixtures of the tests of comparisons: tiny data, a teacher with its amplifier, and a user's arguments."""

import pytest
from training_helpers import lively_model, save_checkpoint, short, small_yolo, write_data

from ds2d2_yolo.training.amplifier import AmplifierTrainer

SHORT = short(epochs=2)


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("data") / "set")


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    """Model YAMLs of a teacher and a student."""
    folder = tmp_path_factory.mktemp("models")
    return small_yolo(folder, "big", 32), small_yolo(folder)


@pytest.fixture(scope="session")
def teacher(models, tmp_path_factory):
    return save_checkpoint(lively_model(models[0], seed=1), tmp_path_factory.mktemp("teacher") / "teacher.pt")


@pytest.fixture(scope="session")
def amplifier(teacher, data, tmp_path_factory):
    project = str(tmp_path_factory.mktemp("amplifier"))
    overrides = {**SHORT, "epochs": 1, "teacher": str(teacher), "data": str(data), "project": project}
    trainer = AmplifierTrainer(overrides=overrides)
    trainer.train()
    return trainer.amplifier


@pytest.fixture(scope="session")
def request_of(models, teacher, amplifier, data):
    """Return the arguments of a user."""

    def build(**changes):
        given = {**SHORT, "teacher": str(teacher), "student": str(models[1]), "data": str(data)}
        given |= {"amplifier": str(amplifier), **changes}
        return {name: value for name, value in given.items() if value != "-"}

    return build
