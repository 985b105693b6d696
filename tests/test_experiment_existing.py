"""Trainings that are there already, from folders to tables: nnU-Net's layout and folders of predictions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nnunetv2.imageio.reader_writer_registry  # noqa: F401  (sets variables of the environment)
import numpy as np
import pytest
import SimpleITK
from numpy.typing import NDArray
from typer.testing import CliRunner

from monai_segloss.cli import app
from monai_segloss.experiment.measures import measure
from monai_segloss.experiment.measuring import measure_runs, read_case
from monai_segloss.experiment.sources import SourceError, curves, find
from monai_segloss.experiment.tables import HALF, MEAN, OWN, read

CASES = [f"case_{i:02}" for i in range(8)]
SPACING = (3.0, 1.0, 0.5)  # z, y, x
LABELS = {"background": 0, "organ": 1, "lesion": 2, "ignore": 3}
LOG = """2026-01-01 10:00:00.0: Epoch 0
2026-01-01 10:00:01.0: train_loss 0.5
2026-01-01 10:00:02.0: val_loss 0.4
2026-01-01 10:00:03.0: Pseudo dice [np.float32(0.2), np.float32(nan)]
2026-01-01 10:00:03.0: Epoch time: 30.0 s
2026-01-01 10:00:04.0: Epoch 1
2026-01-01 10:00:05.0: train_loss nan
2026-01-01 10:00:06.0: Pseudo dice [0.4, 0.6]
2026-01-01 10:00:07.0: Epoch time: 30.0 s
"""


def write(file: Path, array: NDArray[Any], spacing: tuple[float, ...] = SPACING) -> None:
    image = SimpleITK.GetImageFromArray(array.astype(np.uint8))
    image.SetSpacing(spacing[::-1])
    file.parent.mkdir(parents=True, exist_ok=True)
    SimpleITK.WriteImage(image, str(file))


def label(i: int) -> NDArray[np.uint8]:
    array = np.zeros((6, 14, 12), np.uint8)
    array[1:5, 2:11, 2:10] = 1
    array[2:4, 3 : 5 + i % 3, 3:6] = 2
    array[:, :, -1] = 3
    return array


def predicted(i: int, shift: int) -> NDArray[np.uint8]:
    return np.roll(np.where(label(i) == 3, 0, label(i)), shift, 1).astype(np.uint8)


def model(results: Path, trainer: str, shift: int, probabilities: bool = False) -> Path:
    """A model folder as nnU-Net leaves it."""
    folder = results / f"{trainer}__nnUNetPlans__3d_fullres"
    validation = folder / "fold_0" / "validation"
    for i, case in enumerate(CASES):
        write(validation / f"{case}.nii.gz", predicted(i, shift))
        if probabilities:  # unsure of the lesion: it is there from 0.3 on, where the organ is likelier
            hard = np.stack([predicted(i, shift) == c for c in range(3)]).astype(np.float32)
            soft = np.where(hard[2] > 0, np.array([0.1, 0.6, 0.3])[:, None, None, None], 0.9 * hard + 0.1 / 3)
            np.savez_compressed(validation / f"{case}.npz", probabilities=soft)
    (validation / "summary.json").write_text("{}")
    (folder / "dataset.json").write_text(
        json.dumps({"labels": LABELS, "file_ending": ".nii.gz", "channel_names": {"0": "CT"}})
    )
    (folder / "plans.json").write_text("{}")
    (folder / "fold_0" / "training_log_2026.txt").write_text(LOG)
    return folder


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three arms of one data set, two of them with two seeds, and its raw labels."""
    raw = tmp_path / "raw" / "Dataset001_X"
    for i, case in enumerate(CASES):
        write(raw / "labelsTr" / f"{case}.nii.gz", label(i))
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "raw"))
    monkeypatch.delenv("nnUNet_preprocessed", raising=False)
    folder = tmp_path / "results" / "Dataset001_X"
    for trainer, shift in (
        ("nnUNetTrainerDice_seed1", 1),
        ("nnUNetTrainerDice_seed2_10epochs", 1),
        ("nnUNetTrainer", 0),
    ):
        model(folder, trainer, shift)
    return folder


def test_runs_of_model_folders(results: Path) -> None:
    found = {each.run: each for each in find([str(results)])}
    assert list(found) == [
        "nnUNetTrainerDice seed 1 fold 0",
        "nnUNetTrainerDice_10epochs seed 2 fold 0",
        "nnUNetTrainer seed 0 fold 0",
    ]
    run = found["nnUNetTrainerDice seed 1 fold 0"]
    assert (run.arm, run.seed, run.fold, run.dataset, run.configuration) == (
        "nnUNetTrainerDice", 1, "0", "Dataset001_X", "3d_fullres",
    )  # fmt: skip
    assert run.cases == CASES
    assert run.classes == {"organ": (1,), "lesion": (2,)}
    assert (run.facts["epochs"], run.facts["minutes"]) == (2, 1.0)
    rows = curves(run)
    assert [row["epoch"] for row in rows] == [0, 1]
    assert (rows[0]["train_loss"], rows[0]["val_loss"], rows[0]["dice"], rows[1]["dice"]) == (0.5, 0.4, 0.2, 0.5)
    assert np.isnan(rows[1]["train_loss"])


