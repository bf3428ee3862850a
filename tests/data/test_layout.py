"""Layouts are recognised by the contents of files. Ambiguous folders are refused in one line."""

import json
import shutil

import miniatures
import pytest

from ds2d2_yolo.data.annotations import Account
from ds2d2_yolo.data.classes import DIOR_CLASSES, DOTA_CLASSES
from ds2d2_yolo.data.layouts import recognise
from ds2d2_yolo.data.layouts.coco import _names_of, coco_files
from ds2d2_yolo.data.layouts.source import Source
from ds2d2_yolo.errors import DS2D2Error

PAPER = {"train": ("train", "val"), "val": ("test",)}


def images_of(layout):
    reader = layout.open(Account())
    return {split: sorted(image.name for image in reader.read(split)) for split in reader.splits()}


def test_dior_is_recognised_with_the_splits_of_the_papers(tmp_path):
    layout = recognise(miniatures.dior(tmp_path))
    assert (layout.name, layout.splits) == ("DIOR", PAPER)
    assert images_of(layout) == {"train": ["00001", "04137"], "val": ["11759", "14558"]}
    assert layout.open(Account()).class_names == DIOR_CLASSES


def test_the_task_chooses_among_the_annotations_of_dior(tmp_path):
    miniatures.dior(tmp_path)
    layout = recognise(tmp_path, task="obb")
    assert layout.name == "DIOR-R"
    first = next(layout.open(Account()).read("train"))
    assert [len(item.points) for item in first.objects] == [8, 8]
    assert recognise(tmp_path, layout="dior-r").name == "DIOR-R"


@pytest.mark.parametrize(
    "moves",
    [
        {"Annotations/Horizontal Bounding Boxes": "Annotations"},
        {"Annotations/Horizontal Bounding Boxes": "annotations/horizontal", "ImageSets/Main": "splits"},
        {
            "JPEGImages-trainval": "JPEGImages-trainval/JPEGImages-trainval",
            "JPEGImages-test": "JPEGImages-test/JPEGImages-test",
            "Annotations/Horizontal Bounding Boxes": "Annotations/Annotations/Horizontal Bounding Boxes",
        },
        {"JPEGImages-trainval": "images/trainval", "JPEGImages-test": "images/test"},
    ],
    ids=["flat", "renamed", "unpacked twice", "images"],
)
def test_dior_in_other_folders_is_recognised(tmp_path, moves):
    original, other = miniatures.dior(tmp_path / "original", both=False), tmp_path / "other"
    for path in sorted(original.rglob("*")):
        if path.is_file():
            below = path.relative_to(original).as_posix()
            for old, new in moves.items():
                below = new + below.removeprefix(old) if below.startswith(f"{old}/") else below
            (other / below).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, other / below)
    (other / "__MACOSX").mkdir()
    (other / "__MACOSX" / "._00001.xml").write_bytes(b"\0")
    layout = recognise(other)
    assert (layout.name, layout.splits) == ("DIOR", PAPER)
    assert images_of(layout) == {"train": ["00001", "04137"], "val": ["11759", "14558"]}


def test_dior_with_oriented_boxes_alone_gives_their_hulls(tmp_path):
    miniatures.dior(tmp_path)
    shutil.rmtree(tmp_path / "Annotations" / "Horizontal Bounding Boxes")
    layout = recognise(tmp_path)
    assert layout.name == "DIOR-R"
    assert "oriented annotations, converted to their hulls" in layout.notes


def test_horizontal_annotations_alone_give_no_oriented_boxes(tmp_path):
    miniatures.dior(tmp_path, both=False)
    with pytest.raises(DS2D2Error, match="has no oriented annotations"):
        recognise(tmp_path, task="obb")


def test_dota_is_recognised_with_a_test_set_that_has_no_labels(tmp_path):
    layout = recognise(miniatures.dota(tmp_path))
    assert layout.name == "DOTA v1.0"
    assert images_of(layout) == {"train": ["P0001", "P0002"], "val": ["P0003"], "test": ["P0004"]}
    assert layout.open(Account()).class_names == DOTA_CLASSES


