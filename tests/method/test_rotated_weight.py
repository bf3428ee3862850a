"""DISW of oriented boxes: against a plain loop over boxes and cells, and its properties."""

import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ds2d2_yolo.method import density_independent_scale_weight


def margins(box, size, grid):
    """Distance of every cell's centre from the edge of the box, in pixels; negative outside."""
    x, y, w, h, angle = box
    columns, rows = np.meshgrid(
        (np.arange(grid[1]) + 0.5) * size[1] / grid[1] - x, (np.arange(grid[0]) + 0.5) * size[0] / grid[0] - y
    )
    along = columns * math.cos(angle) + rows * math.sin(angle)
    across = -columns * math.sin(angle) + rows * math.cos(angle)
    return np.minimum(w / 2 - abs(along), h / 2 - abs(across))


def weight_by_loop(boxes, images, count, size, grid):
    """The definition, box by box, for boxes with their centre in the image."""
    weight = np.ones((count, 1, *grid))
    for box, image in zip(boxes, images, strict=True):
        covered = margins(box, size, grid) >= 0
        if not covered.any():
            row, column = int(box[1] * grid[0] / size[0]), int(box[0] * grid[1] / size[1])
            covered[min(row, grid[0] - 1), min(column, grid[1] - 1)] = True
        weight[image, 0] += covered / covered.sum()
    return weight


def weigh(boxes, images=None, count=1, size=(640, 640), grid=(40, 40)):
    boxes = torch.as_tensor(boxes, dtype=torch.float64).reshape(-1, 5)
    images = torch.zeros(len(boxes)) if images is None else torch.as_tensor(images)
    return density_independent_scale_weight(boxes, images, count, size, [grid])[0]


side = st.one_of(st.floats(0, 400), st.sampled_from([0.0, 1.0, 16.0]))
turn = st.one_of(st.floats(-7, 7), st.sampled_from([0.0, math.pi / 4, math.pi / 2, math.pi, -math.pi / 2]))
entry = st.tuples(st.floats(0, 1), st.floats(0, 1), side, side, turn, st.integers(0, 2))


@given(
    entries=st.lists(entry, max_size=8),
    size=st.tuples(st.integers(8, 700), st.integers(8, 700)),
    grid=st.tuples(st.integers(1, 17), st.integers(1, 17)),
)
@settings(max_examples=100)
def test_agrees_with_a_loop_for_any_oriented_boxes(entries, size, grid):
    boxes = [(x * size[1], y * size[0], *rest) for x, y, *rest, _ in entries]
    images = [image for *_, image in entries]
    for box in boxes:  # rounding decides for centres on a side, and for boxes between two cells
        assume(np.abs(margins(box, size, grid)).min() > 1e-6)
        if not (margins(box, size, grid) >= 0).any():
            places = np.array(box[:2]) * grid[::-1] / size[::-1]
            assume(np.abs(places - places.round()).min() > 1e-9)
    expected = weight_by_loop(boxes, images, 3, size, grid)
    torch.testing.assert_close(weigh(boxes, images, 3, size, grid).double().numpy(), expected, rtol=1e-6, atol=1e-6)


@given(x=st.floats(-300, 900), y=st.floats(-300, 900), w=side, h=side, angle=turn)
@settings(max_examples=60)
def test_every_object_adds_one_that_shows_in_the_image(x, y, w, h, angle):
    reach_x = (abs(w * math.cos(angle)) + abs(h * math.sin(angle))) / 2
    reach_y = (abs(w * math.sin(angle)) + abs(h * math.cos(angle))) / 2
    gaps = (x + reach_x, 640 - x + reach_x, y + reach_y, 640 - y + reach_y)
    assume(min(map(abs, gaps)) > 1e-6)
    total = (weigh([(x, y, w, h, angle)]).double() - 1).sum().item()
    assert total == pytest.approx(1.0 if min(gaps) > 0 else 0.0, abs=1e-4)


@given(x=st.floats(0, 640), y=st.floats(0, 640), w=side, h=side, angle=st.floats(-3, 3))
@settings(max_examples=50)
def test_the_same_rectangle_written_otherwise_weighs_the_same(x, y, w, h, angle):
    box = (x, y, w, h, angle)
    assume(np.abs(margins(box, (640, 640), (40, 40))).min() > 1e-6)
    weight = weigh([box])
    assert torch.equal(weight, weigh([(x, y, w, h, angle + math.pi)]))
    assert torch.equal(weight, weigh([(x, y, h, w, angle + math.pi / 2)]))


def test_a_thin_diagonal_object_weighs_on_its_own_cells_alone():
    weight = weigh([(32.0, 32.0, 80.0, 6.0, math.pi / 4)], size=(64, 64), grid=(8, 8))[0, 0]
    assert torch.equal((weight > 1).nonzero(), torch.arange(8)[:, None].repeat(1, 2))
    assert weight.diagonal().tolist() == [1.125] * 8


def test_boxes_that_are_none_add_nothing():
    boxes = [(math.nan, 5, 9, 9, 0), (5, 5, math.inf, 9, 0), (5, 5, 9, 9, math.nan), (5, 5, -9, 9, 0), (5, 5, 9, -9, 1)]
    assert (weigh(boxes) == 1).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_any_dtype_and_no_oriented_boxes(dtype):
    weights = density_independent_scale_weight(torch.empty(0, 5, dtype=dtype), torch.empty(0), 2, (64, 64), [(4, 4)])
    assert weights[0].dtype == torch.float32
    assert (weights[0] == 1).all()


def test_order_of_oriented_boxes_does_not_change_a_bit():
    boxes, index = torch.rand(300, 5) * 300, torch.randint(0, 4, (300,))
    order = torch.randperm(300)
    first, second = (weigh(boxes[o], index[o], 4) for o in (torch.arange(300), order))
    assert torch.equal(first, second)


def test_oriented_boxes_compile_to_one_graph_without_host_reads():
    boxes, index = torch.rand(9, 5) * 64, torch.zeros(9)
    compiled = torch.compile(density_independent_scale_weight, fullgraph=True, backend="aot_eager")
    arguments = (boxes, index, 1, (64, 64), [(4, 4)])
    assert torch.equal(compiled(*arguments)[0], density_independent_scale_weight(*arguments)[0])
    # On the meta device there are no values: reading one raises an error.
    (weight,) = density_independent_scale_weight(boxes.to("meta"), index.to("meta"), 2, (64, 64), [(4, 4)])
    assert tuple(weight.shape) == (2, 1, 4, 4)
