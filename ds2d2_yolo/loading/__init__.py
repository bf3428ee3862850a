"""What the user named becomes a model or a data set: one door for every file. Knows no training."""

from ds2d2_yolo.compatibility import refuse_old_release

refuse_old_release()  # before a module of this room imports what an old release lacks
