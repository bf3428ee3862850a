"""One distilled training step: additions to the loss. Nothing else changes."""

import copy
import math
import pickle

import pytest
import torch
from torch import nn
from training_helpers import batch_of, lively_model
from ultralytics.utils.torch_utils import profile_ops

from ds2d2_yolo.detectors import RTDETRDetector, Taps, YOLODetector, detector_of
from ds2d2_yolo.errors import DS2D2Error
from ds2d2_yolo.method import DensePredictions, DS2D2Loss, Gains, LossInputs, TappedMaps, dense_implicit_terms
from ds2d2_yolo.training.adapters import AdapterFit
from ds2d2_yolo.training.arguments import check_arguments
from ds2d2_yolo.training.autobatch import DistillationStep
from ds2d2_yolo.training.checks import complete_student
from ds2d2_yolo.training.pair import check_pair
from ds2d2_yolo.training.step import Distiller

ALL = Gains(0.1, 0.2, 1.0, 1.0, 1.0)
NAMES = ["ex_low_loss", "ex_high_loss", "im_full_loss", "im_high_loss", "response_loss"]


def make(teacher_name="yolo11s.yaml", student_name="yolo11n.yaml", gains=ALL, layers=None, size=64):
    teacher = detector_of(lively_model(teacher_name, seed=1))
    student = detector_of(lively_model(student_name, seed=2))
    pair = check_pair(teacher, student, size, layers)
    loss = DS2D2Loss(pair.maps, gains)
    amplifier = copy.deepcopy(teacher.head).eval().requires_grad_(False)
    amplifier.training = True
    return Distiller(teacher, amplifier, loss, pair.student_layers, pair.teacher_layers), student


def step(distiller, student, batch):
    distiller.begin_step(student, batch)
    return student.model(batch)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("teacher", "student"),
    [
        ("yolo11s.yaml", "yolo11n.yaml"),
        ("yolov8s.yaml", "yolo26n.yaml"),  # DFL to none, one-to-many to one-to-one
        ("yolo26s.yaml", "yolov5n.yaml"),  # none to DFL
        ("yolov9s.yaml", "yolov10n.yaml"),
        ("yolo12s.yaml", "yolov9t.yaml"),
        ("yolov8s-p6.yaml", "yolov8n-p6.yaml"),
        ("yolov8s-p2.yaml", "yolov8n-p2.yaml"),
    ],
)
def test_every_term_reaches_the_student_alone(teacher, student):
    size = 128 if "p6" in teacher else 64
    distiller, student = make(teacher, student, size=size)
    batch = batch_of(size)
    loss, items = step(distiller, student, batch)
    assert [key for key in items if key in NAMES] == NAMES
    assert torch.isfinite(loss).all()
    terms = loss[-5:]
    factor = student.loss_factor(2)  # the batch size, times the one-to-many weight if there is one
    torch.testing.assert_close(terms.detach() / factor, torch.stack([items[name] for name in NAMES]))
    parameters = [p for p in student.model.parameters() if p.requires_grad]
    for term in terms:
        gradients = torch.autograd.grad(term, parameters, retain_graph=True, allow_unused=True)
        assert any(g is not None and g.any() for g in gradients)
    loss.sum().backward()
    frozen_models = (distiller.teacher.model, distiller.amplifier)
    assert all(p.grad is None for frozen in frozen_models for p in frozen.parameters())
    assert all(p.grad is not None for p in distiller.loss.adapters.parameters())


def test_adapters_are_fitted_before_the_terms():
    distiller, student = make(gains=Gains(ex_low=1.0, ex_high=1.0))
    batch = batch_of()
    random = step(distiller, student, batch)[0].detach()
    distiller.fit = AdapterFit(distiller.loss.adapters)
    fitted, items = step(distiller, student, batch)
    assert (fitted[-2:] < 0.5 * random[-2:]).all()
    torch.testing.assert_close(fitted[:-2], random[:-2])  # the student's own loss
    fitted.sum().backward()
    assert all(adapter.weight.grad.any() for adapter in distiller.loss.adapters)
    distiller.fit = None
    torch.testing.assert_close(step(distiller, student, batch)[1], items)


