"""`teacher_imgsz=`: what both models are given, what is compared, and whole runs."""

import copy

import pytest
import torch
import torch.nn.functional as F
from training_helpers import NAMES, batch_of, lively_model, save_checkpoint, short, small_yolo, tiny_yaml, write_data
from ultralytics.nn.tasks import load_checkpoint
from ultralytics.utils import YAML

from ds2d2_yolo import DS2D2Trainer
from ds2d2_yolo.detectors import Suppression, Taps, build_model, detector_of
from ds2d2_yolo.errors import DS2D2Error
from ds2d2_yolo.evaluation import AGREEMENT
from ds2d2_yolo.method import TERMS, DS2D2Loss, Gains, dense_implicit_terms
from ds2d2_yolo.training.arguments import check_arguments
from ds2d2_yolo.training.autobatch import DistillationStep
from ds2d2_yolo.training.pair import check_pair
from ds2d2_yolo.training.pipeline import plan
from ds2d2_yolo.training.results import read_columns
from ds2d2_yolo.training.step import Distiller
from ds2d2_yolo.training.student import enlarged, reduce_batch

ALL = Gains(0.1, 0.2, 1.0, 1.0, 1.0)
PAIRS = {
    "detect": ("yolov8s.yaml", "yolo26n.yaml"),  # DFL to none, one-to-many to one-to-one
    "obb": ("yolo11s-obb.yaml", "yolo11n-obb.yaml"),
    "segment": ("yolo11n-seg.yaml", "yolo11n-seg.yaml"),
    "pose": ("yolo11n-pose.yaml", "yolo11n-pose.yaml"),
}


def make(names, gains=ALL):
    teacher, student = (detector_of(lively_model(name, seed=seed)) for seed, name in enumerate(names, 1))
    pair = check_pair(teacher, student, 64, teacher_imgsz=128)
    amplifier = copy.deepcopy(teacher.head).eval().requires_grad_(False)
    teacher.freeze_head(amplifier)
    teacher.ratio = pair.ratio
    layers = pair.student_layers, pair.teacher_layers
    loss = DS2D2Loss(pair.maps, gains)
    student.model.train()
    return Distiller(teacher, amplifier, loss, *layers), student


def large_batch(task="detect"):
    batch = batch_of(task=task)
    batch["teacher_img"] = torch.rand(2, 3, 128, 128, generator=torch.Generator().manual_seed(5))
    return batch | {"img": F.avg_pool2d(batch["teacher_img"], 2)}


# ------------------------------------------------------------------------------------------------------- one step


@pytest.mark.parametrize("task", PAIRS)
def test_every_term_reaches_the_student(task):
    distiller, student = make(PAIRS[task])
    batch = large_batch(task)
    plain, _ = student.model({name: x for name, x in batch.items() if name != "teacher_img"})
    distiller.begin_step(student, batch)
    assert "teacher_img" not in batch  # the memory is free for the student's pass
    loss, items = student.model(batch)
    torch.testing.assert_close(loss[: len(plain)], plain)
    assert [name for name in TERMS if f"{name}_loss" in items] == list(TERMS)
    parameters = [p for p in student.model.parameters() if p.requires_grad]
    for term in loss[-5:]:
        assert torch.isfinite(term)
        gradients = torch.autograd.grad(term, parameters, retain_graph=True, allow_unused=True)
        assert any(g is not None and g.any() for g in gradients)
    assert not distiller.warnings._reported


def test_the_response_is_to_the_surest_prediction_in_each_cell():
    distiller, student = make(PAIRS["detect"], Gains(response=1.0))
    batch = large_batch()
    images = batch["teacher_img"]
    distiller.begin_step(student, batch)
    taps = Taps()
    taps.open({"head": student.head, **student.assignment_modules()})
    loss, _ = student.model(batch)
    outputs = taps.close()
    own = student.decode(student.head, outputs["head"])
    given = distiller.run_teacher(images)
    assignment = student.assignment(outputs)
    guide = distiller.teacher.predictions_of(given.raw, given.head_maps, assignment)
    assert guide.logits.shape == own.logits.shape
    expected = torch.stack(dense_implicit_terms(own, guide, assignment.avg_factor)).sum()
    torch.testing.assert_close(loss[-1], expected * student.loss_factor(2))
    gradients = torch.autograd.grad(loss[-1], [branch[-1].weight for branch in student.head.cv2])
    assert all(gradient.any() for gradient in gradients)


