"""The schedule of distilled steps: all of them, every k-th, or none in the last epochs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

IMPLICIT = ("im_full", "im_high")
"""The terms that need forward passes of the teacher's head and the amplifier."""


class TermSchedule:
    """Selects the terms of each step of an epoch, and computes the means of the terms.

    A step is one batch. The first step of an epoch is distilled, and every `every`-th step after it. Of the distilled
    steps, the first one has the implicit terms, and every `im_every`-th one after it. If there are only implicit terms,
    the others are plain steps, unless the teacher assigns the objects in them. The selection is not random. So all
    processes of a run distil the same steps, and so does a resumed run.

    Ultralytics averages loss items over all batches of an epoch and needs the same items for each. So a step without a
    term reports the term's current mean. `means` are means over the steps that have the term.

    Args:
        terms (Sequence[str]): Names of the terms whose gain is not 0.
        every (int): The argument `distill_every`.
        im_every (int): The argument `im_every`.
        assigns (bool): Whether the teacher assigns the objects in distilled steps, also in those without a term.

    Attributes:
        means (dict[str, torch.Tensor]): Means in the current epoch, by name of the loss item.

    Example:
        >>> schedule = TermSchedule(["ex_low", "im_full"], every=2, im_every=2)
        >>> [schedule.next_step() for _ in range(5)]
        [('ex_low', 'im_full'), None, ('ex_low',), None, ('ex_low', 'im_full')]
    """

    def __init__(self, terms: Sequence[str], every: int = 1, im_every: int = 1, assigns: bool = False) -> None:
        self._terms, self._every, self._assigns = tuple(terms), every, assigns
        self._others = tuple(name for name in terms if name not in IMPLICIT)
        self._im_every = im_every if len(self._others) < len(self._terms) else 1
        self.start_epoch()

    def start_epoch(self) -> None:
        """Reset counts and means."""
        self.means: dict[str, torch.Tensor] = {}
        self._steps = 0
        self._turns = 0  # steps that are distilled, and those that would be if they had a term
        self._distilled = 0
        self._implicit = 0
        self._numbers: dict[str, int] = {}

    @property
    def is_every_step(self) -> bool:
        """Whether every step has every term."""
        return self._every == self._im_every == 1

    def next_step(self) -> tuple[str, ...] | None:
        """Count a step, and return the names of its terms, or None if it is a plain step."""
        is_plain = self._steps % self._every
        self._steps += 1
        if is_plain:
            return None
        has_all = not self._turns % self._im_every
        self._turns += 1
        self._implicit += has_all
        if not has_all and not self._others and not self._assigns:
            return None
        self._distilled += 1
        return self._terms if has_all else self._others

    def complete(self, items: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Add the terms of a step to the means, and complete its loss items by the means of missing terms.

        Args:
            items (Mapping[str, torch.Tensor]): Loss items of a step by name.

        Returns:
            (dict[str, torch.Tensor]): Loss items with the same names and order for every step of an epoch.
        """
        for key in (f"{name}_loss" for name in self._terms):
            if key in items:
                number = self._numbers.get(key, 0)
                mean = (self.means[key] * number + items[key]) / (number + 1) if number else items[key]
                self.means[key], self._numbers[key] = mean, number + 1
        own = {key: items.get(key, mean) for key, mean in self.means.items()}
        return {**{key: value for key, value in items.items() if key not in own}, **own}

    def columns(self) -> dict[str, float]:
        """Return columns of `results.csv`: the share of steps with terms, and of steps with implicit terms."""
        columns = {"steps/distilled": self._distilled / max(self._steps, 1)}
        return columns | ({"steps/implicit": self._implicit / max(self._steps, 1)} if self._im_every > 1 else {})
