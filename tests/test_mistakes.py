"""Wrong command lines, YAMLs, checkpoints, labels and images in every mode: one clear line, and nothing is written."""

import os
from contextlib import suppress

import cv2
import numpy as np
import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from training_helpers import lively_model, save_checkpoint, small_yolo, write_data

from ds2d2_yolo.cli import main
from ds2d2_yolo.commands.words import parse_arguments
from ds2d2_yolo.errors import DS2D2Error
from ds2d2_yolo.training.arguments import check_arguments


class Foreign(torch.nn.Identity):
    """A class of another package."""


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    data = write_data(folder / "set", train=2, val=2)
    model = lively_model("yolov8n.yaml")
    found = {"folder": folder, "data": data, "teacher": save_checkpoint(model, folder / "teacher.pt")}
    model.stranger = Foreign()
    found["stranger"] = save_checkpoint(model, folder / "stranger.pt")
    found["truncated"] = folder / "truncated.pt"
    found["truncated"].write_bytes(found["teacher"].read_bytes()[:100_000])
    found["file"] = folder / "a_file"
    found["file"].write_text("")
    found["empty"] = folder / "empty"
    found["empty"].mkdir()
    images = {"good": (data.parent / "images" / "train" / "0.png").read_bytes()}
    images |= {"corrupt": b"no image", "cut": images["good"][:200], "blank": b""}
    labels = {
        "unknown_class": "7 0.5 0.5 0.2 0.2\n",
        "pixels": "0 32 32 10 10\n",
        "negative": "0 0.5 0.5 -0.2 0.2\n",
        "columns": "0 0.5 0.5\n",
        "words": "ship 0.5 0.5 0.2 0.2\n",
        "half_class": "0.5 0.5 0.5 0.2 0.2\n",
        "binary": "\x00\x01\x02",
    }
    sets = {name: (images["good"], text) for name, text in labels.items()}
    sets |= {name: (images[name], "0 0.5 0.5 0.2 0.2\n") for name in ("corrupt", "cut", "blank")}
    for name, (image, text) in sets.items():
        for split in ("train", "val"):
            for index in range(2):
                for kind, suffix, content in (("images", "png", image), ("labels", "txt", text.encode())):
                    path = folder / name / kind / split / f"{index}.{suffix}"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(content)
    head = "train: images/train\nval: images/val\n"
    yamls = {f"{name}_data": f"path: {folder / name}\n{head}names: [ship, vehicle]\n" for name in sets}
    away = f"path: {folder / 'away'}\n{head}names: [ship, vehicle]\n"
    yamls |= {
        "code_data": f"{away}download: |\n  from pathlib import Path\n  Path('{folder}/ran').touch()\n",
        "shell_data": f"{away}download: bash -c touch\n",
        "mixed_data": f"path: {data.parent}\n{head}names: {{0: ship, 2: vehicle}}\n",
        "number_data": f"path: {data.parent}\n{head}names: 3\n",
        "binary_data": "\x00\x01",
        "settings": "epochs: [1\n",
        "unknown_setting": "epoch: 3\n",
        "nothing": "",
    }
    good = {"path": str(data.parent), "train": "images/train", "val": "images/val", "names": ["ship", "vehicle"]}
    odd = {
        "image": {"train": "images/train/0.png"},
        "entry": {"train": ["images/train", 3]},
        "pipe": {"train": str(folder / "pipe.yaml")},
        "points": {"kpt_shape": [4, 2, 3]},
        "unnamed": {"names": ["ship", None]},
        "band": {"channels": 4},
        "long": {"path": "y" * 5000},
    }
    yamls |= {f"{name}_data": yaml.safe_dump(good | change) for name, change in odd.items()}
    for name, text in yamls.items():
        found[name] = folder / f"{name}.yaml"
        found[name].write_text(text)
    for suffix in ("pt", "yaml"):
        os.mkfifo(folder / f"pipe.{suffix}")
    return found | damaged_checkpoints(folder)


def damaged_checkpoints(folder):
    """Checkpoints with one wrong type or value each."""
    found = {}
    changes = {"names": ["ship"], "stride": None, "yaml": []}
    for name, value in changes.items():
        model = lively_model(small_yolo(folder, "small"))
        setattr(model, name, value)
        found[f"{name}_pt"] = save_checkpoint(model, folder / f"{name}.pt")
    model = lively_model(small_yolo(folder, "small"))
    torch.save({"model": model, "epoch": "1", "train_args": {}}, folder / "epoch.pt")
    next(model.parameters()).data.fill_(float("nan"))
    return found | {"epoch_pt": folder / "epoch.pt", "nan_pt": save_checkpoint(model, folder / "nan.pt")}


