"""Helpers of the tests of the readers."""

from __future__ import annotations

import math
from collections import Counter

from hypothesis import strategies as st


def read_all(reader, account):
    """Read and check every split. Return the images by split."""
    images = {split: list(reader.read(split)) for split in reader.splits()}
    lost = Counter()
    for entry in account.left_out:
        lost[entry["kind"]] += entry["count"]
    everything = [image for split in images.values() for image in split]
    assert account.entered["image"] == len(everything) + lost["image"]
    assert account.entered["object"] == sum(len(image.objects) for image in everything) + lost["object"]
    for image in everything:
        assert image.image.is_file()
        assert image.size is None or min(image.size) > 0
        for item in image.objects:
            assert item.name in reader.class_names
            assert len(item.points) in (4, 8)
            assert all(math.isfinite(value) for value in item.points)
            assert item.difficult >= 0
    return images


def left_out(account):
    """The entries of an account as text: `kind file:line reason`, with the count if it is not one."""
    return [
        f"{entry['kind']} {entry['file']}"
        + (f":{entry['line']}" if entry["line"] is not None else "")
        + f" {entry['reason']}"
        + (f" x{entry['count']}" if entry["count"] != 1 else "")
        for entry in account.left_out
    ]


@st.composite
def mutated(draw, valid):
    """A valid file in which some parts are replaced by other parts of it, or by random bytes."""
    content = draw(st.sampled_from(valid)) if isinstance(valid, list) else valid
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(content)))
        stop = draw(st.integers(start, min(start + 30, len(content))))
        source = draw(st.integers(0, len(content)))
        filling = draw(
            st.one_of(
                st.binary(max_size=8),
                st.just(content[source : source + 30]),
                st.sampled_from(
                    [b"nan", b"-inf", b"1e999", b"9" * 5000, b"\0", b"<!DOCTYPE a>", b"&a;", b"[" * 3000, b"null"]
                ),
            )
        )
        content = content[:start] + filling + content[stop:]
    return content
