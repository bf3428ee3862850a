import pytest
from format_helpers import left_out, mutated, read_all
from hypothesis import given, settings
from hypothesis import strategies as st

from ds2d2_yolo.data.annotations import Account
from ds2d2_yolo.data.classes import DOTA_CLASSES
from ds2d2_yolo.data.formats.dota import DOTAReader
from ds2d2_yolo.data.formats.rules import Part
from ds2d2_yolo.errors import DS2D2Error

HEADER = "imagesource:GoogleEarth\r\ngsd:0.255589285596\r\n"
SHIP = "1054 1028 1063 1011 1111 1040 1112 1062 ship 1\r\n"
PLANE = "807.0 331.5 800.0 324.0 817.0 309.0 823.0 316.0 plane 0\r\n"


def add(root, name, labels=None, image=True, suffix=".png"):
    for folder in ("images", "labelTxt"):
        (root / folder).mkdir(exist_ok=True)
    if labels is not None:
        (root / "labelTxt" / f"{name}.txt").write_bytes(labels if isinstance(labels, bytes) else labels.encode())
    if image:
        (root / "images" / f"{name}{suffix}").touch()


def reader(root, account, version="1.0"):
    return DOTAReader({"train": [Part((root / "labelTxt",), (root / "images",))]}, account, root, version)


# ------------------------------------------------------------------------------------------------ what is read


def test_images_come_by_name_with_all_that_labels_state(tmp_path):
    add(tmp_path, "P2", HEADER + SHIP + PLANE)
    add(tmp_path, "P1", "")
    add(tmp_path, "P3", "imagesource:GF\ngsd:null\n" + PLANE.replace(" 0\r\n", "\n") + "\n", suffix=".JPG")
    account = Account()
    opened = reader(tmp_path, account)
    assert (opened.class_names, opened.splits()) == (DOTA_CLASSES, {"train": 3})
    empty, full, bare = read_all(opened, account)["train"]
    assert [image.name for image in (empty, full, bare)] == ["P1", "P2", "P3"]
    assert empty.objects == []
    assert empty.labelled
    ship, plane = full.objects
    assert (ship.name, ship.difficult, ship.line) == ("ship", 1, 3)
    assert ship.points == (1054, 1028, 1063, 1011, 1111, 1040, 1112, 1062)
    assert ship.box == (1054, 1011, 1112, 1062)
    assert (plane.points[1], plane.difficult, plane.line) == (331.5, 0, 4)
    assert full.labels == tmp_path / "labelTxt" / "P2.txt"
    assert full.size is None
    assert bare.image == tmp_path / "images" / "P3.JPG"
    assert [(item.name, item.difficult) for item in bare.objects] == [("plane", 0)]


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
def test_line_endings_and_a_byte_order_mark_make_no_difference(tmp_path, ending):
    add(tmp_path, "P1", ("\ufeff" + HEADER + SHIP + PLANE).replace("\r\n", ending))
    (image,) = read_all(reader(tmp_path, account := Account()), account)["train"]
    assert [item.line for item in image.objects] == [3, 4]


def test_an_unpublished_split_has_images_without_labels(tmp_path):
    add(tmp_path, "P1")
    account = Account()
    opened = DOTAReader({"test": [Part((), (tmp_path / "images",), "images")]}, account, tmp_path, "1.0")
    (image,) = read_all(opened, account)["test"]
    assert (image.labelled, image.objects, image.labels) == (False, [], image.image)


@pytest.mark.parametrize(("version", "added"), [("1.5", ("container-crane",)), ("2.0", ("airport", "helipad"))])
def test_later_versions_add_classes_at_the_end(tmp_path, version, added):
    add(tmp_path, "P1", "".join(SHIP.replace("ship", name) for name in added))
    opened = reader(tmp_path, account := Account(), version)
    assert opened.class_names[:15] == DOTA_CLASSES
    assert opened.class_names[-len(added) :] == added
    assert [item.name for item in read_all(opened, account)["train"][0].objects] == list(added)


def test_files_that_are_neither_images_nor_labels_do_not_count(tmp_path):
    add(tmp_path, "P1", SHIP)
    for name in ("images/Thumbs.db", "images/._P1.png", "labelTxt/._P1.txt", "labelTxt/readme.md"):
        (tmp_path / name).write_bytes(b"\0\xff")
    assert len(read_all(reader(tmp_path, account := Account()), account)["train"]) == 1
    assert account.entered["image"] == 1


