"""Readers of the data sets' original formats, one file per format. The names are re-exported here."""

from ds2d2_yolo.data.formats.coco import COCOReader
from ds2d2_yolo.data.formats.dota import DOTAReader
from ds2d2_yolo.data.formats.geometry import NO_AREA, OUTSIDE, place
from ds2d2_yolo.data.formats.voc import VOCReader

__all__ = ["NO_AREA", "OUTSIDE", "COCOReader", "DOTAReader", "VOCReader", "place"]
