"""What the user named becomes a model or a data set: one door for every file. Knows no training."""
