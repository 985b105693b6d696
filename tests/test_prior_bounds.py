"""Bounds of sizes, moments and Betti numbers: what is measured, of which cases, and the losses that take the file."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from boundary_shapes import READING
from nnunet_data import write_raw
from scipy import ndimage
from typer.testing import CliRunner, Result

import monai_segloss
from monai_segloss.checking.bounds import bounds_of_fold
from monai_segloss.cli import app
from monai_segloss.kernels.betti import betti_of
from monai_segloss.losses.shape.bounds import CaseBounds
from monai_segloss.prior.bounds import BoundsError, measure_bounds, measured

SPLITS = [
    {"train": ["case_00", "case_01", "case_02"], "val": ["case_03"]},
    {"train": ["case_03"], "val": ["case_00", "case_01", "case_02"]},
]


def segloss(*words: object) -> Result:
    return CliRunner().invoke(app, list(map(str, words)), env={"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"})


@pytest.fixture
def raw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A raw data set that nnU-Net's variables lead to, with splits of its own."""
    for name in ("raw", "preprocessed"):
        monkeypatch.setenv(f"nnUNet_{name}", str(tmp_path / name))
    folder = write_raw(tmp_path / "raw", "labels")
    splits = tmp_path / "preprocessed" / folder.name / "splits_final.json"
    splits.parent.mkdir(parents=True)
    splits.write_text(json.dumps(SPLITS))
    return folder


def label(folder: Path, case: str) -> np.ndarray:
    """The label map of a case, axes (z, y, x)."""
    return np.asarray(nibabel.load(folder / "labelsTr" / f"{case}.nii.gz").dataobj).T


# -- what is measured -------------------------------------------------------------------------------------------------


def solid(shape: tuple[int, ...], *holes: tuple[slice, ...]) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[(slice(1, -1),) * len(shape)] = True
    for hole in holes:
        mask[hole] = False
    return mask


def test_betti_numbers() -> None:
    """Of a box; of one with a cavity, with a tunnel, with both; of two that touch at a corner; of a ring."""
    cavity, tunnel = (slice(3, 5), slice(3, 5), slice(3, 5)), (slice(None), slice(3, 5), slice(7, 8))
    shape = (8, 9, 10)
    assert betti_of(solid(shape)) == [1, 0, 0]
    assert betti_of(np.ones(shape, bool)) == [1, 0, 0], "up to the border"
    assert betti_of(solid(shape, cavity)) == [1, 0, 1]
    assert betti_of(solid(shape, tunnel)) == [1, 1, 0]
    assert betti_of(solid(shape, tunnel, cavity)) == [1, 1, 1]
    corner = np.zeros((4, 4, 4), bool)
    corner[:2, :2, :2] = corner[2:, 2:, 2:] = True
    assert betti_of(corner) == [1, 0, 0]
    corner[1, 1, 1] = False
    assert betti_of(corner) == [2, 0, 0]
    assert betti_of(solid((7, 7), (slice(3, 4), slice(3, 4)))) == [1, 1, 0]
    slab = np.zeros((3, 7, 7), bool)
    slab[1] = solid((7, 7), (slice(3, 4), slice(3, 4)))
    assert betti_of(slab) == [1, 1, 0]


@pytest.mark.parametrize("shape", [(9, 8), (7, 6, 5), (7, 1, 5)])
def test_betti_numbers_against_scikit_image(shape: tuple[int, ...]) -> None:
    """Its Euler characteristic, with components over corners and what of the background is not around the mask."""
    euler_number = pytest.importorskip("skimage.measure", reason="scikit-image is not installed").euler_number
    rng, loops = np.random.default_rng(0), 0
    for share in np.linspace(0, 1, 25):
        mask = np.pad(rng.random(shape) < share, 1)
        components, enclosed = ndimage.label(mask, np.ones((3,) * mask.ndim))[1], ndimage.label(~mask)[1] - 1
        cavities = enclosed if mask.ndim == 3 else 0
        expected = [components, components + cavities - euler_number(mask, mask.ndim), cavities]
        assert betti_of(mask) == betti_of(mask[(slice(1, -1),) * mask.ndim]) == expected
        loops += expected[1]
    assert loops


