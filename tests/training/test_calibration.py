"""Automatic gains: the share of the gradient that a term gets, the time of calibration, and saved gains."""

import math
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from ultralytics.utils import YAML

from ds2d2_yolo.errors import DS2D2Error
from ds2d2_yolo.method import Gains
from ds2d2_yolo.training.arguments import check_arguments
from ds2d2_yolo.training.calibration import Calibration, ShareMeter, gradient_norms
from ds2d2_yolo.training.checks import with_reference_gains
from ds2d2_yolo.training.student import _keep_gains

RUN = {"teacher": "yolo11s.pt", "student": "yolo11n.yaml"}
POSITIVE = st.floats(1e-6, 1e6)


def maps_of(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.rand(2, 3, size, size, generator=generator, requires_grad=True) for size in (8, 4)]


def pull(maps, strength):
    """A loss whose gradient with respect to all maps has the norm `strength`."""
    count = sum(x.numel() for x in maps)
    return sum(x.sum() for x in maps) * strength / math.sqrt(count)


@settings(max_examples=25)
@given(share=st.floats(0.01, 100), detection=POSITIVE, term=POSITIVE)
def test_a_term_gets_its_share_of_the_gradient(share, detection, term):
    maps, calibration = maps_of(), Calibration({"im_full": share}, batches=1)
    calibration.observe(pull(maps, detection), {"im_full": pull(maps, term)}, maps)
    value = calibration.gains["im_full"] * pull(maps, term)
    norm = torch.stack([g.norm() for g in torch.autograd.grad(value, maps)]).norm().item()
    assert norm == pytest.approx(share * detection, rel=1e-3)  # gains have four digits


def test_gains_stand_on_the_mean_of_all_batches():
    maps, calibration = maps_of(), Calibration({"ex_low": 1.0}, batches=2)
    calibration.observe(pull(maps, 1.0), {"ex_low": pull(maps, 2.0)}, maps)
    assert (calibration.gains, calibration.finished) == ({"ex_low": pytest.approx(0.5)}, False)
    calibration.observe(pull(maps, 5.0), {"ex_low": pull(maps, 1.0)}, maps)
    assert (calibration.gains, calibration.finished) == ({"ex_low": pytest.approx(2.0)}, True)


@pytest.mark.parametrize("strength", [math.nan, math.inf])
def test_a_batch_that_is_not_finite_is_passed_over(strength):
    maps, calibration = maps_of(), Calibration({"ex_low": 1.0}, batches=5)
    calibration.observe(pull(maps, 1.0), {"ex_low": pull(maps, 4.0)}, maps)
    calibration.observe(pull(maps, strength), {"ex_low": pull(maps, 4.0)}, maps)
    calibration.observe(pull(maps, 1.0), {"ex_low": pull(maps, strength)}, maps)
    assert (calibration.gains, calibration.batches) == ({"ex_low": pytest.approx(0.25)}, 1)


def test_running_gains_go_on_and_forget_slowly():
    maps, calibration = maps_of(), Calibration({"ex_low": 1.0}, batches=1, is_running=True)
    calibration.observe(pull(maps, 1.0), {"ex_low": pull(maps, 2.0)}, maps)
    assert calibration.finished
    gain, gains = calibration.gains["ex_low"], []
    for _ in range(60):  # the gradient of the term falls to a tenth
        calibration.follow({"": torch.tensor(1.0), "ex_low": torch.tensor(0.2 * gain)}, {"ex_low": gain})
        gain = calibration.gains["ex_low"]
        gains.append(gain)
    assert gains[0] == pytest.approx(1 / (0.9 * 2 + 0.1 * 0.2), rel=1e-3)
    assert gains == sorted(gains)
    assert gains[-1] == pytest.approx(1 / 0.2, rel=0.05)
    calibration.follow({"": torch.tensor(math.nan), "ex_low": torch.tensor(1.0)}, calibration.gains)
    assert calibration.gains["ex_low"] == gains[-1]


