"""What a segmentation is judged by: Dice, distances between surfaces, found components.

All take the masks of one class in one case.  A value that has no meaning (nothing there and nothing predicted) is NaN
and leaves every mean.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Score:
    """One class of one case.

    Args:
        dice: overlap, 0 to 1.
        nsd: normalized surface Dice, 0 to 1.
        hd95: Hausdorff distance at 95 %, in mm.
        found: connected components of the reference that the prediction touches.
        components: connected components of the reference.
        false_components: connected components of the prediction that touch no reference.
        reference_voxels: size of the reference.
        predicted_voxels: size of the prediction.
    """

    dice: float
    nsd: float
    hd95: float
    found: int
    components: int
    false_components: int
    reference_voxels: int
    predicted_voxels: int


def dice(reference: Bools, prediction: Bools) -> float:
    """2 |R and P| / (|R| + |P|); NaN where both are empty.

    Example:
        >>> import numpy as np
        >>> from monai_segloss.demo.metrics import dice
        >>> dice(np.array([1, 1, 0], bool), np.array([0, 1, 0], bool))
        0.6666666666666666
    """
    total = int(reference.sum()) + int(prediction.sum())
    return 2 * int((reference & prediction).sum()) / total if total else math.nan


def surface(mask: Bools) -> Bools:
    """Voxels of the mask that share a face with a voxel outside it; the border of the image counts as outside."""
    inside = ndimage.binary_erosion(mask, ndimage.generate_binary_structure(mask.ndim, 1), border_value=0)
    return np.asarray(mask & ~inside)


def surface_distances(reference: Bools, prediction: Bools, spacing: Iterable[float]) -> tuple[Floats, Floats]:
    """Distance of each surface voxel of the reference to the surface of the prediction, and the other way round, in mm.

    Surfaces as voxels (`surface`), distances between their centers.

    Args:
        reference: mask, not empty.
        prediction: mask of the same shape, not empty.
        spacing: edge lengths of a voxel in mm, in the order of the axes.
    """
    box = ndimage.find_objects((reference | prediction).astype(np.uint8))[0]
    surfaces = surface(np.pad(reference[box], 1)), surface(np.pad(prediction[box], 1))
    there, back = (ndimage.distance_transform_edt(~each, sampling=tuple(spacing)) for each in surfaces)
    return back[surfaces[0]], there[surfaces[1]]


def surface_scores(
    reference: Bools, prediction: Bools, spacing: Iterable[float], tolerance: float
) -> tuple[float, float]:
    """Normalized surface Dice and Hausdorff distance at 95 %.

    NSD is the share of both surfaces that lies within `tolerance` of the other,
    (|{r in S_R: d(r, S_P) <= t}| + |{p in S_P: d(p, S_R) <= t}|) / (|S_R| + |S_P|); HD95 is the larger of the two 95th
    percentiles of d(r, S_P) and d(p, S_R), as in MONAI.

    Args:
        reference: mask, any shape.
        prediction: mask of the same shape.
        spacing: edge lengths of a voxel in mm, in the order of the axes.
        tolerance: in mm.

    Returns:
        Both NaN where both masks are empty; 0 and the diagonal of the image, the worst there is, where one is.

    Example:
        >>> import numpy as np
        >>> from monai_segloss.demo.metrics import surface_scores
        >>> reference, prediction = np.array([[0, 1, 0, 0]], bool), np.array([[0, 1, 0, 1]], bool)
        >>> nsd, hd95 = surface_scores(reference, prediction, (1.0, 2.0), tolerance=1.0)
        >>> round(nsd, 3), round(hd95, 1)
        (0.667, 3.8)

    Reference:
        Nikolov et al., arXiv:1809.04430 (there with surface elements of a mesh in place of voxels); Maier-Hein et al.,
        Metrics reloaded, Nature Methods 2024, arXiv:2206.01653 (the worst value for a missing object).
    """
    spacing = tuple(spacing)
    if not reference.any() and not prediction.any():
        return math.nan, math.nan
    if not reference.any() or not prediction.any():
        return 0.0, math.dist(
            (0,) * reference.ndim, [n * step for n, step in zip(reference.shape, spacing, strict=True)]
        )
    distances = surface_distances(reference, prediction, spacing)
    # Spacings come as float32 from many files: a distance of one voxel must not miss a tolerance of one voxel.
    near = sum(int((each <= tolerance * (1 + 1e-6)).sum()) for each in distances)
    return near / sum(map(len, distances)), max(float(np.percentile(each, 95)) for each in distances)


def touched(mask: Bools, other: Bools) -> tuple[int, int]:
    """Connected components (26 neighbors in 3-D) of `mask` that share a voxel with `other`, and how many there are."""
    components, count = ndimage.label(mask, np.ones((3,) * mask.ndim))
    return len(set(np.unique(components[other & mask]).tolist())), int(count)


def score(reference: Bools, prediction: Bools, spacing: Iterable[float], tolerance: float) -> Score:
    """All measures of one class in one case.

    Raises:
        ValueError: the shapes differ.
    """
    if reference.shape != prediction.shape:
        raise ValueError(f"prediction has shape {prediction.shape}, its reference {reference.shape}")
    found, components = touched(reference, prediction)
    right, predicted = touched(prediction, reference)
    near, far = surface_scores(reference, prediction, spacing, tolerance)
    return Score(
        dice=dice(reference, prediction),
        nsd=near,
        hd95=far,
        found=found,
        components=components,
        false_components=predicted - right,
        reference_voxels=int(reference.sum()),
        predicted_voxels=int(prediction.sum()),
    )


@dataclass(frozen=True)
class Summary:
    """One class over all cases: means of what has a meaning, sums of what is counted."""

    dice: float
    nsd: float
    hd95: float
    found: int
    components: int
    false_components: int
    reference_voxels: int
    predicted_voxels: int
    cases: int

    @property
    def recall(self) -> float:
        """Share of the components of the reference that were found; NaN where there is none."""
        return self.found / self.components if self.components else math.nan


def summarize(scores: Iterable[Score]) -> Summary:
    """Scores of one class over cases."""
    scores = list(scores)

    def total(name: str) -> int:
        return sum(getattr(each, name) for each in scores)

    return Summary(
        dice=known_mean(each.dice for each in scores),
        nsd=known_mean(each.nsd for each in scores),
        hd95=known_mean(each.hd95 for each in scores),
        found=total("found"),
        components=total("components"),
        false_components=total("false_components"),
        reference_voxels=total("reference_voxels"),
        predicted_voxels=total("predicted_voxels"),
        cases=len(scores),
    )


def known_mean(values: Iterable[float]) -> float:
    """Mean without NaN; NaN of nothing."""
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan


def best_median_worst(by_case: Mapping[str, float]) -> dict[str, str]:
    """The cases with the highest, the middle and the lowest value, as ``{"best": case, ...}``; NaN is left out.

    With fewer than three cases the middle, then the best, is left out.
    """
    known = sorted((value, case) for case, value in by_case.items() if not math.isnan(value))
    cases = [case for _, case in known]
    if len(cases) > 2:
        return {"best": cases[-1], "median": cases[(len(cases) - 1) // 2], "worst": cases[0]}
    return dict(zip(("worst", "best"), cases, strict=False))