@pytest.mark.parametrize("axes", [2, 3])
def test_betti_numbers_are_counted_as_by_the_loss(axes: int) -> None:
    """Foreground connects over corners in both, background over faces."""
    rng = np.random.default_rng(0)
    corners = 0
    for share in np.linspace(0.05, 0.95, 12):
        mask = rng.random((7, 6, 5)[:axes]) < share
        loss = monai_segloss.BettiPriorLoss(betti=betti_of(mask)[:axes])
        p = torch.from_numpy(mask)[None, None].double()
        assert loss(p, p) == 0
        corners += ndimage.label(mask)[1] != ndimage.label(mask, np.ones((3,) * axes))[1]
    assert corners, "masks of which the connectivity matters"


def test_sizes_and_moments_of_a_box() -> None:
    mask = np.zeros((10, 12, 8), bool)
    mask[1:4, 2:8, 4:5] = True
    counted = np.ones_like(mask)
    counted[9] = False
    found = measured(mask, counted, (3.0, 1.0, 0.5))
    assert found["size_mm"] == 18 * 1.5
    assert found["size_share"] == 18 / (9 * 12 * 8)
    np.testing.assert_allclose(found["centroid_mm"], [-2.5 * 3, -1.0, 0.5 * 0.5])
    np.testing.assert_allclose(found["centroid_share"], [-0.25, -1 / 12, 0.5 / 8])
    np.testing.assert_allclose(found["spread_mm"], [3 * math.sqrt(8 / 12), math.sqrt(35 / 12), 0])
    nothing = measured(mask & False, counted, (1.0, 1.0, 1.0))
    assert {name: x.tolist() for name, x in nothing.items()} == {"size_mm": 0, "size_share": 0, "betti": [0, 0, 0]}
    assert measured(mask[1], counted[1], (1.0, 0.5))["size_mm"] == 3.0, "mm^2 in a slice"


def cubes(**sides: int) -> Any:
    """A loader of cases that hold a cube of label 1."""

    def load(case: str) -> tuple[np.ndarray, tuple[float, ...]]:
        label = np.zeros((8, 8, 8), int)
        label[: sides[case], : sides[case], : sides[case]] = 1
        return label, (1.0, 1.0, 1.0)

    return load


def test_quantiles_are_over_cases_and_an_absent_class_has_the_size_0() -> None:
    load = cubes(a=2, b=0, c=4, d=3)
    found = measure_bounds(list("abcd"), load, {"cube": [1]})["classes"]["cube"]
    assert found["cases"] == 3
    assert found["size_mm"]["bounds"] == [0, 64]
    assert found["size_mm"]["quantiles"]["0.5"] == (8 + 27) / 2
    assert found["betti"]["bounds"] == [[0, 1], [0, 0], [0, 0]], "an absent class has no components"
    assert found["spread_mm"]["bounds"][0] == pytest.approx([math.sqrt(3 / 12), math.sqrt(15 / 12)])
    middle = measure_bounds(list("acd"), load, {"cube": [1]}, between=(0.5, 1.0))["classes"]["cube"]
    assert middle["size_mm"]["bounds"] == [27, 64]
    with pytest.raises(BoundsError, match="none of the 1 cases has the class 'cube'"):
        measure_bounds(["b"], load, {"cube": [1]})
    with pytest.raises(BoundsError, match=r"must rise from 0 to 1, got 0\.9 and 0\.1"):
        measure_bounds(["a"], load, {"cube": [1]}, between=(0.9, 0.1))


# -- of which cases -----------------------------------------------------------------------------------------------------


def test_the_bounds_are_those_of_the_training_labels(raw: Path, tmp_path: Path) -> None:
    file = tmp_path / "bounds.json"
    result = segloss("prior", "bounds", 1, "--fold", 0, "-o", file)
    assert result.exit_code == 0, result.output
    assert "3 training cases of fold 0" in result.output
    found = json.loads(file.read_text())
    assert (found["cases"], found["fold"], found["axes"]) == (SPLITS[0]["train"], 0, "zyx")
    assert list(found["classes"]) == ["ball", "core"]
    sizes = [float((label(raw, case) == 1).sum()) * 1.5 for case in SPLITS[0]["train"]]
    ball = found["classes"]["ball"]
    assert ball["size_mm"]["bounds"] == [min(sizes), max(sizes)]
    assert ball["betti"]["quantiles"]["0.5"] == [1, 0, 1], "the core is a cavity of it"
    assert found["classes"]["core"]["betti"]["quantiles"]["0.5"] == [1, 0, 0]
    printed = json.loads(segloss("prior", "bounds", raw, "--fold", 0).output)
    assert printed == found, "by its folder too, and printed without a file"
    turned = bounds_of_fold(raw, "all", axes="xyz")["classes"]["ball"]["centroid_mm"]["quantiles"]["0.5"]
    straight = bounds_of_fold(raw, "all")["classes"]["ball"]["centroid_mm"]["quantiles"]["0.5"]
    assert turned == pytest.approx(straight[::-1])


