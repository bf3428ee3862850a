"""Implicit terms through frozen heads in half precision, as in mixed precision, against float32."""

import pytest
import torch
from torch import nn
from training_helpers import lively_model, small_yolo, tiny_yaml

from ds2d2_yolo.detectors import DenseAssignment, build_model, detector_of
from ds2d2_yolo.detectors.torchvision.faster_rcnn import Pooled, Regions

SIZES = {"YOLO": (8, 4, 2), "RetinaNet": (8, 4, 2, 1, 1), "FasterRCNN": (16, 8, 4, 2, 1)}
CHANNELS = {"YOLO": (16, 16, 32), "RetinaNet": (16,) * 5, "FasterRCNN": (16,) * 5}


def frozen(family, folder):
    if family == "YOLO":
        detector = detector_of(lively_model(small_yolo(folder)))
    else:
        torch.manual_seed(0)
        detector = detector_of(build_model(tiny_yaml(folder, family), nc=2))
        for parameter in detector.head.parameters():
            if parameter.dim() > 1:  # otherwise all predictions are similar
                nn.init.normal_(parameter, std=0.05)
    detector.freeze()
    return detector


def assignment_of(family, maps, regions):
    positives = torch.tensor(4.0)
    if family == "YOLO":
        return DenseAssignment(positives)
    if family == "RetinaNet":
        return DenseAssignment(positives, torch.ones(1, 9 * sum(x.shape[2] * x.shape[3] for x in maps)))
    return Pooled(Regions([regions], None, None, positives), (None,) * len(maps), None, None)


# Relative tolerance of the term, and an absolute one for features near zero. There, differences of predictions are
# small, but rounding depends on the predictions themselves.
BOUNDS = {torch.bfloat16: (0.05, 0.01), torch.float16: (0.01, 0.002)}


@pytest.mark.slow
@pytest.mark.parametrize("dtype", BOUNDS)
@pytest.mark.parametrize("family", SIZES)
def test_heads_in_half_precision_give_nearly_the_same_terms(family, dtype, tmp_path):
    """Features with scales from 0.01 to 100. The student's are the teacher's with noise."""
    detector = frozen(family, tmp_path)
    head = detector.implicit_part(detector.head)
    generator = torch.Generator().manual_seed(0)
    corners = 48 * torch.rand(32, 2, generator=generator)
    regions = torch.cat([corners, corners + 4 + 40 * torch.rand(32, 2, generator=generator)], 1).clamp(max=64)
    share, floor = BOUNDS[dtype]
    for _ in range(100):
        scale = 10 ** (4 * torch.rand(1, generator=generator).item() - 2)
        teacher, noise = (
            [
                scale * torch.randn(1, channels, size, size, generator=generator)
                for channels, size in zip(CHANNELS[family], SIZES[family], strict=True)
            ]
            for _ in range(2)
        )
        student = [x + 0.3 * y for x, y in zip(teacher, noise, strict=True)]
        with torch.no_grad():
            exact = detector.compare(head, student, teacher, assignment_of(family, student, regions))
            half = [[x.to(dtype) for x in maps] for maps in (student, teacher)]
            with torch.autocast("cpu", dtype):
                term = detector.compare(head, *half, assignment_of(family, student, regions))
        assert term.dtype is torch.float32
        assert term.item() == pytest.approx(exact.item(), rel=0, abs=share * exact.item() + floor)
