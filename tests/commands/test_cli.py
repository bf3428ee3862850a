"""The command line: its syntax, and one clear line for every mistake."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from training_helpers import lively_model, save_checkpoint, write_data
from ultralytics.nn.tasks import ClassificationModel, SegmentationModel, load_checkpoint

from ds2d2_yolo import __version__
from ds2d2_yolo.cli import main
from ds2d2_yolo.commands.words import parse_arguments
from ds2d2_yolo.errors import DS2D2Error
from ds2d2_yolo.loading.fingerprint import fingerprint_of_model
from ds2d2_yolo.loading.models import load_model


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Good and bad files to make mistakes with, by name."""
    folder = tmp_path_factory.mktemp("files")
    data = write_data(folder / "set", train=2, val=2)
    teacher = lively_model("yolov8s.yaml")
    found = {"folder": folder, "data": data, "teacher": save_checkpoint(teacher, folder / "teacher.pt")}
    other = lively_model("yolov8s.yaml")
    other.names = {0: "ship", 1: "airplane"}
    found["other_names"] = save_checkpoint(other, folder / "other_names.pt")
    found["more_classes"] = save_checkpoint(lively_model("yolov8n.yaml", classes=3), folder / "more_classes.pt")
    found["p6"] = save_checkpoint(lively_model("yolov8n-p6.yaml"), folder / "p6.pt")
    found["segment"] = save_checkpoint(
        SegmentationModel("yolo11n-seg.yaml", nc=2, verbose=False), folder / "segment.pt"
    )
    found["classify"] = save_checkpoint(ClassificationModel("yolo11n-cls.yaml", nc=2), folder / "classify.pt")
    found["fused"] = save_checkpoint(lively_model("yolov8n.yaml").eval().fuse(verbose=False), folder / "fused.pt")
    found["garbage"] = folder / "garbage.pt"
    found["garbage"].write_bytes(b"not a checkpoint")
    found["truncated"] = folder / "truncated.pt"
    found["truncated"].write_bytes(found["teacher"].read_bytes()[:100_000])
    found["empty"] = folder / "empty.pt"
    found["empty"].write_bytes(b"")
    found["tensors"] = folder / "tensors.pt"
    torch.save({"a": torch.zeros(1)}, found["tensors"])
    found["onnx"] = folder / "teacher.onnx"
    found["onnx"].write_bytes(b"onnx")
    for name, text in {
        "not_yaml": "path: [unclosed",
        "no_names": f"path: {data.parent}\ntrain: images/train\nval: images/val\n",
        "no_val": f"path: {data.parent}\ntrain: images/train\nnames: [ship, vehicle]\n",
        "missing_images": f"path: {data.parent}\ntrain: images/train\nval: images/nowhere\nnames: [ship, vehicle]\n",
        "empty_train": f"path: {data.parent}\ntrain: nothing\nval: images/val\nnames: [ship, vehicle]\n",
        "empty_val": f"path: {data.parent}\ntrain: images/train\nval: nothing\nnames: [ship, vehicle]\n",
        "empty_labels": f"path: {folder / 'blank'}\ntrain: images/train\nval: images/train\nnames: [ship, vehicle]\n",
        "no_labels": f"path: {folder / 'bare'}\ntrain: images/train\nval: images/train\nnames: [ship, vehicle]\n",
        "grey": f"path: {data.parent}\ntrain: images/train\nval: images/val\nnames: [ship, vehicle]\nchannels: 1\n",
        "twice": f"path: {data.parent}\ntrain: images/train\nval: images/val\nnames: [ship, ship]\n",
        "a_list": "- ship\n- vehicle\n",
        "a_model": "nc: 2\nbackbone: [[-1, 1, NoSuchModule, [1]]]\nhead: []\n",
        "settings": "epochs: 3\nim_full: 4\n",
    }.items():
        found[name] = folder / f"{name}.yaml"
        found[name].write_text(text)
    (data.parent / "nothing").mkdir()
    for name in ("bare", "blank"):
        images = folder / name / "images" / "train"
        images.mkdir(parents=True)
        (images / "0.png").write_bytes((data.parent / "images" / "train" / "0.png").read_bytes())
    (folder / "blank" / "labels" / "train").mkdir(parents=True)
    (folder / "blank" / "labels" / "train" / "0.txt").write_text("")
    found["amplifier"] = folder / "amplifier.pt"
    content = {
        "format": "ds2d2-amplifier",
        "version": 1,
        "teacher": "0" * 64,
        "wavelet": "haar",
        "head": {},
        "metrics": {},
    }
    torch.save(content, found["amplifier"])
    found["damaged"] = folder / "damaged.pt"
    torch.save({"format": "ds2d2-amplifier"}, found["damaged"])
    found["wrong_head"] = folder / "wrong_head.pt"
    torch.save(content | {"teacher": fingerprint_of_model(load_checkpoint(found["teacher"])[0])}, found["wrong_head"])
    stage = lively_model("yolov8n.yaml")
    stage.ds2d2_teacher = "0" * 64
    found["amplifier_stage"] = save_checkpoint(stage, folder / "amplifier_stage.pt")
    found["unfinished"] = folder / "unfinished.pt"
    torch.save(torch.load(found["teacher"], weights_only=False) | {"epoch": 0}, found["unfinished"])
    found["file"] = folder / "a_file"
    found["file"].write_text("")
    return found


