"""Exports of annotation tools are converted, or refused with helpful advice."""

import json
import math
import re
import shutil

import exports
import miniatures
import numpy as np
import pytest
from exports import BOX, coco_content
from miniatures import SIDE, horizontal, picture, write
from ultralytics.utils import LOGGER

from ds2d2_yolo.commands import convert
from ds2d2_yolo.data.annotations import Account
from ds2d2_yolo.data.convert import convert_dataset
from ds2d2_yolo.data.layouts import recognise
from ds2d2_yolo.errors import DS2D2Error


def shares_of(x1, y1, x2, y2):
    return [(x1 + x2) / 2 / SIDE, (y1 + y2) / 2 / SIDE, (x2 - x1) / SIDE, (y2 - y1) / SIDE]


SHARES = shares_of(*BOX)


def labels(conversion):
    """The lines of all label files by split and name."""
    folder = conversion.folder / "labels"
    return {
        path.relative_to(folder).with_suffix("").as_posix(): np.loadtxt(path, ndmin=2)
        for path in sorted(folder.rglob("*.txt"))
    }


def converted(root, make, **options):
    make(root / "src")
    return convert_dataset(root / "src", root / "out", **options)


def files(conversion):
    return {split: item["files"] for split, item in conversion.manifest["splits"].items()}


def noted(conversion, text):
    return any(text in note for note in conversion.manifest["notes"])


def test_roboflow_coco_has_no_class_for_its_root_category(tmp_path):
    conversion = converted(tmp_path, exports.roboflow_coco)
    assert conversion.manifest["classes"] == ["car", "truck"]
    assert files(conversion) == {"train": 2, "val": 2, "test": 2}
    assert noted(conversion, "root category without objects, which is not a class: 'vehicles'")
    for lines in labels(conversion).values():
        np.testing.assert_allclose(lines, [[0, *SHARES], [1, *SHARES]])


def test_a_parent_category_with_objects_is_a_class(tmp_path):
    exports.roboflow_coco(tmp_path / "src")
    path = tmp_path / "src" / "valid" / "_annotations.coco.json"
    content = json.loads(path.read_text())
    content["annotations"][0]["category_id"] = 0
    path.write_text(json.dumps(content))
    assert convert_dataset(tmp_path / "src", tmp_path / "out").manifest["classes"] == ["vehicles", "car", "truck"]


def test_roboflow_voc_has_splits_by_folder_and_one_class_list(tmp_path):
    conversion = converted(tmp_path, exports.roboflow_voc)
    assert conversion.manifest["classes"] == ["bus", "car", "truck"]
    assert files(conversion) == {"train": 2, "val": 2, "test": 2}
    classes = {name: lines[:, 0].tolist() for name, lines in labels(conversion).items()}
    assert {name: found for name, found in classes.items() if name.endswith("0_jpg.rf.0a")} == {
        "train/train0_jpg.rf.0a": [1, 2], "val/valid0_jpg.rf.0a": [0], "test/test0_jpg.rf.0a": [1],
    }  # fmt: skip


@pytest.mark.parametrize("angle", [0.0, math.pi / 6, 2.0])
def test_rolabelimg_gives_corners_or_their_hull(tmp_path, angle):
    cos, sin = math.cos(angle), math.sin(angle)
    offsets = ((-20, -10), (20, -10), (20, 10), (-20, 10))
    corners = [(30 + cos * x - sin * y, 40 + sin * x + cos * y) for x, y in offsets]
    turned = converted(tmp_path / "obb", lambda root: exports.rolabelimg(root, angle), task="obb")
    assert turned.manifest["classes"] == ["boat", "ship"]
    box, ship = labels(turned)["train/000000"]
    np.testing.assert_allclose(ship, [1, *(np.array(corners) / SIDE).ravel()], atol=1e-6)
    assert len(box) == 9, "a horizontal box beside it becomes corners"
    hull = converted(tmp_path / "detect", lambda root: exports.rolabelimg(root, angle))
    expected = shares_of(*np.min(corners, 0), *np.max(corners, 0))
    np.testing.assert_allclose(labels(hull)["train/000000"][1], [1, *expected], atol=1e-6)


