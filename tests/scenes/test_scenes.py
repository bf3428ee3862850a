"""The embedded data set: scenes depend only on their seed, labels fit, folders are complete or missing."""

import json
import signal
import subprocess
import sys
import threading
from collections import Counter

import cv2
import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from ds2d2_yolo.errors import DS2D2Error
from ds2d2_yolo.resources import resource_folder
from ds2d2_yolo.scenes import (
    CLASS_NAMES,
    RENDERER_VERSION,
    SCENE_KINDS,
    SceneObject,
    render_dataset,
    render_scene,
)

SMALL = {"counts": {"train": 3, "val": 2}, "size": 96, "seed": 5}
MARKER = ".ds2d2-scenes-partial.json"


def snapshot(folder):
    """Contents and modification times of all files below a folder."""
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file()}


def partials(target):
    return sorted(path.name for path in target.parent.glob(f"{target.name}.partial-*"))


def corner_array(objects):
    return np.array([item.corners for item in objects])


def numbers(path, columns):
    rows = [[float(word) for word in line.split()] for line in path.read_text().splitlines()]
    return np.array(rows).reshape(-1, columns)


# ------------------------------------------------------------------------------------------------- scenes


@pytest.mark.parametrize("kind", SCENE_KINDS)
def test_a_scene_depends_on_its_arguments_alone(kind):
    image, objects = render_scene(1, "train", 7, 128, kind)
    render_scene(1, "train", 6, 96)
    again, same_objects = render_scene(1, "train", 7, 128, kind)
    assert image.tobytes() == again.tobytes()
    assert [item.class_index for item in objects] == [item.class_index for item in same_objects]
    np.testing.assert_array_equal(corner_array(objects), corner_array(same_objects))
    assert image.shape == (128, 128, 3)
    assert image.dtype == np.uint8


@pytest.mark.parametrize("other", [(2, "train", 7), (1, "val", 7), (1, "train", 8)], ids=["seed", "split", "index"])
def test_seed_split_and_index_each_give_another_scene(other):
    image, _ = render_scene(1, "train", 7, 96, "town")
    different, _ = render_scene(*other, 96, "town")
    assert np.mean(np.abs(image.astype(int) - different)) > 5


@pytest.mark.slow
def test_every_class_occurs_and_small_objects_are_the_many():
    found, sides = Counter(), []
    for index in range(72):
        for item in render_scene(0, "train", index, 224, SCENE_KINDS[index % len(SCENE_KINDS)])[1]:
            left, top, right, bottom = item.box
            found[CLASS_NAMES[item.class_index]] += 1
            sides.append(np.sqrt((right - left) * (bottom - top)))
    assert set(found) == set(CLASS_NAMES), found
    assert np.mean(np.array(sides) < 16) > 0.4
    assert max(sides) > 90


def test_objects_are_drawn_where_their_boxes_are():
    """Vehicles have more edges than the places of mirrored labels."""
    inside, mirrored = [], []
    for index in range(10):
        image, objects = render_scene(0, "train", index, 192, "town")
        edges = np.abs(
            cv2.Laplacian(cv2.GaussianBlur(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), (0, 0), 1.0), cv2.CV_32F)
        )
        for item in objects:
            left, top, right, bottom = (round(value) for value in item.box)
            if CLASS_NAMES[item.class_index] == "vehicle":
                inside.append(edges[top:bottom, left:right].mean())
                mirrored.append(edges[top:bottom, 192 - right : 192 - left].mean())
    assert len(inside) > 100
    assert np.mean(inside) > 1.5 * np.mean(mirrored)


@pytest.mark.slow
@settings(max_examples=40)
@given(
    seed=st.integers(0, 2**40),
    index=st.integers(0, 10**6),
    size=st.sampled_from([96, 128, 161]),
    kind=st.sampled_from(SCENE_KINDS),
)
def test_objects_are_rectangles_of_which_enough_is_visible(seed, index, size, kind):
    frame = np.array([[0, 0], [size, 0], [size, size], [0, size]], np.float32)
    for item in render_scene(seed, "train", index, size, kind)[1]:
        edges = np.roll(item.corners, -1, axis=0) - item.corners
        lengths = np.linalg.norm(edges, axis=1)
        np.testing.assert_allclose(edges[0] + edges[2], 0, atol=1e-6)
        assert abs(edges[0] @ edges[1]) < 1e-6 * lengths[0] * lengths[1] + 1e-9
        assert edges[0][0] * edges[1][1] - edges[0][1] * edges[1][0] > 0, "not clockwise on the screen"
        assert lengths.min() >= 4 - 1e-6
        area, visible = cv2.intersectConvexConvex(item.corners.astype(np.float32), frame)
        assert area >= 0.4 * lengths[0] * lengths[1] * (1 - 1e-3)
        left, top, right, bottom = item.box
        assert 0 <= left < right <= size
        assert 0 <= top < bottom <= size
        assert min(right - left, bottom - top) >= 4 - 1e-6
        hull = [*visible[:, 0].min(axis=0), *visible[:, 0].max(axis=0)]
        np.testing.assert_allclose((left, top, right, bottom), hull, atol=0.01)