def test_named_arms_and_seeds(results: Path) -> None:
    ours, _, stock = sorted(results.iterdir())
    found = find([f"stock={stock}", f"ours@7={ours}"])
    assert [(each.arm, each.seed) for each in found] == [("stock", 0), ("ours", 7)]


def test_every_case_and_class_is_measured(results: Path, tmp_path: Path) -> None:
    runs = find([str(results)])
    tables = measure_runs(runs, tmp_path / "out")
    assert len(tables.cases) == 3 * len(CASES) * 3
    one = tables.cases[(tables.cases["run"] == "nnUNetTrainerDice seed 1 fold 0") & (tables.cases["case"] == "case_01")]
    lesion = one[one["label"] == "lesion"].iloc[0]
    truth, answer = label(1), predicted(1, 1)
    expected = measure(truth == 2, answer == 2, SPACING, counted=truth != 3)
    assert {name: lesion[name] for name in expected} == pytest.approx(expected, nan_ok=True)
    assert one[one["label"] == MEAN].iloc[0]["dice"] == pytest.approx(one[one["label"] != MEAN]["dice"].mean())
    perfect = tables.cases[(tables.cases["run"] == "nnUNetTrainer seed 0 fold 0") & (tables.cases["label"] == MEAN)]
    assert (perfect["dice"] == 1).all()
    assert read(tmp_path / "out" / "tables").runs["minutes"].tolist() == [1.0] * 3


