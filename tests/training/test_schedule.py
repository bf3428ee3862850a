"""Distilling only some steps: which ones, the cost of the others, and logged values."""

import gc
import math
import weakref

import pytest
import torch
from training_helpers import lively_model, make_stage, save_checkpoint, short, small_yolo, write_data

from ds2d2_yolo import DS2D2Trainer
from ds2d2_yolo.errors import DS2D2Error
from ds2d2_yolo.method import TERMS
from ds2d2_yolo.training.arguments import check_arguments
from ds2d2_yolo.training.results import read_columns
from ds2d2_yolo.training.schedule import IMPLICIT, TermSchedule
from ds2d2_yolo.training.trainer import PlainTrainer

RUN = {"teacher": "yolo11s.pt", "student": "yolo11n.yaml"}
STEPS = 5  # of an epoch
SHORT = short(epochs=3)


def test_the_first_step_of_an_epoch_and_every_kth_are_distilled():
    schedule = TermSchedule(TERMS, every=3)
    for _ in range(2):
        schedule.start_epoch()
        assert [schedule.next_step() for _ in range(7)] == [TERMS, None, None, TERMS, None, None, TERMS]


def test_implicit_terms_are_in_every_kth_distilled_step():
    schedule, without = TermSchedule(TERMS, every=2, im_every=3), ("ex_low", "ex_high", "response")
    steps = [schedule.next_step() for _ in range(13)]
    assert steps[::2] == [TERMS, without, without, TERMS, without, without, TERMS]
    assert steps[1::2] == [None] * 6


def test_without_implicit_terms_every_step_is_the_same():
    terms = ("ex_low", "response")
    schedule = TermSchedule(terms, im_every=2)
    assert [schedule.next_step() for _ in range(3)] == [terms] * 3
    assert schedule.is_every_step
    assert schedule.columns() == {"steps/distilled": 1}


def test_implicit_terms_alone_leave_plain_steps():
    schedule = TermSchedule(IMPLICIT, every=2, im_every=2)
    assert [schedule.next_step() for _ in range(6)] == [IMPLICIT, None, None, None, IMPLICIT, None]
    assert schedule.columns() == {"steps/distilled": 2 / 6, "steps/implicit": 2 / 6}


def test_a_teacher_assigns_objects_between_implicit_terms():
    schedule = TermSchedule(IMPLICIT, every=2, im_every=2, assigns=True)
    assert [schedule.next_step() for _ in range(6)] == [IMPLICIT, None, (), None, IMPLICIT, None]
    assert schedule.columns() == {"steps/distilled": 3 / 6, "steps/implicit": 2 / 6}


def test_means_are_those_of_the_steps_with_the_term():
    schedule = TermSchedule(["ex_low", "im_full"], every=2, im_every=2)
    items = []
    for value in range(1, 8):
        terms = schedule.next_step() or ()
        own = {f"{name}_loss": torch.tensor(float(value)) for name in terms}
        items.append(schedule.complete({"box_loss": torch.tensor(9.0), **own}))
    assert {tuple(item) for item in items} == {("box_loss", "ex_low_loss", "im_full_loss")}
    assert schedule.means == {"ex_low_loss": (1 + 3 + 5 + 7) / 4, "im_full_loss": (1 + 5) / 2}
    assert [item["ex_low_loss"].item() for item in items] == [1, 1, 3, 2, 5, 3, 7]
    assert schedule.columns() == {"steps/distilled": 4 / 7, "steps/implicit": 2 / 7}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"distill_every": 0}, "distill_every=0: expected a whole number of at least 1"),
        ({"distill_every": None}, "distill_every=None: expected a whole number of at least 1"),
        ({"im_every": 1.5}, "im_every=1.5: expected a whole number of at least 1"),
        ({"close_distill": -1}, "close_distill=-1: expected a number of at least 0"),
        ({"close_distill": 1.5}, "close_distill=1.5: expected a whole number of epochs, or a share of them below 1"),
        ({"close_distill": 3, "epochs": 3}, "as epochs=3; pass close_distill=2 or less"),
        ({"close_distill": 1, "epochs": 1}, "as epochs=1; leave close_distill= out"),
    ],
)
def test_mistakes_get_one_line(given, message):
    with pytest.raises(DS2D2Error, match=message):
        check_arguments({**RUN, **given})