@pytest.mark.parametrize(
    ("labels", "added", "name"),
    [
        ("labelTxt-v1.5/DOTA-v1.5_train", "", "DOTA v1.5"),
        ("labelTxt", "5 5 9 5 9 9 5 9 container-crane 0\n", "DOTA v1.5"),
        ("labelTxt", "5 5 9 5 9 9 5 9 helipad 0\n", "DOTA v2.0"),
        ("labelTxt-v2.0", "", "DOTA v2.0"),
    ],
)
def test_the_version_of_dota_is_in_its_folders_or_classes(tmp_path, labels, added, name):
    if "train" in labels:
        for split, names in {"train": ["P0001", "P0002"], "val": ["P0003"]}.items():
            folder = tmp_path / split / labels.replace("train", split)
            for image in names:
                miniatures.write(folder / f"{image}.txt", miniatures.DOTA_LABELS[image])
                miniatures.write(folder.with_name(f"{folder.name}_hbb") / f"{image}.txt", miniatures.DOTA_LABELS[image])
                miniatures.picture(tmp_path / split / "images" / f"{image}.png", (100, 70))
    else:
        miniatures.dota(tmp_path, labels, added)
    layout = recognise(tmp_path)
    assert layout.name == name
    assert recognise(tmp_path, version="2.0").name == "DOTA v2.0"
    reader = layout.open(Account())
    assert reader.class_names[:15] == DOTA_CLASSES
    assert next(reader.read("train")).name == "P0001"


def test_of_several_versions_of_dota_one_is_to_be_named(tmp_path):
    miniatures.dota(tmp_path, "labelTxt-v1.0")
    miniatures.dota(tmp_path, "labelTxt-v1.5")
    complaint = r"labelTxt-v1.0 and .*labelTxt-v1.5 both have labels of .*, choose by version=1.0 or .* version=1.5"
    with pytest.raises(DS2D2Error, match=complaint):
        recognise(tmp_path)
    layout = recognise(tmp_path, version="1.0")
    assert layout.name == "DOTA v1.0"
    assert all("v1.5" not in str(path) for path in layout.inputs)


def test_dota_without_folders_of_splits_is_one_split(tmp_path):
    miniatures.write(tmp_path / "labelTxt" / "P0001.txt", miniatures.DOTA_LABELS["P0001"])
    miniatures.picture(tmp_path / "images" / "P0001.png")
    assert images_of(recognise(tmp_path)) == {"train": ["P0001"]}


def test_coco_json_finds_its_folders_of_images(tmp_path):
    layout = recognise(miniatures.coco(tmp_path))
    assert (layout.name, layout.splits) == ("COCO", {"train": ("trainval",), "val": ("test",)})
    assert images_of(layout) == {"train": ["a", "b"], "val": ["a2", "c"]}


def coco_of(root, files):
    """Write JSON files that name 0.jpg and 1.jpg, and the listed images. Each image differs from all others."""
    for seed, (place, split) in enumerate(files.items()):
        if split is None:
            miniatures.picture(root / place, seed=seed)
        else:
            images = [{"id": i, "file_name": f"{i}.jpg", "width": 80, "height": 80} for i in range(2)]
            content = {"images": images, "annotations": [], "categories": [{"id": 1, "name": "ship"}]}
            miniatures.write(root / place, json.dumps(content))
    return root


def places_of(source, **options):
    """The images of every split, below the source."""
    reader = recognise(source, layout="coco", **options).open(Account(on_error="skip"))
    return {
        split: [image.image.relative_to(source).as_posix() for image in reader.read(split)] for split in reader.splits()
    }


@pytest.mark.parametrize(
    ("labels", "images"),
    [
        ("{}.json", "{}/{}.jpg"),
        ("{}/_annotations.coco.json", "{}/{}.jpg"),
        ("annotations/{}.json", "images/{}/{}.jpg"),
        ("annotations/instances_{}.json", "{}/{}.jpg"),
        ("annotations/{}/boxes.json", "images/{}/all/{}.jpg"),
        ("{}/annotations/instances_default.json", "{}/images/default/{}.jpg"),
    ],
)
@pytest.mark.parametrize("folders", [("site1", "site2"), ("train", "val"), ("val", "train")])
def test_json_files_of_equal_names_get_their_own_images(tmp_path, labels, images, folders):
    files = {labels.format(folder): folder for folder in folders}
    files |= {images.format(folder, i): None for folder in folders for i in range(2)}
    named = recognise_names(coco_of(tmp_path, files))
    chosen = dict(zip(("train", "val"), folders, strict=True))
    splits = ",".join(f"{split}:{named[labels.format(folder)]}" for split, folder in chosen.items())
    assert places_of(tmp_path, splits=splits) == {
        split: [images.format(folder, i) for i in range(2)] for split, folder in chosen.items()
    }


