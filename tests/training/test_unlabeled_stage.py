"""The stage in which a teacher labels images, and trainings with what it has made."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from training_helpers import (
    NAMES,
    Killed,
    lively_model,
    make_stage,
    save_checkpoint,
    short,
    short_of_memory,
    small_yolo,
    stop_at,
    tiny_yaml,
    write_data,
)
from ultralytics.data.utils import img2label_paths
from ultralytics.nn.tasks import load_checkpoint
from ultralytics.utils import YAML
from ultralytics.utils.ops import xywhn2xyxy, xyxyxyxy2xywhr

from ds2d2_yolo import DS2D2Trainer, plan
from ds2d2_yolo.errors import DS2D2Error
from ds2d2_yolo.evaluation.predictions import Prediction, predict
from ds2d2_yolo.explanation.images import read_image
from ds2d2_yolo.explanation.setup import find_images
from ds2d2_yolo.files import write_json
from ds2d2_yolo.loading.unlabeled import SET_FILE, fingerprint_of_labels, read_pseudo_set
from ds2d2_yolo.training import unlabeled
from ds2d2_yolo.training.results import read_rows
from ds2d2_yolo.training.trainer import PlainTrainer


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    return save_checkpoint(lively_model("yolov8n.yaml", seed=1), tmp_path_factory.mktemp("teacher") / "teacher.pt")


@pytest.fixture
def asked(tmp_path, teacher):
    """Arguments of a run: 6 labelled images, 5 others."""
    data = write_data(tmp_path / "set", train=6, val=3)
    write_data(tmp_path / "other", train=5, val=1, size=80)
    images = tmp_path / "other" / "images" / "train"
    project = {"project": str(tmp_path / "runs"), "data": str(data), "unlabeled": str(images)}
    return {**short(), **project, "teacher": str(teacher)}


def size_of(image):
    return (80, 80) if "other" in str(image) else (64, 64)


def labels_of(image, task="detect"):
    """Rows of an image that a perfect teacher finds, with confidence 0.9."""
    height, width = size_of(image)
    rows = np.loadtxt(img2label_paths([str(image)])[0], ndmin=2)
    boxes = xywhn2xyxy(rows[:, 1:], width, height) if task == "detect" else xyxyxyxy2xywhr(rows[:, 1:] * width)
    return np.hstack([boxes, np.full((len(rows), 1), 0.9), rows[:, :1]])


class Oracle:
    """A teacher that finds every labelled object, and as many wrong ones with another confidence; it may be killed."""

    def __init__(self, task="detect", dies_after=None, wrong=False, false=0.3, never=None):
        self.task, self.dies_after, self.wrong, self.asked = task, dies_after, wrong, []
        self.false, self.never = false, never  # `never` is a class without a right detection

    def __call__(self, path, images, confidence, args):
        for image in images:
            if self.dies_after is not None and len(self.asked) >= self.dies_after:
                raise KeyboardInterrupt
            self.asked.append(image)
            rows = labels_of(image, self.task)
            false = rows.copy()
            false[:, 0] += 40
            false[:, -2] = self.false
            rows[:, -1] = 1 - rows[:, -1] if self.wrong else rows[:, -1]
            rows = rows[rows[:, -1] != self.never]
            yield [(image, Prediction(np.concatenate([rows, false]), size_of(image)))]


@pytest.fixture
def oracle(monkeypatch):
    def use(**how):
        teacher = Oracle(**how)
        monkeypatch.setattr(unlabeled, "predict", teacher)
        return teacher

    return use


def test_labels_are_what_is_found_confidently(asked, oracle):
    oracle()
    made = read_pseudo_set(make_stage(asked, "unlabeled"))
    content = made.content
    assert (content["images"], content["boxes"], content["without_boxes"], content["left_out"]) == (5, 10, 0, {})
    assert {name: (t["confidence"], t["precision"]) for name, t in content["thresholds"].items()} == dict.fromkeys(
        NAMES.values(), (0.9, 1.0)
    )
    originals = sorted((made.file.parents[3] / "other" / "images" / "train").iterdir())
    for link, original in zip(sorted(made.folder.iterdir()), originals, strict=True):
        assert link.read_bytes() == original.read_bytes()
        expected = np.loadtxt(img2label_paths([str(original)])[0], ndmin=2)
        found = np.loadtxt(img2label_paths([str(link)])[0], ndmin=2)
        np.testing.assert_allclose(found, expected, atol=1e-4)


def test_nothing_is_written_beside_the_images(asked, oracle, tmp_path):
    oracle()
    before = sorted((tmp_path / "other").rglob("*"))
    make_stage(asked, "unlabeled")
    assert sorted((tmp_path / "other").rglob("*")) == before


def test_a_finished_stage_is_reused(asked, oracle):
    oracle()
    first = make_stage(asked, "unlabeled")
    assert plan(asked, "unlabeled").states == {"teacher": "given", "unlabeled": "reused"}
    again = oracle()
    assert make_stage(asked, "unlabeled") == first
    assert again.asked == []


def test_a_teacher_labels_images_of_its_own_size(asked, monkeypatch):
    sizes = set()

    class Noting(Oracle):
        def __call__(self, path, images, confidence, args):
            sizes.add(args.imgsz)
            return super().__call__(path, images, confidence, args)

    monkeypatch.setattr(unlabeled, "predict", Noting())
    folders = {make_stage({**asked, **changes}, "unlabeled").parents[1] for changes in ({}, {"teacher_imgsz": 128})}
    assert len(folders) == 2
    assert sizes == {asked.get("imgsz", 64), 128}


def test_other_images_make_another_stage(asked, oracle, tmp_path):
    oracle()
    first = make_stage(asked, "unlabeled")
    shutil.copyfile(tmp_path / "other/images/val/0.png", tmp_path / "other/images/train/new.png")
    shutil.copyfile(tmp_path / "other/labels/val/0.txt", tmp_path / "other/labels/train/new.txt")
    assert make_stage(asked, "unlabeled").parents[1] != first.parents[1]


@pytest.mark.parametrize("is_made", [False, True])
def test_images_added_after_the_plan_are_labelled(is_made, asked, oracle, tmp_path):
    """Training of the teacher can take hours after the plan."""
    oracle()
    if is_made:
        make_stage(asked, "unlabeled")
    planned = plan(asked, "unlabeled")
    shutil.copyfile(tmp_path / "other/images/val/0.png", tmp_path / "other/images/train/0new.png")
    shutil.copyfile(tmp_path / "other/labels/val/0.txt", tmp_path / "other/labels/train/0new.txt")
    made = read_pseudo_set(planned.run().arguments.unlabeled)
    assert made.content["images"] == 6
    assert plan(asked, "unlabeled").states["unlabeled"] == "reused"


def test_another_precision_detects_nothing_again(asked, oracle):
    oracle()
    first = make_stage(asked, "unlabeled")
    again = oracle()
    second = make_stage({**asked, "unlabeled_precision": 0.4}, "unlabeled")
    assert again.asked == []
    assert first.parents[1] == second.parents[1]
    assert read_pseudo_set(second).content["thresholds"]["ship"]["confidence"] == 0.3
    assert read_pseudo_set(second).content["boxes"] == 20


@pytest.mark.parametrize("dies_after", [0, 1, 3, 4, 6])
def test_a_killed_stage_goes_on(asked, oracle, tmp_path, dies_after):
    """It is killed before or in the validation images (3) or the others; a line may be half written."""
    killed = oracle(dies_after=dies_after)
    with pytest.raises(KeyboardInterrupt):
        make_stage(asked, "unlabeled")
    assert plan(asked, "unlabeled").states["unlabeled"] == "to be continued"
    (folder,) = (tmp_path / "runs").glob("unlabeled-*")
    last = sorted(folder.glob("*.jsonl"), key=lambda path: path.name == "unlabeled.jsonl" and path.stat().st_size)[-1]
    with last.open("a") as file:
        file.write('{"image": 2, "si')
    resumed = oracle()
    continued = make_stage(asked, "unlabeled")
    assert len(resumed.asked) == 8 - len(killed.asked)
    whole = {path.name: path.read_text() for path in (continued.parent / "labels").iterdir()}
    shutil.rmtree(tmp_path / "runs")
    oracle()
    anew = make_stage(asked, "unlabeled")
    assert {path.name: path.read_text() for path in (anew.parent / "labels").iterdir()} == whole
    assert not list((tmp_path / "runs").rglob("*.partial*"))
    assert not list((tmp_path / "runs").rglob(".*.lock"))


def test_changed_labels_are_made_anew(asked, oracle):
    oracle()
    file = make_stage(asked, "unlabeled")
    label = next((file.parent / "labels").iterdir())
    before = label.read_text()
    label.write_text("0 0.5 0.5 0.1 0.1\n")
    with pytest.raises(DS2D2Error, match="were changed"):
        read_pseudo_set(file)
    again = oracle()
    make_stage(asked, "unlabeled")
    assert (label.read_text(), again.asked) == (before, [])


def test_a_damaged_description_is_refused(asked, oracle):
    oracle()
    file = make_stage(asked, "unlabeled")
    content = json.loads(file.read_text())
    del content["sources"]
    file.write_text(json.dumps(content))
    with pytest.raises(DS2D2Error, match=r"is missing or damaged .*without sources.*which creates it again"):
        read_pseudo_set(file)


def test_a_useless_teacher_is_refused(asked, oracle, tmp_path):
    oracle(wrong=True)
    with pytest.raises(DS2D2Error, match="no better than chance"):
        make_stage(asked, "unlabeled")
    assert not list((tmp_path / "runs").rglob(SET_FILE))


def test_a_precision_out_of_reach_is_refused(asked, oracle):
    oracle(false=0.95)
    with pytest.raises(DS2D2Error, match=r"unlabeled_precision=0\.9: the teacher does not reach it for any class"):
        make_stage({**asked, "unlabeled_precision": 0.9}, "unlabeled")


@pytest.mark.parametrize(
    ("precision", "reason"),
    [(None, "no detection is correct there"), (0.9, "no threshold reaches the precision")],
)
def test_a_class_without_boxes_is_a_warning(precision, reason, asked, oracle, log):
    oracle(never=1)
    make_stage({**asked, "unlabeled_precision": precision}, "unlabeled")
    assert f"{reason}, so it gets no boxes" in log.text
    assert "WARNING: the student learns that objects of vehicle are background in these images" in log.text
    log.clear()
    make_stage({**asked, "unlabeled_precision": precision, "unlabeled_weight": 0}, "unlabeled")
    assert f"{reason}, so it gets no boxes" in log.text
    assert "background" not in log.text


def test_oriented_boxes_are_labelled(tmp_path, oracle):
    teacher = save_checkpoint(lively_model("yolov8n-obb.yaml"), tmp_path / "teacher.pt")
    data = write_data(tmp_path / "set", train=4, val=3, task="obb")
    write_data(tmp_path / "other", train=3, val=1, size=80, task="obb")
    oracle(task="obb")
    images = str(tmp_path / "other/images/train")
    asked = {"teacher": str(teacher), "data": str(data), "unlabeled": images, "project": str(tmp_path / "runs")}
    made = read_pseudo_set(make_stage({**short(), **asked}, "unlabeled"))
    for link in made.folder.iterdir():
        index = int(link.stem)
        expected = np.loadtxt(tmp_path / f"other/labels/train/{index}.txt", ndmin=2)
        found = np.loadtxt(img2label_paths([str(link)])[0], ndmin=2)
        corners = [xyxyxyxy2xywhr(rows[:, 1:] * 80) for rows in (found, expected)]
        np.testing.assert_allclose(corners[0][:, :4], corners[1][:, :4], atol=0.05)


def test_the_data_yaml_can_name_the_images(asked, oracle):
    oracle()
    content = YAML.load(asked["data"]) | {"unlabeled": asked.pop("unlabeled")}
    YAML.save(asked["data"], content)
    assert plan(asked, "unlabeled").entries == [content["unlabeled"]]
    student = {**asked, "student": "yolov8n.yaml", "im_high": 0}
    assert plan(student).states == {"teacher": "given", "unlabeled": "to be made"}
    assert "unlabeled" not in plan({**student, "unlabeled": False}).states


def test_self_training_needs_no_amplifier_and_no_warning(asked):
    planned = plan({**asked, "student": "yolov8n.yaml", "preset": "self-training", "teacher_imgsz": 128})
    assert planned.states == {"teacher": "given", "unlabeled": "to be made"}
    text = "".join(planned.summary())
    assert "the teacher works at 128, before the training" in text
    assert not any(word in text for word in ("WARNING", "stride", "maps"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"unlabeled": "missing"}, "no such file"),
        ({"unlabeled": True}, "no line 'unlabeled:'"),
        ({"rect": True}, "rect=True"),
        ({"unlabeled_ratio": 0}, "unlabeled_ratio=0"),
        ({"unlabeled_weight": -1}, "unlabeled_weight=-1"),
        ({"unlabeled_precision": 1.5}, "unlabeled_precision=1.5"),
        ({"unlabeled": False, "preset": "self-training"}, "preset=self-training: pass unlabeled="),
        ({"unlabeled": None, "unlabeled_weight": 0.0}, "no images without labels; pass unlabeled=path/to/images"),
    ],
)
def test_mistakes_are_refused_before_anything_starts(asked, changes, message, tmp_path):
    with pytest.raises(DS2D2Error, match=message):
        plan({**asked, "student": "yolov8n.yaml", **changes})
    assert not (tmp_path / "runs").exists()


def test_thresholds_need_the_validation_set(asked):
    """Also where another split evaluates the student."""
    folder = Path(asked["data"]).parent
    shutil.copytree(folder / "images" / "train", folder / "images" / "test")
    shutil.copytree(folder / "labels" / "train", folder / "labels" / "test")
    for labels in (folder / "labels" / "val").iterdir():
        labels.write_text("7 0.5 0.5 0.2 0.2\n")
    YAML.save(asked["data"], YAML.load(asked["data"]) | {"test": "images/test"})
    with pytest.raises(DS2D2Error, match="none of the 3 validation images can be used"):
        plan(asked | {"split": "test"}, "unlabeled")


def test_masks_are_refused(asked, tmp_path):
    teacher = save_checkpoint(lively_model("yolov8n-seg.yaml"), tmp_path / "seg.pt")
    data = write_data(tmp_path / "masks", task="segment")
    with pytest.raises(DS2D2Error, match="tasks detect and obb"):
        plan({**asked, "teacher": str(teacher), "student": "yolov8n-seg.yaml", "data": str(data)})


def test_a_student_that_cannot_weigh_images_is_refused(asked, tmp_path):
    models = {"teacher": str(tiny_yaml(tmp_path, "RetinaNet", "big")), "student": str(tiny_yaml(tmp_path, "RetinaNet"))}
    with pytest.raises(DS2D2Error, match="cannot weigh images; pass a YOLO"):
        plan({**asked, **models, "pretrained": False})


def test_a_set_of_other_classes_is_refused(asked, oracle, tmp_path):
    oracle()
    file = make_stage(asked, "unlabeled")
    content = YAML.load(asked["data"]) | {"names": {0: "ship", 1: "car"}}
    YAML.save(tmp_path / "cars.yaml", content)
    teacher = save_checkpoint(lively_model("yolov8n.yaml"), tmp_path / "cars.pt")
    other = {"unlabeled": str(file), "data": str(tmp_path / "cars.yaml"), "teacher_epochs": 1}
    with pytest.raises(DS2D2Error, match="has the classes"):
        plan({**asked, **other, "teacher": str(teacher), "student": "yolov8n.yaml"})


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_a_set_with_images_of_the_data_is_refused(split, asked, oracle):
    """It was made before its images were labelled, or for another split of the data."""
    oracle()
    file = make_stage(asked, "unlabeled")
    assert plan({**asked, "unlabeled": str(file)}, "unlabeled").states["unlabeled"] == "given"
    content = YAML.load(asked["data"])
    YAML.save(asked["data"], content | {split: [*filter(None, [content.get(split)]), asked["unlabeled"]]})
    with pytest.raises(DS2D2Error, match=rf"5 of its 5 images are in .*\(5 also in {split}\); pass unlabeled=path/to/"):
        plan({**asked, "unlabeled": str(file)}, "unlabeled")


def test_explain_shows_what_the_teacher_has_labelled(asked, oracle):
    oracle()
    file = make_stage(asked, "unlabeled")
    found = find_images(asked["data"], list(NAMES.values()), split="unlabeled", unlabeled=str(file))
    assert {image.parent for image in found.images} == {file.parent / "images"}
    assert sorted(found.sources.values()) == sorted(Path(asked["unlabeled"]).iterdir())
    for image, source in found.sources.items():
        assert image.read_bytes() == source.read_bytes()
    assert len(read_image(found.images[0], 2, found.labelled).boxes) == 2
    with pytest.raises(DS2D2Error, match="split=unlabeled"):
        find_images(asked["data"], list(NAMES.values()), split="unlabeled")


def test_predictions_are_in_pixels_of_the_image(teacher, asked, tmp_path):
    """Whatever batch an image is in; one that cannot be decoded has none."""
    images = sorted((tmp_path / "other/images/train").iterdir())
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"none")
    args = {"imgsz": 64, "iou": 0.7, "max_det": 20, "device": "cpu"}
    runs = [
        [entry for batch in predict(teacher, files, 0.4, SimpleNamespace(batch=size, **args)) for entry in batch]
        for size, files in ((1, images), (3, [*images[:2], broken, *images[2:]]))
    ]
    alone, together = runs[0], [entry for entry in runs[1] if entry[0] != broken]
    assert dict(runs[1])[broken] is None
    assert [image for image, _ in alone] == [image for image, _ in together] == images
    for (_, one), (_, other) in zip(alone, together, strict=True):
        assert one.size == (80, 80)
        assert one.found.shape[1] == 6
        assert 0 < len(one.found) == len(other.found)
        np.testing.assert_allclose(one.found, other.found, atol=1e-2)
        assert one.found[:, :4].max() <= 80
    assert max(one.found[:, :4].max() for _, one in alone) > 64


# -------------------------------------------------------------------------------------- trainings


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A small teacher and student of one architecture."""
    folder = tmp_path_factory.mktemp("small")
    path = small_yolo(folder)
    return save_checkpoint(lively_model(path, seed=1), folder / "teacher.pt"), path


