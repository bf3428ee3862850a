"""What a teacher and its student compute in an image, as arrays. Also finds the images and loads the models.

Uses detectors, adapters and pairs. Does not know pictures, pages or the command line.
"""
