"""Torchvision detectors that work with Ultralytics' trainer, validator, predictor, EMA and checkpoints."""

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

from ds2d2_yolo.detectors.base import AssignmentT, Batch, Config, Detector, RawT, to_pixels
from ds2d2_yolo.detectors.dense import DenseAssignment, DenseDetector
from ds2d2_yolo.detectors.torchvision.parts import Pyramid, Stage, StridedLevels, backbone_stages
from ds2d2_yolo.errors import DS2D2Error
from ds2d2_yolo.method import DensePredictions

Truth = tuple[list[torch.Tensor], list[torch.Tensor]]
"""Ground truth of a batch: boxes (N_i, 4) as xyxy in pixels and classes (N_i,) of every image."""

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class TorchvisionModel(DetectionModel):
    """A detector of backbone, feature pyramid and head, as a list of layers in Ultralytics' form.

    Layers 0 to 4 are stem and stages of the backbone, and layer 5 is the pyramid. Then there is one identity layer for
    each pyramid level, for taps. The head is the last layer. The model normalises images itself. In evaluation mode the
    head applies non-maximum suppression, so Ultralytics does not.

    Args:
        cfg (Mapping): Content of a model YAML.
        ch (int): Channels of the images. Must be 3.
        nc (int | None): Number of classes. None means the number in the YAML.
        verbose (bool): Whether to print a summary.

    Attributes:
        yaml (dict): The YAML's content. `imagenet` is true if ImageNet weights were loaded. Then the first layers and
            all BatchNorm statistics of the backbone are frozen.
        stride (torch.Tensor): Strides up to 32. The sides of an image must be multiples of the largest. The sizes of
            coarser levels are rounded up, as in the reference.
        end2end (bool): True, because the predictions are final.

    Raises:
        DS2D2Error: If the YAML has an unknown backbone or a number out of range, or `ch` is not 3.
    """

    strides: ClassVar[tuple[int, ...]]
    """Stride of every level, in pixels."""

    model: Any  # a sequence of layers with different methods
    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, cfg: Config, ch: int = 3, nc: int | None = None, verbose: bool = True) -> None:
        super(DetectionModel, self).__init__()  # that of DetectionModel builds the layers of a YOLO YAML
        if ch != 3:
            raise DS2D2Error(f"images with {ch} channels: torchvision's backbones need 3; pass a YOLO model instead")
        self.yaml: dict[str, Any] = deepcopy(dict(cfg))
        self.yaml |= {"nc": nc or self.yaml["nc"], "channels": ch}
        self.yaml.setdefault("imagenet", False)
        channels = number_of(self.yaml, "fpn_channels", 1, None)
        for key in {"score_threshold", "nms_iou"} & self.yaml.keys():  # not needed by every family
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
        self.criterion = None  # the head computes the loss
        self.stride = torch.tensor([float(stride) for stride in self.strides if stride <= 32])
        self.register_buffer("mean", torch.tensor(_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(_STD).view(1, 3, 1, 1), persistent=False)
        if verbose:
            self.info()

    def make_extra_levels(self, in_channels: int, channels: int) -> ExtraFPNBlock:
        """Return the block that computes the pyramid levels above the backbone's: P6 and P7 by convolution.

        Args:
            in_channels (int): Channels of the backbone's last map.
            channels (int): Channels of the pyramid levels.
        """
        return StridedLevels(in_channels, channels)

    @abstractmethod
    def make_head(self, channels: int) -> nn.Module:
        """Return the head for maps with `channels` channels. It maps a list of maps to raw predictions.

        It has two methods: `losses(raw, truth)` returns scalars by name, `detect(raw)` detections (B, max_det, 6).
        """

    @property
    def end2end(self) -> bool:
        """True, because the predictions are final."""
        return True

    @end2end.setter
    def end2end(self, value: bool) -> None:
        """Do nothing. Ultralytics sets this to choose between two heads, but this model has one."""

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
        """Return raw predictions. In evaluation mode, return detections (B, max_det, 6) and raw predictions."""
        if augment:
            LOGGER.warning(f"{type(self).__name__} does not support augment=True and ignores it; leave augment= out")
        if embed:
            raise DS2D2Error(f"embed={embed}: {type(self).__name__} returns no embeddings; leave embed= out")
        raw = self.model[-1](self.pyramid(x))
        return raw if self.training else (self.model[-1].detect(raw), raw)

    def loss(self, batch: Batch, preds: Any = None) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Return the losses of a batch.

        Args:
            batch (Batch): A batch in Ultralytics' format.
            preds (Any): Output of `predict` for the images in evaluation mode. If None, it is computed.

        Returns:
            loss (torch.Tensor): Losses times `loss_factor`. The trainer adds them up.
            items (dict[str, torch.Tensor]): The losses by name, detached.
        """
        images = batch["img"]
        raw = self.model[-1](self.pyramid(images)) if preds is None else preds[1]
        losses = self.model[-1].losses(raw, truth_of(batch))
        vector = torch.stack(list(losses.values())) * self.loss_factor(images.shape[0])
        return vector, {name: value.detach() for name, value in losses.items()}

    def loss_factor(self, images: int) -> float:
        """Return the factor of the losses: the number of images divided by the nominal batch size `nbs`.

        Ultralytics accumulates gradients over `nbs` images. So the sum equals the gradient of one batch of `nbs`
        images, for which the reference's learning rates are set. With larger batches it grows in proportion.
        """
        return float(images / getattr(getattr(self, "args", None), "nbs", DEFAULT_CFG.nbs))

    def load(self, weights: Any, verbose: bool = True) -> None:
        """Load matching weights from another model, as Ultralytics does, and its frozen BatchNorm statistics."""
        super().load(weights, verbose)
        source = (weights.get("ema") or weights["model"]) if isinstance(weights, dict) else weights
        self._set_imagenet(bool(getattr(source, "yaml", {}).get("imagenet")))

    def load_imagenet(self) -> None:
        """Load the ImageNet weights that the YAML names into the backbone, from the disk or the network.

        Raises:
            DS2D2Error: If the weights are not on the disk and cannot be downloaded.
        """
        name = self.yaml["backbone"]
        weights = _imagenet_weights(name, self.yaml["weights"])
        try:
            network = get_model(name, weights=weights)
        except Exception as error:  # no network, a proxy, a full disk, a damaged file: many types, one message
            folder = Path(torch.hub.get_dir()) / "checkpoints"
            raise DS2D2Error(
                f"pretrained=True: cannot get the ImageNet weights of {name} ({error}); put {Path(weights.url).name} "
                f"into {folder}, or train from scratch with pretrained=False"
            ) from error
        for stage, source in zip(self.model[:5], backbone_stages(network, True), strict=True):
            stage.load_state_dict(source.state_dict())
        self._set_imagenet(True)

    def fuse(self, verbose: bool = True, imgsz: int = 640) -> TorchvisionModel:
        """Return the model unchanged: it has nothing to fuse."""
        return self

    def is_fused(self) -> bool:
        """False, so the model can always be trained and tapped."""
        return False

    def _set_imagenet(self, value: bool) -> None:
        self.yaml["imagenet"] = value
        for stage in self.model[:5]:
            stage.frozen_statistics = value
            stage.train(stage.training)


class TorchvisionDetector(Detector[RawT, AssignmentT]):
    """Base of the torchvision families."""

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
        """Build the model from the content of a YAML file."""
        return cls.model_class(config, ch, nc, verbose)

    @property
    def head_layers(self) -> tuple[int, ...]:
        """Indices of the pyramid's levels."""
        return tuple(range(6, self.head_index))

    @property
    def frozen_layers(self) -> tuple[int, ...]:
        """Stem and first stage if they have ImageNet weights, as in the reference. Otherwise none."""
        return (0, 1) if self.model.yaml["imagenet"] else ()

    def fuse(self, module: nn.Module) -> None:
        """Fuse the BatchNorm layers of a frozen backbone into its convolutions, in place. Heads have none."""
        for stage in module.modules():
            if isinstance(stage, Stage):
                stage.fuse()

    def load_backbone(self) -> None:
        """Load ImageNet weights into the backbone."""
        self.model.load_imagenet()

    def loss_factor(self, images: int) -> float:
        """Return the number of images divided by the nominal batch size."""
        factor: float = self.model.loss_factor(images)
        return factor


class DenseTorchvisionDetector(TorchvisionDetector[DensePredictions, DenseAssignment], DenseDetector):
    """Base of the dense torchvision families."""

    def forward_teacher(self, images: torch.Tensor) -> DensePredictions:
        """Return decoded predictions for images (B, 3, H, W) in [0, 1]."""
        return self.decode(self.head, self.head(self.model.pyramid(images)))


def truth_of(batch: Batch) -> Truth:
    """Return boxes and classes of every image, without boxes of zero width or height, which no anchor can match."""
    images = batch["img"]
    boxes = to_pixels(xywh2xyxy(batch["bboxes"].float()), images)
    classes, index = batch["cls"].view(-1).long(), batch["batch_idx"].view(-1)
    solid = (boxes[:, 2:] > boxes[:, :2]).all(1)
    chosen = [(index == image) & solid for image in range(images.shape[0])]
    return [boxes[mask] for mask in chosen], [classes[mask] for mask in chosen]


def number_of(config: Config, key: str, least: float, most: float | None) -> Any:  # Any: int or float
    """Return a number from a model YAML. Without an upper bound it must be an integer.

    Args:
        config (Config): Content of the YAML.
        key (str): Key of the number.
        least (float): Lower bound.
        most (float | None): Upper bound.

    Raises:
        DS2D2Error: If the number is missing or out of range.
    """
    value: Any = config.get(key)
    kinds = (int,) if most is None else (int, float)
    # `not least <= value` instead of `value < least`: this also refuses NaN
    if type(value) not in kinds or not least <= value <= (value if most is None else most):
        expected = f"a whole number of at least {least}" if most is None else f"a number from {least} to {most}"
        raise DS2D2Error(f"{key}: {value} is not {expected}")
    return value


def _known_backbone(name: object) -> str:
    names = ("resnet18", "resnet34", "resnet50", "resnet101", "resnext101_64x4d")
    if name not in names:
        raise DS2D2Error(f"backbone: {name} is not supported; write one of {', '.join(names)}")
    return str(name)


def _imagenet_weights(backbone: str, name: str) -> WeightsEnum:
    try:
        weights: WeightsEnum = get_model_weights(backbone)[name]
    except KeyError:
        names = ", ".join(get_model_weights(backbone).__members__)
        raise DS2D2Error(f"weights: {backbone} has no {name}; write one of {names}") from None
    return weights