def test_of_coco_itself_only_instances_are_read(tmp_path):
    conversion = converted(tmp_path, exports.coco_of_the_authors)
    assert conversion.manifest["options"]["splits"] == {"train": ["instances_train2017"], "val": ["instances_val2017"]}
    assert conversion.manifest["classes"] == ["car", "truck"]
    assert noted(conversion, "annotations/captions_val2017.json is not read")


def test_keypoints_are_read_where_they_are_asked_for(tmp_path):
    splits = "train:person_keypoints_train2017"
    conversion = converted(tmp_path, exports.coco_of_the_authors, splits=splits, on_error="skip")
    assert conversion.manifest["classes"] == ["person"]


def test_cvat_coco_finds_its_images(tmp_path):
    assert files(converted(tmp_path, exports.cvat_coco)) == {"train": 2}


def test_cvat_voc_may_have_images_of_one_name_in_folders(tmp_path):
    conversion = converted(tmp_path, exports.cvat_voc)
    assert sorted(labels(conversion)) == ["train/one__a", "train/two__a"]
    images = conversion.folder / "images" / "train"
    assert (images / "two__a.png").read_bytes() == (tmp_path / "src" / "JPEGImages" / "two" / "a.png").read_bytes()


def test_label_studio_names_files_by_other_paths(tmp_path):
    conversion = converted(tmp_path, exports.label_studio)
    assert conversion.manifest["images"] == {"in": 2, "out": 2, "by": {"hard links": 2}}
    assert noted(conversion, "found only by file name")


def per_image(root, form, labels, images):
    """A data set with label files and images of these names, in one split."""
    for name in labels:
        text = horizontal(name, [("ship", *BOX)]) if form == "voc" else "10 20 40 20 40 60 10 60 ship 0\n"
        write(root / "train" / ("Annotations/{}.xml" if form == "voc" else "labelTxt/{}.txt").format(name), text)
    for name in images:
        picture(root / "train" / "images" / f"{name}.jpg")
    return root


@pytest.mark.parametrize("form", ["voc", "dota"])
@pytest.mark.parametrize("prefix", ["0a1b2c3d", "12345678"])
@pytest.mark.parametrize("side", ["labels", "images"])
def test_the_prefix_of_an_upload_is_passed_over_and_noted(tmp_path, form, prefix, side):
    names = ["P1", f"{prefix}-P1"]
    source = per_image(tmp_path / "src", form, *([[name] for name in names[:: 1 if side == "images" else -1]]))
    conversion = convert_dataset(source, tmp_path / "out", patch=0)
    assert conversion.manifest["images"] == {"in": 1, "out": 1, "by": {"hard links": 1}}
    assert noted(conversion, "the prefix that Label Studio adds to uploads")


@pytest.mark.parametrize("form", ["voc", "dota"])
@pytest.mark.parametrize(
    ("labels", "images", "used"),
    [
        (["P1", "0a1b2c3d-P1"], ["P1"], ["P1"]),
        (["P1", "0a1b2c3d-P1"], ["0a1b2c3d-P1"], ["0a1b2c3d-P1"]),
        (["P1", "20230101-P2"], ["P1", "P2"], ["P1"]),
        (["P1", "31122023-P2"], ["P1", "P2"], ["P1"]),
        (["P1", "P2"], ["P1", "20230101-P2"], ["P1"]),
        (["P1"], ["aaaaaaaa-P1", "bbbbbbbb-P1"], []),
    ],
)
def test_labels_never_go_to_the_image_of_another_name(tmp_path, form, labels, images, used):
    source = per_image(tmp_path / "src", form, ["P0", *labels], ["P0", *images])
    conversion = convert_dataset(source, tmp_path / "out", patch=0, on_error="skip")
    assert sorted(path.stem for path in (conversion.folder / "images" / "train").iterdir()) == sorted(["P0", *used])


