"""`ds2d2 explain` as a whole: sheets, the page, the sources of images and adapters, and mistakes."""

import shutil

import numpy as np
import pytest
import torch
from matplotlib import rcParams
from pages import Page, assert_self_contained, browse, needs_browser
from PIL import Image
from training_helpers import lively_model, save_checkpoint, tiny_yaml

from ds2d2_yolo.cli import main
from ds2d2_yolo.commands.explain import run_explain
from ds2d2_yolo.detectors import build_model
from ds2d2_yolo.errors import DS2D2Error


@pytest.fixture
def options(distilled, tmp_path):
    return {
        "source": str(distilled.data),
        "teacher": str(distilled.teacher),
        "student": str(distilled.student),
        "device": "cpu",
        "out": str(tmp_path / "out"),
        "conf": 0.05,
    }


@pytest.fixture(scope="module")
def explained(distilled, tmp_path_factory):
    out = tmp_path_factory.mktemp("explained") / "out"
    words = {
        "source": distilled.data, "teacher": distilled.teacher, "student": distilled.student, "plain": distilled.plain,
        "amplifier": distilled.amplifier, "max_images": 2, "device": "cpu", "out": out, "conf": 0.05,
    }  # fmt: skip
    before = dict(rcParams)
    assert main(["explain", *(f"{key}={value}" for key, value in words.items())]) == 0
    assert dict(rcParams) == before
    return out


