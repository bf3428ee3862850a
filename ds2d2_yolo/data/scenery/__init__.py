"""How the scenes of the embedded data set are drawn; `ds2d2_yolo.data.scenes` is the way in."""
