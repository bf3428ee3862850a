"""Checks of undocumented behaviour of Ultralytics that this package relies on, one check for each.

If a release of Ultralytics fails a check, this package must change. `ds2d2 checks` runs them on the user's machine, and
the tests run the same ones. The checks import from Ultralytics inside functions, so that a missing name fails a check.
"""

from __future__ import annotations

import ast
import inspect
import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import cv2
import numpy as np
import torch

from ds2d2_yolo.errors import message_of

Check = Callable[[Path], None]
"""Takes an empty folder. Raises an exception of any type if the check fails.

The first paragraph of its docstring is the expected behaviour. The text after "Without it:" is what fails otherwise.
"""

CHECKS: list[Check] = []


class DoesNotHold(Exception):
    """A check has failed. The message is the actual behaviour."""


@dataclass(frozen=True)
class Outcome:
    """Result of a check.

    Attributes:
        holds (str): The expected behaviour.
        without (str): What fails without it.
        failure (str | None): The actual behaviour in one line. None if the check passed.
    """

    holds: str
    without: str
    failure: str | None


def run_checks(checks: Iterable[Check]) -> Iterator[Outcome]:
    """Run checks, each in an empty temporary folder.

    Args:
        checks (Iterable[Check]): The checks, usually `CHECKS`.

    Yields:
        (Outcome): The result of each check, as soon as it ends.

    Example:
        >>> [outcome.failure for outcome in run_checks([models_return_losses])]
        [None]
    """
    for check in checks:
        holds, _, without = inspect.cleandoc(check.__doc__ or check.__name__).partition("\n\nWithout it: ")
        failure = None
        with TemporaryDirectory() as folder, _silence():
            try:
                check(Path(folder))
            except DoesNotHold as error:
                failure = message_of(error)
            except Exception as error:  # another release can raise any type
                failure = f"{type(error).__name__}: {message_of(error)}"
        yield Outcome(" ".join(holds.split()), " ".join(without.split()), failure)


@contextmanager
def _silence() -> Iterator[None]:
    """Hide Ultralytics' log messages and progress bars, such as a summary for every new model."""
    logger = logging.getLogger("ultralytics")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)


def _relied_on(check: Check) -> Check:
    CHECKS.append(check)
    return check


def _need(found: object, otherwise: str) -> None:
    if not found:
        raise DoesNotHold(otherwise)


def _need_order(function: Callable[..., Any], *parts: str) -> None:
    """Raise unless the source of a function has the parts in this order."""
    text = inspect.getsource(function)
    end = 0
    for part in parts:
        place = text.find(part, end)
        _need(place >= 0, f"{function.__qualname__}: '{part}' is missing, or in another place")
        end = place + len(part)


