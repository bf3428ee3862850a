"""Presets: their settings. Given arguments have priority, and `paper` is the published method."""

import pytest
from training_helpers import lively_model, save_checkpoint, short, small_yolo, tiny_yaml, write_data
from ultralytics.utils import DEFAULT_CFG_DICT, YAML

from ds2d2_yolo import plan
from ds2d2_yolo.comparison.methods import read_methods
from ds2d2_yolo.detectors import build_model, detector_of
from ds2d2_yolo.errors import DS2D2Error
from ds2d2_yolo.method import TERMS
from ds2d2_yolo.resources import resource_folder
from ds2d2_yolo.training.arguments import DEFAULTS, PRESETS, check_arguments, preset_arguments
from ds2d2_yolo.training.checks import with_reference_gains

RUN = {"teacher": "yolo11s.pt", "student": "yolo11n.yaml"}


def own(arguments):
    return {name: vars(arguments)[name] for name in DEFAULTS if name not in {"teacher", "preset"}}


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_sets_its_arguments_and_no_others(preset):
    changed = preset_arguments(preset)
    assert changed.keys() <= DEFAULTS.keys() - {"teacher", "amplifier", "preset"}
    assert own(check_arguments({**RUN, "preset": preset, "epochs": 10})) == own(check_arguments(RUN)) | changed


@pytest.mark.parametrize("epochs", [1, 2, 25, 100])
def test_a_preset_leaves_a_distilled_epoch(epochs):
    arguments = check_arguments({**RUN, "preset": "fast", "epochs": epochs})
    assert arguments.plain_epochs(epochs) == epochs // 2
    assert not arguments.is_plain(0)
    assert arguments.is_plain(epochs - 1) is (epochs > 1)


def test_what_is_given_wins_wherever_it_is_given():
    assert check_arguments({**RUN, "preset": "fast", "im_full": 2}).im_full == 2
    assert check_arguments({**RUN, "preset": "fast", "close_distill": 0}).close_distill == 0
    arguments = check_arguments(
        {**RUN, "im_full": 0.5}, cfg=DEFAULT_CFG_DICT | {"preset": "fast", "im_full": 2, "im_high": 3}
    )
    assert (arguments.gains.im_full, arguments.gains.im_high) == (0.5, 3)
    (method,) = read_methods("fast")
    arguments = check_arguments({**RUN, "preset": "paper", "im_high": 1, **method.arguments})
    assert (arguments.gains.im_full, arguments.gains.im_high, arguments.weight) == (0, 1, None)


def test_arguments_of_a_finished_run_stay_what_they_were():
    saved = vars(check_arguments({**RUN, "preset": "fast", "epochs": 10, "im_full": 1}))
    again = check_arguments({}, cfg=saved)
    assert own(again) == {name: saved[name] for name in own(again)}


def test_other_presets_are_refused():
    for wrong in ("quick", ["fast"], 1):
        with pytest.raises(DS2D2Error, match=r"preset=.*: expected paper or balanced or fast or self-training"):
            check_arguments({**RUN, "preset": wrong})


@pytest.mark.parametrize("family", ["RetinaNet", "FasterRCNN"])
def test_the_papers_preset_is_the_authors_recipe(family, tmp_path):
    recipe = YAML.load(resource_folder("cfg") / "recipes" / f"{family.lower()}_r101_r18_dior.yaml")
    teacher = detector_of(build_model(tiny_yaml(tmp_path, family), nc=2))
    shared = {**RUN, "epochs": 24}
    by_preset = with_reference_gains(check_arguments({**shared, "preset": "paper"}), teacher)
    by_recipe = check_arguments({**shared, **{key: value for key, value in recipe.items() if key in DEFAULTS} | RUN})
    assert by_preset.gains == by_recipe.gains
    names = ["weight", "adapters", "assignment", "wavelet", "distill_every", "im_every", "close_distill"]
    names += ["sum_regions"] if family == "FasterRCNN" else []
    assert [vars(by_preset)[name] for name in names] == [vars(by_recipe)[name] for name in names]
    assert by_recipe.gains.response == 0


def test_the_summary_shows_what_a_preset_has_set(tmp_path):
    teacher = save_checkpoint(lively_model(small_yolo(tmp_path, "big", 32)), tmp_path / "teacher.pt")
    given = {"teacher": str(teacher), "student": str(small_yolo(tmp_path)), "data": str(write_data(tmp_path / "set"))}
    given |= {**short(epochs=4), "project": str(tmp_path)}

    def line(**changes):
        planned = plan({**given, **changes})
        (told,) = (line for line in planned.summary() if "preset" in line)
        return planned, told.strip()

    planned, told = line(preset="fast")
    assert told == "preset fast: im_full=0, im_high=0, close_distill=0.5"
    assert planned.completed["close_distill"] == 0.5
    assert planned.states == {"teacher": "given"}  # no amplifier is trained
    assert line(preset="fast", im_full=1)[1].endswith("im_high=0, close_distill=0.5; changed: im_full=1")
    assert line(preset="balanced")[1] == "preset balanced: close_distill=0.5"
    assert line(preset="balanced", close_distill=0)[1] == "preset balanced: nothing; changed: close_distill=0"
    steps = [told.strip() for told in line(preset="fast", im_every=2)[0].summary() if "steps:" in told]
    assert steps == ["steps: no distillation in the last 2 of 4 epochs"]  # there are no implicit terms
    planned, told = line(preset="paper")
    assert told.endswith("; changed: gains=auto")  # the authors have none for YOLO
    assert planned.arguments.shares.keys() == set(TERMS) - {"response"}
    with pytest.raises(DS2D2Error, match="gains=reference: the paper's authors have none for YOLO"):
        plan({**given, "gains": "reference"})
