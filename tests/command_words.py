"""Helpers of the tests of the commands."""

from __future__ import annotations

from collections.abc import Mapping


def words(options: Mapping[str, object]) -> list[str]:
    """Return options as words of the command line."""
    return [f"{name}={value}" for name, value in options.items()]
