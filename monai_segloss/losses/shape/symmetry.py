from __future__ import annotations

from collections.abc import Sequence

from monai_segloss.core.arguments import shown
from monai_segloss.core.card import ReadingArgs, SegLoss, Unpack, register
from monai_segloss.core.formula import SegBatch, Unreduced
from monai_segloss.losses.boundary.neighborhood import class_view, require_spatial, scored_maps

ALONE = "it does not know the label, which need not be symmetric"


@register(
    "symmetry",
    tags=("shape", "unsupervised"),
    exempt={
        "perfect_prediction_is_zero": ALONE,
        "perfect_prediction_is_the_minimum": ALONE,
    },
)
class SymmetryLoss(SegLoss):
    r"""Mean absolute difference between a prediction and its mirror image, with left and right classes exchanged.

    Formula: \frac{1}{N} \sum_i |p_i - p'_{m(i)}|

    When: Alongside cross-entropy or Dice, for pairs of organs in images that are aligned to their plane of symmetry and
    show both sides whole: brains in a common space. Never for patches, and not for images that are rotated.

    One value per (sample, class). m mirrors the image along ``axis`` about its center, p' has the channels of ``swap``
    exchanged. A voxel counts where its mirror image does.

    Args:
        axis: spatial axis from left to right, 0 the first one, -1 the last.
        swap: pairs of channels that are mirror images of each other, as [[1, 2]]; None: each is its own.
        on_patches: whether to train on patches that are smaller than the cases, which trainers refuse otherwise.
        include_background: whether channel 0 is scored; None: where channels are independent.

    Raises:
        ValueError: ``axis`` or ``swap`` is not in the input.

    Example:
        >>> import torch
        >>> from monai_segloss import SymmetryLoss
        >>> p = torch.tensor([[[1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]]])
        >>> [SymmetryLoss(swap=swap, include_background=True)(p, 0 * p).item() for swap in (None, [[0, 1]])]
        [0.5, 0.0]

    Reference: No paper was found that has it.
    """

    def __init__(
        self,
        *,
        axis: int = -1,
        swap: Sequence[Sequence[int]] | None = None,
        on_patches: bool = False,
        include_background: bool | None = None,
        **common: Unpack[ReadingArgs],
    ) -> None:
        super().__init__(include_background=include_background, **common)
        self.background, self.on_patches = include_background, bool(on_patches)
        if axis not in range(-3, 3):
            raise ValueError(f"axis must be a spatial axis, -3 to 2, got {axis!r}.")
        self.axis, self.swap = int(axis), exchanged(swap)

    @property
    def whole_cases(self) -> bool:  # type: ignore[override]
        return not self.on_patches

    def loss(self, batch: SegBatch) -> Unreduced:
        require_spatial(batch)
        batch, space = batch.full_precision, batch.ndim - 2
        if not -space <= self.axis < space:
            raise ValueError(f"axis is {self.axis}, but input has {space} spatial axes.")
        axis, view = 2 + self.axis % space, class_view(batch, self.background)
        order = list(range(view.classes))
        for pair in self.swap:
            if min(pair) < view.first or max(pair) >= batch.classes:
                raise ValueError(f"swap is {list(pair)}; scored are the channels {view.first} to {batch.classes - 1}.")
            one, other = (channel - view.first for channel in pair)
            order[one], order[other] = other, one
        p, _ = scored_maps(batch, view)
        difference = (p - p[:, order].flip(axis)).abs()
        if batch.mask is None:
            return Unreduced.table(difference.flatten(2).mean(2), batch.voxels)
        both = (batch.mask & batch.mask.flip(axis - 1))[:, None]
        count = both.flatten(2).sum(2)
        return Unreduced.table((difference * both).flatten(2).sum(2) / count.clamp_min(1), count)


def exchanged(swap: Sequence[Sequence[int]] | None) -> tuple[tuple[int, int], ...]:
    """``swap``, checked: pairs of different channels, each in one pair at most."""
    try:
        found = tuple((int(one), int(other)) for one, other in swap or ())
        flat = [channel for pair in found for channel in pair]
        fits = min(flat, default=0) >= 0 and len(set(flat)) == len(flat)
    except (TypeError, ValueError, OverflowError, RuntimeError, NotImplementedError):
        fits = False
    if not fits:
        raise ValueError(f"swap must hold pairs of channels, each channel at most once, got {shown(swap)}.")
    return found
