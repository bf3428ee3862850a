import pytest
from format_helpers import left_out, mutated, read_all
from hypothesis import given, settings
from hypothesis import strategies as st

from ds2d2_yolo.data.annotations import Account
from ds2d2_yolo.data.classes import DIOR_CLASSES
from ds2d2_yolo.data.formats.rules import Part
from ds2d2_yolo.data.formats.voc import VOCReader
from ds2d2_yolo.errors import DS2D2Error

CORNERS = [f"{axis}_{place}" for place in ("left_top", "right_top", "right_bottom", "left_bottom") for axis in "xy"]


def box(*values, name="ship", more=""):
    keys = ("xmin", "ymin", "xmax", "ymax")
    return element(name, "bndbox", keys, values, more)


def corners(*values, name="ship", more="<difficult>0</difficult>"):
    return element(name, "robndbox", CORNERS, values, more)


def element(name, tag, keys, values, more=""):
    numbers = "".join(f"\t\t\t<{key}>{value}</{key}>\r\n" for key, value in zip(keys, values, strict=True))
    return f"\t<object>\r\n\t\t<name>{name}</name>{more}\r\n\t\t<{tag}>\r\n{numbers}\t\t</{tag}>\r\n\t</object>\r\n"


def xml(*objects, size="<size><width>800</width><height>600</height><depth>3</depth></size>"):
    return f"<annotation>\r\n\t<filename>x.jpg</filename>\r\n\t{size}\r\n{''.join(objects)}</annotation>\r\n".encode()


class Folder:
    """A data set on disk."""

    def __init__(self, root):
        self.root = root
        self.lists = root / "ImageSets" / "Main"
        for folder in (self.lists, root / "Annotations", root / "JPEGImages-trainval", root / "JPEGImages-test"):
            folder.mkdir(parents=True)

    def add(self, name, labels=None, image="JPEGImages-trainval", suffix=".jpg"):
        if labels is not None:
            (self.root / "Annotations" / f"{name}.xml").write_bytes(labels)
        if image is not None:
            (self.root / image / f"{name}{suffix}").touch()
        return self

    def list(self, split, *lines):
        (self.lists / f"{split}.txt").write_bytes(b"".join(line.encode() + b"\r\n" for line in lines))
        return self

    def reader(self, account, splits=None, class_names=DIOR_CLASSES, oriented=False, first_pixel=0):
        images = (self.root / "JPEGImages-trainval", self.root / "JPEGImages-test")
        annotations = (self.root / "Annotations",)
        sources = {
            split: [Part(annotations, images, self.lists / f"{name}.txt") for name in names]
            or [Part(annotations, images, "labels")]
            for split, names in (splits or {"train": ["train"]}).items()
        }
        return VOCReader(sources, account, self.root, class_names, oriented, first_pixel=first_pixel)


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path)


# ------------------------------------------------------------------------------------------------ what is read


def test_images_come_in_list_order_with_all_that_labels_state(folder):
    folder.add("00002", xml(box(1, 2, 30, 40, name="dam"), box(5, 6, 7, 8))).add("00001", xml())
    folder.add("00003", xml(box(0.5, 1, 2.25, "3e1")), "JPEGImages-test", ".PNG")
    folder.list("train", "00002", "00001", "").list("test", "00003")
    account = Account()
    reader = folder.reader(account, {"train": ["train"], "val": ["test"]})
    assert reader.splits() == {"train": 2, "val": 1}
    assert reader.class_names == DIOR_CLASSES
    images = read_all(reader, account)
    first, second = images["train"]
    assert (first.name, first.size, first.labelled) == ("00002", (800, 600), True)
    assert first.image == folder.root / "JPEGImages-trainval" / "00002.jpg"
    assert first.labels == folder.root / "Annotations" / "00002.xml"
    assert [(item.name, item.points, item.line) for item in first.objects] == [
        ("dam", (1, 2, 30, 40), 4),
        ("ship", (5, 6, 7, 8), 13),
    ]
    assert (second.name, second.objects) == ("00001", [])
    assert images["val"][0].image == folder.root / "JPEGImages-test" / "00003.PNG"
    assert images["val"][0].objects[0].points == (0.5, 1, 2.25, 30)
    assert account.entered == {"image": 3, "object": 3}


