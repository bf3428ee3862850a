"""Each term's share of the gradient at the student's maps: it determines gains and is reported for every epoch."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import torch
import torch.distributed as dist

DETECTION = ""
"""Name of the detection loss among the terms."""

_FOLLOWING = 0.1  # weight of a new batch in running averages, which thus cover about ten measured batches
_STATE = ("gains", "batches", "finished", "_sums")

# Values are scaled before their gradient is computed. Otherwise it vanishes in float16, as no gradient scaler is used.
_SCALE = 2.0**10


class Calibration:
    """Measures gradients over the first batches of a training, and computes the gains of terms from them.

    For each batch it measures gradient norms at the student's tapped maps: of the detection loss (the student's whole
    own loss) and of every term. A gain is share * mean norm of the detection loss / mean norm of the term. So a term
    with share 0.5 has half the gradient norm of the detection loss. The gains are used from the first batch, and change
    while more batches are added to the means. All workers of a distributed run use means over all workers, so their
    gains are equal.

    Running gains continue after that, with running averages over the batches that a `ShareMeter` measures.

    Args:
        shares (Mapping[str, float]): Share of every term whose gain is computed.
        batches (int): Number of batches to measure.
        is_running (bool): Whether `follow` updates the gains after these batches.

    Attributes:
        gains (dict[str, float]): The gains by name of the term. Empty before the first batch.
        finished (bool): Whether the calibration is finished.

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
        """Add the gradients of one batch to the means.

        Batches with gradients that are not finite are skipped, which is normal at the start of float16 training. So are
        batches in which the detection loss has no gradient.

        Args:
            detection (torch.Tensor): The detection loss, a scalar on the scale of the terms.
            terms (Mapping[str, torch.Tensor]): The terms by name, without their gains.
            maps (Sequence[torch.Tensor]): The student's tapped maps, or its parameters if only the head is trained.
        """
        values = [detection, *(terms[name] for name in self.shares)]
        self._add(torch.stack([gradient_norms(value, maps).norm() for value in values]))

    def follow(self, norms: Mapping[str, torch.Tensor], gains: Mapping[str, float]) -> None:
        """Update running gains by the measurement of a `ShareMeter` on one batch.

        Args:
            norms (Mapping[str, torch.Tensor]): Gradient norms from `ShareMeter.observe`.
            gains (Mapping[str, float]): Gains of the terms in that batch.
        """
        self._add(torch.stack([norms[DETECTION], *(norms[name] / gains[name] for name in self.shares)]))

    def state(self) -> dict[str, object]:
        """Return the state of running gains, for a checkpoint."""
        return {name: getattr(self, name) for name in _STATE}

    def restore(self, state: Mapping[str, object]) -> None:
        """Restore the output of `state`."""
        for name in _STATE:
            setattr(self, name, state[name])

    def _add(self, norms: torch.Tensor) -> None:
        """Add norms to the means: of the detection loss, then of the terms without their gains."""
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(norms)
        if not bool(torch.isfinite(norms).all()) or not bool(norms[0] > 0):
            return
        kept, new = (1.0 - _FOLLOWING, _FOLLOWING * self.batches) if self.finished else (1.0, 1.0)
        self._sums = [kept * total + new * norm for total, norm in zip(self._sums, norms.tolist(), strict=True)]
        self.batches += not self.finished
        # A term without gradient cannot be scaled. `TermWarnings` reports it.
        self.gains = {
            name: float(f"{share * self._sums[0] / total:.4g}") if total > 0 else share
            for (name, share), total in zip(self.shares.items(), self._sums[1:], strict=True)
        }
        self.finished |= self.batches >= self._wanted

    def finish(self) -> None:
        """End the calibration after any number of batches, but at least one."""
        self.finished = self.batches > 0


class ShareMeter:
    """Measures each term's share of the gradient at every level, on a few batches of every epoch.

    A share is the gradient norm of a term, times its gain, divided by the gradient norm of the detection loss. Both are
    measured at the student's tapped maps. It is the actual value of the argument `shares`. For one level, the numerator
    is the norm at the level's maps, and the divisor is the same for all levels. So the squares of the levels' shares
    add up to the square of the total. Measuring does not change the gradients of parameters.

    Args:
        levels (Sequence[str]): Level of every tapped map. Maps of the same name count as one level.
        every (int): Measure one of `every` distilled batches, the first one that has all terms.

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
        """Reset the measurements."""
        self._batches = 0
        self._is_waiting = False
        self._sums: dict[str, torch.Tensor] = {}

    def is_due(self, has_all: bool = True) -> bool:
        """Count a batch, and return whether to measure it.

        Args:
            has_all (bool): Whether the batch has every term. All terms are measured on the same batch.
        """
        self._batches += 1
        self._is_waiting |= self._batches % self._every == 1 % self._every
        is_due = self._is_waiting and has_all
        self._is_waiting &= not is_due
        return is_due

    def observe(
        self, detection: torch.Tensor, terms: Mapping[str, torch.Tensor], maps: Sequence[torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        """Add the gradient norms of one batch, unless one of them is not finite.

        Args:
            detection (torch.Tensor): The detection loss, a scalar on the scale of the terms.
            terms (Mapping[str, torch.Tensor]): The terms by name, times their gains.
            maps (Sequence[torch.Tensor]): The student's tapped maps, or its parameters if only the head is trained. In
                that case the shares of levels are 0.

        Returns:
            (dict[str, torch.Tensor]): Gradient norms at all maps, of each term by name and of `DETECTION`.
        """
        norms = {name: self._norms(value, maps) for name, value in {DETECTION: detection, **terms}.items()}
        if bool(torch.isfinite(torch.stack(list(norms.values()))).all()):
            self._sums = {name: self._sums.get(name, 0) + norm for name, norm in norms.items()}
        return {name: norm[0] for name, norm in norms.items()}

    def shares(self, terms: Iterable[str]) -> dict[str, float]:
        """Return the mean shares of the current epoch, as columns of a table.

        Args:
            terms (Iterable[str]): Names of terms.

        Returns:
            (dict[str, float]): For each term, `share/<term>` over all levels, and `share/<term>/<level>`. NaN if
                nothing was measured or the detection loss has no gradient.
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
        """Return the norm of a scalar's gradient at all maps together, then at each level."""
        squares = gradient_norms(value, maps).square()
        levels = squares.new_zeros(len(self.levels))
        if len(maps) == len(self._level_of):
            levels = levels.index_add(0, torch.tensor(self._level_of, device=squares.device), squares)
        return torch.cat([squares.sum()[None], levels]).sqrt()


def gradient_norms(value: torch.Tensor, maps: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return the norm of a scalar's gradient at each map. Gradients of parameters do not change.

    Args:
        value (torch.Tensor): The scalar. Its graph is kept.
        maps (Sequence[torch.Tensor]): L maps of any shape.

    Returns:
        (torch.Tensor): Norms (L,) float32, 0 for maps without gradient.
    """
    norms = torch.zeros(len(maps), device=value.device)
    sources = {index: x for index, x in enumerate(maps) if x.requires_grad}
    if not sources or not value.requires_grad:
        return norms
    with torch.autocast(value.device.type, enabled=False):  # as the backward pass of a step, which is outside of it
        gradients = torch.autograd.grad(value * _SCALE, list(sources.values()), retain_graph=True, allow_unused=True)
    for index, gradient in zip(sources, gradients, strict=True):
        if gradient is not None:
            norms[index] = gradient.float().norm() / _SCALE
    return norms
