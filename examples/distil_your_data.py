"""Distil a detector on your own data from Python: python examples/distil_your_data.py path/to/data.yaml.

The data YAML is a usual Ultralytics one. The first run trains the teacher and the amplifier. Later runs with the same
teacher and data reuse them, for any student.
"""

import sys

from ultralytics import YOLO

from ds2d2_yolo import DS2D2Trainer


def main(data: str, **arguments: object) -> None:
    """Train a student, then use it like any other YOLO."""
    trainer = DS2D2Trainer(
        overrides={"teacher": "yolo11l.yaml", "student": "yolo11n.yaml", "data": data, "epochs": 100, **arguments}
    )
    trainer.train()
    student = YOLO(trainer.best)
    metrics = student.val(data=data, imgsz=trainer.args.imgsz)
    print(f"AP50 {metrics.box.map50:.3f}, AP50-95 {metrics.box.map:.3f}: {trainer.best}")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "scenes.yaml")
