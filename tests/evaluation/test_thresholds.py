"""Thresholds of a teacher's labels: found by hand for few detections, and by brute force for many."""

import numpy as np
import pytest

from ds2d2_yolo.evaluation.thresholds import LabelledImage, find_thresholds

SIZE = (64, 64)


def boxes_at(*corners):
    """Upright squares of 10 pixels."""
    return np.array([[x, y, x + 10, y + 10] for x, y in corners], float).reshape(-1, 4)


def image(found, objects, size=SIZE):
    """An image from (x, y, confidence, class) of detections and (x, y, class) of objects."""
    rows = np.array([[x, y, x + 10, y + 10, confidence, label] for x, y, confidence, label in found]).reshape(-1, 6)
    return LabelledImage(rows, boxes_at(*(o[:2] for o in objects)), np.array([o[2] for o in objects], float), size)


def test_best_f1_takes_the_false_ones_out():
    seen = image([(0, 0, 0.9, 0), (20, 20, 0.8, 0), (40, 40, 0.3, 0)], [(0, 0, 0), (20, 20, 0)])
    (threshold,), total, chance = find_thresholds([seen], 1)
    assert (threshold.confidence, threshold.precision, threshold.recall, threshold.objects) == (0.8, 1.0, 1.0, 2)
    assert (total.f1, chance.f1) == (1, 0)


def test_a_precision_takes_the_lowest_confidence():
    found = [(0, 0, 0.9, 0), (40, 40, 0.8, 0), (20, 20, 0.7, 0), (0, 40, 0.2, 0)]
    seen = image(found, [(0, 0, 0), (20, 20, 0)])
    (threshold,), _, _ = find_thresholds([seen], 1, precision=0.6)
    assert (threshold.confidence, threshold.precision, threshold.recall) == (0.7, pytest.approx(2 / 3), 1.0)
    (strict,), _, _ = find_thresholds([seen], 1, precision=1.0)
    assert (strict.confidence, strict.recall) == (0.9, 0.5)


def test_an_object_counts_once():
    seen = image([(0, 0, 0.9, 0), (1, 0, 0.8, 0)], [(0, 0, 0)])
    (threshold,), _, _ = find_thresholds([seen], 1, precision=0.4)
    assert (threshold.confidence, threshold.precision) == (0.8, 0.5)


def test_the_class_must_be_right():
    seen = image([(0, 0, 0.9, 1)], [(0, 0, 0)])
    thresholds, total, _ = find_thresholds([seen], 2)
    assert thresholds[0].confidence is None
    assert total.f1 == 0


def test_a_class_without_objects_is_pooled():
    seen = image([(0, 0, 0.9, 0), (30, 30, 0.2, 1)], [(0, 0, 0)])
    thresholds, _, _ = find_thresholds([seen], 2)
    assert (thresholds[1].confidence, thresholds[1].pooled) == (0.9, True)


def test_equal_scores_stay_together():
    seen = image([(0, 0, 0.5, 0), (40, 40, 0.5, 0)], [(0, 0, 0)])
    (threshold,), _, _ = find_thresholds([seen], 1)
    assert (threshold.confidence, threshold.precision) == (0.5, 0.5)


def test_nothing_found_and_nothing_there():
    thresholds, total, chance = find_thresholds([image([], [(0, 0, 0)]), image([], [])], 1)
    assert thresholds[0].confidence is None
    assert (total.f1, chance.f1) == (0, 0)


def test_chance_is_the_labels_of_another_image():
    always = [(5, 5, 0.9, 0)]  # where the objects are in every image
    prior = [image(always, [(5, 5, 0)]) for _ in range(3)]
    _, total, chance = find_thresholds(prior, 1)
    assert total.f1 == chance.f1 == 1
    sees = [image([(20 * i, 0, 0.9, 0)], [(20 * i, 0, 0)]) for i in range(3)]
    _, total, chance = find_thresholds(sees, 1)
    assert (total.f1, chance.f1) == (1, 0)


def test_chance_scales_labels_to_the_image():
    images = [image([(0, 0, 0.9, 0)], [(0, 0, 0)]), image([(0, 0, 0.9, 0)], [(30, 30, 0)], (640, 640))]
    _, _, chance = find_thresholds(images, 1)
    assert chance.f1 == 0  # 10 pixels of 640 are one of 64


def test_oriented_boxes_are_compared_turned():
    box = np.array([[30.0, 30, 40, 8, 0.8]])
    turned = np.array([[30.0, 30, 40, 8, 0.8 + np.pi / 2, 0.9, 0]])
    straight = np.array([[30.0, 30, 40, 8, 0.8, 0.9, 0]])
    for rows, right in ((straight, 1), (turned, 0)):
        _, total, _ = find_thresholds([LabelledImage(rows, box, np.zeros(1), SIZE)], 1)
        assert total.f1 == right


@pytest.mark.parametrize("precision", [None, 0.3, 0.7])
def test_thresholds_are_those_of_brute_force(precision):
    generator = np.random.default_rng(0)
    images = []
    for _ in range(6):
        objects = [(20 * i, 20 * j, int(generator.integers(2))) for i in range(3) for j in range(3)]
        found = [(x, y, generator.uniform(), label) for x, y, label in objects if generator.uniform() < 0.7]
        found += [(x, y, generator.uniform(), 1 - label) for x, y, label in objects if generator.uniform() < 0.4]
        images.append(image(found, objects))
    thresholds, _, _ = find_thresholds(images, 2, precision)
    for label, threshold in enumerate(thresholds):
        figures = {}
        for least in {row[4] for seen in images for row in seen.found if row[5] == label}:
            right = total = objects = 0
            for seen in images:
                kept = seen.found[(seen.found[:, 4] >= least) & (seen.found[:, 5] == label)]
                places = {tuple(box[:2]) for box, own in zip(seen.boxes, seen.labels, strict=True) if own == label}
                right += len({tuple(row[:2]) for row in kept} & places)
                total, objects = total + len(kept), objects + len(places)
            figures[least] = right / total, right / objects, 2 * right / (total + objects)
        if precision is None:
            expected = max(figures, key=lambda least: figures[least][2])
        else:
            expected = min(least for least, values in figures.items() if values[0] >= precision)
        assert threshold.confidence == expected
        assert (threshold.precision, threshold.recall) == pytest.approx(figures[expected][:2])
