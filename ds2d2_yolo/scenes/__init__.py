"""The renderer of the embedded data set: seeds in, images and labels out. Knows no model; importable alone."""