def test_classes_are_in_the_order_of_the_channels(raw: Path) -> None:
    """Whatever their order in dataset.json."""
    file = raw / "dataset.json"
    about = json.loads(file.read_text())
    before = bounds_of_fold(raw, "all")["classes"]
    file.write_text(json.dumps({**about, "labels": dict(reversed(about["labels"].items()))}))
    assert list(bounds_of_fold(raw, "all")["classes"].items()) == list(before.items())


@pytest.mark.parametrize("splits", [True, False])
def test_labels_of_validation_cases_are_not_read(raw: Path, splits: bool, tmp_path: Path) -> None:
    """Of nnU-Net's file of splits and of its default ones: no byte of them matters."""
    file = tmp_path / "preprocessed" / raw.name / "splits_final.json"
    if not splits:
        file.unlink()
    words = ("prior", "bounds", "1", "--fold", 0)
    before = segloss(*words).output
    training = json.loads(before)["cases"]
    assert training == (SPLITS[0]["train"] if splits else training)
    held_out = sorted({f"case_{n:02d}" for n in range(4)} - set(training))
    assert held_out
    for case in held_out:
        (raw / "labelsTr" / f"{case}.nii.gz").write_bytes(b"no label at all")
    assert segloss(*words).output == before
    (raw / "labelsTr" / f"{training[0]}.nii.gz").write_bytes(b"no label at all")
    result = segloss(*words)
    assert result.exit_code == 1
    assert f"{training[0]}.nii.gz cannot be read" in result.output


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("1", "--fold", 7), "fold must be 'all' or 0 to 1"),
        (("7",), "has 0 data sets '7'; expected one of Dataset001_labels"),
        (("1", "--fold", "first"), "must be a number or 'all', got 'first'"),
        (("1", "--axes", "yxz"), "axes must be one of zyx, xyz, got 'yxz'"),
        (("1", "--lower", 0.9, "--upper", 0.1), "must rise from 0 to 1"),
    ],
)
def test_what_cannot_be_measured_is_said(raw: Path, words: tuple[Any, ...], message: str) -> None:
    result = segloss("prior", "bounds", *words)
    assert result.exit_code
    assert message in " ".join(result.output.split())


def test_splits_with_an_unknown_case(raw: Path, tmp_path: Path) -> None:
    splits = tmp_path / "splits.json"
    splits.write_text(json.dumps([{"train": ["case_00", "case_99"], "val": []}]))
    with pytest.raises(BoundsError, match="names the case 'case_99', which the data set has not"):
        bounds_of_fold(raw, 0, splits)


# -- the losses that take the file ----------------------------------------------------------------------------------------


def batch(folder: Path, case: str) -> tuple[torch.Tensor, torch.Tensor]:
    """A certain prediction of the label of a case, and that label."""
    y = torch.from_numpy(label(folder, case).astype(np.int64))[None, None]
    return 40.0 * torch.nn.functional.one_hot(y[:, 0], 3).movedim(-1, 1), y


