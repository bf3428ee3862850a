"""What this package relies on inside Ultralytics, beyond what its documentation promises.

A release that breaks one of these needs a change here; all others of the package's tests follow from them.
"""

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from training_helpers import batch_of, lively_model, write_data
from ultralytics.cfg import get_cfg
from ultralytics.data.build import InfiniteDataLoader
from ultralytics.data.utils import check_det_dataset, verify_image_label
from ultralytics.engine.trainer import BaseTrainer
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.nn.tasks import load_checkpoint, torch_safe_load
from ultralytics.utils import DEFAULT_CFG_DICT
from ultralytics.utils import loss as losses
from ultralytics.utils.autobatch import check_train_batch_size
from ultralytics.utils.torch_utils import profile_ops, strip_optimizer

from ds2d2_yolo import training


def source(function):
    return inspect.getsource(function)


def order(text, *parts):
    """Whether the parts occur in this order."""
    return re.search(".*".join(map(re.escape, parts)), text, re.DOTALL) is not None


def test_the_supported_range_is_that_of_the_package():
    pyproject = (Path(__file__).parents[1] / "pyproject.toml").read_text()
    assert f'"ultralytics>={training.OLDEST},<={training.NEWEST}"' in pyproject


@pytest.mark.parametrize(
    ("version", "code", "told"), [("8.3.0", 1, "is too old for ds2d2-yolo"), ("8.9.0", 0, "is newer than")]
)
def test_other_releases_get_one_line(version, code, told):
    script = f"import ultralytics; ultralytics.__version__ = {version!r}\nimport ds2d2_yolo.training"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert result.returncode == code
    lines = (result.stdout + result.stderr).splitlines()
    assert sum(told in line for line in lines if not line.startswith(" ")) == 1  # a traceback quotes the code indented


def test_arguments_missing_in_the_configuration_are_refused():
    with pytest.raises(SyntaxError):
        get_cfg(overrides={"teacher": "x.pt"})
    assert get_cfg({**DEFAULT_CFG_DICT, "teacher": None}, {"teacher": "x.pt"}).teacher == "x.pt"


def test_the_order_of_the_set_up():
    """Attributes come before the optimiser, which comes before the EMA; resuming is last."""
    text = source(BaseTrainer._setup_train)
    parts = ("self.setup_model()", "self.set_model_attributes()", "freeze_list", "DistributedDataParallel")
    assert order(
        text, *parts, "self.auto_batch()", "self._build_train_pipeline()", "ModelEMA(", "self.resume_training("
    )


def test_the_order_of_a_step():
    text = source(BaseTrainer._do_train)
    assert order(text, "self.optimizer.zero_grad()", "while True", '"on_train_epoch_start"', "self.accumulate = max(")
    assert order(
        text, "self.preprocess_batch(batch)", "self.model(batch)", "loss.sum()", "self.loss *= self.world_size"
    )
    assert order(text, "ni - last_opt_step >= self.accumulate", "self.optimizer_step()", '"on_train_batch_end"')
    assert order(text, "self.stop |=", "self.save_model()", '"on_fit_epoch_end"')
    assert order(text, "last_opt_step = -1", "mosaic_closed = not self.args.close_mosaic", "self.train_loader.reset()")


def test_losses_are_normalised_by_the_images_of_a_process():
    """As implicit terms are; a normaliser common to all processes would be one for these, too."""
    assert "target_scores.sum()" in source(losses.v8DetectionLoss)
    assert "all_reduce" not in source(losses)


def test_checkpoints_are_written_to_three_places():
    text = source(BaseTrainer.save_model)
    assert order(text, "self.last.write_bytes", "self.best.write_bytes", "(self.wdir / f")
    assert "strip_optimizer(self.last)" in source(BaseTrainer.final_eval)
    assert list(inspect.signature(strip_optimizer).parameters)[:2] == ["f", "s"]