@pytest.mark.parametrize("file", ["P1.jpg", "0a1b2c3d-P1.jpg"])
def test_an_entry_of_coco_never_gets_the_image_of_another(tmp_path, file):
    write(tmp_path / "src" / "train.json", json.dumps(coco_content(["P1.jpg", "20230101-P1.jpg", "0a1b2c3d-P1.jpg"])))
    picture(tmp_path / "src" / "train" / file)
    reader = recognise(tmp_path / "src").open(Account(on_error="skip"))
    assert [image.name for image in reader.read("train")] == [file.removesuffix(".jpg")]


@pytest.mark.parametrize("stated", ["a.jpg", "train/a.jpg", "/home/x/a.jpg"])
def test_linked_folders_of_images_are_searched_for_names(tmp_path, stated):
    picture(tmp_path / "disk" / "deep" / "a.jpg")
    (tmp_path / "disk" / "deep" / "back").symlink_to(tmp_path / "disk")
    write(tmp_path / "src" / "train.json", json.dumps(coco_content([stated])))
    (tmp_path / "src" / "images").symlink_to(tmp_path / "disk")
    (tmp_path / "src" / "again").symlink_to(tmp_path / "src")
    assert convert_dataset(tmp_path / "src", tmp_path / "out").manifest["images"]["out"] == 1


def test_an_image_without_labels_is_listed_in_each_split(tmp_path):
    for split, labelled in {"train": ["0", "1"], "valid": ["1"]}.items():
        for name in ("0", "1"):
            picture(tmp_path / "src" / split / f"{name}.jpg")
        for name in labelled:
            write(tmp_path / "src" / split / f"{name}.xml", horizontal(name, [("car", *BOX)]))
    manifest = convert_dataset(tmp_path / "src", tmp_path / "out").manifest
    assert manifest["images"]["in"] == 4
    assert [(entry["file"], entry["reason"]) for entry in manifest["left_out"]] == [
        ("valid/0.jpg", "image without labels")
    ]


@pytest.mark.parametrize("names", [("one/IMG", "two/img"), ("IMG", "img")])
@pytest.mark.parametrize("form", ["voc", "coco"])
def test_names_that_differ_in_case_are_two_files_anywhere(tmp_path, form, names):
    for name in names:
        picture(tmp_path / "src" / "JPEGImages" / f"{name}.jpg")
        if form == "voc":
            write(tmp_path / "src" / "Annotations" / f"{name}.xml", horizontal(name, [("car", *BOX)]))
    if form == "coco":
        content = coco_content([f"JPEGImages/{name}.jpg" for name in names])
        write(tmp_path / "src" / "train.json", json.dumps(content))
    conversion = convert_dataset(tmp_path / "src", tmp_path / "out")
    assert conversion.manifest["images"]["out"] == 2
    assert len({path.name.lower() for path in (conversion.folder / "images" / "train").iterdir()}) == 2


def test_paths_of_another_computer_in_lists_and_xml_do_no_harm(tmp_path):
    source = miniatures.voc(tmp_path / "src")
    write(source / "ImageSets/Main/trainval.txt", "../JPEGImages/2007_000032.JPG\nD:\\data\\2007_000033.jpg\n")
    conversion = convert_dataset(source, tmp_path / "out")
    assert sorted(labels(conversion)) == ["train/2007_000032", "train/2007_000033", "val/2007_000034"]


def test_dota_with_classes_of_its_own(tmp_path):
    conversion = converted(tmp_path, exports.own_dota, task="obb", patch=0)
    assert conversion.manifest["classes"] == ["Pier", "oil tank"]
    assert files(conversion) == {"train": 2, "val": 2}
    assert labels(conversion)["train/train0"][:, 0].tolist() == [1, 0]
    assert noted(conversion, "because of the classes Pier, oil; version=1.0 chooses another")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("5 5 20 5 20 20 5 20 ship 0", ["ship"]),
        ("imagesource:GF\ngsd:1\n5 5 20 5 20 20 5 20 ship 0", 15),
        ("5 5 20 5 20 20 5 20 small-vehicle 0\n5 5 20 5 20 20 5 20 storage-tank 0", 15),
    ],
)
def test_dota_is_what_only_dota_has(tmp_path, line, expected):
    for split in ("train", "val"):
        write(tmp_path / "src" / split / "labelTxt" / f"{split}.txt", f"{line}\n")
        picture(tmp_path / "src" / split / "images" / f"{split}.png")
    classes = convert_dataset(tmp_path / "src", tmp_path / "out", patch=0).manifest["classes"]
    assert classes == expected or len(classes) == expected


