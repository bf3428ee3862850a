"""Recognises the layout of a published data set from the files in its folder.

Looks at paths and first lines of files. `formats` reads them.
"""

from ds2d2_yolo.data.layouts.layout import Layout
from ds2d2_yolo.data.layouts.recognise import recognise
from ds2d2_yolo.data.layouts.splits import SPLITS

__all__ = ["SPLITS", "Layout", "recognise"]
