"""Gains found automatically: every term gets a chosen share of the gradient that the student's maps receive."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.distributed as dist

# Gradients are taken of values this much larger: unscaled ones vanish in float16, whose scaler is not at work here.
_SCALE = 2.0**10


class Calibration:
    """Measures gradients over the first batches of a training and derives the gains of terms from them.

    The gradients of the detection loss and of every term to the student's tapped maps are measured for each batch; a
    gain is the term's share times the mean norm of the detection loss's gradient, divided by the mean norm of the
    term's. So a term with share 0.5 pulls at the maps half as strongly as the detection loss does. The gains are in use
    from the first batch on and settle while batches are added to the means. All workers of a distributed run take the
    means over all of them, and thus have the same gains.

    Args:
        shares (Mapping[str, float]): Share of every term whose gain is wanted.
        batches (int): Number of batches to measure.

    Attributes:
        gains (dict[str, float]): The gains by name of the term; empty before the first batch.
        finished (bool): Whether the gains are final.

    Example:
        >>> maps = [torch.ones(1, 1, 2, 2, requires_grad=True)]
        >>> calibration = Calibration({"ex_low": 0.5}, batches=1)
        >>> calibration.observe(maps[0].sum(), {"ex_low": 4 * maps[0].sum()}, maps)
        >>> calibration.gains, calibration.finished
        ({'ex_low': 0.125}, True)
    """

    def __init__(self, shares: Mapping[str, float], batches: int = 50) -> None:
        self.shares = dict(shares)
        self.gains: dict[str, float] = {}
        self.finished = False
        self.batches = 0
        self._wanted = batches
        self._sums = [0.0] * (1 + len(self.shares))

    def observe(self, detection: torch.Tensor, terms: Mapping[str, torch.Tensor], maps: Sequence[torch.Tensor]) -> None:
        """Take the gradients of one batch into account.

        A batch with a gradient that is not finite, as float16 training has in its first steps, is passed over; so is
        one in which the detection loss has none.

        Args:
            detection (torch.Tensor): The detection loss, a scalar on the scale of the terms.
            terms (Mapping[str, torch.Tensor]): The terms by name, without their gains.
            maps (Sequence[torch.Tensor]): The student's tapped maps.
        """
        values = [detection, *(terms[name] for name in self.shares)]
        norms = torch.stack([_gradient_norm(value, maps) for value in values])
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(norms)
        if not bool(torch.isfinite(norms).all()) or not bool(norms[0] > 0):
            return
        self._sums = [total + norm for total, norm in zip(self._sums, norms.tolist(), strict=True)]
        self.batches += 1
        # A term without gradient has nothing to be scaled; that it teaches nothing is reported elsewhere.
        self.gains = {
            name: float(f"{share * self._sums[0] / total:.4g}") if total > 0 else share
            for (name, share), total in zip(self.shares.items(), self._sums[1:], strict=True)
        }
        self.finished = self.batches >= self._wanted

    def finish(self) -> None:
        """Make the gains final, whatever number of batches they stand on."""
        self.finished = self.batches > 0


def _gradient_norm(value: torch.Tensor, maps: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return the norm of the gradient of a scalar to all maps together, in float32."""
    sources = [x for x in maps if x.requires_grad]
    if not sources or not value.requires_grad:
        return torch.zeros((), device=value.device)
    gradients = torch.autograd.grad(value * _SCALE, sources, retain_graph=True, allow_unused=True)
    norms = [gradient.float().norm() for gradient in gradients if gradient is not None]
    return torch.stack(norms).norm() / _SCALE if norms else torch.zeros((), device=value.device)
