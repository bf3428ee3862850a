"""Recipes: every configuration of the reference with its coefficients. Each is built and trained for a few steps."""

import copy

import pytest
import torch
from torch import nn
from training_helpers import batch_of
from ultralytics.utils import YAML

from ds2d2_yolo.commands.words import parse_arguments
from ds2d2_yolo.detectors import build_model, detector_of
from ds2d2_yolo.method import DS2D2Loss, Gains
from ds2d2_yolo.resources import resource_folder
from ds2d2_yolo.training.arguments import check_arguments
from ds2d2_yolo.training.pair import check_pair
from ds2d2_yolo.training.step import Distiller

RECIPES = sorted(path.name for path in (resource_folder("cfg") / "recipes").glob("*.yaml"))
GAINS = {
    ("retinanet", "dior"): Gains(1e-5, 1e-5, 1.0, 1.0),
    ("retinanet", "dota"): Gains(7e-5, 5e-5, 0.7, 0.5),
    ("fasterrcnn", "dior"): Gains(0.5, 0.5, 1e-5, 1e-5),
    ("fasterrcnn", "dota"): Gains(0.12, 1.2, 1.5e-3, 3e-3),
}


def test_every_pair_of_the_reference_has_a_recipe():
    retina = ["r101_r18_dior", "r101_r18_dota", "r101_r34_dota", "r101_r50_dota", "x101_r18_dior"]
    faster = ["r101_r18_dior", "r101_r18_dota", "r101_r34_dior", "r101_r50_dior", "x101_r18_dior"]
    expected = [f"retinanet_{name}.yaml" for name in retina] + [f"fasterrcnn_{name}.yaml" for name in faster]
    assert sorted(expected) == RECIPES


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_holds_the_reference_coefficients_and_steps(name):
    family, teacher, student, data = name.removesuffix(".yaml").split("_")
    args = check_arguments(parse_arguments([f"cfg={name}"]))
    assert args.gains == GAINS[family, data]
    assert bool(args.sum_regions) is (family == "fasterrcnn")
    assert args.weight == "disw"
    assert args.lr0 == {"retinanet": 0.005, "fasterrcnn": 0.02}[family]
    assert (args.optimizer, args.momentum, args.weight_decay) == ("SGD", 0.9, 1e-4)
    assert (args.epochs, args.lr_steps, args.batch, args.nbs) == (24, [16, 22], 16, 16)
    assert args.imgsz == {"dior": 800, "dota": 1024}[data]
    assert args.teacher.endswith(f"{family}_{teacher}.yaml")
    assert args.model.endswith(f"{family}_{student}.yaml")

    def build(path):  # fewer channels per level, for the tests' sake; the backbone is the recipe's
        return detector_of(build_model({**YAML.load(path), "fpn_channels": 16}, nc=2))

    torch.manual_seed(0)
    ours, theirs = build(args.model), build(args.teacher)
    for side in (ours, theirs):
        for parameter in side.head.parameters():
            if parameter.dim() > 1:
                nn.init.normal_(parameter, std=0.05)
    theirs.configure(sum_regions=bool(args.sum_regions))
    pair = check_pair(theirs, ours, 64)
    loss = DS2D2Loss(pair.maps, args.gains, args.wavelet, args.weight, theirs.shared_adapter)
    amplifier = copy.deepcopy(theirs.implicit_part(theirs.head)).requires_grad_(False)
    distiller = Distiller(theirs, amplifier, loss, pair.student_layers, pair.teacher_layers)
    # The first steps of the warm-up: at the full learning rate, models without ImageNet weights would diverge.
    optimizer = torch.optim.SGD(ours.model.parameters(), lr=args.lr0 / 500, momentum=args.momentum)
    ours.model.train()
    for _ in range(2):
        distiller.begin_step(ours, batch_of(64))
        values, items = ours.model(batch_of(64))
        assert all(items[f"{term}_loss"] > 0 for term in ("ex_low", "ex_high", "im_full", "im_high"))
        assert torch.isfinite(values).all()
        optimizer.zero_grad()
        values.sum().backward()
        nn.utils.clip_grad_norm_(ours.model.parameters(), 10.0)  # as Ultralytics does
        optimizer.step()