def test_a_truncated_object_has_the_hull_of_its_visible_part():
    diamond = np.array([[-5.0, 40.0], [5.0, 50.0], [-5.0, 60.0], [-15.0, 50.0]])
    assert SceneObject(0, diamond, 100).box == pytest.approx((0.0, 45.0, 5.0, 55.0))
    assert SceneObject(0, diamond + np.array([55.0, 0.0]), 100).box == pytest.approx((40.0, 40.0, 60.0, 60.0))


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ((-1, "train", 0), "seed=-1"),
        ((0, "train", -1), "index=-1"),
        ((0, "train", 0, 64), "size=64"),
        ((0, "train", 0, 96, "moon"), "kind=moon"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments, complaint):
    with pytest.raises(DS2D2Error, match=complaint):
        render_scene(*arguments)


# ----------------------------------------------------------------------------------------------- data set


@pytest.fixture(scope="module")
def rendered(tmp_path_factory):
    return render_dataset(tmp_path_factory.mktemp("data") / "scenes", **SMALL)


def test_files_hold_the_scenes_and_their_labels(rendered):
    size, total = SMALL["size"], Counter()
    for split, count in SMALL["counts"].items():
        assert len(list((rendered / "images" / split).iterdir())) == count
        for index in range(count):
            image, objects = render_scene(SMALL["seed"], split, index, size)
            np.testing.assert_array_equal(cv2.imread(str(rendered / f"images/{split}/{index:06d}.png")), image)
            boxes = numbers(rendered / f"labels/{split}/{index:06d}.txt", 5)
            corners = numbers(rendered / f"labels_obb/{split}/{index:06d}.txt", 9)
            classes = [item.class_index for item in objects]
            assert boxes[:, 0].tolist() == corners[:, 0].tolist() == classes
            expected = np.array([item.box for item in objects]).reshape(-1, 4) / size
            centre, extent = boxes[:, 1:3], boxes[:, 3:]
            np.testing.assert_allclose(np.hstack([centre - extent / 2, centre + extent / 2]), expected, atol=2e-6)
            oriented = np.clip(corner_array(objects).reshape(-1, 8) / size, 0, 1)
            np.testing.assert_allclose(corners[:, 1:], oriented, atol=1e-6)
            total.update(CLASS_NAMES[number] for number in classes)
    assert sum(total.values()) > 10
    manifest = json.loads((rendered / "scenes.json").read_text())
    assert sum((Counter(objects) for objects in manifest["objects"].values()), Counter()) == total
    assert manifest["renderer"] == RENDERER_VERSION
    assert (manifest["seed"], manifest["size"], manifest["counts"]) == (5, 96, SMALL["counts"])
    assert not (rendered / MARKER).exists()


def test_a_finished_folder_is_used_and_left_as_it_is(rendered):
    before = snapshot(rendered)
    assert render_dataset(str(rendered), **SMALL) == rendered
    assert snapshot(rendered) == before
    assert partials(rendered) == []


@pytest.mark.parametrize(
    "change",
    [{"seed": 6}, {"size": 97}, {"counts": {"train": 3}}, {"task": "obb"}],
    ids=lambda change: next(iter(change)),
)
def test_another_data_set_is_refused_and_left_as_it_is(rendered, change):
    before = snapshot(rendered)
    with pytest.raises(DS2D2Error, match=f"exists with {next(iter(change))}="):
        render_dataset(rendered, **{**SMALL, **change})
    assert snapshot(rendered) == before


