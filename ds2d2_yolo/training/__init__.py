"""Plans and runs the stages as Ultralytics trainers. Knows no table, no picture, no command line."""

from ds2d2_yolo.compatibility import refuse_old_release

refuse_old_release()  # before a module of this room imports what an old release lacks