def test_a_resumed_run_takes_its_state_from_the_ema():
    assert order(source(BaseTrainer._load_checkpoint_state), "load_state_dict(ckpt", 'ckpt["ema"]', 'ckpt["updates"]')
    assert "model.init_criterion()" in source(BaseTrainer.resume_training)
    assert "FileNotFoundError" in source(BaseTrainer.check_resume)


def test_the_loader_has_a_generator_and_a_replaceable_iterator():
    assert order(source(InfiniteDataLoader.__iter__), "if self.iterator is None", "next(self.iterator)")
    loader = InfiniteDataLoader(list(range(4)), batch_size=2, shuffle=True, generator=torch.Generator())
    assert loader.sampler.generator is loader.generator
    assert list(loader.batch_sampler.sampler)


def test_models_return_a_vector_and_named_items():
    loss, items = lively_model("yolo26n.yaml")(batch_of())
    assert loss.shape == (3,)
    assert all(name.endswith("_loss") and value.dim() == 0 for name, value in items.items())


@pytest.mark.parametrize("name", ["yolov8n.yaml", "yolo26n.yaml"])
def test_heads_take_maps_and_assigners_return_foreground_fourth(name):
    model = lively_model(name)
    head = model.model[-1]
    maps = [torch.rand(1, channels, 4, 4) for channels in (64, 128, 256)]
    assert {"boxes", "scores", "feats"} <= head.forward_head(maps, **head.one2many).keys()
    model.criterion = model.init_criterion()
    seen = []
    # The weight of the loss that reaches the maps, beside that of the other one
    assert hasattr(model.criterion, "o2m") == hasattr(model.criterion, "one2many") == (name == "yolo26n.yaml")
    criterion = getattr(model.criterion, "one2many", model.criterion)
    criterion.assigner.register_forward_hook(lambda module, inputs, output: seen.append((*inputs[:2], output[3])))
    model(batch_of())
    scores, boxes, foreground = seen[0]
    assert foreground.dtype is torch.bool
    assert scores.shape == (*foreground.shape, 2)
    assert boxes.shape == (*foreground.shape, 4)
    assert 0 <= scores.min() <= scores.max() <= 1


@pytest.mark.parametrize("name", ["yolov8n", "yolov10n", "yolo26n", "yolo11n-obb", "yolo11n-seg", "yolo11n-pose"])
def test_raw_predictions_come_alone_in_training_or_second(name):
    head = lively_model(f"{name}.yaml").model[-1]
    maps = [torch.rand(1, channels, size, size) for channels, size in ((64, 8), (128, 4), (256, 2))]
    for raw in (head.train()(list(maps)), head.eval()(list(maps))[1]):
        assert {"boxes", "scores", "feats"} <= raw.get("one2many", raw).keys()


def test_autobatch_calls_the_model_of_the_trainer_with_images():
    assert "model=self.model" in source(BaseTrainer.auto_batch)
    assert "deepcopy(model).train()" in source(check_train_batch_size)
    assert order(source(profile_ops), "y = m(x)", ".backward()", "m.stride", "m.names")
    assert "unwrap_model(self.model).stride" in source(DetectionTrainer.build_dataset)


def test_data_are_described_without_running_anything(tmp_path):
    path = write_data(tmp_path / "set", train=1, val=1)
    description = check_det_dataset(str(path), autodownload=False, split="val")
    assert {"train", "val", "names", "nc", "channels", "path"} <= description.keys()
    image = tmp_path / "set" / "images" / "train" / "0.png"
    label = tmp_path / "set" / "labels" / "train" / "0.txt"
    found = verify_image_label((str(image), str(label), "", False, 2, 0, 0, False))
    assert found[0] == str(image)
    assert len(found[1]) == 2
    assert verify_image_label((str(label), str(label), "", False, 2, 0, 0, False))[0] is None


def test_checkpoints_load_safely_where_that_is_asked_for():
    assert "safe_only" in inspect.signature(torch_safe_load).parameters
    assert next(iter(inspect.signature(load_checkpoint).parameters)) == "weight"
