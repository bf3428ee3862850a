"""Converts the position of an object from pixels of the source to shares of the image, clipped to the image."""

from __future__ import annotations

import cv2
import numpy as np
import shapely

from ds2d2_yolo.data.annotations import Annotation

NO_AREA = "no area"
OUTSIDE = "outside the image"

_LEAST = 1e-3  # pixels; shorter sides come from rounding and count as 0
_FAR = 1e6  # pixels; more than any image has, and OpenCV computes with 32 bits

_Points = list[tuple[float, float]]


def place(annotation: Annotation, width: float, height: float, oriented: bool) -> tuple[float, ...] | str:
    """Return the position of an object in an image, or the reason why it has none.

    A horizontal box is clipped to the image. An oriented box that crosses the edge keeps its corners: some are then
    below 0 or above 1. MMRotate and Ultralytics' own conversion of DOTA do the same. Clipping the box or moving single
    corners to the edge would change its angle.

    Ultralytics accepts such labels if the centre of the hull is in the image and the hull is not larger than the image.
    Otherwise it refuses all labels of the image. An object larger than the image, or mostly outside, therefore becomes
    the smallest rectangle around its visible part, with the corners moved to the edge.

    Args:
        annotation (Annotation): The object, in pixels of the image.
        width (float): Width of the image, in pixels.
        height (float): Its height, in pixels.
        oriented (bool): Whether to return corners instead of a box.

    Returns:
        (tuple[float, ...] | str): Shares of width and height of the image. For a box: centre x, centre y, width and
            height, from 0 to 1. If oriented: x1, y1, ... x4, y4 of the corners, in the order of the source if they are
            kept. A text if the object has no position in the image: `NO_AREA` or `OUTSIDE`.

    Example:
        >>> place(Annotation("ship", (-10.0, 20.0, 30.0, 40.0)), 100, 100, oriented=False)
        (0.15, 0.3, 0.3, 0.2)
        >>> place(Annotation("ship", (-10.0, 20.0, 30.0, 40.0)), 100, 100, oriented=True)
        (-0.1, 0.2, 0.3, 0.2, 0.3, 0.4, -0.1, 0.4)
        >>> place(Annotation("ship", (528.0, 485.0, 529.0, 485.0)), 800, 800, oriented=False)
        'no area'
    """
    if not _has_area(annotation.points):
        return NO_AREA
    if oriented:
        return _place_corners(annotation.corners, width, height)
    x1, y1, x2, y2 = annotation.box
    x1, x2 = (min(max(x, 0.0), width) for x in (x1, x2))
    y1, y2 = (min(max(y, 0.0), height) for y in (y1, y2))
    if x2 - x1 < _LEAST or y2 - y1 < _LEAST:
        return OUTSIDE
    return (x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height


def _has_area(points: tuple[float, ...]) -> bool:
    if len(points) == 4:
        x1, y1, x2, y2 = points
        return x2 - x1 >= _LEAST and y2 - y1 >= _LEAST
    x1, y1, x2, y2, x3, y3, x4, y4 = points
    # The area is half the cross product of the diagonals, except for quadrilaterals that cross themselves.
    if abs((x3 - x1) * (y4 - y2) - (x4 - x2) * (y3 - y1)) >= 2:
        return True
    return min(_smallest([(x1, y1), (x2, y2), (x3, y3), (x4, y4)])[1]) >= _LEAST


def _place_corners(corners: tuple[float, ...], width: float, height: float) -> tuple[float, ...] | str:
    points = list(zip(corners[0::2], corners[1::2], strict=True))
    xs, ys = zip(*points, strict=True)
    x1, x2, y1, y2 = min(xs), max(xs), min(ys), max(ys)
    if x1 < 0 or y1 < 0 or x2 > width or y2 > height:
        visible = _smallest(_visible(points, width, height))
        if min(visible[1]) < _LEAST:
            return OUTSIDE
        accepted = x2 - x1 <= width and y2 - y1 <= height and 0 <= x1 + x2 <= 2 * width and 0 <= y1 + y2 <= 2 * height
        if not accepted:
            points = np.clip(cv2.boxPoints(visible), 0, (width, height)).tolist()
    return tuple(share for x, y in points for share in (x / width, y / height))


def _visible(points: _Points, width: float, height: float) -> np.ndarray:
    """Return the corners of the part in the image, (N, 2). `cv2.intersectConvexConvex` is wrong for thin objects."""
    hull = shapely.convex_hull(shapely.multipoints(np.clip(points, -_FAR, _FAR)))
    visible = shapely.intersection(hull, shapely.box(0, 0, width, height))
    return np.asarray(shapely.get_coordinates(visible))[:0:-1]  # each corner once, in the direction of OpenCV's hulls


def _smallest(points: np.ndarray | _Points) -> cv2.typing.RotatedRect:
    if not len(points):
        return (0.0, 0.0), (0.0, 0.0), 0.0
    # Rounded: from points that differ by less than float32's precision, OpenCV makes rectangles without width.
    return cv2.minAreaRect(np.round(np.clip(points, -_FAR, _FAR), 3).astype(np.float32))