def test_the_response_term_compares_the_models_predictions():
    distiller, student = make("yolov8s.yaml", "yolo26n.yaml", Gains(response=2.0))  # DFL and none
    batch = batch_of()
    distiller.begin_step(student, batch)
    taps = Taps()
    taps.open({"head": student.head, **student.assignment_modules()})
    loss, _ = student.model(batch)
    outputs = taps.close()
    student_predictions = student.decode(student.head, outputs["head"])
    predictions = student_predictions, distiller.run_teacher(batch["img"]).raw
    expected = 2.0 * torch.stack(dense_implicit_terms(*predictions, student.assignment(outputs).avg_factor)).sum()
    torch.testing.assert_close(loss[-1], expected * student.loss_factor(2))
    gradients = torch.autograd.grad(loss[-1], list(student.head.cv2.parameters()))
    assert all(gradient.any() for gradient in gradients)


def test_the_response_term_needs_a_family_that_has_responses():
    class Silent(RTDETRDetector):
        family = "Silent"

    silent = Silent(lively_model("yolov8n.yaml"))
    student = YOLODetector(silent.model)
    complete_student(check_arguments({"response": 0}), silent, student)
    with pytest.raises(DS2D2Error, match=r"response=1: the family Silent does not support this term; pass response=0"):
        complete_student(check_arguments({"response": 1}), silent, student)
    complete_student(check_arguments({"response": 1}), student, student)


def test_the_detection_loss_is_untouched():
    distiller, student = make()
    batch = batch_of()
    plain_loss, plain_items = student.model(batch)
    loss, items = step(distiller, student, batch)
    torch.testing.assert_close(loss[:3], plain_loss)
    assert {k: v.item() for k, v in items.items() if k not in NAMES} == pytest.approx(
        {k: v.item() for k, v in plain_items.items()}, rel=1e-4
    )


def test_hooks_live_for_one_pass():
    distiller, student = make()
    batch = batch_of()
    before = {name for name, _ in student.model.named_modules()}
    step(distiller, student, batch)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in student.model.modules())
    assert not any(m._forward_hooks for m in distiller.teacher.model.modules())
    assert {name for name, _ in student.model.named_modules()} == before
    assert len(student.model(batch)[0]) == 3  # a usual pass again
    student.model.criterion = None
    pickle.loads(pickle.dumps(student.model))
    copy.deepcopy(student.model)


def test_the_teacher_assigns_objects_for_one_pass():
    distiller, student = make()
    batch = batch_of()
    own, _ = student.model(batch)
    teacher = distiller.run_teacher(batch["img"])
    handle = student.assign_by(teacher.raw, teacher.maps)
    by_teacher, _ = student.model(batch)
    handle.remove()
    assert not torch.allclose(by_teacher, own)

    distiller.assignment = "teacher"
    loss, _ = step(distiller, student, batch)
    torch.testing.assert_close(loss[:3], by_teacher)
    (assigner,) = student.assignment_modules().values()
    assert not assigner._forward_pre_hooks
    torch.testing.assert_close(student.model(batch)[0], own)
    distiller.begin_step(student, batch)
    assert assigner._forward_pre_hooks
    distiller.end_step()  # as after an error in the pass
    assert not assigner._forward_pre_hooks


def test_the_teacher_may_assign_objects_and_nothing_else():
    distiller, student = make(gains=Gains())
    batch = batch_of()
    own, _ = student.model(batch)
    loss, items = step(distiller, student, batch)
    assert torch.equal(loss, own)
    assert not set(NAMES) & set(items)
    assert not any(m._forward_hooks for m in student.model.modules())
    distiller.assignment = "teacher"
    loss, items = step(distiller, student, batch)
    assert len(loss) == len(items) == 3
    assert not torch.allclose(loss, own)
    assert not any(m._forward_hooks for m in student.model.modules())


def test_an_interrupted_pass_leaves_nothing_behind():
    distiller, student = make()
    batch = batch_of()
    distiller.begin_step(student, batch)
    student.model.model[16](torch.rand(1, 256, 8, 8))  # an error after a tap has an output
    distiller.end_step()
    assert not any(m._forward_hooks for m in student.model.modules())
    assert len(student.model(batch)[0]) == 3
    assert len(step(distiller, student, batch)[0]) == 8


