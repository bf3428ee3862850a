"""The four terms together: computed terms, their maps and their adapters."""

import pytest
import torch
from torch import nn

from ds2d2_yolo.method import (
    TERMS,
    DS2D2Loss,
    Gains,
    HeadComparison,
    LossInputs,
    TappedMaps,
    high_frequency_map,
)

STUDENT, TEACHER = (4, 8), (6, 8)


@pytest.fixture
def maps():
    student = [torch.randn(2, c, s, s, requires_grad=True) for c, s in zip(STUDENT, (9, 4), strict=True)]
    teacher = [torch.randn(2, c, s, s) for c, s in zip(TEACHER, (9, 4), strict=True)]
    return student, teacher


def no_boxes():
    return torch.empty(0, 4), torch.empty(0), (72, 72)


class Squared(HeadComparison):
    def full(self, student_maps, teacher_maps):
        return sum((a - b).square().sum() for a, b in zip(student_maps, teacher_maps, strict=True))

    high = full

    def response(self):
        return torch.tensor(3.0)


@pytest.mark.parametrize("name", TERMS)
def test_gains_scale_their_own_term(maps, name):
    values = []
    for gain in (1.0, 2.5):
        torch.manual_seed(0)
        loss = DS2D2Loss(TappedMaps.of_neck(STUDENT, TEACHER), Gains(**{name: gain}))
        terms = loss(LossInputs(*maps, *no_boxes(), heads=Squared()))
        assert list(terms) == [name]
        assert terms[name].dim() == 0
        values.append(terms[name].item())
    assert values[1] == pytest.approx(2.5 * values[0], rel=1e-5)
    assert values[0] > 0


def test_implicit_terms_take_raw_maps_where_channels_agree(maps):
    student, teacher = maps
    loss = DS2D2Loss(TappedMaps.of_neck(STUDENT, TEACHER), Gains(1.0, 1.0, 1.0, 1.0))
    given = {}

    class Kept(HeadComparison):
        def full(self, *maps):
            given["full"] = maps
            return maps[0][0].sum()

        def high(self, *maps):
            given["high"] = maps
            return maps[0][0].sum()

    loss(LossInputs(student, teacher, *no_boxes(), heads=Kept()))
    adapted = loss.adapters[0](student[0])
    torch.testing.assert_close(given["full"][0][0], adapted)
    assert given["full"][0][1] is student[1]
    torch.testing.assert_close(given["high"][0][0], high_frequency_map(adapted))
    torch.testing.assert_close(given["high"][1][1], high_frequency_map(teacher[1]))


def test_adapters_exist_where_a_term_needs_them():
    levels = TappedMaps.of_neck(STUDENT, TEACHER)
    assert [type(a) for a in DS2D2Loss(levels, Gains(im_full=1.0)).adapters] == [nn.Conv2d, nn.Identity]
    assert [type(a) for a in DS2D2Loss(levels, Gains(ex_low=1.0)).adapters] == [nn.Conv2d, nn.Conv2d]
    separate = TappedMaps((4, 8, 5), (4, 8, 7), explicit=(2,), head=(0, 1))
    loss = DS2D2Loss(separate, Gains(ex_low=1.0, im_full=1.0))
    assert [type(a) for a in loss.adapters] == [nn.Identity, nn.Identity, nn.Conv2d]


def test_separate_maps_serve_separate_terms():
    student = [torch.zeros(1, 4, 8, 8), torch.ones(1, 5, 4, 4)]
    teacher = [torch.ones(1, 4, 8, 8), torch.zeros(1, 5, 4, 4)]
    levels = TappedMaps((4, 5), (4, 5), explicit=(1,), head=(0,))
    loss = DS2D2Loss(levels, Gains(ex_low=1.0, im_full=1.0))
    nn.init.dirac_(loss.adapters[1].weight)
    terms = loss(LossInputs(student, teacher, torch.empty(0, 4), torch.empty(0), (64, 64), heads=Squared()))
    assert terms["ex_low"].item() == pytest.approx(4.0)
    assert terms["im_full"].item() == pytest.approx(4 * 64)


def test_a_shared_adapter_is_one_parameter():
    loss = DS2D2Loss(TappedMaps.of_neck((16, 16), (16, 16)), Gains(ex_low=1.0), shared_adapter=True)
    assert len(list(loss.parameters())) == 1
    with pytest.raises(ValueError, match="same channels on every level"):
        DS2D2Loss(TappedMaps.of_neck(STUDENT, TEACHER), Gains(ex_low=1.0), shared_adapter=True)


