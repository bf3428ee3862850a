"""Types of what Ultralytics' trainers are given."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

Configuration = str | Path | Mapping[str, object] | SimpleNamespace
"""Type of `cfg` in Ultralytics' trainers: a YAML file, its content, or arguments as a namespace."""

ModelConfiguration = str | dict[str, Any]
"""A model YAML, or its content. Any: lists of layers, numbers and other types."""

Callbacks = dict[str, list[Callable[[Any], object]]]
"""Ultralytics' callbacks by event. Any: the argument is a trainer of any class."""