def test_dota_may_have_lists_and_a_list_of_classes_too(tmp_path):
    for name, split in (("a", "train"), ("b", "valid")):
        write(tmp_path / "src" / "labels" / f"{name}.txt", "5 5 20 5 20 20 5 20 pier 0\n")
        picture(tmp_path / "src" / "images" / f"{name}.png")
        write(tmp_path / "src" / "ImageSets" / f"{split}.txt", f"{name}\n")
    write(tmp_path / "src" / "labels" / "classes.txt", "pier\n")
    conversion = convert_dataset(tmp_path / "src", tmp_path / "out", patch=0)
    assert files(conversion) == {"train": 1, "val": 1}
    assert conversion.manifest["classes"] == ["pier"]
    shutil.rmtree(tmp_path / "src" / "ImageSets")
    assert files(convert_dataset(tmp_path / "src", tmp_path / "all", patch=0)) == {"train": 2}


def test_paths_may_lead_from_the_folder_of_their_file(tmp_path):
    content = coco_content(["a.jpg"], folder="../images/")
    write(tmp_path / "src" / "annotations" / "train.json", json.dumps(content))
    picture(tmp_path / "src" / "images" / "a.jpg")
    assert convert_dataset(tmp_path / "src", tmp_path / "out").manifest["remarks"] == {}


def test_ids_as_text_and_polygons_without_box(tmp_path):
    polygons = [[10, 20, 40, 20, 40, 60], [12, 22, 11, 50, 13, 60]]
    content = coco_content(["a.jpg"], ("car",), bbox=[], segmentation=polygons)
    content["images"][0]["id"] = "0"
    content["annotations"][0]["category_id"] = "1"
    write(tmp_path / "src" / "train.json", json.dumps(content))
    picture(tmp_path / "src" / "train" / "a.jpg")
    lines = labels(convert_dataset(tmp_path / "src", tmp_path / "out"))["train/a"]
    np.testing.assert_allclose(lines, [[0, *SHARES]])


def test_a_polygon_of_voc_without_box_is_its_hull(tmp_path):
    source = exports.roboflow_voc(tmp_path / "src")
    polygon = "".join(f"<{axis}{i}>{value}</{axis}{i}>" for i, point in enumerate(((11, 21), (41, 30), (20, 61)), 1)
                      for axis, value in zip("xy", point, strict=True))  # fmt: skip
    item = f"<annotation><object><name>car</name><polygon>{polygon}</polygon></object></annotation>"
    write(source / "train" / "train0_jpg.rf.0a.xml", item)
    lines = labels(convert_dataset(source, tmp_path / "out"))["train/train0_jpg.rf.0a"]
    np.testing.assert_allclose(lines[0, 1:], SHARES)


def test_swapped_corners_are_put_in_order_and_noted(tmp_path):
    swapped = (BOX[2] + 1, BOX[3] + 1, BOX[0] + 1, BOX[1] + 1)
    source = exports.roboflow_voc(tmp_path / "src")
    write(source / "train" / "train0_jpg.rf.0a.xml", horizontal("x", [("car", *swapped)]))
    conversion = convert_dataset(source, tmp_path / "out")
    np.testing.assert_allclose(labels(conversion)["train/train0_jpg.rf.0a"][0, 1:], SHARES)
    assert noted(conversion, "whose first corner is not the upper left one")
    (places,) = conversion.manifest["remarks"].values()
    assert places == ["train/train0_jpg.rf.0a.xml:4"]


