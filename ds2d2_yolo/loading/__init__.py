"""Loading of models and data sets that the user names. All files are read here. Independent of training."""

from ds2d2_yolo.compatibility import refuse_old_release

refuse_old_release()  # before other modules of this room import names that an old release lacks