def pixels_of(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def test_every_image_gets_a_sheet_and_all_are_in_one_page(explained):
    names = sorted(path.name for path in explained.iterdir())
    assert names == ["01-0.png", "02-1.png", "index.html"]
    for name in names[:2]:
        sheet = pixels_of(explained / name)
        assert sheet.shape[1] == 1500
        assert len(np.unique(sheet.reshape(-1, 3), axis=0)) > 1000
    page = Page(explained / "index.html")
    assert_self_contained(page)
    assert sum(reference.startswith("data:image/png") for reference in page.references) == 2
    for expected in ("yolo11s", "plain", "those trained with this student (adapters.pt)", "im_high, classes", "0.png"):
        assert expected in page.text


@needs_browser
def test_a_browser_shows_the_page_in_light_and_dark(explained, tmp_path):
    light = browse(explained / "index.html", tmp_path)
    dark = browse(explained / "index.html", tmp_path, width=500, dark=True)
    assert light[:, :3].mean() > 200 > 60 > dark[:, :3].mean()
    assert light.std() > 10


def test_files_without_labels_are_explained_and_marked(options, distilled, tmp_path, capsys):
    image = tmp_path / "my image <1>.png"
    shutil.copy(distilled.data.parent / "images/val/0.png", image)
    run_explain({**options, "source": str(image)})
    assert "those trained with this student" in capsys.readouterr().out
    page = Page(tmp_path / "out" / "index.html")
    assert "my image <1>.png" in page.text  # as text, not as a tag
    assert [path.name for path in (tmp_path / "out").glob("*.png")] == ["01-my image <1>.png"]


def test_missing_adapters_are_fitted_and_the_page_says_so(options, distilled, tmp_path, capsys):
    alone = tmp_path / "student.pt"
    shutil.copy(distilled.student, alone)
    run_explain({**options, "student": str(alone), "max_images": 1})
    assert "fitted by least squares to 6 training images; too few for the coarse levels" in capsys.readouterr().out
    folder = str(distilled.data.parent / "images/val")
    run_explain({**options, "student": str(alone), "source": folder, "max_images": 1})
    assert "fitted by least squares to 3 of the images of the source itself" in capsys.readouterr().out
    again = {"source": folder, "data": str(distilled.data), "max_images": 1}
    run_explain({**options, "student": str(alone), **again})
    assert "fitted by least squares to 6 training images" in capsys.readouterr().out
    assert [(tmp_path / f"out{end}" / "index.html").is_file() for end in ("", "-2", "-3")] == [True] * 3


def test_an_existing_folder_is_overwritten_only_on_request(options, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    run_explain({**options, "max_images": 1})
    assert "index.html and 1 sheet\n" in capsys.readouterr().out
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.txt"]
    assert (tmp_path / "out-2" / "index.html").is_file()
    run_explain({**options, "max_images": 1, "exist_ok": True})
    assert len(list((tmp_path / "out").iterdir())) == 3


@pytest.mark.slow
@pytest.mark.parametrize("family", ["RetinaNet", "FasterRCNN"])
def test_other_families_are_explained_too(family, distilled, tmp_path):
    checkpoints = {}
    for seed, role in enumerate(("teacher", "student")):
        torch.manual_seed(seed)
        model = build_model(tiny_yaml(tmp_path, family, role, fpn_channels=16), nc=2)
        model.names = {0: "ship", 1: "vehicle"}
        checkpoints[role] = str(save_checkpoint(model, tmp_path / f"{role}.pt"))
    given = {**checkpoints, "source": str(distilled.data), "imgsz": 128, "max_images": 1, "device": "cpu"}
    run_explain({**given, "out": str(tmp_path / "out")})
    page = Page(tmp_path / "out" / "index.html")
    assert "im_full, boxes" in page.text
    last = 64 if family == "FasterRCNN" else 128
    assert f"ex_high weighted, {last}" in page.text


@pytest.fixture(scope="module")
def wrong(distilled, tmp_path_factory):
    """Things to make mistakes with, by name."""
    folder = tmp_path_factory.mktemp("wrong")
    (folder / "empty").mkdir()
    (folder / "text.txt").write_text("text")
    names = lively_model("yolo11n.yaml")
    names.names = {0: "ship", 1: "airplane"}
    (folder / "bad").mkdir()
    (folder / "bad" / "a.png").write_bytes(b"no image")
    (folder / "list.txt").write_text("images/val/gone.png\n")
    (folder / "lost.yaml").write_text(distilled.data.read_text().replace("val: images/val", f"val: {folder}/list.txt"))
    (folder / "other.yaml").write_text(distilled.data.read_text().replace("vehicle", "lorry"))
    return {
        "folder": folder,
        "data": distilled.data,
        "names": save_checkpoint(names, folder / "names.pt"),
        "more": save_checkpoint(lively_model("yolo11n.yaml", classes=3), folder / "more.pt"),
        "p6": save_checkpoint(lively_model("yolov8n-p6.yaml"), folder / "p6.pt"),
        "amplifier": distilled.amplifier,
        "other": save_checkpoint(lively_model("yolo11s.yaml", seed=7), folder / "other.pt"),
    }


MISTAKES = [
    ({"source": None}, 2, "source= is missing"),
    ({"teacher": None}, 2, "teacher= is missing"),
    ({"student": None}, 2, "student= is missing"),
    ({"source": "{folder}/nowhere"}, 2, "nowhere: no such file or folder"),
    ({"source": "{folder}/text.txt"}, 2, "text.txt: is none of these"),
    ({"source": "{folder}/empty"}, 1, "there are no images in it"),
    ({"source": "{folder}/bad"}, 1, "a.png: cannot be read as an image"),
    ({"source": "{folder}/missing.yaml"}, 1, "source={folder}/missing.yaml: "),
    ({"source": "{folder}/other.yaml"}, 1, "than the models (teacher class 1 is 'vehicle', in the data set 'lorry')"),
    ({"source": "{folder}/lost.yaml"}, 1, "lost.yaml: none of the 1 val images exists, for example images/val/gone"),
    ({"split": "test"}, 1, "data.yaml has no line 'test:'; add it, or pass split=val"),
    ({"teacher": "{folder}/missing.pt"}, 1, "teacher={folder}/missing.pt: no such file"),
    ({"teacher": "yolo11s.yaml"}, 2, "teacher=yolo11s.yaml: only a trained model can be explained"),
    ({"teacher": "{p6}"}, 1, "has 4 levels, student"),
    ({"student": "{names}"}, 1, "class 1 is 'airplane', in the teacher "),
    ({"plain": "{more}"}, 1, "has 3 classes, the teacher "),
    ({"teacher": "{other}", "amplifier": "{amplifier}"}, 1, "teacher; pass the amplifier of this teacher, or leave"),
    ({"amplifier": "{names}"}, 1, "not an amplifier file"),
    ({"amplifier": "{amplifier}", "wavelet": "db2"}, 1, "made with wavelet=haar"),
    ({"wavelet": "harr"}, 2, "wavelet=harr: no such discrete wavelet"),
    ({"max_images": 0}, 2, "max_images=0: expected a whole number of at least 1"),
    ({"footprint": "round"}, 2, "footprint=round: expected rotated or hull"),
    (
        {"footprint": "hull"},
        2,
        "footprint=hull: is for oriented boxes, but teacher yolo11s is for task=detect; leave footprint= out",
    ),
    ({"conf": 2}, 2, "conf=2: expected a number from 0 to 1"),
    ({"imgsz": 50}, 1, "imgsz=50: "),
    ({"imgsz": "big"}, 2, "imgsz=big: expected a whole number of pixels"),
    ({"device": "7"}, 2, "device=7: "),
    ({"out": "{folder}/text.txt/x"}, 1, "text.txt; pass another folder, such as out="),
    ({"sources": "x"}, 2, "'ds2d2 explain' has no such option; did you mean source?"),
]


@pytest.mark.parametrize(("changes", "code", "message"), MISTAKES, ids=[str(i) for i in range(len(MISTAKES))])
def test_a_mistake_gets_one_line_and_writes_nothing(changes, code, message, options, wrong, tmp_path):
    changes = {key: value.format(**wrong) if isinstance(value, str) else value for key, value in changes.items()}
    given = {key: value for key, value in {**options, **changes}.items() if value is not None}
    with pytest.raises(DS2D2Error) as caught:
        run_explain(given)
    assert message.format(**wrong) in str(caught.value)
    assert caught.value.exit_code == code
    assert list(tmp_path.iterdir()) == []
