"""`ds2d2 help`: prints all modes."""

from __future__ import annotations

from collections.abc import Sequence

HELP = """
    ds2d2 MODE key=value ...

    Train a small YOLO with a large one as its teacher. The small one stays a plain Ultralytics model.

    MODES
      train      teacher -> amplifier -> student; finished stages are reused
                   ds2d2 train teacher=yolo11l.pt student=yolo11n.pt data=path/to/data.yaml epochs=100
      teacher    train only the teacher
                   ds2d2 teacher teacher=yolo11l.yaml data=path/to/data.yaml
      amplifier  train only the high-frequency amplifier of a teacher, for any number of students
                   ds2d2 amplifier teacher=path/to/best.pt data=path/to/data.yaml
      demo       all stages and a plain student on rendered scenes, compared in a table and pictures
      compare    one student without distillation, with Ultralytics' and with DS2D2: tables with intervals
                   ds2d2 compare teacher=yolo11l.pt student=yolo11n.yaml data=path/to/data.yaml seeds=0,1,2,3,4
      val        COCO-style AP of any model on any data set: all, small, medium, large, every class
                   ds2d2 val model=runs/detect/train/weights/best.pt data=path/to/data.yaml
      explain    what distillation compares in each image: bands, weights, errors and predictions
                   ds2d2 explain source=path/to/data.yaml teacher=path/to/teacher.pt student=path/to/best.pt
      report     one page about a run or a comparison: gains, curves, AP by class and size, images that changed most
                   ds2d2 report runs/detect/train baseline=path/to/plain.pt
      convert    make a data set to train on from DIOR, DOTA, COCO JSON or VOC; images of DOTA are cut into tiles
                   ds2d2 convert src=path/to/DIOR out=path/to/new
      check      the contents of a data set, and whether training on it would fail or lose labels
                   ds2d2 check data=path/to/data.yaml
      merge      merge detections of tiles into their source images, in the submission format of DOTA
                   ds2d2 merge predictions=path/to/predictions.json data=path/to/converted out=path/to/new
      help       this text
      cfg        all arguments of training, with their defaults; 'ds2d2 cfg convert' prints those of a mode
      version    versions of ds2d2-yolo and Ultralytics
      checks     whether the installed Ultralytics works with ds2d2-yolo; takes seconds

    ARGUMENTS OF TRAINING
      teacher=           .pt with the same classes, .pt with others (fine-tuned first), or model .yaml (trained first)
      student=           model .yaml, or a pretrained .pt; model= means the same
      data=              data YAML: a path, or the name of one of ds2d2's (scenes.yaml) or Ultralytics'
      amplifier=         auto (default), a .pt made for this teacher, or none
      teacher_epochs=    epochs of the teacher, if it is trained; as many as the student by default
      amplifier_epochs=  epochs of the amplifier; a third of the student's by default
      preset=            balanced or fast: less time; self-training: labels of the teacher alone; paper: as published
      unlabeled=         more images, without labels: the teacher labels them
      teacher_imgsz=     image size of the teacher, a multiple of imgsz
      cfg=               YAML file with arguments
      resume=            last.pt of an interrupted student's run
      ... and every train argument of Ultralytics: epochs=, imgsz=, batch=, device=, project=, name=, ...

    Docs: README.md and https://docs.ultralytics.com/usage/cfg
"""


def run(words: Sequence[str]) -> None:
    """Run the command with the words after its name."""
    print(HELP)