# Before torch 2.6 the code in a checkpoint cannot be checked: there `safe=True` is refused.
CAN_TELL = hasattr(torch.serialization, "get_unsafe_globals_in_checkpoint")
OLD = None if CAN_TELL else (2, "safe=True: needs torch 2.6 or newer")
TRAIN = "teacher={teacher} student=yolo11n.yaml data={data} imgsz=64 epochs=1 device=cpu"
MISTAKES = [
    # Labels and images, in the modes that train
    *[
        (f"train {TRAIN} data={{{name}_data}}", 1, "none of the 2 training images can be used")
        for name in ("unknown_class", "pixels", "negative", "columns", "words", "half_class", "corrupt", "cut", "blank")
    ],
    ("train " + TRAIN + " data={binary_data}", 1, "binary_data.yaml: the line 'train:' is missing"),
    ("train " + TRAIN + " data={mixed_data}", 1, "'names:' has no class 1; number the classes from 0"),
    ("train " + TRAIN + " data={number_data}", 1, "'names' must be list or dict, not int"),
    ("train " + TRAIN + " data={nothing}", 1, "nothing.yaml: the line 'train:' is missing"),
    ("teacher teacher=yolo11n.yaml data={unknown_class_data}", 1, "Label class 7 exceeds dataset class count 2"),
    ("teacher teacher=yolo11n.yaml data={corrupt_data}", 1, "none of the 2 training images can be used"),
    ("amplifier teacher={teacher} data={pixels_data}", 1, "none of the 2 training images can be used"),
    *[
        (f"{mode} data={{image_data}}", 1, "is not a list of images")
        for mode in ("check", f"train {TRAIN}", "teacher teacher=yolo11n.yaml")
    ],
    ("train " + TRAIN + " data={entry_data}", 1, "entry_data.yaml: 'train:' holds 3; write a folder, or a text file"),
    ("check data={points_data}", 1, "kpt_shape=[4, 2, 3]: expected the number of keypoints"),
    ("train " + TRAIN + " data={points_data}", 1, "kpt_shape=[4, 2, 3]: expected the number of keypoints"),
    ("check data={unnamed_data}", 1, "names holds None, which is not a class name"),
    ("val model={teacher} data={unnamed_data}", 1, "names holds None, which is not a class name"),
    ("teacher teacher=yolo11n.yaml data={band_data}", 1, "0.png: cannot be used, has 3 channels, the data YAML has 4"),
    ("check data={long_data}", 1, "yyy ... yyy"),
    ("check data={pipe_data}", 1, "pipe.yaml: is neither a file nor a folder, but a pipe"),
    *[
        (f"{words}={{folder}}/pipe.{suffix}", 1, f"pipe.{suffix}: is neither a file nor a folder, but a pipe")
        for words, suffix in (
            *(("check data", "yaml"), (f"train {TRAIN} data", "yaml"), (f"train {TRAIN} student", "yaml")),
            *(
                (f"train {TRAIN} teacher", "pt"),
                ("val data={data} model", "pt"),
                ("amplifier data={data} teacher", "pt"),
            ),
        )
    ],
    # Checkpoints
    ("train " + TRAIN + " teacher={names_pt}", 1, "is damaged, its class names are ['ship']"),
    ("val model={names_pt} data={data}", 1, "is damaged, its class names are ['ship']"),
    ("train " + TRAIN + " student={stride_pt}", 1, "stride.pt: is damaged"),
    ("explain teacher={teacher} student={yaml_pt} source={data}", 1, "is damaged, it has no model YAML"),
    ("amplifier teacher={nan_pt} data={data}", 1, "is damaged, model.0.conv.weight has values that are not finite"),
    ("val model={nan_pt} data={data}", 1, "is damaged, model.0.conv.weight has values that are not finite"),
    ("train " + TRAIN + " pretrained={yaml_pt}", 1, "is damaged, it has no model YAML"),
    ("train resume={epoch_pt}", 1, "its entries are not those of an Ultralytics checkpoint (epoch is '1'"),
    ("val model=yolo11n.yaml data={data}", 1, "is an architecture without trained weights; pass the .pt of a training"),
    # Code
    ("train " + TRAIN + " data={code_data}", 1, "its download: entry is code, which is not run here"),
    ("train " + TRAIN + " data={shell_data}", 1, "its download: entry is code, which is not run here"),
    ("val model={teacher} data={code_data}", 1, "its download: entry is code, which is not run here"),
    ("check data={code_data}", 1, "away/images/train, which does not exist"),
    ("train " + TRAIN + " teacher={stranger} safe=True", *(OLD or (1, "stranger.pt: refused by safe=True"))),
    ("train " + TRAIN + " pretrained={stranger} safe=True", *(OLD or (1, "stranger.pt: refused by safe=True"))),
    ("amplifier teacher={stranger} data={data} safe=True", *(OLD or (1, "stranger.pt: refused by safe=True"))),
    ("train " + TRAIN + " safe=maybe", 2, "safe=maybe: expected True or False"),
    # Combinations
    ("train " + TRAIN + " quantize=8", 2, "quantize=8: needs NVIDIA ModelOpt"),
    ("train " + TRAIN + " amp=bf16", 2, "amp=bf16: needs a GPU that computes in bfloat16, this run uses cpu"),
    ("train " + TRAIN + " task=obb", 2, "task=obb: teacher"),
    ("train " + TRAIN + " cfg={settings}", 2, "settings.yaml: cannot be read"),
    ("train " + TRAIN + " cfg={unknown_setting}", 2, "epoch=3: no such argument"),
    ("train " + TRAIN + " resume={truncated}", 1, "truncated.pt: cannot be loaded"),
    ("train " + TRAIN + " resume={folder}", 1, "no checkpoint there; pass the last.pt of a run"),
    ("train " + TRAIN + " batch=many", 2, "batch=many"),
    ("train " + TRAIN + " fraction=2.5", 2, "'fraction=2.5' invalid"),
    ("train " + TRAIN + " device=gpu9", 2, "Invalid CUDA 'device=gpu9' requested"),
    ("train " + TRAIN + " optimizer=3", 2, "optimizer=3"),
    ("train " + TRAIN + " lr_steps=[3,2]", 2, "lr_steps=[3, 2]: expected epochs in ascending order"),
    ("train " + TRAIN + " lr_steps=[1] cos_lr=True", 2, "two schedules; leave cos_lr= out"),
    ("teacher", 2, "teacher= is missing"),
    ("teacher teacher=yolo11n.yaml", 2, "data= is missing"),
    ("teacher teacher={teacher} data={data}", 2, "is trained already"),
    ("teacher teacher={folder}/missing.yaml data={data}", 1, "missing.yaml: no model can be built from it"),
    ("teacher teacher=yolo11n.yaml data={data} resume=True", 2, "a stage has no resume="),
    ("teacher teacher=yolo11n.yaml data={data} epochs=0", 2, "epochs=0"),
    ("teacher teacher=yolo11n.yaml data={data} project={file}/x", 1, "pass another folder, such as project="),
    ("teacher teacher=yolo11n-seg.yaml data={data}", 1, "task=segment needs the outline of each object"),
    ("amplifier teacher={teacher}", 2, "data= is missing"),
    ("amplifier teacher={teacher} data={data} model=yolo11n.yaml", 2, "a stage has no model="),
    ("amplifier teacher={truncated} data={data}", 1, "truncated.pt: cannot be loaded"),
    ("amplifier teacher={teacher} data={data} wavelet=none", 2, "wavelet=None: no such discrete wavelet"),
    ("demo epoch=1", 2, "epoch=1: no such argument"),
    ("demo teacher={truncated}", 1, "truncated.pt: cannot be loaded"),
    ("demo data={corrupt_data} imgsz=64", 1, "none of the 2 training images can be used"),
    ("demo task=segment", 2, "the demo has models and data for detect and obb"),
    ("demo data=missing.yaml", 1, "missing.yaml: no such file"),
    ("demo imgsz=33 data={data}", 1, "imgsz=33: yolo11n needs a multiple of 32"),
    # Modes that do not train
    ("val", 2, "model= is missing"),
    ("val model={teacher}", 2, "data= is missing"),
    ("val model={truncated} data={data}", 1, "truncated.pt: cannot be loaded"),
    ("val model={folder}/missing.pt data={data}", 1, "missing.pt: no such file"),
    ("val model={teacher} data={data} max_dets=0", 2, "max_dets=0"),
    ("val model={teacher} data={data} max_det=many", 2, "max_det=many"),
    ("val model={teacher} data={data} split=nowhere", 1, "has no line 'nowhere:'"),
    ("val model={teacher} data={data} teacher=x.pt", 2, "'ds2d2 val' has no such option"),
    ("check", 2, "data= is missing"),
    ("check data={folder}/missing.yaml", 1, "missing.yaml: no such file"),
    ("check data={data} strides=[7]", 2, "strides=[7]: expected whole numbers that divide imgsz=640"),
    ("check data={data} task=pose", 2, "task=pose: expected detect or obb"),
    ("check data={data} imgsz=big", 2, "imgsz=big: expected a number"),
    ("check data={data} out={file}/x", 1, "cannot write to"),
    ("check data={binary_data}", 1, "binary_data.yaml: the line 'train:' is missing"),
    ("convert", 2, "src= is missing; see 'ds2d2 cfg convert'"),
    ("convert src={folder}/missing", 1, "no such folder"),
    ("convert src={empty} out={folder}/new", 1, "no known layout, found no files"),
    ("convert src={empty} layout=xml", 2, "layout=xml"),
    ("convert src={empty} copy=yes", 2, "copy=yes: expected True or False"),
    ("merge", 2, "predictions= is missing"),
    ("merge predictions={folder}/missing.json data={data} out={folder}/new", 1, "tiles.jsonl: no such file"),
    ("merge predictions={file} data={data} out={folder}/new iou=3", 2, "iou=3"),
    ("cfg trian", 2, "'trian': no mode with arguments"),
    ("cfg default", 2, "'default': no mode with arguments"),
    ("trian data=x", 2, "'trian': no such mode, did you mean train"),
    ("train epochs", 2, "'epochs': expected epochs=value"),
    ("check =x", 2, "=x"),
]