@pytest.fixture
def run_of(asked, small, oracle):
    """Arguments of a student's run with unlabelled images."""
    oracle()
    return {**asked, "teacher": str(small[0]), "student": str(small[1]), "im_high": 0, "epochs": 2, "name": "student"}


@pytest.mark.slow
def test_a_student_learns_from_both_kinds(run_of):
    trainer = DS2D2Trainer(overrides=run_of | {"unlabeled_ratio": 0.5, "unlabeled_weight": 0.7, "close_mosaic": 1})
    trainer.train()
    assert trainer.mixed._weight == 0.7
    assert read_pseudo_set(trainer.args.unlabeled).content["boxes"] == 10
    assert trainer.args.unlabeled == YAML.load(trainer.save_dir / "args.yaml")["unlabeled"]
    for row in read_rows(trainer.csv):
        assert (row["labeled/images"], row["unlabeled/images"]) == (6, 3)
        assert row["labeled/boxes"] > 0
        assert row["unlabeled/boxes"] > 0
        assert row["labeled/cls"] > 0
        assert row["unlabeled/cls"] > 0
        assert row["train/ex_low_loss"] > 0
        assert row["train/response_loss"] > 0


@pytest.mark.slow
def test_self_training_is_one_thing_as_a_method_and_as_a_preset(run_of):
    file = make_stage({key: value for key, value in run_of.items() if key not in {"student", "name"}}, "unlabeled")
    overrides = {key: value for key, value in run_of.items() if key not in {"teacher", "student", "im_high"}}
    trainer = PlainTrainer(overrides=overrides | {"model": run_of["student"], "unlabeled": str(file)})
    trainer.train()
    rows = read_rows(trainer.csv)
    assert [(row["labeled/images"], row["unlabeled/images"]) for row in rows] == [(6, 5)] * 2
    by_preset = DS2D2Trainer(overrides=run_of | {"preset": "self-training"})
    by_preset.train()
    models = [load_checkpoint(run.last)[0].state_dict() for run in (trainer, by_preset)]
    assert models[0].keys() == models[1].keys()
    for name, values in models[0].items():
        torch.testing.assert_close(models[1][name], values, rtol=0, atol=0)


