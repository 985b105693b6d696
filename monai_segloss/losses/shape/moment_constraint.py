from __future__ import annotations

import torch

from monai_segloss.core.card import ReadingArgs, Unpack, register
from monai_segloss.core.formula import SegBatch, Unreduced
from monai_segloss.losses.boundary.neighborhood import class_view, require_spatial, scored_maps
from monai_segloss.losses.shape.bounds import BoundedInUnits, Bounds
from monai_segloss.losses.shape.moments import moments
from monai_segloss.losses.shape.size_penalty import outside


@register(
    "moment_constraint",
    tags=("shape", "position", "weak labels"),
    exempt={"shards_equal_the_batch": "under DDP each process takes the mean over its own samples and classes"},
)
class MomentConstraintLoss(BoundedInUnits):
    r"""Square of how far the centroid, or the spread along each axis, of each class lies outside of its bounds.

    Formula: \sum_k \max(\mu_k - u_k, 0)^2 + \max(l_k - \mu_k, 0)^2,\quad \mu_k = \frac{\sum_i p_i x_{ik}}{\sum_i p_i},\
    \mathrm{or}\ \sigma_k = \sqrt{\frac{\sum_i p_i (x_{ik} - \mu_k)^2}{\sum_i p_i}}

    When: Alongside cross-entropy or Dice, and size_penalty, where an organ has a known place or extent and labels are few.
    One centroid says little about a class of several parts. Bounds of whole cases need images of whole cases.

    One value per (sample, class), the sum over the axes k. Coordinates x count from the center of the image, as shares of
    its extent along each axis: bounds in mm, of the same origin, are divided by it. A class that the label lacks leaves the
    mean, unless there are bounds that are given. Ignored voxels have no mass. Both moments are two terms of a sum.

    Args:
        order: 1 for the centroid, 2 for the spread.
        bounds: of the moment along each axis, in the order of the array axes, see ``unit``: [lower, upper] of all, one pair
            per axis, or (scored classes, axes, 2), where None is no bound; or the file of ``segloss prior bounds``. None:
            the moment of the label of each image, ``margin`` times its spread to both sides.
        include_background: whether channel 0 is scored; None: where channels are independent.

    Example:
        >>> import torch
        >>> from monai_segloss import MomentConstraintLoss
        >>> loss = MomentConstraintLoss(softmax=True, to_onehot_y=True, bounds=[0.25, None], unit="share")
        >>> round(loss(torch.zeros(1, 2, 4), torch.zeros(1, 1, 4)).item(), 4)  # the center, a quarter too low
        0.0625

    Reference: Kervadec et al., Beyond pixel-wise supervision for segmentation: a few global shape descriptors might be
    surprisingly good!, MIDL 2021, arXiv:2105.00859.
    """

    def __init__(
        self,
        *,
        order: int = 1,
        bounds: Bounds = None,
        unit: str = "mm",
        margin: float = 0.1,
        on_patches: bool = False,
        include_background: bool | None = None,
        **common: Unpack[ReadingArgs],
    ) -> None:
        if order not in (1, 2):
            raise ValueError(f"order must be 1 (centroid) or 2 (spread), got {order!r}.")
        self.order = int(order)
        self.quantity = "centroid" if order == 1 else "spread"
        super().__init__(bounds, unit, margin, on_patches, include_background, common)

    @property
    def mirrored(self) -> bool:  # type: ignore[override]
        return self.order == 2 or self.limits is None

    def loss(self, batch: SegBatch) -> Unreduced:
        require_spatial(batch)
        batch = batch.full_precision
        p, g = scored_maps(batch, class_view(batch, self.background))
        found, there = moments(p), batch.voxels > 0
        limits, axes = self.given(batch, p.shape[1], (batch.ndim - 2,)), torch.tensor(p.shape[2:]).to(p)
        if limits is None:
            label = moments(g.to(p.dtype))
            middle, slack = label[self.order - 1], self.margin * label[1]
            limits = torch.stack((middle - slack, middle + slack), -1)
            there = there & (g.flatten(2).sum(2) > 0)
        elif self.unit == "mm":
            extent = axes * batch.required_spacing.to(p)
            limits = limits / (extent if extent.ndim == 1 else extent[:, None])[..., None]
        return Unreduced.table(outside(found[self.order - 1], limits).sum(2), there)