def test_oriented_labels_are_of_the_same_objects_and_images(rendered, tmp_path):
    oriented = render_dataset(tmp_path / "oriented", **SMALL, task="obb")
    assert sorted(path.name for path in oriented.iterdir()) == ["images", "labels", "scenes.json"]
    for path in sorted((rendered / "labels_obb").rglob("*.txt")):
        place = path.relative_to(rendered / "labels_obb")
        assert (oriented / "labels" / place).read_bytes() == path.read_bytes()
        image = place.with_suffix(".png")
        assert (oriented / "images" / image).read_bytes() == (rendered / "images" / image).read_bytes()
    with pytest.raises(DS2D2Error, match="exists with task=obb instead of detect"):
        render_dataset(oriented, **SMALL)
    with pytest.raises(DS2D2Error, match="task=pose: choose one of detect, obb"):
        render_dataset(tmp_path / "other", **SMALL, task="pose")


def test_a_folder_of_the_user_is_refused_and_left_as_it_is(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("precious")
    with pytest.raises(DS2D2Error, match=r"mine: exists and is not a rendered data set \(no scenes.json\)"):
        render_dataset(tmp_path / "mine", **SMALL)
    assert [path.name for path in tmp_path.rglob("*")] == ["mine", "notes.txt"]


def test_a_finished_folder_that_lost_images_is_refused(tmp_path):
    folder = render_dataset(tmp_path / "scenes", {"train": 2}, size=96)
    (folder / "images" / "train" / "000001.png").unlink()
    with pytest.raises(DS2D2Error, match="has 1 of 2 images of the split train"):
        render_dataset(folder, {"train": 2}, size=96)


@pytest.mark.parametrize("counts", [{}, {"train": 0}, {"../train": 1}])
def test_senseless_counts_are_refused(tmp_path, counts):
    with pytest.raises(DS2D2Error, match="counts"):
        render_dataset(tmp_path / "scenes", counts)
    assert list(tmp_path.iterdir()) == []


def test_an_unwritable_place_is_reported_in_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DS2D2Error, match="file: cannot write here"):
        render_dataset(tmp_path / "file" / "scenes", **SMALL)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs a timer signal")