def test_the_last_epochs_are_plain():
    arguments = check_arguments({**RUN, "epochs": 5, "close_distill": 2})
    assert [arguments.is_plain(epoch) for epoch in range(5)] == [False, False, False, True, True]
    assert not any(check_arguments({**RUN, "epochs": 5}).is_plain(epoch) for epoch in (4, 5))
    half = check_arguments({**RUN, "epochs": 5, "preset": "balanced"})
    assert [half.is_plain(epoch) for epoch in range(5)] == [False, False, False, True, True]


# ------------------------------------------------------------------------------------------------------- whole runs


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """Data, models and amplifier of small runs."""
    folder = tmp_path_factory.mktemp("parts")
    teacher = save_checkpoint(lively_model(small_yolo(folder, "big", 32), seed=1), folder / "teacher.pt")
    shared = {"teacher": str(teacher), "data": str(write_data(folder / "set", train=4 * STEPS, val=2))}
    amplifier = make_stage({**SHORT, **shared, "epochs": 1, "project": str(folder)}, "amplifier")
    return {**shared, "amplifier": str(amplifier), "student": str(small_yolo(folder))}


def train(parts, folder, stop_after=None, **changes):
    """A finished run, or one that stopped after an epoch, with the kind of each step, by epoch."""
    trainer = DS2D2Trainer(overrides={**SHORT, **parts, "project": str(folder), **changes})
    trainer.log = log = []

    def watch(t):
        if t.distiller is not None:
            t.distiller.teacher.model.register_forward_hook(lambda *_: log[-1].append("teacher"))

    def step(t):
        hooks = any(m._forward_hooks for m in t.model.modules())
        log[-1].append("hooks" if hooks else "step")

    def stop(t):
        if t.epoch + 1 == stop_after:
            raise KeyboardInterrupt

    trainer.add_callback("on_train_start", watch)
    trainer.add_callback("on_train_epoch_start", lambda t: log.append([]))
    trainer.add_callback("on_train_batch_end", step)
    trainer.add_callback("on_fit_epoch_end", stop)
    if stop_after:
        with pytest.raises(KeyboardInterrupt):
            trainer.train()
    else:
        trainer.train()
    return trainer


@pytest.mark.slow
def test_a_plain_step_asks_no_teacher_and_taps_nothing(parts, tmp_path):
    trainer = train(parts, tmp_path, distill_every=2, im_every=2, epochs=2)
    assert trainer.log == [["teacher", "step", "step"] * 2 + ["teacher", "step"]] * 2
    columns = read_columns(trainer.csv)
    assert columns["steps/distilled"] == [3 / 5] * 2
    assert columns["steps/implicit"] == [2 / 5] * 2
    for name in TERMS:
        assert all(value > 0 for value in columns[f"train/{name}_loss"])
        assert all(value > 0 for value in columns[f"share/{name}"])
    assert trainer.distiller.calibration.batches == 2  # with all terms, in the first epoch
    means = {key: value.item() for key, value in trainer.schedule.means.items()}
    logged = {f"{name}_loss": columns[f"train/{name}_loss"][-1] for name in TERMS}
    assert logged == pytest.approx(means, rel=1e-4, abs=1e-5)


@pytest.mark.slow
def test_implicit_terms_alone_leave_plain_steps_in_training(parts, tmp_path):
    trainer = train(parts, tmp_path, ex_low=0, ex_high=0, response=0, im_every=2, close_distill=0.5, epochs=2)
    assert trainer.log == [["teacher", "step", "step"] * 2 + ["teacher", "step"], ["step"] * STEPS]
    columns = read_columns(trainer.csv)
    assert columns["steps/distilled"] == [3 / 5, 0]
    assert columns["train/im_full_loss"][0] > 0


