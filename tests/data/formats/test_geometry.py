import math

import cv2
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from ultralytics.data.utils import verify_image_label

from ds2d2_yolo.data.annotations import Annotation
from ds2d2_yolo.data.formats.geometry import NO_AREA, OUTSIDE, place

WIDTH, HEIGHT = 160, 120

coordinate = st.one_of(st.floats(-200, 400), st.integers(-200, 400).map(float))
anything = st.floats(allow_nan=False, allow_infinity=False)


@st.composite
def rectangles(draw):
    """Corners of a rectangle of any size and direction in or around the image."""
    x, y = draw(st.floats(-60, WIDTH + 60)), draw(st.floats(-60, HEIGHT + 60))
    extent = draw(st.floats(1, 400)), draw(st.floats(1, 400))
    points = cv2.boxPoints(((x, y), extent, draw(st.floats(0, 360))))
    return tuple(points.astype(float).ravel().tolist())


def in_pixels(shares, size=(WIDTH, HEIGHT)):
    return (np.array(shares).reshape(4, 2) * size).ravel()


# ------------------------------------------------------------------------------------------------------- boxes


@pytest.mark.parametrize(
    ("points", "expected"),
    [
        ((16, 12, 32, 36), (0.15, 0.2, 0.1, 0.2)),
        ((-8, -12, 16, 12), (0.05, 0.05, 0.1, 0.1)),
        ((-50, -50, 999, 999), (0.5, 0.5, 1, 1)),
        ((10, 10, 10, 20), NO_AREA),
        ((10, 10, 20, 10), NO_AREA),
        ((20, 10, 10, 20), NO_AREA),
        ((160, 10, 170, 20), OUTSIDE),
        ((-20, 10, -10, 20), OUTSIDE),
        ((-20, 10, 0, 20), OUTSIDE),
        ((0, 5, 0, 5, 16, 5, 16, 5), NO_AREA),
        ((0, 0, 8, 8, 16, 16, 4, 4), NO_AREA),
        ((8, 0, 16, 6, 8, 12, 0, 6), (0.05, 0.05, 0.1, 0.1)),
    ],
)
def test_boxes_are_cut_at_the_edge_or_have_no_place(points, expected):
    placed = place(Annotation("ship", tuple(map(float, points))), WIDTH, HEIGHT, oriented=False)
    assert placed == (expected if isinstance(expected, str) else pytest.approx(expected))


@given(points=st.tuples(coordinate, coordinate, coordinate, coordinate))
def test_boxes_cover_the_visible_part_of_the_object(points):
    placed = place(Annotation("ship", points), WIDTH, HEIGHT, oriented=False)
    x1, y1, x2, y2 = points
    visible = max(x1, 0), max(y1, 0), min(x2, WIDTH), min(y2, HEIGHT)
    if isinstance(placed, str):
        has_area = min(x2 - x1, y2 - y1) >= 1e-3
        assert placed == (OUTSIDE if has_area else NO_AREA)
        assert min(visible[2] - visible[0], visible[3] - visible[1]) < 1e-3
        return
    x, y, width, height = placed
    assert min(placed) >= 0
    assert max(placed) <= 1
    found = [(x - width / 2) * WIDTH, (y - height / 2) * HEIGHT, (x + width / 2) * WIDTH, (y + height / 2) * HEIGHT]
    np.testing.assert_allclose(found, visible, atol=1e-9)


# ----------------------------------------------------------------------------------------------------- corners


@given(x=st.floats(30, 130), y=st.floats(30, 90), extent=st.tuples(*[st.floats(1, 40)] * 2), angle=st.floats(0, 360))
def test_corners_in_the_image_come_back_as_they_were(x, y, extent, angle):
    inside = tuple(cv2.boxPoints(((x, y), extent, angle)).astype(float).ravel().tolist())
    annotation = Annotation("ship", inside)
    placed = place(annotation, WIDTH, HEIGHT, oriented=True)
    np.testing.assert_allclose(in_pixels(placed), inside, atol=1e-9)
    hull = place(Annotation("ship", tuple(in_pixels(placed).tolist())), WIDTH, HEIGHT, oriented=False)
    assert hull == pytest.approx(place(Annotation("ship", annotation.box), WIDTH, HEIGHT, oriented=False))


