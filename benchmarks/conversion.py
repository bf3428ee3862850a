"""Measure time and memory of `ds2d2 convert` on a generated data set of DIOR's size.

    python benchmarks/conversion.py                           # 2,346 and 23,460 images
    python benchmarks/conversion.py --sample path/to/DIOR     # with the labels of a real DIOR, repeated

The label files have DIOR's form and number of objects. The images are links to one small JPEG of 800 x 800 pixels:
conversion reads only their headers. Each size is converted in its own process, which reports:

- wall-clock time and processor time
- peak memory, with Python and Ultralytics, and the part that the conversion adds
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image

from ds2d2_yolo.data.classes import DIOR_CLASSES

SIDE = 800  # pixels
OBJECTS = 8.2  # per image: 192,472 in 23,463
HEAD = """<annotation>
\t<filename>{name}.jpg</filename>
\t<source>
\t\t<database>DIOR</database>
\t</source>
\t<size>
\t\t<width>800</width>
\t\t<height>800</height>
\t\t<depth>3</depth>
\t</size>
\t<segmented>0</segmented>
"""
OBJECT = """\t<object>
\t\t<name>{cls}</name>
\t\t<pose>Unspecified</pose>
\t\t<bndbox>
\t\t\t<xmin>{x1}</xmin>
\t\t\t<ymin>{y1}</ymin>
\t\t\t<xmax>{x2}</xmax>
\t\t\t<ymax>{y2}</ymax>
\t\t</bndbox>
\t</object>
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sample", type=Path, help="folder of a real DIOR, whose labels are repeated")
    parser.add_argument("--images", type=int, default=23460, help="of the larger set; the smaller one has a tenth")
    parser.add_argument("--measure", nargs=2, metavar=("SRC", "OUT"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        measure(*arguments.measure)
        return
    labels = read_labels(arguments.sample) if arguments.sample else None
    print("| images | objects | seconds | of processor | images per second | peak MiB | of which added |")
    print("|---|---|---|---|---|---|---|")
    for count in (arguments.images // 10, arguments.images):
        with tempfile.TemporaryDirectory(prefix="ds2d2-conversion-") as folder:
            src, out = Path(folder) / "DIOR", Path(folder) / "out"
            generate(src, count, labels)
            command = [sys.executable, __file__, "--measure", str(src), str(out)]
            output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            found = json.loads(output.splitlines()[-1])  # the line before has the recognised layout
            rate = found["images"] / found["seconds"]
            print(
                f"| {found['images']:,} | {found['objects']:,} | {found['seconds']:.1f} | {found['processor']:.1f} "
                f"| {rate:,.0f} | {found['peak']:.0f} | {found['added']:.0f} |",
                flush=True,
            )


def read_labels(sample: Path) -> list[str]:
    labels = [path.read_text() for path in sorted(sample.glob("Annotations/Horizontal*/*.xml"))]
    if not labels:
        sys.exit(f"{sample}: has no Annotations/Horizontal Bounding Boxes/*.xml")
    return labels


def generate(folder: Path, count: int, labels: list[str] | None) -> None:
    rng = random.Random(0)
    annotations, images, lists = (
        folder / "Annotations" / "Horizontal Bounding Boxes",
        {"trainval": folder / "JPEGImages-trainval", "test": folder / "JPEGImages-test"},
        folder / "ImageSets" / "Main",
    )
    for path in (annotations, *images.values(), lists):
        path.mkdir(parents=True)
    picture = folder / "picture.jpg"
    Image.new("RGB", (SIDE, SIDE), "gray").save(picture, quality=30)
    names = [f"{index:05d}" for index in range(1, count + 1)]
    for index, name in enumerate(names):
        text = labels[index % len(labels)] if labels else write_label(name, rng)
        (annotations / f"{name}.xml").write_text(text)
        os.link(picture, images["trainval" if index < count // 2 else "test"] / f"{name}.jpg")
    picture.unlink()
    quarter, half = count // 4, count // 2
    for split, chosen in (("train", names[:quarter]), ("val", names[quarter:half]), ("test", names[half:])):
        (lists / f"{split}.txt").write_text("".join(f"{name}\r\n" for name in chosen))


def write_label(name: str, rng: random.Random) -> str:
    # Most images of DIOR have a few objects, some have hundreds.
    objects = []
    for _ in range(1 + int(rng.expovariate(1 / (OBJECTS - 0.5)))):
        x1, y1 = rng.randrange(SIDE - 80), rng.randrange(SIDE - 80)
        x2, y2 = x1 + rng.randrange(4, 80), y1 + rng.randrange(4, 80)
        objects.append(OBJECT.format(cls=rng.choice(DIOR_CLASSES), x1=x1, y1=y1, x2=x2, y2=y2))
    return HEAD.format(name=name) + "".join(objects) + "</annotation>\n"


def measure(src: str, out: str) -> None:
    from ds2d2_yolo.data.convert import convert_dataset

    before = peak_mib()
    start, start_processor = time.perf_counter(), time.process_time()
    manifest = convert_dataset(src, out, on_error="skip").manifest
    found = {
        "images": manifest["images"]["in"],
        "objects": manifest["objects"]["in"],
        "seconds": time.perf_counter() - start,
        "processor": time.process_time() - start_processor,
        "peak": peak_mib(),
        "added": peak_mib() - before,
    }
    print(json.dumps(found))


def peak_mib() -> float:
    """Largest resident memory of this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


if __name__ == "__main__":
    main()