def test_running_gains_go_on_from_their_state():
    maps, calibration = maps_of(), Calibration({"ex_low": 1.0, "response": 2.0}, batches=5, is_running=True)
    calibration.observe(pull(maps, 3.0), {"ex_low": pull(maps, 2.0), "response": pull(maps, 0.7)}, maps)
    calibration.finish()  # the first epoch has ended
    resumed = Calibration({"ex_low": 1.0, "response": 2.0}, batches=5, is_running=True)
    resumed.restore(calibration.state())
    norms = {"": torch.tensor(0.3), "ex_low": torch.tensor(1.1), "response": torch.tensor(0.4)}
    for either in (calibration, resumed):
        either.follow(norms, either.gains)
    assert resumed.gains == calibration.gains
    assert resumed.finished


def test_nothing_measured_is_nothing_finished():
    calibration = Calibration({"ex_low": 1.0}, batches=5)
    calibration.finish()
    assert not calibration.finished
    maps = maps_of()
    calibration.observe(pull(maps, 1.0), {"ex_low": pull(maps, 1.0)}, maps)
    calibration.finish()
    assert calibration.finished


def test_a_term_without_gradient_keeps_its_share_as_gain():
    maps, calibration = maps_of(), Calibration({"ex_low": 0.3, "im_full": 1.0}, batches=1)
    calibration.observe(pull(maps, 1.0), {"ex_low": torch.tensor(2.0), "im_full": pull(maps, 1.0)}, maps)
    assert calibration.gains == {"ex_low": 0.3, "im_full": pytest.approx(1.0)}


def test_gradients_beyond_the_range_of_float16_are_measured():
    """Each of the 65,536 elements of the gradient is about 4e-8: in float16 it becomes 5.96e-8 or 0."""
    small = torch.ones(1, 1, 256, 256, dtype=torch.float16, requires_grad=True)
    calibration = Calibration({"ex_low": 1.0}, batches=1)
    value = (small.float() * 4e-8).sum()
    calibration.observe(value, {"ex_low": 2 * value}, [small])
    assert calibration.gains["ex_low"] == pytest.approx(0.5, rel=1e-2)


def test_numbers_win_and_what_is_unset_is_calibrated():
    args = check_arguments({**RUN, "ex_high": 0.2, "im_full": 0, "shares": [1, 2, 3, 4, 5]})
    assert args.gains == Gains(1.0, 0.2, 0.0, 4.0, 5.0)
    assert args.shares == {"ex_low": 1.0, "im_high": 4.0, "response": 5.0}


def test_without_an_amplifier_its_term_is_not_calibrated():
    assert "im_high" not in check_arguments({**RUN, "amplifier": None}).shares


def test_reference_gains_are_the_authors_where_nothing_is_given():
    args = check_arguments({**RUN, "gains": "reference", "ex_low": 0.1})
    args = with_reference_gains(args, SimpleNamespace(family="FasterRCNN", reference_gains=Gains(0.5, 0.5, 1e-5, 1e-5)))
    assert args.gains == Gains(0.1, 0.5, 1e-5, 1e-5)
    assert (args.response, args.sum_regions, args.weight, args.shares) == (0, True, "disw", {})


def test_reference_gains_are_refused_where_there_are_none():
    with pytest.raises(DS2D2Error, match="gains=reference: the paper's authors have none for YOLO; pass gains=auto"):
        with_reference_gains(
            check_arguments({**RUN, "gains": "reference"}), SimpleNamespace(family="YOLO", reference_gains=None)
        )


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"gains": "best"}, "gains=best: expected auto or running or reference"),
        ({"weight": "area"}, "weight=area: expected confidence or disw or none"),
        ({"assignment": "both"}, "assignment=both: expected student or teacher"),
        ({"shares": 0.5}, "shares=0.5: expected numbers >= 0 for ex_low, ex_high, im_full, im_high, response"),
        ({"shares": [1, 1, 1, 1]}, r"shares=\[1, 1, 1, 1\]: expected numbers"),
        ({"shares": [1, 1, 1, 1, -1]}, "expected numbers >= 0"),
        ({"shares": [1, 1, 1, 1, True]}, "expected numbers >= 0"),
    ],
)
def test_mistakes_get_one_line(given, message):
    with pytest.raises(DS2D2Error, match=message):
        check_arguments({**RUN, **given})


