"""Measures of a comparison: closed cases, other implementations, and everything that may be empty."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance, compute_surface_dice
from numpy.typing import NDArray
from scipy import ndimage

from monai_segloss.experiment.measures import (
    MEASURES,
    Options,
    betti,
    bin_totals,
    calibration,
    calibration_errors,
    mean_over_classes,
    measure,
)

Bools = NDArray[np.bool_]
SPACING = (2.0, 1.0, 0.5)


def blobs(seed: int, shape: tuple[int, ...] = (10, 16, 18), share: float = 0.12) -> Bools:
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal(shape), 1.5)
    return np.asarray(noise > np.quantile(noise, 1 - share))


def torched(mask: Bools) -> torch.Tensor:
    return torch.from_numpy(np.stack((~mask, mask))[None])


@pytest.mark.filterwarnings("ignore:.*always_return_as_numpy:FutureWarning")  # between functions of MONAI
@pytest.mark.parametrize("seed", range(4))
def test_surfaces_as_monai_measures_them(seed: int) -> None:
    reference, prediction = blobs(seed), blobs(seed + 10)
    found = measure(reference, prediction, SPACING, Options(tolerance=1.5))
    both, spacing = (torched(prediction), torched(reference)), list(SPACING)
    hausdorff = compute_hausdorff_distance(*both, percentile=95, spacing=spacing)
    assert found["hd95"] == pytest.approx(float(hausdorff), rel=1e-5)
    assert found["nsd"] == pytest.approx(float(compute_surface_dice(*both, [1.5], spacing=spacing)), abs=1e-6)
    there = compute_average_surface_distance(*both, spacing=spacing)
    back = compute_average_surface_distance(*both[::-1], spacing=spacing)
    assert min(float(there), float(back)) <= found["assd"] <= max(float(there), float(back))


@pytest.mark.parametrize("seed", range(3))
def test_overlaps_from_the_definition(seed: int) -> None:
    reference, prediction = blobs(seed), blobs(seed + 10)
    found = measure(reference, prediction, SPACING)
    pairs = list(zip(reference.ravel().tolist(), prediction.ravel().tolist(), strict=True))
    tp, fp, fn, tn = (pairs.count((a, b)) for a, b in ((True, True), (False, True), (True, False), (False, False)))
    assert found["dice"] == pytest.approx(2 * tp / (2 * tp + fp + fn))
    assert found["sensitivity"] == pytest.approx(tp / (tp + fn))
    assert found["specificity"] == pytest.approx(tn / (tn + fp))
    assert found["precision"] == pytest.approx(tp / (tp + fp))
    assert found["volume_error"] == pytest.approx((tp + fp) / (tp + fn) - 1)
    assert found["reference_mm3"] == pytest.approx(reference.sum())  # voxels of 1 mm³


def lesions() -> tuple[Bools, Bools]:
    """Three lesions of 1, 4 and 9 voxels; the middle one is missed, the large one is found in two parts, one is false."""
    reference, prediction = np.zeros((20, 20), bool), np.zeros((20, 20), bool)
    reference[1, 1] = reference[5:7, 5:7] = reference[10:13, 10:13] = True
    prediction[1, 1] = prediction[10, 10:13] = prediction[12, 10:13] = prediction[17, 17] = True
    return reference, prediction


def test_components() -> None:
    found = measure(*lesions(), (1.0, 1.0), Options(sizes=(2.0, 5.0)))
    assert (found["lesions"], found["lesions_found"], found["lesions_false"]) == (3, 2, 1)
    assert found["lesion_recall"] == pytest.approx(2 / 3)
    assert found["lesion_precision"] == pytest.approx(3 / 4)
    assert found["lesion_f1"] == pytest.approx(2 * 2 / (2 * 2 + 1 + 1))
    assert found["lesion_dice"] == pytest.approx((1 + 0 + 2 * 6 / 15) / 4)
    assert [found[f"lesions_size_{i}"] for i in range(3)] == [1, 1, 1]
    assert [found[f"lesions_found_size_{i}"] for i in range(3)] == [1, 0, 1]


def test_nothing_and_nothing_predicted_is_right() -> None:
    nothing = np.zeros((4, 5, 6), bool)
    found = measure(nothing, nothing, SPACING, Options(tubes=True))
    for name in ("dice", "nsd", "lesion_f1", "lesion_dice", "cldice", "specificity"):
        assert found[name] == 1, name
    for name in ("hd95", "assd", "betti_0_error", "betti_1_error"):
        assert found[name] == 0, name
    for name in ("sensitivity", "precision", "volume_error", "lesion_recall", "lesion_precision"):
        assert math.isnan(found[name]), name


def test_one_of_them_empty_is_the_worst() -> None:
    nothing, something = np.zeros((4, 5, 6), bool), np.zeros((4, 5, 6), bool)
    something[1, 2, 3] = True
    diagonal = math.hypot(8, 5, 3)
    for reference, prediction in ((nothing, something), (something, nothing)):
        found = measure(reference, prediction, SPACING, Options(tubes=True))
        assert (found["dice"], found["nsd"], found["lesion_f1"], found["lesion_dice"], found["cldice"]) == (0,) * 5
        assert found["hd95"] == found["assd"] == pytest.approx(diagonal)
        assert found["betti_0_error"] == 1


def test_ignored_voxels_do_not_count() -> None:
    reference, prediction = blobs(0), blobs(10)
    counted = np.ones_like(reference)
    counted[:4] = False
    found = measure(reference, prediction, SPACING, counted=counted)
    inside = measure(reference[4:], prediction[4:], SPACING)
    for name in ("dice", "sensitivity", "specificity", "precision", "lesion_recall", "lesion_dice"):
        assert found[name] == pytest.approx(inside[name]), name


@pytest.mark.parametrize(
    ("mask", "expected"),
    [
        (np.zeros((5, 5, 5), bool), (0, 0)),
        (np.ones((5, 5, 5), bool), (1, 0)),
        (np.ones((5, 5), bool), (1, 0)),
    ],
)
def test_betti_numbers_of_nothing_and_everything(mask: Bools, expected: tuple[int, int]) -> None:
    assert betti(mask) == expected


def test_betti_numbers_of_a_shell_a_ring_and_a_pair() -> None:
    shell = np.ones((5, 5, 5), bool)
    shell[2, 2, 2] = False
    assert betti(shell) == (1, 0)  # a cavity is no loop
    ring = np.zeros((3, 7, 7), bool)
    ring[1, 1:6, 1:6] = True
    ring[1, 3, 3] = False
    assert betti(ring) == (1, 1)
    ring[:, 3, 3] = False
    pair = np.concatenate((ring, np.zeros((2, 7, 7), bool), ring))
    assert betti(pair) == (2, 2)
    assert betti(ring[1]) == (1, 1)


def test_centerlines_of_shifted_tubes() -> None:
    tube = np.zeros((12, 30), bool)
    tube[4:7, 2:28] = True
    found = measure(tube, np.roll(tube, 1, 0), (1.0, 1.0), Options(tubes=True))
    assert found["cldice"] > 0.95
    assert found["dice"] < 0.7
    assert measure(tube, np.roll(tube, 5, 0), (1.0, 1.0), Options(tubes=True))["cldice"] == 0


def test_calibration_in_closed_form() -> None:
    probability = np.repeat([0.05, 0.25, 0.95], [100, 100, 200])
    reference = np.zeros(400, bool)
    reference[100:150] = True  # half of those at 0.25
    reference[200:390] = True  # 0.95 of those at 0.95
    found = calibration(reference, probability, 10)
    assert found["ece"] == pytest.approx((100 * 0.05 + 100 * 0.25) / 400)
    assert found["ace"] == pytest.approx((0.05 + 0.25 + 0) / 3)
    totals = bin_totals(reference, probability, 10)
    halves = bin_totals(reference[::2], probability[::2], 10) + bin_totals(reference[1::2], probability[1::2], 10)
    np.testing.assert_allclose(totals, halves)
    assert calibration_errors(totals) == found
    counted = np.arange(400) >= 200
    assert calibration(reference, probability, 10, counted)["ece"] == pytest.approx(0, abs=1e-12)
    assert math.isnan(calibration(reference, probability, 10, counted & False)["ece"])


def test_certain_probabilities_have_a_bin() -> None:
    assert bin_totals(np.array([True, False]), np.array([1.0, 0.0]), 5)[0].tolist() == [1, 0, 0, 0, 1]


def test_means_leave_out_what_has_no_meaning() -> None:
    found = mean_over_classes(
        {"a": {"dice": 0.5, "sensitivity": math.nan, "lesions": 3}, "b": {"dice": 1.0, "sensitivity": 0.2}}
    )
    assert found == {"dice": 0.75, "sensitivity": 0.2}
    assert math.isnan(mean_over_classes({"a": {"dice": math.nan}})["dice"])


def test_every_measure_is_described() -> None:
    mask = blobs(0)
    found = measure(mask, mask, SPACING, Options(tubes=True)) | calibration(mask, mask.astype(float))
    assert set(MEASURES) <= set(found)
    assert all(found[name] in (0, 1) for name in MEASURES)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: measure(np.zeros((3, 3), bool), np.zeros((3, 4), bool), (1, 1)),
            r"shape \(3, 4\), its reference \(3, 3\)",
        ),
        (
            lambda: measure(np.zeros((3, 3), bool), np.zeros((3, 3), bool), (1, 1, 1)),
            "spacing has 3 lengths for 2 axes",
        ),
        (lambda: Options(tolerance=0), "tolerance must be above 0"),
        (lambda: Options(sizes=(5.0, 2.0)), "sizes must be ascending"),
        (lambda: Options(bins=1), "bins must be at least 2"),
    ],
)
def test_what_cannot_be_measured(call: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()  # type: ignore[operator]
