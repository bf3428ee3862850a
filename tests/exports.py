"""Data sets of a few tiny images in the formats of annotation tools. Each has at least one train and one val image."""

import json

from miniatures import SIDE, horizontal, picture, write

BOX = (10, 20, 40, 60)  # x1, y1, x2, y2 in pixels


def coco_content(names, categories=("car", "truck"), folder="", **entry):
    """An instances file in which each image has one object of each category."""
    images = [{"id": i, "file_name": f"{folder}{name}", "width": SIDE, "height": SIDE} for i, name in enumerate(names)]
    x1, y1, x2, y2 = BOX
    objects = [
        {"image_id": image["id"], "category_id": number, "bbox": [x1, y1, x2 - x1, y2 - y1], "iscrowd": 0, **entry}
        for image in images
        for number in range(1, len(categories) + 1)
    ]
    for number, item in enumerate(objects, start=1):
        item["id"] = number
    listed = [{"id": number, "name": name} for number, name in enumerate(categories, start=1)]
    return {"images": images, "annotations": objects, "categories": listed}


def roboflow_coco(root):
    for split in ("train", "valid", "test"):
        content = coco_content([f"{split}{i}_jpg.rf.0a.jpg" for i in range(2)])
        for category in content["categories"]:
            category["supercategory"] = "vehicles"
        content["categories"].insert(0, {"id": 0, "name": "vehicles", "supercategory": "none"})
        write(root / split / "_annotations.coco.json", json.dumps({"info": {}, "licenses": [], **content}))
        for image in content["images"]:
            picture(root / split / image["file_name"])
    return root


def roboflow_voc(root):
    for split, classes in (("train", ("car", "truck")), ("valid", ("bus",)), ("test", ("car",))):
        for i in range(2):
            name = f"{split}{i}_jpg.rf.0a"
            write(root / split / f"{name}.xml", horizontal(name, [(cls, *BOX) for cls in classes]))
            picture(root / split / f"{name}.jpg")
    return root


def rolabelimg(root, angle=0.0):
    for name, split in (("000000", "train"), ("000001", "val")):
        box = f"<robndbox><cx>30.0</cx><cy>40.0</cy><w>40.0</w><h>20.0</h><angle>{angle}</angle></robndbox>"
        turned = f"<object><type>robndbox</type><name>ship</name><difficult>0</difficult>{box}</object>\n"
        text = horizontal(name, [("boat", *BOX)]).replace("</annotation>", f"{turned}</annotation>")
        write(root / "Annotations" / f"{name}.xml", text)
        write(root / "ImageSets/Main" / f"{split}.txt", f"{name}\n")
        picture(root / "JPEGImages" / f"{name}.jpg")
    return root


def coco_of_the_authors(root):
    """The folder `annotations` of COCO: captions, keypoints, stuff and panoptic files beside instances."""
    for split in ("train2017", "val2017"):
        names = [f"{split}_{i}.jpg" for i in range(2)]
        content = coco_content(names)
        for name in names:
            picture(root / split / name)
        captions = [{"image_id": 0, "id": 1, "caption": "A car."}]
        segments = [
            {"image_id": 0, "file_name": "a.png", "segments_info": [{"id": 1, "category_id": 1, "bbox": [0] * 4}]}
        ]
        others = {
            "captions": {"info": {}, "images": content["images"], "annotations": captions},
            "person_keypoints": {
                "info": {},
                **content,
                "categories": [{"id": 1, "name": "person", "keypoints": ["eye"]}],
            },
            "stuff": {"info": {}, **content, "categories": [{"id": 92, "name": "banner"}]},
            "panoptic": {"info": {}, **content, "annotations": segments},
            "instances": {"info": {}, **content},
        }
        for kind, other in others.items():
            write(root / "annotations" / f"{kind}_{split}.json", json.dumps(other))
    return root


def cvat_coco(root):
    content = coco_content(["a.jpg", "b.jpg"], segmentation=[])
    write(root / "annotations" / "instances_default.json", json.dumps({"licenses": [], "info": {}, **content}))
    for name in ("a.jpg", "b.jpg"):
        picture(root / "images" / "default" / name)
    return root


def cvat_voc(root):
    """Images in folders, of the same names, and a list called default."""
    names = ["one/a", "two/a"]
    for name in names:
        write(root / "Annotations" / f"{name}.xml", horizontal(name, [("car", *BOX)]))
        picture(root / "JPEGImages" / f"{name}.png")
    write(root / "ImageSets/Main/default.txt", "".join(f"{name}\n" for name in names))
    return root


def label_studio(root):
    """Absolute paths of the server, an upload's prefix before the names, no size."""
    names = ["0a1b2c3d-a.jpg", "4e5f6a7b-b%20c.jpg"]
    content = coco_content(names, folder="/label-studio/data/media/upload/1/")
    for image in content["images"]:
        image |= {"width": 0, "height": None}
    write(root / "result.json", json.dumps(content))
    picture(root / "images" / "a.jpg")
    picture(root / "images" / "4e5f6a7b-b c.jpg")
    return root


def own_dota(root):
    """DOTA's format with its own classes, blanks in their names, and upper-case suffixes."""
    for split in ("train", "valid"):
        for i in range(2):
            lines = "10 20 40 20 40 60 10 60 oil tank 0\n5 5 20 5 20 20 5 20 Pier 1\n"
            write(root / split / "labelTxt" / f"{split}{i}.TXT", lines)
            picture(root / split / "images" / f"{split}{i}.PNG")
    return root


_MAKERS = (
    *(roboflow_coco, roboflow_voc, rolabelimg, cvat_coco, coco_of_the_authors, cvat_voc),
    *(label_studio, own_dota),
)
ALL = {make.__name__: make for make in _MAKERS}
