"""``segloss check`` of a raw data set, with the verdict of nnU-Net's own functions next to it."""

from __future__ import annotations

import json
import multiprocessing.dummy
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from typer.testing import CliRunner

from monai_segloss import datalist
from monai_segloss.checking import Finding
from monai_segloss.checking.dataset import check_dataset
from monai_segloss.checking.volumes import Opened
from monai_segloss.cli import app
from monai_segloss.engine.targets import CheckedLabeld
from monai_segloss.engine.volumes import LoadVolumed

pytest_plugins = "nnunet_fixtures"
pytestmark = pytest.mark.usefixtures("nnunet", "lists_in_this_process")

Change = Callable[[Path], object]
CASES = ("a", "b")
LABELS = {"background": 0, "organ": 1, "lesion": 2}
REGIONS: dict[str, Any] = {"background": 0, "whole": [1, 2], "lesion": 2}
ABOUT: dict[str, Any] = {"channel_names": {"0": "CT"}, "labels": LABELS, "numTraining": 2, "file_ending": ".nii.gz"}
LISTED = {case: {"images": [f"imagesTr/{case}_0000.nii.gz"], "label": f"labelsTr/{case}.nii.gz"} for case in CASES}


def without(*keys: str, **more: object) -> dict[str, Any]:
    return {**{key: value for key, value in ABOUT.items() if key not in keys}, **more}


def volume(seed: int = 0, value: int | None = None) -> np.ndarray:
    """A label map (6, 7, 8), or one of a single value."""
    label = np.random.default_rng(seed).integers(0, 3, (6, 7, 8)).astype(np.uint8)
    return label if value is None else np.full_like(label, value)


def write(file: Path, array: np.ndarray, spacing: tuple[float, ...] = (1.0, 1.0, 2.0), **geometry: Any) -> None:
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(spacing)
    for name, value in geometry.items():
        getattr(image, f"Set{name.capitalize()}")(value)
    sitk.WriteImage(image, str(file))


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    folder = tmp_path / "Dataset001_X"
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir(parents=True)
    for seed, case in enumerate(CASES):
        write(folder / "labelsTr" / f"{case}.nii.gz", volume(seed))
        write(folder / "imagesTr" / f"{case}_0000.nii.gz", volume(seed).astype(np.float32) * 100)
    (folder / "dataset.json").write_text(json.dumps(ABOUT))
    return folder


@pytest.fixture
def lists_in_this_process(nnunet: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """nnU-Net starts twelve processes to list the files of a folder."""
    from nnunetv2.utilities import utils

    monkeypatch.setattr(utils, "Pool", lambda processes: multiprocessing.dummy.Pool(1))


@pytest.fixture
def nnunet_takes(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], bool]:
    """Whether ``nnUNetv2_plan_and_preprocess --verify_dataset_integrity`` takes a folder; its pools are threads here."""
    from nnunetv2.experiment_planning import verify_dataset_integrity as theirs

    pools = SimpleNamespace(get_context=lambda kind: multiprocessing.dummy)
    monkeypatch.setattr(theirs, "multiprocessing", pools)

    def takes(folder: Path) -> bool:
        try:
            theirs.verify_dataset_integrity(str(folder), 1)
        except Exception:
            return False
        return True

    return takes


def check(folder: Path, *options: str) -> tuple[int, str]:
    environment = {"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"}
    result = CliRunner().invoke(app, ["check", str(folder), *options], env=environment)
    return result.exit_code, " ".join(result.output.split())


