"""The package from outside: effects of importing it, files that ship with it, and its examples."""

import csv
import importlib
import json
import pkgutil
import re
import runpy
import subprocess
import sys
from pathlib import Path

import cv2
import pytest
import torch
import yaml
from training_helpers import short, small_yolo, tiny_yaml, write_data
from ultralytics.nn.tasks import load_checkpoint
from ultralytics.utils import DEFAULT_CFG_DICT

import ds2d2_yolo
from ds2d2_yolo import detectors
from ds2d2_yolo.method import Gains
from ds2d2_yolo.resources import resource_folder
from ds2d2_yolo.training.arguments import DEFAULTS, check_arguments

ROOT = Path(__file__).parents[1]


def python(code, *options):
    return subprocess.run([sys.executable, *options, "-c", code], capture_output=True, text=True, check=False)


def test_the_method_needs_no_ultralytics():
    result = python("import sys; sys.modules['ultralytics'] = None; from ds2d2_yolo import DS2D2Error, DS2D2Loss")
    assert result.returncode == 0, result.stderr


def test_importing_warns_of_nothing():
    """Of nothing that is ours or that we brought in."""
    result = python("import ds2d2_yolo.training, ds2d2_yolo.method", "-W", "default")
    ours = [line for line in result.stderr.splitlines() if "ds2d2_yolo" in line or "pywt" in line]
    assert result.returncode == 0
    assert ours == []


PLAIN_TRAINING = """
import importlib, json, os, pkgutil, sys
from ultralytics.cfg import entrypoint, get_cfg
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.utils import DEFAULT_CFG, DEFAULT_CFG_DICT, SETTINGS
from ultralytics.utils.callbacks import get_default_callbacks

def state():
    return dict(DEFAULT_CFG_DICT), dict(vars(DEFAULT_CFG)), dict(SETTINGS), get_default_callbacks(), dict(os.environ)

if "IMPORTED" in os.environ:
    before = state()
    import ds2d2_yolo
    for module in pkgutil.walk_packages(ds2d2_yolo.__path__, "ds2d2_yolo."):
        importlib.import_module(module.name)
    assert ds2d2_yolo.DS2D2Trainer.__mro__[3] is DetectionTrainer
    assert state() == before
try:
    get_cfg(overrides={"teacher": "x.pt"})
except SyntaxError:
    pass
else:
    sys.exit("an argument of ours is known")
entrypoint("yolo cfg")
print("-- trained")
DetectionTrainer(overrides=json.loads(os.environ["OVERRIDES"])).train()
assert ("ds2d2_yolo" in sys.modules) == ("IMPORTED" in os.environ)
"""


@pytest.mark.slow
def test_importing_changes_nothing_in_ultralytics(tmp_path, monkeypatch):
    """Defaults, `yolo cfg` and a plain training are the same as in a process without this package."""
    overrides = {"model": str(small_yolo(tmp_path)), "data": str(write_data(tmp_path / "set", train=4, val=2))}
    overrides |= {"imgsz": 64, "batch": 2, "epochs": 2, "device": "cpu", "workers": 0, "plots": False}
    runs = {}
    for name in ("alone", "imported"):
        folder = tmp_path / name
        monkeypatch.setenv("OVERRIDES", json.dumps({**overrides, "project": str(folder), "name": "run"}))
        if name == "imported":
            monkeypatch.setenv("IMPORTED", "yes")
        result = python(PLAIN_TRAINING)
        assert result.returncode == 0, result.stderr
        with (folder / "run" / "results.csv").open(newline="") as file:
            rows = [{key: value for key, value in row.items() if key != "time"} for row in csv.DictReader(file)]
        arguments = (folder / "run" / "args.yaml").read_text().replace(str(folder), "")
        weights = load_checkpoint(folder / "run" / "weights" / "last.pt")[0].state_dict()
        runs[name] = (result.stdout.split("-- trained")[0], arguments, rows), weights
    (texts, weights), (same_texts, same_weights) = runs.values()
    assert texts == same_texts
    assert len(texts[2]) == 2
    assert "imgsz: 640" in texts[0]
    assert weights.keys() == same_weights.keys()
    assert all(torch.equal(weights[name], same_weights[name]) for name in weights)


def test_what_users_import_is_found_at_the_top():
    for name in ds2d2_yolo.__all__:
        found = getattr(ds2d2_yolo, name)
        assert name == "__version__" or found.__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        ds2d2_yolo.Nothing  # noqa: B018


OPTIONS = [path for path in (ROOT / "cfg").glob("*.yaml") if path.stem not in {"methods", "presets"}]


