"""Detections and objects of an image are matched, each object once."""

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ds2d2_yolo.evaluation.matching import match

BOX = np.array([0.0, 0.0, 10.0, 10.0])


def test_each_object_is_hit_once_and_by_its_own_class():
    boxes = np.stack([BOX, BOX + 1, BOX + 40, BOX])
    objects = np.stack([BOX, BOX + 80])
    hit, taken = match(boxes, np.array([0, 0, 0, 1]), objects, np.array([0, 1]))
    assert hit.tolist() == [True, False, False, False]
    assert taken.tolist() == [True, False]


@given(detections=st.integers(0, 6), objects=st.integers(0, 6), seed=st.integers(0, 99))
@settings(max_examples=40)
def test_every_hit_takes_one_object(detections, objects, seed):
    generator = np.random.default_rng(seed)
    boxes, truth = (generator.uniform(0, 20, (n, 4)) for n in (detections, objects))
    for array in (boxes, truth):
        array[:, 2:] += array[:, :2]
    hit, taken = match(boxes, generator.integers(0, 2, detections), truth, generator.integers(0, 2, objects))
    assert (len(hit), len(taken)) == (detections, objects)
    assert hit.sum() == taken.sum()


def test_oriented_detections_hit_by_their_angle():
    objects = np.array([[50.0, 50.0, 40.0, 8.0, 0.0], [20.0, 20.0, 10.0, 10.0, 0.3]])
    labels = np.array([0, 1])
    half_turn = objects + np.array([0, 0, 0, 0, math.pi])
    assert match(half_turn, labels, objects, labels)[0].all()
    quarter = objects + np.array([0, 0, 0, 0, math.pi / 2])
    hit, taken = match(quarter, labels, objects, labels)
    assert hit.tolist() == taken.tolist() == [False, True]
    assert not match(np.zeros((0, 4)), np.zeros(0, int), objects, labels)[1].any()
