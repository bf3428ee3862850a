"""Readers of the data sets' original formats, one file per format."""