def test_a_split_is_joined_from_several_lists(folder):
    for name in ("a", "b", "c"):
        folder.add(name, xml())
    folder.list("train", "c").list("val", "a", "b")
    images = read_all(folder.reader(account := Account(), {"train": ["train", "val"]}), account)
    assert [image.name for image in images["train"]] == ["c", "a", "b"]


def test_without_lists_all_annotations_are_a_split(folder):
    for name in ("b", "a.v2", "c"):
        folder.add(name, xml())
    images = read_all(folder.reader(account := Account(), {"train": []}), account)
    assert [image.name for image in images["train"]] == ["a.v2", "b", "c"]


def test_corners_keep_the_source_order_and_may_pass_the_edge(folder):
    folder.add("a", xml(corners(-55, 484, 280, -96, 723, 160, 388, 740))).list("train", "a")
    (image,) = read_all(folder.reader(account := Account(), oriented=True), account)["train"]
    assert image.objects[0].points == (-55, 484, 280, -96, 723, 160, 388, 740)


def test_plain_voc_counts_pixels_from_one(folder):
    folder.add("a", xml(box(1, 1, 800, 600, name="cat", more="<difficult>1</difficult>"))).list("train", "a")
    (image,) = read_all(folder.reader(account := Account(), None, None, False, 1), account)["train"]
    assert image.objects[0].points == (0, 0, 799, 599)
    assert image.objects[0].difficult == 1


def test_lines_are_unknown_where_a_comment_has_an_object(folder):
    folder.add("a", xml("<!-- <object> -->", box(1, 2, 3, 4))).list("train", "a")
    assert read_all(folder.reader(account := Account()), account)["train"][0].objects[0].line is None


def test_boxes_of_parts_do_not_count(folder):
    part = "<part><name>head</name><bndbox><xmin>9</xmin></bndbox></part>"
    folder.add("a", xml(box(1, 2, 3, 4, name="person", more=part))).list("train", "a")
    reader = folder.reader(account := Account(), class_names=None)
    assert reader.class_names == ("person",)
    assert read_all(reader, account)["train"][0].objects[0].points == (1, 2, 3, 4)


def test_classes_are_collected_and_sorted_where_none_are_given(folder):
    folder.add("a", xml(box(1, 2, 3, 4, name="tree"))).add("b", xml(box(1, 2, 3, 4, name="car"))).add("c", b"<broken")
    folder.add("d", xml(box(1, 2, 3, 4, name="unlisted"))).list("train", "a", "c").list("val", "b")
    reader = folder.reader(account := Account("skip"), {"train": ["train"], "val": ["val"]}, None)
    assert reader.class_names == ("car", "tree")
    assert [image.name for image in read_all(reader, account)["train"]] == ["a"]


def test_empty_and_outside_boxes_are_left_to_the_writer(folder):
    objects = [box(528, 485, 529, 485), box(9, 9, 5, 5), box(900, 900, 950, 950)]
    folder.add("a", xml(*objects)).list("train", "a")
    assert len(read_all(folder.reader(account := Account()), account)["train"][0].objects) == 3


@pytest.mark.parametrize(
    "size",
    [
        "",
        "<size><width>0</width><height>0</height><depth>0</depth></size>",
        "<size><width>wide</width><height>1</height></size>",
        "<size><width>1</width></size>",
    ],
)
def test_a_size_that_is_not_stated_is_unknown(folder, size):
    folder.add("a", xml(size=size)).list("train", "a")
    assert read_all(folder.reader(account := Account()), account)["train"][0].size is None


def test_what_no_list_names_is_listed(folder):
    folder.add("a", xml()).add("b", xml()).add("c", None).add("d", xml(), None).add("._a", b"junk").list("train", "a")
    (folder.root / "JPEGImages-trainval" / "Thumbs.db").touch()
    account = Account()
    read_all(folder.reader(account), account)
    assert left_out(account) == [
        "image Annotations/b.xml in no split",
        "image Annotations/d.xml in no split",
        "image JPEGImages-trainval/c.jpg in no split",
    ]


# ---------------------------------------------------------------------------------------------- what is refused

