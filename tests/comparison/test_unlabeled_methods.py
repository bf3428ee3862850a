"""Methods that learn from images without labels, beside those that do not."""

import pytest
from training_helpers import describe_labels, tiny_yaml, write_data

from ds2d2_yolo.comparison.inputs import decisive_arguments, distillation_arguments, unlabeled_inputs
from ds2d2_yolo.comparison.jobs import run_comparison
from ds2d2_yolo.comparison.plan import plan_comparison
from ds2d2_yolo.errors import DS2D2Error
from ds2d2_yolo.loading.unlabeled import SET_FILE
from ds2d2_yolo.training.arguments import check_arguments

METHODS = "plain,builtin,self-training,ds2d2-labeled,ds2d2"


@pytest.fixture
def images(tmp_path):
    """A folder of three images, and a set with labels as the stage makes it."""
    write_data(tmp_path / "other", train=3, val=1, size=80)
    folder = tmp_path / "set"
    folder.mkdir()
    for kind in ("images", "labels"):
        (folder / kind).mkdir()
        for path in (tmp_path / "other" / kind / "train").iterdir():
            (folder / kind / path.name).write_bytes(path.read_bytes())
    return tmp_path / "other" / "images" / "train", describe_labels(folder, sorted((folder / "labels").iterdir()))


def test_each_method_has_the_images_that_it_is_about(request_of, tmp_path, images):
    comparison = plan_comparison(
        request_of(project=str(tmp_path / "runs"), methods=METHODS, unlabeled=str(images[0]), unlabeled_weight=0.3)
    )
    found = {}
    for method in comparison.methods:
        labels = "labels.json" if method.takes_unlabeled else None
        arguments = comparison.arguments_of(method, "t.pt", None, labels)
        found[method.name] = arguments.get("unlabeled", False), arguments.get("unlabeled_weight")
    assert found == {
        "plain": (False, None),
        "builtin": (False, None),
        "self-training": ("labels.json", 0.3),
        "ds2d2-labeled": (False, 0.3),
        "ds2d2": ("labels.json", 0.3),
    }


def test_methods_without_their_images_are_refused(request_of, tmp_path):
    with pytest.raises(DS2D2Error, match=r"methods=self-training: .* pass unlabeled=path/to/images"):
        plan_comparison(request_of(project=str(tmp_path / "runs"), methods="plain,self-training"))


def test_labels_may_come_from_another_family(request_of, tmp_path, images):
    """Nothing is compared with the teacher by these two methods."""
    given = request_of(project=str(tmp_path / "runs"), unlabeled=str(images[0]), pretrained=False, imgsz=128)
    other = given | {"teacher": str(tiny_yaml(tmp_path, "RetinaNet")), "amplifier": None}
    assert plan_comparison({**other, "methods": "plain,self-training"}).run.teacher.family == "RetinaNet"
    with pytest.raises(DS2D2Error, match="student is a YOLO"):
        plan_comparison({**other, "methods": "plain,self-training,ds2d2"})
    folders = {plan_comparison({**given, "methods": methods}).folder for methods in ("plain,self-training", METHODS)}
    assert len(folders) == 1  # with one more method it goes on in the same folder


def test_options_of_a_method_need_images(request_of, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("light: {unlabeled_weight: 0}\n")
    with pytest.raises(DS2D2Error, match=r"methods=light: .* pass unlabeled=path/to/images"):
        plan_comparison(request_of(project=str(tmp_path / "runs"), methods=str(path)))


def test_a_method_names_no_images_of_its_own(request_of, tmp_path, images):
    path = tmp_path / "mine.yaml"
    path.write_text(f"mine: {{unlabeled: {images[0]}}}\n")
    with pytest.raises(DS2D2Error, match="expected True or False"):
        plan_comparison(request_of(project=str(tmp_path / "runs"), methods=str(path)))


def test_comparisons_of_other_images_lie_apart(request_of, tmp_path, images):
    given = request_of(project=str(tmp_path / "runs"), methods="plain,ds2d2")
    folders = {plan_comparison({**given, **more}).folder for more in ({}, {"unlabeled": str(images[0])})}
    assert len(folders) == 2


def test_labels_shape_a_run_and_their_place_does_not(images, tmp_path):
    with_labels = check_arguments({"model": "yolo11n.yaml", "unlabeled": str(images[1])})
    plain = check_arguments({"model": "yolo11n.yaml"})
    assert decisive_arguments(with_labels) == decisive_arguments(plain)
    assert distillation_arguments(with_labels) == distillation_arguments(plain)
    assert unlabeled_inputs(plain) == {}
    inputs = unlabeled_inputs(with_labels)
    moved = images[1].parent.rename(tmp_path / "moved") / SET_FILE
    assert unlabeled_inputs(with_labels.replace(unlabeled=str(moved))) == inputs
    assert unlabeled_inputs(with_labels.replace(unlabeled=str(moved), unlabeled_weight=0.1)) != inputs


@pytest.mark.slow
def test_self_training_is_run_and_found_again(request_of, tmp_path, images):
    given = request_of(project=str(tmp_path / "runs"), methods="plain,self-training", seeds=0, unlabeled=str(images[1]))
    results = run_comparison(plan_comparison(given))
    assert results.methods == ["plain", "self-training"]
    of_plain, of_other = (results.runs_of(name)[0] for name in results.methods)
    assert "unlabeled" not in of_plain["inputs"]
    assert of_other["inputs"]["unlabeled"]["weight"] == 0.5
    dates = [run["date"] for run in results.runs]
    assert [run["date"] for run in run_comparison(plan_comparison(given)).runs] == dates