def test_an_interrupted_rendering_leaves_nothing(tmp_path):
    def interrupt(number, frame):
        # Python ignores exceptions during garbage collection: wait for a moment in the middle of a scene.
        if "ds2d2_yolo/scenes" not in frame.f_code.co_filename:
            signal.setitimer(signal.ITIMER_REAL, 0.005)
            return
        signal.setitimer(signal.ITIMER_REAL, 5)  # again, if OpenCV ignores this one while it chooses an overload
        raise KeyboardInterrupt

    render_dataset(tmp_path / "warm", {"train": 1}, size=96)
    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.4)
    try:
        with pytest.raises(KeyboardInterrupt):
            render_dataset(tmp_path / "scenes", {"train": 100_000}, size=96)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert [path.name for path in tmp_path.iterdir()] == ["warm"]


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs a timer signal")
def test_an_interrupt_within_opencv_does_not_crash(tmp_path):
    # Python also handles signals inside OpenCV, while OpenCV writes the error about one form of an overloaded function.
    # An exception of the handler is then ignored. In its own process, because a crash would end this one.
    script = """
import signal, numpy as np
from ds2d2_yolo.scenes.canvas import Canvas
def interrupt(number, frame):
    raise KeyboardInterrupt
signal.signal(signal.SIGALRM, interrupt)
canvas, field, caught = Canvas(np.random.default_rng(0), 96, 0.5), np.zeros((4, 4), np.uint8), 0
for index in range(3000):
    try:
        signal.setitimer(signal.ITIMER_REAL, 1e-4 + 1e-6 * (index % 97))
        while True:
            canvas.texture(((0, 0, 0), (9, 9, 9)), field)
    except KeyboardInterrupt:
        caught += 1
print(caught)
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert (ended.returncode, ended.stdout.strip()) == (0, "3000"), ended.stderr[-500:]


def test_the_room_is_imported_without_torch_and_ultralytics():
    command = (
        "import sys; from ds2d2_yolo.scenes import render_dataset, render_scene; render_scene(0, 'val', 0, 96); "
        "print({'torch', 'ultralytics'} & set(sys.modules))"
    )
    ended = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, timeout=120)
    assert (ended.stdout.strip(), ended.stderr) == ("set()", "")


def test_two_renderings_at_once_give_one_whole_data_set(tmp_path, rendered):
    start, results = threading.Barrier(2), []

    def render():
        start.wait()
        results.append(render_dataset(tmp_path / "scenes", **SMALL))

    threads = [threading.Thread(target=render) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [tmp_path / "scenes"] * 2
    assert [path.name for path in tmp_path.iterdir()] == ["scenes"]
    expected = {path.relative_to(rendered): content for path, (content, _) in snapshot(rendered).items()}
    assert {path.relative_to(results[0]): content for path, (content, _) in snapshot(results[0]).items()} == expected


def test_only_chosen_classes_are_labelled_by_their_own_numbers(tmp_path):
    both = render_dataset(tmp_path / "both", {"train": 4}, size=160, classes=CLASS_NAMES, kinds=("harbour",))
    few = render_dataset(tmp_path / "few", {"train": 4}, size=160, classes=("vehicle", "ship"), kinds=("harbour",))
    numbers = {str(CLASS_NAMES.index("vehicle")): "0", str(CLASS_NAMES.index("ship")): "1"}
    kept = 0
    for name in (f"{index:06d}" for index in range(4)):
        assert (few / f"images/train/{name}.png").read_bytes() == (both / f"images/train/{name}.png").read_bytes()
        for folder in ("labels", "labels_obb"):
            rows = [line.split(" ", 1) for line in (both / folder / "train" / f"{name}.txt").read_text().splitlines()]
            expected = [f"{numbers[number]} {rest}" for number, rest in rows if number in numbers]
            assert (few / folder / "train" / f"{name}.txt").read_text().splitlines() == expected
            kept += len(expected)
    assert kept > 8
    objects = json.loads((few / "scenes.json").read_text())["objects"]["train"]
    assert list(objects) == ["vehicle", "ship"]
    assert 2 * sum(objects.values()) == kept


def test_chosen_kinds_take_turns(tmp_path):
    folder = render_dataset(tmp_path / "turns", {"train": 4}, size=96, kinds=("sea", "town"))
    for index, kind in enumerate(("sea", "town", "sea", "town")):
        image, _ = render_scene(0, "train", index, 96, kind)
        assert np.array_equal(cv2.imread(str(folder / f"images/train/{index:06d}.png")), image)


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"classes": ("airplane", "boat")}, "no such name as boat"),
        ({"classes": ()}, "name at least one"),
        ({"kinds": ("sea", "sea")}, "none twice"),
        ({"kinds": ("moon",)}, "no such name as moon"),
    ],
)
def test_wrong_classes_and_kinds_are_refused(given, text, tmp_path):
    with pytest.raises(DS2D2Error, match=text):
        render_dataset(tmp_path / "new", {"train": 1}, size=96, **given)
    assert list(tmp_path.iterdir()) == []


# ------------------------------------------------------------------------------------------- Ultralytics


def test_ultralytics_reads_the_data_set(tmp_path, rendered):
    from ultralytics.data.dataset import YOLODataset
    from ultralytics.data.utils import check_det_dataset

    description = yaml.safe_load((resource_folder("datasets") / "scenes.yaml").read_text())
    assert tuple(description["names"].values()) == CLASS_NAMES
    (tmp_path / "scenes.yaml").write_text(yaml.safe_dump({**description, "path": str(rendered)}, sort_keys=False))
    data = check_det_dataset(str(tmp_path / "scenes.yaml"))
    assert data["nc"] == 10
    labels = YOLODataset(img_path=data["train"], data=data, task="detect", imgsz=96).labels
    lines = [len((rendered / f"labels/train/{index:06d}.txt").read_text().splitlines()) for index in range(3)]
    assert [len(label["cls"]) for label in labels] == lines
    for cache in rendered.glob("labels/*.cache"):
        cache.unlink()


@pytest.mark.parametrize("name", ["scenes", "scenes-close", "scenes-demo", "scenes-demo-obb", "scenes-obb"])
def test_the_download_of_the_yaml_renders_to_its_path(name, tmp_path):
    description = yaml.safe_load((resource_folder("datasets") / f"{name}.yaml").read_text())
    (tmp_path / "taken").mkdir()
    # Rendering all 550 images would take a minute. The refusal shows that the snippet uses this folder.
    with pytest.raises(DS2D2Error, match=f"{tmp_path / 'taken'}: exists and is not a rendered data set"):
        exec(description["download"], {"yaml": {**description, "path": tmp_path / "taken"}})
