"""The layouts in which data sets are published, recognised by looking into a folder.

Knows where files lie and how they begin; reading them is for `formats`.
"""

from ds2d2_yolo.data.layouts.layout import Layout
from ds2d2_yolo.data.layouts.recognise import LAYOUTS, recognise
from ds2d2_yolo.data.layouts.splits import SPLITS

__all__ = ["LAYOUTS", "SPLITS", "Layout", "recognise"]