def recognise_names(source):
    """The names that `splits=` has for JSON files."""
    source = Source.of(source)
    return {source.below(path): name for name, path in _names_of(source, coco_files(source)).items()}


@pytest.mark.parametrize("present", [("val/1.jpg",), ("val/7.jpg",)])
def test_a_split_never_gets_the_images_of_another(tmp_path, present):
    files = ("train.json", "val.json", "train/0.jpg", "train/1.jpg", *present)
    coco_of(tmp_path, {place: place.endswith("json") or None for place in files})
    assert places_of(tmp_path)["val"] == [place for place in present if "1" in place]
    complaint = r"^val/0\.jpg: its image is only in the folder of another split \(train/0\.jpg; move it to val "
    with pytest.raises(DS2D2Error, match=complaint):
        images_of(recognise(tmp_path))


def test_images_of_one_json_may_be_in_several_folders(tmp_path):
    files = {"trainval.json": "trainval", "train/0.jpg": None, "val/1.jpg": None, "masks/trainval/9.jpg": None}
    assert places_of(coco_of(tmp_path, files)) == {"train": ["train/0.jpg", "val/1.jpg"]}


def test_splits_in_the_folder_of_another_are_noted(tmp_path):
    coco_of(tmp_path, {"train.json": "train", "val.json": "val", "train/0.jpg": None, "train/1.jpg": None})
    note = "val.json: its images are in train, by its name of another split"
    assert note in recognise(tmp_path).notes
    assert places_of(tmp_path)["val"] == ["train/0.jpg", "train/1.jpg"]


def test_no_file_of_coco_is_missed_among_other_json(tmp_path):
    coco_of(tmp_path, {f"annotations/{split}.json": split for split in ("instances_train", "instances_val")})
    for i in range(100):
        miniatures.write(tmp_path / "annotations" / f"meta_{i:03}.json", "{}")
    assert recognise(tmp_path).splits == {"train": ("instances_train",), "val": ("instances_val",)}


@pytest.mark.parametrize("header", ["", "imagesource:GoogleEarth\ngsd:0.1\n"])
@pytest.mark.parametrize("layout", [None, "dota"])
def test_dota_with_few_objects_is_recognised(tmp_path, header, layout):
    for i in range(400):
        objects = miniatures.DOTA_LABELS["P0003"] if i in (77, 277) else header
        miniatures.write(tmp_path / "train" / "labelTxt" / f"P{i:04}.txt", objects)
    miniatures.picture(tmp_path / "train" / "images" / "P0000.png")
    assert recognise(tmp_path, layout=layout).name.startswith("DOTA")


def test_a_test_set_without_labels_is_not_for_validation(tmp_path):
    for layout in ("coco", "voc", "lists", "dota"):
        source = getattr(miniatures, layout if layout != "lists" else "voc")(tmp_path / layout)
        if layout == "coco":
            content = json.loads((source / "test.json").read_text())
            (source / "test.json").write_text(json.dumps({**content, "annotations": []}))
        elif layout in ("voc", "lists"):
            (source / "Annotations" / "2007_000034.xml").unlink()
            (source / "ImageSets" / "Main" / "val.txt").unlink()
        if layout == "voc":
            shutil.rmtree(source / "ImageSets")
            for split, names in {"train": ["2007_000032", "2007_000033"], "test": ["2007_000034"]}.items():
                for name in names:
                    image = source / split / "JPEGImages" / f"{name}.jpg"
                    image.parent.mkdir(parents=True, exist_ok=True)
                    (source / "JPEGImages" / image.name).rename(image)
        found = recognise(source)
        assert found.splits["test"] == ("test",), layout
        assert "test" not in found.splits.get("val", ()), layout
        reader = found.open(Account())
        assert [image.objects for image in reader.read("test")] == [[]] * len(images_of(found)["test"]), layout


def test_masks_of_the_same_names_are_no_images(tmp_path):
    files = {"annotations/train.json": "train"}
    files |= {f"{place}/train/{i}.jpg": None for place in ("annotations", "images", "masks") for i in range(2)}
    assert places_of(coco_of(tmp_path, files)) == {"train": ["images/train/0.jpg", "images/train/1.jpg"]}