LAUGHS = b"""<?xml version="1.0"?>
<!DOCTYPE annotation [<!ENTITY a "aaaaaaaaaa">%s]>
<annotation><filename>&i;</filename></annotation>""" % b"".join(
    b'<!ENTITY %c "%s">' % (letter, b"&%c;" % (letter - 1) * 10) for letter in range(ord("b"), ord("j"))
)


@pytest.mark.parametrize(
    ("labels", "complaint"),
    [
        (b"", "broken XML, no element found"),
        (xml(box(1, 2, 3, 4))[:-30], "broken XML"),
        (b"<annotation>\n<object>\n</annotation>", "broken XML, mismatched tag"),
        (b"<html>404</html>", "expected the element annotation, found 'html'"),
        (LAUGHS, "XML with a document type"),
        (LAUGHS.decode().encode("utf-16-le"), "not UTF-8"),
        (LAUGHS.decode().encode("utf-16"), "XML with a document type"),
        (xml().decode().encode("utf-16-be"), "not UTF-8"),
        (b'<?xml version="1.0" encoding="utf-7"?>\n+ADwAIQ-DOCTYPE a>', "XML with a document type"),
        (b"<annotation>\n<filename>caf\xe9</filename></annotation>", "not UTF-8"),
        (b'<?xml version="1.0" encoding="gbk"?>\n<annotation>\xff</annotation>', "not gbk"),
        (b'<?xml version="1.0" encoding="none"?>\n<annotation>\xff</annotation>', "unknown encoding 'none'"),
    ],
)
def test_a_file_that_cannot_be_read_stops_or_is_listed(folder, labels, complaint):
    folder.add("a", labels).add("b", xml(box(1, 2, 3, 4))).list("train", "a", "b")
    with pytest.raises(DS2D2Error, match=rf"^Annotations/a\.xml(:\d+)?: {complaint}.*on_error=skip"):
        list(folder.reader(Account()).read("train"))
    account = Account("skip")
    images = read_all(folder.reader(account), account)
    assert [image.name for image in images["train"]] == ["b"]
    assert len(account.left_out) == 1
    assert complaint in account.left_out[0]["reason"]


@pytest.mark.parametrize(
    ("labels", "line"),
    [
        (LAUGHS, 2),
        (b"<annotation>\n<object>\n</annotation>", 3),
        (b"<annotation>\n<filename>caf\xe9</filename></annotation>", 2),
    ],
)
def test_the_line_is_named_where_the_file_breaks(folder, labels, line):
    folder.add("a", labels).list("train", "a")
    with pytest.raises(DS2D2Error, match=f"^Annotations/a.xml:{line}: "):
        list(folder.reader(Account()).read("train"))


@pytest.mark.parametrize(
    ("item", "complaint"),
    [
        (box(1, 2, 3, "nan"), "ymax: expected a finite number"),
        (box(1, 2, "1e999", 4), "xmax: expected a finite number"),
        (box(1, 2, "1_0", 4), "xmax: expected a finite number"),
        (box("", 2, 3, 4), "xmin: expected a finite number"),
        (box(1, 2, 3, 4).replace("ymin", "y"), "ymin: expected a finite number"),
        (box(1, 2, 3, 4, name="boat"), "unknown class 'boat'"),
        (box(1, 2, 3, 4, name=" "), "unknown class ''"),
        (box(1, 2, 3, 4, name="x" * 99), "unknown class 'xxxxx"),
        (box(1, 2, 3, 4, more="<difficult>yes</difficult>"), "difficult: expected a whole number"),
        (box(1, 2, 3, 4).replace("bndbox", "circle"), "object without bndbox"),
        ("<object/>", "unknown class ''"),
    ],
)
def test_an_object_that_cannot_be_read_stops_or_is_listed(folder, item, complaint):
    folder.add("a", xml(box(1, 2, 3, 4), item, box(5, 6, 7, 8))).list("train", "a")
    with pytest.raises(DS2D2Error, match=f"^Annotations/a.xml:13: {complaint}.*on_error=skip"):
        list(folder.reader(Account()).read("train"))
    account = Account("skip")
    (image,) = read_all(folder.reader(account), account)["train"]
    assert [found.line for found in image.objects] == [4, 13 + item.count("\n")]
    assert left_out(account)[0].startswith(f"object Annotations/a.xml:13 {complaint}")