@pytest.mark.parametrize("path", OPTIONS, ids=lambda path: path.stem)
def test_every_option_has_a_type_and_a_comment(path):
    """Those without a default are optional or required."""
    text = path.read_text()
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    options = [re.fullmatch(r"(\w+):.* # \((\w[^()]*)\) (.+)", line) for line in lines]
    assert [line for line, option in zip(lines, options, strict=True) if option is None] == []
    defaults = yaml.safe_load(text)
    for name, kind, comment in (option.groups() for option in options):
        assert defaults[name] is not None or "optional" in kind or comment.endswith("Required."), name


def test_every_default_is_valid():
    args = check_arguments({"teacher": "t.pt", "model": "s.yaml"})
    assert {name: vars(args)[name] for name in DEFAULTS} == DEFAULTS | {"teacher": "t.pt"}
    assert not set(DEFAULTS) & set(DEFAULT_CFG_DICT), "Ultralytics has an argument of ours now"


def test_every_argument_is_read_somewhere():
    source = "".join(path.read_text() for path in (ROOT / "ds2d2_yolo").rglob("*.py"))
    terms = {"ex_low", "ex_high", "im_full", "im_high", "response"}  # read through the names in method.TERMS
    for name in set(DEFAULTS) - terms:
        read = rf"\b(args|arguments|self)\.{name}\b|\b(entries|vars\(self\))\[\"{name}\"\]"
        assert re.search(read, source), f"nothing reads {name}"


FOLDERS = ("cfg", "datasets", "docs", "ds2d2_yolo", "examples", "benchmarks", "tests")
TEXTS = [path for name in FOLDERS for path in (ROOT / name).rglob("*.*") if path.suffix in {".md", ".py", ".yaml"}]
TEXTS += [ROOT / ".ci" / "run", *ROOT.glob("*.md")]


def test_modules_that_are_named_anywhere_exist():
    """Also names in documentation, strings and commands, which nothing imports."""
    text = "\n".join(path.read_text(encoding="utf-8") for path in TEXTS if path != Path(__file__))
    for name in sorted(set(re.findall(r"\bds2d2_yolo(?:\.[A-Za-z_]\w*)+", text))):
        pkgutil.resolve_name(name)


def test_names_that_the_documentation_imports_exist():
    pages = "\n".join(path.read_text(encoding="utf-8") for path in TEXTS if path.suffix == ".md")
    imports = re.findall(r"^from (ds2d2_yolo[\w.]*) import ([\w, ]+)", pages, re.M)
    assert len(imports) > 3
    for module, names in imports:
        for name in names.split(","):
            pkgutil.resolve_name(f"{module}:{name.strip()}")


def test_source_files_that_the_documentation_names_exist():
    missing = []
    for page in (path for path in TEXTS if path.suffix == ".md"):
        places = [page.parent, ROOT, ROOT / "ds2d2_yolo", ROOT / "benchmarks"]
        for name in re.findall(r"`([a-z_0-9/]+\.py|ds2d2_yolo/[a-z_0-9/]+/)`", page.read_text(encoding="utf-8")):
            if not any((place / name).exists() for place in places):
                missing.append(f"{page.name}: {name}")
    assert missing == []


def test_links_of_pages_at_the_top_lead_somewhere():
    """Links in `docs` are checked when the site is built."""
    dead = []
    for page in ROOT.glob("*.md"):
        for path, anchor in re.findall(r"\]\(([\w./-]*)(?:#([\w-]+))?\)", page.read_text(encoding="utf-8")):
            target = ROOT / path if path else page
            headings = re.findall(r"^#+ (.+)$", target.read_text("utf-8"), re.M) if target.suffix == ".md" else []
            anchors = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
            if not target.exists() or (anchor and anchor not in anchors):
                dead.append(f"{page.name}: {path}#{anchor}")
    assert dead == []


def test_results_in_the_readme_are_those_of_the_results_page():
    pages = [(ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "docs/results/index.md")]
    readme, results = (
        [line.strip("| ").split(" | ") for line in page.splitlines() if re.match(r"\| [^|]+: ", line)] for page in pages
    )
    whole = {row[0]: row for row in results}
    assert len(readme) > 4
    for name, *numbers, _ in readme:
        assert numbers == [*whole[name][2:7]], name


def test_missing_resources_are_named():
    with pytest.raises(FileNotFoundError, match="the folder 'nowhere' of ds2d2_yolo is missing"):
        resource_folder("nowhere")


def test_citation_names_the_paper():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["preferred-citation"]["doi"] == "10.1109/TGRS.2025.3600098"


def test_the_losses_work_in_another_loop():
    history = runpy.run_path(str(ROOT / "examples" / "losses_in_your_own_loop.py"))["main"]()
    assert history[-1] < 0.8 * history[0]


