"""The page toolbox: self-contained HTML pages that ask nothing of the network, light or dark as the reader's system is.

Everything that comes from outside is escaped where it enters; functions return HTML as text.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from string import Template

from ds2d2_yolo import __version__

_STYLE = """
:root { color-scheme: light dark; --back: #fff; --ink: #1b1f24; --faint: #59616b; --line: #d8dbd5; --link: #0b5cad }
@media (prefers-color-scheme: dark) {
  :root { --back: #14171b; --ink: #e6e8ea; --faint: #a3abb4; --line: #343a41; --link: #7cb8f5 }
}
* { box-sizing: border-box }
body { margin: 0 auto; padding: 1.2rem; max-width: 96rem; background: var(--back); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif }
h1 { font-size: 1.7rem; line-height: 1.2; margin: .2rem 0 .3rem; overflow-wrap: anywhere }
h2 { font-size: 1.25rem; margin: 2.2rem 0 .5rem; overflow-wrap: anywhere }
p { max-width: 48rem; overflow-wrap: anywhere }
a { color: var(--link) }
.lead, .note, figcaption, footer { color: var(--faint) }
nav { display: flex; flex-wrap: wrap; gap: .2rem 1rem; padding: .5rem 0; border-bottom: 1px solid var(--line) }
figure { margin: 1rem 0 }
figure img { display: block; max-width: 100%; height: auto; border-radius: 6px; border: 1px solid var(--line) }
figcaption { font-size: .9rem; margin-top: .35rem; overflow-wrap: anywhere }
.scroll { overflow-x: auto; margin: .8rem 0 }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .92rem }
th, td { padding: .3rem .8rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap }
th { color: var(--faint); font-weight: 600 }
th:first-child, td:first-child { text-align: left; position: sticky; left: 0; background: var(--back) }
td.text { text-align: left; white-space: normal; overflow-wrap: anywhere; min-width: 9rem }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 30rem), 1fr)); gap: 1rem }
.grid figure { margin: 0 }
summary { cursor: pointer }
@media (max-width: 40rem) {
  section > figure, details > figure { overflow-x: auto }
  section > figure img, details > figure img { max-width: none; width: 100%; min-width: 38rem }
  section > figure figcaption, details > figure figcaption { position: sticky; left: 0 }
}
footer { margin-top: 3rem; border-top: 1px solid var(--line); padding-top: .6rem; font-size: .9rem }
"""

_PAGE = Template(
    """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<link rel="icon" href="data:,">
<style>$style</style>
</head>
<body>
<header>
<h1>$title</h1>
<p class="lead">$lead</p>
<nav>$links</nav>
</header>
<main>
$sections
</main>
<footer>ds2d2-yolo $version</footer>
</body>
</html>
"""
)


@dataclass(frozen=True)
class Section:
    """A part of a page that its navigation leads to.

    Attributes:
        title (str): Text.
        body (str): HTML, as the functions of this module return it.
    """

    title: str
    body: str


def page(title: str, lead: str, sections: Sequence[Section]) -> str:
    """Return a page.

    Args:
        title (str): Text.
        lead (str): Text below the title.
        sections (Sequence[Section]): Its parts, in order; those with an empty body are left out.

    Returns:
        (str): HTML that loads nothing.

    Example:
        >>> "&lt;b&gt;" in page("<b>", "", [])
        True
    """
    parts = [section for section in sections if section.body]
    links = [f'<a href="#part-{number}">{escape(part.title)}</a>' for number, part in enumerate(parts)]
    bodies = [
        f'<section id="part-{number}">\n<h2>{escape(part.title)}</h2>\n{part.body}\n</section>'
        for number, part in enumerate(parts)
    ]
    return _PAGE.substitute(
        title=escape(title),
        lead=escape(lead),
        style=_STYLE,
        links="\n".join(links),
        sections="\n".join(bodies),
        version=escape(__version__),
    )


def paragraph(text: str, note: bool = False) -> str:
    """Return a paragraph of text, or a less prominent note."""
    return f'<p class="note">{escape(text)}</p>' if note else f"<p>{escape(text)}</p>"


def table(header: Sequence[str], rows: Sequence[Sequence[object]], text_columns: Sequence[int] = ()) -> str:
    """Return a table that scrolls sideways where the screen is narrow, its first column staying in sight.

    Args:
        header (Sequence[str]): Titles of the columns.
        rows (Sequence[Sequence[object]]): Cells, as text.
        text_columns (Sequence[int]): Columns of long text, which are aligned left and broken.

    Returns:
        (str): HTML.
    """
    head = "".join(f'<th scope="col">{escape(title)}</th>' for title in header)
    lines = []
    for row in rows:
        kinds = [' class="text"' if index in text_columns else "" for index in range(len(row))]
        cells = "".join(f"<td{kind}>{escape(str(cell))}</td>" for kind, cell in zip(kinds, row, strict=True))
        lines.append(f"<tr>{cells}</tr>")
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>'


def picture(content: bytes | Path, alt: str, caption: str = "") -> str:
    """Return a picture that is part of the page.

    Args:
        content (bytes | Path): PNG or JPEG, or its file.
        alt (str): What it shows, for those who do not see it.
        caption (str): Text below.

    Returns:
        (str): HTML.
    """
    data = content.read_bytes() if isinstance(content, Path) else content
    kind = "jpeg" if data.startswith(b"\xff\xd8") else "png"
    source = f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
    below = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return f'<figure><img src="{source}" alt="{escape(alt)}" loading="lazy">{below}</figure>'


def grid(items: Sequence[str]) -> str:
    """Return HTML parts beside each other, as many as the screen is wide for."""
    return f'<div class="grid">{"".join(items)}</div>' if items else ""


def folded(title: str, body: str) -> str:
    """Return HTML that is shown on demand."""
    return f"<details><summary>{escape(title)}</summary>{body}</details>"


def facts(values: Mapping[str, object]) -> str:
    """Return names and what they stand for as a table of two columns."""
    return table(("", ""), list(values.items()), text_columns=(1,))
