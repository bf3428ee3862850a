"""Train one teacher and one amplifier, distil two students: python examples/one_teacher_two_students.py data.yaml.

An amplifier belongs to a teacher, not to a student. It is trained once, for students of any size and of any YOLO family
whose maps have the same strides.
"""

import sys
from pathlib import Path

from ds2d2_yolo import DS2D2Trainer, plan

STUDENTS = ("yolo11n.yaml", "yolov8n.yaml")


def main(data: str, teacher: str = "yolo11l.yaml", **arguments: object) -> dict[str, Path]:
    """Return the checkpoints of the students by name."""
    common = {"data": data, "epochs": 100, **arguments}
    guides = plan({"teacher": teacher, **common}, "amplifier").run().arguments  # existing ones are reused
    students = {}
    for model in STUDENTS:
        pair = {"teacher": guides.teacher, "amplifier": guides.amplifier, "student": model}
        trainer = DS2D2Trainer(overrides={**common, **pair, "name": Path(model).stem})
        trainer.train()
        students[Path(model).stem] = trainer.best
    for name, path in students.items():
        print(f"{name}: {path}")
    return students


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "scenes.yaml")
