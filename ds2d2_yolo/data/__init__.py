"""Data sets: published layouts converted, large images tiled and their detections merged, YOLO labels checked.

Knows files and labels. It does not know models, and imports no other room.
"""