def hide(monkeypatch: pytest.MonkeyPatch, *packages: str) -> None:
    """Let packages look as if they were not installed."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name in packages else name)


def errors(found: list[Finding]) -> list[str]:
    return [finding.text for finding in found if finding.level == "error"]


TABLE: dict[str, tuple[object, bool, str]] = {
    "plain": (ABOUT, True, "'organ': in 2 of 2 cases"),
    "lists of one": (without(labels={"background": 0, "organ": [1], "lesion": [2]}), True, "'lesion': in 2 of 2 cases"),
    "text": (without(labels={"background": 0, "organ": "1", "lesion": "2"}), True, "'organ': in 2 of 2 cases"),
    "floats": (without(labels={"background": 0.0, "organ": 1.0, "lesion": 2}), True, "'organ': in 2 of 2 cases"),
    "other order": (without(labels={"lesion": 2, "organ": 1, "background": 0}), True, "'lesion': in 2 of 2 cases"),
    "ignore": (without(labels={**LABELS, "ignore": 3}), True, "'organ': in 2 of 2 cases"),
    "no ignore": (without(labels={**LABELS, "ignore": None}), True, "'organ': in 2 of 2 cases"),
    "a class too many": (without(labels={**LABELS, "vessel": 3}), True, "class 'vessel' is empty in all 2 cases"),
    "no number": (without(labels={**LABELS, "vessel": []}), True, "'vessel' must be a number from 0 to 65535"),
    "regions": (without(labels=REGIONS, regions_class_order=[1, 2]), True, "'whole': in 2 of 2 cases"),
    "regions, ignore": (
        without(labels={**REGIONS, "ignore": 3}, regions_class_order=[1, 2]),
        True,
        "'whole': in 2 of 2 cases",
    ),
    "listed files": (without(dataset=LISTED), True, "2 cases: 4 files were opened"),
    "another reader": (without(overwrite_image_reader_writer="NibabelIO"), True, "were opened with"),
    "more keys": (without(licence="CC0"), True, "were opened"),
    "gap": (
        without(labels={"background": 0, "organ": 1, "lesion": 3}),
        False,
        "consecutive labels from 0, got 0, 1, 3",
    ),
    "gap in regions": (
        without(labels={"background": 0, "whole": [1, 3]}, regions_class_order=[1]),
        False,
        "got 0, 1, 3",
    ),
    "ignore too high": (without(labels={**LABELS, "ignore": 255}), False, "value 255; it must be the highest label, 3"),
    "ignore between": (
        without(labels={"background": 0, "organ": 1, "ignore": 2, "lesion": 3}),
        False,
        "'ignore' the value 2; it must be the highest",
    ),
    "ignore as list": (without(labels={**LABELS, "ignore": [3]}), False, "value [3]; expected one whole number"),
    "ignore as text": (without(labels={**LABELS, "ignore": "3"}), False, "value '3'; expected one whole number"),
    "background 1": (without(labels={"background": 1, "organ": 0, "lesion": 2}), False, "'background': 0, got 1"),
    "background as list": (without(labels={**LABELS, "background": [0]}), False, "'background': 0, got [0]"),
    "no background": (without(labels={"organ": 1, "lesion": 2}), False, "'background': 0, which it does not name"),
    "no order": (without(labels=REGIONS), False, "of its 2 regions (whole, lesion), got None"),
    "short order": (without(labels=REGIONS, regions_class_order=[1]), False, "(whole, lesion), got [1]"),
    "no table": (without(labels=["organ"]), False, "'labels' as another one"),
    "a word": (without(labels={**LABELS, "organ": "one"}), False, "'organ' the value 'one'; expected a whole number"),
    "null": (without(labels={**LABELS, "organ": None}), False, "'organ' the value None; expected a whole number"),
    "list in list": (without(labels={**LABELS, "organ": [[1]]}), False, "'organ' the value [[1]]"),
    "version 1": (
        without("channel_names", "file_ending", modality={"0": "CT"}, labels={"0": "background", "1": "organ"}),
        False,
        "maps numbers to names of labels",
    ),
    "no numTraining": (without("numTraining"), False, "dataset.json lacks numTraining"),
    "modality": (without("channel_names", modality={"0": "CT"}), False, "dataset.json lacks channel_names"),
    "channels as list": (without(channel_names=["CT"]), False, "'channel_names' as a JSON object, got ['CT']"),
    "too few files": (without(channel_names={"0": "CT", "1": "PET"}), False, "a: a_0000.nii.gz holds 1 channel"),
    "other count": (without(numTraining=3), False, "numTraining 3, and there are 2 training cases"),
    "count as text": (without(numTraining="2"), False, "'numTraining' as a whole number, got '2'"),
    "other ending": (without(file_ending=".nrrd"), False, "numTraining 2, and there are 0 training cases"),
    "unknown ending": (without(file_ending=".gz", numTraining=2), False, "no installed package opens"),
    "ending as number": (without(file_ending=7), False, "'file_ending' as text, like '.nii.gz', got 7"),
    "listed and missing": (
        without(dataset={**LISTED, "b": {"images": ["c.nii.gz"], "label": "labelsTr/b.nii.gz"}}),
        False,
        "c.nii.gz is missing",
    ),
    "listed wrongly": (without(dataset={**LISTED, "b": {"images": []}}), False, "for the case 'b' in 'dataset'"),
    "an empty object": ({}, False, "lacks channel_names, labels, numTraining, file_ending"),
    "a list": ([], False, "must hold a JSON object, not list"),
}


@pytest.mark.parametrize("with_nnunet", [True, False])
@pytest.mark.parametrize("name", TABLE)
def test_the_verdict_is_nnunets(
    name: str,
    with_nnunet: bool,
    raw: Path,
    nnunet_takes: Callable[[Path], bool],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    content, fine, words = TABLE[name]
    (raw / "dataset.json").write_text(json.dumps(content))
    assert nnunet_takes(raw) == fine
    if not with_nnunet:
        hide(monkeypatch, "nnunetv2")
    code, text = check(raw)
    assert code == (0 if fine else 1), text
    assert words in text
    if fine:
        assert ("nnU-Net is not installed: its labels" in text) == (not with_nnunet)


@pytest.mark.parametrize("with_nnunet", [True, False])
def test_labels_that_only_nnunet_takes_have_known_values_too(
    with_nnunet: bool, raw: Path, nnunet_takes: Callable[[Path], bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    (raw / "dataset.json").write_text(json.dumps(TABLE["no number"][0]))
    write(raw / "labelsTr" / "b.nii.gz", with_value(volume(1), 7))
    assert not nnunet_takes(raw)
    if not with_nnunet:
        hide(monkeypatch, "nnunetv2")
    code, text = check(raw)
    assert code == 1
    assert "b: b.nii.gz holds the label 7 (4 voxels)" in text


def test_a_table_of_version_1_gets_one_sentence(raw: Path) -> None:
    (raw / "dataset.json").write_text(json.dumps(TABLE["version 1"][0]))
    assert len(check_dataset(raw)) == 1


def replace(kind: str, array: np.ndarray, **geometry: Any) -> Change:
    end = "_0000.nii.gz" if kind == "imagesTr" else ".nii.gz"
    return lambda folder: write(folder / kind / f"b{end}", array, **geometry)


def with_value(array: np.ndarray, value: float) -> np.ndarray:
    array = array.astype(np.float32)
    array[0, 0, :4] = value
    return array


def overwrite(name: str, content: bytes) -> Change:
    return lambda folder: (folder / name).write_bytes(content)


def two_channels(folder: Path, **geometry: Any) -> None:
    for case in CASES:
        write(folder / "imagesTr" / f"{case}_0001.nii.gz", volume().astype(np.float32), **geometry)
    (folder / "dataset.json").write_text(json.dumps({**ABOUT, "channel_names": {"0": "T1", "1": "T2"}}))


def as_nrrd(folder: Path, images: float = 0, labels: float = 0) -> None:
    """Another format, of which ITK keeps what is no number."""
    for case in CASES:
        write(folder / "imagesTr" / f"{case}_0000.nrrd", with_value(volume(), images))
        write(folder / "labelsTr" / f"{case}.nrrd", with_value(volume(), labels))
    (folder / "dataset.json").write_text(json.dumps({**ABOUT, "file_ending": ".nrrd"}))


TURNED = (0.0, -1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0)
NNUNET, OURS = "nnU-Net", "our bundle"


@pytest.mark.parametrize(
    ("change", "who", "words"),
    [
        (overwrite("imagesTr/a_0000.nii.gz", b""), NNUNET, "a: a_0000.nii.gz cannot be read"),
        (overwrite("imagesTr/b_0000.nii.gz", b""), NNUNET, "b: b_0000.nii.gz cannot be read: it has 0 bytes."),
        (overwrite("labelsTr/b.nii.gz", b""), NNUNET, "b: b.nii.gz cannot be read"),
        (overwrite("labelsTr/b.nii.gz", b"no image"), NNUNET, "b: b.nii.gz cannot be read"),
        (
            replace("imagesTr", with_value(volume(), np.nan)),
            None,
            "b_0000.nii.gz holds 4 voxels that are NaN, which ITK",
        ),
        (replace("imagesTr", with_value(volume(), -np.inf)), None, "b: b_0000.nii.gz holds 4 voxels that are infinite"),
        (replace("labelsTr", with_value(volume(), np.nan)), None, "b: b.nii.gz holds 4 voxels that are NaN"),
        (lambda folder: as_nrrd(folder, images=np.nan), NNUNET, "a: a_0000.nrrd holds 4 voxels that are NaN."),
        (lambda folder: as_nrrd(folder, labels=np.nan), NNUNET, "a: a.nrrd holds 4 voxels that are NaN."),
        (lambda folder: as_nrrd(folder, images=np.inf), None, "a: a_0000.nrrd holds 4 voxels that are infinite."),
        (replace("labelsTr", with_value(volume(), 7)), NNUNET, "b: b.nii.gz holds the label 7 (4 voxels)"),
        (replace("labelsTr", with_value(volume(), -1)), NNUNET, "b: b.nii.gz holds the label -1 (4 voxels)"),
        (replace("labelsTr", with_value(volume(), 0.5)), NNUNET, "b: b.nii.gz holds the label 0.5 (4 voxels)"),
        (replace("labelsTr", volume()[1:]), NNUNET, "b: b.nii.gz has the shape (5, 7, 8), b_0000.nii.gz (6, 7, 8)"),
        (replace("labelsTr", volume(1), spacing=(1, 1, 1)), NNUNET, "spacing (1.0, 1.0, 1.0), b_0000.nii.gz (2.0,"),
        (replace("labelsTr", volume(1), origin=(0, 3, 0)), OURS, "b: b.nii.gz lies up to 3 mm away from b_0000.nii.gz"),
        (replace("labelsTr", volume(1), direction=TURNED), OURS, "b: b.nii.gz lies up to"),
        (lambda folder: (folder / "imagesTr/b_0000.nii.gz").unlink(), NNUNET, "there are 1 training cases"),
        (lambda folder: (folder / "labelsTr/b.nii.gz").unlink(), NNUNET, "b: b.nii.gz is missing from"),
        (
            lambda folder: (folder / "imagesTr/b_0000.nii.gz").rename(folder / "imagesTr/b_000.nii.gz"),
            NNUNET,
            "names end in the channel's number",
        ),
        (overwrite("imagesTr/._a_0000.nii.gz", b""), NNUNET, "numTraining 2, and there are 3 training cases"),
        (lambda folder: two_channels(folder, spacing=(1, 1, 1)), NNUNET, "a_0001.nii.gz has the spacing (1.0, 1.0,"),
        (lambda folder: two_channels(folder, origin=(0, 0, 9)), OURS, "a_0001.nii.gz lies up to 9 mm away from a_0000"),
    ],
)
def test_every_file_is_opened(
    change: Change, who: str | None, words: str, raw: Path, nnunet_takes: Callable[[Path], bool]
) -> None:
    """What nnU-Net refuses or our bundle refuses is an error that names file and reason."""
    change(raw)
    assert nnunet_takes(raw) == (who != NNUNET)
    if who == OURS:
        with pytest.raises((ValueError, RuntimeError)):
            load_as_the_bundle_does(raw)
    code, text = check(raw)
    assert code == 1
    assert words in text
    assert "Traceback" not in text


def test_the_findings_do_not_depend_on_the_processes(raw: Path) -> None:
    overwrite("imagesTr/a_0000.nii.gz", b"")(raw)
    replace("labelsTr", with_value(volume(), 7))(raw)
    found = check_dataset(raw, jobs=1)
    assert len(errors(found)) == 3
    assert check_dataset(raw, jobs=2) == found


def load_as_the_bundle_does(folder: Path) -> None:
    found = datalist.read(folder)
    for item in found.train_items("all"):
        loaded = LoadVolumed(("image", "label"), ensure_channel_first=True)(item)
        CheckedLabeld("label", found.labels)(loaded)


@pytest.mark.parametrize("hidden", [("nnunetv2",), ("nnunetv2", "SimpleITK")])
def test_files_are_opened_without_nnunet(hidden: tuple[str, ...], raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With SimpleITK, else with nibabel."""
    hide(monkeypatch, *hidden)
    for change, words in (
        (overwrite("imagesTr/a_0000.nii.gz", b""), "a: a_0000.nii.gz cannot be read"),
        (replace("imagesTr", with_value(volume(), np.nan)), "b_0000.nii.gz holds 4 voxels that are NaN"),
        (replace("labelsTr", volume()[1:]), "b: b.nii.gz has the shape (5, 7, 8), b_0000.nii.gz (6, 7, 8)"),
        (replace("labelsTr", volume(1), origin=(0, 3, 0)), "b: b.nii.gz lies up to 3 mm away from b_0000.nii.gz"),
        (replace("labelsTr", with_value(volume(), 7)), "b: b.nii.gz holds the label 7 (4 voxels)"),
    ):
        change(raw)
        code, text = check(raw)
        assert code == 1
        assert words in text


