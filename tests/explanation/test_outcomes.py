"""Hits, false alarms and misses."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ds2d2_yolo.explanation.outcomes import match_detections

BOX = np.array([0.0, 0.0, 10.0, 10.0])


def test_each_object_is_hit_once_and_by_its_own_class():
    boxes = np.stack([BOX, BOX + 1, BOX + 40, BOX])
    objects = np.stack([BOX, BOX + 80])
    matched = match_detections(boxes, np.array([0, 0, 0, 1]), objects, np.array([0, 1]))
    assert matched.hits.tolist() == [BOX.tolist()]
    assert matched.false_alarms.tolist() == [(BOX + 1).tolist(), (BOX + 40).tolist(), BOX.tolist()]
    assert matched.misses.tolist() == [(BOX + 80).tolist()]


@given(detections=st.integers(0, 6), objects=st.integers(0, 6), seed=st.integers(0, 99))
@settings(max_examples=40)
def test_every_box_is_counted_once(detections, objects, seed):
    generator = np.random.default_rng(seed)
    boxes, truth = (generator.uniform(0, 20, (n, 4)) for n in (detections, objects))
    for array in (boxes, truth):
        array[:, 2:] += array[:, :2]
    matched = match_detections(boxes, generator.integers(0, 2, detections), truth, generator.integers(0, 2, objects))
    assert len(matched.hits) + len(matched.false_alarms) == detections
    assert len(matched.hits) + len(matched.misses) == objects
