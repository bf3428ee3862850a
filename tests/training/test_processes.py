"""Several processes: results equal to one process with all images, and how Ultralytics starts them."""

import hashlib
import subprocess
import sys
from copy import deepcopy
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from torch import distributed, multiprocessing, nn
from training_helpers import batch_of, lively_model, save_checkpoint, short, tiny_yaml, write_data
from ultralytics.nn.tasks import load_checkpoint
from ultralytics.utils import DEFAULT_CFG
from ultralytics.utils.dist import ddp_cleanup, generate_ddp_file

from ds2d2_yolo import DS2D2Trainer
from ds2d2_yolo.detectors import AssignsObjects, build_model, detector_of
from ds2d2_yolo.errors import DS2D2Error
from ds2d2_yolo.evaluation import Agreement
from ds2d2_yolo.method import DS2D2Loss, Gains
from ds2d2_yolo.training.adapters import AdapterFit, fit_adapters
from ds2d2_yolo.training.amplifier import load_amplifier
from ds2d2_yolo.training.calibration import Calibration
from ds2d2_yolo.training.mixed import MixedLoss
from ds2d2_yolo.training.pair import check_pair
from ds2d2_yolo.training.ranks import check_launch
from ds2d2_yolo.training.step import Distiller

TERMS = ["ex_low_loss", "ex_high_loss", "im_full_loss", "im_high_loss", "response_loss"]
PROCESSES = 2


def step(paths, batch, group=False):
    """Losses, gradients and the teacher's weights of one step, as `_do_train` computes them.

    Args:
        paths: Checkpoints of teacher and student.
        batch: The images of this process.
        group: Whether there are other processes.
    """
    torch.manual_seed(0)
    teacher, student = (detector_of(load_checkpoint(path)[0]) for path in paths)
    student.model.float().train().requires_grad_(True)
    student.model.args = DEFAULT_CFG  # an object, as from trainers
    pair = check_pair(teacher, student, 64)
    loss = DS2D2Loss(pair.maps, Gains(0.1, 0.2, 1.0, 1.0, 1.0))
    amplifier = deepcopy(teacher.implicit_part(teacher.head))
    teacher.freeze_head(amplifier)
    distiller = Distiller(teacher, amplifier, loss, pair.student_layers, pair.teacher_layers)
    model = student.model
    model.ds2d2_adapters = loss.adapters
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()  # each process has its own batch statistics: Ultralytics does not synchronise them
    if group:
        settings = {"forward_sync_buffers" if torch.__version__ >= "2.13" else "broadcast_buffers": False}
        model = nn.parallel.DistributedDataParallel(model, find_unused_parameters=True, **settings)
    positives = [None]  # at least one per image: implicit terms of a YOLO are divided by it
    if isinstance(student, AssignsObjects):
        assigner = student.assignment_modules()["assigner"]
        assigner.register_forward_hook(
            lambda module, inputs, output: positives.append(output[3].sum(1).clamp(min=1).sum())
        )

    mixed = MixedLoss(weight=0.5)

    def compute(is_distilled):
        student.model.zero_grad()
        if "unlabeled" in batch:
            mixed.begin_step(student, batch)
        if is_distilled:
            distiller.begin_step(student, batch)
        vector, items = model(batch)
        (vector.sum() * (PROCESSES if group else 1)).backward()
        found = {name: p.grad.clone() for name, p in student.model.named_parameters() if p.grad is not None}
        return vector, items, found

    vector, items, gradients = compute(True)
    weights = b"".join(value.numpy().tobytes() for value in distiller.teacher.model.state_dict().values())
    terms = vector.detach()[-len(TERMS) :]
    found = {"terms": terms, "items": items, "gradients": gradients, "positives": positives[-1]}
    # As with distill_every=2: one step is plain, the next one is not
    found |= {"plain": compute(False)[2], "next": compute(True)[2]}
    return found | {"teacher": hashlib.sha256(weights).hexdigest()}


def part_of(batch, rank):
    """The images of one process, two each."""
    mine = batch["batch_idx"] // 2 == rank
    mine_of_images = slice(2 * rank, 2 * rank + 2)
    kinds = {"unlabeled": batch["unlabeled"][mine_of_images]} if "unlabeled" in batch else {}
    return kinds | {
        "img": batch["img"][mine_of_images],
        "cls": batch["cls"][mine],
        "bboxes": batch["bboxes"][mine],
        "batch_idx": batch["batch_idx"][mine] - 2 * rank,
    }


def agreement_of(rank):
    """The agreement over all processes, of which only the first one's student names the class as its teacher does."""
    agreement = Agreement()
    box = [0.0, 0.0, 10.0, 10.0, 0.9]
    agreement.update(torch.tensor([[*box, rank]]), torch.tensor([[*box, 0.0]]))
    agreement.gather(torch.device("cpu"))
    return agreement.results()


