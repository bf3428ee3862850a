"""Distil Faster R-CNN as published: python examples/faster_rcnn_as_published.py path/to/DIOR.yaml.

The recipe has the authors' pair (ResNet-101 teaches ResNet-18), gains of the four terms, sums over regions, weight and
schedule. Any argument overrides it. ResNets start from ImageNet weights, which are downloaded once.

On the command line: `ds2d2 train cfg=fasterrcnn_r101_r18_dior.yaml`.
"""

import sys

from ds2d2_yolo import DS2D2Trainer
from ds2d2_yolo.commands.words import parse_arguments

RECIPE = "fasterrcnn_r101_r18_dior.yaml"


def main(data: str, **arguments: object) -> DS2D2Trainer:
    """Train the teacher, its amplifier and the student."""
    recipe = parse_arguments([f"cfg={RECIPE}"])
    trainer = DS2D2Trainer(overrides={**recipe, "data": data, **arguments})
    trainer.train()
    print(f"student: {trainer.best}")
    return trainer


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "DIOR.yaml")
