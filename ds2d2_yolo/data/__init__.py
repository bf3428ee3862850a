"""Data sets: their formats read, converted, cut into tiles, merged and checked. Knows no model and no other room."""
