"""Helpers of the tests of trainings: tiny data, tiny models with useful weights, and short runs."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import cv2
import numpy as np
import pytest
import torch
from ultralytics.nn.tasks import DetectionModel, guess_model_task, load_checkpoint, yaml_model_load
from ultralytics.utils import DEFAULT_CFG, YAML
from ultralytics.utils.callbacks import get_default_callbacks
from ultralytics.utils.ops import xywhr2xyxyxyxy

from ds2d2_yolo.detectors import Detector, Taps, build_model, detector_of
from ds2d2_yolo.files import write_json
from ds2d2_yolo.loading.unlabeled import SET_FILE, fingerprint_of_labels
from ds2d2_yolo.resources import resource_folder
from ds2d2_yolo.training.amplifier import load_amplifier
from ds2d2_yolo.training.pipeline import plan

NAMES = {0: "ship", 1: "vehicle"}


def short(**changes: Any) -> dict[str, Any]:
    """The arguments of a training of a few seconds on a CPU, with changes."""
    settings = {"imgsz": 64, "batch": 4, "nbs": 4, "warmup_epochs": 0, "epochs": 1, "optimizer": "SGD", "lr0": 0.001}
    return settings | {"device": "cpu", "workers": 0, "plots": False} | changes


def write_data(folder: Path, train: int = 8, val: int = 4, size: int = 64, task: str = "detect") -> Path:
    """Write a data set of bright rectangles on noise, and return its YAML.

    They are rotated for `obb`. Their outlines are labelled for `segment`, their corners for `pose`.
    """
    generator = np.random.default_rng(0)
    for split, count in (("train", train), ("val", val)):
        for kind in ("images", "labels"):
            (folder / kind / split).mkdir(parents=True)
        for index in range(count):
            image = generator.integers(0, 90, (size, size, 3), dtype=np.uint8)
            lines = []
            for label in range(2):
                x, y = generator.uniform(0.3, 0.7, 2)
                w, h = (0.4, 0.2) if label == 0 else (0.2, 0.2)
                colour = (250, 180, 90) if label == 0 else (60, 200, 250)
                if task == "detect":
                    corners = [(np.array([x + a * w / 2, y + a * h / 2]) * size).astype(int) for a in (-1, 1)]
                    cv2.rectangle(image, tuple(map(int, corners[0])), tuple(map(int, corners[1])), colour, -1)
                    lines.append(f"{label} {x:.6f} {y:.6f} {w} {h}")
                    continue
                angle = generator.uniform(0, np.pi) if task == "obb" else 0.0
                points = xywhr2xyxyxyxy(np.array([x, y, w, h, angle]))
                cv2.fillPoly(image, [(points * size).astype(np.int32)], colour)
                values = " ".join(f"{value:.6f}" for value in points.clip(0, 1).ravel())
                lines.append(f"{label} {x:.6f} {y:.6f} {w} {h} {values}" if task == "pose" else f"{label} {values}")
            cv2.imwrite(str(folder / "images" / split / f"{index}.png"), image)
            (folder / "labels" / split / f"{index}.txt").write_text("\n".join(lines) + "\n")
    path = folder / "data.yaml"
    names = "".join(f"  {index}: {name}\n" for index, name in NAMES.items())
    points = "kpt_shape: [4, 2]\n" if task == "pose" else ""
    path.write_text(f"path: {folder}\ntrain: images/train\nval: images/val\n{points}names:\n{names}")
    return path


def batch_of(size: int = 64, images: int = 2, boxes: int = 3, task: str = "detect") -> dict[str, torch.Tensor]:
    """A training batch as the model gets it, with four keypoints."""
    generator = torch.Generator().manual_seed(0)
    batch = {
        "img": torch.rand(images, 3, size, size, generator=generator),
        "cls": torch.zeros(images * boxes, 1),
        "bboxes": torch.rand(images * boxes, 5 if task == "obb" else 4, generator=generator) * 0.3 + 0.3,
        "batch_idx": torch.arange(images).repeat_interleave(boxes).float(),
    }
    if task == "segment":
        batch["masks"] = torch.randint(0, boxes + 1, (images, size // 4, size // 4), generator=generator).float()
        batch["sem_masks"] = torch.zeros_like(batch["masks"])
    elif task == "pose":
        batch["keypoints"] = torch.rand(images * boxes, 4, 3, generator=generator)
    return batch


def lively_model(name: str | Path, classes: int = 2, seed: int = 0) -> DetectionModel:
    """A model whose features and scores are not near zero. Those of a new model in evaluation mode are.

    A few passes in training mode set the BatchNorm statistics to those of the data. Without their bias, class scores
    are about 0.5.
    """
    torch.manual_seed(seed)
    content = yaml_model_load(str(name))
    if "kpt_shape" in content:
        content["kpt_shape"] = [4, 2]
    model = build_model(content, nc=classes)
    model.args = DEFAULT_CFG
    model.names = {i: NAMES.get(i, str(i)) for i in range(classes)}
    model.train()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 0.5
    with torch.no_grad():
        for index in range(3):
            model(torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(index)))
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 0.03
    model.task = guess_model_task(content)
    for branch in model.model[-1].cv3:
        torch.nn.init.zeros_(branch[-1].bias)
    return model


def run_teacher(detector: Detector, images: torch.Tensor) -> tuple[list[torch.Tensor], Any]:
    """The feature maps that a frozen detector's head gets for images, and its raw predictions."""
    taps = Taps()
    taps.open({index: detector.layer(index) for index in detector.head_layers})
    predictions = detector.forward_teacher(images)
    maps = taps.close()
    return [maps[index] for index in detector.head_layers], predictions