@_relied_on
def imported_names_exist(folder: Path) -> None:
    """Every name that this package imports from Ultralytics exists.

    Without it: commands that need the name end with an ImportError.
    """
    missing = []
    package = Path(__file__).parents[1]
    for path in sorted(package.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and str(node.module).split(".")[0] == "ultralytics":
                missing += [
                    f"{node.module}.{alias.name} ({path.relative_to(package)})"
                    for alias in node.names
                    if not _exists(str(node.module), alias.name)
                ]
    _need(not missing, f"missing: {', '.join(missing)}")


def _exists(module: str, name: str) -> bool:
    try:
        return hasattr(import_module(module), name) or bool(import_module(f"{module}.{name}"))
    except ImportError:
        return False


@_relied_on
def overridden_methods_are_as_they_were(folder: Path) -> None:
    """Methods of trainers and validators that this package extends exist, with the same arguments.

    Without it: trainings stop with an error, or Ultralytics does not call the distillation.
    """
    from ds2d2_yolo.training.amplifier import AmplifierTrainer
    from ds2d2_yolo.training.student import StudentTrainer
    from ds2d2_yolo.training.validation import DistillationValidator

    wrong = set()
    for kind in (StudentTrainer, AmplifierTrainer, DistillationValidator):
        theirs = [base for base in kind.__mro__ if base.__module__.startswith("ultralytics.")]
        for name, ours in _extending_methods(kind).items():
            method = next((vars(base)[name] for base in theirs if name in vars(base)), None)
            if method is None or _arguments(method) != _arguments(ours):
                wrong.add(f"{theirs[0].__name__}.{name}")
    _need(not wrong, f"missing, or with other arguments: {', '.join(sorted(wrong))}")


def _extending_methods(kind: type) -> dict[str, Callable[..., Any]]:
    """Return by name the methods of this package's trainer or validator that call the method of Ultralytics."""
    methods: dict[str, Callable[..., Any]] = {}
    for base in kind.__mro__:
        if base.__module__.startswith("ds2d2_yolo."):
            methods |= {name: value for name, value in vars(base).items() if inspect.isfunction(value)}
    # If several classes of this package have a method, the last one extends Ultralytics' method
    return {
        name: method
        for name, method in methods.items()
        if not name.startswith("__") and f"super().{name}(" in inspect.getsource(method)
    }


def _arguments(method: Callable[..., Any]) -> list[str]:
    return list(inspect.signature(method).parameters)


@_relied_on
def unknown_arguments_are_refused(folder: Path) -> None:
    """A configuration refuses arguments that its defaults lack, and accepts those that they have.

    Without it: arguments of this package are lost, or mistyped ones are ignored.
    """
    from ultralytics.cfg import get_cfg
    from ultralytics.utils import DEFAULT_CFG_DICT

    try:
        get_cfg(overrides={"teacher": "x.pt"})
    except SyntaxError:
        pass
    else:
        raise DoesNotHold("get_cfg accepts an argument that its defaults lack")
    config = get_cfg({**DEFAULT_CFG_DICT, "teacher": None}, {"teacher": "x.pt"})
    _need(config.teacher == "x.pt", "get_cfg loses an argument that its defaults have")


@_relied_on
def the_set_up_has_its_order(folder: Path) -> None:
    """A trainer sets attributes of the model before it creates optimiser and EMA, and resumes last.

    Without it: adapters are not trained or not saved, and resumed runs lose their state.
    """
    from ultralytics.engine.trainer import BaseTrainer

    parts = ["self.setup_model()", "self.set_model_attributes()", "freeze_list", "DistributedDataParallel"]
    parts += ["self.auto_batch()", "self._build_train_pipeline()", "ModelEMA(", "self.resume_training("]
    _need_order(BaseTrainer._setup_train, *parts)


@_relied_on
def frozen_layers_keep_their_statistics(folder: Path) -> None:
    """BatchNorm statistics of layers that `freeze` names do not change.

    Without it: frozen layers change, also those of public backbones.
    """
    from ultralytics.engine.trainer import BaseTrainer

    _need_order(BaseTrainer._model_train, ".train()", "self.freeze_layer_names", "BatchNorm2d", ".eval()")


@_relied_on
def a_step_has_its_order(folder: Path) -> None:
    """A batch is prepared right before the model is called with it. Steps, saving and stopping keep their order.

    Without it: terms are computed for the wrong batch or in float32, and resuming is not exact.
    """
    from ultralytics.engine.trainer import BaseTrainer

    for parts in (
        ("self.optimizer.zero_grad()", "while True", '"on_train_epoch_start"', "self.accumulate = max("),
        ("with autocast(", "self.preprocess_batch(batch)", "self.model(batch)"),
        ("self.model(batch)", "loss.sum()", "self.loss *= self.world_size"),
        ("ni - last_opt_step >= self.accumulate", "self.optimizer_step()", '"on_train_batch_end"'),
        ("self.stop |=", "self.save_model()", '"on_fit_epoch_end"'),
        ("last_opt_step = -1", "mosaic_closed = not self.args.close_mosaic", "self.train_loader.reset()"),
        ("mosaic_closed = True", "self._close_dataloader_mosaic()", "self.train_loader.reset()"),
        ("self._build_train_pipeline()", "self.validator.dataloader = self.test_loader"),
    ):
        _need_order(BaseTrainer._do_train, *parts)


@_relied_on
def losses_are_normalised_in_each_process(folder: Path) -> None:
    """Each process divides its losses by the target scores of its own images.

    Without it: implicit terms have another weight on several GPUs than on one.
    """
    from ultralytics.utils import loss

    _need_order(loss.v8DetectionLoss, "target_scores.sum()")
    _need("all_reduce" not in inspect.getsource(loss), "losses are normalised over all processes")


@_relied_on
def checkpoints_go_to_three_places(folder: Path) -> None:
    """Checkpoints are written to last.pt, best.pt and the weights folder, and last.pt is stripped at the end.

    Without it: a killed run can leave an incomplete checkpoint, and finished models keep their adapters.
    """
    from ultralytics.engine.trainer import BaseTrainer
    from ultralytics.utils.torch_utils import strip_optimizer

    _need_order(BaseTrainer.save_model, "self.last.write_bytes", "self.best.write_bytes", "(self.wdir / f")
    _need_order(BaseTrainer.final_eval, "strip_optimizer(self.last)")
    _need(_arguments(strip_optimizer)[:2] == ["f", "s"], "strip_optimizer has other arguments")


@_relied_on
def resumed_runs_start_from_the_ema(folder: Path) -> None:
    """A resumed run loads the EMA of the checkpoint, and creates its loss again.

    Without it: resumed runs do not continue at the same point.
    """
    from ultralytics.engine.trainer import BaseTrainer

    _need_order(BaseTrainer._load_checkpoint_state, "load_state_dict(ckpt", 'ckpt["ema"]', 'ckpt["updates"]')
    _need_order(BaseTrainer.resume_training, "model.init_criterion()")
    _need_order(BaseTrainer.check_resume, "FileNotFoundError")


@_relied_on
def loaders_can_be_continued(folder: Path) -> None:
    """The image order of a loader depends on its generator, and its iterator can be replaced.

    Without it: resumed runs use other images than an uninterrupted run.
    """
    from ultralytics.data.build import InfiniteDataLoader

    _need_order(InfiniteDataLoader.__iter__, "if self.iterator is None", "next(self.iterator)")
    dataset: Any = list(range(4))
    loader: Any = InfiniteDataLoader(dataset, batch_size=2, shuffle=True, generator=torch.Generator())
    _need(loader.sampler.generator is loader.generator, "the sampler has another generator than the loader")
    _need(list(loader.batch_sampler.sampler), "the loader has no sampler")


@_relied_on
def samplers_can_be_replaced(folder: Path) -> None:
    """A training loader uses torch's batch sampler, and the sampler inside can be replaced.

    Without it: epochs contain the wrong unlabelled images.
    """
    from ultralytics.data import build_dataloader

    loader: Any = build_dataloader(list(range(4)), batch=2, workers=0, device=torch.device("cpu"))  # type: ignore[arg-type]
    loader.batch_sampler.sampler.sampler = [3, 3, 0, 1]
    found = [[int(number) for number in batch] for batch in loader]
    _need(found == [[3, 3], [0, 1]], f"batches of {found}")


@_relied_on
def models_return_losses(folder: Path) -> None:
    """A model called with a batch returns a vector of losses and a dictionary of named scalars.

    Without it: terms cannot be added to the loss.
    """
    model = _model("yolo26n.yaml")
    loss, items = model(_batch())
    _need(loss.shape == (3,), f"the losses have the shape {tuple(loss.shape)}")
    wrong = [name for name, value in items.items() if not name.endswith("_loss") or value.dim()]
    _need(not wrong, f"no scalar loss: {', '.join(wrong)}")


@_relied_on
def heads_take_maps(folder: Path) -> None:
    """A head's one-to-many branch predicts boxes and classes from any feature maps.

    Without it: implicit terms and amplifiers cannot be computed.
    """
    for name in ("yolov8n.yaml", "yolo26n.yaml"):
        head = _model(name).model[-1]
        _need_predictions(name, head.forward_head(_maps(), **head.one2many))


@_relied_on
def validation_images_have_two_sizes(folder: Path) -> None:
    """Validation batches of twice the size and stride hold the same images, in rectangles of twice the sides.

    Without it: `val_kd` with `teacher_imgsz` compares different images.
    """
    from ultralytics.data import build_yolo_dataset
    from ultralytics.utils import DEFAULT_CFG
    from ultralytics.utils.patches import override_configs

    for number, (width, height) in enumerate(((90, 40), (40, 90), (64, 64), (50, 30))):
        cv2.imwrite(str(folder / f"{number}.jpg"), np.zeros((height, width, 3), np.uint8))
    sets = []
    for size in (64, 128):
        with override_configs(copy(DEFAULT_CFG), {"imgsz": size}) as args:
            data = {"names": {0: "object"}, "channels": 3}
            sets.append(build_yolo_dataset(args, str(folder), 2, data, mode="val", rect=True, stride=size // 2))
    small, large = cast(Any, sets)
    _need(small.im_files == large.im_files, "the images are in another order")
    _need((2 * small.batch_shapes == large.batch_shapes).all(), "the rectangles have other sides")


@_relied_on
def assigners_tell_what_is_foreground(folder: Path) -> None:
    """An assigner gets scores and boxes in pixels. Its fourth output is the mask of foreground anchors.

    Without it: implicit terms are normalised wrongly, and `assignment=teacher` fails.
    """
    for name in ("yolov8n.yaml", "yolo26n.yaml"):
        model = _model(name)
        seen: list[tuple[torch.Tensor, ...]] = []
        criterion = model.criterion = model.init_criterion()
        # `o2m` is the weight of the one-to-many loss
        twofold = {"o2m": hasattr(criterion, "o2m"), "one2many": hasattr(criterion, "one2many")}
        _need(set(twofold.values()) == {name == "yolo26n.yaml"}, f"{name}: its loss has {twofold}")
        assigner = getattr(criterion, "one2many", criterion).assigner
        assigner.register_forward_hook(lambda _, inputs, output, seen=seen: seen.append((*inputs[:2], output[3])))
        model(_batch())
        scores, boxes, foreground = seen[0]
        _need(foreground.dtype is torch.bool, f"{name}: the fourth output is {foreground.dtype}")
        _need(scores.shape == (*foreground.shape, 2), f"{name}: the first input is {tuple(scores.shape)}")
        _need(boxes.shape == (*foreground.shape, 4), f"{name}: the second input is {tuple(boxes.shape)}")
        _need(boxes.max() > 32, f"{name}: boxes are not in pixels")  # an image of 64 pixels has 8 cells a side
        _need(0 <= scores.min() <= scores.max() <= 1, f"{name}: scores are not probabilities")


@_relied_on
def losses_can_weigh_images(folder: Path) -> None:
    """A YOLO loss weights objects by the assigner's target scores, and computes its class part in a module `bce`.

    Without it: `unlabeled_weight` has no effect or a wrong one.
    """
    from ds2d2_yolo.detectors import WeighsImages, detector_of

    for name in ("yolov8n", "yolov10n", "yolo26n", "yolo11n-obb", "yolo26n-obb"):
        model = _model(f"{name}.yaml").eval()  # with BatchNorm in training mode, one image would affect the other
        batch: dict[str, torch.Tensor] = _batch() | {
            "bboxes": torch.tensor([[0.5, 0.5, 0.4, 0.2], [0.4, 0.4, 0.8, 0.6]])
        }
        if name.endswith("obb"):
            batch["bboxes"] = torch.cat([batch["bboxes"], torch.full((2, 1), 0.3)], 1)
        first = {key: value[:1] for key, value in batch.items()}
        detector = detector_of(model)
        assert isinstance(detector, WeighsImages)
        expected = model(first)[0]
        detector.weigh_images(torch.tensor([1.0, 0.0]))
        found = model(batch)[0]
        _need(torch.allclose(found, expected, rtol=1e-3), f"{name}: {found.tolist()} instead of {expected.tolist()}")


@_relied_on
def raw_predictions_are_returned(folder: Path) -> None:
    """A head returns raw predictions in training mode. In evaluation mode they are the second of two outputs.

    Without it: a teacher's predictions cannot be read.
    """
    for name in ("yolov8n", "yolov10n", "yolo26n", "yolo11n-obb", "yolo11n-seg", "yolo11n-pose"):
        head = _model(f"{name}.yaml").model[-1]
        for raw in (head.train()(_maps()), head.eval()(_maps())[1]):
            _need_predictions(name, raw.get("one2many", raw))


@_relied_on
def autobatch_calls_the_model(folder: Path) -> None:
    """AutoBatch copies the trainer's model and calls it with images.

    Without it: `batch=-1` does not measure the memory of teacher and terms.
    """
    from ultralytics.engine.trainer import BaseTrainer
    from ultralytics.models.yolo.detect import DetectionTrainer
    from ultralytics.utils.autobatch import check_train_batch_size
    from ultralytics.utils.torch_utils import profile_ops

    _need_order(BaseTrainer.auto_batch, "model=self.model")
    _need_order(check_train_batch_size, "deepcopy(model).train()")
    _need_order(profile_ops, "y = m(x)", ".backward()", "m.stride", "m.names")
    _need_order(DetectionTrainer.build_dataset, "unwrap_model(self.model).stride")


@_relied_on
def data_sets_are_described(folder: Path) -> None:
    """A data YAML can be read and a label can be verified without download or training.

    Without it: `ds2d2 check` and the checks before a training cannot read data sets.
    """
    from ultralytics.data.utils import check_det_dataset, verify_image_label

    for split in ("train", "val"):
        (folder / "images" / split).mkdir(parents=True)
        (folder / "labels" / split).mkdir(parents=True)
        cv2.imwrite(str(folder / "images" / split / "0.png"), np.zeros((64, 64, 3), np.uint8))
        (folder / "labels" / split / "0.txt").write_text("0 0.5 0.5 0.4 0.2\n1 0.4 0.4 0.2 0.2\n")
    path = folder / "data.yaml"
    path.write_text(f"path: {folder.as_posix()}\ntrain: images/train\nval: images/val\nnames: [ship, vehicle]\n")
    lacking = {"train", "val", "names", "nc", "channels", "path"} - check_det_dataset(str(path), False, "val").keys()
    _need(not lacking, f"check_det_dataset returns no {', '.join(sorted(lacking))}")
    image, label = str(folder / "images" / "train" / "0.png"), str(folder / "labels" / "train" / "0.txt")
    good = verify_image_label((image, label, "", False, 2, 0, 0, False))
    _need(good[0] == image and len(good[1]) == 2, "verify_image_label returns no file and labels")
    wrong = folder / "wrong.txt"
    wrong.write_text("0 5 5 4 2\n")
    bad = verify_image_label((image, str(wrong), "", False, 2, 0, 0, False))
    _need(bad[0] is None, "verify_image_label accepts boxes outside of the image")


@_relied_on
def images_are_left_out(folder: Path) -> None:
    """A data set names the label files of all its images, and leaves out images with wrong labels.

    Without it: a training in which most images are left out is not refused.
    """
    from ultralytics.data.dataset import YOLODataset

    (folder / "images").mkdir()
    (folder / "labels").mkdir()
    for number, text in enumerate(("0 0.5 0.5 0.4 0.2\n", "5 0.5 0.5 0.4 0.2\n")):
        cv2.imwrite(str(folder / "images" / f"{number}.png"), np.zeros((64, 64, 3), np.uint8))
        (folder / "labels" / f"{number}.txt").write_text(text)
    data = {"names": {0: "ship"}, "nc": 1, "channels": 3}
    found = YOLODataset(img_path=str(folder / "images"), data=data, task="detect", imgsz=64, augment=False)
    counts = len(found.label_files), len(found.im_files)
    _need(counts == (2, 1), f"a data set has {counts} label files and images instead of (2, 1)")


@_relied_on
def checkpoints_load_safely(folder: Path) -> None:
    """A checkpoint can be loaded without running code in it.

    Without it: `safe=True` fails.
    """
    from ultralytics.nn.tasks import load_checkpoint, torch_safe_load

    _need("safe_only" in _arguments(torch_safe_load), "torch_safe_load has no argument safe_only")
    _need(_arguments(load_checkpoint)[0] == "weight", "load_checkpoint has other arguments")


def _model(name: str) -> Any:
    """Return a new model with two classes, as a trainer builds it."""
    from ultralytics.nn import tasks
    from ultralytics.utils import DEFAULT_CFG

    kinds = {"obb": tasks.OBBModel, "segment": tasks.SegmentationModel, "pose": tasks.PoseModel}
    with torch.random.fork_rng(devices=[]):
        model: Any = kinds.get(tasks.guess_model_task(tasks.yaml_model_load(name)), tasks.DetectionModel)(
            name, nc=2, verbose=False
        )
    model.args = DEFAULT_CFG
    return model.train()


def _batch() -> dict[str, torch.Tensor]:
    """Return a batch of two images of 64 pixels with one object each, as a trainer prepares it."""
    boxes = torch.tensor([[0.5, 0.5, 0.4, 0.2]] * 2)
    return {"img": torch.zeros(2, 3, 64, 64), "cls": torch.zeros(2, 1), "bboxes": boxes, "batch_idx": torch.arange(2.0)}


def _maps() -> list[torch.Tensor]:
    """Return maps of three levels for an image of 64 pixels, with the channels of the smallest YOLO models."""
    return [torch.zeros(1, channels, size, size) for channels, size in ((64, 8), (128, 4), (256, 2))]


def _need_predictions(name: str, found: Any) -> None:
    lacking = {"boxes", "scores", "feats"} - found.keys()
    _need(not lacking, f"{name}: raw predictions have no {', '.join(sorted(lacking))}")
