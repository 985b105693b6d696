"""The metrics of the demo against their definitions, voxel by voxel."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from monai.metrics import compute_hausdorff_distance
from numpy.typing import NDArray

from monai_segloss.demo import metrics

SPACING = (5.0, 1.2, 0.7)
Bools = NDArray[np.bool_]


def blobs(seed: int, density: float = 0.4) -> Bools:
    rng = np.random.default_rng(seed)
    return rng.random((4, 6, 7)) < density


def surface_points(mask: Bools) -> list[tuple[int, ...]]:
    """Voxels of which one of the six neighbors is outside the mask or outside the image."""
    found = []
    for index in map(tuple, np.argwhere(mask)):
        for axis, step in itertools.product(range(3), (-1, 1)):
            neighbor = list(index)
            neighbor[axis] += step
            inside = 0 <= neighbor[axis] < mask.shape[axis]
            if not inside or not mask[tuple(neighbor)]:
                found.append(index)
                break
    return found


def slow_distances(reference: Bools, prediction: Bools) -> tuple[list[float], list[float]]:
    a, b = surface_points(reference), surface_points(prediction)

    def nearest(points: list[tuple[int, ...]], others: list[tuple[int, ...]]) -> list[float]:
        return [min(math.dist(np.multiply(p, SPACING), np.multiply(q, SPACING)) for q in others) for p in points]

    return nearest(a, b), nearest(b, a)


def nsd(reference: Bools, prediction: Bools, spacing: tuple[float, ...], tolerance: float) -> float:
    return metrics.surface_scores(reference, prediction, spacing, tolerance)[0]


def slow_components(mask: Bools) -> list[set[tuple[int, ...]]]:
    left = set(map(tuple, np.argwhere(mask).tolist()))
    found = []
    while left:
        queue, component = [left.pop()], set()
        while queue:
            point = queue.pop()
            component.add(point)
            near = {tuple(np.add(point, d).tolist()) for d in itertools.product((-1, 0, 1), repeat=3)} & left
            left -= near
            queue += near
        found.append(component)
    return found


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("tolerance", [0.0, 0.7, 1.2, 2.0])
def test_surface_scores_equal_their_definition(seed: int, tolerance: float) -> None:
    reference, prediction = blobs(seed), blobs(seed + 100)
    near, far = metrics.surface_scores(reference, prediction, SPACING, tolerance)
    there, back = slow_distances(reference, prediction)
    limit = tolerance * (1 + 1e-6)
    assert near == pytest.approx(sum(each <= limit for each in there + back) / len(there + back), abs=1e-12)
    assert far == pytest.approx(max(np.percentile(there, 95), np.percentile(back, 95)), rel=1e-12)


@pytest.mark.filterwarnings("ignore:.*always_return_as_numpy:FutureWarning")  # MONAI warns of its own call
def test_hd95_equals_monai_away_from_the_border() -> None:
    reference, prediction = (np.pad(blobs(seed, 0.4), 2) for seed in (3, 4))
    as_batch = [torch.from_numpy(each)[None, None] for each in (prediction, reference)]
    theirs = compute_hausdorff_distance(*as_batch, include_background=True, percentile=95, spacing=list(SPACING))
    assert metrics.surface_scores(reference, prediction, SPACING, 1.0)[1] == pytest.approx(theirs.item(), rel=1e-5)


def test_a_missed_class_is_as_far_as_the_image_is_long() -> None:
    mask = np.zeros((2, 3, 6), bool)
    mask[0, 0, 0] = True
    for pair in ((mask, ~mask & False), (~mask & False, mask)):
        assert metrics.surface_scores(*pair, (6.0, 2.0, 3.0), 1.0) == (0.0, math.hypot(12, 6, 18))


def test_nsd_of_a_shift_depends_on_the_spacing_of_its_axis() -> None:
    block = np.zeros((8, 8, 8), bool)
    block[3:5, 3:5, 3:5] = True
    assert nsd(block, np.roll(block, 1, 1), (5, 1, 1), 1.0) == 1.0
    assert nsd(block, np.roll(block, 1, 0), (5, 1, 1), 1.0) < 1.0
    assert nsd(block, np.roll(block, 1, 0), (5, 1, 1), 5.0) == 1.0


def test_nsd_counts_a_surface_at_the_border_of_the_image() -> None:
    full = np.ones((4, 4, 4), bool)
    assert nsd(full, full, (1, 1, 1), 0.0) == 1.0
    assert metrics.surface(full).sum() == 64 - 8


@pytest.mark.parametrize("seed", range(5))
def test_dice_equals_its_definition(seed: int) -> None:
    reference, prediction = blobs(seed), blobs(seed + 100)
    a, b = (set(map(tuple, np.argwhere(mask).tolist())) for mask in (reference, prediction))
    assert metrics.dice(reference, prediction) == pytest.approx(2 * len(a & b) / (len(a) + len(b)))


@pytest.mark.parametrize("seed", range(5))
def test_found_components_equal_their_definition(seed: int) -> None:
    reference, prediction = blobs(seed, 0.08), blobs(seed + 100, 0.08)
    score = metrics.score(reference, prediction, SPACING, 1.0)
    ours, theirs = slow_components(reference), slow_components(prediction)
    predicted = set(map(tuple, np.argwhere(prediction).tolist()))
    true = set(map(tuple, np.argwhere(reference).tolist()))
    assert (score.components, score.found) == (len(ours), sum(bool(each & predicted) for each in ours))
    assert score.false_components == sum(not each & true for each in theirs)
    assert (score.reference_voxels, score.predicted_voxels) == (len(true), len(predicted))


def test_nothing_there_and_nothing_predicted_has_no_value() -> None:
    empty, some = np.zeros((3, 3, 3), bool), blobs(0)[:3, :3, :3]
    score = metrics.score(empty, empty, SPACING, 1.0)
    assert math.isnan(score.dice)
    assert math.isnan(score.nsd)
    assert math.isnan(score.hd95)
    for reference, prediction in ((empty, some), (some, empty)):
        score = metrics.score(reference, prediction, SPACING, 1.0)
        assert (score.dice, score.nsd, score.found) == (0.0, 0.0, 0)


def test_perfect_prediction() -> None:
    mask = blobs(1)
    score = metrics.score(mask, mask, SPACING, 0.0)
    assert (score.dice, score.nsd, score.hd95) == (1.0, 1.0, 0.0)
    assert score.found == score.components
    assert score.false_components == 0


def test_shapes_must_agree() -> None:
    with pytest.raises(ValueError, match=r"prediction has shape \(2, 2\), its reference \(2, 3\)"):
        metrics.score(np.ones((2, 3), bool), np.ones((2, 2), bool), (1, 1), 1.0)


def test_summary_leaves_out_what_has_no_value() -> None:
    empty, mask = np.zeros((4, 6, 7), bool), blobs(1)
    scores = [metrics.score(mask, mask, SPACING, 1.0), metrics.score(empty, empty, SPACING, 1.0)]
    summary = metrics.summarize(scores)
    assert (summary.dice, summary.nsd, summary.cases) == (1.0, 1.0, 2)
    assert summary.recall == 1.0
    assert math.isnan(metrics.summarize(scores[1:]).recall)


def test_best_median_worst() -> None:
    by_case = {"a": 0.1, "b": 0.9, "c": math.nan, "d": 0.5, "e": 0.6}
    assert metrics.best_median_worst(by_case) == {"best": "b", "median": "d", "worst": "a"}
    assert metrics.best_median_worst({"a": 0.1, "b": 0.9}) == {"worst": "a", "best": "b"}
    assert metrics.best_median_worst({"a": math.nan}) == {}
