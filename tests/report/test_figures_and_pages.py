"""The tools for pictures and pages."""

import io
import warnings
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import LogNorm
from matplotlib.font_manager import FontProperties, findfont, fontManager
from matplotlib.ft2font import FT2Font
from matplotlib.text import Text
from PIL import Image

from ds2d2_yolo.explanation.images import InputImage
from ds2d2_yolo.report.charts import draw_changes, draw_curves
from ds2d2_yolo.report.detections import draw_outcomes
from ds2d2_yolo.report.figures import Canvas, plain_figure, png_of, scale_of, show_image, show_map
from ds2d2_yolo.report.fonts import families_for
from ds2d2_yolo.report.page import (
    Folded,
    Grid,
    Heading,
    Paragraph,
    Picture,
    Section,
    Table,
    facts,
    render_page,
)
from ds2d2_yolo.report.palette import CARD, DIFFERENCE, ENERGY, ERROR, FAINT, INK, WEIGHT


def luminance(colour):
    values = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in values]
    return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))


@pytest.mark.parametrize(("colour", "least"), [(INK, 7), (FAINT, 4.5)])
def test_text_can_be_read_on_the_card(colour, least):
    assert (luminance(CARD) + 0.05) / (luminance(colour) + 0.05) >= least


@pytest.mark.parametrize("quantity", [ENERGY, ERROR, WEIGHT, DIFFERENCE])
@pytest.mark.parametrize("values", [np.zeros((3, 3)), np.full((3, 3), 2.0), np.arange(9.0).reshape(3, 3)])
def test_every_quantity_has_a_scale_whatever_the_values(quantity, values):
    scale = scale_of(quantity, [values, values / 2])
    assert scale.vmin < scale.vmax
    shown = np.ma.filled(scale(np.ma.masked_less_equal(values, 0)), 0.0)
    assert np.isfinite(shown).all()
    assert (shown <= 1.000001).all()
    canvas = Canvas(3, 2)
    show_map(canvas.axes(0.1, 0.3, 1.2, 1.2), values, quantity, scale, (0, 9, 9, 0), (9, 9), over=True)
    canvas.bar(1.5, 0.3, 1.2, quantity, scale)
    assert canvas.png().startswith(b"\x89PNG")


@pytest.mark.parametrize("oriented", [False, True])
def test_false_alarms_show_class_and_confidence(oriented):
    box, far = ([8.0, 8, 8, 4, 0.3], [30.0, 30, 4, 4, 0]) if oriented else ([4.0, 4, 12, 8], [30.0, 30, 34, 34])
    image = InputImage(Path("a.png"), np.zeros((40, 40, 3), np.uint8), np.array([box]), np.array([0]), labelled=True)
    found = [[*box, 0.9, 0], *([*far, 0.8 - i / 100, 1] for i in range(9))]
    axes = plain_figure(3, 3, dpi=80).subplots()
    draw_outcomes(axes, image, np.array(found), "student", ["ship", "harbor"])
    assert [text.get_text() for text in axes.texts] == [f"harbor 0.{80 - i}" for i in range(8)]


@pytest.mark.parametrize(("least", "most"), [(0.21, 0.63), (0.3, 3), (0.004, 9), (1, 10), (2, 4)])
def test_the_bar_of_a_weight_has_two_numbers_or_more(least, most):
    canvas = Canvas(3, 2)
    canvas.bar(1.5, 0.3, 1.2, WEIGHT, scale_of(WEIGHT, [np.array([least, most])]))
    canvas.png()
    (axes,) = canvas.figure.axes
    shown = [place for place in axes.get_yticks() if least * 0.999 <= place <= most * 1.001]
    assert len(shown) >= 2


def test_weights_are_shown_over_three_decades_at_most():
    scale = scale_of(WEIGHT, [np.array([1e-9, 1.0])])
    assert isinstance(scale, LogNorm)
    assert scale.vmin == pytest.approx(1e-3)


def test_axes_lie_where_they_were_put():
    canvas = Canvas(4, 3, dpi=50)
    axes = canvas.axes(1, 0.5, 2, 1)
    axes.set_facecolor("#ff0000")
    axes.set_axis_off()
    axes.patch.set_visible(True)
    axes.axison = True
    axes.set_xticks([])
    axes.set_yticks([])
    pixels = np.asarray(Image.open(io.BytesIO(canvas.png())).convert("RGB")).astype(int)
    assert pixels.shape == (150, 200, 3)
    red = (pixels == [255, 0, 0]).all(2)
    rows, columns = np.nonzero(red)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == pytest.approx((25, 74, 50, 149), abs=1)


def test_curves_with_gaps_of_one_epoch_and_of_zeros_are_drawn():
    for values in ([1.0], [float("nan"), 2.0], [0.0, 0.0], [float("nan")] * 2):
        canvas = draw_curves({"a": {"x": values, "y": values}}, range(1, len(values) + 1), logarithmic=("a",))
        assert canvas.png().startswith(b"\x89PNG")
        (axes,) = canvas.figure.axes
        assert axes.get_xlabel() == "epoch"
        assert all(tick == round(tick) for tick in axes.get_xticks())