# Good arguments. Each mistake changes some of them; None removes one.
GOOD = {
    "teacher": "{teacher}",
    "student": "yolo11n.yaml",
    "data": "{data}",
    "imgsz": "64",
    "epochs": "1",
    "device": "cpu",
}
MISTAKES = [
    ({"teacher": None}, 2, "teacher= is missing"),
    ({"student": None}, 2, "student= is missing"),
    ({"data": None}, 2, "data= is missing"),
    ({"teacher": "{folder}/missing.pt"}, 1, "missing.pt: no such file"),
    ({"student": "{folder}/missing.pt"}, 1, "missing.pt: no such file"),
    (
        {"teacher": "missing.yaml"},
        1,
        "teacher=missing.yaml: no model can be built from it, 'missing.yaml' does not exist",
    ),
    ({"teacher": "{garbage}"}, 1, "garbage.pt: cannot be loaded"),
    ({"teacher": "{truncated}"}, 1, "truncated.pt: cannot be loaded"),
    ({"teacher": "{empty}"}, 1, "empty.pt: cannot be loaded"),
    ({"teacher": "{tensors}"}, 1, "tensors.pt: cannot be loaded"),
    ({"teacher": "{folder}"}, 1, "expected a .pt or a model .yaml"),
    ({"teacher": "yolo11s"}, 1, "expected a .pt or a model .yaml"),
    ({"teacher": "{onnx}"}, 1, "exported models without layers to tap"),
    ({"teacher": "{fused}"}, 1, "is fused for inference"),
    ({"teacher": "{segment}"}, 1, "student yolo11n for task=detect; pass a student for task=segment"),
    ({"teacher": "{classify}"}, 1, "a ClassificationModel with a Classify head cannot be distilled"),
    ({"teacher": "rtdetr-l.yaml"}, 1, "run 'yolo train model=rtdetr-l.yaml data="),
    ({"teacher": "yolo11n-obb.yaml"}, 1, "teacher yolo11n-obb is for task=obb, student yolo11n for task=detect"),
    ({"student": "yolo11n-pose.yaml"}, 1, "teacher yolov8s is for task=detect, student yolo11n-pose for task=pose"),
    ({"teacher": "{a_model}"}, 1, "no model can be built from it"),
    ({"teacher": "3"}, 2, "teacher=3: expected the path of a file"),
    (
        {"teacher": "{more_classes}", "teacher_epochs": "0"},
        1,
        "has 3 classes, the data set has 2; leave teacher_epochs= out",
    ),
    ({"teacher": "{other_names}"}, 1, "class 1 is 'airplane', in the data set 'vehicle'"),
    ({"teacher": "{p6}", "imgsz": "128"}, 1, "has 4 levels, student yolo11n has 3"),
    ({"teacher": "yolov8n-p2.yaml", "student": "yolov8n-p6.yaml", "imgsz": "128"}, 1, "stride 8, layer 18 of teacher"),
    ({"imgsz": "100"}, 1, "imgsz=100: yolo11n needs a multiple of 32, at least 64; pass imgsz=96"),
    ({"imgsz": "32"}, 1, "imgsz=32: yolo11n needs a multiple of 32, at least 64; pass imgsz=64"),
    ({"imgsz": "[64,96]"}, 1, "imgsz=[64, 96]: expected one number; pass imgsz=640"),
    ({"epoch": "3"}, 2, "epoch=3: no such argument, did you mean epochs"),
    ({"techer": "x.pt"}, 2, "techer=x.pt: no such argument, did you mean teacher"),
    ({"zzzzzz": "1"}, 2, "zzzzzz=1: no such argument, see 'ds2d2 cfg'"),
    ({"epochs": "many"}, 2, "'epochs=many' is of invalid type str"),
    ({"epochs": "0"}, 2, "'epochs=0' is an invalid value"),
    ({"lr0": "3"}, 2, "'lr0=3' is an invalid value"),
    ({"ex_low": "-1"}, 2, "ex_low=-1: expected a number of at least 0"),
    ({"im_full": "much"}, 2, "im_full=much: expected a number of at least 0"),
    ({"im_full": "True"}, 2, "im_full=True: expected a number of at least 0"),
    ({"im_high": "1e999"}, 2, "im_high=inf: expected a number"),
    ({"teacher_epochs": "-1"}, 2, "teacher_epochs=-1: expected a whole number of at least 0"),
    ({"amplifier_epochs": "1.5"}, 2, "amplifier_epochs=1.5: expected a whole number of at least 1"),
    ({"wavelet": "harr"}, 2, "wavelet=harr: no such discrete wavelet, did you mean haar"),
    ({"wavelet": "bior2.2"}, 2, "wavelet=bior2.2: not orthogonal"),
    ({"wavelet": "7"}, 2, "wavelet=7: no such discrete wavelet"),
    ({"layers": "16"}, 2, "layers=16: expected layer numbers"),
    ({"layers": "[[16],[15,18]]"}, 2, "expected layer numbers"),
    ({"layers": "[16,99]"}, 1, "layers=: yolo11n has layers 0 to 23, not 99"),
    ({"layers": "[[16],[22]]"}, 1, "layer 22 of yolov8s returns no feature map"),
    ({"layers": "[[16],[18]]"}, 1, "yolo11n has stride 8, layer 18 of teacher yolov8s has stride 16"),
    ({"data": "missing.yaml"}, 1, "data=missing.yaml: no such file; pass a data YAML"),
    ({"data": "{not_yaml}"}, 1, "not_yaml.yaml:"),
    ({"data": "{a_list}"}, 1, "a_list.yaml:"),
    ({"data": "{twice}"}, 1, "twice.yaml: the class name 'ship' occurs twice"),
    ({"data": "{no_names}"}, 1, "the line 'names:' is missing"),
    ({"data": "{no_val}"}, 1, "the line 'val:' is missing"),
    ({"data": "{missing_images}"}, 1, "'val: images/nowhere' is {folder}/set/images/nowhere, which does not exist"),
    ({"data": "{empty_train}"}, 1, "the training set {folder}/set/nothing has no images"),
    ({"data": "{empty_val}"}, 1, "the validation set {folder}/set/nothing has no images"),
    ({"data": "{no_labels}"}, 1, "none of the 1 training images has objects"),
    ({"data": "{empty_labels}"}, 1, "none of the 1 training images has objects"),
    ({"pretrained": "{folder}/missing.pt"}, 1, "missing.pt: no such file"),
    ({"pretrained": "{garbage}"}, 1, "garbage.pt: cannot be loaded"),
    ({"data": "{grey}"}, 1, "takes images of 3 channels, the data set has 1"),
    ({"amplifier": "{folder}/missing.pt"}, 1, "missing.pt: no such file"),
    ({"amplifier": "{teacher}"}, 1, "not an amplifier file"),
    ({"amplifier": "{amplifier}"}, 1, "made for another teacher"),
    ({"amplifier": "5"}, 2, "amplifier=5: expected the path of a file"),
    ({"project": "{file}/runs"}, 1, "a_file; pass another folder"),
    ({"distill_model": "yolo11s.pt"}, 2, "is Ultralytics' own distillation"),
    ({"compile": "True"}, 2, "compile=True: not available here"),
    ({"task": "segment"}, 2, "task=segment: teacher yolov8s is for task=detect; leave task= out"),
    ({"model": "yolo26n.yaml"}, 2, "student=yolo11n.yaml and model=yolo26n.yaml: they are one argument"),
    ({"resume": "{folder}/missing.pt"}, 1, "no checkpoint there"),
    ({"resume": "{teacher}"}, 1, "this training is finished"),
    ({"resume": "{unfinished}"}, 1, "is not a distilled student"),
    ({"device": "7"}, 2, "device=7: "),
    ({"optimizer": "AdmW"}, 2, "optimizer=AdmW: no such optimiser"),
    ({"split": "test"}, 1, "has no line 'test:'"),
    ({"layers": "[16,16]"}, 2, "expected layer numbers"),
    ({"teacher": "{amplifier_stage}"}, 1, "is a checkpoint of the amplifier stage"),
    ({"pretrained": "{amplifier_stage}"}, 1, "pretrained={amplifier_stage}: is a checkpoint of the amplifier stage"),
    (
        {"teacher": "yolo11s.yaml", "amplifier": "{amplifier}"},
        1,
        "belongs to a trained teacher, and yolo11s.yaml is still to be trained",
    ),
    ({"amplifier": "{damaged}"}, 1, "damaged, entries are missing"),
    ({"amplifier": "{wrong_head}"}, 1, "damaged, its head is not the teacher's"),
    ({"amplifier": "{amplifier}", "im_high": "0"}, 1, "made for another teacher"),
    ({"data": "scenes.yaml", "teacher": "rtdetr-l.yaml"}, 1, "run 'yolo train model=rtdetr-l.yaml data="),
    ({"data": "scenes.yaml", "student": "yolo11nn.yaml"}, 1, "student=yolo11nn.yaml: no model can be built"),
    ({"cfg": "missing.yaml"}, 2, "cfg=missing.yaml: cannot be read"),
    ({"cfg": "{a_list}"}, 2, "is not a valid YAML mapping"),
]


