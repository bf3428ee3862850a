"""What determines the result of a run."""

from training_helpers import lively_model, save_checkpoint, small_yolo

from ds2d2_yolo.comparison.inputs import fingerprint_of_student
from ds2d2_yolo.loading.models import load_model
from ds2d2_yolo.training.arguments import check_arguments


def test_what_a_student_starts_from_is_told_apart(tmp_path):
    yaml = small_yolo(tmp_path)
    first, other = (save_checkpoint(lively_model(yaml, seed=seed), tmp_path / f"{seed}.pt") for seed in (0, 1))
    prints = {}
    for model in (first, other, yaml):
        student, _ = load_model("student", model)
        for start in (True, False, first, other):
            arguments = check_arguments(
                {"model": str(model), "pretrained": start if type(start) is bool else str(start)}
            )
            prints[model.name, str(start)] = str(fingerprint_of_student(arguments, student))
    assert len(set(prints.values())) == len(prints)
    copy = save_checkpoint(lively_model(yaml), tmp_path / "copy.PT")
    arguments = check_arguments({"model": str(copy), "pretrained": True})
    assert fingerprint_of_student(arguments, load_model("student", copy)[0]) == prints["0.pt", "True"]
