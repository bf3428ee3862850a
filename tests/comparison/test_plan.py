"""Comparisons that cannot be run are refused before anything is written. The others are planned."""

import shutil

import pytest
from training_helpers import small_yolo, tiny_yaml, write_data

from ds2d2_yolo.comparison.plan import plan_comparison
from ds2d2_yolo.errors import DS2D2Error


@pytest.mark.parametrize(
    ("changes", "message", "code"),
    [
        ({"methods": "plain,ds2d3"}, "methods=ds2d3: no such method; did you mean ds2d2", 2),
        ({"methods": "xyz"}, "methods=xyz: no such method; there are plain, builtin", 2),
        ({"methods": ""}, "methods= names no method", 2),
        ({"methods": "plain,ds2d2,plain"}, "'plain' is named twice", 2),
        ({"methods": "nowhere.yaml"}, "methods=nowhere.yaml: cannot be read", 2),
        ({"seeds": ""}, "seeds= names no seed", 2),
        ({"seeds": (0, 1, 0)}, "seed 0 is named twice", 2),
        ({"seeds": "0,x"}, "'x' is no seed", 2),
        ({"seeds": -1}, "'-1' is no seed", 2),
        ({"seeds": True}, "seeds=True: expected", 2),
        ({"seed": 4}, "seed=4: a comparison has several seeds; leave seed= out", 2),
        ({"batch": -1}, "batch=-1: methods would get different batches", 2),
        ({"seedz": 0}, "seedz=0: no such argument, did you mean seeds", 2),
        ({"method": "plain"}, "method=plain: no such argument, did you mean methods", 2),
        ({"xyzzy": 1}, "xyzzy=1: no such argument, see 'ds2d2 cfg compare' and 'ds2d2 cfg'", 2),
        ({"ray": "auto", "ray_cpus": 0}, "ray_cpus=0: expected a number of CPU cores", 2),
        ({"ray": "auto", "ray_gpus": -0.5}, "ray_gpus=-0.5: expected a number of GPUs", 2),
        ({"ray": "auto", "ray_gpus": True}, "ray_gpus=True: expected a number of GPUs", 2),
        ({"distill_model": "x.pt"}, "distill_model=x.pt: is Ultralytics' own distillation", 2),
        ({"wavelet": "nowave"}, "nowave", 2),
        ({"teacher": "-"}, "teacher= is missing", 2),
        ({"student": "-"}, "student= is missing", 2),
        ({"data": "-"}, "data= is missing", 2),
        ({"amplifier": "nowhere.pt"}, "amplifier=nowhere.pt: no such file", 1),
        ({"teacher": "yolov8n.yaml"}, "belongs to a trained teacher", 1),
    ],
)
def test_mistakes_are_reported_before_anything_is_written(changes, message, code, request_of, tmp_path):
    given = request_of(**{"project": str(tmp_path / "project"), "methods": "plain,ds2d2", "seeds": 0, **changes})
    with pytest.raises(DS2D2Error) as raised:
        plan_comparison(given)
    assert message in str(raised.value)
    assert raised.value.exit_code == code
    assert not (tmp_path / "project").exists()


def test_data_without_validation_images_are_refused(request_of, data, tmp_path):
    path = tmp_path / "no_val.yaml"
    path.write_text(f"path: {data.parent}\ntrain: images/train\nnames: [ship, vehicle]\n")
    with pytest.raises(DS2D2Error, match="the line 'val:' is missing"):
        plan_comparison(request_of(project=str(tmp_path / "project"), data=str(path)))
    assert not (tmp_path / "project").exists()


@pytest.mark.slow
def test_ultralytics_distillation_is_refused_where_it_fails(request_of, tmp_path):
    models = {"teacher": str(tiny_yaml(tmp_path, "RetinaNet", "big")), "student": str(tiny_yaml(tmp_path, "RetinaNet"))}
    given = request_of(project=str(tmp_path / "project"), amplifier="-", pretrained=False, **models)
    with pytest.raises(DS2D2Error, match=r"methods=builtin: Ultralytics' own distillation is for YOLO models, .*leave"):
        plan_comparison({**given, "methods": "plain,builtin,ds2d2"})
    assert [method.name for method in plan_comparison({**given, "methods": "plain,ds2d2"}).methods] == [
        "plain",
        "ds2d2",
    ]
    assert not (tmp_path / "project").exists()


