"""Labelled and unlabelled images in one epoch: which they are, and what each counts in the student's own loss."""

import copy
from collections import Counter
from types import SimpleNamespace

import pytest
import torch
from far_device import far_device
from torch.utils.data import BatchSampler, DistributedSampler, RandomSampler
from training_helpers import batch_of, lively_model

from ds2d2_yolo.detectors import detector_of
from ds2d2_yolo.training.mixed import MixedDataset, MixedLoss, MixedSampler
from ds2d2_yolo.training.trainer import PlainTrainer


class Images(list):
    """What a data set of Ultralytics is here: samples, and the buffer of its mosaics."""

    def __init__(self, names):
        super().__init__({"name": name} for name in names)
        self.labels, self.buffer = [{"of": name} for name in names], []

    def load_image(self, index):
        self.buffer.append(index)


def mixed(labelled=4, unlabelled=10, ratio=1.0, seed=0):
    kinds = Images([f"l{i}" for i in range(labelled)]), Images([f"u{i}" for i in range(unlabelled)])
    return MixedDataset(*kinds, ratio, seed)


@pytest.mark.parametrize(("ratio", "drawn"), [(1.0, 4), (0.5, 2), (0.01, 1), (2.0, 8), (99, 10)])
def test_the_ratio_bounds_unlabelled_images(ratio, drawn):
    dataset = mixed(ratio=ratio)
    assert (len(dataset), dataset.drawn) == (4 + drawn, drawn)
    for epoch in range(3):
        assert len(set(dataset.draw(epoch))) <= drawn == len(dataset.draw(epoch))


def test_all_have_their_turn_before_one_comes_again():
    dataset = mixed(unlabelled=10, ratio=1.0)
    drawn = [number for epoch in range(5) for number in dataset.draw(epoch)]
    assert Counter(drawn) == dict.fromkeys(range(10), 2)
    assert Counter(drawn[:10]) == dict.fromkeys(range(10), 1)


def test_draws_follow_from_seed_and_epoch():
    assert [mixed().draw(e) for e in range(4)] == [mixed().draw(e) for e in range(4)]
    assert mixed(seed=1).draw(0) != mixed(seed=0).draw(0)
    assert mixed().draw(0) != mixed().draw(1)


def test_samples_say_what_they_are():
    dataset = mixed()
    assert [dataset[index]["unlabeled"] for index in (0, 3, 4, 13)] == [False, False, True, True]
    assert dataset[13]["name"] == "u9"
    assert len(dataset.labels) == 14


def test_buffers_are_restored_by_number():
    dataset = mixed()
    for index in (2, 4, 1, 13):
        dataset.load_image(index)
    assert dataset.buffer == [2, 1, 4, 13]
    again = mixed()
    for index in dataset.buffer:
        again.load_image(index)
    assert [kind.buffer for kind in again.datasets] == [kind.buffer for kind in dataset.datasets]


def epochs_of(dataset, number, start=0):
    sampler = MixedSampler(RandomSampler(dataset, generator=torch.Generator().manual_seed(0)), dataset)
    sampler.epoch = start
    batches = BatchSampler(sampler, 3, drop_last=False)
    return [[index for batch in batches for index in batch] for _ in range(number)]


def test_an_epoch_has_all_labelled_images():
    dataset = mixed()
    for epoch, indices in enumerate(epochs_of(dataset, 4)):
        assert sorted(index for index in indices if index < 4) == [0, 1, 2, 3]
        assert sorted(index - 4 for index in indices if index >= 4) == sorted(dataset.draw(epoch))


def test_a_later_epoch_has_its_own_draw():
    dataset = mixed()
    (indices,) = epochs_of(dataset, 1, start=3)
    assert sorted(index - 4 for index in indices if index >= 4) == sorted(dataset.draw(3))


def test_a_restarted_loader_draws_the_same_images_again():
    """Workers have begun an epoch when its mosaics are closed, which restarts the loader."""
    dataset = mixed()
    trainer = object.__new__(PlainTrainer)
    trainer.train_loader, trainer.args, trainer.epoch = SimpleNamespace(dataset=dataset), SimpleNamespace(), 2
    trainer._places = sampler = MixedSampler(RandomSampler(dataset), dataset)
    sampler.epoch = trainer.epoch
    first = sorted(sampler)
    trainer._close_dataloader_mosaic()
    assert sorted(sampler) == first


@pytest.mark.parametrize("epoch", [0, 1])
def test_processes_share_the_draw(epoch):
    dataset = mixed()
    seen = []
    for rank in range(2):
        places = DistributedSampler(dataset, num_replicas=2, rank=rank, seed=3)
        places.set_epoch(epoch)
        sampler = MixedSampler(places, dataset)
        sampler.epoch = epoch
        own = list(sampler)
        assert len(sampler) == len(own) == 4
        seen += own
    assert sorted(seen) == [0, 1, 2, 3, *sorted(index + 4 for index in dataset.draw(epoch))]


MODELS = ["yolov8n.yaml", "yolov10n.yaml", "yolo26n.yaml", "yolo11n-obb.yaml", "yolo26n-obb.yaml"]


@pytest.fixture(scope="module", params=MODELS)
def student(request):
    model = lively_model(request.param)
    model.args = SimpleNamespace(**vars(model.args))
    return detector_of(model.eval())  # BatchNorm would have one image change the other


def loss_of(student, batch, weights=None):
    if weights is not None:
        student.weigh_images(torch.tensor(weights))
    loss, items = student.model(batch)
    return loss, items


