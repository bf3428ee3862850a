"""A detector of torchvision parts that Ultralytics' trainer, validator, predictor, EMA and checkpoints can drive."""

from __future__ import annotations

from abc import abstractmethod
from copy import deepcopy
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn
from torchvision.models import get_model, get_model_weights
from torchvision.models._api import WeightsEnum
from torchvision.ops.feature_pyramid_network import ExtraFPNBlock
from ultralytics.nn.tasks import DetectionModel
from ultralytics.utils import DEFAULT_CFG, LOGGER
from ultralytics.utils.ops import xywh2xyxy

from ds2d2_yolo.detectors.base import AssignmentT, Batch, Config, Detector, RawT
from ds2d2_yolo.detectors.dense import DenseAssignment, DenseDetector
from ds2d2_yolo.detectors.torchvision.parts import Pyramid, Stage, StridedLevels, backbone_stages
from ds2d2_yolo.errors import DS2D2Error
from ds2d2_yolo.method import DensePredictions

Truth = tuple[list[torch.Tensor], list[torch.Tensor]]
"""Ground truth of a batch: boxes (N_i, 4) as xyxy pixels and classes (N_i,) of every image."""

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class TorchvisionModel(DetectionModel):
    """A two- or one-stage detector: backbone, pyramid and head, in the numbered layers that Ultralytics works with.

    Layers 0 to 4 are the backbone's stem and stages, 5 is the pyramid, then comes one (empty) layer per level of the
    pyramid, to be tapped, and last the head. Images are normalised inside. In evaluation mode the head suppresses
    duplicates itself, so that Ultralytics treats the model as one that needs no suppression.

    Args:
        cfg (Mapping): Content of a model YAML.
        ch (int): Channels of the images; 3.
        nc (int | None): Number of classes; None takes the YAML's.
        verbose (bool): Whether to print a summary.

    Attributes:
        yaml (dict): The YAML's content. `imagenet` is true once ImageNet weights were loaded: then the first layers
            and all BatchNorm statistics of the backbone stay as they are.
        stride (torch.Tensor): What the sides of an image must be a multiple of is its maximum. The coarsest levels are
            rounded up instead, as in the reference.
        end2end (bool): True: the predictions are final.

    Raises:
        DS2D2Error: If the YAML names an unknown backbone or has a number out of range, or `ch` is not 3.
    """

    strides: ClassVar[tuple[int, ...]]
    """Stride of every level, in pixels."""

    model: Any  # a sequence of layers, each with methods of its own
    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, cfg: Config, ch: int = 3, nc: int | None = None, verbose: bool = True) -> None:
        super(DetectionModel, self).__init__()  # DetectionModel's own builds the layers of a YOLO YAML
        if ch != 3:
            raise DS2D2Error(f"images of {ch} channels: torchvision's backbones take 3; pass a YOLO model for them")
        self.yaml: dict[str, Any] = deepcopy(dict(cfg))
        self.yaml |= {"nc": nc or self.yaml["nc"], "channels": ch}
        self.yaml.setdefault("imagenet", False)
        channels = number_of(self.yaml, "fpn_channels", 1, None)
        for key in {"score_threshold", "nms_iou"} & self.yaml.keys():  # a family of others may want neither
            number_of(self.yaml, key, 0, 1)
        if "anchor_scale" in self.yaml:
            number_of(self.yaml, "anchor_scale", 0.1, 1000.0)
        network = get_model(_known_backbone(self.yaml["backbone"]), weights=None)
        last: int = network.fc.in_features
        finest = self.strides[0]
        sources = [last * stride // 32 for stride in (4, 8, 16, 32) if stride >= finest]
        self.model = nn.ModuleList(
            [
                *backbone_stages(network, self.yaml["imagenet"]),
                Pyramid(sources, channels, self.make_extra_levels(last, channels)),
                *(nn.Identity() for _ in self.strides),
                self.make_head(channels),
            ]
        )
        self.names = {index: str(index) for index in range(self.yaml["nc"])}
        self.nc = self.yaml["nc"]
        self.task = "detect"
        self.inplace = True
        self.criterion = None  # the loss is the head's
        self.stride = torch.tensor([float(stride) for stride in self.strides if stride <= 32])
        self.register_buffer("mean", torch.tensor(_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(_STD).view(1, 3, 1, 1), persistent=False)
        if verbose:
            self.info()

    def make_extra_levels(self, in_channels: int, channels: int) -> ExtraFPNBlock:
        """Return what makes the pyramid's levels beyond the backbone's: P6 and P7 by convolution.

        Args:
            in_channels (int): Channels of the backbone's last map.
            channels (int): Channels of the levels.
        """
        return StridedLevels(in_channels, channels)

    @abstractmethod
    def make_head(self, channels: int) -> nn.Module:
        """Return the head for maps of so many channels: called with a list of maps, it returns raw predictions.

        Its `losses(raw, truth)` gives scalars by name and its `detect(raw)` detections (B, max_det, 6).
        """

    @property
    def end2end(self) -> bool:
        """True: predictions are final."""
        return True

    @end2end.setter
    def end2end(self, value: bool) -> None:
        """Ultralytics sets this to choose between two heads of a model; there is one here."""

    def pyramid(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Return the maps (B, C, H_l, W_l) of images (B, 3, H, W) in [0, 1], finest first."""
        x = (images - self.mean.to(images.dtype)) / self.std.to(images.dtype)
        maps = []
        for stage in self.model[:5]:
            x = stage(x)
            maps.append(x)
        levels = self.model[5](maps[-self.model[5].inputs :])
        return [layer(x) for layer, x in zip(self.model[6:-1], levels, strict=True)]

    def predict(
        self, x: torch.Tensor, profile: bool = False, augment: bool = False, embed: list[int] | None = None
    ) -> Any:
        """Return raw predictions in training mode, else detections (B, max_det, 6) and the raw predictions."""
        if augment:
            LOGGER.warning(f"{type(self).__name__} has no augment=True and predicts once; leave augment= out")
        if embed:
            raise DS2D2Error(f"embed={embed}: {type(self).__name__} gives no embeddings; leave embed= out")
        raw = self.model[-1](self.pyramid(x))
        return raw if self.training else (self.model[-1].detect(raw), raw)

    def loss(self, batch: Batch, preds: Any = None) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Return the losses of a batch.

        Args:
            batch (Batch): As Ultralytics makes it.
            preds (Any): What `predict` returned for the images in evaluation mode, where it has run already.

        Returns:
            loss (torch.Tensor): Losses times `loss_factor`, to be added up.
            items (dict[str, torch.Tensor]): The losses by name, detached.
        """
        images = batch["img"]
        raw = self.model[-1](self.pyramid(images)) if preds is None else preds[1]
        losses = self.model[-1].losses(raw, truth_of(batch))
        vector = torch.stack(list(losses.values())) * self.loss_factor(images.shape[0])
        return vector, {name: value.detach() for name, value in losses.items()}

    def loss_factor(self, images: int) -> float:
        """Return what the losses of a batch of so many images are multiplied by: its share of the nominal batch.

        Ultralytics adds gradients up until `nbs` images were seen. So the sum is that of one batch of `nbs` images,
        for which the reference's learning rates are meant, and grows in proportion where a batch is larger.
        """
        return float(images / getattr(getattr(self, "args", None), "nbs", DEFAULT_CFG.nbs))

    def load(self, weights: Any, verbose: bool = True) -> None:
        """Load what fits from another model, as Ultralytics does, and freeze BatchNorm statistics if that one does."""
        super().load(weights, verbose)
        source = (weights.get("ema") or weights["model"]) if isinstance(weights, dict) else weights
        self._set_imagenet(bool(getattr(source, "yaml", {}).get("imagenet")))

    def load_imagenet(self) -> None:
        """Load the ImageNet weights that the YAML names into the backbone, from the disk or the network.

        Raises:
            DS2D2Error: If they are not on the disk and cannot be downloaded.
        """
        name = self.yaml["backbone"]
        weights = _imagenet_weights(name, self.yaml["weights"])
        try:
            network = get_model(name, weights=weights)
        except (
            Exception
        ) as error:  # no network, a proxy, a full disk, a broken file: many kinds, all the user's to mend
            folder = Path(torch.hub.get_dir()) / "checkpoints"
            raise DS2D2Error(
                f"pretrained=True: cannot get the ImageNet weights of {name} ({error}); put {Path(weights.url).name} "
                f"into {folder}, or train from scratch with pretrained=False"
            ) from error
        for stage, source in zip(self.model[:5], backbone_stages(network, True), strict=True):
            stage.load_state_dict(source.state_dict())
        self._set_imagenet(True)

    def fuse(self, verbose: bool = True, imgsz: int = 640) -> TorchvisionModel:
        """Return the model: there is nothing to fuse in it."""
        return self

    def is_fused(self) -> bool:
        """False: the model can always be trained and tapped."""
        return False

    def _set_imagenet(self, value: bool) -> None:
        self.yaml["imagenet"] = value
        for stage in self.model[:5]:
            stage.frozen_statistics = value
            stage.train(stage.training)


class TorchvisionDetector(Detector[RawT, AssignmentT]):
    """What the families of torchvision have in common, as distillation sees them."""

    model_class: type[TorchvisionModel]
    shared_adapter = True

    @classmethod
    def accepts(cls, model: nn.Module) -> bool:
        """Return whether `model` is of this family."""
        return isinstance(model, cls.model_class)

    @classmethod
    def builds(cls, config: Config) -> bool:
        """Return whether the YAML's `detector` is this family."""
        return config.get("detector") == cls.family

    @classmethod
    def build(cls, config: Config, ch: int, nc: int | None, verbose: bool) -> nn.Module:
        """Return the model of a YAML."""
        return cls.model_class(config, ch, nc, verbose)

    @property
    def head_layers(self) -> tuple[int, ...]:
        """Indices of the pyramid's levels."""
        return tuple(range(6, self.head_index))

    @property
    def frozen_layers(self) -> tuple[int, ...]:
        """Stem and first stage where they were trained on ImageNet, as in the reference; else none."""
        return (0, 1) if self.model.yaml["imagenet"] else ()

    def fuse(self, guest: nn.Module) -> None:
        """Fold the BatchNorm layers of a frozen backbone into its convolutions, in place; heads have none."""
        for module in guest.modules():
            if isinstance(module, Stage):
                module.fuse()

    def load_backbone(self) -> None:
        """Load ImageNet weights into the backbone."""
        self.model.load_imagenet()

    def loss_factor(self, images: int) -> float:
        """Return the share of a batch of so many images in the nominal batch."""
        factor: float = self.model.loss_factor(images)
        return factor


class DenseTorchvisionDetector(TorchvisionDetector[DensePredictions, DenseAssignment], DenseDetector):
    """What the dense families among them have in common."""

    def forward_teacher(self, images: torch.Tensor) -> DensePredictions:
        """Return decoded predictions for images (B, 3, H, W) in [0, 1]."""
        return self.decode(self.head, self.head(self.model.pyramid(images)))


def truth_of(batch: Batch) -> Truth:
    """Return boxes and classes of every image; boxes without width or height, which nothing can match, are left out."""
    images = batch["img"]
    height, width = images.shape[-2:]
    boxes = xywh2xyxy(batch["bboxes"].float()) * images.new_tensor([width, height, width, height], dtype=torch.float32)
    classes, index = batch["cls"].view(-1).long(), batch["batch_idx"].view(-1)
    solid = (boxes[:, 2:] > boxes[:, :2]).all(1)
    chosen = [(index == image) & solid for image in range(images.shape[0])]
    return [boxes[mask] for mask in chosen], [classes[mask] for mask in chosen]


def number_of(config: Config, key: str, least: float, most: float | None) -> Any:  # Any: int or float
    """Return a number of a model YAML; one without an upper bound is whole.

    Args:
        config (Config): Content of the YAML.
        key (str): Its name there.
        least (float): The least that it may be.
        most (float | None): The most that it may be.

    Raises:
        DS2D2Error: If there is no such number.
    """
    value: Any = config.get(key)
    kinds = (int,) if most is None else (int, float)
    # `not least <= value` rather than `value < least`: it refuses NaN too
    if type(value) not in kinds or not least <= value <= (value if most is None else most):
        expected = f"a whole number of at least {least}" if most is None else f"a number from {least} to {most}"
        raise DS2D2Error(f"{key}: {value} is not {expected}")
    return value


def _known_backbone(name: object) -> str:
    names = ("resnet18", "resnet34", "resnet50", "resnet101", "resnext101_64x4d")
    if name not in names:
        raise DS2D2Error(f"backbone: {name} is unknown; write one of {', '.join(names)}")
    return str(name)


def _imagenet_weights(backbone: str, name: str) -> WeightsEnum:
    try:
        weights: WeightsEnum = get_model_weights(backbone)[name]
    except KeyError:
        names = ", ".join(get_model_weights(backbone).__members__)
        raise DS2D2Error(f"weights: {backbone} has no {name}; write one of {names}") from None
    return weights
