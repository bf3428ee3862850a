"""Ultralytics' results.csv: values that are read, and lines that a resumed run keeps."""

import math

import pytest

from ds2d2_yolo.errors import DS2D2Error
from ds2d2_yolo.training.results import column_names, keep_epochs, read_columns, read_rows


@pytest.fixture
def table(tmp_path):
    """Three epochs, the third without a loss, and an incomplete fourth of a killed run."""
    path = tmp_path / "results.csv"
    path.write_text("epoch,  time,loss\n1, 0.5,3\n2,0.9,nan\n3,1.5,\n4,1.")
    return path


def test_rows_and_columns_are_the_same_numbers(table):
    assert column_names(table) == ["epoch", "time", "loss"]
    rows, columns = read_rows(table), read_columns(table)
    assert rows[0] == {"epoch": 1, "time": 0.5, "loss": 3}
    assert columns["epoch"] == [1, 2, 3]
    assert columns["time"] == [row["time"] for row in rows] == [0.5, 0.9, 1.5]
    assert [math.isnan(value) for value in columns["loss"]] == [False, True, True]


def test_a_row_cut_in_its_last_cell_does_not_count(table):
    table.write_text("epoch,time,loss\n1,0.5,3\n2,0.9,0.2")
    assert read_columns(table)["loss"] == [3]


def test_rows_of_epochs_that_are_trained_again_are_dropped(table, tmp_path):
    keep_epochs(table, 2)
    assert table.read_text() == "epoch,  time,loss\n1, 0.5,3\n2,0.9,nan\n"
    keep_epochs(tmp_path / "missing.csv", 2)
    assert [path.name for path in tmp_path.iterdir()] == ["results.csv"]


def test_without_epochs_there_is_nothing_to_read(tmp_path):
    path = tmp_path / "results.csv"
    assert column_names(path) == []
    for content in ("", "epoch,time\n", "epoch,time\n1"):
        path.write_text(content)
        assert read_rows(path) == []
        assert read_columns(path) == {}


@pytest.mark.parametrize("content", [None, "epoch,x\n1,many\n", b"epoch,\xff\n1,2\n"])
def test_a_damaged_table_is_reported_with_its_path(content, tmp_path):
    path = tmp_path / "results.csv"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DS2D2Error, match=r"results\.csv: cannot be read as a results table"):
        read_rows(path)
