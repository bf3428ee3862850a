"""Stages with damaged records, and with data that are away."""

import pytest

from ds2d2_yolo.errors import DS2D2Error
from ds2d2_yolo.training.stages import Stage


@pytest.fixture
def stage(tmp_path):
    overrides = {"data": str(tmp_path / "data.yaml"), "split": "val", "single_cls": False}
    stage = Stage("teacher", tmp_path / "teacher", {"data": "0"}, overrides)
    stage.folder.mkdir()
    return stage


@pytest.mark.parametrize("content", ["", "{", "[1]", "3", "null", "{}"])
def test_a_damaged_record_is_none(content, stage):
    (stage.folder / "stage.json").write_text(content)
    assert not stage.is_finished()
    assert stage.state == "to be trained"


def test_data_that_are_gone_are_one_line(stage):
    with pytest.raises(DS2D2Error, match=r"data\.yaml: no such file"):
        stage.ensure()
