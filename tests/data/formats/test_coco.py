import copy
import json

import pytest
from format_helpers import left_out, mutated, read_all
from hypothesis import given, settings
from hypothesis import strategies as st

from ds2d2_yolo.data.annotations import Account
from ds2d2_yolo.data.classes import DIOR_CLASSES, DOTA_ADDED_CLASSES, DOTA_CLASSES
from ds2d2_yolo.data.formats.coco import COCOReader
from ds2d2_yolo.data.formats.rules import ELSEWHERE, UPLOADED, Part
from ds2d2_yolo.errors import DS2D2Error

CONTENT = {
    "images": [
        {"id": 7, "file_name": "b.jpg", "width": 100, "height": 80},
        {"id": 0, "file_name": "a.png", "width": 60, "height": 50},
        {"id": "x", "file_name": "c.jpg"},
    ],
    "annotations": [
        {"id": 1, "image_id": 7, "category_id": 3, "bbox": [1, 2.5, 30, 40], "iscrowd": 0},
        {"id": 2, "image_id": 0, "category_id": 0, "bbox": [5, 6, 7, 8], "iscrowd": 1},
        {"id": 3, "image_id": 7, "category_id": 0, "bbox": [9, 9, 1, 1], "ignore": 1, "difficult": 2},
    ],
    "categories": [{"id": 3, "name": "car"}, {"id": 0, "name": "boat"}],
}


def changed(change):
    content = copy.deepcopy(CONTENT)
    change(content)
    return content


def write(root, content, split="train", names=("a.png", "b.jpg", "c.jpg")):
    (root / split).mkdir(exist_ok=True)
    path = root / f"{split}.json"
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    for name in names:
        (root / split / name).parent.mkdir(exist_ok=True)
        (root / split / name).touch()


def reader(root, account, oriented=False, splits=("train",)):
    parts = {split: [Part((root / f"{split}.json",), (root / split,))] for split in splits}
    return COCOReader(parts, account, root, oriented)


# ------------------------------------------------------------------------------------------------ what is read


def test_images_come_in_file_order_with_their_objects(tmp_path):
    write(tmp_path, CONTENT)
    account = Account()
    opened = reader(tmp_path, account)
    assert (opened.class_names, opened.splits()) == (("car", "boat"), {"train": 3})
    b, a, c = read_all(opened, account)["train"]
    assert [(image.name, image.size, image.labelled) for image in (b, a, c)] == [
        ("b", (100, 80), True),
        ("a", (60, 50), True),
        ("c", None, True),
    ]
    assert b.image == tmp_path / "train" / "b.jpg"
    assert b.labels == tmp_path / "train.json"
    car, boat = b.objects
    assert (car.name, car.points, car.crowd, car.difficult, car.line) == ("car", (1, 2.5, 31, 42.5), False, 0, 1)
    assert (boat.name, boat.points, boat.crowd, boat.difficult, boat.line) == ("boat", (9, 9, 10, 10), True, 2, 3)
    assert [item.crowd for item in a.objects] == [True]
    assert c.objects == []
    assert account.entered == {"image": 3, "object": 3}


@pytest.mark.parametrize("first", [0, 1, 5])
@pytest.mark.parametrize(
    "reference", [DIOR_CLASSES, *(DOTA_CLASSES + added for added in DOTA_ADDED_CLASSES.values())], ids=len
)
def test_classes_of_the_papers_keep_the_reference_order(tmp_path, reference, first):
    names = sorted(reference, reverse=True)
    categories = [{"id": first + 2 * number, "name": name} for number, name in enumerate(names)]
    annotations = [{"id": 1, "image_id": 7, "category_id": first + 2, "bbox": [1, 2, 3, 4]}]
    write(tmp_path, {**CONTENT, "categories": categories, "annotations": annotations})
    opened = reader(tmp_path, account := Account())
    assert opened.class_names == reference
    assert read_all(opened, account)["train"][0].objects[0].name == names[1]


def test_files_may_number_the_same_categories_differently(tmp_path):
    write(tmp_path, CONTENT)
    other = {"images": CONTENT["images"][:1], "categories": [{"id": 1, "name": "boat"}, {"id": 2, "name": "car"}]}
    write(
        tmp_path, {**other, "annotations": [{"image_id": 7, "category_id": 1, "bbox": [1, 2, 3, 4]}]}, "val", ["b.jpg"]
    )
    opened = reader(tmp_path, account := Account(), splits=("train", "val"))
    assert opened.class_names == ("car", "boat")
    assert read_all(opened, account)["val"][0].objects[0].name == "boat"


