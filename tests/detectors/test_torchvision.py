"""RetinaNet and Faster R-CNN: their parts, their behaviour in training and validation, and refused options."""

import copy
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torchvision.models import resnet18
from torchvision.ops import roi_align
from training_helpers import batch_of, tiny_yaml
from ultralytics.utils import DEFAULT_CFG

from ds2d2_yolo.detectors import build_model, detector_of
from ds2d2_yolo.detectors.torchvision.faster_rcnn import FasterRCNNHead, RegionPool
from ds2d2_yolo.detectors.torchvision.parts import DeltaCoder, MaxIoUMatcher, PyramidAnchors, suppress
from ds2d2_yolo.detectors.torchvision.retinanet import RetinaHead, RetinaPredictions
from ds2d2_yolo.errors import DS2D2Error
from ds2d2_yolo.method import DS2D2Loss, Gains
from ds2d2_yolo.resources import resource_folder
from ds2d2_yolo.training.pair import check_pair
from ds2d2_yolo.training.step import Distiller

FAMILIES = ["RetinaNet", "FasterRCNN"]
MODELS = sorted(path.name for path in (resource_folder("cfg") / "models").glob("*.yaml"))


@pytest.fixture(params=FAMILIES)
def detector(request, tmp_path):
    torch.manual_seed(0)
    return detector_of(build_model(tiny_yaml(tmp_path, request.param), nc=2))


def outputs_of(modules, run):
    outputs = {}
    handles = [
        m.register_forward_hook(lambda m, x, out, k=k: outputs.setdefault(k, []).append(out))
        for k, m in modules.items()
    ]
    result = run()
    for handle in handles:
        handle.remove()
    return result, outputs


def test_taps_the_inputs_of_the_head(detector):
    seen = []
    handle = detector.head.register_forward_pre_hook(lambda module, inputs: seen.extend(inputs[0]))
    _, outputs = outputs_of(
        {i: detector.layer(i) for i in detector.head_layers}, lambda: detector.model.eval()(torch.rand(1, 3, 96, 128))
    )
    handle.remove()
    assert all(outputs[index][0] is x for index, x in zip(detector.head_layers, seen, strict=True))
    sizes = [tuple(x.shape[-2:]) for x in seen]
    finest = {"RetinaNet": [(12, 16)], "FasterRCNN": [(24, 32), (12, 16)]}[detector.family]
    last = {"RetinaNet": [(2, 2), (1, 1)], "FasterRCNN": [(2, 2)]}[detector.family]
    assert sizes == [*finest, (6, 8), (3, 4), *last]  # the coarsest are rounded up


def test_losses_are_shares_of_the_nominal_batch(detector):
    detector.model.args = copy.copy(DEFAULT_CFG)
    detector.model.args.nbs = 8
    loss, items = detector.model(batch_of(64))
    assert all(name.endswith("_loss") for name in items)
    torch.testing.assert_close(loss.detach(), torch.stack(list(items.values())) * 2 / 8)
    assert detector.loss_factor(2) == 2 / 8
    loss.sum().backward()
    assert all(p.grad is not None for p in detector.model.parameters())


def test_validation_reuses_the_predictions(detector):
    batch, model = batch_of(64), detector.model.eval()
    with torch.inference_mode():
        preds = model(batch["img"])
        torch.manual_seed(0)
        reused = model.loss(batch, preds)[1]
        torch.manual_seed(0)
        computed = model.loss(batch)[1]
    assert preds[0].shape == (2, 100, 6)
    for name, value in reused.items():
        torch.testing.assert_close(value, computed[name])
    model.train()
    model(batch)[0].sum().backward()  # no inference tensors are left in the model


@pytest.mark.parametrize("empty", [True, False])
def test_empty_images_and_empty_boxes_are_trained_on(detector, empty):
    batch = batch_of(64)
    if empty:
        batch |= {"cls": torch.zeros(0, 1), "bboxes": torch.zeros(0, 4), "batch_idx": torch.zeros(0)}
    else:
        batch["bboxes"][:4, 2:] = 0.0  # all of the first image's, one of the second's
    loss, _ = detector.model(batch)
    loss.sum().backward()
    assert torch.isfinite(loss).all()
    assert all(torch.isfinite(p.grad).all() for p in detector.model.parameters())


