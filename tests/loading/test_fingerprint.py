"""The entries of a data YAML become image files."""

import pytest

from ds2d2_yolo.loading.fingerprint import images_of_split


@pytest.mark.parametrize("split", ["", [""], None])
def test_a_split_without_a_name_has_no_images(split):
    assert images_of_split(split) == []  # and the disk is not searched
