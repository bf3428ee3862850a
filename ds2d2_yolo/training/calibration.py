"""Shares of the gradient that the student's maps receive: gains are found by them, and every epoch tells them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import torch
import torch.distributed as dist

DETECTION = ""
"""Name of the detection loss among the terms."""

_FOLLOWING = 0.1  # weight of a new batch in running averages, which so forget within some ten measured batches
_STATE = ("gains", "batches", "finished", "_sums")

# Gradients are taken of values this much larger: unscaled ones vanish in float16, whose scaler is not at work here.
_SCALE = 2.0**10


class Calibration:
    """Measures gradients over the first batches of a training and derives the gains of terms from them.

    The gradients of the detection loss (the student's whole own loss, with masks or keypoints where it finds such) and
    of every term to the student's tapped maps are measured for each batch; a gain is the term's share times the mean
    norm of the detection loss's gradient, divided by the mean norm of the term's. So a term with share 0.5 pulls at the
    maps half as strongly as the detection loss does. The gains are in use from the first batch on and settle while
    batches are added to the means. All workers of a distributed run take the means over all of them, and thus have the
    same gains.

    Running gains go on from there: the batches that a `ShareMeter` measures join averages that forget slowly.

    Args:
        shares (Mapping[str, float]): Share of every term whose gain is wanted.
        batches (int): Number of batches to measure.
        is_running (bool): Whether `follow` adapts the gains after these batches.

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

    def __init__(self, shares: Mapping[str, float], batches: int = 50, is_running: bool = False) -> None:
        self.shares = dict(shares)
        self.is_running = is_running
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
            maps (Sequence[torch.Tensor]): The student's tapped maps; where only its head is trained, the parameters.
        """
        values = [detection, *(terms[name] for name in self.shares)]
        self._add(torch.stack([gradient_norms(value, maps).norm() for value in values]))

    def follow(self, norms: Mapping[str, torch.Tensor], gains: Mapping[str, float]) -> None:
        """Adapt running gains to what a `ShareMeter` has measured on a batch.

        Args:
            norms (Mapping[str, torch.Tensor]): Norms of gradients as `ShareMeter.observe` returns them.
            gains (Mapping[str, float]): Gains that the terms had.
        """
        self._add(torch.stack([norms[DETECTION], *(norms[name] / gains[name] for name in self.shares)]))

    def state(self) -> dict[str, object]:
        """Return what running gains stand on, as values that can be saved."""
        return {name: getattr(self, name) for name in _STATE}

    def restore(self, state: Mapping[str, object]) -> None:
        """Go on from what `state` returned."""
        for name in _STATE:
            setattr(self, name, state[name])

    def _add(self, norms: torch.Tensor) -> None:
        """Take norms into account: of the detection loss, then of the terms without their gains."""
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(norms)
        if not bool(torch.isfinite(norms).all()) or not bool(norms[0] > 0):
            return
        kept, new = (1.0 - _FOLLOWING, _FOLLOWING * self.batches) if self.finished else (1.0, 1.0)
        self._sums = [kept * total + new * norm for total, norm in zip(self._sums, norms.tolist(), strict=True)]
        self.batches += not self.finished
        # A term without gradient has nothing to be scaled; that it teaches nothing is reported elsewhere.
        self.gains = {
            name: float(f"{share * self._sums[0] / total:.4g}") if total > 0 else share
            for (name, share), total in zip(self.shares.items(), self._sums[1:], strict=True)
        }
        self.finished |= self.batches >= self._wanted

    def finish(self) -> None:
        """Make the gains final, whatever number of batches they stand on."""
        self.finished = self.batches > 0


class ShareMeter:
    """Measures on a few batches of every epoch which share of the gradient each term has, at every level.

    A share is the norm of the gradient of a term, times its gain, to the student's tapped maps, divided by that of the
    detection loss: what the argument `shares` asks for, as it came out. That of a level has the term's gradient to the
    level's maps above, and the whole of the detection loss below, so that the squares of the levels' add up. Measuring
    changes nothing: the gradients are those to the maps, and the parameters' stay as they are.

    Args:
        levels (Sequence[str]): Name of the level of every tapped map; maps of one name count as one level.
        every (int): The first of so many distilled batches of an epoch is measured, or the next one with all terms.

    Example:
        >>> maps = [torch.ones(1, 1, 2, 2, requires_grad=True), torch.ones(1, 1, 1, 1, requires_grad=True)]
        >>> meter = ShareMeter(["8", "16"])
        >>> meter.is_due()
        True
        >>> total = maps[0].sum() + maps[1].sum()
        >>> _ = meter.observe(total, {"ex_low": 0.5 * maps[0].sum()}, maps)
        >>> {name: round(share, 2) for name, share in meter.shares(["ex_low"]).items()}
        {'share/ex_low': 0.45, 'share/ex_low/8': 0.45, 'share/ex_low/16': 0.0}
    """

    def __init__(self, levels: Sequence[str], every: int = 50) -> None:
        self.levels = list(dict.fromkeys(levels))
        self._level_of = [self.levels.index(level) for level in levels]
        self._every = every
        self.start_epoch()

    def start_epoch(self) -> None:
        """Forget what was measured."""
        self._batches = 0
        self._is_waiting = False
        self._sums: dict[str, torch.Tensor] = {}

    def is_due(self, has_all: bool = True) -> bool:
        """Count a batch, and return whether it is to be measured.

        Args:
            has_all (bool): Whether the batch has every term: shares of different terms are measured on one batch.
        """
        self._batches += 1
        self._is_waiting |= self._batches % self._every == 1 % self._every
        is_due = self._is_waiting and has_all
        self._is_waiting &= not is_due
        return is_due

    def observe(
        self, detection: torch.Tensor, terms: Mapping[str, torch.Tensor], maps: Sequence[torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        """Take the gradients of one batch into account, unless one is not finite.

        Args:
            detection (torch.Tensor): The detection loss, a scalar on the scale of the terms.
            terms (Mapping[str, torch.Tensor]): The terms by name, times their gains.
            maps (Sequence[torch.Tensor]): The student's tapped maps; where only its head is trained, the parameters,
                and the shares of levels are 0.

        Returns:
            (dict[str, torch.Tensor]): Norms of the gradients to all maps, of the terms by name and of `DETECTION`.
        """
        norms = {name: self._norms(value, maps) for name, value in {DETECTION: detection, **terms}.items()}
        if bool(torch.isfinite(torch.stack(list(norms.values()))).all()):
            self._sums = {name: self._sums.get(name, 0) + norm for name, norm in norms.items()}
        return {name: norm[0] for name, norm in norms.items()}

    def shares(self, terms: Iterable[str]) -> dict[str, float]:
        """Return the shares of the epoch so far, as columns of a table.

        Args:
            terms (Iterable[str]): Names of terms.

        Returns:
            (dict[str, float]): Of each term `share/<term>`, at all levels together, and `share/<term>/<level>`; NaN
                where nothing was measured or the detection loss has no gradient.
        """
        names = ["", *(f"/{level}" for level in self.levels)]
        unknown = torch.full((len(names),), torch.nan)
        whole = self._sums.get(DETECTION, unknown)[0]
        shares = {name: self._sums.get(name, unknown) / whole for name in terms}
        return {
            f"share/{name}{level}": share if math.isfinite(share) else math.nan
            for name, values in shares.items()
            for level, share in zip(names, values.tolist(), strict=True)
        }

    def _norms(self, value: torch.Tensor, maps: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return the norms of a scalar's gradient to all maps together, then to each level."""
        squares = gradient_norms(value, maps).square()
        levels = squares.new_zeros(len(self.levels))
        if len(maps) == len(self._level_of):
            levels = levels.index_add(0, torch.tensor(self._level_of, device=squares.device), squares)
        return torch.cat([squares.sum()[None], levels]).sqrt()


def gradient_norms(value: torch.Tensor, maps: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return the norms of the gradient of a scalar to some maps, without touching any parameter's gradient.

    Args:
        value (torch.Tensor): The scalar; its graph is kept.
        maps (Sequence[torch.Tensor]): L maps of any shapes.

    Returns:
        (torch.Tensor): Norms (L,) float32; 0 where no gradient flows.
    """
    norms = torch.zeros(len(maps), device=value.device)
    sources = {index: x for index, x in enumerate(maps) if x.requires_grad}
    if not sources or not value.requires_grad:
        return norms
    gradients = torch.autograd.grad(value * _SCALE, list(sources.values()), retain_graph=True, allow_unused=True)
    for index, gradient in zip(sources, gradients, strict=True):
        if gradient is not None:
            norms[index] = gradient.float().norm() / _SCALE
    return norms