def test_a_file_without_annotations_has_images_without_labels(tmp_path):
    write(tmp_path, {key: CONTENT[key] for key in ("images", "categories")})
    images = read_all(reader(tmp_path, account := Account()), account)["train"]
    assert [(image.labelled, image.labels == image.image, image.objects) for image in images] == [(False, True, [])] * 3


def test_corners_are_read_from_polygons_of_four(tmp_path):
    corners = [1, 2, 3.5, 4, 5, 6, 7, 8]
    write(tmp_path, changed(lambda content: [item.update(segmentation=[corners]) for item in content["annotations"]]))
    image = read_all(reader(tmp_path, account := Account(), oriented=True), account)["train"][0]
    assert image.objects[0].points == tuple(corners)


def test_image_names_have_folders_only_if_needed(tmp_path):
    names = ["x/one.jpg", "x/two.jpg", "y\\two.jpg", "./y//three.v2.jpg"]
    images = [{"id": number, "file_name": name} for number, name in enumerate(names)]
    write(tmp_path, {**CONTENT, "images": images, "annotations": []}, names=[name.replace("\\", "/") for name in names])
    found = read_all(reader(tmp_path, account := Account()), account)["train"]
    assert [image.name for image in found] == ["one", "x__two", "y__two", "three.v2"]
    assert left_out(account) == []


def test_whole_numbers_written_with_a_point_are_ids_too(tmp_path):
    content = json.dumps(CONTENT).replace('"id": 7', '"id": 7.0').replace('"category_id": 3', '"category_id": 3.0')
    write(tmp_path, content.encode())
    assert len(read_all(reader(tmp_path, account := Account()), account)["train"][0].objects) == 2


def test_empty_and_outside_boxes_are_left_to_the_writer(tmp_path):
    def change(content):
        content["annotations"][0]["bbox"] = [5, 5, 0, -3]
        content["annotations"][2]["bbox"] = [900, 900, 5, 5]

    write(tmp_path, changed(change))
    assert len(read_all(reader(tmp_path, account := Account()), account)["train"][0].objects) == 2


def test_images_that_no_file_names_are_listed(tmp_path):
    write(tmp_path, CONTENT, names=("a.png", "b.jpg", "c.jpg", "d.jpg", "._d.jpg", "notes.txt"))
    write(tmp_path / "train", b"", "inner", ["e.jpg"])
    read_all(reader(tmp_path, account := Account()), account)
    assert left_out(account) == ["image train/d.jpg in no split", "image train/inner/e.jpg in no split"]


def test_splits_may_share_a_folder(tmp_path):
    write(tmp_path, changed(lambda content: content["images"].pop(0)), names=("a.png", "b.jpg", "c.jpg", "d.jpg"))
    (tmp_path / "train.json").write_text(json.dumps({**CONTENT, "images": CONTENT["images"][1:], "annotations": []}))
    (tmp_path / "val.json").write_text(json.dumps({**CONTENT, "images": CONTENT["images"][:1], "annotations": []}))
    files = {split: [Part((tmp_path / f"{split}.json",), (tmp_path / "train",))] for split in ("train", "val")}
    account = Account()
    images = read_all(COCOReader(files, account, tmp_path, False), account)
    assert [[image.name for image in split] for split in images.values()] == [["a", "c"], ["b"]]
    assert left_out(account) == ["image train/d.jpg in no split"]


# ---------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", r"train.json:1: broken JSON, Expecting value \(column 1\)"),
        (json.dumps(CONTENT, indent=1).encode()[:150], r"train.json:12: broken JSON, .* \(column \d+\)"),
        (b'{"images": "\xe9"}', "train.json:1: not UTF-8"),
        (b"[" * 100_000, "train.json: JSON with too long numbers or too deep nesting"),
        (b"[1" + b"0" * 5000 + b"]", "train.json: JSON with too long numbers or too deep nesting"),
        (b"[]", "train.json: expected an object with the lists images, annotations and categories"),
        ({"images": []}, "train.json: expected the list categories"),
        ({**CONTENT, "images": {}}, "train.json: expected the list images"),
        ({**CONTENT, "annotations": None}, "train.json: expected the list annotations"),
        ({**CONTENT, "categories": []}, "train.json: the list categories is empty"),
        (
            {**CONTENT, "categories": [{"id": 1, "name": "\ud800"}]},
            "train.json: category number 1: expected an id and a name",
        ),
        ({**CONTENT, "categories": [3]}, "train.json: category number 1: expected an id and a name"),
        (
            {**CONTENT, "categories": [{"id": 1, "name": " "}]},
            "train.json: category number 1: expected an id and a name",
        ),
        (
            {**CONTENT, "categories": [*CONTENT["categories"], {"id": 3, "name": "x"}]},
            "train.json: category number 3: id or name 'x' occurs twice",
        ),
        (
            {**CONTENT, "categories": [*CONTENT["categories"], {"id": 4, "name": "car"}]},
            "train.json: category number 3: id or name 'car' occurs twice",
        ),
    ],
)
@pytest.mark.parametrize("on_error", ["stop", "skip"])
def test_a_file_that_is_no_coco_json_stops_in_any_case(tmp_path, content, complaint, on_error):
    write(tmp_path, content)
    with pytest.raises(DS2D2Error, match=f"^{complaint}.*; correct the file, or download it again$"):
        reader(tmp_path, Account(on_error))


