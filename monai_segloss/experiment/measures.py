"""What a prediction of one class in one case is measured by, each with its direction and unit.

Conventions where something is empty: with neither reference nor prediction the answer is right, so overlaps are 1 and
distances 0.  With one of them overlaps are 0 and distances the diagonal of the image, the largest there is.  What has no
meaning without a reference (sensitivity, volume error) is NaN and leaves every mean.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from monai_segloss.demo.metrics import surface_distances

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
Found = dict[str, float]


@dataclass(frozen=True)
class Measure:
    """How a column of the table of cases is read.

    Args:
        name: of the column.
        words: for a reader.
        unit: or "".
        larger_is_better: None: the best value is 0, from both sides.
    """

    name: str
    words: str
    unit: str = ""
    larger_is_better: bool | None = True


MEASURES = {
    each.name: each
    for each in (
        Measure("dice", "Dice"),
        Measure("nsd", "normalized surface Dice"),
        Measure("hd95", "Hausdorff distance, 95th percentile", "mm", False),
        Measure("assd", "average symmetric surface distance", "mm", False),
        Measure("volume_error", "predicted over reference volume, less 1", "", None),
        Measure("sensitivity", "sensitivity"),
        Measure("specificity", "specificity"),
        Measure("precision", "precision"),
        Measure("cldice", "centerline Dice"),
        Measure("betti_0_error", "difference in the number of components", "", False),
        Measure("betti_1_error", "difference in the number of loops", "", False),
        Measure("lesion_recall", "share of the reference's components found"),
        Measure("lesion_precision", "share of the prediction's components that touch a reference"),
        Measure("lesion_f1", "F1 of components, the harmonic mean of these two"),
        Measure("lesion_dice", "Dice over components, a false one counting 0"),
        Measure("ece", "expected calibration error", "", False),
        Measure("ace", "average calibration error", "", False),
    )
}
"""By the name of their column."""


@dataclass(frozen=True)
class Options:
    """How it is measured.

    Args:
        tolerance: of the surface Dice, in mm.
        sizes: edges of the size classes of components, in mm³, ascending; none: one class.
        tubes: also centerlines and Betti numbers, which take seconds per case.
        bins: of the calibration errors.
    """

    tolerance: float = 1.0
    sizes: tuple[float, ...] = ()
    tubes: bool = False
    bins: int = 15

    def __post_init__(self) -> None:
        if not 0 < self.tolerance < math.inf:
            raise ValueError(f"tolerance must be above 0 mm, got {self.tolerance!r}.")
        if list(self.sizes) != sorted(set(self.sizes)) or any(not 0 < edge < math.inf for edge in self.sizes):
            raise ValueError(f"sizes must be ascending volumes in mm³, got {list(self.sizes)}.")
        if self.bins < 2:
            raise ValueError(f"bins must be at least 2, got {self.bins!r}.")


def measure(
    reference: Bools,
    prediction: Bools,
    spacing: Sequence[float],
    options: Options | None = None,
    counted: Bools | None = None,
) -> Found:
    """Every measure of one class in one case, with the two volumes in mm³.

    Args:
        reference: mask, 2-D or 3-D.
        prediction: mask of the same shape.
        spacing: edge lengths of a voxel in mm, in the order of the axes.
        options: see there.
        counted: voxels that are not ignored; None: all.

    Raises:
        ValueError: the shapes differ, or ``spacing`` has not one length per axis.

    Example:
        >>> import numpy as np
        >>> reference = np.zeros((6, 6), bool)
        >>> reference[1:3, 1:5] = True
        >>> found = measure(reference, np.roll(reference, 1, axis=0), (1.0, 1.0))
        >>> {name: round(found[name], 3) for name in ("dice", "hd95", "lesion_recall", "reference_mm3")}
        {'dice': 0.5, 'hd95': 1.0, 'lesion_recall': 1.0, 'reference_mm3': 8.0}
    """
    options = options or Options()
    if reference.shape != prediction.shape:
        raise ValueError(f"prediction has shape {prediction.shape}, its reference {reference.shape}.")
    if len(spacing) != reference.ndim:
        raise ValueError(f"spacing has {len(spacing)} lengths for {reference.ndim} axes.")
    if counted is not None:
        reference, prediction = reference & counted, prediction & counted
    voxel = math.prod(spacing)
    total = reference.size if counted is None else int(counted.sum())
    found = {"reference_mm3": float(reference.sum()) * voxel, "predicted_mm3": float(prediction.sum()) * voxel}
    found |= overlaps(reference, prediction, total)
    found |= surfaces(reference, prediction, spacing, options.tolerance)
    found |= components(reference, prediction, voxel, options.sizes)
    return found | (tubes(reference, prediction) if options.tubes else {})


def overlaps(reference: Bools, prediction: Bools, total: int) -> Found:
    """What true and false positives and negatives say, of ``total`` voxels."""
    tp = int((reference & prediction).sum())
    positives, predicted = int(reference.sum()), int(prediction.sum())
    negatives = total - positives
    false = predicted - tp
    return {
        "dice": 2 * tp / (positives + predicted) if positives + predicted else 1.0,
        "sensitivity": tp / positives if positives else math.nan,
        "specificity": 1 - false / negatives if negatives else math.nan,
        "precision": tp / predicted if predicted else math.nan,
        "volume_error": predicted / positives - 1 if positives else math.nan,
    }


def surfaces(reference: Bools, prediction: Bools, spacing: Sequence[float], tolerance: float) -> Found:
    """Distances between the voxels of the two surfaces, see `monai_segloss.demo.metrics.surface_scores`."""
    if not reference.any() and not prediction.any():
        return {"nsd": 1.0, "hd95": 0.0, "assd": 0.0}
    if not reference.any() or not prediction.any():
        diagonal = math.hypot(*(n * step for n, step in zip(reference.shape, spacing, strict=True)))
        return {"nsd": 0.0, "hd95": diagonal, "assd": diagonal}
    there, back = surface_distances(reference, prediction, spacing)
    both = np.concatenate((there, back))
    return {
        "nsd": float((both <= tolerance * (1 + 1e-6)).mean()),  # a spacing of float32 must not miss its own length
        "hd95": float(max(np.percentile(there, 95), np.percentile(back, 95))),
        "assd": float(both.mean()),
    }


def components(reference: Bools, prediction: Bools, voxel: float, sizes: Sequence[float] = ()) -> Found:
    """Connected components (8 or 26 neighbors): found ones, false ones, and the Dice over them.

    A component is found where the prediction shares a voxel with it.  The Dice over components compares each reference with
    the predicted components that touch it, and counts 0 for each that touches none.
    """
    everywhere = np.ones((3,) * reference.ndim)
    labels, count = ndimage.label(reference, everywhere)
    answers, predicted = ndimage.label(prediction, everywhere)
    hits = np.unique(np.stack((labels[reference & prediction], answers[reference & prediction])), axis=1)
    right = len(np.unique(hits[1]))
    found = np.zeros(count + 1, bool)
    found[hits[0]] = True
    recall = float(found[1:].mean()) if count else math.nan
    precision = right / predicted if predicted else math.nan
    if not count and not predicted:
        f1 = overlap = 1.0
    else:
        f1 = 2 * int(found.sum()) / (count + int(found.sum()) + predicted - right)
        overlap = _component_dice(labels, answers, hits, count) / (count + predicted - right)
    out = {"lesion_recall": recall, "lesion_precision": precision, "lesion_f1": f1, "lesion_dice": overlap}
    out |= {"lesions": float(count), "lesions_found": float(found.sum()), "lesions_false": float(predicted - right)}
    volumes = np.bincount(labels.ravel(), minlength=count + 1)[1:] * voxel
    for i in range(len(sizes) + 1 if sizes else 0):
        inside = np.digitize(volumes, sizes) == i
        out[f"lesions_size_{i}"] = float(inside.sum())
        out[f"lesions_found_size_{i}"] = float((inside & found[1:]).sum())
    return out


def _component_dice(
    labels: NDArray[np.int32], answers: NDArray[np.int32], hits: NDArray[np.int32], count: int
) -> float:
    """Sum over the reference's components of the Dice with the predicted ones that touch it."""
    own, other = np.bincount(labels.ravel(), minlength=count + 1), np.bincount(answers.ravel())
    common = np.bincount(labels[answers > 0], minlength=count + 1)
    touching = np.zeros(count + 1)
    np.add.at(touching, hits[0], other[hits[1]])
    return float((2 * common[1:] / (own[1:] + touching[1:])).sum())