def test_teacher_and_amplifier_do_not_change():
    distiller, student = make()
    frozen_models = (distiller.teacher.model, distiller.amplifier)
    before = [{k: v.clone() for k, v in frozen.state_dict().items()} for frozen in frozen_models]
    optimizer = torch.optim.SGD([*student.model.parameters(), *distiller.loss.adapters.parameters()], lr=0.1)
    for _ in range(2):
        loss, _ = step(distiller, student, batch_of())
        loss.sum().backward()
        optimizer.step()
    for frozen, state in zip(frozen_models, before, strict=True):
        assert all(torch.equal(value, state[key]) for key, value in frozen.state_dict().items())
        assert not any(module.training for module in frozen.modules() if isinstance(module, nn.BatchNorm2d))


def test_other_layers_can_be_compared():
    distiller, student = make(layers=((4, 6), (4, 6)))
    assert distiller.loss.maps.explicit == (3, 4)
    loss, items = step(distiller, student, batch_of())
    tapped, later = (student.layer(index).cv2.conv.weight for index in (6, 22))
    explicit, *_ = torch.autograd.grad(loss[3], (tapped, later), retain_graph=True)
    assert explicit.any()
    assert not torch.autograd.grad(loss[3], later, retain_graph=True)[0].any()
    assert torch.autograd.grad(loss[5], later)[0].any()
    assert [key for key in items if key in NAMES] == NAMES


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_works_under_autocast(dtype):
    distiller, student = make()
    batch = batch_of()
    exact = step(distiller, student, batch)[1]
    with torch.autocast("cpu", dtype):
        loss, items = step(distiller, student, batch)
        assert {x.dtype for x in distiller.run_teacher(batch["img"]).maps} == {dtype}  # the teacher computes in it, too
    loss.sum().backward()
    for name in NAMES:
        assert items[name].item() == pytest.approx(exact[name].item(), rel=0.1)
    assert all(torch.isfinite(p.grad).all() for p in student.model.parameters() if p.grad is not None)


def test_batches_without_any_box():
    distiller, student = make()
    batch = batch_of()
    batch |= {"cls": torch.zeros(0, 1), "bboxes": torch.zeros(0, 4), "batch_idx": torch.zeros(0)}
    loss, _ = step(distiller, student, batch)
    loss.sum().backward()
    assert torch.isfinite(loss).all()


def test_channels_last_gives_the_same_terms():
    distiller, student = make()
    batch = batch_of()
    exact = step(distiller, student, batch)[1]
    for module in (student.model, distiller.teacher.model, distiller.amplifier, distiller.loss):
        module.to(memory_format=torch.channels_last)
    items = step(distiller, student, batch)[1]
    for name in NAMES:
        assert items[name].item() == pytest.approx(exact[name].item(), rel=1e-3)


def test_a_frozen_student_is_reported_at_once(warnings):
    distiller, student = make(gains=Gains(im_full=1.0))
    student.model.requires_grad_(False)
    student.layer(23).requires_grad_(True)
    step(distiller, student, batch_of())
    assert sum("im_full_loss has no gradient to the student" in message for message in warnings()) == 1


def test_a_term_that_is_zero_or_not_finite_is_reported_once(warnings):
    distiller, student = make(gains=Gains(im_full=1.0, ex_low=1.0))
    with torch.no_grad():  # all classes equally impossible, and no finite difference of features
        for branch in distiller.teacher.head.cv3:
            branch[-1].weight.zero_()
            branch[-1].bias.fill_(-1e9)
        distiller.loss.adapters[0].weight.fill_(float("inf"))
    for _ in range(3):
        step(distiller, student, batch_of())
    distiller.end_step()
    (message,) = (message for message in warnings() if "ex_low_loss is not finite" in message)
    assert "from the adapter of level 0 (student's layer 16, teacher's 16); pass a lower ex_low=" in message
    assert len(warnings()) == len(set(warnings()))


def test_a_term_that_is_negative_is_reported_once(warnings, monkeypatch):
    decode = YOLODetector.decode

    def decode_inverted(self, head, raw, ratio=1):
        logits, boxes = decode(self, head, raw, ratio)
        if raw["boxes"].requires_grad:
            boxes = torch.cat([boxes[..., 2:] + 100, boxes[..., :2] - 100], 2)
        return DensePredictions(logits, boxes)

    monkeypatch.setattr(YOLODetector, "decode", decode_inverted)
    distiller, student = make(gains=Gains(im_full=1.0))
    for _ in range(2):
        step(distiller, student, batch_of())
    distiller.end_step()
    assert [message.split(":")[2] for message in warnings()] == [
        " it has no lower bound; pass im_full=0, or correct how the family decodes boxes"
    ]