def test_a_missing_file_stops(tmp_path):
    with pytest.raises(DS2D2Error, match=r"^train\.json: cannot be read"):
        reader(tmp_path, Account("skip"))


def test_files_of_different_categories_have_one_list_of_classes(tmp_path):
    write(tmp_path, CONTENT)
    val = {**CONTENT, "categories": [{"id": 0, "name": "bike"}, {"id": 3, "name": "boat"}]}
    write(tmp_path, val, "val")
    opened = reader(tmp_path, account := Account(), splits=("train", "val"))
    assert opened.class_names == ("car", "boat", "bike")
    assert [item.name for item in read_all(opened, account)["val"][0].objects] == ["boat", "bike"]
    assert account.notes() == [
        "2 file(s) without some category of the others, classes are joined by name: train.json lacks 'bike' and 1 more"
    ]


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"bbox": [1, 2, 3]}, "expected four finite numbers as bbox"),
        ({"bbox": [1, 2, float("nan"), 4]}, "expected four finite numbers as bbox"),
        ({"bbox": [1, 2, 3, float("inf")]}, "expected four finite numbers as bbox"),
        ({"bbox": [1e308, 2, 1e308, 4]}, "expected four finite numbers as bbox"),
        ({"bbox": [10**400, 2, 3, 4]}, "expected four finite numbers as bbox"),
        ({"bbox": [True, 2, 3, 4]}, "expected four finite numbers as bbox"),
        ({"bbox": "1 2 3 4"}, "expected four finite numbers as bbox"),
        ({"category_id": 1}, "unknown category '1'"),
        ({"category_id": [3]}, r"unknown category '\[3\]'"),
        ({"category_id": None}, "unknown category 'None'"),
        ({"iscrowd": 2}, "expected 0 or 1 for iscrowd and ignore"),
        ({"difficult": "yes"}, "expected 0 or 1 for iscrowd and ignore, a whole number for difficult"),
        ({"difficult": -1}, "expected 0 or 1 for iscrowd and ignore, a whole number for difficult"),
        ({"image_id": 1}, "its image is unknown"),
        ({"image_id": {}}, "its image is unknown"),
    ],
)
def test_an_annotation_that_cannot_be_read_stops_or_is_listed(tmp_path, change, complaint):
    write(tmp_path, changed(lambda content: content["annotations"][0].update(change)))
    with pytest.raises(DS2D2Error, match=rf"^train\.json:1: annotation of this number: {complaint}.*on_error=skip"):
        list(reader(tmp_path, Account()).read("train"))
    account = Account("skip")
    images = read_all(reader(tmp_path, account), account)["train"]
    assert [[item.line for item in image.objects] for image in images] == [[3], [2], []]
    assert [entry["line"] for entry in account.left_out] == [1]


@pytest.mark.parametrize("polygons", [None, [], {"counts": "abc", "size": [1, 1]}, [[1, 2, 3, 4, 5, 6]], [[1] * 8] * 2])
def test_without_a_polygon_of_four_there_is_no_oriented_box(tmp_path, polygons):
    write(tmp_path, changed(lambda content: content["annotations"][1].update(segmentation=polygons)))
    with pytest.raises(DS2D2Error, match="expected one polygon of four corners as segmentation"):
        list(reader(tmp_path, Account(), oriented=True).read("train"))


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"file_name": None}, "train.json:1 image of this number: expected the path of an image as file_name"),
        ({"file_name": "a/.."}, "train.json:1 image of this number: expected the path of an image as file_name"),
        ({"file_name": "lost.jpg"}, "train/lost.jpg labels without image"),
        ({"file_name": "x" * 200}, f"train/{'x' * 200} labels without image"),
    ],
)
def test_an_unreadable_image_stops_or_is_listed_with_objects(tmp_path, change, complaint):
    write(tmp_path, changed(lambda content: content["images"][0].update(change)))
    place, _, reason = complaint.partition(" ")
    with pytest.raises(DS2D2Error, match=f"^{place[:100]}.*: {reason}.*on_error=skip"):
        list(reader(tmp_path, Account()).read("train"))
    account = Account("skip")
    assert [image.name for image in read_all(reader(tmp_path, account), account)["train"]] == ["a", "c"]
    assert [line for line in left_out(account) if "no split" not in line] == [
        f"image {complaint}",
        f"object train.json {reason.removeprefix('image of this number: ')} x2",
    ]


