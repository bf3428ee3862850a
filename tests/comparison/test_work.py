"""The work of a job: equal starts, records, and interrupted runs."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from training_helpers import lively_model, save_checkpoint, short, short_of_memory, write_data
from ultralytics.data.utils import check_det_dataset
from ultralytics.nn.tasks import DetectionModel, load_checkpoint
from ultralytics.utils.callbacks import get_default_callbacks
from ultralytics.utils.torch_utils import unwrap_model

from ds2d2_yolo import DS2D2Trainer
from ds2d2_yolo.comparison.work import _note_start, execute
from ds2d2_yolo.errors import DS2D2Error
from ds2d2_yolo.loading.fingerprint import fingerprint_of_data
from ds2d2_yolo.training.trainer import PlainTrainer

SHORT = short(epochs=2)
KINDS = ("none", "ultralytics", "ds2d2")


@pytest.fixture
def job_of(models, teacher, amplifier, data, tmp_path):
    """Return the job of one run."""

    def build(distil, name="run", **changes):
        arguments = {**SHORT, "model": str(models[1]), "data": str(data), "seed": 3, **changes}
        if distil == "ultralytics":
            arguments["distill_model"] = str(teacher)
        if distil == "ds2d2":
            arguments |= {"teacher": str(teacher), "amplifier": str(amplifier)}
        inputs = {"name": name, "data": fingerprint_of_data(check_det_dataset(arguments["data"]), "val")}
        files = {"folder": str(tmp_path / name), "record": str(tmp_path / f"{name}.json")}
        more = {"method": distil, "seed": 3, "distil": distil, "arguments": arguments, "inputs": inputs}
        return {"kind": "run", "title": name, **files, **more}

    return build


def record_of(job):
    return json.loads(Path(job["record"]).read_text())


def student_of(trainer):
    model = unwrap_model(trainer.model)
    return getattr(model, "student_model", model)


@pytest.mark.slow
def test_methods_share_batches_and_initial_weights(job_of):
    runs = {}
    for distil in KINDS:
        starts, batches = [], []

        def watch(trainer, starts=starts, batches=batches):
            starts.append({key: value.clone() for key, value in student_of(trainer).state_dict().items()})
            prepare = trainer.preprocess_batch

            def note(batch):
                batches.append((batch["im_file"], batch["img"].clone(), batch["bboxes"].clone()))
                return prepare(batch)

            trainer.preprocess_batch = note

        callbacks = get_default_callbacks()
        callbacks["on_train_start"].append(watch)
        execute(job_of(distil, distil), DS2D2Trainer, callbacks)
        runs[distil] = starts[0], batches
    (weights, batches), *others = runs.values()
    assert len(batches) == 4  # two epochs of eight images
    assert not torch.equal(batches[0][1], batches[2][1])  # shuffled and augmented: so equality is meaningful
    for other_weights, other_batches in others:
        for key, value in weights.items():
            # Ultralytics' own distillation passes an empty image through it, which is counted
            assert key.endswith("num_batches_tracked") or torch.equal(value, other_weights[key])
        for (files, images, boxes), (other_files, other_images, other_boxes) in zip(
            batches, other_batches, strict=True
        ):
            assert files == other_files
            assert torch.equal(images, other_images)
            assert torch.equal(boxes, other_boxes)


@pytest.mark.slow
@pytest.mark.parametrize("distil", KINDS)
def test_an_interrupted_run_continues_where_it_was(distil, job_of):
    def weights_of(trainer):
        return {n: value.detach().clone() for n, value in unwrap_model(trainer.model).named_parameters()}

    def stop(trainer):
        if trainer.epoch == 1:
            left.update(weights_of(trainer))
            raise KeyboardInterrupt

    starts, left = [], {}
    job = job_of(distil, epochs=4)
    for event in ("on_train_epoch_start", "on_fit_epoch_end"):  # before an epoch is saved, and after
        callbacks = get_default_callbacks()
        callbacks[event].append(stop)
        with pytest.raises(KeyboardInterrupt):
            execute(job, DS2D2Trainer, callbacks)
        assert not Path(job["record"]).exists()
    callbacks = get_default_callbacks()

    def note(trainer):
        starts.append((trainer.start_epoch, weights_of(trainer)))
        moments = [state["momentum_buffer"] for state in trainer.optimizer.state.values()]
        starts.append(sum(float(moment.abs().sum()) for moment in moments))

    callbacks["on_train_start"].append(note)
    execute(job, DS2D2Trainer, callbacks)
    (start, weights), momentum = starts
    assert start == 2
    assert momentum > 0  # the optimiser continues, it does not start again
    assert {"none": False, "ultralytics": True, "ds2d2": True}[distil] == any(
        "projector" in name or "adapters" in name for name in weights
    )
    assert weights.keys() == left.keys()
    for name, value in left.items():
        assert torch.equal(weights[name], value), name
    record = record_of(job)
    assert [epoch["epoch"] for epoch in record["curve"]] == [1, 2, 3, 4]
    times = [epoch["seconds"] for epoch in record["curve"]]
    assert times == sorted(times)
    assert record["continued_after"] == [1, 2]
    model, checkpoint = load_checkpoint(record["weights"])
    assert type(model) is DetectionModel
    assert checkpoint["epoch"] == -1
    modified = Path(job["record"]).stat().st_mtime_ns
    execute(job, DS2D2Trainer)
    assert Path(job["record"]).stat().st_mtime_ns == modified


@pytest.mark.slow
@pytest.mark.parametrize("distil", KINDS)
def test_a_run_killed_after_its_last_epoch_is_completed(distil, job_of):
    def kill(trainer):
        raise KeyboardInterrupt

    job = job_of(distil, epochs=1)
    callbacks = get_default_callbacks()
    callbacks["on_fit_epoch_end"].append(kill)
    with pytest.raises(KeyboardInterrupt):
        execute(job, DS2D2Trainer, callbacks)
    execute(job, DS2D2Trainer)
    record = record_of(job)
    assert len(record["curve"]) == 1
    assert record["peak_bytes"] is None
    model, checkpoint = load_checkpoint(record["weights"])
    assert type(model) is DetectionModel
    assert not hasattr(model, "ds2d2_adapters")
    assert checkpoint["optimizer"] is None


@pytest.mark.slow
@pytest.mark.parametrize(
    ("event", "message"),
    [
        ("before", "since the comparison began"),
        ("on_pretrain_routine_start", "since the comparison began"),
        ("on_train_epoch_end", "during training of the run"),
    ],
)
def test_results_of_changed_data_are_not_recorded(event, message, job_of, tmp_path):
    path = write_data(tmp_path / "set", train=2, val=2)
    job = job_of("none", data=str(path), epochs=1)
    label = tmp_path / "set" / "labels" / "val" / "0.txt"
    before, starts, callbacks = label.read_text(), [], get_default_callbacks()

    def change(*_):
        label.write_text("1 0.5 0.5 0.2 0.2\n")

    callbacks["on_train_epoch_start"].append(lambda trainer: starts.append(trainer.epoch))
    callbacks.get(event, []).append(change)
    if event == "before":
        change()
    with pytest.raises(DS2D2Error, match=f"images or labels changed {message}"):
        execute(job, DS2D2Trainer, callbacks)
    assert len(starts) == (event == "on_train_epoch_end")  # an epoch is trained only if the change comes that late
    assert not Path(job["record"]).exists()
    label.write_text(before)
    execute(job, DS2D2Trainer)
    assert len(record_of(job)["curve"]) == 1
    kept = tmp_path / "run" / "weights-changed-data-1" / "best.pt"
    assert kept.is_file() is (event == "on_train_epoch_end")


@pytest.mark.slow
def test_a_damaged_checkpoint_starts_the_run_over(job_of):
    job = job_of("none", epochs=1)
    weights = Path(job["folder"]) / "weights"
    weights.mkdir(parents=True)
    (weights / "last.pt").write_bytes(b"cut short")
    (Path(job["folder"]) / "starts.txt").write_text("0\n1\n")
    execute(job, DS2D2Trainer)
    assert record_of(job)["continued_after"] == []


@pytest.mark.slow
def test_a_batch_halved_for_lack_of_memory_is_an_error(job_of):
    callbacks, (event, callback) = get_default_callbacks(), short_of_memory(layer=4)
    callbacks[event].append(callback)
    with pytest.raises(DS2D2Error, match=r"out of memory: Ultralytics reduced the batch to 2.*pass batch=2"):
        execute(job_of("none"), DS2D2Trainer, callbacks)


@pytest.mark.parametrize("task", ["detect", "obb"])
def test_the_batch_of_the_evaluation_is_that_of_a_validation(task, tmp_path):
    data = write_data(tmp_path / "set", train=4, val=6, task=task)
    name = {"detect": "yolo11n.yaml", "obb": "yolo11n-obb.yaml"}[task]
    arguments = short(model=str(save_checkpoint(lively_model(name), tmp_path / "model.pt")), data=str(data), batch=2)
    trainer = PlainTrainer(overrides={**arguments, "project": str(tmp_path / "runs")})
    trainer._setup_train()
    inputs = {"data": fingerprint_of_data(check_det_dataset(arguments["data"]), "val")}
    job = {"kind": "evaluation", "title": "teacher", "folder": str(tmp_path / "teacher"), "inputs": inputs}
    execute({**job, "record": str(tmp_path / "teacher.json"), "arguments": arguments}, DS2D2Trainer)
    evaluation = json.loads((tmp_path / "teacher" / "coco" / "coco.json").read_text())
    assert evaluation["settings"]["batch"] == trainer.test_loader.batch_size


def test_only_the_chosen_classes_are_evaluated(teacher, data, tmp_path):
    inputs = {"data": fingerprint_of_data(check_det_dataset(str(data)), "val")}
    arguments = short(model=str(teacher), data=str(data), classes=[0])
    job = {"kind": "evaluation", "title": "teacher", "folder": str(tmp_path / "teacher"), "inputs": inputs}
    execute({**job, "record": str(tmp_path / "teacher.json"), "arguments": arguments}, DS2D2Trainer)
    evaluation = json.loads((tmp_path / "teacher" / "coco" / "coco.json").read_text())
    assert (evaluation["images"], evaluation["objects"]) == (4, 4)  # of 8 objects


def test_a_start_is_noted_once_for_all_processes(tmp_path, monkeypatch):
    for rank in (0, 1):
        monkeypatch.setattr("ds2d2_yolo.comparison.work.RANK", rank)
        _note_start(tmp_path / "starts.txt", SimpleNamespace(start_epoch=5))
    assert (tmp_path / "starts.txt").read_text() == "5\n"
