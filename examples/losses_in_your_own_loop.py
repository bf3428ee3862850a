"""Use the method without Ultralytics' trainer: `ds2d2_yolo.method` needs tensors alone.

Two toy pyramids stand for the necks of a teacher and a student of any framework, a convolution for the teacher's head.
"""

import torch
from torch import nn

from ds2d2_yolo.method import DS2D2Loss, Gains, Levels, quality_focal_loss


def main(steps: int = 60) -> list[float]:
    """Fit the student's maps to the teacher's, as a person, a box and a frozen head see them; return the losses."""
    torch.manual_seed(0)
    images = torch.rand(2, 3, 128, 128)
    teacher = nn.ModuleList([nn.Conv2d(3, 32, 8, stride=8), nn.Conv2d(3, 64, 16, stride=16)]).requires_grad_(False)
    student = nn.ModuleList([nn.Conv2d(3, 8, 8, stride=8), nn.Conv2d(3, 16, 16, stride=16)])
    head = nn.ModuleList([nn.Conv2d(32, 5, 1), nn.Conv2d(64, 5, 1)]).requires_grad_(False)

    def compare(seen: list[torch.Tensor], known: list[torch.Tensor]) -> torch.Tensor:
        terms = []
        for layer, ours, theirs in zip(head, seen, known, strict=True):
            student_logits, teacher_logits = layer(ours).flatten(2).mT, layer(theirs).flatten(2).mT
            terms.append(quality_focal_loss(student_logits, teacher_logits, avg_factor=2.0))
        return torch.stack(terms).sum()

    loss = DS2D2Loss(Levels.of_neck((8, 16), (32, 64)), Gains(ex_low=1.0, ex_high=1.0, im_full=1.0))
    optimizer = torch.optim.Adam([*student.parameters(), *loss.parameters()], lr=0.003)
    boxes, image_of_box = torch.tensor([[10.0, 20.0, 60.0, 50.0], [70.0, 70.0, 90.0, 120.0]]), torch.tensor([0, 1])
    history = []
    for _ in range(steps):
        seen, known = [layer(images) for layer in student], [layer(images) for layer in teacher]
        terms = loss(seen, known, boxes, image_of_box, (128, 128), full=compare)
        total = torch.stack(list(terms.values())).sum()
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        history.append(total.item())
    print(f"{', '.join(terms)}: {history[0]:.3f} -> {history[-1]:.3f}")
    return history


if __name__ == "__main__":
    main()
