"""Data sets of a few tiny images in the layouts of DIOR, DOTA, COCO and VOC, with the errors of the real ones."""

import json

import numpy as np
from PIL import Image

DIOR_BOXES = {
    "train": {"00001": [("golffield", 13, 23, 68, 67), ("vehicle", 0, 0, 9, 9)]},
    # The second box of 04137 has no area, the third is outside of the image: both occur in DIOR.
    "val": {"04137": [("ship", 20, 30, 40, 70), ("ship", 52, 48, 53, 48), ("harbor", 90, 90, 120, 80 + 40)]},
    "test": {"11759": [("Expressway-toll-station", 1, 1, 80, 80)], "14558": []},
}
SIDE = 80  # pixels


def picture(path, size=(SIDE, SIDE), seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), np.uint8)
    Image.fromarray(pixels).save(path)


def write(path, text, newline="\n"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.replace("\n", newline).encode())


def horizontal(name, boxes, size=SIDE, depth=3):
    objects = "".join(
        f"<object><name>{cls}</name><pose>Unspecified</pose><bndbox><xmin>{x1}</xmin><ymin>{y1}</ymin>"
        f"<xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>\n"
        for cls, x1, y1, x2, y2 in boxes
    )
    return (
        f"<annotation>\n<filename>{name}.jpg</filename><source><database>DIOR</database></source>\n"
        f"<size><width>{size}</width><height>{size}</height><depth>{depth}</depth></size>\n{objects}</annotation>\n"
    )


def oriented(name, boxes, size=SIDE):
    corners = ("left_top", "right_top", "right_bottom", "left_bottom")
    objects = ""
    for cls, x1, y1, x2, y2 in boxes:
        places = zip(corners, ((x1, y1), (x2, y1), (x2, y2), (x1, y2)), strict=True)
        numbers = "".join(f"<x_{where}>{x}</x_{where}><y_{where}>{y}</y_{where}>" for where, (x, y) in places)
        objects += (
            f"<object><type>robndbox</type><name>{cls}</name><difficult>0</difficult>"
            f"<robndbox>{numbers}</robndbox><angle>0</angle></object>\n"
        )
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n<annotation><folder>/JPEGImages-trainval.zip</folder>\n'
        f"<size><width>{size}</width><height>{size}</height><depth>3</depth></size>\n{objects}</annotation>\n"
    )


def dior(root, both=True):
    """DIOR as unpacked: two folders of annotations, lists with CRLF, a depth of 1, invalid boxes."""
    for split, images in DIOR_BOXES.items():
        write(root / "ImageSets" / "Main" / f"{split}.txt", "".join(f"{name}\n" for name in images), newline="\r\n")
        for name, boxes in images.items():
            depth = 1 if name == "14558" else 3
            write(root / "Annotations/Horizontal Bounding Boxes" / f"{name}.xml", horizontal(name, boxes, depth=depth))
            if both:
                # Oriented boxes of DIOR-R begin at -1 if they touch the edge.
                turned = [(cls, x1 - (x1 == 0), *rest) for cls, x1, *rest in boxes]
                write(root / "Annotations/Oriented Bounding Boxes" / f"{name}.xml", oriented(name, turned))
            folder = "JPEGImages-test" if split == "test" else "JPEGImages-trainval"
            picture(root / folder / f"{name}.jpg")
    return root


DOTA_LABELS = {
    "P0001": "imagesource:GoogleEarth\ngsd:0.25\n10 10 30 10 30 20 10 20 ship 0\n"
    "40.0 40.0 60.0 45.0 58.0 55.0 38.0 50.0 small-vehicle 1\n",
    "P0002": "imagesource:GF\ngsd:1\n",
    "P0003": "5 5 25 5 25 25 5 25 harbor 2\n",
}


def dota(root, labels="labelTxt", added=""):
    """DOTA as unpacked: CRLF, headers present or absent, difficult objects, a test set without labels."""
    for split, names in {"train": ["P0001", "P0002"], "val": ["P0003"]}.items():
        for name in names:
            write(root / split / labels / f"{name}.txt", DOTA_LABELS[name] + added * (name == "P0001"), newline="\r\n")
            picture(root / split / "images" / f"{name}.png", (100, 70))
    picture(root / "test" / "images" / "P0004.png", (100, 70))
    return root


COCO_CATEGORIES = [{"id": 0, "name": "ship"}, {"id": 7, "name": "truck"}, {"id": 3, "name": "dog"}]


def coco(root):
    """COCO JSON as for MMDetection: ids with gaps and from 0, crowds, images without objects."""
    numbers = iter(range(100))

    def entry(image, category, box, **more):
        return {"id": next(numbers), "image_id": image, "category_id": category, "bbox": box, "iscrowd": 0, **more}

    contents = {
        "trainval": (
            ["a.jpg", "b.jpg"],
            [entry(0, 7, [10, 10, 20, 30]), entry(0, 0, [0.5, 0.5, 10.25, 10]), entry(1, 3, [1, 1, 70, 70], iscrowd=1)],
        ),
        "test": (["a2.jpg", "c.jpg"], [entry(0, 3, [10, 10, 5, 5]), entry(0, 0, [10, 10, 0, 5])]),
    }
    for split, (names, entries) in contents.items():
        images = [{"id": i, "file_name": name, "width": SIDE, "height": SIDE} for i, name in enumerate(names)]
        text = json.dumps({"info": {}, "images": images, "annotations": entries, "categories": COCO_CATEGORIES})
        write(root / f"{split}.json", text)
        for name in names:
            picture(root / split / name)
    return root


def voc(root):
    """PASCAL VOC: lists of single classes beside those of the splits, masks of the same names as the images."""
    for split, name in (("train", "2007_000032"), ("val", "2007_000033"), ("test", "2007_000034")):
        text = horizontal(name, [("aeroplane", 1, 1, 40, 40), ("person", 11, 11, 80, 80)])
        write(root / "Annotations" / f"{name}.xml", text.replace("<pose>", "<difficult>1</difficult><pose>", 1))
        write(root / "ImageSets/Main" / f"{split}.txt", f"{name}\n")
        write(root / "ImageSets/Main" / f"aeroplane_{split}.txt", f"{name}  1\n")
        write(root / "ImageSets/Segmentation" / f"{split}.txt", f"{name}\n")
        picture(root / "JPEGImages" / f"{name}.jpg")
        picture(root / "SegmentationClass" / f"{name}.png")
    write(root / "ImageSets/Main/trainval.txt", "2007_000032\n2007_000033\n")
    return root
