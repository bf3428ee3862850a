"""`ds2d2 convert`: converts a data set from its published layout to one to train on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ds2d2_yolo.commands.words import parse_arguments
from ds2d2_yolo.data.convert import MANIFEST, Conversion, convert_dataset
from ds2d2_yolo.tables import counted, text_table


def run(words: Sequence[str]) -> None:
    """Convert a data set and print how many images and objects were found, written and left out.

    Args:
        words (Sequence[str]): `key=value` words, the options of `cfg/convert.yaml`.

    Raises:
        DS2D2Error: See `convert_dataset`.
    """
    conversion = convert_dataset(**{"src": "", **parse_arguments(words)})
    # Names of files may be invalid as text.
    print(summary(conversion).encode(errors="backslashreplace").decode())


def summary(conversion: Conversion) -> str:
    """Return the numbers of images and objects that were found, written and left out, as a text of several lines.

    Args:
        conversion (Conversion): A converted data set.

    Returns:
        (str): Tables of images and objects by split and of objects by class, and the reasons.
    """
    manifest = conversion.manifest
    source, options = manifest["source"], manifest["options"]
    splits = manifest["splits"]
    number = counted(len(manifest["classes"]), "class", "classes")
    head = f"{source['layout']}, task {options['task']}, {number}: {conversion.folder}"
    if not conversion.made:
        head = f"already converted, nothing to do: {head}"
    rows = [["split", "from", "images", "written", "left out", "files", "objects", "written", "left out", "labels"]]
    whole = {name: sum(item[name] for item in splits.values()) for name in ("files", "labels")}
    for split, item in [*splits.items(), ("all", manifest | whole)]:
        rows.append([split, "+".join(options["splits"].get(split, ()))])
        for kind, written in (("images", "files"), ("objects", "labels")):
            entered, out = item[kind]["in"], item[kind]["out"]
            rows[-1] += map(str, (entered, out, entered - out, item[written]))
    classes = [["class", *(f"{split} {count}" for split in splits for count in ("found", "written"))]]
    for name in manifest["classes"]:
        classes.append([name, *(str(item["classes"][name][way]) for item in splits.values() for way in ("in", "out"))])
    parts = [head, "\n".join(text_table(rows, texts=2)), "\n".join(text_table(classes))]
    if manifest["reasons"]:
        parts.append(_reasons(manifest))
    notes = [f"note: {note}" for note in manifest["notes"]]
    parts.append("\n".join([*notes, f"train with data={conversion.data}"]))
    return "\n\n".join(parts)


def _reasons(manifest: Mapping[str, Any]) -> str:
    rows = [["left out", "", "reason", "where"]]
    for item in sorted(manifest["reasons"], key=lambda item: (item["kind"], -item["count"])):
        places = list(
            dict.fromkeys(
                entry["file"] if entry["line"] is None else f"{entry['file']}:{entry['line']}"
                for entry in manifest["left_out"]
                if (entry["kind"], entry["reason"]) == (item["kind"], item["reason"])
            )
        )
        more = f" and {len(places) - 2} more, see {MANIFEST}" if len(places) > 2 else ""
        kind = item["kind"] if item["count"] == 1 else f"{item['kind']}s"
        rows.append([str(item["count"]), kind, item["reason"], ", ".join(places[:2]) + more])
    return "\n".join(text_table(rows, texts=4))
