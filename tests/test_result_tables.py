"""The pages of results agree with their CSVs."""

import csv
import re
import runpy
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from scipy.stats import t

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs" / "results"
PAGES = {path.stem: path.read_text(encoding="utf-8") for path in sorted(FOLDER.glob("*.md"))}
CSVS = sorted(FOLDER.glob("*.csv"))


@pytest.fixture(scope="module")
def tables():
    return runpy.run_path(str(ROOT / "benchmarks" / "tables.py"))


def runs(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_tables_and_picture_are_those_of_the_csvs(tables):
    stale = [path.name for path, text in tables["outputs"]().items() if path.read_text(encoding="utf-8") != text]
    assert stale == [], "run python benchmarks/tables.py"


@pytest.mark.parametrize(
    ("name", "run", "changed", "stale"),
    [
        ("yolo11-scenes", "ds2d2,3,20,24.9,9.5", "ds2d2,3,20,24.9,9.9", "differences.svg index.md parts.md yolo11.md"),
        ("cost-scenes", "ds2d2,1,20,32.0,12.6", "ds2d2,1,20,32.0,12.9", "cost.md cost.svg differences.svg index.md"),
        ("few-labels-airbus", "ds2d2-40,1,40,91.8,50.8", "ds2d2-40,1,40,91.8,51.8", "few-labels.svg unlabeled.md"),
    ],
)
def test_a_changed_run_changes_pages_and_pictures(name, run, changed, stale, tables, tmp_path):
    folder = shutil.copytree(FOLDER, tmp_path / "results")
    path = folder / f"{name}.csv"
    text = path.read_text()
    assert run in text
    path.write_text(text.replace(run, changed))
    found = {path.name for path, text in tables["outputs"](folder).items() if path.read_text() != text}
    assert found == set(stale.split())


@pytest.mark.parametrize("metric", ["AP50", "AP50-95"])
def test_an_interval_is_that_of_students_t(metric, tables):
    values = {
        method: np.array([float(row[metric]) for row in runs(FOLDER / "yolo11-airbus.csv") if row["method"] == method
                          and row["seed"].isdigit()])
        for method in ("plain", "ds2d2")
    }  # fmt: skip
    pairs = values["ds2d2"] - values["plain"]
    low, high = t.interval(0.95, len(pairs) - 1, pairs.mean(), pairs.std(ddof=1) / np.sqrt(len(pairs)))
    section = PAGES["yolo11"].split("## Airbus")[1]
    assert len(pairs) == 5
    assert f"{pairs.mean():+.1f} [{low:+.1f}, {high:+.1f}]" in re.findall(r"^\| DS2D2 \|.*", section, re.MULTILINE)[0]


def test_every_csv_is_described_and_shown():
    described = yaml.safe_load((FOLDER / "experiments.yaml").read_text(encoding="utf-8"))
    assert set(described) == {path.stem for path in CSVS}
    for name in described:
        assert any(f"<!-- facts {name} -->" in text for text in PAGES.values()), f"no page has the facts of {name}"


@pytest.mark.parametrize("path", CSVS, ids=lambda path: path.stem)
def test_every_run_is_on_a_page(path, tables):
    shown = "\n".join(PAGES.values())
    for row in runs(path):
        if row["seed"].isdigit() and row["method"] != "teacher":
            blocks = re.findall(rf"<!-- (?:seeds {path.stem} .*?\b{row['method']}\b|rows {path.stem}).*?-->", shown)
            assert blocks, f"{row['method']}, seed {row['seed']}"


@pytest.mark.parametrize("path", CSVS, ids=lambda path: path.stem)
def test_runs_are_whole_and_named_once(path):
    rows = runs(path)
    keys = [(row["method"], row["seed"]) for row in rows]
    assert len(set(keys)) == len(keys)
    for row in rows:
        assert re.fullmatch(r"\d+|mean (\d+-\d+|\d+(, ?\d+)*)", row["seed"])
        found = {name: float(row[name]) for name in row if name.startswith("AP") and row[name]}
        assert all(0 <= value <= 100 for value in found.values())
        assert found.get("AP50-95", 0) <= found.get("AP50", 100)


def test_results_are_summarised_on_one_page():
    prose = [line for line in PAGES["index"].splitlines() if not line.startswith(("|", "<!--", "!["))]
    assert len(" ".join(prose).split()) <= 700
