"""Damaged files and unusual values in every mode: one line or a result, no traceback, no hang, no changed files."""

from pathlib import Path

import pytest
import torch
from fuzz_cases import KINDS, seeded
from fuzzing import SHORT, Field, run_and_judge, words_of

from ds2d2_yolo import DS2D2Trainer

# Number of cases of each kind without --cases all
_FEW = {"data": 12, "labels": 12, "merge": 48, "images": 10, "checkpoints": 24, "configuration": 24}


def pytest_generate_tests(metafunc):
    whole = metafunc.config.getoption("--cases") == "all"
    cases = [
        pytest.param(kind, number, id=f"{kind}-{number}")
        for kind, (_, count) in KINDS.items()
        for number in range(count if whole else _FEW[kind])
    ]
    if "number" in metafunc.fixturenames:
        metafunc.parametrize(("kind", "number"), cases)


def make_field(folder):
    """Good files, including results of trainings: a run, its amplifier, and an interrupted run."""
    found = Field.laid_out(folder)
    files = found.files
    overrides = {name: str(files[name]) for name in ("teacher", "student", "data")} | SHORT
    overrides |= {"project": str(folder / "runs"), "amplifier_epochs": 1}
    trainer = DS2D2Trainer(overrides=overrides | {"name": "run"})
    trainer.train()
    files |= {"run": trainer.save_dir, "amplifier": Path(trainer.args.amplifier)}
    interrupted = DS2D2Trainer(overrides=overrides | {"name": "killed", "epochs": 3})

    def stop(trainer):
        raise KeyboardInterrupt

    interrupted.add_callback("on_model_save", stop)
    with pytest.raises(KeyboardInterrupt):
        interrupted.train()
    files["last"] = interrupted.last
    return found


@pytest.fixture(scope="module")
def field(tmp_path_factory):
    return make_field(tmp_path_factory.mktemp("field"))


@pytest.mark.slow
def test_spoilt_input_gets_one_line_or_a_result(kind, number, field, fresh_machine, tmp_path):
    rng = seeded(kind, number)
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    out.mkdir()
    make, _ = KINDS[kind]
    commands = make(rng, field, folder, out)
    complaints, passed = [], None
    for words in commands:
        outcome = run_and_judge(words, folder, tmp_path)
        complaints += [f"{complaint}: ds2d2 {' '.join(words)}" for complaint in outcome.complaints]
        if words[0] == "check":
            passed = outcome.code == 0
        elif passed and outcome.code:
            complaints += [f"check passed, {words[0]} refused: {line}" for line in outcome.refused_data]
    assert not complaints, "\n".join(line[:1000] for line in complaints)
    assert torch.is_grad_enabled()


@pytest.mark.slow
@pytest.mark.parametrize(
    "mode", ["check", "train", "teacher", "amplifier", "demo", "compare", "val", "explain", "report"]
)
def test_unspoilt_input_works_in_every_mode(mode, field, fresh_machine, tmp_path):
    outcome = run_and_judge(words_of(field, mode, tmp_path / "out"), tmp_path / "in", tmp_path / "out")
    assert (outcome.code, outcome.complaints) == (0, []), outcome.output