@pytest.mark.parametrize("ends", [(1, 50, 99), (97, 98, 99, 100), (0, 1, 2, 99, 100)])
def test_names_at_the_ends_of_curves_do_not_overlap(ends):
    curves = {f"curve {number}": [0.0, end] for number, end in enumerate(ends)}
    canvas = draw_curves({"a": curves}, [1, 2])
    canvas.png()
    names = canvas.figure.axes[0].texts
    boxes = sorted(Text.get_window_extent(name).bounds[1::2] for name in names)  # without the lines to the curves
    assert all(low + height <= above for (low, height), (above, _) in pairwise(boxes))


def test_changes_are_sorted_with_the_best_on_top():
    (axes,) = draw_changes({"a": -1.0, "b": 3.0, "c": float("nan"), "d": 0.5}, {"b": "7"}).figure.axes
    assert [text.get_text() for text in axes.get_yticklabels()] == ["b (7)", "d", "a"]
    assert axes.get_xlabel() == "change of AP, percentage points"
    assert draw_changes({}).png().startswith(b"\x89PNG")


@pytest.mark.parametrize("grey", [False, True])
def test_a_figure_keeps_images_at_the_size_of_their_panels(grey):
    axes = Canvas(4, 3, dpi=100).axes(0.5, 0.5, 2, 1.5)
    show_image(axes, np.zeros((1500, 3000, 3), np.uint8), grey=grey)
    (shown,) = axes.images
    assert shown.get_array().shape[:2] == (200, 400)  # twice those of the panel, for the whole width
    assert shown.get_extent() == [-0.5, 2999.5, 1499.5, -0.5]
    assert (axes.get_xlim(), axes.get_ylim()) == ((-0.5, 2999.5), (1499.5, -0.5))
    small = Canvas(4, 3).axes(0.5, 0.5, 2, 1.5)
    show_image(small, np.zeros((150, 300, 3), np.uint8), grey=grey)
    assert small.images[0].get_array().shape[:2] == (150, 300)


@pytest.mark.parametrize("name", ["a$b_$c.png", "cost $5 and $6", "x$\\foo$", "three $"])
def test_dollars_are_drawn_as_they_are(name):
    canvas = draw_curves({name: {name: [1.0, 2.0]}}, [1, 2])
    canvas.text(0.1, 0.1, name)
    assert canvas.png().startswith(b"\x89PNG")
    figure = plain_figure(3, 2, 100)
    figure.subplots().set_yticks([0, 1], [name, "y"])
    assert png_of(figure) != png_of(plain_figure(3, 2, 100))


def test_signs_that_the_standard_font_lacks_come_from_others(caplog):
    families = families_for("\N{LATIN SMALL LETTER D WITH PALATAL HOOK}")
    paths = [findfont(FontProperties(family=[family])) for family in families]
    assert [bool(FT2Font(path).get_char_index(0x1D81)) for path in paths] == [False, True]
    assert families_for("ship, a$ \n") == families[:1]
    assert not caplog.records


def test_signs_of_no_font_are_reported_once(caplog, monkeypatch):
    monkeypatch.setattr("ds2d2_yolo.report.fonts._warned", [])
    standard = [entry for entry in fontManager.ttflist if entry.name == "DejaVu Sans"]
    monkeypatch.setattr(fontManager, "ttflist", standard)
    canvas = Canvas(3, 2)
    canvas.text(0.1, 0.1, "\N{LATIN SMALL LETTER F WITH PALATAL HOOK}\N{LATIN SMALL LETTER K WITH PALATAL HOOK}")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(2):
            assert canvas.png().startswith(b"\x89PNG")
    (record,) = caplog.records
    assert "no installed font has \u1d82\u1d84, so pictures show boxes" in record.message


def test_pages_escape_texts_from_outside():
    evil = "<script>alert('&')</script>"
    picture = Picture(b"\x89PNG", '">', evil)
    parts = [Heading(evil), Paragraph(evil), Table([evil], [[evil]]), facts({evil: evil}), picture, Grid([picture])]
    text = render_page(evil, evil, [Section(evil, [*parts, Folded(evil, parts)]), Section("empty", [])])
    assert "<script" not in text
    assert text.count("&lt;script&gt;") == 6 + 2 * 8
    assert ">empty<" not in text
    assert text.count('alt="&#34;&gt;"') == 4
    assert "data:image/jpeg;base64" in Picture(b"\xff\xd8\xff", "photo").source


def test_signs_of_templates_in_names_are_text():
    name = "{{ x }} $x {% y %}"
    page = render_page(name, "", [Section(name, [Paragraph(name)])])
    assert page.count(name) == 5