@pytest.mark.slow
def test_a_teacher_assigns_between_implicit_terms_in_training(parts, tmp_path):
    settings = {"ex_low": 0, "ex_high": 0, "response": 0, "assignment": "teacher", "epochs": 1}
    trainer = train(parts, tmp_path, im_every=2, **settings)
    assert trainer.log == [["teacher", "step"] * STEPS]
    columns = read_columns(trainer.csv)
    assert (columns["steps/distilled"], columns["steps/implicit"]) == ([1], [3 / 5])


@pytest.mark.slow
def test_closing_frees_the_teacher_and_trains_on(parts, tmp_path):
    frozen_models = []

    def start(t):
        frozen_models.extend(map(weakref.ref, (t.distiller, t.distiller.teacher.model, t.distiller.amplifier)))

    def check(t):
        if t.epoch == 1:
            gc.collect()
            freed.append([frozen() is None for frozen in frozen_models])

    freed = []
    trainer = DS2D2Trainer(overrides={**SHORT, **parts, "project": str(tmp_path), "close_distill": 2, "plots": True})
    trainer.add_callback("on_train_start", start)
    trainer.add_callback("on_train_batch_start", check)
    trainer.train()
    assert freed == [[True] * 3] * STEPS
    columns = read_columns(trainer.csv)
    assert columns["steps/distilled"] == [1.0, 0.0, 0.0]
    assert columns["train/ex_low_loss"][0] > 0
    assert all(math.isnan(value) for value in columns["train/ex_low_loss"][1:])
    assert all(value > 0 for value in columns["train/box_loss"])
    assert {"ds2d2_terms.png", "ds2d2_bands_0.png"} <= {path.name for path in trainer.save_dir.iterdir()}
    assert {"best.pt", "last.pt", "adapters.pt"} == {path.name for path in trainer.wdir.iterdir()}


@pytest.mark.slow
def test_a_closed_run_resumes_without_its_teacher(parts, tmp_path):
    teacher = save_checkpoint(lively_model(small_yolo(tmp_path, "big", 32), seed=1), tmp_path / "teacher.pt")
    given = {**parts, "teacher": str(teacher), "amplifier": None, "close_distill": 1, "val_kd": True}
    whole = train(given, tmp_path, name="whole")
    for name, epochs in (("early", 1), ("late", 2)):
        trainer = train(given, tmp_path, stop_after=epochs, name=name)
        if name == "late":
            teacher.unlink()
        resumed = DS2D2Trainer(overrides={"resume": str(trainer.last)})
        resumed.train()
        for path in (whole, resumed):
            assert path.distiller is None
        states = [torch.load(t.last, weights_only=False)["model"].state_dict() for t in (whole, resumed)]
        assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    columns = read_columns(whole.csv)
    for name in ("metrics/agreement", "val/ex_low_loss"):
        assert [math.isnan(value) for value in columns[name]] == [False, False, True]


@pytest.mark.slow
def test_plain_epochs_are_those_of_a_plain_training(parts, tmp_path):
    """Without an optimiser step in the distilled epoch, a run with closing equals that of a plain student."""
    still = {"lr0": 0.0}
    closed = train(parts, tmp_path, name="closed", close_distill=2, **still)
    shared = {key: value for key, value in parts.items() if key not in {"teacher", "amplifier", "student"}}
    plain = PlainTrainer(
        overrides={**SHORT, **shared, **still, "model": parts["student"], "project": str(tmp_path), "name": "plain"}
    )
    plain.train()
    for key in ("train/box_loss", "train/cls_loss", "val/box_loss"):
        assert read_columns(closed.csv)[key] == read_columns(plain.csv)[key]
