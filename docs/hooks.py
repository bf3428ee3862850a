"""What MkDocs makes of the repository besides the pages: arguments, commands, links to files, formulas.

The pages hold a line where something is generated:

- `<!-- arguments compare -->`: a table of `cfg/compare.yaml`.
- `<!-- commands -->`: every mode of the command line, from `ds2d2 help`.
- `<!-- file CHANGELOG.md -->`: a file of the repository, as code unless it is Markdown.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

import griffe
import latex2mathml.converter
from mkdocs.exceptions import PluginError

import ds2d2_yolo
from ds2d2_yolo.cli import MODES
from ds2d2_yolo.commands.help import HELP

ROOT = Path(__file__).parents[1]
ARGUMENT = re.compile(r"^([\w-]+):\s*(.*?)\s*(?:# (?:\(([^)]+)\) )?(.+))?$")
COMMAND = re.compile(r"^ {6}(\w+) +(.+)(?:\n {19}(ds2d2 .+))?", re.MULTILINE)
GENERATED = re.compile(r"^<!-- (arguments|commands|file) ?(\S*) -->$", re.MULTILINE)
LINK = re.compile(r"(?<!!)\[([^\]]+)\]\((\.\./[^)#\s]+)\)")
FORMULA = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.+?)\\[)\]]</\1>', re.DOTALL)


def on_files(files: Any, config: Any) -> None:
    """Fail where a page of the reference lacks something that exists.

    Raises:
        PluginError: If a file of `cfg/`, an example or a public name is in no page.
    """
    text = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "docs" / "reference").glob("*.md"))
    needed = [f"<!-- arguments {path.stem} -->" for path in ROOT.glob("cfg/*.yaml")]
    needed += [f"<!-- file examples/{path.name} -->" for path in ROOT.glob("examples/*.py")]
    needed += [f"::: ds2d2_yolo.{name}" for name in ds2d2_yolo.__all__ if name != "__version__"]
    missing = sorted(set(needed) - set(text.splitlines()))
    if missing:
        raise PluginError(f"docs/reference lacks {', '.join(missing)}")


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Return the page with its generated parts, and without links that leave the site."""
    kinds = {"arguments": arguments, "commands": commands, "file": included}
    markdown = GENERATED.sub(lambda found: kinds[found[1]](found[2]), markdown)
    return LINK.sub(lambda found: link(found, page.file.src_uri), markdown)


def on_page_content(html: str, **_: Any) -> str:
    """Return the page with its formulas as MathML, which browsers show without a script."""

    def convert(found: re.Match[str]) -> str:
        display = "block" if found[1] == "div" else "inline"
        text = found[2].replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
        return str(latex2mathml.converter.convert(text, display=display))

    return FORMULA.sub(convert, html)


class Examples(griffe.Extension):
    """Makes `Example:` in docstrings a section with code, which griffe knows as `Examples:` only."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Change the docstring of one object."""
        if obj.docstring:
            obj.docstring.value = re.sub(r"^Example:$", "Examples:", obj.docstring.value, flags=re.MULTILINE)


def arguments(name: str) -> str:
    """Return the arguments of `cfg/<name>.yaml` as tables, one for each of its sections.

    Raises:
        PluginError: If a line is none of a comment, an argument with its comment, or empty.
    """
    lines = (ROOT / "cfg" / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    rows: list[str] = []
    for line in lines[2:]:
        section = re.match(r"^# (.+?) -{8,}$", line)
        entry = ARGUMENT.match(line)
        if section:
            rows += ["", f"### {section[1]}", ""]
        elif entry:
            if not rows or not rows[-1].startswith("|"):
                rows += ["", "| | |", "|---|---|"]
            name, default, kind, text = (part and part.replace("|", r"\|") for part in entry.groups())
            facts = [kind or "", f"`{default}`" if default else ""]
            rows.append(f"| `{name}` | {text or ''}<br>{', default '.join(filter(None, facts))} |")
        elif line and not line.startswith("#"):
            raise PluginError(f"cfg/{name}.yaml: what is '{line}'?")
    return "\n".join(rows)


def commands(_: str) -> str:
    """Return every mode as a section: what it does, and an example.

    Raises:
        PluginError: If the help lacks a mode.
    """
    found = {mode: (text, example) for mode, text, example in COMMAND.findall(HELP)}
    if lacking := set(MODES) - set(found):
        raise PluginError(f"ds2d2 help lacks {', '.join(sorted(lacking))}")
    parts = []
    for mode in MODES:
        text, example = found[mode]
        parts.append(f"## {mode}\n\n{text[0].upper()}{text[1:]}.\n\n```bash\n{example or f'ds2d2 {mode}'}\n```\n")
        if (ROOT / "cfg" / f"{mode}.yaml").is_file() or mode == "train":
            parts.append(f"[Arguments of `{mode}`](arguments.md#{mode})\n")
    return "\n".join(parts)


def included(name: str) -> str:
    """Return the text of a file of the repository; what is no Markdown becomes a block of code."""
    text = (ROOT / name).read_text(encoding="utf-8")
    return text.replace("](docs/", "](") if name.endswith(".md") else f"`{name}`\n\n```python\n{text}```"


def link(found: re.Match[str], source: str) -> str:
    """Return a link as it is within the site, and the text alone where it leads to another file of the repository.

    Raises:
        PluginError: If there is no such file.
    """
    target = posixpath.normpath(posixpath.join("docs", posixpath.dirname(source), found[2]))
    if target.startswith("docs/"):
        return found[0]
    if not (ROOT / target).exists():
        raise PluginError(f"docs/{source}: there is no {target}")
    return found[1] if "`" in found[1] or " " in found[1] else f"`{found[1]}`"
