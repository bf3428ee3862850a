"""Which steps of a training are distilled: all of them, every k-th, or none in the last epochs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

IMPLICIT = ("im_full", "im_high")
"""The terms that cost passes through the teacher's head and the amplifier."""


class TermSchedule:
    """Which steps of an epoch have which terms, and the terms' means over the steps that have them.

    A step is one batch. The first step of an epoch is distilled, and every `every`-th after it; of the distilled steps
    the first has the implicit terms, and every `im_every`-th after it. Batches are counted and nothing is drawn, so
    that all processes of a run distil the same steps, and so does a run that resumes at the start of an epoch.

    Ultralytics averages loss items over all batches of an epoch, and wants the same items of each. So a step without a
    term is given the mean of the term so far, and `means` are those of the steps that have it.

    Args:
        terms (Sequence[str]): Names of the terms whose gain is not 0.
        every (int): The argument `distill_every`.
        im_every (int): The argument `im_every`.

    Attributes:
        means (dict[str, torch.Tensor]): Means of the epoch so far by name of the loss item.

    Example:
        >>> schedule = TermSchedule(["ex_low", "im_full"], every=2, im_every=2)
        >>> [schedule.next_step() for _ in range(5)]
        [('ex_low', 'im_full'), None, ('ex_low',), None, ('ex_low', 'im_full')]
    """

    def __init__(self, terms: Sequence[str], every: int = 1, im_every: int = 1) -> None:
        self._terms, self._every, self._im_every = tuple(terms), every, im_every
        self.start_epoch()

    def start_epoch(self) -> None:
        """Count and average anew."""
        self.means: dict[str, torch.Tensor] = {}
        self._steps = 0
        self._distilled = 0
        self._implicit = 0
        self._numbers: dict[str, int] = {}

    @property
    def is_every_step(self) -> bool:
        """Whether every step has every term."""
        return self._every == self._im_every == 1

    def next_step(self) -> tuple[str, ...] | None:
        """Count a step, and return the names of its terms, or None where it is a plain one."""
        is_plain = self._steps % self._every
        self._steps += 1
        if is_plain:
            return None
        has_all = not self._distilled % self._im_every
        self._distilled += 1
        self._implicit += has_all
        return self._terms if has_all else tuple(name for name in self._terms if name not in IMPLICIT)

    def complete(self, items: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Take the terms of a step into the means, and return its loss items with those means that it lacks.

        Args:
            items (Mapping[str, torch.Tensor]): Items of a step by name.

        Returns:
            (dict[str, torch.Tensor]): The same items on every step of an epoch, in one order.
        """
        for key in (f"{name}_loss" for name in self._terms):
            if key in items:
                number = self._numbers.get(key, 0)
                mean = (self.means[key] * number + items[key]) / (number + 1) if number else items[key]
                self.means[key], self._numbers[key] = mean, number + 1
        own = {key: items.get(key, mean) for key, mean in self.means.items()}
        return {**{key: value for key, value in items.items() if key not in own}, **own}

    def columns(self) -> dict[str, float]:
        """Return columns of `results.csv`: which share of the epoch's steps had terms, and the implicit ones."""
        columns = {"steps/distilled": self._distilled / max(self._steps, 1)}
        return columns | ({"steps/implicit": self._implicit / max(self._steps, 1)} if self._im_every > 1 else {})