def snapshot(folder: Path):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.suffix != ".cache"}


@pytest.mark.parametrize(
    ("changes", "code", "message"), MISTAKES, ids=[f"{'-'.join(m[0])}-{i}" for i, m in enumerate(MISTAKES)]
)
def test_a_mistake_gets_one_line_and_writes_nothing(changes, code, message, files, fresh_machine, tmp_path, capsys):
    arguments = GOOD | {"project": str(tmp_path / "runs")} | changes
    words = [f"{key}={value.format(**files)}" for key, value in arguments.items() if value is not None]
    before = snapshot(files["folder"])
    assert main(["train", *words]) == code
    captured = capsys.readouterr()
    lines = captured.err.strip().splitlines()
    ours = [line for line in lines if line.startswith("ds2d2: error: ")]
    assert len(ours) == 1
    assert message.format(**files) in ours[0]
    assert "Traceback" not in captured.err + captured.out
    assert list(tmp_path.iterdir()) == []
    assert snapshot(files["folder"]) == before


def test_names_of_folders_stay_as_they_are_written():
    words = ["src=2026_01_05", "out=1.10", "patch=1_024"]
    assert parse_arguments(words) == {"src": "2026_01_05", "out": "1.10", "patch": 1024}


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="no such signals there")
@pytest.mark.parametrize(
    ("mode", "told"),
    [
        ("convert", "ds2d2: interrupted\n"),
        ("train", "; to continue, run it again; a student that has begun: 'ds2d2 train resume=path/to/its/last.pt'\n"),
    ],
)
def test_an_interrupt_ends_with_130_and_a_hint(mode, told):
    # In its own process: the signal is ignored if tests run in the background. The mode interrupts itself.
    script = f"""
import os, signal, sys, time
from ds2d2_yolo.cli import main
from ds2d2_yolo.commands import {mode}
signal.signal(signal.SIGINT, signal.default_int_handler)
{mode}.run = lambda words: (os.kill(os.getpid(), signal.SIGINT), time.sleep(60))
sys.exit(main(["{mode}"]))
"""
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=120)
    assert result.returncode == 130
    assert result.stderr.endswith(told)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["xyz"], "'xyz': no such mode, modes are train"),
        (["train", "what"], "'what': expected key=value"),
        (["train", "epochs="], "missing 'epochs' value"),
        (["train", "layers=[1,2"], "unmatched '[' or ']' bracket"),
        (["teacher", "teacher=yolo11n.yaml", "name=x"], "name=x: a stage has no name="),
        (["amplifier", "data=x.yaml"], "teacher= is missing"),
        (["teacher", "teacher=yolo11n.yaml", "data=x.yaml", "distill_model=x.pt"], "is Ultralytics' own distillation"),
        (["amplifier", "teacher=yolo11n.yaml", "data=x.yaml", "compile=True"], "compile=True: not available"),
    ],
)
def test_wrong_words_get_one_line(words, message, capsys):
    assert main(words) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("mode", "start", "code", "message"),
    [
        ("teacher", "{garbage}", 1, "garbage.pt: cannot be loaded"),
        ("amplifier", "{teacher}", 2, "an amplifier starts from its teacher's head"),
    ],
)
def test_stages_check_the_checkpoint_they_start_from(mode, start, code, message, files, tmp_path, capsys):
    words = ["teacher=yolo11n.yaml", f"data={files['data']}", f"project={tmp_path / 'runs'}"]
    assert main([mode, *words, f"pretrained={start.format(**files)}"]) == code
    assert message in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_values_are_read_as_ultralytics_reads_them(files):
    words = ["--epochs=3", "amplifier", "=", "none", "layers=[15,", "18]", "cos_lr", "name=007", "data=a=b.yaml"]
    assert parse_arguments(words) == {
        "epochs": 3,
        "amplifier": None,
        "layers": [15, 18],
        "cos_lr": True,
        "name": "007",
        "data": "a=b.yaml",
    }


