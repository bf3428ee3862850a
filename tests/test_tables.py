import pytest

from ds2d2_yolo.tables import text_table


def test_texts_are_left_and_numbers_right():
    rows = [["", "kind", "AP"], ["plain", "a", "7.0"], ["ds2d2 student", "longer", "12.5"]]
    assert text_table(rows, texts=2, indent="  ") == [
        "                 kind      AP",
        "  plain          a        7.0",
        "  ds2d2 student  longer  12.5",
    ]


def test_lines_end_without_spaces():
    assert text_table([["a", "b"], ["c", ""]], texts=2) == ["a  b", "c"]


def test_rows_of_different_lengths_are_refused():
    with pytest.raises(ValueError, match="zip"):
        text_table([["a", "b"], ["c"]])
