"""Use the method without Ultralytics' trainer: the losses only need tensors.

Two toy pyramids replace the necks of a teacher and a student from any framework. A convolution replaces the head.
"""

from collections.abc import Sequence

import torch
from torch import nn

from ds2d2_yolo import DS2D2Loss, Gains, HeadComparison, LossInputs, TappedMaps, quality_focal_loss


class ThroughHead(HeadComparison):
    """Compares the class predictions of a frozen head from two pyramids, for the term `im_full`."""

    def __init__(self, head: nn.ModuleList) -> None:
        self.head = head

    def full(self, student_maps: Sequence[torch.Tensor], teacher_maps: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return the sum over the levels."""
        terms = []
        for layer, student_map, teacher_map in zip(self.head, student_maps, teacher_maps, strict=True):
            logits = layer(student_map).flatten(2).mT, layer(teacher_map).flatten(2).mT
            terms.append(quality_focal_loss(*logits, avg_factor=2.0))
        return torch.stack(terms).sum()


def main(steps: int = 60) -> list[float]:
    """Fit the student's maps to the teacher's, directly and through a frozen head. Return the losses."""
    torch.manual_seed(0)
    images = torch.rand(2, 3, 128, 128)
    teacher = nn.ModuleList([nn.Conv2d(3, 32, 8, stride=8), nn.Conv2d(3, 64, 16, stride=16)]).requires_grad_(False)
    student = nn.ModuleList([nn.Conv2d(3, 8, 8, stride=8), nn.Conv2d(3, 16, 16, stride=16)])
    head = nn.ModuleList([nn.Conv2d(32, 5, 1), nn.Conv2d(64, 5, 1)]).requires_grad_(False)
    loss = DS2D2Loss(TappedMaps.of_neck((8, 16), (32, 64)), Gains(ex_low=1.0, ex_high=1.0, im_full=1.0))
    optimizer = torch.optim.Adam([*student.parameters(), *loss.parameters()], lr=0.003)
    boxes, image_of_box = torch.tensor([[10.0, 20.0, 60.0, 50.0], [70.0, 70.0, 90.0, 120.0]]), torch.tensor([0, 1])
    history = []
    for _ in range(steps):
        maps = [layer(images) for layer in student], [layer(images) for layer in teacher]
        terms = loss(LossInputs(*maps, boxes, image_of_box, (128, 128), heads=ThroughHead(head)))
        total = torch.stack(list(terms.values())).sum()
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        history.append(total.item())
    print(f"{', '.join(terms)}: {history[0]:.3f} -> {history[-1]:.3f}")
    return history


if __name__ == "__main__":
    main()
