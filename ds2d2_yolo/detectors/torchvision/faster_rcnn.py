"""Faster R-CNN: region proposals on five levels, pooling from the four finest, classification and refinement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead, concat_box_prediction_layers
from torchvision.ops.feature_pyramid_network import ExtraFPNBlock, LastLevelMaxPool

from ds2d2_yolo.detectors.base import ComparesPredictions, Explains, Maps, Responds, Suppression, TapOutputs
from ds2d2_yolo.detectors.torchvision.model import TorchvisionDetector, TorchvisionModel, Truth, number_of
from ds2d2_yolo.detectors.torchvision.parts import DeltaCoder, MaxIoUMatcher, PyramidAnchors, suppress
from ds2d2_yolo.method import Gains, RegionPredictions, region_differences, region_implicit_terms
from ds2d2_yolo.method.wavelet import at_least_float32

_STRIDES = (4, 8, 16, 32, 64)
_POOLED = 4  # number of levels for pooling, the finest
_CANONICAL_SIDE = 56  # pixels: regions up to twice this side are pooled from the finest level
_GRID = 7  # cells along a side of a pooled region
_HIDDEN = 1024


class Regions(NamedTuple):
    """Regions sampled for training.

    Attributes:
        boxes (list[torch.Tensor]): Regions (R_i, 4) of every image as xyxy in pixels.
        labels (torch.Tensor): Class of every region (R,). Background has the index C, the number of classes.
        deltas (torch.Tensor): Regression targets from every region to its object (R, 4).
        number (torch.Tensor): Number of regions, a scalar. Each image counts at least one positive and one negative.
    """

    boxes: list[torch.Tensor]
    labels: torch.Tensor
    deltas: torch.Tensor
    number: torch.Tensor


class Pooled(NamedTuple):
    """Sampled `regions`, the `maps` they are pooled from, `pooled` features (R, C, 7, 7), and the `predictions`."""

    regions: Regions
    maps: Sequence[torch.Tensor]
    pooled: torch.Tensor
    predictions: RegionPredictions


class Proposals(NamedTuple):
    """Raw predictions of the proposal network for `maps`: `objectness` (B, A), `deltas` (B, A, 4), `anchors` (A, 4)."""

    maps: list[torch.Tensor]
    objectness: torch.Tensor
    deltas: torch.Tensor
    anchors: torch.Tensor
    per_level: list[int]
    image_size: tuple[int, int]


class ProposalNetwork(RegionProposalNetwork):
    """torchvision's region proposal network (RPN) with the reference's anchors, numbers and losses.

    Args:
        channels (int): Channels of the maps.
        anchor_scale (float): Side of a level's square anchors, in strides of the level.
        proposals (int): Number of proposals per image for the second stage.
    """

    def __init__(self, channels: int, anchor_scale: float, proposals: int) -> None:
        super().__init__(
            PyramidAnchors(_STRIDES, [anchor_scale]),
            RPNHead(channels, 3),
            fg_iou_thresh=0.7,
            bg_iou_thresh=0.3,
            batch_size_per_image=256,
            positive_fraction=0.5,
            pre_nms_top_n={"training": 2000, "testing": 1000},
            post_nms_top_n={"training": proposals, "testing": proposals},
            nms_thresh=0.7,
        )
        self.proposal_matcher = MaxIoUMatcher(0.7, 0.3, minimum=0.3)
        self.box_coder = DeltaCoder((1.0, 1.0, 1.0, 1.0))

    def forward(self, maps: list[torch.Tensor]) -> Proposals:
        """Return raw predictions for maps (B, C, H_l, W_l) of the levels P2 to P6."""
        objectness, deltas = self.head(maps)
        per_level = [x[0].numel() for x in objectness]
        batch, (height, width) = len(maps[0]), maps[0].shape[-2:]
        scores, changes = concat_box_prediction_layers(objectness, deltas)
        return Proposals(
            maps,
            scores.view(batch, -1),
            changes.view(batch, -1, 4),
            self.anchor_generator(maps),
            per_level,
            (height * _STRIDES[0], width * _STRIDES[0]),
        )

    @torch.no_grad()
    def propose(self, raw: Proposals) -> list[torch.Tensor]:
        """Return the best proposals (P_i, 4) of every image, as xyxy in pixels."""
        batch = len(raw.objectness)
        boxes = self.box_coder.decode_single(raw.deltas.flatten(0, 1), raw.anchors.repeat(batch, 1))
        kept, _ = self.filter_proposals(
            boxes.view(batch, -1, 4), raw.objectness.float(), [raw.image_size] * batch, raw.per_level
        )
        return kept

    def losses(self, raw: Proposals, boxes: Sequence[torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return the cross-entropy of the objectness and the L1 loss of the deltas, both per sampled anchor."""
        anchors = [raw.anchors] * len(boxes)
        labels, matched = self.assign_targets_to_anchors(anchors, [{"boxes": objects} for objects in boxes])
        positive, negative = (torch.stack(masks).bool() for masks in self.fg_bg_sampler(labels))
        sampled = positive | negative
        count = sampled.sum().clamp(min=1)
        image, anchor = positive.nonzero(as_tuple=True)
        targets = self.box_coder.encode_single(torch.stack(matched)[image, anchor], raw.anchors[anchor])
        entropy = F.binary_cross_entropy_with_logits(
            raw.objectness[sampled].float(), torch.stack(labels)[sampled], reduction="sum"
        )
        distance = (raw.deltas[image, anchor].float() - targets).abs().sum()
        return {"obj_loss": entropy / count, "rpn_loss": distance / count}


