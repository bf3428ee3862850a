"""Data sets: converts published layouts, cuts large images into tiles and merges their detections, checks YOLO labels.

Knows files and labels. Does not know models, and imports no other room.
"""