def test_images_or_labels_without_partner_stop_or_are_listed(folder):
    folder.add("a", None).add("b", xml(box(1, 2, 3, 4), box(1, 2, 3, 4)), None).add("d", xml())
    folder.add("d", None, "JPEGImages-test", ".png").add("e", xml()).list("train", "a", "b", "c", "d", "e")
    (folder.root / "Annotations" / "f.xml").mkdir()
    account = Account("skip")
    images = read_all(folder.reader(account), account)
    assert [image.name for image in images["train"]] == ["e"]
    assert left_out(account) == [
        "image Annotations/a.xml image without labels",
        "image Annotations/b.xml labels without image",
        "object Annotations/b.xml labels without image x2",
        "image Annotations/c.xml a list names it, but it has neither image nor labels",
        "image JPEGImages-trainval/d.jpg several images of this name",
    ]
    for name, complaint in (("a", "image without labels"), ("b", "labels without image")):
        folder.list("train", name)
        with pytest.raises(DS2D2Error, match=f"^Annotations/{name}.xml: {complaint}"):
            list(folder.reader(Account()).read("train"))


def test_names_that_a_list_should_not_hold_stop_or_are_listed(folder):
    folder.add("a", xml()).list("train", "a", "a.jpg", "..", "sub/")
    with (folder.lists / "train.txt").open("ab") as file:
        file.write(b"caf\xe9\n\0\n")
    with pytest.raises(DS2D2Error, match=r"^ImageSets/Main/train\.txt:2: a name for the second time in its split"):
        folder.reader(Account())
    account = Account("skip")
    assert [image.name for image in read_all(folder.reader(account), account)["train"]] == ["a"]
    assert left_out(account) == [
        "image ImageSets/Main/train.txt:2 a name for the second time in its split",
        "image ImageSets/Main/train.txt:3 expected the name of an image",
        "image ImageSets/Main/train.txt:4 expected the name of an image",
        "image ImageSets/Main/train.txt:5 a name that is not UTF-8",
        "image ImageSets/Main/train.txt:6 expected the name of an image",
    ]


def test_a_list_or_folder_that_is_missing_stops_at_once(folder):
    with pytest.raises(DS2D2Error, match=r"train\.txt: this list cannot be read"):
        folder.reader(Account("skip"))
    folder.list("train")
    (folder.root / "JPEGImages-test").rmdir()
    with pytest.raises(DS2D2Error, match="JPEGImages-test: this folder cannot be read"):
        folder.reader(Account("skip"))


# -------------------------------------------------------------------------------------------------------- fuzz

VALID = [
    xml(box(1, 2, 3, 4), box(5.5, 6, 7, 8, name="dam", more="<difficult>1</difficult>")),
    xml(corners(1, 2, 3, 4, 5, 6, 7, 8), corners(-1, 2, 3, 4, 5, 6, 7, 8)),
]


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory):
    return Folder(tmp_path_factory.mktemp("fuzzed")).add("b", xml(box(1, 2, 3, 4)))


@settings(max_examples=100)
@given(labels=st.one_of(st.binary(max_size=200), mutated(VALID)), oriented=st.booleans())
def test_whatever_a_label_file_holds_is_read_or_listed(fuzzed, labels, oriented):
    fuzzed.add("a", labels).list("train", "a")
    for class_names in (DIOR_CLASSES, None):
        account = Account("skip")
        read_all(fuzzed.reader(account, None, class_names, oriented), account)
        assert left_out(account).pop(0) == "image Annotations/b.xml in no split"
        if len(account.left_out) > 1:
            with pytest.raises(DS2D2Error, match=r"^Annotations/a\.xml"):
                list(fuzzed.reader(Account(), None, class_names, oriented).read("train"))
        else:
            list(fuzzed.reader(Account(), None, class_names, oriented).read("train"))


@settings(max_examples=60)
@given(names=st.one_of(st.binary(max_size=40), mutated(b"a\r\nb\r\n")))
def test_whatever_a_list_holds_is_read_or_listed(fuzzed, names):
    fuzzed.add("a", VALID[0]).list("train")
    (fuzzed.lists / "train.txt").write_bytes(names)
    account = Account("skip")
    read_all(fuzzed.reader(account), account)