def test_shares_are_ratios_of_gradients_by_level_and_in_all():
    maps, meter = maps_of(), ShareMeter(["8", "16"])
    meter.observe(
        3 * maps[0].sum() + 4 * maps[1].sum(), {"ex_low": 6 * maps[0].sum(), "im_full": 2 * maps[1].sum()}, maps
    )
    sizes = [math.sqrt(x.numel()) for x in maps]
    whole = math.hypot(3 * sizes[0], 4 * sizes[1])
    assert meter.shares(["ex_low", "im_full"]) == pytest.approx(
        {
            **{"share/ex_low": 6 * sizes[0] / whole, "share/ex_low/8": 6 * sizes[0] / whole, "share/ex_low/16": 0},
            **{"share/im_full": 2 * sizes[1] / whole, "share/im_full/8": 0, "share/im_full/16": 2 * sizes[1] / whole},
        }
    )


def test_squares_of_shares_add_up_beyond_the_detection_loss():
    maps, meter = maps_of(), ShareMeter(["8", "16"])
    meter.observe(maps[0].sum(), {"ex_low": maps[0].sum() + 3 * maps[1].sum()}, maps)
    shares = meter.shares(["ex_low"])
    assert shares["share/ex_low/16"] > 0
    assert math.hypot(shares["share/ex_low/8"], shares["share/ex_low/16"]) == pytest.approx(shares["share/ex_low"])


def test_maps_of_one_stride_are_one_level():
    maps, meter = maps_of(), ShareMeter(["8", "8"])
    meter.observe(pull(maps, 2.0), {"ex_low": pull(maps, 1.0)}, maps)
    assert meter.shares(["ex_low"]) == pytest.approx({"share/ex_low": 0.5, "share/ex_low/8": 0.5})


def test_one_batch_in_fifty_is_measured_anew_in_each_epoch():
    meter = ShareMeter(["8", "16"], every=50)
    assert [batch for batch in range(120) if meter.is_due()] == [0, 50, 100]
    maps = maps_of()
    meter.observe(pull(maps, 1.0), {"ex_low": pull(maps, 1.0)}, maps)
    meter.start_epoch()
    assert meter.is_due()
    assert all(math.isnan(share) for share in meter.shares(["ex_low"]).values())
    assert all(ShareMeter(["8"], every=1).is_due() for _ in range(3))


@pytest.mark.parametrize("strength", [math.nan, math.inf])
def test_shares_of_a_batch_that_is_not_finite_do_not_count(strength):
    maps, meter = maps_of(), ShareMeter(["8", "16"])
    for own in (1.0, strength):
        meter.observe(pull(maps, 2.0), {"ex_low": pull(maps, own)}, maps)
    assert meter.shares(["ex_low"])["share/ex_low"] == pytest.approx(0.5)


def test_autocast_does_not_round_measured_gradients():
    x, weight = torch.randn(3, 4, 5, requires_grad=True), torch.randn(5, 6)
    value = (x @ weight).sum()
    with torch.autocast("cpu", torch.bfloat16):
        measured = gradient_norms(value, [x])
    torch.testing.assert_close(measured, gradient_norms(value, [x]), rtol=0, atol=0)


def test_measuring_shares_leaves_parameter_gradients_alone():
    layer = torch.nn.Conv2d(3, 4, 1)
    maps = [layer(torch.rand(1, 3, 8, 8))]
    meter = ShareMeter(["8"])
    meter.observe(maps[0].square().sum(), {"ex_low": maps[0].sum()}, maps)
    assert layer.weight.grad is None
    maps[0].sum().backward()  # the graph still exists


def test_without_any_gradient_shares_are_unknown():
    meter = ShareMeter(["8"])
    meter.observe(torch.ones(()), {"ex_low": torch.ones(())}, [torch.ones(1, 1, 2, 2)])
    assert all(math.isnan(share) for share in meter.shares(["ex_low"]).values())


def test_a_kill_while_gains_are_saved_leaves_the_old_arguments(tmp_path, monkeypatch):
    """A resumed run reads them."""
    arguments = tmp_path / "args.yaml"
    arguments.write_text("im_full: null\n")

    def stop(file, data):
        file.write_text("im_")
        raise KeyboardInterrupt

    monkeypatch.setattr(YAML, "save", stop)
    trainer = SimpleNamespace(args=SimpleNamespace(im_full=None), save_dir=tmp_path)
    calibration = SimpleNamespace(is_running=False, shares=["im_full"], finish=lambda: None, gains={"im_full": 2.0})
    with pytest.raises(KeyboardInterrupt):
        _keep_gains(calibration, trainer)
    assert arguments.read_text() == "im_full: null\n"
