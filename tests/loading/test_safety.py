"""Files that would run code, with `safe=True`: each is refused, and a marker proves that nothing ran."""

import pickle
import shutil

import numpy as np
import pytest
import torch
from training_helpers import describe_labels, lively_model, save_checkpoint, small_yolo, write_data
from ultralytics.utils import SETTINGS

from ds2d2_yolo.cli import main
from ds2d2_yolo.errors import DS2D2Error
from ds2d2_yolo.loading.data import load_data
from ds2d2_yolo.loading.safety import check_safety

pytestmark = pytest.mark.skipif(
    not hasattr(torch.serialization, "get_unsafe_globals_in_checkpoint"), reason="safe=True needs torch 2.6"
)
SPELLINGS = ["{zip}", "{legacy}", "{pickle}", "{upper}", "{mixed}", "{inside}", "trap-in-weights.pt"]
NAMED = [
    "tr'ap-in-weights.pt",
    "yolov5n.pt",
    "https://example.com/trap.pt",
]  # Ultralytics loads files with other names for these
TRAIN = "train teacher={good} student={yaml} data={data} imgsz=64 epochs=1 device=cpu plots=False"
ATTEMPTS = [
    *(f"{TRAIN} {role}={file}" for role in ("teacher", "student", "pretrained") for file in SPELLINGS),
    *(f"{TRAIN} {role}={{coded}}" for role in ("teacher", "student")),  # a YAML
    *(f"{TRAIN} {role}={{rebuilt}}" for role in ("teacher", "student", "pretrained")),  # a checkpoint
    *(f"{TRAIN} {role}={file}" for role in ("teacher", "student", "pretrained") for file in NAMED),
    *(f"{TRAIN} {role}={{calling}}" for role in ("teacher", "student")),  # a YAML with a function as a layer
    f"{TRAIN} teacher={{nested}}",
    "train cfg={cfg} student={yaml} data={data} imgsz=64",
    *(f"val model={file} data={{data}} imgsz=64" for file in (*NAMED, "yolo11n", "{calling}")),
    *(f"amplifier teacher={file} data={{data}} imgsz=64" for file in ("{zip}", "{upper}", "{rebuilt}", "{inside}")),
    *(f"teacher teacher={{yaml}} pretrained={file} data={{data}} imgsz=64" for file in ("{zip}", "{mixed}")),
    "teacher teacher={coded} data={data} imgsz=64",
    *(f"train resume={file}" for file in ("{zip}", "{upper}", "{stored}", "{beside}")),
    "train resume={sound} teacher={zip}",
    *(f"val model={file} data={{data}} imgsz=64" for file in ("{zip}", "{mixed}", "{rebuilt}", "trap-in-weights.pt")),
    *(
        f"explain source={{image}} teacher={{good}} student={{good}} {role}={{zip}}"
        for role in ("teacher", "student", "plain", "amplifier")
    ),
    "report run={run} baseline={zip}",
    *(f"report run={{{run}}}" for run in ("run_of_trap", "unfinished")),
    *(
        f"compare teacher={{good}} student={{yaml}} data={{data}} imgsz=64 {role}={{upper}}"
        for role in ("teacher", "student")
    ),
]