def test_words_override_the_file(files):
    assert parse_arguments(["im_full=5", f"cfg={files['settings']}"]) == {"epochs": 3, "im_full": 5}


def test_a_student_by_either_name_replaces_the_one_of_the_file(tmp_path):
    path = tmp_path / "args.yaml"
    path.write_text("model: yolo11n.yaml\nepochs: 3\n")
    assert parse_arguments([f"cfg={path}", "student=yolo26n.yaml"]) == {"epochs": 3, "student": "yolo26n.yaml"}
    path.write_text("student: yolo11n.yaml\n")
    assert parse_arguments([f"cfg={path}", "model=yolo26n.yaml"]) == {"model": "yolo26n.yaml"}


def test_arguments_of_an_earlier_run_leave_its_folder_alone(tmp_path):
    path = tmp_path / "args.yaml"
    path.write_text(f"epochs: 3\nname: student\nsave_dir: {tmp_path / 'runs' / 'student'}\n")
    assert parse_arguments([f"cfg={path}"]) == {"epochs": 3, "name": "student"}


def test_errors_are_folded_into_one_line():
    assert str(DS2D2Error("first\n  second")) == "first second"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], "ds2d2 MODE key=value"),
        (["help"], "high-frequency amplifier of a teacher"),
        (["--help"], "ds2d2 MODE key=value"),
        (["-h"], "ds2d2 MODE key=value"),
        (["train", "--help"], "ds2d2 MODE key=value"),
        (["cfg"], "im_full: "),
        (["cfg", "train"], "im_full: "),
        (["cfg", "demo"], "seeds: "),
        (["version"], __version__),
    ],
)
def test_special_modes(words, expected, capsys):
    assert main(words) == 0
    assert expected in capsys.readouterr().out


