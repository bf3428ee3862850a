"""Tools for pages: self-contained HTML that loads nothing from the network, light or dark like the reader's system.

A page is data: sections of headings, paragraphs, tables and pictures. Templates beside this module make HTML of it and
escape every text.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import ClassVar

from jinja2 import Environment, PackageLoader, StrictUndefined

from ds2d2_yolo import __version__
from ds2d2_yolo.report.palette import DARK, LIGHT


@dataclass(frozen=True)
class Heading:
    """A title within a section."""

    kind: ClassVar[str] = "heading"
    text: str


@dataclass(frozen=True)
class Paragraph:
    """A paragraph of text, or a note in a lighter colour."""

    kind: ClassVar[str] = "paragraph"
    text: str
    note: bool = False


@dataclass(frozen=True)
class Table:
    """A table. On a narrow screen it scrolls sideways, and its first column stays visible.

    Attributes:
        header (Sequence[str]): Titles of the columns.
        rows (Sequence[Sequence[object]]): Cells, shown as text.
        text_columns (Sequence[int]): Columns of long text: aligned left, with line breaks.
    """

    kind: ClassVar[str] = "table"
    header: Sequence[str]
    rows: Sequence[Sequence[object]]
    text_columns: Sequence[int] = ()


@dataclass(frozen=True)
class Picture:
    """A picture that is embedded in the page.

    Attributes:
        content (bytes | Path): PNG or JPEG, or its file.
        alt (str): Alternative text for readers who cannot see it.
        caption (str): Text below.
    """

    kind: ClassVar[str] = "picture"
    content: bytes | Path
    alt: str
    caption: str = ""

    @property
    def source(self) -> str:
        """The content as a data URL."""
        data = self.content.read_bytes() if isinstance(self.content, Path) else self.content
        form = "jpeg" if data.startswith(b"\xff\xd8") else "png"
        return f"data:image/{form};base64,{base64.b64encode(data).decode()}"


@dataclass(frozen=True)
class Grid:
    """Pictures beside each other, as many as fit on the screen."""

    kind: ClassVar[str] = "grid"
    pictures: Sequence[Picture]


@dataclass(frozen=True)
class Folded:
    """Parts that the reader can open."""

    kind: ClassVar[str] = "folded"
    title: str
    parts: Sequence[Part]


Part = Heading | Paragraph | Table | Picture | Grid | Folded


@dataclass(frozen=True)
class Section:
    """A part of a page with a link in the navigation. A section without parts is left out."""

    title: str
    parts: Sequence[Part]


def facts(values: Mapping[str, object]) -> Table:
    """Return names and values as a table of two columns."""
    return Table(("", ""), list(values.items()), text_columns=(1,))


def render_page(title: str, lead: str, sections: Sequence[Section]) -> str:
    """Return a page.

    Args:
        title (str): Title.
        lead (str): Text below the title.
        sections (Sequence[Section]): Its sections, in order.

    Returns:
        (str): HTML that loads nothing.

    Example:
        >>> "&lt;b&gt;" in render_page("<b>", "", [])
        True
    """
    template = _templates().get_template("page.html.jinja")
    shown = [section for section in sections if section.parts]
    return template.render(title=title, lead=lead, sections=shown, light=LIGHT, dark=DARK, version=__version__)


@cache
def _templates() -> Environment:
    # Escaping by file name would skip names that end in .jinja
    loader = PackageLoader("ds2d2_yolo.report")
    return Environment(
        loader=loader,
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