class Trap:
    """Makes a file when it is unpickled."""

    def __init__(self, marker):
        self.marker = str(marker)

    def __reduce__(self):
        return open, (self.marker, "w")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("safety")
    marker = folder / "marker"
    model = lively_model(small_yolo(folder))
    found = {"marker": marker, "yaml": small_yolo(folder), "data": write_data(folder / "set", train=2, val=2)}
    found |= {"image": folder / "set" / "images" / "val" / "0.png", "good": save_checkpoint(model, folder / "good.pt")}
    trap = {"model": Trap(marker), "epoch": -1, "train_args": {}}
    for name in ("zip.pt", "upper.PT", "mixed.Pt"):
        torch.save(trap, folder / name)
    torch.save(trap, folder / "legacy.pt", _use_new_zipfile_serialization=False)
    (folder / "pickle.pt").write_bytes(pickle.dumps(trap))
    torch.save({"model": model, "epoch": -1, "train_args": {"note": Trap(marker)}}, folder / "inside.pt")
    found |= {
        name.split(".")[0]: folder / name for name in ("zip.pt", "upper.PT", "mixed.Pt", "legacy.pt", "pickle.pt")
    }
    found["inside"] = folder / "inside.pt"
    code = f"torch.nn.SiLU() if open({str(marker)!r}, 'w') else None"
    found["coded"] = folder / "coded.yaml"
    found["coded"].write_text(found["yaml"].read_text() + f'activation: "{code}"\n')
    yaml = found["yaml"].read_text()
    for name, layer in (("calling", "torch_safe_load"), ("nested", "DetectionModel")):
        file = folder / ("trap.pt" if name == "calling" else "coded.yaml")
        found[name] = folder / f"{name}.yaml"
        found[name].write_text(yaml.replace("backbone:\n", f"backbone:\n  - [-1, 1, {layer}, [\"'{file}'\"]]\n"))
    found["cfg"] = folder / "cfg.yaml"
    found["cfg"].write_text(f"teacher: {folder / 'zip.pt'}\n")
    shutil.copy(folder / "zip.pt", folder / "trap.pt")
    rebuilt = lively_model(found["yaml"])
    rebuilt.yaml["activation"] = code
    found["rebuilt"] = save_checkpoint(rebuilt, folder / "rebuilt.pt")
    for run, arguments, best in (("stored", {"teacher": str(folder / "zip.pt")}, "good.pt"), ("beside", {}, "zip.pt")):
        weights = folder / run / "weights"
        weights.mkdir(parents=True)
        arguments |= {"epochs": 1, "task": "detect", "data": str(found["data"])}
        torch.save({"model": model, "ema": model, "epoch": 0, "train_args": arguments}, weights / "last.pt")
        shutil.copy(folder / best, weights / "best.pt")
        found[run] = weights / "last.pt"
    weights = folder / "sound" / "weights"
    weights.mkdir(parents=True)
    arguments = {"teacher": str(found["good"]), "epochs": 2, "task": "detect", "data": str(found["data"]), "im_high": 0}
    content = {"model": model, "ema": model, "epoch": 0, "train_args": arguments, "optimizer": None}
    torch.save(content, weights / "last.pt")
    shutil.copy(found["good"], weights / "best.pt")
    found["sound"] = weights / "last.pt"
    weights = folder / "unfinished" / "weights"
    weights.mkdir(parents=True)
    shutil.copy(found["zip"], weights / "last.pt")
    found |= {"run": folder / "stored", "run_of_trap": folder / "beside", "unfinished": folder / "unfinished"}
    for run in ("stored", "beside", "unfinished"):
        (folder / run / "args.yaml").write_text(f"data: {found['data']}\nimgsz: 64\n")
        (folder / run / "results.csv").write_text("epoch,time\n1,2\n")
    return found


@pytest.fixture
def trap_in_weights(files, monkeypatch, tmp_path):
    """Ultralytics' folder of weights has a trap under a bare name, and under names of public weights."""
    for name in ("trap-in-weights.pt", "yolov5nu.pt", "yolo11n.pt"):
        shutil.copy(files["zip"], tmp_path / name)
    monkeypatch.setitem(SETTINGS, "weights_dir", str(tmp_path))


@pytest.mark.parametrize("words", ATTEMPTS)
def test_nothing_runs(words, files, trap_in_weights, fresh_machine, capsys):
    files["marker"].unlink(missing_ok=True)
    before = sorted(fresh_machine.rglob("*"))
    code = main([*words.format(**files).split(), "safe=True"])
    assert not files["marker"].exists()
    assert code == 1
    assert "refused by safe=True" in capsys.readouterr().err
    assert sorted(fresh_machine.rglob("*")) == before


@pytest.mark.parametrize("words", ["resume", "resume=True"])
def test_the_last_run_is_looked_into(words, files, fresh_machine, monkeypatch, capsys):
    files["marker"].unlink(missing_ok=True)
    monkeypatch.chdir(files["run"])  # its last.pt names a trap as teacher
    assert main(["train", words, "safe=True"]) == 1
    assert not files["marker"].exists()
    assert "teacher=" in (error := capsys.readouterr().err)
    assert "refused by safe=True" in error


@pytest.mark.parametrize("head", [b"", None])
@pytest.mark.parametrize("words", [TRAIN, "val model={good} data={data} imgsz=64"])
def test_caches_of_labels_run_nothing(words, head, files, fresh_machine, capsys, tmp_path):
    """Whether `safe=True` is passed."""
    files["marker"].unlink(missing_ok=True)
    data = write_data(tmp_path / "set", train=2, val=2)
    cache = tmp_path / "set" / "labels" / "val.cache"
    with cache.open("wb") as file:
        if head is None:
            np.save(file, {"labels": Trap(files["marker"])}, allow_pickle=True)
        else:
            pickle.dump({"labels": Trap(files["marker"])}, file)
    assert main(words.format(**{**files, "data": data}).split()) == 1
    assert not files["marker"].exists()
    assert f"{cache} could run code" in capsys.readouterr().err


