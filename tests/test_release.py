"""Parts of a release beside the code: versions, packages, workflows."""

import re
from pathlib import Path

import pytest
import yaml

import ds2d2_yolo

ROOT = Path(__file__).parents[1]
PYPROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
WORKFLOWS = ROOT / ".github" / "workflows"


def test_the_changelog_begins_with_this_version_or_the_next():
    headings = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert ds2d2_yolo.__version__ in headings[:2]
    assert headings.index(ds2d2_yolo.__version__) == ("Unreleased" in headings)


def test_the_workflow_tries_both_ends_of_the_range():
    jobs = yaml.safe_load((WORKFLOWS / "checks.yml").read_text(encoding="utf-8"))["jobs"]
    oldest, newest = jobs["range"]["strategy"]["matrix"]["include"]
    first, after_last = re.findall(r'requires-python = ">=3\.(\d+),<3\.(\d+)"', PYPROJECT)[0]
    assert (oldest["python"], newest["python"]) == (f"3.{first}", f"3.{int(after_last) - 1}")
    for pin in oldest["pins"].split():
        name, version = pin.split("==")
        lowest = re.findall(rf'"{name}>=([\d.]+)', PYPROJECT)[0]
        assert version.removesuffix(".0") == lowest, f"{pin} is not the lower end"
    assert newest["pins"] == ""


@pytest.mark.parametrize("path", sorted(WORKFLOWS.glob("*.yml")), ids=lambda path: path.stem)
def test_workflows_call_scripts_that_exist(path):
    words = re.findall(r"(?:run|uses): (?:\./)?(\.(?:ci|github)/\S+)", path.read_text(encoding="utf-8"))
    assert words
    assert all((ROOT / word).is_file() for word in words)


def test_the_dockerfile_copies_what_the_wheel_is_made_of():
    copied = set(re.findall(r"[\w./]+", " ".join(re.findall(r"^COPY (.+) \S+$", dockerfile(), re.MULTILINE))))
    packages = re.findall(r'^packages = \["(.+)"\]', PYPROJECT, re.MULTILINE)
    included = re.findall(r'^"(.+)" = "ds2d2_yolo/', PYPROJECT, re.MULTILINE)
    assert copied == {"pyproject.toml", "README.md", "LICENSE", *packages, *included}


def test_the_docker_context_holds_what_is_copied():
    kept = re.findall(r"^!(.+)$", (ROOT / ".dockerignore").read_text(encoding="utf-8"), re.MULTILINE)
    assert set(kept) == set(re.findall(r"[\w.]+", " ".join(re.findall(r"^COPY (.+) \S+$", dockerfile(), re.MULTILINE))))


def dockerfile():
    return (ROOT / "Dockerfile").read_text(encoding="utf-8")
