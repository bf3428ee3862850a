"""`ds2d2 help`: all modes at a glance."""

from __future__ import annotations

from collections.abc import Sequence

HELP = """
    ds2d2 MODE key=value ...

    Distil a large detector into a small one that stays a plain Ultralytics model.

    MODES
      train      teacher -> amplifier -> student; stages that are finished already are reused
                   ds2d2 train teacher=yolo11l.pt student=yolo11n.pt data=path/to/data.yaml epochs=100
      teacher    train the teacher alone
                   ds2d2 teacher teacher=yolo11l.yaml data=path/to/data.yaml
      amplifier  train the high-frequency amplifier of a teacher alone; one serves many students
                   ds2d2 amplifier teacher=path/to/best.pt data=path/to/data.yaml
      demo       all stages and a plain student on rendered scenes, compared in a table and pictures
      compare    a student trained plainly, with Ultralytics' distillation, with DS2D2: tables with intervals
                   ds2d2 compare teacher=yolo11l.pt student=yolo11n.yaml data=path/to/data.yaml seeds=0,1,2,3,4
      val        COCO-style AP of any model on any data set: all, small, medium, large, every class
                   ds2d2 val model=runs/detect/train/weights/best.pt data=path/to/data.yaml
      explain    what distillation compares, image by image: bands, weights, errors, predictions, as sheets and a page
                   ds2d2 explain source=path/to/data.yaml teacher=path/to/teacher.pt student=path/to/best.pt
      report     one page about a run or a comparison: pair, gains, curves, AP by class and size, what changed most
                   ds2d2 report runs/detect/train baseline=path/to/plain.pt
      convert    DIOR, DOTA, COCO JSON or VOC, as downloaded, into a data set to train on; DOTA is tiled
                   ds2d2 convert src=path/to/DIOR out=path/to/new
      check      what a data set holds, and whether training on it would fail or lose labels
                   ds2d2 check data=path/to/data.yaml
      merge      detections of tiles back into their images, in the submission format of DOTA
                   ds2d2 merge predictions=path/to/predictions.json data=path/to/converted out=path/to/new
      help       this text
      cfg        all arguments of training: ds2d2's own, then Ultralytics'; 'ds2d2 cfg convert': those of a mode
      version    versions of ds2d2-yolo and Ultralytics
      checks     whether the installed Ultralytics has what ds2d2-yolo relies on, in seconds

    ARGUMENTS OF TRAINING
      teacher=    .pt of these classes; .pt of others, which is fine-tuned first; or a model .yaml, trained first
      student=    model .yaml, or a pretrained .pt; model= means the same
      data=       data YAML: a path, one of ds2d2's (scenes.yaml) or of Ultralytics'
      amplifier=  auto (default), a .pt made for this teacher, or none
      cfg=        YAML file with arguments
      resume=     last.pt of an interrupted student's run
      ... and every train argument of Ultralytics: epochs=, imgsz=, batch=, device=, project=, name=, ...

    Docs: README.md and https://docs.ultralytics.com/usage/cfg
"""


def run(words: Sequence[str]) -> None:
    """Run the command with the words after its name."""
    print(HELP)
