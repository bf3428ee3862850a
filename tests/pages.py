"""Helpers to check an HTML page: its references, and its rendering in a browser."""

from __future__ import annotations

import os
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
# Set by .ci/run: there a missing browser is a failure. On a user's machine these tests are skipped.
REQUIRED = "DS2D2_REQUIRE_BROWSER" in os.environ
needs_browser = pytest.mark.skipif(BROWSER is None and not REQUIRED, reason="no chromium on the PATH")
_VOID = {"meta", "link", "img", "br", "hr", "input"}


class Page(HTMLParser):
    """The content of a page. A tag that is not closed in its place is an error."""

    def __init__(self, path: Path) -> None:
        super().__init__(convert_charrefs=True)
        self.references: list[str] = []
        self.alts: list[str] = []
        self.text = ""
        self._open: list[str] = []
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)
        assert not self._open, f"not closed: {self._open}"

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.references += [values[name] for name in ("src", "href", "srcset", "action") if values.get(name)]
        if tag == "img":
            self.alts.append(values.get("alt", ""))
        if tag not in _VOID:
            self._open.append(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag, f"{tag} closed out of its place"

    def handle_data(self, data):
        if not self._open or self._open[-1] != "style":
            self.text += data


def assert_self_contained(page: Page) -> None:
    assert all(reference.startswith(("data:", "#")) for reference in page.references)
    assert "@import" not in page.source
    assert "url(" not in page.source
    assert "<script" not in page.source
    assert all(page.alts)


def browse(path: Path, folder: Path, width: int = 1000, dark: bool = False) -> np.ndarray:
    """Return the pixels of a page in a browser. Errors on its console raise an error."""
    assert BROWSER, "no chromium on the PATH"
    shot = folder / "shot.png"
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--window-size={width},1200"]
    options += ["--enable-logging=stderr", f"--screenshot={shot}", f"--user-data-dir={folder / 'profile'}"]
    options += ["--blink-settings=preferredColorScheme=0"] if dark else []
    result = subprocess.run(
        [BROWSER, *options, path.resolve().as_uri()], capture_output=True, text=True, timeout=240, check=True
    )
    assert "CONSOLE" not in result.stderr
    with Image.open(shot) as image:
        return np.asarray(image.convert("RGB")).astype(int)
