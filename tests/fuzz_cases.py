"""Cases of the fuzzing by kind: each damages one good input and returns the commands to run with it."""

from __future__ import annotations

import io
import json
import pickle
import random
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
import yaml
from fuzzing import ODD, Field, copied_set, odd_path, odd_yaml, spoilt_bytes, spoilt_tree, words_of
from PIL import Image
from torch import nn

from ds2d2_yolo.options import option_defaults
from ds2d2_yolo.training.arguments import DEFAULTS

Case = Callable[[Random, Field, Path, Path], list[list[str]]]
"""Makes inputs in the first folder. The second is for outputs. Returns words of commands, with `check` first."""

_READERS = ("train", "teacher", "amplifier", "val", "explain", "compare", "demo")
_ALL_IMAGES = ("train/0", "train/1", "val/0", "val/1")


def _commands(rng: Random, field: Field, data: Path, out: Path) -> list[list[str]]:
    """Return `check` and some modes that read a data set."""
    modes = rng.sample(_READERS, 3)
    commands = [words_of(field, "check", out / "c", data=data, task=rng.choice(["detect", "obb"]))]
    for mode in modes:
        key = "source" if mode == "explain" else "data"
        commands.append(words_of(field, mode, out / mode, **{key: data}))
    return commands


def data_yaml(rng: Random, field: Field, folder: Path, out: Path) -> list[list[str]]:
    """Damage a data YAML: values of other types, or its text."""
    path = copied_set(field, folder / "set")
    content = yaml.safe_load(path.read_text())
    whole = content | {"test": "images/val", "nc": 2, "channels": 3, "kpt_shape": [4, 2], "download": "", "minival": ""}
    image, listing = folder / "set/images/train/0.png", folder / "set/train.txt"
    listing.write_text("./images/train/0.png\n./images/train/1.png\n")
    special = [
        {"train": str(image)},
        {"train": ["images/train", 3]},
        {"train": str(listing), "val": str(listing)},
        {"val": [str(listing), "images/val"]},
        {"kpt_shape": [4, 2, 3]},
        {"kpt_shape": [2**40, 2]},
        {"names": {0: "ship", 1: None}},
        {"names": {0: "ship", 1: ["a"]}},
        {"names": {"0": "ship", "1": "vehicle"}},
        {"names": {0.5: "ship", 1: "vehicle"}},
        {"names": ["ship", "ship"]},
        {"names": ["ship", 7]},
        {"names": "ship"},
        {"nc": 3},
        {"nc": "two"},
        {"channels": 4},
        {"channels": -1},
        {"path": ""},
        {"path": None},
        {"path": str(path)},
        {"train": {"a": "images/train"}},
    ]
    kind = rng.random()
    if kind < 0.3:
        text = odd_yaml(content | rng.choice(special))
    elif kind < 0.7:
        text = odd_yaml(spoilt_tree(rng, whole if rng.random() < 0.5 else content))
    elif kind < 0.8:
        head = f"path: {folder / 'set'}\nval: images/val\n"
        texts = ("names: &a [*a, ship]\ntrain: images/train\n", "names: &a {0: *a, 1: ship}\ntrain: images/train\n")
        texts += ("train: &a [*a]\nnames: [ship, vehicle]\n", "<<: &a {b: *a}\nnames: [ship, vehicle]\n")
        texts += ("train: !!python/object/apply:os.getcwd []\nnames: [a, b]\n", "names: !!set {ship, vehicle}\n")
        texts += (f"names: {'[' * 1500}{']' * 1500}\n", "---\ntrain: images/train\n---\nnames: [a]\n", "- a\n- b\n")
        text = (head + rng.choice(texts)).encode()
    else:
        text = spoilt_bytes(rng, path.read_bytes())
    path.write_bytes(text)
    if rng.random() < 0.05:
        odd_path(rng, path, text or b"x: 1")
    return _commands(rng, field, path, out)