def gains_of(rank):
    """A gain after two batches of calibration, and after a step of running gains."""
    x, calibration = torch.rand(6, 6, requires_grad=True), Calibration({"ex_low": 1.0}, batches=2)
    pull = x.sum() / 6  # its gradient has the norm 1
    for strength in (1.0, 3.0):
        calibration.observe((strength + rank) * pull, {"ex_low": (1.0 + 2 * rank) * pull}, [x])
    calibrated = calibration.gains["ex_low"]
    calibration.follow({"": torch.tensor(10.0 + rank), "ex_low": torch.tensor(1.0 + rank)}, {"ex_low": 0.5})
    return calibrated, calibration.gains["ex_low"]


def maps_to_fit(rank):
    """Maps of a student and its teacher. Those of one process have too few cells at the coarse level for a fit."""
    generator = torch.Generator().manual_seed(rank)
    shapes = [[(2, channels, *size) for size in ((8, 6), (4, 3))] for channels in (4, 6)]
    return [[torch.randn(shape, generator=generator) for shape in side] for side in shapes]


def fit_of(rank):
    """The adapters after a batch, and whether their fit has ended."""
    adapters = nn.ModuleList(nn.Conv2d(4, 6, kernel_size=1, bias=False) for _ in range(2))
    fit = AdapterFit(adapters)
    fit.observe(*maps_to_fit(rank))
    return [adapter.weight.detach().squeeze() for adapter in adapters], fit.finished


def worker(rank, paths, batches, folder):
    address = f"file://{folder / 'meeting'}"
    distributed.init_process_group(
        "gloo", init_method=address, rank=rank, world_size=PROCESSES, timeout=timedelta(seconds=120)
    )
    results = {name: step(paths, part_of(batch, rank), group=True) for name, batch in batches.items()}
    results |= {"agreement": agreement_of(rank), "gains": gains_of(rank), "fit": fit_of(rank)}
    torch.save(results, folder / f"{rank}.pt")
    distributed.destroy_process_group()


def results_of_processes(paths, batches, folder):
    """Results of the processes of a group, by name: of a step with their parts of each batch, and what they measure."""
    multiprocessing.spawn(worker, (paths, batches, folder), nprocs=PROCESSES)
    ranks = [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(PROCESSES)]
    return {name: [rank[name] for rank in ranks] for name in ranks[0]}


def uneven_batch():
    """Four images, with fewer objects, and so positive anchors, in the first half."""
    batch = batch_of(images=4)
    keep = torch.ones(len(batch["cls"]), dtype=torch.bool)
    keep[:4] = False
    return batch | {name: batch[name][keep] for name in ("cls", "bboxes", "batch_idx")}


@pytest.fixture(scope="module")
def group(tmp_path_factory):
    """Models, batches, and the results of a group of processes with them.

    The two processes have the `same` images, `different` ones, or different ones of which three are unlabelled.
    """
    folder = tmp_path_factory.mktemp("processes")
    models = {"teacher": lively_model("yolov8s.yaml", seed=1), "student": lively_model("yolov8n.yaml", seed=2)}
    paths = [save_checkpoint(model, folder / f"{name}.pt") for name, model in models.items()]
    different = uneven_batch()
    half = part_of(different, 1)
    same = {key: torch.cat([value, value]) for key, value in half.items()}
    same["batch_idx"][len(half["batch_idx"]) :] += 2
    mixed = different | {"unlabeled": [False, True, True, True]}
    batches = {"different": different, "same": same, "mixed": mixed}
    return paths, batches, results_of_processes(paths, batches, folder)


@pytest.fixture(scope="module")
def results(group):
    """A step on four images: by two processes with two images each, by one process with two, and by one with all."""
    paths, batches, found = group
    return {
        name: {
            "ranks": found[name],
            "halves": [step(paths, part_of(batch, rank)) for rank in range(PROCESSES)],
            "joined": step(paths, batch),
        }
        for name, batch in batches.items()
    }


def assert_close(gradients, expected):
    """Sums of the same numbers in another order: float32 rounds at 1e-7, and convolutions add thousands of numbers."""
    assert gradients.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(gradients[name], value, rtol=1e-3, atol=1e-4 * value.abs().max())


def test_processes_compute_all_terms_with_the_same_teacher(results):
    for found in results.values():
        everyone = [*found["ranks"], *found["halves"], found["joined"]]
        assert len({result["teacher"] for result in everyone}) == 1
        for result in found["ranks"]:
            assert all(result["items"][name] > 0 for name in TERMS)


def test_two_processes_have_one_gradient(results):
    for found in results.values():
        first, second = (rank["gradients"] for rank in found["ranks"])
        assert all(torch.equal(first[name], second[name]) for name in first)