def test_empty_and_outside_objects_are_left_to_the_writer(tmp_path):
    add(tmp_path, "P1", "5 5 5 5 5 5 5 5 ship 0\n-9 -9 -5 -9 -5 -5 -9 -5 ship 0\n")
    assert len(read_all(reader(tmp_path, account := Account()), account)["train"][0].objects) == 2


# ---------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("1 2 3 4 5 6 7 8", "expected 8 numbers, the class and the difficulty, found 8 fields"),
        ("1 2 3 4 5 6 7 8 ship 0 0", "expected 8 numbers, the class and the difficulty, found 11 fields"),
        ("1 2 3 4 5 6 7 ship 0", "a coordinate: expected a finite number"),
        ("1 2 3 4 5 6 nan 8 ship 0", "a coordinate: expected a finite number"),
        ("1 2 3 4 5 6 -inf 8 ship 0", "a coordinate: expected a finite number"),
        ("1 2 3 4 5 6 7,5 8 ship 0", "a coordinate: expected a finite number"),
        ("1 2 3 4 5 6 7 8 ship x", "difficulty: expected a whole number"),
        ("1 2 3 4 5 6 7 8 ship -1", "difficulty: expected a whole number"),
        ("1 2 3 4 5 6 7 8 Ship 0", "unknown class 'Ship'"),
        ("1 2 3 4 5 6 7 8 helipad 0", "unknown class 'helipad', which v1.0 lacks and v2.0 has"),
        (
            "1 2 3 4 5 6 7 8 container-crane 0",
            "unknown class 'container-crane', which v1.0 lacks and v1.5 and v2.0 have",
        ),
        ("gsd:0.1", "expected 8 numbers, the class and the difficulty, found 1 fields"),
    ],
)
def test_a_line_that_cannot_be_read_stops_or_is_listed(tmp_path, line, complaint):
    add(tmp_path, "P1", HEADER + SHIP + line + "\r\n" + PLANE)
    with pytest.raises(DS2D2Error, match=f"^labelTxt/P1.txt:4: {complaint};.*on_error=skip"):
        list(reader(tmp_path, Account()).read("train"))
    account = Account("skip")
    (image,) = read_all(reader(tmp_path, account), account)["train"]
    assert [item.line for item in image.objects] == [3, 5]
    assert left_out(account) == [f"object labelTxt/P1.txt:4 {complaint}"]


def test_files_that_cannot_be_used_stop_or_are_listed(tmp_path):
    add(tmp_path, "P1")
    add(tmp_path, "P2", SHIP + PLANE + "rubbish\n", image=False)
    add(tmp_path, "P3", (SHIP + PLANE).encode() + b"caf\xe9")
    add(tmp_path, "P4", SHIP)
    add(tmp_path, "P4", suffix=".tif")
    add(tmp_path, "P5", SHIP)
    add(tmp_path, "P6", image=False)
    account = Account("skip")
    assert [image.name for image in read_all(reader(tmp_path, account), account)["train"]] == ["P5"]
    assert left_out(account) == [
        "image labelTxt/P1.txt image without labels",
        "image labelTxt/P2.txt labels without image",
        "object labelTxt/P2.txt:3 expected 8 numbers, the class and the difficulty, found 1 fields",
        "object labelTxt/P2.txt labels without image x2",
        "image labelTxt/P3.txt:3 not UTF-8, save it as UTF-8, such as with 'iconv -f GBK -t UTF-8' where it is GBK",
        "image images/P4.png several images of this name",
    ]
    with pytest.raises(DS2D2Error, match=r"^labelTxt/P1\.txt: image without labels"):
        list(reader(tmp_path, Account()).read("train"))


def test_folders_that_do_not_exist_stop_at_once(tmp_path):
    part = Part((tmp_path / "missing",), (tmp_path / "images",))
    with pytest.raises(DS2D2Error, match="missing: this folder cannot be read"):
        DOTAReader({"train": [part]}, Account("skip"), tmp_path, "1.0")


# -------------------------------------------------------------------------------------------------------- fuzz


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzzed")


@settings(max_examples=100)
@given(labels=st.one_of(st.binary(max_size=200), mutated((HEADER + SHIP + PLANE + SHIP).encode())))
def test_whatever_the_file_holds_is_read_or_listed(fuzzed, labels):
    add(fuzzed, "P1", labels)
    account = Account("skip")
    read_all(reader(fuzzed, account), account)
    if account.left_out:
        with pytest.raises(DS2D2Error, match=r"^labelTxt/P1\.txt"):
            list(reader(fuzzed, Account()).read("train"))
    else:
        list(reader(fuzzed, Account()).read("train"))