def test_caches_of_a_rare_split_run_nothing(files, fresh_machine, capsys, tmp_path):
    files["marker"].unlink(missing_ok=True)
    data = write_data(tmp_path / "set", train=2, val=2)
    for kind in ("images", "labels"):
        (tmp_path / "set" / kind / "val").rename(tmp_path / "set" / kind / "minival")
    data.write_text(data.read_text().replace("images/val", "images/train") + "minival: images/minival\n")
    cache = tmp_path / "set" / "labels" / "minival.cache"
    cache.write_bytes(pickle.dumps({"labels": Trap(files["marker"])}))
    words = "val model={good} data={data} imgsz=64 split=minival safe=True"
    assert main(words.format(**{**files, "data": data}).split()) == 1
    assert not files["marker"].exists()
    assert f"{cache} could run code" in capsys.readouterr().err


@pytest.mark.parametrize("folder", ["", "0/"])
def test_caches_of_unlabelled_images_run_nothing(folder, files, fresh_machine, capsys, tmp_path):
    """In subfolders, too, where Ultralytics would look for images and a cache."""
    files["marker"].unlink(missing_ok=True)
    other = write_data(tmp_path / "other", train=2, val=1).parent
    made, names = tmp_path / "made", [f"{folder}{number}" for number in (0, 1)]
    for kind in ("images", "labels"):
        shutil.copytree(other / kind / "train", made / kind / folder)
    named = sorted((made / "labels").iterdir())
    if folder:
        (made / "labels" / "0.txt").write_text("")
        named = [made / "labels" / "0.txt"]
    description = describe_labels(made, named)
    cache = (made / "labels" / names[0]).parent.with_suffix(".cache")
    cache.write_bytes(pickle.dumps({"labels": Trap(files["marker"])}))
    words = f"{TRAIN} unlabeled={description} project={tmp_path / 'runs'} im_high=0 workers=0 safe=True"
    assert main(words.format(**files).split()) == 1
    assert not files["marker"].exists()
    assert f"{cache} could run code" in capsys.readouterr().err


def test_caches_that_ultralytics_writes_pass(tmp_path):
    data = write_data(tmp_path / "set", train=2, val=2)
    content = {"labels": [{"cls": np.zeros((2, 1)), "shape": (3, np.int64(4))}], "results": (1, 2), "hash": "a"}
    with (tmp_path / "set" / "labels" / "train.cache").open("wb") as file:
        np.save(file, content, allow_pickle=True)
    assert load_data(str(data))["nc"] == 2


@pytest.mark.parametrize(
    "words",
    [f"{TRAIN} teacher={{zip}}", f"{TRAIN} student={{coded}}", "amplifier teacher={upper} data={data}"]
    + [
        f"{TRAIN} {word}"
        for word in ("teacher={calling}", "teacher={nested}", "teacher=tr'ap-in-weights.pt", "teacher=yolov5n.pt")
    ],
)
def test_the_traps_are_real(words, files, trap_in_weights, fresh_machine, capsys):
    files["marker"].unlink(missing_ok=True)
    main([*words.format(**files).split()])
    assert files["marker"].exists()


@pytest.mark.parametrize("text", ["nn.SiLU()", "torch.nn.LeakyReLU(0.1)", "nn.ReLU(inplace=True)"])
def test_ordinary_activations_pass(text, files, tmp_path):
    path = tmp_path / "model.yaml"
    path.write_text(files["yaml"].read_text() + f"activation: {text}\n")
    check_safety({"student": path, "teacher": files["good"], "pretrained": True, "amplifier": None})


@pytest.mark.parametrize(
    "text", ["nn.SiLU", "print()", "nn.init.zeros_(1)", "nn.SiLU(print())", "nn.Module.to()", "(lambda: 1)()"]
)
def test_other_activations_are_refused(text, files, tmp_path):
    path = tmp_path / "model.yaml"
    path.write_text(files["yaml"].read_text() + f'activation: "{text}"\n')
    with pytest.raises(DS2D2Error, match="its activation is code"):
        check_safety({"student": path})
