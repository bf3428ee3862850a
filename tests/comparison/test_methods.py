"""Methods from the shipped file and from files of the user."""

import pytest
from ultralytics.utils import YAML

from ds2d2_yolo.comparison.methods import read_methods
from ds2d2_yolo.errors import DS2D2Error
from ds2d2_yolo.resources import resource_folder
from ds2d2_yolo.training.arguments import check_arguments


def test_every_shipped_method_is_valid_and_documented():
    file = resource_folder("cfg") / "methods.yaml"
    methods = {method.name: method for method in read_methods(",".join(set(YAML.load(file)) - {"no-disw"}))}
    assert methods["plain"].distil == "none"
    assert methods["builtin"].distil == "ultralytics"
    assert methods["ds2d2"].arguments == {}
    terms = {"ex_low", "ex_high", "im_full", "im_high", "response"}
    for name in terms:
        assert methods[name].arguments == dict.fromkeys(terms - {name}, 0)
    assert methods["assignment"].arguments == {**dict.fromkeys(terms, 0), "assignment": "teacher"}
    for method in methods.values():
        check_arguments({"teacher": "t.pt", "model": "s.yaml", **method.arguments})
    assert YAML.load(file)["no-disw"] == {"weight": "none"}


def test_a_file_of_the_user_names_methods_as_the_shipped_one(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("strong: {im_full: 10}\nds2d2:\nharder: {distil: ultralytics, dis: 12}\n")
    methods = read_methods(["plain", str(path)])
    assert [method.name for method in methods] == ["plain", "strong", "ds2d2", "harder"]
    assert methods[1].arguments == {"im_full": 10}
    assert methods[2].arguments == {}
    assert (methods[3].distil, methods[3].arguments) == ("ultralytics", {"dis": 12})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a: [1]\n", "method a is .* expected its arguments"),
        ("[a, b]\n", "cannot be read"),
        ("", "has no methods"),
        ("a: {\n", "cannot be read"),
        ("a: {distil: maybe}\n", "distil=maybe: expected none, ultralytics or ds2d2"),
        ("a: {lr0: 0.1}\n", "lr0=0.1: all methods of a comparison share it; pass it on the command line"),
        ("a: {distil: none, im_full: 1}\n", "im_full=1: only with distil=ds2d2, and this is distil=none; leave"),
        ("a: {im_hgih: 5}\n", "im_hgih=5: no such argument, did you mean im_high"),
        ("a: {xyzzy: 5}\n", "xyzzy=5: no such argument, set one of adapters, amplifier_epochs"),
        ("a:\n", "methods=a: no such method"),
        ("lr/2: {im_full: 3}\n", "'lr/2': cannot be the name of a run's folder; choose another, such as lr-2"),
        ("../x: {im_full: 3}\n", "'../x': cannot be the name .* such as ..-x"),
        ("plain: {epochs: 2}\n", r"plain: is a shipped .* such as plain-2: \{ distil: none, epochs: 2 \}"),
        ("ds2d2: {im_full: 5}\n", r"ds2d2: is a shipped .* such as ds2d2-2: \{ distil: ds2d2, im_full: 5 \}"),
        ("plain: {distil: none}\nb: {teacher: x.pt}\n", "teacher=x.pt: all methods of a comparison share it"),
    ],
)
def test_files_that_are_no_methods_are_refused(content, message, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(content)
    with pytest.raises(DS2D2Error, match=message):
        read_methods(str(path))
