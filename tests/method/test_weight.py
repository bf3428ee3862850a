"""DISW: against the reference, against a plain loop, and its properties."""

import math

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ds2d2_yolo.method import density_independent_scale_weight, focus_weight


def weight_by_loop(boxes, batch_index, batch_size, input_size, grid_size):
    """The definition, box by box, in float64."""
    height, width = grid_size
    weight = torch.ones(batch_size, 1, height, width, dtype=torch.float64)
    for (x1, y1, x2, y2), image in zip(boxes.double().tolist(), batch_index.tolist(), strict=True):
        if any(math.isnan(v) or math.isinf(v) for v in (x1, y1, x2, y2)):
            continue
        left = max(0, math.floor(x1 * (width / input_size[1])))
        right = min(width - 1, math.ceil(x2 * (width / input_size[1])))
        top = max(0, math.floor(y1 * (height / input_size[0])))
        bottom = min(height - 1, math.ceil(y2 * (height / input_size[0])))
        if right >= left and bottom >= top:
            cells = (right - left + 1) * (bottom - top + 1)
            weight[image, 0, top : bottom + 1, left : right + 1] += 1 / cells
    return weight


@pytest.mark.parametrize("detector", ["retina", "frcnn"])
@pytest.mark.parametrize("case", ["A", "Z"])
def test_agrees_with_the_reference(golden, detector, case):
    arrays = golden(f"explicit_{detector}")
    _, _, *size = arrays["src_size"].tolist()
    expected = [arrays[f"derived_fg_weight_float64_{case}_l{level}"] for level in range(5)]
    weights = density_independent_scale_weight(
        *arrays.boxes(case), 2, tuple(size), [tuple(w.shape[1:]) for w in expected]
    )
    for weight, reference in zip(weights, expected, strict=True):
        torch.testing.assert_close(weight[:, 0], reference, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("level", range(5))
def test_agrees_with_the_rounded_weights_of_the_reference(golden, level):
    arrays = golden("explicit_retina")
    expected = arrays[f"fg_weight_A_l{level}"]
    (weight,) = density_independent_scale_weight(*arrays.boxes("A"), 2, (256, 320), [tuple(expected.shape[1:])])
    torch.testing.assert_close(weight[:, 0], expected, rtol=5e-3, atol=0)


# Nothing is added where the reference crashes (right_touching, left, nan) or has negative weights (above).
@pytest.mark.parametrize(
    ("case", "total"),
    [
        ("right_touching", 0),
        ("right_far", 0),
        ("left", 0),
        ("left_touching", 1),
        ("above", 0),
        ("inverted", 1),
        ("inverted_far", 0),
        ("zero_area", 1),
        ("zero_area_on_grid", 1),
        ("exact_cell", 1),
        ("nan", 0),
    ],
)
def test_edge_cases(golden, case, total):
    arrays = golden("transform_bboxes_edge_cases")
    (weight,) = density_independent_scale_weight(arrays[f"{case}_box"], torch.zeros(1), 1, (256, 320), [(16, 20)])
    assert torch.isfinite(weight).all()
    assert (weight - 1).sum().item() == pytest.approx(total, abs=1e-4)
    if f"{case}_fg_weight" in arrays.names and case != "above":
        torch.testing.assert_close(weight[0, 0], arrays[f"{case}_fg_weight"], rtol=5e-3, atol=0)


coordinate = st.one_of(st.floats(-200, 900, width=32), st.sampled_from([math.nan, math.inf, -math.inf, 0.0, 640.0]))
boxes_strategy = st.lists(st.tuples(coordinate, coordinate, coordinate, coordinate, st.integers(0, 2)), max_size=12)


@given(
    entries=boxes_strategy,
    height=st.integers(1, 17),
    width=st.integers(1, 17),
    size=st.tuples(st.integers(1, 700), st.integers(1, 700)),
)
@example(entries=[(1.0, 1.0, math.inf, 5.0, 0)], height=4, width=4, size=(32, 32))
@settings(max_examples=150)
def test_agrees_with_a_loop_for_any_boxes(entries, height, width, size):
    finite = [entry for entry in entries if all(map(math.isfinite, entry[:4]))]
    boxes = torch.tensor([entry[:4] for entry in finite]).reshape(-1, 4)
    index = torch.tensor([entry[4] for entry in finite], dtype=torch.long)
    (weight,) = density_independent_scale_weight(boxes, index, 3, size, [(height, width)])
    torch.testing.assert_close(
        weight.double(), weight_by_loop(boxes, index, 3, size, (height, width)), rtol=1e-6, atol=1e-6
    )
    # the weight is finite even if boxes are not
    boxes, index = torch.tensor([entry[:4] for entry in entries]).reshape(-1, 4), torch.tensor([e[4] for e in entries])
    (weight,) = density_independent_scale_weight(boxes, index, 3, size, [(height, width)])
    assert torch.isfinite(weight).all()
    assert (weight >= 1).all()


@given(
    centre=st.tuples(st.floats(100, 500), st.floats(100, 500)),
    side=st.tuples(st.floats(0, 190), st.floats(0, 190)),
    neighbours=st.integers(0, 30),
)
@settings(max_examples=60)
def test_every_object_adds_one_whatever_its_size_and_neighbours(centre, side, neighbours):
    x, y, w, h = *centre, *side
    box = torch.tensor([[x - w / 2, y - h / 2, x + w / 2, y + h / 2]])
    boxes = torch.cat([box, box.repeat(neighbours, 1)])
    weights = density_independent_scale_weight(boxes, torch.zeros(len(boxes)), 1, (640, 640), [(40, 40), (7, 9)])
    for weight in weights:
        assert (weight.double() - 1).sum().item() == pytest.approx(1 + neighbours, abs=1e-3)


def test_order_of_boxes_does_not_change_a_bit():
    boxes = torch.rand(400, 4) * 600
    index = torch.randint(0, 4, (400,))
    order = torch.randperm(400)
    first = density_independent_scale_weight(boxes, index, 4, (640, 640), [(40, 40)])[0]
    second = density_independent_scale_weight(boxes[order], index[order], 4, (640, 640), [(40, 40)])[0]
    assert torch.equal(first, second)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_any_dtype_and_no_boxes(dtype):
    weights = density_independent_scale_weight(
        torch.empty(0, 4, dtype=dtype), torch.empty(0), 2, (64, 64), [(4, 4), (1, 1)]
    )
    assert [tuple(weight.shape) for weight in weights] == [(2, 1, 4, 4), (2, 1, 1, 1)]
    assert all(weight.dtype == torch.float32 and (weight == 1).all() for weight in weights)


def test_compiles_to_one_graph():
    boxes, index = torch.rand(9, 4) * 64, torch.zeros(9)
    compiled = torch.compile(density_independent_scale_weight, fullgraph=True, backend="aot_eager")
    arguments = (boxes, index, 1, (64, 64), [(4, 4)])
    assert torch.equal(compiled(*arguments)[0], density_independent_scale_weight(*arguments)[0])


def test_never_reads_values_on_the_host():
    # On the meta device there are no values: reading one raises an error.
    boxes, index = torch.empty(9, 4, device="meta"), torch.empty(9, device="meta")
    (weight,) = density_independent_scale_weight(boxes, index, 2, (64, 64), [(4, 4)])
    assert tuple(weight.shape) == (2, 1, 4, 4)


def test_refuses_other_shapes():
    with pytest.raises(ValueError, match=r"got \(3, 6\) and \(3,\)"):
        density_independent_scale_weight(torch.zeros(3, 6), torch.zeros(3), 1, (64, 64), [(4, 4)])


def test_focus_takes_the_surest_cell_of_each_larger_one():
    confidence = torch.zeros(1, 1, 5, 4)
    confidence[0, 0, 4, 3] = 0.7
    focused = focus_weight(torch.full((1, 1, 3, 2), 2.0), confidence)
    assert focused[0, 0].tolist() == [[0, 0], [0, 0], [0, pytest.approx(1.4)]]


@pytest.mark.parametrize("shapes", [((2, 1, 4, 4), (1, 1, 8, 8)), ((1, 3, 4, 4), (1, 3, 8, 8)), ((1, 4, 4), (1, 4, 4))])
def test_focus_refuses_shapes_that_do_not_fit(shapes):
    with pytest.raises(ValueError, match="focus_weight expects"):
        focus_weight(*(torch.ones(shape) for shape in shapes))
