"""`ds2d2 checks`: whether the installed Ultralytics works with this package."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

import torch

from ds2d2_yolo import __version__
from ds2d2_yolo.compatibility import NEWEST, is_untested
from ds2d2_yolo.training.contract import CHECKS, run_checks

_SHOWN = {"ultralytics": "Ultralytics", "torch": "torch", "torchvision": "torchvision"}


def run(words: Sequence[str]) -> int:
    """Run all checks. Nothing is trained or downloaded, and no files are left.

    Args:
        words (Sequence[str]): Words after the name of the command; not used.

    Returns:
        (int): 0 if all checks hold, else 1.

    Example:
        >>> run([])  # doctest: +SKIP
        0
    """
    print(f"ds2d2-yolo   {__version__}")
    for package, name in _SHOWN.items():
        print(f"{name:<11}  {_version_of(package)}")
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    print(
        f"Python       {platform.python_version()}\nmachine      {platform.platform()}, {', '.join(gpus) or 'no GPU'}\n"
    )
    failed = 0
    for outcome in run_checks(CHECKS):
        if outcome.failure is None:
            print(f"holds          {outcome.holds}", flush=True)
            continue
        failed += 1
        print(f"DOES NOT HOLD  {outcome.holds}\n{'':15}found: {outcome.failure}\n{'':15}without it: {outcome.without}")
    print(f"\n{len(CHECKS) - failed} of {len(CHECKS)} hold")
    if failed:
        print(f"ds2d2 checks: install a tested release of Ultralytics: pip install 'ultralytics=={NEWEST}'")
    elif is_untested():
        print(f"ds2d2 checks: this Ultralytics passes all checks; the newest fully tested release is {NEWEST}")
    return int(failed > 0)


def _version_of(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
