"""Fingerprints decide whether a finished stage can be reused, and whether an amplifier belongs to a teacher."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import nn
from ultralytics.data.utils import img2label_paths

from ds2d2_yolo.loading.classes import in_order
from ds2d2_yolo.loading.images import images_of_split, splits_of_run

# Arguments that affect the place, speed or output of a run, but not its result. The seed is one of them: students of
# all seeds share one teacher and one amplifier.
_WITHOUT_EFFECT = {
    *("cache", "data", "device", "exist_ok", "mode", "model", "name", "plots", "profile", "project", "resume", "save"),
    *("save_dir", "save_period", "seed", "task", "verbose", "workers"),
    *("augment", "embed", "format", "line_width", "opset", "optimize", "retina_masks", "save_conf", "save_crop"),
    *("save_frames", "save_json", "save_txt", "show", "show_boxes", "show_conf", "show_labels", "simplify", "source"),
    *("stream_buffer", "tracker", "vid_stride", "visualize", "workspace"),
    *("epochs", "wavelet"),  # the stage adds them itself
}

_END = 8192  # bytes at each end of an image file that are part of its fingerprint

_OF_KEYPOINTS = ("kpt_shape", "flip_idx", "kpt_oks_sigmas")
"""Entries of a data YAML for keypoints: their form, their order in mirrored images, and tolerances for AP and loss."""


def fingerprint_of_model(model: nn.Module) -> str:
    """Return a fingerprint of a model's weights, buffers and class names.

    Weights are hashed in half precision, the format of Ultralytics' checkpoints. So saving and loading a model does not
    change its fingerprint.

    Args:
        model (nn.Module): The model.

    Returns:
        (str): 64 hexadecimal digits.

    Example:
        >>> fingerprint_of_model(nn.Linear(1, 1)) == fingerprint_of_model(nn.Linear(1, 1))
        False
    """
    digest = hashlib.sha256(json.dumps(_names(model)).encode())
    for name, tensor in model.state_dict().items():
        tensor = tensor.detach().cpu()
        tensor = tensor.half() if tensor.is_floating_point() else tensor
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


def fingerprint_of_file(path: Path) -> str:
    """Return the SHA-256 of a file, as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def fingerprint_of_data(data: Mapping[str, Any], split: str) -> str:
    """Return a fingerprint of a data set: classes, keypoints, and the images and labels of a run.

    Labels are hashed completely. For images, only name, file size, first and last bytes are hashed, as reading a large
    data set takes minutes.

    Args:
        data (Mapping[str, Any]): A data set, as described by Ultralytics' `check_det_dataset`.
        split (str): The split for evaluation. It chooses the best epoch. `train` and `val` are always hashed.

    Returns:
        (str): 64 hexadecimal digits. They do not depend on the folder of the data set.
    """
    keypoints = {name: data[name] for name in _OF_KEYPOINTS if data.get(name) is not None}
    header = [in_order(data["names"]), data["channels"], *([keypoints] if keypoints else [])]
    digest = hashlib.sha256(json.dumps(header, default=str).encode())
    for name in splits_of_run(split):
        images = images_of_split(data.get(name))
        labels = img2label_paths([str(image) for image in images])
        for image, label in zip(images, labels, strict=True):
            digest.update(f"{name}/{image.name}".encode())
            if image.is_file():
                digest.update(_ends(image))
            if Path(label).is_file():
                digest.update(Path(label).read_bytes())
    return digest.hexdigest()


def fingerprint_of_images(images: Iterable[Path]) -> str:
    """Return a fingerprint of images without labels, from names, sizes, first and last bytes: 64 hexadecimal digits."""
    digest = hashlib.sha256()
    for image in images:
        digest.update(image.name.encode() + _ends(image))
    return digest.hexdigest()


def fingerprint_of_inputs(inputs: Mapping[str, Any]) -> str:
    """Return a fingerprint of a stage's inputs, which must be JSON values."""
    return hashlib.sha256(json.dumps(inputs, sort_keys=True, default=str).encode()).hexdigest()


def effective_arguments(args: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments that differ from their defaults and can change the result of a stage.

    Arguments with default values are omitted. So new arguments in a release of Ultralytics do not change fingerprints.
    """
    return {
        key: value for key, value in sorted(args.items()) if key not in _WITHOUT_EFFECT and value != defaults.get(key)
    }


def _ends(path: Path) -> bytes:
    """Return the size of a file and its first and last bytes."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(_END)
        file.seek(max(size - _END, 0))
        return f"{size}".encode() + head + file.read(_END)


def _names(model: nn.Module) -> list[str]:
    names = getattr(model, "names", {})
    return in_order(names) if isinstance(names, Mapping) else []