@pytest.mark.slow
def test_the_command_reports_mistakes_without_a_traceback(tmp_path):
    command = [
        sys.executable,
        "-m",
        "ds2d2_yolo.cli",
        "train",
        "teacher=nowhere/x.pt",
        "student=yolo11n.yaml",
        "data=x.yaml",
    ]
    result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert result.returncode == 1
    assert result.stderr.strip() == (
        "ds2d2: error: teacher=nowhere/x.pt: no such file; pass the path of a .pt, such as teacher=yolo11n.pt"
    )


@pytest.mark.slow
def test_a_closed_pipe_is_not_an_error():
    program = "import sys; from ds2d2_yolo.cli import main; sys.exit(main(['cfg']))"
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    assert (process.wait(), process.stderr.read()) == (0, b"")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows reports a closed pipe in another way")
@pytest.mark.parametrize(
    ("mode", "code", "message"),
    [("cfg", 0, ""), ("train", 1, "ends; to continue, run it again")],
)
def test_a_training_does_not_end_well_without_its_reader(mode, code, message):
    """Also when errors have another reader."""
    program = (
        f"import sys, ds2d2_yolo.commands.{mode} as command; from ds2d2_yolo.cli import main\n"
        "command.run = lambda words: [print('x' * 999, flush=True) for _ in range(999)]\n"
        f"sys.exit(main(['{mode}']))"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    errors = process.stderr.read().decode()
    assert process.wait() == code
    assert message in errors
    assert errors.count("\n") == code


def test_other_broken_pipes_are_errors(monkeypatch):
    def fail(words):
        raise BrokenPipeError(32, "Broken pipe")

    for mode in ("train", "version"):
        monkeypatch.setattr(f"ds2d2_yolo.commands.{mode}.run", fail)
        with pytest.raises(BrokenPipeError):
            main([mode])


def test_lines_that_nobody_reads_do_not_change_the_exit_code(monkeypatch):
    read, write = os.pipe()
    os.close(read)
    monkeypatch.setattr("ds2d2_yolo.commands.check.run", lambda words: print("a problem") or 1)
    with os.fdopen(write, "w") as output:
        monkeypatch.setattr(sys, "stdout", output)
        assert main(["check"]) == 1


def test_train_without_words_shows_what_a_beginner_types(capsys):
    assert main(["train"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert lines[0].startswith("ds2d2 train teacher=yolo11l.pt student=yolo11n.pt data=")


def test_for_the_folder_of_a_run_its_checkpoint_is_named(tmp_path):
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "best.pt").touch()
    with pytest.raises(DS2D2Error, match=rf"pass teacher={tmp_path}/weights/best\.pt$"):
        load_model("teacher", tmp_path)