def test_backbone_statistics_stay_only_with_imagenet_weights(detector):
    norms = [m for stage in detector.model.model[:5] for m in stage.modules() if isinstance(m, nn.BatchNorm2d)]
    detector.model.train()
    assert all(m.training for m in norms)
    assert detector.frozen_layers == ()
    source = copy.deepcopy(detector.model)
    source.yaml["imagenet"] = True
    detector.model.load(source, verbose=False)
    assert detector.frozen_layers == (0, 1)
    detector.model.train()
    assert not any(m.training for m in norms)
    assert all(m.weight.requires_grad for m in norms)
    rebuilt = build_model(detector.model.yaml)
    assert all(stage.frozen_statistics for stage in rebuilt.model[:5])


def test_imagenet_weights_are_taken_from_the_disk(detector, fresh_machine):
    folder = fresh_machine / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    network = resnet18()
    torch.save(network.state_dict(), folder / "resnet18-f37072fd.pth")
    detector.load_backbone()
    assert torch.equal(detector.layer(0)[0].weight, network.conv1.weight)
    assert torch.equal(detector.layer(4)[1].bn2.weight, network.layer4[1].bn2.weight)
    assert detector.model.yaml["imagenet"] is True


def test_without_network_one_line_says_what_to_do(detector, fresh_machine):
    with pytest.raises(
        DS2D2Error, match=r"cannot get the ImageNet weights of resnet18 .*resnet18-f37072fd.pth into"
    ) as error:
        detector.load_backbone()
    assert "pretrained=False" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backbone": "resnet19"}, "backbone: resnet19 is not supported; write one of resnet18, "),
        ({"detector": "SSD"}, "no detector family supports a model YAML with detector: SSD"),
        ({"fpn_channels": 0}, "fpn_channels: 0 is not a whole number of at least 1"),
        ({"fpn_channels": 16.5}, "fpn_channels: 16.5 is not a whole number"),
        ({"fpn_channels": None}, "fpn_channels: None is not a whole number"),
        ({"score_threshold": 5}, "score_threshold: 5 is not a number from 0 to 1"),
        ({"score_threshold": float("nan")}, "score_threshold: nan is not a number"),
        ({"nms_iou": "much"}, "nms_iou: much is not a number from 0 to 1"),
        (
            {"detector": "FasterRCNN", "regions": 8, "proposals": 0.5},
            "proposals: 0.5 is not a whole number of at least 1",
        ),
        ({"detector": "FasterRCNN", "regions": 0}, "regions: 0 is not a whole number of at least 1"),
        ({"anchor_scale": 0}, "anchor_scale: 0 is not a number from 0.1 to 1000"),
    ],
)
def test_model_yamls_that_make_no_sense_are_refused(changes, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        build_model(tiny_yaml(tmp_path, "RetinaNet", **changes))


def test_unknown_imagenet_weights_or_channels_are_refused(tmp_path):
    path = tiny_yaml(tmp_path, "RetinaNet", weights="IMAGENET9")
    with pytest.raises(DS2D2Error, match="resnet18 has no IMAGENET9; write one of IMAGENET1K_V1"):
        build_model(path).load_imagenet()
    with pytest.raises(DS2D2Error, match="images with 4 channels"):
        build_model(path, ch=4)


@pytest.mark.parametrize("name", MODELS)
def test_every_shipped_model_is_what_its_name_says(name):
    with torch.device("meta"):  # no memory, no time
        detector = detector_of(build_model(resource_folder("cfg") / "models" / name, nc=15))
    backbone = {
        "r18": "resnet18",
        "r34": "resnet34",
        "r50": "resnet50",
        "r101": "resnet101",
        "x101": "resnext101_64x4d",
    }
    family, size = name.removesuffix(".yaml").split("_")
    assert detector.family.lower() == family
    assert detector.model.yaml["backbone"] == backbone[size]
    assert len(detector.head_layers) == 5
    assert detector.class_names == [str(index) for index in range(15)]


def test_a_model_can_be_copied_and_pickled(detector):
    for copied in (copy.deepcopy(detector.model), pickle.loads(pickle.dumps(detector.model))):
        assert detector_of(copied).family == detector.family
        copied.half().float().eval()(torch.rand(1, 3, 64, 64))


# Distillation ---------------------------------------------------------------------------------------------------------

ALL = Gains(0.1, 0.2, 1.0, 1.0, 1.0)
TERMS = ["ex_low_loss", "ex_high_loss", "im_full_loss", "im_high_loss", "response_loss"]


def distil(family, tmp_path, gains=ALL, channels=16):
    torch.manual_seed(1)
    teacher = detector_of(build_model(tiny_yaml(tmp_path, family, "teacher", fpn_channels=channels), nc=2))
    student = detector_of(build_model(tiny_yaml(tmp_path, family, "student"), nc=2))
    for side in (teacher, student):  # otherwise all differences of predictions are near zero
        for parameter in side.head.parameters():
            if parameter.dim() > 1:
                nn.init.normal_(parameter, std=0.05)
    pair = check_pair(teacher, student, 96)
    amplifier = copy.deepcopy(teacher.implicit_part(teacher.head)).requires_grad_(False)
    loss = DS2D2Loss(pair.maps, gains, shared_adapter=teacher.shared_adapter)
    return Distiller(teacher, amplifier, loss, pair.student_layers, pair.teacher_layers), student


@pytest.mark.slow
@pytest.mark.parametrize("channels", [16, 24])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_term_reaches_the_student_alone(family, channels, tmp_path):
    distiller, student = distil(family, tmp_path, channels=channels)
    before = {key: value.clone() for key, value in distiller.teacher.model.state_dict().items()}
    distiller.begin_step(student, batch_of(64))
    loss, items = student.model(batch_of(64))
    assert [key for key in items if key in TERMS] == TERMS
    torch.testing.assert_close(
        loss[-5:].detach(), torch.stack([items[name] for name in TERMS]) * student.loss_factor(2)
    )
    parameters = [p for layer in student.model.model[:6] for p in layer.parameters()]
    heads = [p for p in student.head.parameters() if p.requires_grad]
    for name, term in zip(TERMS, loss[-5:], strict=True):
        gradients = torch.autograd.grad(term, [*parameters, *heads], retain_graph=True, allow_unused=True)
        reached = [gradient is not None and bool(gradient.any()) for gradient in gradients]
        assert any(reached[: len(parameters)])
        assert any(reached[len(parameters) :]) == (name == "response_loss")
    loss.sum().backward()
    assert all(p.grad is None for frozen in (distiller.teacher.model, distiller.amplifier) for p in frozen.parameters())
    assert len(list(distiller.loss.adapters.parameters())) == 1
    assert distiller.loss.adapters[0].weight.grad.any()
    after = distiller.teacher.model.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert not any(m._forward_hooks for m in student.model.modules())


@pytest.mark.parametrize("family", FAMILIES)
def test_the_ground_truth_is_assigned_once_per_step(family, tmp_path):
    distiller, student = distil(family, tmp_path)
    distiller.begin_step(student, batch_of(64))
    _, outputs = outputs_of(student.assignment_modules(), lambda: student.model(batch_of(64)))
    assert [len(calls) for calls in outputs.values()] == [1]


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_works_under_autocast(family, tmp_path):
    distiller, student = distil(family, tmp_path)
    # Not 64 px: there P7 comes from a single cell, and torch's bfloat16 backward on CPUs sometimes gives NaN.
    with torch.autocast("cpu", torch.bfloat16):
        distiller.begin_step(student, batch_of(96))
        loss, _ = student.model(batch_of(96))
    loss.sum().backward()
    assert torch.isfinite(loss).all()
    assert all(torch.isfinite(p.grad).all() for p in student.model.parameters())


def test_other_families_and_other_heads_are_refused(tmp_path):
    retina, faster = (detector_of(build_model(tiny_yaml(tmp_path, family), nc=2)) for family in FAMILIES)
    yolo = detector_of(build_model("yolo11n.yaml", nc=2))
    with pytest.raises(DS2D2Error, match="teacher is a YOLO, student is a RetinaNet; pass a student of family YOLO"):
        check_pair(yolo, retina, 64)
    with pytest.raises(DS2D2Error, match="teacher is a RetinaNet, student is a FasterRCNN"):
        check_pair(retina, faster, 64)
    with pytest.raises(DS2D2Error, match=r"imgsz=100: .* needs a multiple of 32, at least 64"):
        check_pair(retina, retina, 100)


def test_retinanets_with_other_anchors_are_refused(tmp_path):
    usual, small = (
        detector_of(build_model(tiny_yaml(tmp_path, "RetinaNet", anchor_scale=scale), nc=2)) for scale in (4, 2)
    )
    with pytest.raises(DS2D2Error, match=r"anchors per cell from 4 strides on, student .* from 2 strides on"):
        check_pair(usual, small, 64)


@pytest.mark.parametrize(("family", "side"), [("RetinaNet", 16.0), ("FasterRCNN", 8.0)])
def test_the_scale_of_the_anchors_is_the_yamls(family, side, tmp_path):
    head = build_model(tiny_yaml(tmp_path, family, anchor_scale=2), nc=2).model[-1]
    anchors = (head.anchors if family == "RetinaNet" else head.rpn.anchor_generator)(
        [torch.zeros(1, 1, size, size) for size in (8, 4, 2, 1, 1)]
    )
    areas = (anchors[:, 2:] - anchors[:, :2]).prod(1)
    assert areas.min().sqrt().item() == pytest.approx(side, rel=1e-5)


# Parts ----------------------------------------------------------------------------------------------------------------


def test_anchors_keep_their_stride_where_a_level_was_rounded_up():
    anchors = PyramidAnchors([128], [4.0])([torch.zeros(1, 1, 2, 3)])  # of an image of 256 x 320
    centres = (anchors[:, :2] + anchors[:, 2:]) / 2
    assert sorted(set(centres[:, 0].tolist())) == [0.0, 128.0, 256.0]
    sides = anchors[:3, 2:] - anchors[:3, :2]
    torch.testing.assert_close(sides.prod(1), torch.full((3,), 512.0**2))
    torch.testing.assert_close(sides[:, 1] / sides[:, 0], torch.tensor([0.5, 1.0, 2.0]))


def test_box_coding_is_its_own_inverse_and_bounded():
    coder = DeltaCoder((10.0, 10.0, 5.0, 5.0))
    boxes = torch.tensor([[0.0, 0.0, 8.0, 8.0], [4.0, 2.0, 20.0, 60.0]])
    targets = torch.tensor([[1.0, 2.0, 9.0, 30.0], [0.0, 0.0, 50.0, 50.0]])
    torch.testing.assert_close(coder.decode_single(coder.encode_single(targets, boxes), boxes), targets)
    wild = coder.decode_single(torch.tensor([[0.0, 0.0, -1e3, 1e3]]), boxes[:1])
    torch.testing.assert_close(wild[0, 2:] - wild[0, :2], torch.tensor([8 * 16 / 1000, 8 * 1000 / 16]))


overlaps = st.lists(st.sampled_from([0.0, 0.2, 0.35, 0.45, 0.6, 0.9]), min_size=6, max_size=6)


@given(st.lists(overlaps, min_size=1, max_size=4))
@settings(max_examples=60)
def test_matching_follows_the_reference_rule_object_by_object(rows):
    quality = torch.tensor(rows)
    expected = []
    for anchor in range(6):
        value, best = quality[:, anchor].max(0)
        expected.append(best.item() if value >= 0.5 else -1 if value < 0.4 else -2)
    for index, row in enumerate(rows):
        if max(row) >= 0.3:
            for anchor in range(6):
                if row[anchor] == max(row):
                    expected[anchor] = index
    matches = MaxIoUMatcher(0.5, 0.4, minimum=0.3)(quality).tolist()
    several = [a for a in range(6) if len({r[a] for r in rows}) < len(rows)]  # equal overlaps: both objects are right
    assert [m for a, m in enumerate(matches) if a not in several] == [
        m for a, m in enumerate(expected) if a not in several
    ]


def test_regions_are_pooled_from_the_level_of_their_size():
    maps = [torch.randn(2, 3, 64 // 2**i, 64 // 2**i) for i in range(5)]
    boxes = [
        torch.tensor([[0.0, 0.0, 250.0, 250.0], [3.0, 5.0, 20.0, 30.0], [10.0, 10.0, 122.0, 122.0]]),
        torch.tensor([[0.0, 0.0, 224.0, 224.0]]),
    ]
    pooled = RegionPool()(maps, boxes)
    for row, (image, box, level) in enumerate([(0, 0, 2), (0, 1, 0), (0, 2, 1), (1, 0, 2)]):
        region = torch.cat([torch.tensor([float(image)]), boxes[image][box]])[None]
        expected = roi_align(maps[level], region, 7, 1 / (4 * 2**level), sampling_ratio=-1, aligned=True)
        torch.testing.assert_close(pooled[row : row + 1], expected)
    assert RegionPool()(maps, [torch.zeros(0, 4)] * 2).shape == (0, 3, 7, 7)


def test_suppression_is_per_class_unless_agnostic():
    boxes = torch.tensor(
        [[-5.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 11.0], [0.0, 0.0, 10.0, 10.0], [30.0, 0.0, 40.0, 9.0]]
    )
    scores, labels = torch.tensor([0.9, 0.8, 0.7, 0.6]), torch.tensor([1, 1, 0, 1])
    kept = suppress(boxes, scores, labels, (20, 25), 0.5, max_det=4, agnostic=False)
    torch.testing.assert_close(kept[:, 4:], torch.tensor([[0.9, 1], [0.7, 0], [0, 0], [0, 0]]))  # the last was outside
    assert kept[0, :4].tolist() == [0.0, 0.0, 10.0, 10.0]
    assert suppress(boxes, scores, labels, (20, 25), 0.5, 4, agnostic=True)[:, 4].gt(0).sum() == 1


def test_background_is_first_in_the_weights_and_last_outside():
    torch.manual_seed(0)
    head = FasterRCNNHead(16, 2, score_threshold=0.05, nms_iou=0.5).eval()
    predictor = head.regions.box_predictor
    nn.init.zeros_(predictor.cls_score.weight)
    nn.init.zeros_(predictor.bbox_pred.weight)
    predictor.cls_score.bias.data = torch.tensor([0.5, -9.0, 2.0])  # background, class 0, class 1
    predictor.bbox_pred.bias.data = torch.arange(12.0)
    maps = [torch.randn(1, 16, size, size) for size in (16, 8, 4, 2, 1)]
    regions = head.regions.sample(
        [torch.tensor([[40.0, 40.0, 60.0, 60.0]])], ([torch.tensor([[1.0, 1.0, 30.0, 30.0]])], [torch.tensor([1])])
    )
    assert sorted(regions.labels.tolist()) == [1, 2]
    assert regions.number == 2
    predictions = head.regions(maps, regions.boxes)
    assert predictions.logits[0].tolist() == [-9.0, 2.0, 0.5]
    assert predictions.deltas[0].tolist() == [[4.0, 5.0, 6.0, 7.0], [8.0, 9.0, 10.0, 11.0]]
    losses = head.regions.losses(predictions, regions)
    probabilities = predictions.logits[0].softmax(0)
    torch.testing.assert_close(losses["cls_loss"], -(probabilities[1].log() + probabilities[2].log()) / 2)
    torch.testing.assert_close(losses["box_loss"], torch.tensor(8.0 + 9 + 10 + 11) / 2)  # the object is its own region
    nn.init.zeros_(predictor.bbox_pred.bias)
    found = head.detect(head(maps))[0]
    assert found[0, 5] == 1.0
    torch.testing.assert_close(found[0, 4], probabilities[1])


def test_detection_takes_the_best_of_every_level():
    head = RetinaHead(16, 2, score_threshold=0.05, nms_iou=0.5)
    head.max_det = 3
    anchors = torch.tensor([[0.0, 0.0, 8.0, 8.0], [20.0, 20.0, 30.0, 30.0]])
    logits = torch.tensor([[[-9.0, 2.0], [1.0, -2.0]]])
    raw = RetinaPredictions(logits, torch.zeros(1, 2, 4), anchors, [1, 1], (32, 32))
    found = head.detect(raw)[0]
    torch.testing.assert_close(found[:, 4], torch.tensor([2.0, 1.0, -2.0]).sigmoid())
    assert found[:, 5].tolist() == [1.0, 0.0, 1.0]
    assert found[1, :4].tolist() == anchors[1].tolist()


@pytest.mark.parametrize("family", FAMILIES)
def test_confidence_is_that_of_the_surest_anchor_of_a_cell(family, tmp_path):
    torch.manual_seed(0)
    detector = detector_of(build_model(tiny_yaml(tmp_path, family), nc=2))
    detector.freeze()
    head = detector.head.rpn.head if family == "FasterRCNN" else detector.head
    for parameter in head.parameters():
        nn.init.normal_(parameter, std=0.1)
    images = torch.rand(2, 3, 64, 96)
    with torch.no_grad():
        maps = detector.model.pyramid(images)
        grids = detector.confidence(detector.forward_teacher(images), maps)
    assert [grid.shape for grid in grids] == [(2, 1, *x.shape[2:]) for x in maps]
    # The same, level by level and through the head alone
    for grid, x in zip(grids, maps, strict=True):
        with torch.no_grad():
            if family == "FasterRCNN":
                logits = head([x])[0][0]
            else:
                logits = head.classification_head([x]).view(2, *x.shape[2:], -1).permute(0, 3, 1, 2)
        torch.testing.assert_close(grid, logits.amax(1, keepdim=True).sigmoid())


@pytest.mark.parametrize("family", FAMILIES)
def test_a_fused_backbone_gives_the_same_maps(family, tmp_path):
    detector = detector_of(build_model(tiny_yaml(tmp_path, family), nc=2))
    for module in detector.model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    detector.freeze()
    images = torch.rand(1, 3, 64, 64)
    expected = detector.model.pyramid(images)
    detector.fuse(detector.model)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in detector.model.modules())
    torch.testing.assert_close(detector.model.pyramid(images), expected, rtol=1e-4, atol=1e-4)