@pytest.mark.slow
def test_compiles_to_one_graph(maps):
    student, teacher = maps
    loss = DS2D2Loss(TappedMaps.of_neck(STUDENT, TEACHER), Gains(1.0, 1.0, 1.0, 1.0))
    boxes, index = torch.rand(5, 4) * 72, torch.tensor([0, 0, 1, 1, 1])
    inputs = LossInputs(student, teacher, boxes, index, (72, 72), heads=Squared())
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")(inputs)
    for name, value in loss(inputs).items():
        torch.testing.assert_close(compiled[name], value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_works_under_autocast_with_all_terms(maps, dtype):
    student, teacher = maps
    loss = DS2D2Loss(TappedMaps.of_neck(STUDENT, TEACHER), Gains(1.0, 1.0, 1.0, 1.0))
    with torch.autocast("cpu", dtype):
        terms = loss(LossInputs(student, teacher, *no_boxes(), heads=Squared()))
    sum(terms.values()).backward()
    assert terms["ex_low"].dtype == torch.float32
    assert all(torch.isfinite(x.grad).all() and x.grad.any() for x in student)


@pytest.mark.parametrize(("term", "method"), [("im_full", "full"), ("im_high", "high"), ("response", "response")])
def test_a_gain_without_comparison_is_refused(maps, term, method):
    loss = DS2D2Loss(TappedMaps.of_neck(STUDENT, TEACHER), Gains(**{term: 1.0}))
    with pytest.raises(ValueError, match=f"{term} has a gain: LossInputs needs heads= with a method {method}"):
        loss(LossInputs(*maps, *no_boxes()))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((4,), (4, 8), (0,), (0,)), "1 maps, the teacher has 2"),
        (((4, 8), (4, 8), (2,), (0,)), "must index 2 maps"),
    ],
)
def test_levels_that_do_not_fit_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        TappedMaps(*arguments)


def test_focused_terms_average_where_the_teacher_is_confident(maps):
    """One confident cell per level: differences elsewhere do not count, and the size of the map does not matter."""
    student, teacher = maps
    sure = [torch.zeros(2, 1, *x.shape[2:]) for x in teacher]
    for grid in sure:
        grid[0, 0, :2, :2] = 1.0
    loss = DS2D2Loss(TappedMaps.of_neck(STUDENT, TEACHER), Gains(ex_low=1.0), weight="confidence")
    whole = loss(LossInputs(student, teacher, *no_boxes(), confidence=sure))["ex_low"]
    expected = sum(
        ((adapter(x) - y)[0, :, :2, :2].sum((1, 2)) / 2).square().mean()
        for adapter, x, y in zip(loss.adapters, student, teacher, strict=True)
    )
    torch.testing.assert_close(whole, expected)


def test_a_teacher_sure_of_nothing_gives_no_focused_term(maps):
    student, teacher = maps
    loss = DS2D2Loss(TappedMaps.of_neck(STUDENT, TEACHER), Gains(1.0, 1.0), weight="confidence")
    unsure = [torch.zeros(2, 1, *x.shape[2:]) for x in teacher]
    terms = loss(LossInputs(student, teacher, *no_boxes(), confidence=unsure))
    assert [v.item() for v in terms.values()] == [0.0, 0.0]


def test_without_weight_objects_do_not_matter(maps):
    torch.manual_seed(0)
    loss = DS2D2Loss(TappedMaps.of_neck(STUDENT, TEACHER), Gains(1.0, 1.0), weight="none")
    box, image = torch.tensor([[0.0, 0.0, 30.0, 30.0]]), torch.tensor([0])
    given, none = LossInputs(*maps, box, image, (72, 72)), LossInputs(*maps, *no_boxes())
    assert loss(given) == loss(none)
    loss.weight = "disw"
    assert loss(given)["ex_low"] > loss(none)["ex_low"]


def test_focus_needs_the_confidence(maps):
    loss = DS2D2Loss(TappedMaps.of_neck(STUDENT, TEACHER), Gains(1.0), weight="confidence")
    with pytest.raises(ValueError, match="needs the teacher's confidence"):
        loss(LossInputs(*maps, *no_boxes()))


def test_an_unknown_weight_is_refused():
    with pytest.raises(ValueError, match="weight=area: expected one of confidence, disw, none"):
        DS2D2Loss(TappedMaps.of_neck(STUDENT, TEACHER), Gains(1.0), weight="area")