def test_folders_that_could_both_be_meant_are_refused(tmp_path):
    files = {f"{place}/{i}.jpg": None for place in ("a", "b") for i in range(2)}
    coco_of(tmp_path, {"train.json": "train", **files})
    with pytest.raises(DS2D2Error, match=r"a and b both have 0\.jpg, which train\.json names; move one folder out of"):
        recognise(tmp_path)
    (tmp_path / "b").rename(tmp_path / "train")
    (tmp_path / "c").symlink_to(tmp_path / "train")
    assert places_of(tmp_path) == {"train": ["train/0.jpg", "train/1.jpg"]}


def test_coco_json_beside_dior_is_not_read_and_that_is_said(tmp_path):
    miniatures.dior(tmp_path)
    content = {"images": [{"id": 1, "file_name": "00001.jpg", "width": 80, "height": 80}], "annotations": []}
    miniatures.write(tmp_path / "trainval.json", json.dumps({**content, "categories": [{"id": 1, "name": "ship"}]}))
    layout = recognise(tmp_path)
    assert layout.name == "DIOR"
    assert "trainval.json is not read: layout=coco converts COCO JSON" in layout.notes
    layout = recognise(tmp_path, layout="COCO")
    assert layout.name == "COCO"
    assert tmp_path / "JPEGImages-trainval" in layout.inputs


def test_voc_leaves_masks_and_lists_of_classes_alone(tmp_path):
    layout = recognise(miniatures.voc(tmp_path))
    assert (layout.name, layout.splits) == ("VOC", {"train": ("trainval",), "val": ("test",)})
    assert images_of(layout) == {"train": ["2007_000032", "2007_000033"], "val": ["2007_000034"]}
    assert layout.open(Account()).class_names == ("aeroplane", "person")


def test_voc_without_lists_is_one_split_and_that_is_said(tmp_path):
    shutil.rmtree(miniatures.voc(tmp_path) / "ImageSets")
    layout = recognise(tmp_path)
    assert images_of(layout) == {"train": ["2007_000032", "2007_000033", "2007_000034"]}
    assert any("no ImageSets/Main" in note for note in layout.notes)


@pytest.mark.parametrize(
    ("splits", "expected"),
    [
        ("train-val-test", {"train": ("train",), "val": ("val",), "test": ("test",)}),
        ("train:train,val:test", {"train": ("train",), "val": ("test",)}),
        ("train:train+test, val:val", {"train": ("train", "test"), "val": ("val",)}),
    ],
)
def test_splits_are_made_up_as_asked(tmp_path, splits, expected):
    assert recognise(miniatures.dior(tmp_path), splits=splits).splits == expected


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"splits": "half"}, "splits=half: expected paper"),
        ({"splits": "train:trainval"}, "has no split 'trainval', only train, val, test"),
        ({"splits": "all:train"}, "'all:train', expected train:, val: and test:"),
        ({"splits": "val:train,val:test"}, "once each"),
        ({"layout": "yolo"}, "layout=yolo: no such layout, choose dior, dior-r, dota, coco, voc"),
        ({"layout": "dota"}, "has no labels of DOTA"),
        ({"layout": "coco"}, "has no COCO JSON"),
        ({"version": "1.0"}, "version=1.0: only DOTA has versions"),
    ],
)
def test_unsuitable_options_are_reported(tmp_path, options, complaint):
    with pytest.raises(DS2D2Error, match=complaint):
        recognise(miniatures.dior(tmp_path), **options)


def test_an_unknown_version_of_dota_is_reported(tmp_path):
    with pytest.raises(DS2D2Error, match=r"version=3.0: no such version of DOTA, choose 1.0, 1.5, 2.0, own"):
        recognise(miniatures.dota(tmp_path), version="3.0")


@pytest.mark.parametrize("layout", ["dota", "coco", "voc"])
def test_splits_of_every_layout_can_be_united(tmp_path, layout):
    source = getattr(miniatures, layout)(tmp_path)
    found = recognise(source, splits="train-val-test" if layout != "coco" else "paper").splits.values()
    names = [name for names in found for name in names]
    united = recognise(source, splits=f"train:{'+'.join(names[:2])}")
    assert len(images_of(united)["train"]) == {"dota": 3, "coco": 4, "voc": 2}[layout]


