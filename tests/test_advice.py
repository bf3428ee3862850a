"""Advice that helps: the advice of an error is followed, and the command gets further."""

import json
import re
import shutil
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from training_helpers import NAMES, lively_model, save_checkpoint, small_yolo, write_data

from ds2d2_yolo.cli import main
from ds2d2_yolo.commands.words import parse_arguments
from ds2d2_yolo.comparison.plan import plan_comparison
from ds2d2_yolo.data.annotations import AnnotatedImage
from ds2d2_yolo.data.tiles import TileMapWriter, TileSettings, cut_tiles
from ds2d2_yolo.detectors import build_model
from ds2d2_yolo.errors import DS2D2Error
from ds2d2_yolo.training.pipeline import plan


class Case(NamedTuple):
    """A mistake, its error message, and the advice.

    Attributes:
        words (str): The command line.
        message (str): Part of the error.
        advice (str): Part of the error, as typed: words, `leave WORD= out`, a line of the data YAML, or a command.
        then (str): Part of the next error; empty where the command has nothing more to say.
    """

    words: str
    message: str
    advice: str
    then: str = ""


COMMON = "data={data} imgsz=64 device=cpu project={runs}"
TRAIN = f"train teacher={{teacher}} student={{student}} {COMMON}"
TEACHER = f"teacher teacher={{teacher}} {COMMON}"
AMPLIFIER = f"amplifier teacher={{teacher}} {COMMON}"
CHECK = "check plots=False out={out} data={data}"
VAL = "val model={teacher} data={data} imgsz=64 device=cpu plots=False project={runs}"
COMPARE = f"compare teacher={{teacher}} student={{student}} {COMMON}"
MERGE = "merge predictions={predicted}/predictions.json data={tiled} out={out}"
CASES = [
    # Data YAMLs
    Case(f"{TRAIN} data={{dot}}", "./ counts from the working folder", "path: {set}"),
    Case(f"{CHECK} data={{dot}}", "./ counts from the working folder", "path: {set}"),
    Case(f"{TRAIN} data={{moved}}", "which does not exist", "path: {set}"),
    Case(f"{TRAIN} data={{typo}}", "'train: images/trian' is", "train: images/train"),
    Case(f"{VAL} data={{typo_val}}", "'val: images/vla' is", "val: images/val"),
    Case(f"{TRAIN} data={{no_val}}", "the line 'val:' is missing", "val: images/val"),
    Case(f"{TRAIN} data={{no_names}}", "the line 'names:' is missing", "names: [ship, plane]", "are the same classes"),
    Case(f"{TRAIN} data={{set}}/dta.yaml", "no such file", "data={set}/data.yaml"),
    Case(f"{TRAIN} data={{list}}", "none of the 4 training images exists", "./images/train/0.png"),
    Case(f"{TRAIN} split=test", "has no line 'test:'", "split=val"),
    Case(
        "train teacher={teacher} student={student} teacher_epochs=0",
        "data= is missing",
        "data=scenes.yaml",
        "the data set has",
    ),
    # Teachers
    Case(f"{TEACHER} project={{runs}}", "is trained already on these classes", "teacher_epochs=100"),
    Case(f"{TRAIN} teacher={{other_names}}", "If they are the same classes", "teacher_epochs=100"),
    Case(
        f"{TRAIN} teacher={{many}} teacher_epochs=0", "has 5 classes, the data set has 2", "leave teacher_epochs= out"
    ),
    Case(f"{TRAIN} teacher={{big}} teacher_epochs=0", "must be trained first", "leave teacher_epochs= out"),
    Case(f"{TEACHER} teacher={{many}} pretrained={{teacher}}", "the teacher starts from", "leave pretrained= out"),
    Case(
        f"{VAL} model={{seventeen}} data={{pose}}",
        "predicts keypoints of",
        "ds2d2 teacher teacher={seventeen} data={pose}",
    ),
    Case(f"{TRAIN} teacher={{folder}}/techer.pt", "no such file", "teacher={teacher}"),
    Case(f"{TRAIN} teacher={{onnx}}", "exported models without layers", "teacher=teacher.pt", "put the file into"),
    Case(f"{TRAIN} teacher={{folder}}/teacher", "expected a .pt or a model .yaml", "teacher={teacher}"),
    Case("train student=yolo11n-obb.yaml data={data}", "teacher= is missing", "teacher=yolo11l.yaml", "task=obb"),
    # Pairs
    Case(f"{TRAIN} imgsz=33", "small needs a multiple of 32", "imgsz=64"),
    Case(f"{TRAIN} task=obb", "is for task=detect", "leave task= out"),
    Case(f"{TRAIN} footprint=hull", "is for oriented boxes", "leave footprint= out"),
    Case(f"{TRAIN} gains=reference", "the paper's authors have none for YOLO", "gains=auto"),
    # Arguments
    Case(f"{TRAIN} model={{big}}", "they are one argument", "leave model= out"),
    Case(f"{TRAIN} distill_model=yolo11s.pt", "Ultralytics' own distillation", "leave distill_model= out"),
    Case(f"{TRAIN} compile=True", "has no layers to tap", "leave compile= out"),
    Case(f"{TRAIN} cos_lr=True lr_steps=[1,2]", "two schedules", "leave cos_lr= out"),
    Case(f"{TRAIN} amp=bf16", "needs a GPU that computes in bfloat16", "amp=False"),
    Case(f"{TRAIN} layers=[2,99]", "has layers 0 to 5", "leave layers= out"),
    Case(f"{TEACHER} name=mine", "a stage has no name=", "leave name= out", "is trained already"),
    Case(f"{AMPLIFIER} pretrained={{many}}", "starts from its teacher's head", "leave pretrained= out"),
    Case(f"{TRAIN} epoch=3", "no such argument", "epochs", "expected epochs=value"),
    # Amplifiers
    Case(f"{TRAIN} amplifier={{amplifier}}", "made for another teacher", "leave amplifier= out"),
    Case(f"{TRAIN} amplifier={{folder}}/amp.pt", "no such file", "leave amplifier= out"),
    Case(f"{TRAIN} amplifier={{many}}", "not an amplifier file", "leave amplifier= out"),
    Case(f"{TRAIN} amplifier={{amplifier}} teacher={{big}}", "is still to be trained", "leave amplifier= out"),
    # Resuming
    Case("train resume={run}", "no checkpoint there", "resume={run}/weights/last.pt", "is not a distilled student"),
    Case(
        "train resume={run}/weights/lost.pt",
        "no checkpoint there",
        "resume={run}/weights/last.pt",
        "is not a distilled",
    ),
    # Modes that do not train
    Case(f"{VAL} split=test", "has no line 'test:'", "split=val"),
    Case(f"{VAL} task=obb", "is trained for task=detect", "leave task= out"),
    Case(f"{VAL} save_json=False", "always saved here", "leave save_json= out"),
    Case(f"{VAL} model={{folder}}/techer.pt", "no such file", "model={teacher}"),
    Case(f"{VAL} max_dts=3", "no such option", "max_dets", "expected key=value"),
    Case(f"{VAL} model={{posed}} data={{pose}} task=detect", "is trained for task=pose", "leave task= out"),
    Case(f"{MERGE} split=test", "no such split", "split=val"),
    Case(f"{MERGE} predictions={{predicted}}", "has no label files", "predictions={predicted}/labels"),
    Case(f"{MERGE} iou=3", "must be from 0 to 1", "iou=0.3"),
    Case(f"{COMPARE} time=1", "depend on the load of the machine", "leave time= out"),
    Case(f"{COMPARE} val=False", "the best epochs are compared", "leave val= out"),
    Case(f"{COMPARE} resume=True", "the same command continues its runs", "leave resume= out"),
    Case(f"{COMPARE} batch=0.5", "would get different batches", "batch=16"),
    Case(f"{COMPARE} seeds=[]", "names no seed", "seeds=0,1,2"),
    Case(f"{COMPARE} methods=[]", "names no method", "methods=plain,ds2d2"),
    Case(f"{COMPARE} methods=plane", "no such method", "plain", "expected key=value"),
    Case(f"{COMPARE} amplifier={{amplifier}} teacher={{big}}", "is still to be trained", "leave amplifier= out"),
]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Good and bad files by name."""
    folder = tmp_path_factory.mktemp("files")
    data = write_data(folder / "set", train=4, val=2)
    big = small_yolo(folder, "big", 24)
    teacher = lively_model(big)
    found = {"folder": folder, "set": data.parent, "data": data, "big": big, "student": small_yolo(folder)}
    found["teacher"] = save_checkpoint(teacher, folder / "teacher.pt")
    found["run"] = folder / "run"
    (folder / "run" / "weights").mkdir(parents=True)
    torch.save({"model": teacher, "epoch": 0, "train_args": {}}, folder / "run" / "weights" / "last.pt")
    teacher.names = {0: "ship", 1: "tree"}
    found["other_names"] = save_checkpoint(teacher, folder / "other_names.pt")
    found["many"] = save_checkpoint(lively_model(big, classes=5), folder / "many.pt")
    pose = small_yolo(folder, "pose", task="pose")
    pose.write_text(pose.read_text().replace("kpt_shape: [4, 2]", "kpt_shape: [17, 3]"))
    model = build_model(str(pose), nc=2)
    model.names, model.task = NAMES, "pose"
    found["seventeen"] = save_checkpoint(model, folder / "seventeen.pt")
    found["pose"] = write_data(folder / "posed", train=2, val=2, task="pose")
    found["onnx"] = folder / "teacher.onnx"
    found["onnx"].write_bytes(b"onnx")
    content = {"format": "ds2d2-amplifier", "version": 1, "teacher": "0" * 64, "wavelet": "haar", "head": {}}
    found["amplifier"] = folder / "amplifier.pt"
    torch.save(content | {"metrics": {}}, found["amplifier"])
    found["posed"] = save_checkpoint(lively_model(small_yolo(folder, "four", task="pose")), folder / "four.pt")
    found["tiled"], found["predicted"] = folder / "tiled", folder / "predicted"
    found["tiled"].mkdir()
    (folder / "predicted" / "labels").mkdir(parents=True)
    cut = cut_tiles(
        AnnotatedImage("P1", Path("P1.txt"), Path("P1.png"), None), (180, 100), TileSettings(100, 20), "detect"
    )
    with TileMapWriter(found["tiled"], "detect", ("ship", "vehicle"), TileSettings(100, 20)) as tile_map:
        tile_map.add("val", cut)
    entry = {"file_name": f"{cut.tiles[0].name}.png", "category_id": 1, "score": 0.5, "bbox": [10, 10, 20, 20]}
    (folder / "predicted" / "predictions.json").write_text(json.dumps([entry]))
    (folder / "predicted" / "labels" / f"{cut.tiles[0].name}.txt").write_text("0 0.5 0.5 0.1 0.1 0.9\n")
    (data.parent / "list.txt").write_text("".join(f"images/train/{index}.png\n" for index in range(4)))
    lines = {"path": data.parent, "train": "images/train", "val": "images/val", "names": "[ship, vehicle]"}
    changes = {
        "dot": {"path": "./"},
        "moved": {"path": "/home/somebody/set"},
        "typo": {"train": "images/trian"},
        "typo_val": {"val": "images/vla"},
        "no_val": {"val": None},
        "no_names": {"names": None},
        "list": {"train": "list.txt"},
    }
    for name, change in changes.items():
        found[name] = data.parent / f"{name}.yaml"
        rest = {key: value for key, value in (lines | change).items() if value is not None}
        found[name].write_text("".join(f"{key}: {value}\n" for key, value in rest.items()))
    found["texts"] = {path: path.read_text() for path in data.parent.iterdir() if path.is_file()}
    return found


def error_of(words, capsys):
    """Run the command up to the training, and return its error, or nothing."""
    mode, *rest = words
    if mode not in {"train", "teacher", "amplifier", "compare"} or any(word.startswith("resume=") for word in rest):
        capsys.readouterr()
        main(words)
        return "".join(line for line in capsys.readouterr().err.splitlines() if line.startswith("ds2d2: error: "))
    try:
        if mode == "compare":
            plan_comparison(parse_arguments(rest))
            return ""
        plan(parse_arguments(rest), "student" if mode == "train" else mode)
    except DS2D2Error as error:
        return str(error)
    return ""


def typed(words, advice):
    """Follow an advice: change files, and return the words of the next command line."""
    if left_out := re.fullmatch(r"leave (\w+)= out", advice):
        return [word for word in words if not word.startswith(f"{left_out[1]}=")]
    if advice.startswith("ds2d2 "):
        return [*advice.split()[1:], *(word for word in words if word.split("=")[0] in {"imgsz", "device", "project"})]
    if advice.startswith("./") or ": " in advice:
        data = Path(next(word for word in reversed(words) if word.startswith("data=")).removeprefix("data="))
        if advice.startswith("./"):
            file = data.with_suffix(".txt")
            file.write_text("".join(f"./{line}\n" for line in file.read_text().splitlines()))
        else:
            lines = [line for line in data.read_text().splitlines() if line.split(":")[0] != advice.split(":")[0]]
            data.write_text("\n".join([*lines, advice]) + "\n")
        return words
    return [*(word for word in words if word.split("=")[0] != advice.split("=")[0]), advice]


@pytest.mark.parametrize("case", CASES, ids=[f"{case.words.split()[0]}-{case.message}" for case in CASES])
def test_following_the_advice_of_an_error_helps(case, files, fresh_machine, tmp_path, capsys):
    places = files | {"runs": tmp_path / "runs", "out": tmp_path / "out"}
    for path, text in files["texts"].items():
        path.write_text(text)
    mode, *given = case.words.format(**places).split()
    words = [mode, *{word.split("=")[0]: word for word in given}.values()]  # a later word replaces an earlier one
    error = error_of(words, capsys)
    assert case.message in error
    advice = case.advice.format(**places)
    assert advice in error
    then = error_of(typed(words, advice), capsys)
    assert case.then in then if case.then else then == ""


def test_a_wrong_path_does_not_resume_the_last_run(files, fresh_machine, capsys):
    shutil.copytree(files["run"], fresh_machine / "runs" / "detect" / "train")
    assert "resume=run/last.pt: no checkpoint there" in error_of(["train", "resume=run/last.pt"], capsys)


def test_a_run_without_an_epoch_is_begun_again(fresh_machine, capsys):
    run = fresh_machine / "run"
    (run / "weights").mkdir(parents=True)
    (run / "args.yaml").write_text("model: yolo11n.yaml\n")
    for path in (run, run / "weights" / "last.pt"):
        error = error_of(["train", f"resume={path}"], capsys)
        assert f"no checkpoint there; {run} has no finished epoch; run its command again" in error
