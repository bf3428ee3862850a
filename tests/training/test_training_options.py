"""Options of Ultralytics, each with distillation: the result of a short run shows the effect of the option."""

import gc
import math
import threading
import weakref

import psutil
import pytest
import torch
from training_helpers import lively_model, no_network, save_checkpoint, short, small_yolo, write_data
from ultralytics.data.augment import CutMix, MixUp, Mosaic
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.nn.tasks import DetectionModel, load_checkpoint

from ds2d2_yolo import AmplifierTrainer, DS2D2Trainer
from ds2d2_yolo.training.results import read_rows

pytestmark = pytest.mark.slow  # nearly all of them train

SHORT = short(batch=2, nbs=2)
TERMS = ["ex_low_loss", "ex_high_loss", "im_full_loss", "im_high_loss", "response_loss"]


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """Data, a student, and a teacher with its amplifier."""
    folder = tmp_path_factory.mktemp("parts")
    data = str(write_data(folder / "set", train=4, val=2))
    teacher = str(save_checkpoint(lively_model(small_yolo(folder, "big", 32), seed=1), folder / "teacher.pt"))
    amplifier = AmplifierTrainer(overrides={**SHORT, "teacher": teacher, "data": data, "project": str(folder / "runs")})
    amplifier.train()
    amplifier = str(amplifier.amplifier)
    return {"data": data, "teacher": teacher, "amplifier": amplifier, "student": str(small_yolo(folder))}


class Watch:
    """Events of a run: images per batch and their sizes, labels, saved checkpoints, and the student's first weights."""

    def __init__(self, trainer):
        self.counts, self.sizes, self.classes, self.saved, self.start = [], [], set(), 0, {}
        trainer.add_callback("on_train_start", self.keep)
        trainer.add_callback("on_model_save", self.count_saved)
        prepare = trainer.preprocess_batch

        def look(batch):
            batch = prepare(batch)
            self.counts.append(len(batch["img"]))
            self.sizes.append(batch["img"].shape[-1])
            self.classes |= set(batch["cls"].flatten().tolist())
            return batch

        trainer.preprocess_batch = look

    def count_saved(self, trainer):
        self.saved += 1

    def keep(self, trainer):
        self.start = {name: value.clone() for name, value in trainer.model.state_dict().items()}


def unchanged(trainer, watch, prefix):
    state = trainer.model.state_dict()
    return all(torch.equal(state[name], value) for name, value in watch.start.items() if name.startswith(prefix))


def combines(dataset, transform_class):
    """Whether several images are combined to one in this way."""
    found = [dataset.transforms]
    for transform in found:  # grows during the loop: transforms are nested
        found += getattr(transform, "transforms", [])
    return any(isinstance(transform, transform_class) and transform.p > 0 for transform in found)


def rows(trainer):
    return read_rows(trainer.csv)


OPTIONS = {
    "rect": ({"rect": True}, lambda t, w: t.train_loader.dataset.rect),
    "multi_scale": ({"multi_scale": 0.5, "batch": 1, "imgsz": 128}, lambda t, w: len(set(w.sizes)) > 1),
    "cos_lr": ({"cos_lr": True, "epochs": 3, "val": False}, lambda t, w: t.lf(1) == pytest.approx(0.7525, abs=1e-3)),
    "close_mosaic": (
        {"close_mosaic": 1, "epochs": 2, "val": False},
        lambda t, w: not combines(t.train_loader.dataset, Mosaic),
    ),
    "mosaic": ({"close_mosaic": 0}, lambda t, w: combines(t.train_loader.dataset, Mosaic)),
    "freeze": ({"freeze": 3}, lambda t, w: unchanged(t, w, "model.2.") and not unchanged(t, w, "model.3.")),
    "classes": ({"classes": [1]}, lambda t, w: w.classes == {1.0}),
    "fraction": ({"fraction": 0.5}, lambda t, w: w.counts == [2]),
    "cache-ram": ({"cache": "ram"}, lambda t, w: all(image is not None for image in t.train_loader.dataset.ims)),
    "cache-disk": ({"cache": "disk"}, lambda t, w: all(path.is_file() for path in t.train_loader.dataset.npy_files)),
    "save_period": ({"save_period": 1}, lambda t, w: (t.wdir / "epoch0.pt").is_file()),
    "save": ({"save": False, "epochs": 2}, lambda t, w: w.saved == 1),
    "val": (
        {"val": False, "epochs": 2},
        lambda t, w: [row["val/box_loss"] > 0 for row in rows(t)] == [False, True],
    ),
    "time": ({"time": 1e-7, "epochs": 9}, lambda t, w: len(rows(t)) == 1),
    "accumulation": ({"nbs": 4}, lambda t, w: t.ema.updates == 1),
    "class_weights": ({"cls_pw": 0.5}, lambda t, w: t.model.class_weights is not None),
    "augmentations": (
        {"close_mosaic": 0, "mixup": 1.0, "cutmix": 1.0, "degrees": 30, "shear": 5, "flipud": 0.5, "bgr": 0.5},
        lambda t, w: all(combines(t.train_loader.dataset, kind) for kind in (Mosaic, MixUp, CutMix)),
    ),
    "learning_rate": ({"lr_steps": [1], "epochs": 2, "val": False}, lambda t, w: t.lf(1) == pytest.approx(0.1)),
    "optimizer-auto": ({"optimizer": "auto"}, lambda t, w: type(t.optimizer).__name__ == "AdamW"),
    **{
        f"optimizer-{name}": ({"optimizer": name}, lambda t, w, name=name: type(t.optimizer).__name__ == name)
        for name in ("SGD", "MuSGD", "Adam", "Adamax", "AdamW", "NAdam", "RAdam", "RMSprop")
    },
    "batch": ({"batch": -1}, lambda t, w: t.batch_size == 16 and w.counts == [4]),  # AutoBatch's default on a CPU
    "batch-share": ({"batch": 0.7}, lambda t, w: t.batch_size == 16 and w.counts == [4]),
    "single_cls": ({"single_cls": True}, lambda t, w: w.classes == {0.0} and t.model.names == {0: "item"}),
}