def test_trainval_alone_is_no_train_val_test(tmp_path):
    with pytest.raises(DS2D2Error, match="splits=paper trains on trainval"):
        recognise(miniatures.coco(tmp_path), splits="train-val-test")


def test_an_unknown_layout_is_an_error_with_what_is_expected(tmp_path):
    (tmp_path / "stuff").mkdir()
    (tmp_path / "stuff" / "notes.txt").write_text("hello")
    (tmp_path / "images.zip").write_bytes(b"PK")
    with pytest.raises(DS2D2Error) as caught:
        recognise(tmp_path)
    message = str(caught.value)
    for part in ("no known layout", "1 archives", "stuff/ (1 txt)", "DIOR (", "DOTA (", "COCO (", "VOC ("):
        assert part in message


def test_several_layouts_in_one_folder_are_reported(tmp_path):
    miniatures.dior(tmp_path / "DIOR")
    miniatures.dota(tmp_path / "DOTA")
    with pytest.raises(
        DS2D2Error, match="has the layouts of DIOR and DOTA, choose one with layout=, such as layout=dior"
    ):
        recognise(tmp_path)


def test_of_two_layouts_the_named_one_is_taken(tmp_path):
    miniatures.coco(miniatures.voc(tmp_path))
    with pytest.raises(DS2D2Error, match="has the layouts of COCO and VOC"):
        recognise(tmp_path)
    assert recognise(tmp_path, layout="coco").name == "COCO"
    assert recognise(tmp_path, layout="voc").name == "VOC"


def test_files_that_are_not_read_are_reported(tmp_path):
    miniatures.dota(tmp_path)
    shutil.rmtree(tmp_path / "val" / "labelTxt")
    count = len(list((tmp_path / "val" / "images").iterdir()))
    assert f"val/images with {count} image(s) is not read: no labels" in recognise(tmp_path).notes
    other = miniatures.coco(tmp_path / "coco")
    shutil.copyfile(other / "test.json", other / "minival.json")
    layout = recognise(other, splits="train:trainval,val:test")
    assert "minival.json is not read: in no split" in layout.notes


def test_two_data_sets_of_one_layout_are_reported(tmp_path):
    miniatures.voc(tmp_path / "VOC2007")
    miniatures.voc(tmp_path / "VOC2012")
    with pytest.raises(
        DS2D2Error, match=r"lists of splits in .*, pass the folder of one data set, such as src=.*VOC20(07|12)$"
    ):
        recognise(tmp_path)


@pytest.mark.parametrize(("make", "advice"), [(False, "pass the folder of the unpacked"), (True, "unpack it")])
def test_a_source_that_is_no_folder_is_reported(tmp_path, make, advice):
    if make:
        (tmp_path / "DIOR.zip").write_bytes(b"PK")
    with pytest.raises(DS2D2Error, match=f"no such folder, {advice}"):
        recognise(tmp_path / "DIOR.zip")


@pytest.mark.parametrize("content", ["imagesource:GF\ngsd:1\n", "", "1 2 3 ship 0\n", "nan 1 2 3 4 5 6 7 ship 0\n"])
def test_dota_labels_without_objects_have_the_usual_layout(tmp_path, content):
    source = miniatures.dota(tmp_path / "DOTA")
    for path in (source / "train" / "labelTxt").iterdir():
        path.write_text(content)
    assert set(recognise(source).splits) == {"train", "val", "test"}


def test_coco_with_names_that_are_too_long_is_recognised(tmp_path):
    source = miniatures.coco(tmp_path / "coco")
    text = (source / "trainval.json").read_text()
    (source / "trainval.json").write_text(text.replace("a.jpg", "a" * 300 + ".jpg"))
    assert recognise(source).name == "COCO"


def xml_set(root, names, classes):
    """A data set of XML files in one folder with the images, as tools write it."""
    for number, name in enumerate(names):
        boxes = [(cls, 10, 10, 40, 40) for cls in classes[number :: len(names)]]
        miniatures.write(root / "Annotations" / f"{name}.xml", miniatures.horizontal(name, boxes))
        miniatures.picture(root / "JPEGImages" / f"{name}.jpg")
        miniatures.write(root / "ImageSets/Main" / ("train.txt", "val.txt")[number % 2], f"{name}\n")
    return root


