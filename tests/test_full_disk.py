"""Full disks: every mode prints one line about the file that it could not write, and leaves no incomplete files."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from training_helpers import lively_model, save_checkpoint, short, small_yolo, write_data

from ds2d2_yolo import DS2D2Trainer, evaluate
from ds2d2_yolo.cli import main
from ds2d2_yolo.errors import DS2D2Error, FullDiskError
from ds2d2_yolo.files import report_full_disk, write_json

FULL = Path("/dev/full")
needs_full = pytest.mark.skipif(not FULL.exists(), reason="no /dev/full here")


def refuse(path, *arguments, **named):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """Data set, teacher and student."""
    folder = tmp_path_factory.mktemp("given")
    data = write_data(folder / "set", train=4, val=2)
    teacher = save_checkpoint(lively_model(small_yolo(folder, "big", 24)), folder / "teacher.pt")
    return {"data": str(data), "teacher": str(teacher), "student": str(small_yolo(folder))}


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_is_one_line_that_names_the_file(number, tmp_path):
    file = tmp_path / "weights" / ".partial" / "last.pt"

    def write(place):
        raise OSError(number, os.strerror(number))

    with pytest.raises(FullDiskError) as error, report_full_disk(advice=lambda: "best.pt is whole"):
        write(file)
    text = str(error.value)
    assert text.startswith(f"{tmp_path / 'weights' / 'last.pt'}: could not be written ({os.strerror(number).lower()}, ")
    assert text.endswith(" MiB free); best.pt is whole")


def test_other_errors_stay_as_they_are(tmp_path):
    for error in (PermissionError(errno.EACCES, "no"), RuntimeError("shapes differ"), DS2D2Error("imgsz=1")):
        with pytest.raises(type(error)) as raised, report_full_disk(tmp_path / "new"):
            raise error
        assert raised.value is error


@needs_full
@pytest.mark.parametrize("save", [torch.save, lambda x, path: np.save(path.open("wb"), x.numpy())])
def test_errors_of_torch_and_numpy_are_recognised(save):
    def write(path):
        save(torch.zeros(100_000), path)

    with pytest.raises(FullDiskError, match=r"^/dev/full: could not be written"), report_full_disk():
        write(FULL)


def test_a_folder_that_was_made_is_removed_others_stay(tmp_path):
    def fill(folder):
        folder.mkdir(exist_ok=True)
        refuse(folder)

    (tmp_path / "old").mkdir()
    for name in ("old", "new"):
        with pytest.raises(FullDiskError), report_full_disk(tmp_path / name):
            fill(tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["old"]


def test_a_copy_names_what_it_was_copied_to(tmp_path):
    with pytest.raises(FullDiskError, match=r"/new: could not be written"), report_full_disk():
        raise OSError(errno.ENOSPC, "No space left", str(tmp_path / "old"), None, str(tmp_path / "new"))


@pytest.mark.skipif(os.name == "nt", reason="limits of processes are POSIX'")
def test_a_limit_of_file_sizes_leaves_no_part_of_a_file(tmp_path):
    import resource
    import signal

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
        with (
            pytest.raises(FullDiskError, match=r"check\.json: could not be written \(file too large"),
            report_full_disk(),
        ):
            write_json(tmp_path / "check.json", list(range(1000)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)
    assert list(tmp_path.iterdir()) == []


@needs_full
def test_standard_output_can_be_full(monkeypatch, capsys):
    with FULL.open("w") as output:
        monkeypatch.setattr("sys.stdout", output)
        assert main(["version"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "could not be written (no space left on device" in line


def test_check_leaves_nothing_on_a_full_disk(given, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(Path, "write_text", refuse)
    out = tmp_path / "out"
    assert main(["check", f"data={given['data']}", "imgsz=64", f"out={out}"]) == 1
    *_, line = capsys.readouterr().err.splitlines()  # after the progress
    assert line.startswith(f"ds2d2: error: {out}/check.json: could not be written (no space left on device, ")
    assert line.endswith("make room, then run the same command again")
    assert not out.exists()


@pytest.mark.slow
def test_val_leaves_nothing_on_a_full_disk(given, tmp_path, monkeypatch):
    open_file = Path.open

    def open_some(path, *arguments, **named):
        return (refuse if path.name == "ground_truth.json" else open_file)(path, *arguments, **named)

    monkeypatch.setattr(Path, "open", open_some)
    with pytest.raises(FullDiskError, match=r"val/ground_truth\.json: could not be written"):
        evaluate(given["teacher"], given["data"], imgsz=64, device="cpu", plots=False, save_dir=str(tmp_path / "val"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_training_says_what_is_whole_and_how_to_go_on(given, tmp_path, monkeypatch):
    write, place = Path.write_bytes, {"project": str(tmp_path), "name": "run"}
    overrides = short(**given, **place, im_high=0, epochs=2)

    def start(room):
        """Train with room for so many checkpoints. Each epoch saves two."""
        left = [room]

        def write_some(path, data):
            left[0] -= 1
            return refuse(path) if left[0] < 0 else write(path, data)

        monkeypatch.setattr(Path, "write_bytes", write_some)
        with pytest.raises(FullDiskError, match=r"last\.pt: could not be written \(no space.* need about \d") as error:
            DS2D2Trainer(overrides=overrides).train()
        monkeypatch.setattr(Path, "write_bytes", write)
        return str(error.value)

    assert start(room=0).endswith("nothing was saved yet: make room, then run the same command again")
    assert list(tmp_path.iterdir()) == []
    last = tmp_path / "run" / "weights" / "last.pt"
    assert start(room=2).endswith(f"{last} is intact: make room, then 'ds2d2 train resume={last}'")
    assert sorted(path.name for path in last.parent.iterdir()) == ["best.pt", "last.pt", "state0.pt"]
    assert main(["train", f"resume={last}"]) == 0
    assert len((tmp_path / "run" / "results.csv").read_text().splitlines()) == 3