@pytest.mark.parametrize("stated", ["../b.jpg", "/etc/b.jpg", "C:\\data\\b.jpg", "/up/0a1b2c3d-b.jpg", "/x/?d=y/b.jpg"])
def test_an_image_is_found_by_its_name_wherever_it_was(tmp_path, stated):
    write(tmp_path, changed(lambda content: content["images"][0].update(file_name=stated)))
    (image, *_) = read_all(reader(tmp_path, account := Account()), account)["train"]
    assert (image.name, image.image, len(image.objects)) == ("b", tmp_path / "train" / "b.jpg", 2)
    (note,) = account.notes()
    assert note == f"1 {UPLOADED if '0a1b2c3d' in stated else ELSEWHERE}: train/b.jpg"


@pytest.mark.parametrize("size", [(0, 0), (None, None), (100, None), ("100", "x"), (-1, 80)])
def test_an_unsuitable_size_is_unknown(tmp_path, size):
    change = dict(zip(("width", "height"), size, strict=True))
    write(tmp_path, changed(lambda content: content["images"][0].update(change)))
    assert read_all(reader(tmp_path, account := Account()), account)["train"][0].size is None


@pytest.mark.parametrize("entry", [3, {}, {"id": None, "file_name": "b.jpg"}, {"id": [7], "file_name": "b.jpg"}])
def test_an_entry_that_is_no_image_orphans_its_objects(tmp_path, entry):
    write(tmp_path, changed(lambda content: content["images"].__setitem__(0, entry)))
    account = Account("skip")
    assert [image.name for image in read_all(reader(tmp_path, account), account)["train"]] == ["a", "c"]
    orphans = [f"object train.json:{line} annotation of this number: its image is unknown" for line in (1, 3)]
    assert [line for line in left_out(account) if line.startswith("object")] == orphans


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"id": 7}, "id in train.json"),
        ({"file_name": "b.jpg"}, "name"),
        ({"file_name": "b.png"}, "name"),
    ],
)
def test_of_images_that_share_an_id_or_a_name_none_is_read(tmp_path, change, what):
    content = changed(lambda content: content["images"][1].update(change))
    del content["annotations"][1]
    write(tmp_path, content, names=("a.png", "b.jpg", "b.png", "c.jpg"))
    with pytest.raises(DS2D2Error, match=rf"^train/b\.jpg: several images of this {what};"):
        list(reader(tmp_path, Account()).read("train"))
    account = Account("skip")
    assert [image.name for image in read_all(reader(tmp_path, account), account)["train"]] == ["c"]
    assert account.reasons()["image", f"several images of this {what}"] == 2


# -------------------------------------------------------------------------------------------------------- fuzz


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzzed")


values = st.sampled_from([None, True, 0, -1, 7, 0.5, 7.0, 10**400, float("nan"), "", "x", [], [7], {}, {"id": 7}])


@st.composite
def damaged(draw):
    """A valid file with some values, at any depth, replaced or missing."""
    content = copy.deepcopy(CONTENT)
    for _ in range(draw(st.integers(1, 3))):
        place = content
        while True:
            key = draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
            if not isinstance(place[key], (dict, list)) or not place[key] or draw(st.booleans()):
                break
            place = place[key]
        if draw(st.integers(0, 3)):
            place[key] = copy.deepcopy(draw(values))
        else:
            del place[key]
        if not content:
            break
    return json.dumps(content).encode()


@settings(max_examples=100)
@given(
    content=st.one_of(st.binary(max_size=50), damaged(), mutated(json.dumps(CONTENT).encode())), oriented=st.booleans()
)
def test_any_content_is_read_listed_or_stops_with_one_line(fuzzed, content, oriented):
    write(fuzzed, content)
    account = Account("skip")
    try:
        read_all(reader(fuzzed, account, oriented), account)
    except DS2D2Error:
        with pytest.raises(DS2D2Error, match=r"^train\.json"):
            reader(fuzzed, Account("skip"), oriented)