def part(batch, image, boxes=3):
    """One image of a batch."""
    chosen = {name: value[image * boxes : (image + 1) * boxes] for name, value in batch.items()}
    return chosen | {"img": batch["img"][image : image + 1], "batch_idx": torch.zeros(boxes)}


def test_weights_of_one_change_nothing(student):
    batch = batch_of(task=student.task)
    torch.testing.assert_close(loss_of(student, batch, [1.0, 1.0])[0], loss_of(student, batch)[0])


@pytest.mark.parametrize("image", [0, 1])
def test_an_image_of_weight_zero_is_not_there(student, image):
    batch = batch_of(task=student.task)
    alone, items = loss_of(student, part(batch, image))
    weights = [float(number == image) for number in range(2)]
    found, found_items = loss_of(student, batch, weights)
    torch.testing.assert_close(found, alone, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found_items, items, rtol=1e-4, atol=1e-5)


def test_weight_zero_leaves_the_own_loss_to_labels(student):
    batch = batch_of(task=student.task)
    alone = loss_of(student, part(batch, 0))[0]
    MixedLoss(weight=0.0).begin_step(student, batch | {"unlabeled": (False, True)})
    torch.testing.assert_close(student.model(batch)[0], alone, rtol=1e-4, atol=1e-5)


def test_weights_keep_the_mean_of_equal_images(student):
    number = 60  # with fewer of them, or smaller images, target scores sum up to less than 1: Ultralytics divides by 1
    one = part(batch_of(size=128, task=student.task, boxes=number), 0, number)
    twice = {name: torch.cat([value, value]) for name, value in one.items()}
    twice["batch_idx"] = torch.arange(2.0).repeat_interleave(number)
    alone = loss_of(student, one)[0]
    torch.testing.assert_close(loss_of(student, twice, [1.0, 0.5])[0], 1.5 * alone, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(loss_of(student, twice, [0.5, 0.5])[0], alone, rtol=1e-4, atol=1e-5)


def test_a_batch_without_objects_can_be_weighed(student):
    batch = batch_of(task=student.task)
    empty = {name: value if name == "img" else value[:0] for name, value in batch.items()}
    expected = loss_of(student, empty)[0]
    torch.testing.assert_close(loss_of(student, empty, [0.5, 0.5])[0], 0.25 * expected, rtol=1e-4, atol=1e-5)


def test_weights_last_for_one_pass(student):
    batch = batch_of(task=student.task)
    expected = loss_of(student, batch)[0]
    loss_of(student, batch, [1.0, 0.0])
    torch.testing.assert_close(loss_of(student, batch)[0], expected)
    assert not student.model._forward_hooks


def test_gradients_come_from_weighed_images_alone(student):
    batch = batch_of(task=student.task)
    batch["img"].requires_grad_(True)
    loss_of(student, batch, [1.0, 0.0])[0].sum().backward()
    assert batch["img"].grad[0].any()
    assert not batch["img"].grad[1].any()


def test_half_precision_can_be_weighed(student):
    """As in mixed precision: sums in bfloat16 differ by up to a per cent."""
    batch = batch_of(task=student.task, boxes=20)
    with torch.autocast("cpu", torch.bfloat16):
        alone = loss_of(student, part(batch, 0, 20))[0]
        found = loss_of(student, batch, [1.0, 0.0])[0]
    torch.testing.assert_close(found.float(), alone.float(), rtol=0.03, atol=0.01)


def test_images_are_weighed_on_another_device(student):
    def loss_and_columns(student, batch):
        loss = MixedLoss(weight=0.5)
        loss.begin_step(student, batch)
        return student.model(batch)[0].tolist(), loss.columns(gain=0.5)

    batch, kinds = batch_of(task=student.task), {"unlabeled": (False, True)}
    expected = loss_and_columns(student, batch | kinds)
    far = copy.deepcopy(student.model)
    far.criterion = None  # it keeps the device of its model
    with far_device() as device:
        loss, columns = loss_and_columns(
            detector_of(far.to(device)), {name: value.to(device) for name, value in batch.items()} | kinds
        )
    assert loss == pytest.approx(expected[0], rel=1e-4)
    assert columns == pytest.approx(expected[1], rel=1e-4)


def test_both_kinds_are_counted_apart(student):
    batch = batch_of(task=student.task) | {"unlabeled": (False, True)}
    loss = MixedLoss(weight=0.5)
    for _ in range(2):
        loss.begin_step(student, batch)
        student.model(batch)
    columns = loss.columns(gain=student.model.args.cls)
    assert columns["labeled/images"] == columns["unlabeled/images"] == 2
    assert columns["labeled/boxes"] == columns["unlabeled/boxes"] == 3
    criterion = getattr(student.model.criterion, "one2many", student.model.criterion)
    seen = []
    handle = criterion.assigner.register_forward_hook(lambda *values: seen.append(values[-1][2].sum().item()))
    for image, kind in enumerate(("labeled", "unlabeled")):
        alone = part({name: value for name, value in batch.items() if name != "unlabeled"}, image)
        raw = student.model(alone["img"])[1]
        _, items = criterion.loss(raw.get("one2many", raw), alone)
        expected = items["cls_loss"].item() * max(1, seen[-1]) / (max(1, 2 * seen[-1]) / 2)
        assert columns[f"{kind}/cls"] == pytest.approx(expected, rel=1e-3)
    handle.remove()
    loss.start_epoch()
    assert loss.columns(1.0)["labeled/images"] == 0