class RegionPool(nn.Module):
    """Pools every region from the level that matches its size.

    torchvision's `MultiScaleRoIAlign` does not support `aligned=True`, which the reference uses.
    """

    def forward(self, maps: Sequence[torch.Tensor], boxes: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return features (R, C, 7, 7), from maps (B, C, H_l, W_l) and regions (R_i, 4) of every image."""
        regions = torch.cat([F.pad(rows, (1, 0), value=float(image)) for image, rows in enumerate(boxes)])
        side = ((regions[:, 3] - regions[:, 1]) * (regions[:, 4] - regions[:, 2])).clamp(min=0).sqrt()
        level = (side / _CANONICAL_SIDE + 1e-6).log2().floor().clamp(0, _POOLED - 1)
        chosen = [(level == number).nonzero()[:, 0] for number in range(_POOLED)]
        parts = [
            # In float32: half precision rounds pixel coordinates above 2048 to 2 px. The operator itself: on a GPU with
            # deterministic=True, torchvision's function samples every cell of a map for every bin.
            torch.ops.torchvision.roi_align(at_least_float32(x), regions[index], 1 / stride, _GRID, _GRID, -1, True)
            for x, index, stride in zip(maps[:_POOLED], chosen, _STRIDES[:_POOLED], strict=True)
        ]
        return torch.cat(parts)[torch.cat(chosen).argsort()].to(maps[0].dtype)


class RegionHead(RoIHeads):
    """torchvision's second stage with the reference's pooling, numbers, initialisation and losses.

    Weights keep torchvision's class order, background first. Outputs have background last, as the terms expect.

    Args:
        channels (int): Channels of the maps.
        classes (int): Number of classes, without background.
        regions (int): Number of sampled regions per image in training.
    """

    def __init__(self, channels: int, classes: int, regions: int) -> None:
        super().__init__(
            RegionPool(),
            TwoMLPHead(channels * _GRID**2, _HIDDEN),
            FastRCNNPredictor(_HIDDEN, classes + 1),
            fg_iou_thresh=0.5,
            bg_iou_thresh=0.5,
            batch_size_per_image=regions,
            positive_fraction=0.25,
            bbox_reg_weights=None,
            score_thresh=0.0,  # `FasterRCNNHead.detect` replaces this and the next two
            nms_thresh=0.0,
            detections_per_img=0,
        )
        self.classes = classes
        self.box_coder = DeltaCoder((10.0, 10.0, 5.0, 5.0))
        for layer in (self.box_head.fc6, self.box_head.fc7):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
        for layer, spread in ((self.box_predictor.cls_score, 0.01), (self.box_predictor.bbox_pred, 0.001)):
            nn.init.normal_(layer.weight, std=spread)
            nn.init.zeros_(layer.bias)

    def forward(self, maps: Sequence[torch.Tensor], boxes: Sequence[torch.Tensor]) -> RegionPredictions:
        """Return logits (R, C + 1) and deltas (R, C, 4) for regions (R_i, 4) of every image, as xyxy in pixels."""
        return self.predict(self.box_roi_pool(maps, boxes))

    def predict(self, pooled: torch.Tensor) -> RegionPredictions:
        """Return the predictions for pooled regions (R, C, 7, 7)."""
        logits, deltas = self.box_predictor(self.box_head(pooled))
        return RegionPredictions(logits.roll(-1, 1), deltas.unflatten(1, (-1, 4))[:, 1:])

    @torch.no_grad()
    def sample(self, proposals: Sequence[torch.Tensor], truth: Truth) -> Regions:
        """Sample regions from proposals and objects. At most a quarter of them are positive."""
        targets = [{"boxes": objects, "labels": classes + 1} for objects, classes in zip(*truth, strict=True)]
        boxes, _, labels, deltas = self.select_training_samples(list(proposals), targets)
        positives = torch.stack([(numbers > 0).sum() for numbers in labels])
        negatives = torch.stack([(numbers == 0).sum() for numbers in labels])
        number = positives.clamp(min=1).sum() + negatives.clamp(min=1).sum()
        return Regions(boxes, (torch.cat(labels) - 1) % (self.classes + 1), torch.cat(deltas), number)

    def losses(self, predictions: RegionPredictions, regions: Regions) -> dict[str, torch.Tensor]:
        """Return the cross-entropy of the classes and the L1 loss of the true class's deltas, both per region."""
        count = max(len(regions.labels), 1)
        entropy = F.cross_entropy(predictions.logits.float(), regions.labels, reduction="sum")
        index = (regions.labels < self.classes).nonzero()[:, 0]
        deltas = predictions.deltas[index, regions.labels[index]].float()
        return {"cls_loss": entropy / count, "box_loss": (deltas - regions.deltas[index]).abs().sum() / count}


class FasterRCNNHead(nn.Module):
    """The head with both stages.

    Args:
        channels (int): Channels of the maps.
        classes (int): Number of classes.
        score_threshold (float): Minimum score of a detection.
        nms_iou (float): IoU threshold of non-maximum suppression.
        anchor_scale (float): Side of a level's square anchors, in strides of the level.
        regions (int): Number of sampled regions per image in training.
        proposals (int): Number of proposals per image for the second stage.

    Attributes:
        sampled (nn.Identity): Receives the sampled and pooled regions, so that they can be tapped.
    """

    def __init__(
        self,
        channels: int,
        classes: int,
        score_threshold: float,
        nms_iou: float,
        anchor_scale: float = 8.0,
        regions: int = 512,
        proposals: int = 1000,
    ) -> None:
        super().__init__()
        self.rpn = ProposalNetwork(channels, anchor_scale, proposals)
        self.regions = RegionHead(channels, classes, regions)
        self.sampled = nn.Identity()
        self.score_threshold, self.nms_iou = score_threshold, nms_iou
        self.max_det, self.agnostic_nms = 100, False

    def forward(self, maps: list[torch.Tensor]) -> Proposals:
        """Return the proposal network's raw predictions for maps (B, C, H_l, W_l) of the levels P2 to P6."""
        raw: Proposals = self.rpn(maps)
        return raw

    def losses(self, raw: Proposals, truth: Truth) -> dict[str, torch.Tensor]:
        """Return the losses of both stages."""
        losses = self.rpn.losses(raw, truth[0])
        regions = self.regions.sample(self.rpn.propose(raw), truth)
        pooled = self.regions.box_roi_pool(raw.maps, regions.boxes)
        predictions = self.regions.predict(pooled)
        self.sampled(Pooled(regions, raw.maps, pooled, predictions))
        return losses | self.regions.losses(predictions, regions)

    @torch.no_grad()
    def detect(self, raw: Proposals) -> torch.Tensor:
        """Return detections (B, max_det, 6) as x1, y1, x2, y2, score, class, padded with zeros."""
        proposals = self.rpn.propose(raw)
        predictions = self.regions(raw.maps, proposals)
        counts = [len(regions) for regions in proposals]
        scores = at_least_float32(predictions.logits).softmax(1)[:, :-1].split(counts)
        boxes = self.regions.box_coder.decode_single(predictions.deltas.flatten(1), torch.cat(proposals))
        return torch.stack(
            [
                self._detect_one(*found, raw.image_size)
                for found in zip(boxes.unflatten(1, (-1, 4)).split(counts), scores, strict=True)
            ]
        )

    def _detect_one(self, boxes: torch.Tensor, scores: torch.Tensor, image_size: tuple[int, int]) -> torch.Tensor:
        region, label = (scores > self.score_threshold).nonzero(as_tuple=True)
        return suppress(
            boxes[region, label],
            scores[region, label],
            label,
            image_size,
            self.nms_iou,
            self.max_det,
            self.agnostic_nms,
        )


class FasterRCNNModel(TorchvisionModel):
    """Faster R-CNN on levels P2 to P6.

    Example:
        >>> from ds2d2_yolo.detectors import build_model
        >>> from ds2d2_yolo.resources import own_file
        >>> build_model(own_file("fasterrcnn_r18.yaml", "cfg", "models"), nc=3).stride.tolist()
        [4.0, 8.0, 16.0, 32.0]
    """

    strides = _STRIDES

    def make_extra_levels(self, in_channels: int, channels: int) -> ExtraFPNBlock:
        """Return the block that computes P6: every second cell of P5."""
        return LastLevelMaxPool()

    def make_head(self, channels: int) -> nn.Module:
        """Return the head."""
        config = self.yaml
        numbers = [number_of(config, key, 1, None) for key in ("regions", "proposals")]
        return FasterRCNNHead(
            channels, config["nc"], config["score_threshold"], config["nms_iou"], config["anchor_scale"], *numbers
        )


class FasterRCNNDetector(
    TorchvisionDetector[None, Pooled],
    ComparesPredictions[None, Pooled, RegionPredictions],
    Responds[RegionPredictions],
    Explains,
):
    """Faster R-CNN. The implicit terms compare predictions of its second stage for the student's sampled regions."""

    family = "FasterRCNN"
    model_class = FasterRCNNModel
    takes_larger_images = True

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self.sum_regions = False

    @property
    def box_coding(self) -> str:
        """Box encoding of the second stage."""
        return "deltas of regions, one set per class"

    @property
    def head_layout(self) -> str:
        """Levels and pooling, which teacher and student must share."""
        return f"{len(self.head_layers)} levels, regions pooled from {_POOLED}"

    @property
    def reference_gains(self) -> Gains:
        """The authors' gains on DIOR, for `sum_regions=True`."""
        return Gains(0.5, 0.5, 1e-5, 1e-5)

    def configure(self, sum_regions: bool, hulls: bool = False) -> None:
        """Set `sum_regions`: whether the class term is a sum over regions, as in the reference."""
        self.sum_regions = sum_regions

    def assignment_modules(self) -> Mapping[str, nn.Module]:
        """Return the module that receives the sampled and pooled regions."""
        return {"sampled": self.model.model[-1].sampled}

    def assignment(self, outputs: TapOutputs) -> Pooled:
        """Return the sampled and pooled regions."""
        sampled: Pooled = outputs["sampled"]
        return sampled

    def response_modules(self) -> Mapping[str, nn.Module]:
        """Return no modules: `assignment_modules` already gives the predictions for the sampled regions."""
        return {}

    def response(self, head: nn.Module, outputs: TapOutputs) -> RegionPredictions:
        """Return the second stage's predictions for the sampled regions."""
        return self.assignment(outputs).predictions

    def predictions_of(self, raw: None, maps: Maps, assignment: Pooled) -> RegionPredictions:
        """Return the predictions of the teacher's second stage for the sampled regions."""
        with torch.no_grad():
            return self.target(self.implicit_part(self.head), maps, assignment)

    def implicit_part(self, head: nn.Module) -> nn.Module:
        """Return the second stage, as the student supplies the regions."""
        part: nn.Module = head.get_submodule("regions")
        return part

    def forward_teacher(self, images: torch.Tensor) -> None:
        """Compute the maps of images (B, 3, H, W) in [0, 1]. The student's regions are not sampled yet."""
        self.model.pyramid(images)

    def confidence(self, raw: None, maps: Maps) -> list[torch.Tensor]:
        """Return the teacher's objectness (B, 1, H_l, W_l), because cells have no class probabilities."""
        with torch.no_grad():
            objectness, _ = self.head.get_submodule("rpn.head")(list(maps))
        return [x.float().amax(1, keepdim=True).sigmoid() for x in objectness]

    def detections_of(self, raw: None, maps: Maps, suppression: Suppression) -> list[torch.Tensor]:
        """Return the detections of both stages. The rest of the suppression is that of the model YAML."""
        head: Any = self.head
        with torch.no_grad():
            return [rows[rows[:, 4] >= suppression.conf] for rows in head.detect(head(list(maps)))]

    def predict(self, head: Any, maps: Maps, assignment: Pooled) -> RegionPredictions:
        """Return the predictions of a second stage for the sampled regions."""
        # For the student's own maps, the student's loss has pooled these regions already.
        pooled = all(x is y for x, y in zip(maps, assignment.maps, strict=True))
        predictions: RegionPredictions = (
            head.predict(assignment.pooled) if pooled else head(maps, assignment.regions.boxes)
        )
        return predictions

    def target(self, head: Any, maps: Maps, assignment: Pooled) -> RegionPredictions:
        """Return the predictions of a second stage for the sampled regions, which are larger in the teacher's images.

        Deltas are relative to the regions.
        """
        predictions: RegionPredictions = head(maps, [boxes * self.ratio for boxes in assignment.regions.boxes])
        return predictions

    def compare_predictions(
        self, student: RegionPredictions, teacher: RegionPredictions, assignment: Pooled
    ) -> torch.Tensor:
        """Return the KL divergence of the classes plus the L1 loss of the deltas."""
        factor = assignment.regions.number if self.sum_regions else 1.0
        return torch.stack(region_implicit_terms(student, teacher, class_factor=factor)).sum()

    def places(self, maps: Maps) -> torch.Tensor:
        """Return the regions (P, 4) that the first stage proposes, as xyxy in pixels."""
        network = self.model.model[-1].rpn
        with torch.no_grad():
            regions: torch.Tensor = network.propose(network(list(maps)))[0]
        return regions

    def differences(
        self, head: nn.Module, student: Maps, teacher: Maps, places: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the KL divergence of the classes and the L1 loss of the deltas for every region (P,)."""
        with torch.no_grad():
            return region_differences(head(student, [places]), head(teacher, [places * self.ratio]))