@pytest.mark.parametrize(
    ("names", "classes"),
    [
        (["000000", "000001"], ["ship", "ship"]),
        (["00000", "00001"], ["ship", "ship"]),
        (["00000", "00001"], ["ship", "vehicle"]),
        (["00000", "00001"], ["ship", "vehicle", "airplane", "dam"]),
        (["000000", "000001"], ["ship", "airplane", "vehicle", "bridge", "harbor", "dam"]),
        (["000000", "000001"], ["ship", "storagetank"]),
    ],
)
def test_a_few_classes_of_dior_are_not_dior(tmp_path, names, classes):
    layout = recognise(xml_set(tmp_path, names, classes))
    reader = layout.open(Account())
    assert (layout.name, reader.class_names) == ("VOC", tuple(sorted(set(classes))))
    (first, *_) = next(iter(reader.read("train"))).objects
    assert first.points == (9, 9, 39, 39), "VOC counts pixels from 1"
    assert layout.notes[0] == "read as VOC because of Annotations/*.xml; layout= chooses another"


@pytest.mark.parametrize(
    ("names", "classes", "why"),
    [
        (
            ["a", "b"],
            ["ship", "golffield", "trainstation"],
            "class names that only DIOR has, such as golffield and trainstation",
        ),
        (
            ["00001", "00002"],
            ["ship", "dam", "storagetank"],
            "class names that only DIOR has, such as storagetank",
        ),
    ],
)
def test_evidence_for_dior_is_reported(tmp_path, names, classes, why):
    layout = recognise(xml_set(tmp_path, names, classes))
    assert layout.name == "DIOR"
    assert layout.notes[0].startswith("read as DIOR because of ")
    assert layout.notes[0].endswith(f"{why}; layout= chooses another")


def test_a_split_of_dior_with_few_classes_is_dior_too(tmp_path):
    for split, classes in {"train": ("golffield", "trainstation", "ship"), "valid": ("ship",)}.items():
        boxes = [(cls, 10, 10, 40, 40) for cls in classes]
        miniatures.write(tmp_path / split / "a.xml", miniatures.horizontal("a", boxes))
        miniatures.picture(tmp_path / split / "a.jpg")
    layout = recognise(tmp_path)
    assert (layout.name, layout.splits) == ("DIOR", {"train": ("train",), "val": ("val",)})
    assert images_of(layout) == {"train": ["a"], "val": ["a"]}


def test_a_named_layout_needs_no_reason(tmp_path):
    layout = recognise(xml_set(tmp_path, ["a", "b"], ["ship", "ship"]), layout="dior")
    assert (layout.name, layout.notes[0]) == ("DIOR", "read as dior, as layout= states")


@pytest.mark.parametrize("task", ["detect", "obb"])
@pytest.mark.parametrize("version", [None, "1.0"])
def test_labels_of_task_2_beside_those_of_task_1_are_not_read(tmp_path, task, version):
    oriented, hull = "10 20 40 10 50 40 20 50 ship 0\n", "10 10 50 10 50 50 10 50 ship 0\n"
    for split in ("train", "val"):
        labels = tmp_path / split / "labelTxt-v1.0"
        miniatures.picture(tmp_path / split / "images" / "P1.png")
        miniatures.write(labels / "labelTxt" / "P1.txt", oriented)
        miniatures.write(labels / f"{split.title()}_Task2_gt" / f"{split}set_reclabelTxt" / "P1.txt", hull)
    layout = recognise(tmp_path, task, version=version)
    (image,) = layout.open(Account()).read("train")
    assert (layout.name, image.objects[0].points) == ("DOTA v1.0", (10, 20, 40, 10, 50, 40, 20, 50))
    assert sum("reclabelTxt is not read: its boxes (Task 2)" in note for note in layout.notes) == 2


def test_labels_of_task_2_alone_are_read(tmp_path):
    miniatures.picture(tmp_path / "train" / "images" / "P1.png")
    miniatures.write(tmp_path / "train" / "trainset_reclabelTxt" / "P1.txt", "10 10 50 10 50 50 10 50 ship 0\n")
    (image,) = recognise(tmp_path).open(Account()).read("train")
    assert image.objects[0].points == (10, 10, 50, 10, 50, 50, 10, 50)