def assert_assigns_as_ever(detector: Detector, batch: dict[str, torch.Tensor]) -> None:
    """If objects are assigned by the model's own predictions, its loss does not change."""
    model = detector.model.train()
    taps = Taps()
    taps.open({**{index: detector.layer(index) for index in detector.head_layers}, "head": detector.head})
    expected, _ = model(batch)
    outputs = taps.close()
    predictions = detector.decode(detector.head, outputs["head"])
    assigned = detector.assign_by(predictions, [outputs[index] for index in detector.head_layers])
    loss, _ = model(batch)
    assigned.remove()
    torch.testing.assert_close(loss, expected)


def save_checkpoint(model: DetectionModel, path: Path) -> Path:
    """Save a model as Ultralytics would."""
    torch.save({"model": model, "epoch": -1, "train_args": {}, "train_metrics": {}}, path)
    return path


def frozen_pair(teacher: Any, amplifier: Any) -> tuple[torch.nn.Module, torch.nn.Module]:
    """Read a teacher and its amplifier as distillation uses them: frozen and fused."""
    detector = detector_of(load_checkpoint(teacher)[0])
    head = load_amplifier(amplifier, detector, "haar")
    detector.freeze()
    for frozen in (detector.model, head):
        detector.fuse(frozen)
    return detector.model, head


@contextmanager
def no_network() -> Iterator[list[Any]]:
    """Refuse connections, like a machine without a network, and yield the list of requested ones."""
    asked: list[Any] = []

    def refuse(*arguments: Any, **named: Any) -> NoReturn:
        asked.append(arguments)
        raise OSError("no network here")

    with pytest.MonkeyPatch.context() as patch:
        for name in ("connect", "connect_ex", "sendto"):
            patch.setattr(socket.socket, name, refuse)
        patch.setattr(socket, "getaddrinfo", refuse)
        yield asked


def small_yolo(folder: Path, name: str = "small", width: int = 16, task: str = "detect") -> Path:
    """Write the YAML of a YOLO of five convolutions and a head on three levels, and return its path.

    Ultralytics' smallest models have more than a hundred modules. To build, copy, save and load them takes seconds in
    every run: too long for tests of the trainer.
    """
    heads = {"detect": "Detect, [nc]", "obb": "OBB, [nc, 1]", "segment": "Segment, [nc, 8, 16]"}
    head = (heads | {"pose": "Pose, [nc, kpt_shape]"})[task]
    points = "kpt_shape: [4, 2]\n" if task == "pose" else ""
    layers = [f"  - [-1, 1, Conv, [{channels}, 3, 2]]\n" for channels in (16, 16, width, width, 2 * width)]
    path = folder / f"{name}.yaml"
    path.write_text(f"nc: 2\n{points}backbone:\n{''.join(layers)}head:\n  - [[2, 3, 4], 1, {head}]\n")
    return path


def tiny_yaml(folder: Path, family: str, name: str = "tiny", **changes: object) -> Path:
    """A model YAML of RetinaNet or Faster R-CNN that is light enough for tests: ResNet-18, 16 channels per level."""
    prefix = {"RetinaNet": "retinanet", "FasterRCNN": "fasterrcnn"}[family]
    content = YAML.load(resource_folder("cfg") / "models" / f"{prefix}_r18.yaml")
    path = folder / f"{prefix}_{name}.yaml"
    YAML.save(path, content | {"fpn_channels": 16} | changes)
    return path


def describe_labels(folder: Path, labels: Sequence[Path]) -> Path:
    """Write the description of a set with a teacher's labels, as its stage does, and return its file."""
    content: dict[str, Any] = {"images": len(labels), "boxes": len(labels), "without_boxes": 0, "left_out": {}}
    content |= {"thresholds": {name: {"confidence": 0.5} for name in NAMES.values()}, "precision": None, "inputs": {}}
    write_json(folder / SET_FILE, {**content, "sources": {}, "labels": fingerprint_of_labels(labels)})
    return folder / SET_FILE


class Killed(BaseException):
    """Ends a run at any place: no code catches it."""


def stop_at(event: str, epoch: int, batch: int | None = None) -> tuple[str, Callable[[Any], None]]:
    """A callback that ends a run in an epoch, at a batch or at its end."""
    seen = []

    def stop(trainer: Any) -> None:
        if trainer.epoch == epoch:
            seen.append(trainer)
            if batch is None or seen.count(trainer) > batch:
                raise Killed

    return event, stop


def interrupted_early() -> dict[str, list[Callable[[Any], None]]]:
    """Ultralytics' callbacks, and one that interrupts a run after its first epoch is saved."""

    def stop(trainer: Any) -> None:
        raise KeyboardInterrupt

    callbacks: dict[str, list[Callable[[Any], None]]] = get_default_callbacks()
    callbacks["on_model_save"].append(stop)
    return callbacks


def short_of_memory(layer: int) -> tuple[str, Callable[[Any], None]]:
    """A callback that makes a layer run out of memory once."""
    failed = []

    def fail_once(module: torch.nn.Module, inputs: Any) -> None:
        if not failed and module.training:
            failed.append(True)
            raise RuntimeError("CUDA out of memory")

    return "on_train_start", lambda trainer: trainer.model.model[layer].register_forward_pre_hook(fail_once)


def make_stage(overrides: dict[str, Any], goal: str = "teacher", callbacks: Any = None) -> Path:
    """Plan and run the stages up to a goal, and return the goal's file."""
    return Path(getattr(plan(overrides, goal).run(callbacks).arguments, goal))