def test_several_processes_and_a_second_time(results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = find([str(results)])
    first = measure_runs(runs, tmp_path / "out", processes=2)
    from monai_segloss.experiment import measuring

    def read_again(*arguments: object) -> None:
        raise AssertionError(arguments)

    monkeypatch.setattr(measuring, "read_case", read_again)
    again = measure_runs(runs, tmp_path / "out")
    assert again.cases.equals(first.cases)
    write(runs[0].predictions / f"{CASES[0]}.nii.gz", predicted(0, 2))
    with pytest.raises(AssertionError):
        measure_runs(runs, tmp_path / "out")


def test_own_operating_points_are_chosen_on_other_cases(results: Path, tmp_path: Path) -> None:
    folder = model(results, "nnUNetTrainerSoft", 0, probabilities=True)
    tables = measure_runs(find([str(folder)]), tmp_path / "out")
    lesion = tables.cases[tables.cases["label"] == "lesion"].set_index(["point", "case"])["dice"]
    assert (lesion[OWN] == 1).all()  # at 0.3 and below
    assert (lesion[HALF] == 1).all()  # nnU-Net's file is taken as it is
    thresholds = tables.cases[(tables.cases["point"] == OWN) & (tables.cases["label"] == "lesion")]["threshold"]
    assert set(thresholds) == {0.3}  # the nearest to 1/2 of those that find it
    bins = tables.bins[tables.bins["label"] == "organ"].groupby("bin")["voxels"].sum()
    assert bins.sum() == len(CASES) * (label(0) != 3).sum()
    halves = tables.cases[tables.cases["point"] == HALF]
    assert halves[halves["label"] == "lesion"]["ece"].between(0.001, 0.2).all()


def test_own_operating_points_are_chosen_on_other_patients(results: Path, tmp_path: Path) -> None:
    """Another image of a patient says too much about the threshold of this one."""
    folder = model(results, "nnUNetTrainerSoft", 0, probabilities=True)
    validation = folder / "fold_0" / "validation"
    for i, case in enumerate(CASES[:6]):  # one patient, whose lesion has 0.8 and its surroundings 0.5
        lesion, counted = label(i) == 2, label(i) != 3
        soft = np.stack([~lesion * 0.5, lesion * 0.2, np.where(lesion, 0.8, 0.5)]).astype(np.float32) * counted
        np.savez_compressed(validation / f"{case}.npz", probabilities=soft)
    two = {case: "p" if case in CASES[:6] else "q" for case in CASES}
    for patients, thresholds in ((two, {0.3}), (dict.fromkeys(CASES, "p"), set())):
        cases = measure_runs(find([str(folder)]), tmp_path / "out", patients=patients).cases
        own = cases[(cases["point"] == OWN) & (cases["label"] == "lesion") & cases["case"].isin(CASES[:6])]
        assert set(own["threshold"] if len(own) else ()) == thresholds


def test_a_run_without_foreground_has_collapsed(results: Path, tmp_path: Path) -> None:
    folder = model(results, "nnUNetTrainerNothing", 0)
    for case in CASES:
        write(folder / "fold_0" / "validation" / f"{case}.nii.gz", np.zeros((6, 14, 12)))
    tables = measure_runs(find([str(folder)]), tmp_path / "out")
    assert tables.runs["state"].tolist() == ["collapsed"]


def test_folders_of_predictions_of_2d_images(tmp_path: Path) -> None:
    labels = tmp_path / "labels"
    for i in range(3):
        image = SimpleITK.GetImageFromArray(label(i)[2])
        for folder in (labels, tmp_path / "a"):
            folder.mkdir(exist_ok=True)
            SimpleITK.WriteImage(image, str(folder / f"x{i}.png"))
    (labels / "dataset.json").write_text(json.dumps({"labels": LABELS, "file_ending": ".png"}))
    (run,) = find([str(tmp_path / "a")], labels)
    read_one = read_case(run, "x0")
    assert read_one.reference.shape == (14, 12)
    assert len(read_one.spacing) == 2
    assert (run.arm, run.fold) == ("a", "all")
    assert measure_runs([run], tmp_path / "out").cases["dice"].eq(1).all()


def test_patients_with_several_images(results: Path, tmp_path: Path) -> None:
    patients = {case: f"p{i // 2}" for i, case in enumerate(CASES)}
    tables = measure_runs(find([str(results)]), tmp_path / "out", patients=patients)
    assert set(tables.cases["patient"]) == {"p0", "p1", "p2", "p3"}


def command(*arguments: str | Path) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["compare", "existing", *map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


def test_the_command(results: Path, tmp_path: Path) -> None:
    code, text = command(
        results,
        "-o",
        tmp_path / "out",
        "--baseline",
        "nnUNetTrainer",
        "--tubes",
        "--sizes",
        "20,50",
        "--tolerance",
        "2",
    )
    assert code == 0, text
    assert "Dice, against nnUNetTrainer" in text
    assert "nnUNetTrainerDice_10epochs" in text
    assert "has one seed" in " ".join(text.split())
    cases = read(tmp_path / "out" / "tables").cases
    assert {"cldice", "lesions_size_2"} <= set(cases.columns)
    page = (tmp_path / "out" / "report.html").read_bytes()
    text = (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    assert "tolerance of the surface Dice is 2 mm" in text
    assert "under 20 mm³, 20 to 50 mm³, from 50 mm³" in text
    again = CliRunner().invoke(app, ["compare", "report", str(tmp_path / "out"), "--baseline", "nnUNetTrainer"])
    assert again.exit_code == 0, again.output
    assert (tmp_path / "out" / "report.html").read_bytes() == page


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing"], "missing is not a folder"),
        (["{results}", "--baseline", "x"], "no arm is called 'x'; there are nnUNetTrainer"),
        (["{results}", "--sizes", "5,2"], "sizes must be ascending"),
        (["{results}", "--sizes", "a"], "--sizes must be numbers"),
        (["{results}", "--tolerance", "0"], "tolerance must be above 0"),
        (["a={results}"], "holds 3 models: one name, 'a', cannot be"),
        (
            ["{results}/nnUNetTrainer__nnUNetPlans__3d_fullres"],
            "nothing to compare: all runs are of the arm 'nnUNetTrainer'",
        ),
        (["{results}", "{results}"], "two folders are the run 'nnUNetTrainerDice seed 1 fold 0'"),
        (["{results}/../.."], "is no model folder of nnU-Net"),
        (["{results}", "--labels", "{results}"], "has no label of 'case_00'"),
    ],
)
def test_what_a_user_gets_wrong(results: Path, tmp_path: Path, arguments: list[str], message: str) -> None:
    code, text = command(*(each.format(results=results) for each in arguments), "-o", tmp_path / "out")
    assert code == 2
    assert message.lower() in " ".join(text.split()).lower()
    assert "Traceback" not in text


def test_labels_on_another_grid(results: Path, tmp_path: Path) -> None:
    run = find([str(results)])[0]
    write(run.labels / "case_03.nii.gz", label(3), (3.0, 1.0, 0.7))
    with pytest.raises(SourceError, match=r"case 'case_03': the prediction has the grid \(6, 14, 12\) with spacing"):
        measure_runs([run], tmp_path / "out")
    write(run.labels / "case_03.nii.gz", label(3)[:, :-1])
    with pytest.raises(SourceError, match=r"its label \(6, 13, 12\)"):
        measure_runs([run], tmp_path / "out")


def test_labels_that_are_not_found(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("nnUNet_raw", str(results))
    with pytest.raises(
        SourceError, match=r"labels of Dataset001_X were not found \(looked in .*labelsTr\); give --labels"
    ):
        find([str(results)])
