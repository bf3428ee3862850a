"""RetinaNet and Faster R-CNN against the reference: anchors, assignment, boxes, implicit terms and their gradients."""

import pytest
import torch
from golden_arrays import Golden
from reference_weights import region_head, retina_head

from ds2d2_yolo.detectors import DenseAssignment, FasterRCNNDetector, RetinaNetDetector
from ds2d2_yolo.detectors.torchvision.faster_rcnn import Pooled, Regions
from ds2d2_yolo.detectors.torchvision.retinanet import RetinaAssigner
from ds2d2_yolo.method import RegionPredictions, high_frequency_maps, region_implicit_terms


def close(actual, expected, rtol=1e-4, atol=1e-4):
    torch.testing.assert_close(actual.detach(), expected, rtol=rtol, atol=atol)


def levels(arrays, name, numbers=range(5), dim=1):
    return torch.cat([arrays[f"{name}_l{number}"] for number in numbers], dim)


@pytest.fixture(scope="module")
def retina():
    arrays, maps = Golden("implicit_retina"), Golden("explicit_retina")
    student, teacher = ([maps[f"{side}_feat_l{i}"] for i in range(5)] for side in ("stu", "tea"))
    return arrays, student, teacher


def test_anchors_agree(retina):
    arrays, student, _ = retina
    head = retina_head(arrays, "tea_head.")
    per_level = head(student).per_level
    close(head.anchors(student)[-sum(per_level[3:]) :], levels(arrays, "anchors_xyxy", (3, 4), dim=0))


def test_predictions_and_decoded_boxes_agree(retina):
    arrays, student, teacher = retina
    head = retina_head(arrays, "tea_head.")
    for side, maps in (("stu", student), ("tea", teacher)):
        raw = head(maps)
        decoded = head.decode(raw)
        start = sum(raw.per_level[:2])
        logits = [arrays[f"{side}_cls_l{i}"].permute(0, 2, 3, 1).reshape(2, -1, 5) for i in (2, 3, 4)]
        close(decoded.logits[:, start:], torch.cat(logits, 1))
        boxes = [arrays[f"decoded_{side}_xyxy_l{i}"].reshape(2, -1, 4) for i in (2, 3, 4)]
        close(decoded.boxes[:, start:], torch.cat(boxes, 1))


@pytest.mark.parametrize("case", ["A", "Z"])
def test_assigned_labels_and_label_weights_agree(retina, case):
    arrays, student, _ = retina
    anchors = retina_head(arrays, "tea_head.").anchors(student)
    expected, weights = levels(arrays, f"labels_target_{case}"), levels(arrays, f"label_weights_{case}")
    total = 0
    for image in range(2):
        valid = levels(arrays, f"valid_flags_img{image}", dim=0)  # the reference leaves out anchors in the padding
        assignment = RetinaAssigner()(anchors[valid], [arrays[f"boxes_{case}_img{image}"].reshape(-1, 4)])
        labels = torch.cat([arrays[f"labels_{case}_img{image}"], torch.tensor([5, 5])])  # ignored ones count as 5, too
        assert torch.equal(labels[assignment.objects[0]], expected[image][valid].long())
        assert torch.equal(assignment.label_weights[0], weights[image][valid].float())
        total += assignment.avg_factor
    assert total == arrays.scalar(f"avg_factor_{case}")


@pytest.mark.parametrize("case", ["A", "Z"])
def test_the_dense_implicit_path_agrees(retina, case):
    arrays, student, teacher = retina
    student = [x.clone().requires_grad_() for x in student]
    weights = levels(arrays, f"label_weights_{case}").float()
    assignment = DenseAssignment(arrays[f"avg_factor_{case}"], weights)
    detector = RetinaNetDetector(None)
    full = detector.compare(retina_head(arrays, "tea_head."), student, teacher, assignment)
    close(full, arrays[f"implicit_total_{case}"])
    amplifier, pair = retina_head(arrays, "amp_head."), (high_frequency_maps(student), high_frequency_maps(teacher))
    close(detector.compare(amplifier, *pair, assignment), arrays[f"implicit_high_freq_total_{case}"])
    if case == "A":
        full.backward()
        for level in (2, 3, 4):
            close(student[level].grad, arrays[f"grad_total_A_wrt_stu_feat_l{level}"])


def test_the_region_path_agrees(golden):
    """The golden files lack the finest level's maps: its regions use the stored predictions."""
    arrays, maps = golden("implicit_frcnn"), golden("explicit_frcnn")
    head = region_head(arrays, "tea_roi.bbox_head.")
    student = [torch.zeros(2, 16, 64, 80), maps["stu_feat_l1"], maps["stu_feat_l2"], torch.zeros(2, 16, 8, 10)]
    for x in student:
        x.requires_grad_()
    regions = arrays["full_A_rois"]
    seen = head(student, [regions[regions[:, 0] == image][:, 1:] for image in range(2)])
    pooled_from_others = (regions[:, 3] - regions[:, 1]) * (regions[:, 4] - regions[:, 2]) >= 112**2
    assert pooled_from_others.sum() == 6
    logits, deltas = arrays["full_A_stu_cls"], arrays["full_A_stu_reg"].reshape(-1, 5, 4)
    close(seen.logits[pooled_from_others], logits[pooled_from_others])
    close(seen.deltas[pooled_from_others], deltas[pooled_from_others])

    mixed = RegionPredictions(
        torch.where(pooled_from_others[:, None], seen.logits, logits),
        torch.where(pooled_from_others[:, None, None], seen.deltas, deltas),
    )
    known = RegionPredictions(arrays["full_A_tea_cls"], arrays["full_A_tea_reg"].reshape(-1, 5, 4))
    factor = arrays.scalar("full_A_avg_factor_given_as_kl_weight")
    total = torch.stack(region_implicit_terms(mixed, known, class_factor=factor)).sum()
    close(total, arrays["full_A_total"])
    total.backward()
    close(student[1].grad, arrays["full_A_grad_total_wrt_stu_feat_l1"])


def test_the_region_path_sums_only_where_it_is_asked_to(golden):
    head = region_head(golden("implicit_frcnn"), "tea_roi.bbox_head.")
    student, teacher = ([torch.randn(1, 16, s, s) for s in (32, 16, 8, 4, 2)] for _ in range(2))
    boxes = [torch.tensor([[0.0, 0.0, 40.0, 60.0], [10.0, 20.0, 120.0, 128.0]])]
    regions = Regions(boxes, torch.tensor([0, 5]), torch.zeros(2, 4), torch.tensor(2))
    seen, known = head(student, boxes), head(teacher, boxes)
    values = []
    for summed in (False, True):
        detector = FasterRCNNDetector(None)
        detector.configure(sum_regions=summed)
        elsewhere = Pooled(regions, [x.clone() for x in student], torch.empty(0), None)
        values.append(detector.compare(head, student, teacher, elsewhere))
        pooled = Pooled(regions, student, head.box_roi_pool(student, boxes), None)
        close(detector.compare(head, student, teacher, pooled), values[-1])
        classes, deltas = region_implicit_terms(seen, known, class_factor=2.0 if summed else 1.0)
        close(values[-1], classes + deltas)
    assert values[1] > values[0]