def labels(rng: Random, field: Field, folder: Path, out: Path) -> list[list[str]]:
    """Damage label files."""
    path = copied_set(field, folder / "set")
    lines = [
        *("7 .5 .5 .2 .2", "-1 .5 .5 .2 .2", "0.5 .5 .5 .2 .2", "nan .5 .5 .2 .2", "0 nan .5 .2 .2", "0 inf .5 .2 .2"),
        *("0 .5 .5 1e400 .2", "0 .5 .5 -.2 .2", "0 .5 .5", "0 .5 .5 .2 .2 .9", "0 0.5 0.5 0 0", "0 0 0 0 0", "ship 1"),
        *("0 32 32 10 10", "0 1.005 .5 .02 .02", "0 .1 .1 .3 .1 .3 .3 .1 .3", "0 .1 .1 .3 .1 .3", "0,.5,.5,.2,.2"),
        *("1e400 .5 .5 .2 .2", f"{2**70} .5 .5 .2 .2", "0 .5 .5 .2 .2\x00", "0x0 .5 .5 .2 .2", "0 1_0 .5 .2 .2"),
        *("# comment", "0 .5 .5 .2 .2", "1 .5 .5 .2 .2", "0 .5 .5 .2 .2 " * 400, "٣ .5 .5 .2 .2", "0 .5 .5 .2 .2\x0b"),
    ]
    for name in _ALL_IMAGES if rng.random() < 0.3 else rng.sample(_ALL_IMAGES, rng.randint(1, 2)):
        file = path.parent / "labels" / f"{name}.txt"
        chosen = rng.choices(lines, k=rng.randint(1, 3)) if rng.random() < 0.6 else [file.read_text()]
        end = rng.choice(["\n", "\n", "\r\n", "\r", "\n\n", "\u2028"])
        text = (rng.choice(["", "", "\ufeff"]) + end.join(chosen) + end).encode()
        file.write_bytes(spoilt_bytes(rng, text) if rng.random() < 0.3 else text)
        if rng.random() < 0.15:
            odd_path(rng, file, text)
    return _commands(rng, field, path, out)


def _encoded(form: str, mode: str = "RGB", size: tuple[int, int] = (64, 64), seed: int = 0) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(stream, form)
    return stream.getvalue()


def images(rng: Random, field: Field, folder: Path, out: Path) -> list[list[str]]:
    """Damage image files."""
    path = copied_set(field, folder / "set")
    float_tiff = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).random((64, 64), np.float32)).save(float_tiff, "TIFF")
    forms = [("jpg", "JPEG"), ("png", "PNG"), ("bmp", "BMP"), ("tif", "TIFF"), ("webp", "WEBP"), ("gif", "GIF")]
    forms += [("jp2", "JPEG2000"), ("pfm", "PNG"), ("mpo", "JPEG"), ("dng", "TIFF"), ("JPG", "JPEG")]
    chosen = _ALL_IMAGES if rng.random() < 0.4 else rng.sample(_ALL_IMAGES, rng.randint(1, 2))
    spoilt = []
    for seed, name in enumerate(chosen):
        old = path.parent / "images" / f"{name}.png"
        old.unlink()
        suffix, form = rng.choice(forms)
        mode = rng.choice({"JPEG": ["RGB", "L", "CMYK"], "BMP": ["RGB", "L", "1"]}.get(form, ["RGB", "L"]))
        mode = rng.choice(["RGB", "RGBA", "P", "LA", "1"]) if form == "PNG" else mode
        size = rng.choice([(64, 64), (64, 64), (1, 1), (9, 64), (3000, 12), (64, 40)])
        content = _encoded(form, mode, size, seed)
        file = old.with_suffix(f".{suffix}")
        kind = rng.random()
        if kind < 0.1:
            file, content = old.with_suffix(".tif"), float_tiff.getvalue()
        if 0.1 < kind < 0.4:
            content = content[: rng.randrange(len(content))]
        elif 0.4 < kind < 0.6:
            content = spoilt_bytes(rng, content)
        file.write_bytes(content)
        if kind > 0.8:
            odd_path(rng, file, content)
        spoilt.append(file)
    commands = _commands(rng, field, path, out)
    source = rng.choice([spoilt[0], spoilt[0].parent])
    return [*commands, words_of(field, "explain", out / "one", source=source)]


