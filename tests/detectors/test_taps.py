"""Taps collect outputs and do not change the model."""

import copy
import pickle

import pytest
import torch
from torch import nn

from ds2d2_yolo.detectors import Taps


@pytest.fixture
def model():
    return nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))


def test_collects_what_chosen_modules_return_without_copying(model):
    taps = Taps()
    taps.open({"first": model[0], "last": model[2]})
    output = model(torch.ones(1, 2))
    collected = taps.close()
    assert set(collected) == {"first", "last"}
    assert collected["last"] is output
    assert taps.close() == {}


def test_leaves_no_trace(model):
    before = pickle.dumps(model)
    taps = Taps()
    taps.open({0: model[0]})
    model(torch.ones(1, 2))
    taps.close()
    assert not any(module._forward_hooks for module in model.modules())
    assert pickle.dumps(model) == before
    copy.deepcopy(model)


def test_opening_again_forgets_an_interrupted_pass(model):
    taps = Taps()
    taps.open({0: model[0]})
    model(torch.ones(1, 2))
    taps.open({2: model[2]})
    assert not model[0]._forward_hooks
    assert taps.close() == {}