def snapshot(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.suffix != ".cache"}


@pytest.mark.parametrize(("words", "code", "message"), MISTAKES, ids=[f"{m[0].split()[0]}-{m[2]}" for m in MISTAKES])
def test_a_mistake_gets_one_line_and_writes_nothing(words, code, message, files, fresh_machine, tmp_path, capsys):
    arguments: dict[str, str] = {}
    for position, word in enumerate(words.format(**files).split(" ")):
        key = word.split("=")[0] or word
        arguments[key if "=" in word else f"{position}"] = word
    if words.split()[0] in {"train", "teacher", "amplifier", "demo", "val"} and "project" not in arguments:
        arguments["project"] = f"project={tmp_path / 'runs'}"
    before = snapshot(files["folder"])
    assert main(list(arguments.values())) == code
    captured = capsys.readouterr()
    ours = [line for line in captured.err.splitlines() if line.startswith("ds2d2: error: ")]
    assert len(ours) == 1
    assert message in ours[0]
    assert "Traceback" not in captured.err + captured.out
    assert list(tmp_path.iterdir()) == []
    assert snapshot(files["folder"]) == before


KEYS = ["teacher", "student", "data", "epochs", "imgsz", "batch", "layers", "im_full", "wavelet", "lr_steps", "safe"]
VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.lists(st.integers(), max_size=3)
)