def _odd_module(rng: Random, model: Any) -> None:
    """Replace an attribute of a loaded model by an unusual value."""
    odd = rng.choice([*ODD, torch.zeros(3), nn.Identity(), [8.0, 16.0, 32.0], torch.tensor([float("nan")] * 3)])
    where = rng.random()
    if where < 0.6:
        name = rng.choice(["names", "stride", "yaml", "args", "task", "nc", "save", "inplace", "model", "kpt_shape"])
        if name == "yaml" and rng.random() < 0.5:
            odd = spoilt_tree(rng, model.yaml)
        if name == "names" and rng.random() < 0.5:
            odd = rng.choice([{0: None, 1: "b"}, {"a": "ship"}, ["ship"], {0: "ship"}, {5: "x", 9: "y"}, {0: ["a"]}])
        if rng.random() < 0.1:
            vars(model).pop(name, None)
        elif name != "model" or isinstance(odd, nn.Module):
            setattr(model, name, odd)
        else:
            model._modules["model"] = odd
    elif where < 0.75:
        head = model.model[-1]
        name = rng.choice(["nc", "no", "nl", "reg_max", "stride", "f", "i", "legacy", "end2end"])
        if isinstance(getattr(head, name, None), property) or name == "end2end":
            vars(head)["nc"] = odd
        else:
            setattr(head, name, odd)
    else:
        parameter = rng.choice(list(model.parameters()))
        changes: list[Callable[[], Any]] = [
            lambda: parameter.data.fill_(float("nan")),
            lambda: parameter.data.fill_(float("inf")),
            lambda: setattr(parameter, "data", parameter.data[..., :0]),
            lambda: setattr(parameter, "data", torch.zeros(5)),
            lambda: setattr(parameter, "data", parameter.data.double()),
            lambda: model.model.__delitem__(rng.randrange(len(model.model))),
            lambda: model.model[0].__delattr__("conv"),
            lambda: model.model.add_module("9", nn.Identity()),
        ]
        rng.choice(changes)()


def checkpoints(rng: Random, field: Field, folder: Path, out: Path) -> list[list[str]]:
    """Damage checkpoints: entries, attributes of the model, weights, the file."""
    role = rng.choice(
        ["teacher", "student", "pretrained", "model", "explained", "plain", "amplifier", "last", "baseline"]
    )
    source = field.files[
        {"amplifier": "amplifier", "last": "last"}.get(role, "teacher" if role == "teacher" else "student")
    ]
    run = folder / "run"
    path = run / "weights" / ("last.pt" if role == "last" else f"{role}.pt")
    path.parent.mkdir(parents=True)
    content = torch.load(source, map_location="cpu", weights_only=False)
    kind = rng.random()
    good = source.read_bytes()
    if kind < 0.25:
        path.write_bytes(good)
        odd_path(rng, path, good)
    else:
        if (kind < 0.45 and role != "amplifier") or role == "amplifier":
            content = spoilt_tree(rng, content)
        elif kind < 0.95:
            _odd_module(rng, content.get("ema") or content.get("model"))
        else:
            model = content.get("ema") or content.get("model")
            content = rng.choice([model, [model], model.state_dict(), {"model": model.state_dict()}, 3, None, {}])
        if rng.random() < 0.03:
            path.write_bytes(pickle.dumps(content))
        else:
            torch.save(content, path)
    others = {
        "teacher": [("train", "teacher"), ("amplifier", "teacher"), ("compare", "teacher"), ("demo", "teacher")],
        "student": [("train", "student"), ("compare", "student")],
        "pretrained": [("train", "pretrained"), ("teacher", "pretrained")],
        "model": [("val", "model")],
        "explained": [("explain", "student"), ("explain", "teacher")],
        "plain": [("explain", "plain")],
        "amplifier": [("train", "amplifier"), ("explain", "amplifier")],
        "last": [("resume", "resume")],
        "baseline": [("report", "baseline")],
    }[role]
    mode, key = rng.choice(others)
    changes: dict[str, object] = {key: path, "safe": rng.choice([None, None, None, True])}
    if role == "pretrained" and mode == "train":
        changes["student"] = field.files["student_yaml"]
    if role == "baseline":
        changes |= {"val": True, "device": "cpu", "data": field.files["data"]}
    return [words_of(field, mode, out / mode, **changes)]


