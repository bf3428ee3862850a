"""Labelled and unlabelled images in one training set: how many an epoch has of each, and what each counts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import Sampler
from ultralytics.data import YOLOConcatDataset, YOLODataset

from ds2d2_yolo.detectors import Batch, Detector, ImageWeights, WeighsImages

_KINDS = ("labeled", "unlabeled")


class MixedDataset(YOLOConcatDataset):
    """Labelled images, then unlabelled ones with the labels of a teacher, each with transforms of their own.

    So a mosaic consists of images of one kind, and every sample says in `unlabeled` of which. The length is that of an
    epoch: all labelled images, and so many of the others as `unlabeled_ratio` allows. `draw` says which those are.

    Args:
        labelled (YOLODataset): The labelled images.
        unlabelled (YOLODataset): The others.
        ratio (float): How many of them an epoch has at most per labelled one.
        seed (int): Decides the order in which they are drawn.

    Attributes:
        labelled (int): Number of labelled images.
        drawn (int): Number of unlabelled images of an epoch.
    """

    datasets: list[YOLODataset]  # type: ignore[assignment] # torch's type is that of any data sets

    def __init__(self, labelled: YOLODataset, unlabelled: YOLODataset, ratio: float, seed: int) -> None:
        super().__init__([labelled, unlabelled])
        self.labelled = len(labelled)
        self.drawn = min(len(unlabelled), max(1, round(ratio * len(labelled))))
        self._seed = seed

    def __len__(self) -> int:
        """Return the number of images of an epoch."""
        return self.labelled + self.drawn

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return a sample, by its number among all images of both kinds."""
        return {**super().__getitem__(index), "unlabeled": index >= self.labelled}

    @property
    def labels(self) -> list[dict[str, Any]]:
        """Labels of all images of both kinds."""
        return [label for dataset in self.datasets for label in dataset.labels]

    @property
    def buffer(self) -> list[int]:
        """Numbers of the images that mosaics draw from."""
        labelled, unlabelled = self.datasets
        return [*labelled.buffer, *(self.labelled + index for index in unlabelled.buffer)]

    def load_image(self, index: int) -> object:
        """Load an image into the buffer of its kind."""
        is_labelled = index < self.labelled
        return self.datasets[not is_labelled].load_image(index if is_labelled else index - self.labelled)

    def draw(self, epoch: int) -> list[int]:
        """Return which unlabelled images an epoch has: all of them come before one comes again.

        Args:
            epoch (int): The epoch, from 0.

        Returns:
            (list[int]): `drawn` numbers among the unlabelled images.
        """
        total = len(self.datasets[1])
        rounds, places = np.divmod(epoch * self.drawn + np.arange(self.drawn), total)
        orders = {
            number: np.random.default_rng([self._seed, number]).permutation(total) for number in set(rounds.tolist())
        }
        return [int(orders[number][place]) for number, place in zip(rounds.tolist(), places.tolist(), strict=True)]


class MixedSampler(Sampler[int]):
    """Replaces the places of unlabelled images in an epoch by the images that are drawn for it.

    Args:
        places (Sampler[int]): Yields the numbers of an epoch's places, those of a process where there are several.
        dataset (MixedDataset): The images.

    Attributes:
        epoch (int): The epoch whose numbers are yielded next.
    """

    def __init__(self, places: Sampler[int], dataset: MixedDataset) -> None:
        self._places, self._dataset = places, dataset
        self.epoch = 0

    def __len__(self) -> int:
        """Return how many numbers an epoch has."""
        return len(self._places)  # type: ignore[arg-type] # torch's samplers have a length

    def __iter__(self) -> Iterator[int]:
        """Yield the numbers of an epoch's images."""
        first, drawn = self._dataset.labelled, self._dataset.draw(self.epoch)
        self.epoch += 1
        for place in self._places:
            yield place if place < first else first + drawn[place - first]


class MixedLoss:
    """Has the student's own loss weigh unlabelled images, and counts both kinds over an epoch.

    Args:
        weight (float): Weight of an unlabelled image; that of a labelled one is 1.
    """

    def __init__(self, weight: float) -> None:
        self._weight = weight
        self._weights: ImageWeights | None = None
        self._kinds: torch.Tensor | None = None
        self.start_epoch()

    def start_epoch(self) -> None:
        """Count anew."""
        self._sums: torch.Tensor | None = (
            None  # (2, 4): images, boxes, class part of the loss, objects as it counts them
        )

    def arm(self, student: Detector, batch: Batch) -> None:
        """Have the next pass of the student weigh the images of a batch.

        Args:
            student (Detector): The student, a `WeighsImages`.
            batch (Batch): The batch as the model will be given it.
        """
        self.close()
        assert isinstance(student, WeighsImages)  # others are refused unlabelled images
        device = batch["img"].device
        self._kinds = torch.tensor(batch["unlabeled"], device=device).long()
        boxes = torch.bincount(batch["batch_idx"].long().to(device), minlength=len(self._kinds))
        self._counts = torch.stack([torch.ones_like(boxes), boxes]).float()
        weights = 1 - (1 - self._weight) * self._kinds.float()
        self._weights = student.weigh_images(weights)

    def close(self) -> None:
        """Take what the last pass has shown into account, and end the weights if there was no pass."""
        weights, self._weights = self._weights, None
        if weights is None or self._kinds is None:
            return
        weights.remove()
        if weights.classification is None or weights.objects is None:
            return
        values = torch.cat([self._counts, torch.stack([weights.classification, weights.objects]).float()])
        sums = torch.zeros(2, 4, device=values.device).index_add_(0, self._kinds, values.T)
        self._sums = sums if self._sums is None else self._sums + sums

    def columns(self, gain: float) -> dict[str, float]:
        """Return columns of `results.csv`: of both kinds, images, boxes per image and the class part of the loss.

        Args:
            gain (float): What Ultralytics multiplies the class part by, its argument `cls`.
        """
        self.close()
        sums = torch.zeros(2, 4) if self._sums is None else self._sums
        columns: dict[str, float] = {}
        for kind, (images, boxes, loss, objects) in zip(_KINDS, sums.tolist(), strict=True):
            columns[f"{kind}/images"] = images
            columns[f"{kind}/boxes"] = round(boxes / max(images, 1), 3)
            columns[f"{kind}/cls"] = round(gain * loss / max(objects, 1), 5)
        return columns