@pytest.mark.parametrize("encoding", ["gbk", "GB2312", "shift_jis", "utf-16", "iso-8859-1", "utf-8"])
def test_xml_in_a_declared_encoding_is_read(tmp_path, encoding):
    name = "caf\xe9" if encoding == "iso-8859-1" else "\u8239"
    text = f'<?xml version="1.0" encoding="{encoding}"?>\n{horizontal("a", [(name, *BOX)])}'
    (tmp_path / "src" / "train").mkdir(parents=True)
    (tmp_path / "src" / "train" / "a.xml").write_bytes(text.encode(encoding))
    picture(tmp_path / "src" / "train" / "a.jpg")
    assert convert_dataset(tmp_path / "src", tmp_path / "out", layout="voc").manifest["classes"] == [name]


def test_upper_case_suffixes_of_all_formats(tmp_path):
    for make in (exports.roboflow_voc, exports.roboflow_coco, exports.own_dota):
        source = make(tmp_path / make.__name__)
        for path in [path for path in source.rglob("*.*") if path.is_file()]:
            path.rename(path.with_suffix(path.suffix.upper()))
        conversion = convert_dataset(source, tmp_path / f"out_{make.__name__}", patch=0, on_error="skip")
        assert conversion.manifest["splits"]["train"]["objects"]["in"] >= 4 - 4 * (make is exports.roboflow_coco)


@pytest.mark.parametrize("make", exports.ALL.values(), ids=exports.ALL)
def test_the_recognised_layout_is_printed_before_the_work(tmp_path, make, monkeypatch, caplog):
    make(tmp_path / "src")
    monkeypatch.setattr(LOGGER, "propagate", True)
    monkeypatch.setattr("ds2d2_yolo.data.convert.DatasetWriter.write", lambda self: pytest.fail("no work yet"))
    with caplog.at_level("INFO"), pytest.raises(pytest.fail.Exception):
        convert.run([f"src={tmp_path / 'src'}", f"out={tmp_path / 'out'}"])
    assert re.search(r"src is read as (VOC|COCO|DOTA) because of \S+.*; layout= chooses another", caplog.text)


# ------------------------------------------------------------------------------------------------ refused


def refusal(source, out, **options):
    with pytest.raises(DS2D2Error) as caught:
        convert_dataset(source, out, **options)
    message = str(caught.value)
    assert len(message) < 700
    return message


def test_cvats_own_xml_is_refused_with_what_to_export(tmp_path):
    write(
        tmp_path / "src" / "annotations.xml", '<?xml version="1.0"?>\n<annotations><version>1.1</version></annotations>'
    )
    picture(tmp_path / "src" / "images" / "a.jpg")
    assert "is CVAT's own XML, export the task as 'COCO 1.0'" in refusal(tmp_path / "src", tmp_path / "out")


@pytest.mark.parametrize(
    ("name", "text", "advice"),
    [
        ("a.json", '{"version": "5.0", "flags": {}, "shapes": [], "imagePath": "a.jpg"}', "labelme2coco"),
        ("p.json", '[{"id": 1, "data": {"image": "a.jpg"}}]', "Label Studio's own JSON, export it as COCO"),
        ("a.txt", "0 0.5 0.5 0.1 0.1\n", "labels have YOLO's format already, .* train with data="),
        ("a.txt", "1 2 3 4 5 6 7 ship 0\n", "a.txt:1: expected 'x1 y1 .* difficulty' of DOTA, found '1 2 3"),
        ("a.xml", "<html></html>", "a.xml begins with <html></html>, expected <annotation>"),
        ("b.json", '{"imageData": "' + "A" * 9000 + '", "shapes": [], "imagePath": "a.jpg"}', "labelme2coco"),
        ("via.json", '{"a.jpg1": {"filename": "a.jpg", "regions": []}}', "via.json has no known format, export"),
        ("a.csv", "filename,class,xmin,ymin,xmax,ymax\n", "a.csv has no known format, export the labels as COCO"),
        ("a.bin", "", r"there are images and no labels, pass the folder with both, such as src=\S+"),
    ],
)
def test_other_labels_are_refused_with_what_to_do(tmp_path, name, text, advice):
    write(tmp_path / "src" / name, text)
    picture(tmp_path / "src" / "a.jpg")
    assert re.search(f"no known layout, found .*; .*{advice}", refusal(tmp_path / "src", tmp_path / "out"))