@pytest.mark.parametrize("option", OPTIONS)
def test_an_option_works_with_distillation(option, parts, tmp_path):
    changes, holds = OPTIONS[option]
    overrides = {**SHORT, **parts, "project": str(tmp_path), **changes}
    if option == "single_cls":
        teacher = lively_model(small_yolo(tmp_path, "big", 32), classes=1)
        teacher.names = {0: "item"}
        overrides |= {"teacher": str(save_checkpoint(teacher, tmp_path / "teacher.pt")), "amplifier": None}
    trainer = DS2D2Trainer(overrides=overrides)
    watch = Watch(trainer)
    trainer.train()
    assert holds(trainer, watch)
    for name in TERMS if option != "single_cls" else TERMS[:3]:
        assert all(math.isfinite(row[f"train/{name}"]) for row in rows(trainer))
        assert rows(trainer)[0][f"train/{name}"] > 0
    model, checkpoint = load_checkpoint(trainer.last)
    assert type(model) is DetectionModel
    assert not hasattr(model, "ds2d2_adapters")
    assert checkpoint["epoch"] == -1


def test_a_student_whose_fitness_stands_still_stops_early(parts, tmp_path):
    trainer = DS2D2Trainer(overrides={**SHORT, **parts, "project": str(tmp_path), "patience": 1, "epochs": 9})
    validate = trainer.validate
    trainer.validate = lambda: (validate()[0], 0.5)
    trainer.train()
    assert len(rows(trainer)) == 2
    assert load_checkpoint(trainer.last)[1]["epoch"] == -1


def test_callbacks_are_called_as_in_a_plain_training(parts, tmp_path):
    def events(trainer_class, **changes):
        called = []
        trainer = trainer_class(overrides={**SHORT, **changes, "epochs": 2, "project": str(tmp_path)})
        for event in trainer.callbacks:
            trainer.add_callback(event, lambda trainer, event=event: called.append(event))
        trainer.train()
        return called

    plain = events(DetectionTrainer, model=parts["student"], data=parts["data"])
    assert events(DS2D2Trainer, **parts) == plain
    assert {"on_train_batch_end", "on_fit_epoch_end", "on_model_save", "on_train_end"} <= set(plain)


def test_a_finished_run_leaves_nothing_behind_in_its_process(parts, tmp_path):
    def leftovers():
        trainer = DS2D2Trainer(overrides={**SHORT, **parts, "project": str(tmp_path)})
        trainer.train()
        models = [weakref.ref(model) for model in (trainer.model, trainer.ema.ema, trainer.distiller.teacher.model)]
        del trainer
        gc.collect()
        process = psutil.Process()
        files = sorted(file.path for file in process.open_files())
        return [model() for model in models], files, process.children(), threading.active_count()

    leftovers()  # what libraries open once
    models, files, children, threads = leftovers()
    assert models == [None] * 3
    assert leftovers() == (models, files, children, threads)
    assert not [path for path in files if path.startswith(str(tmp_path))]


def test_a_run_opens_no_connection(tmp_path):
    """All stages, from scratch to a student."""
    data = write_data(tmp_path / "set", train=2, val=2)
    overrides = {**SHORT, "teacher": str(small_yolo(tmp_path, "big", 32)), "student": str(small_yolo(tmp_path))}
    with no_network() as asked:
        trainer = DS2D2Trainer(overrides={**overrides, "data": str(data), "project": str(tmp_path / "runs")})
        trainer.train()
    assert trainer.best.is_file()
    assert {path.name.split("-")[0] for path in (tmp_path / "runs").iterdir()} == {"teacher", "amplifier", "train"}
    assert asked == []


@pytest.mark.skipif(
    not hasattr(torch.serialization, "get_unsafe_globals_in_checkpoint"), reason="safe=True needs torch 2.6"
)
def test_own_files_and_plain_checkpoints_are_safe(parts, tmp_path):
    student = save_checkpoint(lively_model(parts["student"]), tmp_path / "student.pt")
    overrides = {**SHORT, **parts, "student": str(student), "project": str(tmp_path), "safe": True}
    trainer = DS2D2Trainer(overrides=overrides)
    trainer.train()
    again = DS2D2Trainer(overrides={**overrides, "student": str(trainer.best), "name": "again"})
    assert again.args.model == str(trainer.best)
