"""Run folders that several processes use, and finished ones that a resumed run would overwrite."""

import shutil
import subprocess
import sys
import threading
from contextlib import contextmanager

import pytest
from training_helpers import interrupted_early, lively_model, no_network, save_checkpoint, short, small_yolo, write_data
from ultralytics.nn.tasks import load_checkpoint

from ds2d2_yolo import DS2D2Trainer
from ds2d2_yolo.cli import main
from ds2d2_yolo.errors import DS2D2Error
from ds2d2_yolo.files import FolderLock
from ds2d2_yolo.training.trainer import PlainTrainer, remove_killed_runs

HOLD = """
import sys
from pathlib import Path
from ds2d2_yolo.files import FolderLock
lock = FolderLock(Path(sys.argv[1]))
print(lock.acquire(wait=False), flush=True)
sys.stdin.read()
lock.release()
"""
COUNT = """
import sys
from pathlib import Path
from ds2d2_yolo.files import FolderLock
count, lock = Path(sys.argv[2]), FolderLock(Path(sys.argv[1]))
for _ in range(25):
    lock.acquire(wait=True)
    count.write_text(str(int(count.read_text()) + 1))
    lock.release()
"""


@contextmanager
def held_elsewhere(folder):
    """Let another process hold the lock of a folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout.readline() == "True\n"
        yield
    finally:
        process.communicate()
        assert process.returncode == 0


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def overrides(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    teacher = save_checkpoint(lively_model(small_yolo(folder, "big", 24)), folder / "teacher.pt")
    data = write_data(folder / "set", train=4, val=2)
    files = {"teacher": str(teacher), "data": str(data), "student": str(small_yolo(folder))}
    return short(**files, epochs=2, im_high=0, save_period=1)


@pytest.fixture(scope="module")
def stopped(overrides, tmp_path_factory):
    """The folder of a run that was interrupted after its first epoch of two."""
    project = tmp_path_factory.mktemp("stopped")
    given = {**overrides, "project": str(project), "name": "run"}
    trainer = DS2D2Trainer(overrides=given, _callbacks=interrupted_early())
    assert [path.name for path in project.glob(".*")] == [".run.lock"]
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    assert list(project.glob(".*")) == []
    return trainer.save_dir


def test_a_lock_keeps_other_processes_out(tmp_path):
    folder = tmp_path / "run"
    lock = FolderLock(folder)
    with held_elsewhere(folder):
        assert not lock.acquire(wait=False)
    assert lock.acquire(wait=False)
    assert FolderLock(folder).acquire(wait=False)  # the process has it already
    FolderLock(folder).release()
    assert [path.name for path in tmp_path.iterdir()] == [".run.lock"]
    lock.release()
    assert list(tmp_path.iterdir()) == []


def test_what_killed_processes_left_is_cleared(tmp_path):
    for name in ("unbegun", f"unbegun-{'x' * 80}", "begun", "elsewhere", "here"):
        (tmp_path / name / "weights").mkdir(parents=True)
        (tmp_path / name / "args.yaml").touch()
        (tmp_path / f".{name}.lock").touch()
    (tmp_path / "begun" / "results.csv").touch()
    (tmp_path / ".gone.lock").touch()
    own = FolderLock(tmp_path / "here")
    assert own.acquire(wait=False)
    with held_elsewhere(tmp_path / "elsewhere"):
        remove_killed_runs(tmp_path)
        assert sorted(path.name for path in tmp_path.iterdir()) == [
            *(".elsewhere.lock", ".here.lock", "begun", "elsewhere", "here")
        ]
    own.release()


def test_processes_that_remove_a_lock_exclude_each_other(tmp_path):
    count = tmp_path / "count"
    count.write_text("0")
    words = [sys.executable, "-c", COUNT, str(tmp_path / "run"), str(count)]
    processes = [subprocess.Popen(words) for _ in range(3)]
    assert [process.wait() for process in processes] == [0, 0, 0]
    assert count.read_text() == "75"
    assert list(tmp_path.iterdir()) == [count]


@pytest.mark.slow
def test_a_second_run_in_a_folder_changes_nothing(overrides, stopped):
    before = contents(stopped)
    place = {"project": str(stopped.parent), "name": "run", "exist_ok": True}
    plain = {name: value for name, value in overrides.items() if name not in {"teacher", "student", "im_high"}}
    with held_elsewhere(stopped), no_network() as asked:
        for start in (
            lambda: DS2D2Trainer(overrides={**overrides, **place}),
            lambda: DS2D2Trainer(overrides={"resume": str(stopped / "weights" / "last.pt")}),
            lambda: PlainTrainer(overrides={**plain, **place, "model": overrides["student"]}),
        ):
            with pytest.raises(DS2D2Error, match=r"run: another process trains here, and nothing was changed"):
                start()
        assert main(["train", f"resume={stopped}/weights/last.pt"]) == 1
    assert contents(stopped) == before
    assert asked == []
    assert list(stopped.parent.glob(".*")) == []


@pytest.mark.slow
def test_a_new_folder_of_another_process_is_left_to_it(overrides, tmp_path):
    folder = tmp_path / "run"
    with held_elsewhere(folder):
        threading.Timer(0.5, folder.mkdir).start()  # it has chosen the folder and makes it now
        trainer = DS2D2Trainer(overrides={**overrides, "project": str(tmp_path), "name": "run"})
    assert (trainer.save_dir.name, list(folder.iterdir())) == ("run-2", [])


@pytest.mark.slow
def test_resuming_overwrites_no_finished_run(stopped, tmp_path):
    run = shutil.copytree(stopped, tmp_path / "run")
    DS2D2Trainer(overrides={"resume": str(run / "weights" / "last.pt")}).train()
    shutil.copy(stopped / "weights" / "epoch0.pt", run / "weights")
    finished = contents(tmp_path)
    for resume, message in (
        ({"resume": str(run / "weights" / "last.pt")}, "this training is finished; start a new one"),
        ({"resume": str(run / "weights" / "epoch0.pt")}, "would overwrite the finished run"),
        ({"resume": str(stopped / "weights" / "last.pt"), "save_dir": str(run)}, "would overwrite the finished run"),
    ):
        with pytest.raises(DS2D2Error, match=message):
            DS2D2Trainer(overrides=resume)
    assert contents(tmp_path) == finished
    again = DS2D2Trainer(
        overrides={"resume": str(run / "weights" / "epoch0.pt"), "save_dir": str(tmp_path / "new")}
    )  # the advice
    again.train()
    assert contents(run) == {path: content for path, content in finished.items() if path.is_relative_to(run)}
    assert load_checkpoint(tmp_path / "new" / "weights" / "last.pt")[1]["epoch"] == -1


@pytest.mark.slow
def test_a_student_killed_after_its_last_epoch_is_a_success(stopped, tmp_path, capsys):
    run = shutil.copytree(stopped, tmp_path / "run")
    trainer = DS2D2Trainer(overrides={"resume": str(run / "weights" / "last.pt")})
    trainer.final_eval = lambda: (_ for _ in ()).throw(KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    assert load_checkpoint(run / "weights" / "last.pt")[1]["epoch"] == 1
    assert main(["train", f"resume={run}/weights/last.pt"]) == 0
    assert "student saved as" in capsys.readouterr().out
    names = {path.name for path in (run / "weights").iterdir()}
    assert names == {"adapters.pt", "best.pt", "epoch0.pt", "epoch1.pt", "last.pt"}
    for name in ("best.pt", "last.pt"):
        model, checkpoint = load_checkpoint(run / "weights" / name)
        assert checkpoint["epoch"] == -1
        assert not hasattr(model, "ds2d2_adapters")
    assert main(["train", f"resume={run}/weights/last.pt"]) == 1  # it is finished now