@pytest.mark.parametrize(
    ("side", "told"), [("student", "the student's map of level 1"), ("teacher", "the teacher's map of level 1")]
)
def test_maps_that_are_not_finite_are_named_by_level(side, told, warnings):
    distiller, student = make(gains=Gains(ex_high=1.0))
    last = student.layer(19).cv2.bn if side == "student" else distiller.teacher.layer(19).cv2.conv
    with torch.no_grad():
        last.bias.fill_(float("inf"))
    step(distiller, student, batch_of())
    distiller.end_step()
    (message,) = (message for message in warnings() if "ex_high_loss is not finite" in message)
    assert told in message
    assert "level 0" not in message


@pytest.mark.slow
def test_the_step_for_autobatch_holds_the_whole_distillation():
    distiller, student = make()
    student.model.ds2d2_adapters = distiller.loss.adapters
    original = DistillationStep(student.model, distiller)
    copied = copy.deepcopy(original).train()  # as AutoBatch does
    rows = profile_ops([torch.empty(count, 3, 64, 64) for count in (1, 2)], copied, n=1, device="cpu", max_num_obj=4)
    assert [row[5] for row in rows] == [(1, 3, 64, 64), (2, 3, 64, 64)]
    assert all(math.isfinite(row[4]) for row in rows)  # time of the backward pass, which worked
    assert [row[6] for row in rows] == [(8,), (8,)]
    assert all(p.grad is not None for p in copied.student.ds2d2_adapters.parameters())
    assert all(p.grad is None for p in (*student.model.parameters(), *copied.distiller.teacher.model.parameters()))
    assert not any(m._forward_hooks for m in copied.student.modules())


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_maps_in_half_precision_give_nearly_the_same_terms(dtype):
    """1,000 inputs of scales from 1e-2 to 1e2: within 1 % of float32 for bfloat16, 0.2 % for float16.

    The relative rounding error of a value is at most 2^-9 and 2^-12. Terms square or multiply two values. They are sums
    of values whose errors have different signs.
    """
    bound = {torch.bfloat16: 1e-2, torch.float16: 2e-3}[dtype]
    generator = torch.Generator().manual_seed(0)
    loss = DS2D2Loss(TappedMaps.of_neck((4,), (4,)), Gains(ex_low=1.0, ex_high=1.0))
    boxes = torch.tensor([[4.0, 4.0, 40.0, 30.0]])
    for _ in range(1000):
        scale = 10 ** (4 * torch.rand(1, generator=generator).item() - 2)
        maps = [scale * torch.randn(1, 4, 8, 8, generator=generator) for _ in range(2)]
        with torch.no_grad():
            exact = loss(LossInputs([maps[0]], [maps[1]], boxes, torch.zeros(1), (64, 64)))
            with torch.autocast("cpu", dtype):
                half = loss(LossInputs(*([x.to(dtype)] for x in maps), boxes, torch.zeros(1), (64, 64)))
        for name, value in exact.items():
            assert half[name].dtype is torch.float32
            assert half[name].item() == pytest.approx(value.item(), rel=bound)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("teacher", "student"),
    [("yolo11s.yaml", "yolo11n.yaml"), ("yolo26s.yaml", "yolo26n.yaml"), ("yolov9s.yaml", "yolov9t.yaml")],
)
def test_fusing_teacher_and_amplifier_changes_rounding_alone(teacher, student, monkeypatch):
    batch = batch_of()
    fused, model = make(teacher, student)
    folded = step(fused, model, batch)[0]
    monkeypatch.setattr(YOLODetector, "fuse", lambda *_: None)
    plain, model = make(teacher, student)
    assert any(isinstance(module, nn.BatchNorm2d) for module in plain.teacher.head.modules())
    assert not any(isinstance(module, nn.BatchNorm2d) for module in fused.teacher.model.modules())
    assert not any(isinstance(module, nn.BatchNorm2d) for module in fused.amplifier.modules())
    torch.testing.assert_close(folded, step(plain, model, batch)[0], rtol=1e-4, atol=1e-6)