def test_feature_terms_compare_with_means_of_the_teachers_cells():
    distiller, _ = make(PAIRS["detect"], Gains(ex_low=1.0))
    batch = large_batch()
    given = distiller.run_teacher(batch["teacher_img"])
    for index, (found, whole) in enumerate(zip(given.maps, given.head_maps, strict=True)):
        assert found.shape[2:] == (8 // 2**index, 8 // 2**index)
        torch.testing.assert_close(found, F.avg_pool2d(whole, 2))
    heights = [grid.shape[2] for grid in distiller.confidence(given)]
    assert heights == [8, 4, 2]


def test_detections_are_in_pixels_of_the_students_images():
    distiller, _ = make(PAIRS["obb"])
    outputs = distiller.run_teacher(torch.rand(1, 3, 128, 128))
    own = distiller.teacher.detections_of(outputs.raw, outputs.head_maps, Suppression(0.1))[0]
    found = distiller.detections(outputs, Suppression(0.1))[0]
    assert len(own) > 0
    torch.testing.assert_close(found[:, :4], own[:, :4] / 2)
    torch.testing.assert_close(found[:, 4:], own[:, 4:])


def test_autobatch_counts_the_teachers_larger_images():
    distiller, student = make(PAIRS["detect"])
    sizes = []
    handle = distiller.teacher.model.register_forward_pre_hook(lambda _, inputs: sizes.append(inputs[0].shape))
    value = DistillationStep(student.model, distiller)(torch.rand(2, 3, 64, 64))
    handle.remove()
    assert torch.isfinite(value).all()
    assert sizes == [(2, 3, 128, 128)]


def test_images_are_means_of_pixels_and_masks_keep_numbers():
    large = torch.rand(2, 3, 8, 8)
    masks = torch.arange(2).view(2, 1, 1).expand(2, 4, 4)
    batch = {"img": None, "masks": masks, "bboxes": torch.rand(3, 4)}
    boxes = batch["bboxes"].clone()
    reduce_batch(batch, large, 2)
    expected = (large[..., ::2, ::2] + large[..., ::2, 1::2] + large[..., 1::2, ::2] + large[..., 1::2, 1::2]) / 4
    torch.testing.assert_close(batch["img"], expected)
    assert torch.equal(batch["masks"], masks[..., :2, :2])
    assert torch.equal(batch["bboxes"], boxes)
    assert enlarged(large, batch["img"], 2) is large
    assert enlarged(large, torch.rand(2, 3, 6, 6), 2).shape == (2, 3, 12, 12)


def test_without_a_term_nothing_is_loaded_larger():
    given = {"teacher": "t.pt", "student": "s.pt", "imgsz": 64, "teacher_imgsz": 128}
    off = dict.fromkeys(TERMS, 0)
    assert check_arguments(given).size_ratio == 2
    assert check_arguments({**given, **off}).size_ratio == 1
    assert check_arguments({**given, "teacher_imgsz": None}).teacher_size == 64


# ------------------------------------------------------------------------------------------------------ whole runs


@pytest.fixture(scope="module", params=["detect", "obb"])
def trained(request, tmp_path_factory):
    """A student whose teacher, untrained at first, has twice its size; and the batches that both were given."""
    folder = tmp_path_factory.mktemp(request.param)
    task = request.param
    data = write_data(folder / "set", train=8, val=5, size=160, task=task)
    models = small_yolo(folder, "big", 32, task), small_yolo(folder, "small", task=task)
    given = {"teacher": str(models[0]), "student": str(models[1]), "data": str(data), "project": str(folder / "runs")}
    given |= short(epochs=2, teacher_imgsz=128, val_kd=True, multi_scale=0.5, name="student", seed=1)
    trainer = DS2D2Trainer(overrides=given)
    sizes = []
    trainer.add_callback(
        "on_train_batch_start", lambda trainer: sizes.append([trainer.train_loader.dataset.imgsz, trainer.args.imgsz])
    )
    passes = []
    trainer.add_callback("on_train_start", lambda trainer: note_sizes(trainer, passes))
    trainer.train()
    return trainer, sizes, passes, given


def note_sizes(trainer, passes):
    models = {"teacher": trainer.distiller.teacher.model, "student": trainer.model}
    for role, model in models.items():
        model.register_forward_pre_hook(lambda _, inputs, role=role: passes.append((role, shape_of(inputs[0]))))


def shape_of(given):
    return tuple((given["img"] if isinstance(given, dict) else given).shape[2:])


def test_a_run_trains_its_stages_and_teacher_at_the_larger_size(trained):
    trainer, sizes, _, _ = trained
    assert all(size == [128, 64] for size in sizes)
    folders = {path.name.split("-")[0]: path for path in trainer.save_dir.parent.iterdir() if path.is_dir()}
    for stage in ("teacher", "amplifier"):
        assert YAML.load(folders[stage] / "args.yaml")["imgsz"] == 128
    args = YAML.load(trainer.save_dir / "args.yaml")
    assert (args["imgsz"], args["teacher_imgsz"]) == (64, 128)
    assert load_checkpoint(trainer.best)[0].args["imgsz"] == 64
    assert trainer.test_loader.dataset.imgsz == 64


def test_the_teacher_is_given_twice_the_pixels_at_every_scale(trained):
    _, _, passes, _ = trained
    sides = {shape for role, shape in passes if role == "student"}
    assert sides != {(64, 64)}  # multi_scale
    assert {(2 * h, 2 * w) for h, w in sides} <= {shape for role, shape in passes if role == "teacher"}
    steps = [entry for entry in passes if entry[0] == "student"]
    for index, (role, shape) in enumerate(passes):
        if role == "student":
            assert passes[index - 1] == ("teacher", (2 * shape[0], 2 * shape[1]))
    assert len(steps) == 4


def test_validation_compares_what_both_find_at_their_sizes(trained):
    trainer, _, _, _ = trained
    table = read_columns(trainer.csv)
    for name in TERMS:
        assert all(value >= 0 for value in table[f"val/{name}_loss"])
    assert any(value > 0 for name in TERMS for value in table[f"val/{name}_loss"])
    for name in AGREEMENT:
        assert all(0 <= value <= 1 for value in table[name])
    pairs = list(zip(trainer.validator.dataloader, trainer.validator.teacher_batches, strict=True))
    assert pairs
    for own, large in pairs:
        assert own["im_file"] == large["im_file"]
        assert [2 * side for side in own["img"].shape[2:]] == list(large["img"].shape[2:])
        reduced = F.avg_pool2d(large["img"].float(), 2)
        assert (reduced - own["img"].float()).abs().mean() < 16  # of 255, in noise; images apart differ by 60


def test_the_summary_says_what_is_compared(trained):
    *_, given = trained
    lines = plan({**given, "name": "again"}).summary()
    assert any("loaded at 128 pixels for the teacher, reduced to 64 for the student" in line for line in lines)
    assert sum("explicit, implicit" in line for line in lines) == 3


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["segment", "pose", "RetinaNet", "FasterRCNN"])
def test_other_tasks_and_families_learn_from_larger_images(kind, tmp_path):
    task = kind if kind in {"segment", "pose"} else "detect"
    data = write_data(tmp_path / "set", train=4, val=2, size=128, task=task)
    given = short(teacher_imgsz=128, amplifier="none", pretrained=False, project=str(tmp_path / "runs"))
    if task == "detect":
        student = tiny_yaml(tmp_path, kind)
        model = build_model(tiny_yaml(tmp_path, kind, "big"), nc=2)
        model.names = dict(NAMES)
        teacher = save_checkpoint(model, tmp_path / "teacher.pt")
    else:
        student = small_yolo(tmp_path, task=task)
        teacher = save_checkpoint(lively_model(small_yolo(tmp_path, "big", 32, task)), tmp_path / "teacher.pt")
    trainer = DS2D2Trainer(
        overrides={**given, "val_kd": True, "teacher": str(teacher), "student": str(student), "data": str(data)}
    )
    trainer.train()
    terms = [name for name in TERMS if f"train/{name}_loss" in read_columns(trainer.csv)]
    assert terms == ["ex_low", "ex_high", "im_full", "response"]
    assert trainer.pair.ratio == 2
    assert not list((tmp_path / "runs").glob("amplifier*"))


@pytest.mark.parametrize("goal", ["student", "amplifier", "teacher"])
def test_a_size_that_is_no_multiple_fails_before_training(goal, tmp_path):
    data = write_data(tmp_path / "set", train=2, val=1)
    model = save_checkpoint(lively_model(small_yolo(tmp_path)), tmp_path / "teacher.pt")
    own = {"student": {"student": str(tmp_path / "small.yaml")}, "amplifier": {}, "teacher": {"teacher_epochs": 1}}
    given = {"teacher": str(model), "data": str(data), **own[goal]}
    with pytest.raises(DS2D2Error, match=r"teacher_imgsz=96: is 1\.5 times imgsz=64"):
        plan({**given, **short(teacher_imgsz=96, project=str(tmp_path / "runs"))}, goal)
    assert not (tmp_path / "runs").exists()