@pytest.mark.parametrize("unit", ["mm", "share"])
@pytest.mark.parametrize(
    ("key", "arguments"),
    [
        ("size_penalty", {}),
        ("moment_constraint", {}),
        ("moment_constraint", {"order": 2}),
        ("log_barrier", {"t": 50.0}),
    ],
)
def test_a_loss_takes_the_file(raw: Path, tmp_path: Path, key: str, arguments: dict[str, Any], unit: str) -> None:
    """What was measured lies within, another size and another place do not."""
    file = tmp_path / "bounds.json"
    assert segloss("prior", "bounds", 1, "--fold", "all", "-o", file).exit_code == 0
    loss = monai_segloss.create(key, bounds=str(file), unit=unit, **READING, **arguments)
    assert loss.whole_cases
    spacing = (1.5, 1.0, 1.0)
    inside = []
    for case in ("case_00", "case_01", "case_02", "case_03"):
        logits, y = batch(raw, case)
        inside.append(loss(logits, y, spacing=spacing).item())
    logits, y = batch(raw, "case_00")
    whole = logits + 80 * (torch.arange(3) == 1).view(1, 3, 1, 1, 1)
    outside = max(loss(x, y, spacing=spacing).item() for x in (whole, logits.roll(8, 3)))
    if key == "log_barrier":
        assert outside > max(inside)
    else:
        assert max(inside) == pytest.approx(0, abs=1e-7)
        assert outside > 1e-4
    for other in (2, 4):
        with pytest.raises(ValueError, match="bounds has shape"):
            loss(torch.zeros(1, other, 4, 4, 4), torch.zeros(1, 1, 4, 4, 4))


def test_betti_prior_takes_the_file(raw: Path, tmp_path: Path) -> None:
    """It costs nothing on the cases that were measured; a case cut in two, or without the class, costs something."""
    file = tmp_path / "bounds.json"
    assert segloss("prior", "bounds", 1, "--fold", "all", "-o", file).exit_code == 0
    loss = monai_segloss.BettiPriorLoss(betti=str(file), **READING)
    assert loss.whole_cases
    cases = ("case_00", "case_01", "case_02", "case_03")
    assert loss.from_labels == {"betti": (cases, "bounds")}
    assert loss.limits is not None
    assert loss.limits.tolist() == [
        each["betti"]["bounds"] for each in json.loads(file.read_text())["classes"].values()
    ]
    assert loss.limits[0].tolist() == [[1, 1], [0, 0], [1, 1]], "the ball has the core as its cavity, the core has none"
    assert loss.limits[1].tolist() == [[1, 1], [0, 0], [0, 0]]
    for case in cases:
        logits, y = batch(raw, case)
        assert loss(logits, y).item() == pytest.approx(0, abs=1e-6)
    swapped = logits[:, [0, 2, 1]]
    assert loss(swapped, y).item() == pytest.approx(1, abs=1e-6), (
        "a cavity too many in one class, one too few in the other"
    )
    assert loss(0 * logits + 40 * (torch.arange(3) == 0).view(1, 3, 1, 1, 1), y).item() == pytest.approx(1.5, abs=1e-6)
    numbers = {str(c + 1): [list(map(int, pair)) for pair in rows] for c, rows in enumerate(loss.limits.tolist())}
    by_hand = monai_segloss.BettiPriorLoss(betti=numbers, **READING)
    z = torch.randn(2, 3, 6, 5, 4, dtype=torch.float64)
    assert loss(z, 0 * z[:, :1].long()) == by_hand(z, 0 * z[:, :1].long()) > 0
    with pytest.raises(ValueError, match=r"betti has shape \(2, 3, 2\); with 3 scored classes expected .*\(3, 3, 2\)"):
        loss(torch.zeros(1, 4, 4, 4, 4), torch.zeros(1, 1, 4, 4, 4))


def test_numbers_of_volumes_are_none_of_slices(tmp_path: Path) -> None:
    """And the other way round: a hole is no tunnel.  Quantiles are rounded outwards."""
    file, rng = tmp_path / "bounds.json", np.random.default_rng(0)

    def load(case: str) -> Any:
        return (rng.random((9, 8, 7)[:axes]) < 0.5).astype(int), (1.0,) * axes

    for axes in (2, 3):
        content = measure_bounds(list("abcd"), load, {"noise": [1]}, between=(0.1, 0.9))
        bounds = np.array(content["classes"]["noise"]["betti"]["bounds"])
        assert (bounds % 1).any()
        file.write_text(json.dumps(content))
        loss = monai_segloss.BettiPriorLoss(betti=str(file), **READING)
        z, y = torch.randn(1, 2, *(6, 5, 4)[:axes]).double(), torch.zeros(1, 1, *(6, 5, 4)[:axes], dtype=torch.long)
        whole = [[math.floor(low), math.ceil(high)] for low, high in bounds.tolist()]
        assert loss(z, y) == monai_segloss.BettiPriorLoss(betti=whole, **READING)(z, y) > 0
        other = (1, 2, *[4] * (5 - axes))
        message = f"betti has {axes} numbers for each class, as of images of {axes} axes, but input has {5 - axes}"
        with pytest.raises(ValueError, match=message):
            loss(torch.zeros(other), torch.zeros(1, 1, *other[2:]))