def merge(rng: Random, field: Field, folder: Path, out: Path) -> list[list[str]]:
    """Damage the tile map, the predictions, or the options of a merge."""
    tiles = folder / "tiles"
    tiles.mkdir()
    lines = [json.loads(line) for line in (field.files["tiles"] / "tiles.jsonl").read_text().splitlines()]
    box: dict[str, Any] = {"category_id": 1, "bbox": [10.0, 10.0, 20.0, 20.0], "score": 0.5}
    entries = [
        box | {"image_id": name, "file_name": f"{name}.png"} for name in ("train1__1__0___0", "train1__1__80___0")
    ]
    predictions = folder / "predictions.json"
    options: dict[str, object] = {"data": tiles, "predictions": predictions}
    which = rng.choice(["map", "map text", "json", "json text", "labels", "options", "yaml", "file"])
    numbers = (-1, 0, -0.5, float("inf"), float("nan"), 2**70, 1e300, "1", None, [], True)
    if which == "map":
        line = rng.randrange(len(lines))
        lines[line] = spoilt_tree(rng, lines[line])
        if rng.random() < 0.5:
            names = rng.choice([["ship", 3], ["a\0b", "c"], ["ship", None], "ab", {"ship": 0}, ["", " "], ["a/b", "c"]])
            lines[0] = lines[0] | {"names": names} if isinstance(lines[0], dict) else lines[0]
        if rng.random() < 0.4 and isinstance(lines[1], dict) and isinstance(lines[1].get("tiles"), list):
            tile: Any = lines[1]["tiles"][0]
            if isinstance(tile, dict):
                lines[1]["tiles"][0] = tile | {
                    rng.choice(["window", "size"]): rng.choices(numbers, k=rng.choice([4, 2]))
                }
    text = "".join(json.dumps(line, default=str) + "\n" for line in lines).encode()
    (tiles / "tiles.jsonl").write_bytes(spoilt_bytes(rng, text) if which == "map text" else text)
    if which == "json":
        entries = spoilt_tree(rng, entries)
        if rng.random() < 0.4:
            entries = [box | {"file_name": "train1__1__0___0.png", "bbox": rng.choices(numbers, k=4)}]
    text = json.dumps(entries, default=str).encode()
    predictions.write_bytes(spoilt_bytes(rng, text) if which == "json text" else text)
    if which == "labels":
        options["predictions"] = folder / "labels"
        (folder / "labels").mkdir()
        line = " ".join(
            map(str, rng.choices(["0", "1", "0.5", "nan", "1e400", "-1", "x", "9" * 400], k=rng.choice([6, 10])))
        )
        text = rng.choice(["0 .5 .5 .2 .2 .9\n", line]).encode()
        (folder / "labels/train1__1__0___0.txt").write_bytes(spoilt_bytes(rng, text) if rng.random() < 0.5 else text)
    elif which == "options":
        options[rng.choice(["iou", "min_confidence", "split", "data", "predictions", "out"])] = rng.choice(ODD)
    elif which == "yaml":
        options["data"] = folder / "data.yaml"
        (folder / "data.yaml").write_bytes(odd_yaml(spoilt_tree(rng, {"path": str(tiles), "names": ["ship", "b"]})))
    elif which == "file":
        target = rng.choice([predictions, tiles / "tiles.jsonl"])
        odd_path(rng, target, target.read_bytes())
    return [[word.replace("\0", "\\0") for word in words_of(field, "merge", out, **options)]]


