"""Labelled and unlabelled images in one training set: their numbers in an epoch, and their weights."""

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
    """Labelled images, followed by unlabelled images with a teacher's labels.

    Both parts have separate transforms, so a mosaic contains images of one kind. The entry `unlabeled` of a sample is
    its kind. The length is that of an epoch: all labelled images, and a number of unlabelled images that depends on
    `ratio`. `draw` selects them.

    Args:
        labelled (YOLODataset): The labelled images.
        unlabelled (YOLODataset): The unlabelled images.
        ratio (float): Maximum number of unlabelled images per labelled image in an epoch.
        seed (int): Seed of the order of unlabelled images.

    Attributes:
        labelled (int): Number of labelled images.
        drawn (int): Number of unlabelled images of an epoch.
    """

    datasets: list[YOLODataset]  # type: ignore[assignment] # torch's type is more general

    def __init__(self, labelled: YOLODataset, unlabelled: YOLODataset, ratio: float, seed: int) -> None:
        super().__init__([labelled, unlabelled])
        self.labelled = len(labelled)
        self.drawn = min(len(unlabelled), max(1, round(ratio * len(labelled))))
        self._seed = seed

    def __len__(self) -> int:
        """Return the number of images of an epoch."""
        return self.labelled + self.drawn

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return a sample by its index among all images of both kinds."""
        return {**super().__getitem__(index), "unlabeled": index >= self.labelled}

    @property
    def labels(self) -> list[dict[str, Any]]:
        """Labels of all images of both kinds."""
        return [label for dataset in self.datasets for label in dataset.labels]

    @property
    def buffer(self) -> list[int]:
        """Indices of the images for mosaics."""
        labelled, unlabelled = self.datasets
        return [*labelled.buffer, *(self.labelled + index for index in unlabelled.buffer)]

    def load_image(self, index: int) -> object:
        """Load an image into the buffer of its kind."""
        is_labelled = index < self.labelled
        return self.datasets[not is_labelled].load_image(index if is_labelled else index - self.labelled)

    def draw(self, epoch: int) -> list[int]:
        """Select the unlabelled images of an epoch. No image is repeated before all have been used.

        Args:
            epoch (int): The epoch, from 0.

        Returns:
            (list[int]): `drawn` indices of unlabelled images.
        """
        total = len(self.datasets[1])
        rounds, places = np.divmod(epoch * self.drawn + np.arange(self.drawn), total)
        orders = {
            number: np.random.default_rng([self._seed, number]).permutation(total) for number in set(rounds.tolist())
        }
        return [int(orders[number][place]) for number, place in zip(rounds.tolist(), places.tolist(), strict=True)]


class MixedSampler(Sampler[int]):
    """Samples the labelled images, and the unlabelled images that are selected for an epoch.

    Args:
        places (Sampler[int]): Samples the positions of an epoch, of this process only in a DDP run.
        dataset (MixedDataset): The images.

    Attributes:
        epoch (int): The next epoch.
    """

    def __init__(self, places: Sampler[int], dataset: MixedDataset) -> None:
        self._places, self._dataset = places, dataset
        self.epoch = 0

    def __len__(self) -> int:
        """Return the number of images in an epoch."""
        return len(self._places)  # type: ignore[arg-type] # torch's samplers have a length

    def __iter__(self) -> Iterator[int]:
        """Yield the indices of an epoch's images."""
        first, drawn = self._dataset.labelled, self._dataset.draw(self.epoch)
        self.epoch += 1
        for place in self._places:
            yield place if place < first else first + drawn[place - first]


class MixedLoss:
    """Weights unlabelled images in the student's own loss, and counts both kinds over an epoch.

    Args:
        weight (float): Weight of an unlabelled image. A labelled image has weight 1.
    """

    def __init__(self, weight: float) -> None:
        self._weight = weight
        self._weights: ImageWeights | None = None
        self._kinds: torch.Tensor | None = None
        self.start_epoch()

    def start_epoch(self) -> None:
        """Reset the counts."""
        self.end_step()
        # (2, 4): images, boxes, class part of the loss, objects weighted by the assigner's scores
        self._sums: torch.Tensor | None = None

    def begin_step(self, student: Detector, batch: Batch) -> None:
        """Weight the images of a batch in the student's next pass.

        Args:
            student (Detector): The student, a `WeighsImages`.
            batch (Batch): The batch for that pass.
        """
        self.end_step()
        assert isinstance(student, WeighsImages)  # unlabelled images are refused for others
        device = batch["img"].device
        self._kinds = torch.tensor(batch["unlabeled"], device=device).long()
        boxes = torch.bincount(batch["batch_idx"].long().to(device), minlength=len(self._kinds))
        self._counts = torch.stack([torch.ones_like(boxes), boxes]).float()
        weights = 1 - (1 - self._weight) * self._kinds.float()
        self._weights = student.weigh_images(weights)

    def end_step(self) -> None:
        """Add the last pass to the counts, and remove the weights."""
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
        """Return columns of `results.csv` for both kinds: images, boxes per image, and class part of the loss.

        Args:
            gain (float): Ultralytics' factor of the class part, its argument `cls`.
        """
        self.end_step()
        sums = torch.zeros(2, 4) if self._sums is None else self._sums
        columns: dict[str, float] = {}
        for kind, (images, boxes, loss, objects) in zip(_KINDS, sums.tolist(), strict=True):
            columns[f"{kind}/images"] = images
            columns[f"{kind}/boxes"] = round(boxes / max(images, 1), 3)
            columns[f"{kind}/cls"] = round(gain * loss / max(objects, 1), 5)
        return columns