@pytest.mark.slow
def test_the_example_distils_own_data(tmp_path, capsys):
    module = runpy.run_path(str(ROOT / "examples" / "distil_your_data.py"))
    arguments = short(project=str(tmp_path / "runs"))
    module["main"](str(write_data(tmp_path / "set")), teacher="yolo11n.yaml", **arguments)
    assert "AP50-95" in capsys.readouterr().out
    assert torch.load(tmp_path / "runs" / "train" / "weights" / "best.pt", weights_only=False)["model"] is not None


@pytest.mark.slow
def test_the_example_trains_one_amplifier_for_two_students(tmp_path):
    module = runpy.run_path(str(ROOT / "examples" / "one_teacher_two_students.py"))
    arguments = short(project=str(tmp_path / "runs"))
    data = str(write_data(tmp_path / "set", train=4, val=2))
    students = module["main"](data, teacher="yolo11n.yaml", pretrained=False, **arguments)
    assert list(students) == ["yolo11n", "yolov8n"]
    for name, path in students.items():
        assert Path(load_checkpoint(path)[0].yaml["yaml_file"]).stem == name
    stages = sorted(path.name.split("-")[0] for path in (tmp_path / "runs").iterdir())
    assert stages == ["amplifier", "teacher", "yolo11n", "yolov8n"]


@pytest.mark.slow
def test_the_example_distils_faster_rcnn_as_published(tmp_path):
    module = runpy.run_path(str(ROOT / "examples" / "faster_rcnn_as_published.py"))
    pair = {role: str(tiny_yaml(tmp_path, "FasterRCNN", role)) for role in ("teacher", "student")}
    arguments = short(project=str(tmp_path / "runs"))
    data = str(write_data(tmp_path / "set", train=4, val=2))
    trainer = module["main"](data, pretrained=False, **pair, **arguments)
    assert trainer.distiller.loss.gains == Gains(0.5, 0.5, 1e-5, 1e-5)
    assert (trainer.distiller.loss.weight, trainer.distiller.teacher.sum_regions) == ("disw", True)
    assert trainer.best.is_file()


@pytest.mark.slow
def test_the_example_distils_a_third_party_detector(fresh_machine, tmp_path, monkeypatch):
    path = ROOT / "examples" / "third_party_fcos.py"
    assert len(path.read_text().splitlines()) < 120
    monkeypatch.syspath_prepend(path.parent)
    monkeypatch.setattr(detectors, "_FAMILIES", list(detectors._FAMILIES))
    module = importlib.import_module("third_party_fcos")
    data = str(write_data(tmp_path / "set", train=4, val=2))
    arguments = short(project=str(tmp_path / "runs"), name="student")
    trainer = module.main(data, channels=64, pretrained=False, **arguments)
    header, row = trainer.csv.read_text().splitlines()
    values = dict(zip(header.split(","), map(float, row.split(",")), strict=True))
    assert all(values[f"train/{name}_loss"] > 0 for name in ("cls", "box", "centre", "ex_low", "im_full", "im_high"))
    assert type(load_checkpoint(trainer.best)[0]) is module.FCOSModel


def test_the_example_draws_every_kind_of_scene(tmp_path, monkeypatch):
    path = tmp_path / "scenes.png"
    monkeypatch.setattr("sys.argv", ["picture_of_scenes.py", str(path), "--size", "96"])

    runpy.run_path(str(ROOT / "examples" / "picture_of_scenes.py"))["main"]()

    assert cv2.imread(str(path)).shape[1] > 500


def test_the_example_explains_an_image(distilled, tmp_path, monkeypatch):
    sheet = tmp_path / "sheet.png"
    image = distilled.data.parent / "images" / "val" / "0.png"
    words = [str(distilled.teacher), str(distilled.student), str(image), str(sheet)]
    words += ["--amplifier", str(distilled.amplifier), "--plain", str(distilled.plain), "--imgsz", "64"]
    monkeypatch.setattr("sys.argv", ["explain_an_image.py", *words])

    runpy.run_path(str(ROOT / "examples" / "explain_an_image.py"))["main"]()

    whole = cv2.imread(str(sheet))
    assert whole.shape[1] == 15 * 84

    monkeypatch.setattr("sys.argv", ["explain_an_image.py", *words, "--no-bands"])
    runpy.run_path(str(ROOT / "examples" / "explain_an_image.py"))["main"]()

    short = cv2.imread(str(sheet))
    assert short.shape[0] < 0.6 * whole.shape[0]
    assert (short[-40:, :20] == short[0, 0]).all()  # the shortened sheet ends with its margin