def configuration(rng: Random, field: Field, folder: Path, out: Path) -> list[list[str]]:
    """Pass arguments of wrong types and sizes, as words or in a file."""
    mode = rng.choice(
        ["train", "teacher", "amplifier", "val", "explain", "check", "compare", "demo", "report", "resume"]
    )
    own = mode in {"val", "explain", "check", "report", "compare"}
    names = [*option_defaults(mode)] if own else []
    if mode in {"train", "teacher", "amplifier", "compare", "demo", "resume"}:
        names += [*DEFAULTS, *_ULTRALYTICS]
    if mode == "val":
        names += _VALIDATION
    out_of_range: list[Any] = [
        1e30,
        -5,
        10**12,
        "[]",
        "[[1],[2]]",
        "{'a':1}",
        "x" * 3000,
        "1,2",
        "(1,2)",
        "=",
        "lambda: 0",
    ]
    chosen = {rng.choice(names): rng.choice([*ODD, *out_of_range]) for _ in range(rng.randint(1, 2))}
    # Values that would compute for hours or fill a disk are not mistakes.
    chosen = {name: value for name, value in chosen.items() if not _is_long(name, value)}
    if rng.random() < 0.6:
        changes = {name: str(value).replace("\0", "\\0") for name, value in chosen.items()}
        return [words_of(field, mode, out, **changes)]
    path = folder / "settings.yaml"
    path.write_bytes(odd_yaml(chosen) if rng.random() < 0.8 else spoilt_bytes(rng, odd_yaml(chosen)))
    plain = words_of(field, mode, out, **dict.fromkeys(chosen))
    return [[plain[0], f"cfg={path}", *plain[1:]]]


_ULTRALYTICS = (
    *("epochs", "time", "patience", "batch", "imgsz", "save_period", "cache", "device", "workers", "project", "name"),
    *("exist_ok", "pretrained", "optimizer", "seed", "deterministic", "single_cls", "rect", "cos_lr", "close_mosaic"),
    *(
        "resume",
        "amp",
        "fraction",
        "profile",
        "freeze",
        "multi_scale",
        "overlap_mask",
        "mask_ratio",
        "dropout",
        "split",
    ),
    *("iou", "max_det", "plots", "lr0", "lrf", "momentum", "weight_decay", "warmup_epochs", "warmup_momentum", "box"),
    *(
        "cls",
        "dfl",
        "nbs",
        "hsv_h",
        "degrees",
        "translate",
        "scale",
        "shear",
        "perspective",
        "flipud",
        "mosaic",
        "mixup",
    ),
    *("cutmix", "copy_paste", "copy_paste_mode", "auto_augment", "erasing", "cfg", "classes", "task", "mode", "model"),
    *("student", "data", "save_dir", "augmentations", "val", "verbose", "compile", "quantize", "dis", "distill_model"),
)
_VALIDATION = ("imgsz", "batch", "device", "conf", "iou", "max_det", "half", "rect", "split", "classes", "single_cls")


def _is_long(name: str, value: object) -> bool:
    """Return whether a value would take too long for a test."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    big = number and not abs(value) < 100  # type: ignore[arg-type]
    return (
        name in {"epochs", "imgsz", "batch", "workers", "time", "teacher_epochs", "amplifier_epochs"} and bool(big)
    ) or (name == "batch" and value in {-1, 0.5, True})


KINDS: dict[str, tuple[Case, int]] = {
    "data": (data_yaml, 90),
    "labels": (labels, 105),
    "merge": (merge, 250),
    "images": (images, 75),
    "checkpoints": (checkpoints, 260),
    "configuration": (configuration, 160),
}
"""Cases by kind, with the number of cases in the whole set."""


def seeded(kind: str, number: int) -> Random:
    """Return the random numbers of a case. Ultralytics' random state is set, too."""
    random.seed(number)
    np.random.seed(number)  # noqa: NPY002
    torch.manual_seed(number)
    return Random(f"{kind} {number}")
