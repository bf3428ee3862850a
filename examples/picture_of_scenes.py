"""Draw rendered scenes with their labels: one of each kind, boxes coloured by class.

Example: python examples/picture_of_scenes.py docs/scenes.png
"""

from __future__ import annotations

import argparse
from pathlib import Path

from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.patches import Polygon

from ds2d2_yolo.scenes import CLASS_NAMES, SCENE_KINDS, render_scene

COLUMNS = 4


def main() -> None:
    """Render the scenes and save the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path, help="PNG to write")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--size", type=int, default=320, help="pixels along a side")
    options = parser.parse_args()

    rows = -(-len(SCENE_KINDS) // COLUMNS)
    figure = Figure(figsize=(COLUMNS * 2.6, rows * 2.9), layout="constrained")
    colours = colormaps["tab10"].colors  # type: ignore[attr-defined]
    for axes in figure.subplots(rows, COLUMNS, squeeze=False).flat:
        axes.set_axis_off()
    for axes, kind in zip(figure.axes, SCENE_KINDS, strict=False):
        image, objects = render_scene(options.seed, "val", 0, options.size, kind)
        axes.imshow(image[..., ::-1])
        axes.set_title(f"{kind}: {len(objects)} objects", fontsize=9)
        for item in objects:
            colour = colours[item.class_index % len(colours)]
            axes.add_patch(Polygon(item.corners, fill=False, edgecolor=colour, linewidth=0.8))
    handles = [
        Polygon([(0, 0)], facecolor=colours[index % len(colours)], label=name) for index, name in enumerate(CLASS_NAMES)
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=5, fontsize=8, frameon=False)
    figure.savefig(options.path, dpi=100)


if __name__ == "__main__":
    main()