@pytest.mark.parametrize("name", ["data.zip", "DIOR.ZIP", "a.tar.gz", "a.rar", "a.7z"])
def test_an_archive_that_is_packed_is_reported(tmp_path, name):
    write(tmp_path / "src" / name, "PK")
    assert refusal(tmp_path / "src", tmp_path / "out").endswith(f"unpack {name} first")


@pytest.mark.parametrize("name", ["a.jpg", "train.json", "data.yaml"])
def test_a_file_as_source_names_its_folder(tmp_path, name):
    write(tmp_path / "src" / name, "{}")
    message = refusal(tmp_path / "src" / name, tmp_path / "out")
    assert message.endswith(f"pass the folder of images and labels, such as src={tmp_path / 'src'}")


FAIR1M = "<objects><object><possibleresult><name>A220</name></possibleresult></object></objects></annotation>"


@pytest.mark.parametrize(
    ("end", "advice"), [("</annotation>", "no label file has an object"), (FAIR1M, "export the labels as VOC or COCO")]
)
def test_labels_without_a_readable_object_are_refused(tmp_path, end, advice):
    picture(tmp_path / "src" / "a.jpg")
    write(tmp_path / "src" / "a.xml", horizontal("a", []).replace("</annotation>", end))
    assert advice in refusal(tmp_path / "src", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_marks_at_the_begin_of_files_do_no_harm(tmp_path, encoding):
    for make in (exports.own_dota, exports.roboflow_coco):
        source = make(tmp_path / make.__name__)
        for path in [*source.rglob("*.TXT"), *source.rglob("*.json")]:
            path.write_bytes(path.read_text().encode(encoding))
        assert convert_dataset(source, tmp_path / f"{make.__name__}_out", patch=0).manifest["objects"]["out"] > 0


def test_addresses_of_images_may_have_a_query(tmp_path):
    write(tmp_path / "src" / "train.json", json.dumps(coco_content(["a.jpg?x=1"], folder="https://host/b/")))
    picture(tmp_path / "src" / "images" / "a.jpg")
    assert convert_dataset(tmp_path / "src", tmp_path / "out").manifest["objects"]["out"] == 2


def test_notes_of_label_studio_are_no_coco(tmp_path):
    write(tmp_path / "src" / "notes.json", '{"categories": [{"id": 0, "name": "car"}], "info": {}}')
    write(tmp_path / "src" / "classes.txt", "car\n")
    write(tmp_path / "src" / "labels" / "a.txt", "0 0.5 0.5 0.1 0.1\n")
    picture(tmp_path / "src" / "images" / "a.jpg")
    assert "labels have YOLO's format already" in refusal(tmp_path / "src", tmp_path / "out")


def test_a_folder_too_deep_names_the_one_above(tmp_path):
    source = exports.coco_of_the_authors(tmp_path / "src")
    for deep in ("annotations", "train2017"):
        assert f"src={source}" in refusal(source / deep, tmp_path / "out")


def test_five_digits_alone_are_not_dior(tmp_path):
    for number in range(3):
        boxes = [(name, *BOX) for name in ("airplane", "bridge", "ship")]
        write(tmp_path / "src" / f"0000{number}.xml", horizontal(f"0000{number}", boxes))
        picture(tmp_path / "src" / f"0000{number}.jpg")
    assert convert_dataset(tmp_path / "src", tmp_path / "out").manifest["classes"] == ["airplane", "bridge", "ship"]


@pytest.mark.parametrize("make", [exports.roboflow_voc, exports.roboflow_coco])
def test_letters_that_macos_writes_as_two(tmp_path, make):
    source = make(tmp_path / "src")
    for path in [*source.rglob("*.jpg"), *source.rglob("*.xml")]:
        path.rename(path.with_stem(f"{path.stem}{'e' + chr(0x301) if path.suffix == '.jpg' else chr(0xE9)}"))
    for path in source.rglob("*.json"):
        path.write_text(path.read_text().replace(".jpg", f"{chr(0xE9)}.jpg"))
    assert convert_dataset(source, tmp_path / "out").manifest["objects"]["out"] > 0


def test_a_link_that_leads_back_is_passed_over(tmp_path):
    source = exports.roboflow_voc(tmp_path / "src")
    (source / "train" / "again").symlink_to(source)
    assert files(convert_dataset(source, tmp_path / "out")) == {"train": 2, "val": 2, "test": 2}


def test_numbers_of_coco_may_be_text(tmp_path):
    content = coco_content(["a.jpg"])
    content["annotations"][0]["bbox"] = [str(value) for value in content["annotations"][0]["bbox"]]
    write(tmp_path / "src" / "train.json", json.dumps(content))
    picture(tmp_path / "src" / "train" / "a.jpg")
    np.testing.assert_allclose(
        labels(convert_dataset(tmp_path / "src", tmp_path / "out"))["train/a"], [[0, *SHARES], [1, *SHARES]]
    )


def test_one_wrong_line_of_dota_is_reported_not_the_layout(tmp_path):
    source = exports.own_dota(tmp_path / "src")
    for path in source.rglob("*.TXT"):
        path.write_text("odd\n" + path.read_text())
    message = refusal(source, tmp_path / "out")
    assert re.match(r"train/labelTxt/train0\.TXT:1: expected 8 numbers.*; correct it, or pass on_error=skip", message)
    assert convert_dataset(source, tmp_path / "out", on_error="skip").manifest["objects"]["out"] == 8


def test_following_the_advice_of_a_message_helps(tmp_path):
    for year in ("VOC2007", "VOC2012"):
        miniatures.voc(tmp_path / "two" / year)
    message = refusal(tmp_path / "two", tmp_path / "out")
    assert convert_dataset(re.search(r"such as src=(\S+)", message)[1], tmp_path / "out").made

    miniatures.dota(tmp_path / "dota", "labelTxt-v1.0")
    miniatures.dota(tmp_path / "dota", "labelTxt-v1.5")
    message = refusal(tmp_path / "dota", tmp_path / "out2")
    assert convert_dataset(tmp_path / "dota", tmp_path / "out2", version=re.search(r"version=(\S+)", message)[1]).made

    source = exports.coco_of_the_authors(tmp_path / "coco")
    for path in source.rglob("instances_*.json"):
        shutil.copyfile(path, path.with_name(path.name.replace("instances", "instances_minus")))
    message = refusal(source, tmp_path / "out3")
    assert convert_dataset(source, tmp_path / "out3", splits=re.search(r"such as splits=([^;]+);", message)[1]).made

    both = miniatures.coco(miniatures.voc(tmp_path / "both"))
    message = refusal(both, tmp_path / "out4")
    assert convert_dataset(both, tmp_path / "out4", layout=re.search(r"layout=(\w+)", message)[1]).made

    (tmp_path / "gbk" / "train").mkdir(parents=True)
    path = tmp_path / "gbk" / "train" / "a.xml"
    path.write_bytes(horizontal("a", [("\u8239", *BOX)]).encode("gbk"))
    picture(path.with_suffix(".jpg"))
    message = refusal(tmp_path / "gbk", tmp_path / "out5")
    assert "train/a.xml:4: not UTF-8, save it as UTF-8, such as with 'iconv -f GBK -t UTF-8'" in message
    path.write_bytes(path.read_bytes().decode("gbk").encode("utf-8"))
    assert convert_dataset(tmp_path / "gbk", tmp_path / "out5").manifest["classes"] == ["\u8239"]

    source = exports.roboflow_voc(tmp_path / "horizontal")
    message = refusal(source, tmp_path / "out6", task="obb")
    assert convert_dataset(source, tmp_path / "out6", task=re.search(r"task=(\w+)", message)[1]).made