@pytest.mark.slow
def test_a_retinanet_labels_images_for_a_yolo(run_of, tmp_path):
    """Without terms their maps and predictions need not match."""
    overrides = run_of | {
        "teacher": str(tiny_yaml(tmp_path, "RetinaNet")),
        "imgsz": 128,
        "epochs": 1,
        "pretrained": False,
    }
    with pytest.raises(DS2D2Error, match=r"student is a YOLO; .*preset=self-training"):
        plan(overrides)
    trainer = DS2D2Trainer(overrides=overrides | {"preset": "self-training"})
    trainer.train()
    assert trainer.plan.teacher.family == "RetinaNet"
    (row,) = read_rows(trainer.csv)
    assert row["unlabeled/boxes"] > 0
    with pytest.raises(DS2D2Error, match=r"imgsz=100: .* needs a multiple of 32"):
        plan(overrides | {"preset": "self-training", "imgsz": 100})


@pytest.mark.slow
@pytest.mark.parametrize("epoch", [1, 2])
def test_a_resumed_run_is_the_uninterrupted_one(run_of, epoch):
    """Mosaics close after the second of four epochs."""
    overrides = run_of | {"epochs": 4, "close_mosaic": 2, "unlabeled_ratio": 0.5, "seed": 5}

    def watch(trainer, seen):
        original = trainer.preprocess_batch

        def note(batch):
            if trainer.ema is not None:
                seen.setdefault(trainer.epoch, []).append(sorted(batch["im_file"]))
            return original(batch)

        trainer.preprocess_batch = note
        return trainer

    whole, resumed = {}, {}
    first = watch(DS2D2Trainer(overrides=overrides | {"name": "whole"}), whole)
    first.train()

    second = DS2D2Trainer(overrides=overrides | {"name": "killed"})
    second.add_callback(*stop_at("on_train_epoch_start", epoch))
    with pytest.raises(Killed):
        second.train()
    third = watch(DS2D2Trainer(overrides={"resume": str(second.last)}), resumed)
    third.train()
    assert resumed == {number: whole[number] for number in range(epoch, 4)}
    for name, value in torch.load(first.last, weights_only=False)["model"].state_dict().items():
        torch.testing.assert_close(torch.load(third.last, weights_only=False)["model"].state_dict()[name], value)