def test_what_nothing_opens_is_said(raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hide(monkeypatch, "nnunetv2", "SimpleITK", "nibabel")
    code, text = check(raw)
    assert code == 0
    assert "no installed package opens files that end in .nii.gz: none was opened" in text
    (raw / "labelsTr" / "b.nii.gz").unlink()
    assert "b: b.nii.gz is missing from" in check(raw)[1]


def test_a_label_without_an_image_is_left_out(raw: Path, nnunet_takes: Callable[[Path], bool]) -> None:
    write(raw / "labelsTr" / "z.nii.gz", volume())
    assert nnunet_takes(raw)
    code, text = check(raw)
    assert code == 0
    assert "warning z: z_0000.nii.gz is missing from imagesTr, so nnU-Net leaves its label out" in text
    assert "'organ': in 2 of 2 cases" in text


def test_a_shift_below_half_a_voxel_is_a_warning(raw: Path) -> None:
    write(raw / "labelsTr" / "b.nii.gz", volume(1), origin=(0.01, 0, 0))
    code, text = check(raw)
    assert code == 0
    assert "warning b: b.nii.gz lies up to 0.01 mm away" in text


def test_a_case_that_nobody_annotated(raw: Path) -> None:
    (raw / "dataset.json").write_text(json.dumps({**ABOUT, "labels": {**LABELS, "ignore": 3}}))
    write(raw / "labelsTr" / "b.nii.gz", volume(value=3))
    with pytest.raises(ValueError, match="no annotated voxel"):
        load_as_the_bundle_does(raw)
    code, text = check(raw)
    assert code == 1
    assert "b: b.nii.gz has no annotated voxel" in text
    assert "class 'ignore': in 1 of 2 cases, 50 % of the voxels" in text


def test_counts_are_of_cases_and_voxels(raw: Path) -> None:
    """A region of several labels counts a case once; a case without foreground is named."""
    (raw / "dataset.json").write_text(json.dumps(TABLE["regions"][0]))
    label = volume(value=0)
    label[0, 0, :3] = (1, 2, 2)
    write(raw / "labelsTr" / "a.nii.gz", label)
    write(raw / "labelsTr" / "b.nii.gz", volume(value=0))
    code, text = check(raw)
    assert code == 0
    share = 100 / (2 * label.size)
    assert f"class 'whole': in 1 of 2 cases, {3 * share:.3g} % of the voxels" in text
    assert f"class 'lesion': in 1 of 2 cases, {2 * share:.3g} % of the voxels" in text
    assert "warning b: b.nii.gz holds background alone" in text


def test_images_of_three_colors_in_one_file(raw: Path, nnunet_takes: Callable[[Path], bool]) -> None:
    from skimage import io

    for file in raw.glob("*/*.nii.gz"):
        file.unlink()
    for case in CASES:
        io.imsave(raw / "imagesTr" / f"{case}_0000.png", np.full((8, 9, 3), 7, np.uint8), check_contrast=False)
        io.imsave(raw / "labelsTr" / f"{case}.png", np.tile(np.uint8([0, 1, 2]), (8, 3)), check_contrast=False)
    colors = {str(index): name for index, name in enumerate("RGB")}
    (raw / "dataset.json").write_text(json.dumps({**ABOUT, "file_ending": ".png", "channel_names": colors}))
    assert nnunet_takes(raw)
    code, text = check(raw)
    assert code == 0
    assert "missing" not in text
    assert "sizes (8, 9) to (8, 9) voxels" in text
    assert "2 cases: 4 files were opened with NaturalImage2DIO" in text
    assert "bundles of this package read volumes" in text


def test_test_images_are_opened_too(raw: Path) -> None:
    for name in ("imagesTs", "labelsTs"):
        (raw / name).mkdir()
    write(raw / "imagesTs" / "c_0000.nii.gz", with_value(volume(), np.nan))
    write(raw / "labelsTs" / "c.nii.gz", with_value(volume(), 9))
    code, text = check(raw)
    assert code == 1
    assert "c (imagesTs): c_0000.nii.gz holds 4 voxels that are NaN" in text
    assert "c (imagesTs): c.nii.gz holds the label 9 (4 voxels)" in text
    assert "'organ': in 2 of 2 cases" in text


@pytest.mark.parametrize(
    ("content", "fine", "words"),
    [
        ({"*": ["organ", "lesion"]}, True, "labeled_classes.json: the labeled classes of 2 cases"),
        ({"*": ["organ"]}, False, "the class 'lesion' is labeled in no case"),
        ({"*": ["organ", "lesion"], "c": []}, False, "there is no case 'c'"),
        (
            {"*": ["organ", "leison"]},
            False,
            "names the class 'leison', which is no single label in dataset.json; did you",
        ),
        ({"a": ["organ"]}, False, "says nothing of 1 cases (b first)"),
        ({"*": "organ"}, False, "'*' must be a list of class names"),
    ],
)
def test_labeled_classes(content: object, fine: bool, words: str, raw: Path) -> None:
    """Also where the labels are lists of one or text, which nnU-Net reads as plain labels."""
    (raw / "labeled_classes.json").write_text(json.dumps(content))
    for labels in (LABELS, {"background": 0, "organ": [1], "lesion": "2"}):
        (raw / "dataset.json").write_text(json.dumps({**ABOUT, "labels": labels}))
        code, text = check(raw)
        assert code == (0 if fine else 1)
        assert words in text


def test_the_loss_must_fit(raw: Path) -> None:
    (raw / "dataset.json").write_text(json.dumps(TABLE["regions"][0]))
    code, text = check(raw, "--loss", "generalized_wasserstein_dice")
    assert code == 1
    assert "generalized_wasserstein_dice does not support regions" in text
    (raw / "dataset.json").write_text(json.dumps(TABLE["lists of one"][0]))
    assert check(raw, "--loss", "generalized_wasserstein_dice")[0] == 0


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="looks for processes as Linux lists them")
def test_an_interrupt_ends_every_process_without_a_trace(raw: Path) -> None:
    big = raw.parent / "big.nii.gz"
    write(big, np.zeros((160, 256, 256), np.int16))
    for number in range(60):
        (raw / "imagesTr" / f"c{number}_0000.nii.gz").symlink_to(big)
        (raw / "labelsTr" / f"c{number}.nii.gz").symlink_to(big)
    (raw / "dataset.json").write_text(json.dumps({**ABOUT, "numTraining": 62}))
    command = [sys.executable, "-c", "from monai_segloss.cli import main; main()", "check", str(raw), "--jobs", "2"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    while process.poll() is None and sum(b"spawn_main" in command_of(pid) for pid in children.read_text().split()) < 2:
        time.sleep(0.05)
    workers = children.read_text().split()
    os.killpg(process.pid, signal.SIGINT)
    text, _ = process.communicate(timeout=120)
    assert process.returncode not in (0, 1), text
    assert "Traceback" not in text
    assert not [pid for pid in workers if b"spawn_main" in command_of(pid)]


def command_of(pid: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def test_a_process_that_is_ended_from_outside_is_said(raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def ended(*arguments: object) -> Iterator[Opened]:
        raise BrokenProcessPool
        yield

    monkeypatch.setattr("monai_segloss.checking.dataset.open_all", ended)
    code, text = check(raw, "--jobs", "4")
    assert code == 2
    assert "was ended from outside, often for lack of memory: try --jobs 2" in text
