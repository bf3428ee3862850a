"""What a teacher and its student compute in an image, as arrays; which images and models is worked out here, too.

Knows detectors, adapters and pairs; knows no picture, no page and no command line.
"""