@pytest.mark.slow
def test_resuming_without_the_labels_or_with_others_is_one_line(run_of):
    trainer = DS2D2Trainer(overrides=run_of)
    trainer.add_callback(*stop_at("on_train_epoch_start", 1))
    with pytest.raises(Killed):
        trainer.train()
    file = trainer.args.unlabeled
    content = json.loads((trainer.save_dir.parents[0] / file).read_text())
    moved = shutil.move(file, f"{file}.away")
    with pytest.raises(DS2D2Error, match="no such file; run the command again"):
        DS2D2Trainer(overrides={"resume": str(trainer.last)})
    shutil.move(moved, file)
    assert content["boxes"] == 10
    other = shutil.copytree(Path(file).parent, trainer.save_dir.parent / "other") / SET_FILE
    (other.parent / "labels" / "0000000.txt").write_text("0 0.5 0.5 0.1 0.1\n")
    labels = fingerprint_of_labels(sorted((other.parent / "labels").iterdir()))
    write_json(other, json.loads(other.read_text()) | {"labels": labels})
    with pytest.raises(DS2D2Error, match=r"unlabeled=.*: is not the one that this run began with"):
        DS2D2Trainer(overrides={"resume": str(trainer.last), "unlabeled": str(other)})


@pytest.mark.slow
def test_running_out_of_memory_early_leaves_no_weights(run_of):
    """Ultralytics halves the batch and makes new loaders. The failed pass was in the middle of the student's loss."""
    trainer = DS2D2Trainer(overrides=run_of | {"epochs": 1, "batch": 2, "teacher_imgsz": 128, "val_kd": True})
    trainer.add_callback(*short_of_memory(layer=-1))
    trainer.train()
    assert trainer.batch_size == 1
    (row,) = read_rows(trainer.csv)
    assert (row["labeled/images"], row["unlabeled/images"]) == (6, 5)
    sizes = zip(trainer.validator.dataloader, trainer.validator.teacher_batches, strict=True)
    assert all(own["im_file"] == large["im_file"] for own, large in sizes)