@given(x=st.floats(0, 80), y=st.floats(0, 60), width=st.floats(1, 80), height=st.floats(1, 60))
def test_a_horizontal_box_survives_corners_and_hull(x, y, width, height):
    annotation = Annotation("ship", (x, y, x + width, y + height))
    corners = in_pixels(place(annotation, WIDTH, HEIGHT, oriented=True))
    again = Annotation("ship", tuple(corners.tolist()))
    np.testing.assert_allclose(again.box, annotation.points, atol=1e-9)
    expected = place(annotation, WIDTH, HEIGHT, oriented=False)
    assert place(again, WIDTH, HEIGHT, oriented=False) == pytest.approx(expected)


def test_corners_that_jut_out_are_kept():
    corners = (-10.0, 40.0, 0.0, 30.0, 40.0, 70.0, 30.0, 80.0)
    placed = place(Annotation("ship", corners), WIDTH, HEIGHT, oriented=True)
    np.testing.assert_allclose(in_pixels(placed), corners)
    assert min(placed) < 0


def test_a_cropped_large_object_keeps_its_direction():
    strip = cv2.boxPoints(((80, 60), (900, 20), 30)).astype(float)
    placed = place(Annotation("bridge", tuple(strip.ravel().tolist())), WIDTH, HEIGHT, oriented=True)
    assert 0 <= min(placed) <= max(placed) <= 1
    corners = in_pixels(placed).astype(np.float32).reshape(4, 2)
    longest = max(
        zip(corners, np.roll(corners, 1, axis=0), strict=True), key=lambda ends: np.linalg.norm(ends[0] - ends[1])
    )
    across, down = longest[1] - longest[0]
    assert math.degrees(math.atan2(down, across)) % 180 == pytest.approx(30, abs=6)


def test_corners_beside_the_image_are_outside_whatever_the_hull():
    beside = (-80.0, 40.0, 40.0, -80.0, 35.0, -85.0, -85.0, 35.0)
    assert place(Annotation("ship", beside), WIDTH, HEIGHT, oriented=True) == OUTSIDE


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("placed")
    cv2.imwrite(str(folder / "a.png"), np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    return folder / "a.png", folder / "a.txt"


@settings(max_examples=100)
@given(corners=st.one_of(rectangles(), st.tuples(*[coordinate] * 8)))
@example(corners=(0.0, 0.5, 160.0, 4e-31, 0.0, 0.0, 0.0, -1.0))
@example(corners=(0.0, 6e-05, 33.0, 0.0, 0.0, 0.0, 0.0, -1.0))
def test_ultralytics_accepts_all_corners(files, corners):
    placed = place(Annotation("ship", corners), WIDTH, HEIGHT, oriented=True)
    if isinstance(placed, str):
        points = np.array(corners, np.float32).reshape(4, 2)
        frame = np.array([[0, 0], [WIDTH, 0], [WIDTH, HEIGHT], [0, HEIGHT]], np.float32)
        if min(cv2.minAreaRect(points)[1]) > 1e-2:
            assert cv2.intersectConvexConvex(cv2.convexHull(points), frame)[0] < 1
        return
    image, labels = files
    labels.write_text(f"0 {' '.join(f'{share:.8f}' for share in placed)}\n")
    found = verify_image_label((str(image), str(labels), "", False, 1, 0, 0, False))
    assert found[0] is not None, found[-1]
    assert len(found[1]) == 1
    assert min(cv2.minAreaRect(in_pixels(placed).astype(np.float32).reshape(4, 2))[1]) > 0


# --------------------------------------------------------------------------------------------------------- all


@given(points=st.one_of(st.tuples(*[anything] * 4), st.tuples(*[anything] * 8)), oriented=st.booleans())
def test_any_numbers_at_all_have_a_place_or_none(points, oriented):
    placed = place(Annotation("ship", points), WIDTH, HEIGHT, oriented)
    if not isinstance(placed, str):
        assert len(placed) == (8 if oriented else 4)
        assert all(map(math.isfinite, placed))