def test_plain_steps_between_distilled_ones_have_one_gradient(results):
    for found in results.values():
        first, second = found["ranks"]
        assert all(torch.equal(first["plain"][name], second["plain"][name]) for name in first["plain"])
        assert set(first["gradients"]) - set(first["plain"]) == {f"ds2d2_adapters.{level}.weight" for level in range(3)}
        assert_close(first["next"], first["gradients"])
        accumulated = {name: sum(half["plain"][name] for half in found["halves"]) for name in first["plain"]}
        assert_close(first["plain"], accumulated)


@pytest.mark.parametrize("images", ["same", "different", "mixed"])
def test_processes_equal_one_with_gradient_accumulation(images, results):
    ranks, halves = results[images]["ranks"], results[images]["halves"]
    for rank, half in zip(ranks, halves, strict=True):
        for name, value in half["items"].items():
            torch.testing.assert_close(rank["items"][name], value, rtol=1e-5, atol=1e-6)
    accumulated = {name: sum(half["gradients"][name] for half in halves) for name in halves[0]["gradients"]}
    assert_close(ranks[0]["gradients"], accumulated)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["RetinaNet", "FasterRCNN"])
def test_other_families_do_so_too(family, tmp_path):
    paths = []
    for seed, name in enumerate(("teacher", "student")):
        torch.manual_seed(seed)
        model = build_model(tiny_yaml(tmp_path, family, name), nc=2)
        paths.append(save_checkpoint(model, tmp_path / f"{name}.pt"))
    batch = uneven_batch()
    ranks = results_of_processes(paths, {"different": batch}, tmp_path)["different"]
    first, second = (rank["gradients"] for rank in ranks)
    assert all(torch.equal(first[name], second[name]) for name in first)
    halves = [step(paths, part_of(batch, rank)) for rank in range(PROCESSES)]
    for rank, half in zip(ranks, halves, strict=True):
        assert all(rank["items"][name] > 0 for name in TERMS)
        for name, value in half["items"].items():
            torch.testing.assert_close(rank["items"][name], value, rtol=1e-5, atol=1e-6)
    assert_close(first, {name: sum(half["gradients"][name] for half in halves) for name in first})


def test_processes_weigh_their_own_unlabelled_images(results):
    for own, unweighted in zip(results["mixed"]["ranks"], results["different"]["ranks"], strict=True):
        assert all(own["items"][name] == unweighted["items"][name] for name in TERMS[:2])
        assert own["items"]["cls_loss"] != unweighted["items"]["cls_loss"]


def test_processes_with_equal_images_have_one_process_gradient(results):
    ranks, joined = results["same"]["ranks"], results["same"]["joined"]
    assert_close(ranks[0]["gradients"], joined["gradients"])
    torch.testing.assert_close(sum(rank["terms"] for rank in ranks), joined["terms"], rtol=1e-4, atol=0)


def test_terms_of_different_images_are_means_over_processes(results):
    """Explicit terms are means over images. The others are sums over anchors, divided by the process's positives."""
    ranks, joined = results["different"]["ranks"], results["different"]["joined"]
    positives = torch.stack([rank["positives"] for rank in ranks]).float()
    assert positives[0] < positives[1]
    assert positives.sum() == joined["positives"]
    by_positives = positives / positives.sum()
    for name in TERMS:
        values = torch.stack([rank["items"][name] for rank in ranks])
        mean = values.mean() if name.startswith("ex_") else (by_positives * values).sum()
        torch.testing.assert_close(mean, joined["items"][name], rtol=1e-4, atol=0)


@pytest.mark.slow
def test_the_first_process_has_the_agreement_of_all(group):
    assert list(group[-1]["agreement"][0].values()) == [1, 0.5, 1]


@pytest.mark.slow
def test_all_processes_find_the_same_gains(group):
    first, second = group[-1]["gains"]
    assert first == second
    detection, term = 1 + 2 + 3 + 4, 1 + 3 + 1 + 3
    running = (0.9 * detection + 0.2 * (10 + 11)) / (0.9 * term + 0.2 * (1 + 2) / 0.5)
    assert first == pytest.approx((detection / term, running), rel=1e-3)


@pytest.mark.slow
def test_adapters_are_fitted_to_the_batches_of_all_processes(group):
    expected = fit_adapters([maps_to_fit(0), maps_to_fit(1)])
    for weights, finished in group[-1]["fit"]:
        assert finished
        torch.testing.assert_close(weights, expected)


SHORT = short()