def tubes(reference: Bools, prediction: Bools) -> Found:
    """Centerline Dice (Shit et al., CVPR 2021, arXiv:2003.07311) and differences of Betti numbers.

    Skeletons are scikit-image's; of some small blocks it finds none, and the block stands for it.
    """
    (b0, b1), (c0, c1) = betti(reference), betti(prediction)
    errors = {"betti_0_error": float(abs(b0 - c0)), "betti_1_error": float(abs(b1 - c1))}
    if not reference.any() and not prediction.any():
        return {"cldice": 1.0, **errors}
    if not reference.any() or not prediction.any():
        return {"cldice": 0.0, **errors}
    sensitivity, precision = prediction[_skeleton(reference)].mean(), reference[_skeleton(prediction)].mean()
    both = float(sensitivity + precision)
    return {"cldice": 2 * float(sensitivity * precision) / both if both else 0.0, **errors}


def _skeleton(mask: Bools) -> Bools:
    from skimage.morphology import skeletonize

    found = skeletonize(mask)
    return np.asarray(found if found.any() else mask)


def betti(mask: Bools) -> tuple[int, int]:
    """Number of components (8 or 26 neighbors) and of loops.

    Example:
        >>> import numpy as np
        >>> ring = np.ones((3, 3), bool)
        >>> ring[1, 1] = False
        >>> betti(ring)
        (1, 1)
    """
    from monai_segloss.kernels.betti import betti_of  # its package imports torch

    components, loops, _ = betti_of(mask)
    return components, loops