def test_betti_numbers_of_each_case(tmp_path: Path) -> None:
    file = tmp_path / "bounds.json"
    own = {"a": {"betti": [[[1, 1], [0, 2]]]}, "b": {"betti": [[[2, 3], [0, None]]]}}
    file.write_text(json.dumps({"format": "segloss bounds", "by_case": own}))
    loss = monai_segloss.BettiPriorLoss(betti=str(file), **READING)
    assert loss.whole_cases
    bounds = CaseBounds.of(loss)
    assert bounds is not None
    z, y = torch.randn(2, 2, 6, 8, dtype=torch.float64), torch.zeros(2, 1, 6, 8, dtype=torch.long)
    alone = [
        monai_segloss.BettiPriorLoss(betti=own[case]["betti"][0], **READING)(z[b : b + 1], y[b : b + 1])
        for b, case in enumerate(own)
    ]
    torch.testing.assert_close(loss(z, y, bounds=bounds.rows(["a", "b"])), torch.stack(alone).mean())
    with pytest.raises(ValueError, match="betti has bounds of single cases only: send those of the batch"):
        loss(z, y)


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    for content in ({"format": "another"}, {"format": "segloss bounds", "classes": {"a": {"size_mm": {}}}}, [1]):
        file = tmp_path / "bounds.json"
        file.write_text(json.dumps(content))
        with pytest.raises(ValueError, match="is no file of `segloss prior bounds` with size_mm"):
            monai_segloss.SizePenaltyLoss(bounds=str(file))
        with pytest.raises(ValueError, match=r"betti: .* is no file of `segloss prior bounds` with betti"):
            monai_segloss.BettiPriorLoss(betti=str(file))


def test_bounds_of_each_case(tmp_path: Path) -> None:
    """Written by hand; other cases have those of the classes."""
    file = tmp_path / "bounds.json"
    own = {"case_00": {"size_share": [[0.1, 0.2], [0.0, 0.1]]}, "case_01": {"size_share": [0.5, None]}}
    file.write_text(json.dumps({"format": "segloss bounds", "by_case": own}))
    loss = monai_segloss.SizePenaltyLoss(bounds=str(file), unit="share", **READING)
    assert loss.whole_cases
    bounds = CaseBounds.of(monai_segloss.WeightedSum({"dice": 1}))
    assert bounds is None
    bounds = CaseBounds.of(loss)
    assert bounds is not None
    z, y = torch.randn(2, 3, 6, 8, dtype=torch.float64), torch.zeros(2, 1, 6, 8, dtype=torch.long)
    found = loss(z, y, bounds=bounds.rows(["case_00", "case_01"]))
    each = [
        monai_segloss.SizePenaltyLoss(bounds=own[case]["size_share"], unit="share", **READING)(
            z[b : b + 1], y[b : b + 1]
        )
        for b, case in enumerate(own)
    ]
    torch.testing.assert_close(found, torch.stack(each).mean())
    with pytest.raises(ValueError, match="the file has none of 1 cases, the first is 'case_02'"):
        bounds.refuse_unknown(["case_00", "case_02"])
    classes = {name: {"size_share": {"bounds": [0.2, 0.3]}} for name in ("ball", "core")}
    file.write_text(json.dumps({"format": "segloss bounds", "by_case": own, "classes": classes}))
    loss = monai_segloss.SizePenaltyLoss(bounds=str(file), unit="share", **READING)
    bounds = CaseBounds.of(loss)
    assert bounds is not None
    bounds.refuse_unknown(["case_02"])
    torch.testing.assert_close(bounds.rows(["case_02"])[0], torch.tensor([[0.2, 0.3]] * 2, dtype=torch.float64))
    terms = {key: {"weight": 1, "bounds": str(file), "unit": "share"} for key in ("size_penalty", "log_barrier")}
    assert CaseBounds.of(monai_segloss.WeightedSum({"size_penalty": terms["size_penalty"]})) is not None
    with pytest.raises(ValueError, match="two terms have bounds of each case"):
        CaseBounds.of(monai_segloss.WeightedSum(terms))