@pytest.mark.slow
def test_the_file_that_starts_workers_holds_the_whole_run(tmp_path):
    """On a CPU one process can run it. It has no rank: workers use the rank to pass their parent's lock."""
    data = write_data(tmp_path / "set", train=4, val=2)
    overrides = {**SHORT, "teacher": "yolov8n.yaml", "student": "yolo11n.yaml", "data": str(data), "im_full": 3.5}
    trainer = DS2D2Trainer(overrides={**overrides, "project": str(tmp_path / "runs")})
    trainer._make_stages(trainer.plan)  # which `train` does before it starts workers
    teacher, amplifier = trainer.args.teacher, trainer.args.amplifier
    assert load_checkpoint(teacher)[1]["epoch"] == -1  # made before a worker starts
    load_amplifier(amplifier, detector_of(load_checkpoint(teacher)[0]), "haar")
    file = generate_ddp_file(trainer)
    trainer._unlock()
    script = f"import runpy; runpy.run_path({file!r}, run_name='__main__')"
    try:
        result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    finally:
        ddp_cleanup(trainer, file)
    assert result.returncode == 0, result.stdout + result.stderr
    assert f"teacher={teacher}" in result.stdout + result.stderr
    header, row = (trainer.save_dir / "results.csv").read_text().splitlines()
    values = dict(zip(header.split(","), row.split(","), strict=True))
    assert all(float(values[f"train/{name}"]) > 0 for name in TERMS)


def test_the_parent_of_workers_adds_no_callbacks_of_its_own(tmp_path, monkeypatch):
    data = write_data(tmp_path / "set", train=4, val=2)
    teacher = save_checkpoint(lively_model("yolo11n.yaml"), tmp_path / "teacher.pt")
    arguments = {**SHORT, "teacher": str(teacher), "student": "yolo11n.yaml", "data": str(data), "im_high": 0}
    arguments |= {"plots": True, "project": str(tmp_path / "runs")}
    single = DS2D2Trainer(overrides={**arguments, "name": "single"})
    for module in ("ultralytics.engine.trainer", "ds2d2_yolo.loading.place"):  # a machine with two GPUs
        monkeypatch.setattr(f"{module}.select_device", lambda *_, **__: torch.device("cuda", 0))
    parent = DS2D2Trainer(overrides={**arguments, "device": "0,1"})
    assert parent.ddp
    file = generate_ddp_file(parent)
    callbacks = torch.load(Path(file).with_suffix(".pt"), weights_only=False)["callbacks"]
    ddp_cleanup(parent, file)
    parent._unlock()
    monkeypatch.undo()
    worker = DS2D2Trainer(overrides={**arguments, "name": "worker"}, _callbacks=callbacks)
    for event, functions in single.callbacks.items():
        assert len(worker.callbacks[event]) == len(functions), event


def test_processes_that_ultralytics_did_not_start_are_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    check_launch(2)  # one machine with two GPUs
    for devices in (0, 1, 4):  # a CPU; two machines with a GPU each; too few
        with pytest.raises(DS2D2Error, match=f"2 processes for {devices} GPUs"):
            check_launch(devices)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not report the end of a parent")
def test_a_rank_ends_when_its_launcher_is_killed(tmp_path, monkeypatch):
    for name, value in (("RANK", "0"), ("WORLD_SIZE", "2")):
        monkeypatch.setenv(name, value)
    data = write_data(tmp_path / "set", train=4, val=2)
    overrides = {**SHORT, "model": "yolo11n.yaml", "data": str(data), "project": str(tmp_path / "runs")}
    rank = (
        "import contextlib, time; from ds2d2_yolo.training.trainer import PlainTrainer, DS2D2Error\n"
        f"with contextlib.suppress(DS2D2Error): PlainTrainer(overrides={overrides!r})\n"  # this machine has no GPU
        "print('started', flush=True); time.sleep(60)"
    )
    launcher = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {rank!r}], start_new_session=True)"
    process = subprocess.Popen([sys.executable, "-c", launcher], stdout=subprocess.PIPE)
    while (line := process.stdout.readline()) != b"started\n":
        assert line, "it did not start"
    process.kill()
    process.communicate(timeout=40)  # until the rank has ended: it has the pipe, too


@pytest.mark.slow
def test_torchrun_gets_one_line(tmp_path):
    words = ["train", "teacher=yolo11s.yaml", "student=yolo11n.yaml", "data=x.yaml", "device=cpu"]
    # As with `torchrun --standalone --nproc-per-node 2`: if one process fails, the other is ended.
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "ds2d2_yolo.cli"]
    result = subprocess.run(
        [sys.executable, *launch, *words], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert result.returncode != 0
    (told,) = {line for line in result.stderr.splitlines() if line.startswith("ds2d2: error: ")}
    assert told.endswith(
        "ds2d2 train starts one process per GPU itself; run it without torchrun, for example with device=0,1"
    )
    assert list(tmp_path.iterdir()) == []