def calibration(reference: Bools, probability: Floats, bins: int = 15, counted: Bools | None = None) -> Found:
    """How far probabilities of a class are from the frequency of the class, in bins of equal width.

    ECE weighs each bin by its voxels, ACE counts all bins alike that have any.

    Args:
        reference: mask.
        probability: of the class, the same shape.
        bins: how many.
        counted: voxels that are not ignored; None: all.
    """
    totals = bin_totals(reference, probability, bins, counted)
    return calibration_errors(totals)


def bin_totals(
    reference: Bools, probability: Floats, bins: int = 15, counted: Bools | None = None
) -> NDArray[np.float64]:
    """Voxels, sum of the probabilities and positives of each bin, (3, bins): they add up over cases."""
    keep = slice(None) if counted is None else counted
    p, g = np.asarray(probability, float)[keep].ravel(), reference[keep].ravel()
    which = np.clip((p * bins).astype(int), 0, bins - 1)
    weights: Iterable[Floats | None] = (None, p, g.astype(float))
    return np.stack([np.bincount(which, each, bins) for each in weights]).astype(float)


def calibration_errors(totals: NDArray[np.float64]) -> Found:
    """ECE and ACE of `bin_totals`."""
    voxels, confidence, positives = totals
    there = voxels > 0
    if not there.any():
        return {"ece": math.nan, "ace": math.nan}
    gap = np.abs(confidence[there] - positives[there])
    return {"ece": float(gap.sum() / voxels.sum()), "ace": float((gap / voxels[there]).mean())}


def mean_over_classes(by_class: Mapping[str, Found]) -> Found:
    """The mean of each measure over the classes of a case, without NaN; NaN where there is none."""
    names = dict.fromkeys(name for found in by_class.values() for name in found if name in MEASURES)
    table = {
        name: [found[name] for found in by_class.values() if not math.isnan(found.get(name, math.nan))]
        for name in names
    }
    return {name: float(np.mean(values)) if values else math.nan for name, values in table.items()}
