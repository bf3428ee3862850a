"""Plans and runs the stages as Ultralytics trainers. Independent of tables, pictures and the command line."""

from ds2d2_yolo.compatibility import refuse_old_release

refuse_old_release()  # before other modules of this room import names that an old release lacks