def test_without_ray_one_line_says_how_to_get_it(request_of, tmp_path, monkeypatch):
    monkeypatch.setattr("ds2d2_yolo.comparison.processes.find_spec", lambda name: None)
    with pytest.raises(DS2D2Error, match=r"ray=auto: Ray is not installed; run \"pip install 'ds2d2-yolo\[ray\]'\""):
        plan_comparison(request_of(project=str(tmp_path), ray="auto"))


@pytest.mark.parametrize(
    ("argument", "message"),
    [("im_full: -1", "im_full=-1: expected a number"), ("epochs: 0", "'epochs=0' is an invalid value")],
)
def test_a_wrong_value_names_its_method(argument, message, request_of, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(f"mine: {{{argument}}}\n")
    with pytest.raises(DS2D2Error, match=f"method mine: {message}"):
        plan_comparison(request_of(project=str(tmp_path / "project"), methods=str(path)))


def test_a_method_with_a_teacher_of_no_common_grid_is_refused(request_of, tmp_path):
    (tmp_path / "mine.yaml").write_text("mine: {teacher_imgsz: 96}\n")
    given = request_of(project=str(tmp_path / "project"), methods=str(tmp_path / "mine.yaml"))
    with pytest.raises(DS2D2Error, match=r"teacher_imgsz=96: is 1\.5 times imgsz=64"):
        plan_comparison(given)


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("teacher-assignment", "assignment=teacher: .* leave assignment= out, or leave teacher-assignment out of"),
        ("{gains: reference}", "gains=reference: the paper's authors have none for YOLO"),
        ("{assignment: teacher}", "assignment=teacher: .* cannot assign objects"),
        ("{footprint: hull}", "footprint=hull: is for oriented boxes"),
    ],
)
def test_a_method_that_the_models_cannot_do_is_refused(method, message, request_of, tmp_path):
    """Before the others are trained."""
    models = {
        role: str(small_yolo(tmp_path, role, width, "segment")) for role, width in (("teacher", 32), ("student", 16))
    }
    (tmp_path / "mine.yaml").write_text(f"mine: {method}\n")
    methods = f"plain,{tmp_path / 'mine.yaml' if method.startswith('{') else method}"
    data = str(write_data(tmp_path / "set", train=2, val=2, task="segment"))
    given = request_of(project=str(tmp_path / "project"), amplifier="-", data=data, methods=methods, **models)
    with pytest.raises(DS2D2Error, match=f"method (mine|{method}): {message}"):
        plan_comparison(given)


def test_a_method_with_its_own_epochs_has_a_whole_schedule(request_of, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("long: {distil: none, epochs: 12}\nshort: {epochs: 2, wavelet: db2}\n")
    given = request_of(project=str(tmp_path), methods=f"plain,builtin,{path}", epochs=8, lr_steps=[4, 6])
    comparison = plan_comparison(given)
    schedules = []
    for method in comparison.methods:
        arguments = comparison.arguments_of(method, "t.pt", None)
        schedules.append((arguments["epochs"], arguments["lr_steps"]))
    assert schedules == [(8, [4, 6]), (8, [4, 6]), (12, [6, 9]), (2, [1, 1.5])]


@pytest.mark.parametrize("split", ["val", "test"])
def test_corrected_labels_make_another_comparison(split, request_of, tmp_path):
    path = write_data(tmp_path / "set", train=2, val=2)
    for kind in ("images", "labels"):
        shutil.copytree(path.parent / kind / "val", path.parent / kind / "test")
    path.write_text(path.read_text() + "test: images/test\n")
    given = request_of(project=str(tmp_path / "project"), data=str(path), split=split)
    before = plan_comparison(given).folder
    (path.parent / "labels" / "test" / "0.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    assert (plan_comparison(given).folder == before) is (split == "val")