@given(st.lists(st.one_of(st.text(max_size=12), st.tuples(st.sampled_from(KEYS), st.text(max_size=10)).map("=".join))))
def test_any_words_are_understood_or_refused_in_one_line(words):
    with suppress(DS2D2Error):  # its message is one line by construction
        parse_arguments([word for word in words if not word.startswith("cfg=")])


@given(st.dictionaries(st.sampled_from(KEYS), VALUES))
def test_any_arguments_are_accepted_or_refused_in_one_line(arguments):
    with suppress(DS2D2Error):
        check_arguments(arguments)


TEXTS = st.one_of(
    st.binary(max_size=60),
    st.dictionaries(st.sampled_from([*KEYS, "path", "train", "val", "names", "nc", "download"]), VALUES).map(
        lambda content: yaml.safe_dump(content, allow_unicode=True).encode("utf-8", "surrogatepass")
    ),
)


@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(content=TEXTS, mode=st.sampled_from(["train cfg", "teacher cfg", "val cfg", "check data"]))
def test_any_yaml_is_understood_or_refused_in_one_line(content, mode, files, tmp_path, capsys):
    path = tmp_path / "some.yaml"
    path.write_bytes(content)
    mode, key = mode.split()
    assert main([mode, f"{key}={path}"]) in {1, 2}
    errors = capsys.readouterr().err.splitlines()
    assert sum(line.startswith("ds2d2: error: ") for line in errors) == 1


def test_long_values_are_shortened_and_signs_escaped():
    message = str(DS2D2Error(f"out={'a' * 5000}:\n no\0such\u202eplace " + "and more " * 1000 + "leave it out", 2))
    assert message.startswith("out=aaa")
    assert "aaa ... aaa" in message
    assert "no\\x00such\\u202eplace" in message
    assert message.endswith("leave it out")
    assert len(message) < 1100


def test_an_image_that_cannot_be_decoded_is_named(files, fresh_machine, tmp_path, capsys):
    data = write_data(tmp_path / "set", train=2, val=2)
    image = tmp_path / "set/images/val/1.bmp"
    whole = cv2.imencode(".bmp", np.zeros((64, 64, 3), np.uint8))[1].tobytes()
    image.with_suffix(".png").unlink()
    image.write_bytes(whole[: len(whole) // 3])
    before = set(tmp_path.rglob("*"))
    assert main(["val", f"model={files['teacher']}", f"data={data}", "imgsz=64", f"project={tmp_path / 'runs'}"]) == 1
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("ds2d2: error: ")]
    assert len(errors) == 1
    assert f"{image}: cannot be decoded, the file is damaged; " in errors[0]
    assert {path for path in tmp_path.rglob("*") if path.suffix != ".cache"} == before
