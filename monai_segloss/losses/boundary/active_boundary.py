"""Active boundary loss: predicted boundaries move towards those of the target.  Wang et al., AAAI 2022."""

from __future__ import annotations

import math
from typing import Unpack

import torch
from torch import Tensor

from monai_segloss.core.batch import SegBatch
from monai_segloss.core.check import within
from monai_segloss.core.derivatives import no_second_derivative
from monai_segloss.core.exempt import Exempt
from monai_segloss.core.module import ReadingArgs, SegLoss
from monai_segloss.core.recommend import Recommended
from monai_segloss.core.reduce import Unreduced
from monai_segloss.core.registry import register
from monai_segloss.kernels.active_boundary import ahead, at, value_and_slope
from monai_segloss.kernels.distance import distance_to
from monai_segloss.losses.boundary.neighborhood import valid


def target_boundary(labels: Tensor, counted: Tensor) -> Tensor:
    """Voxels of another class than the next one along some axis, (B, 1, *S) bool."""
    edge = torch.zeros_like(counted)
    for offset in ahead(labels):
        edge = edge | (at(labels, offset) != labels) & at(counted, offset, False)
    return edge & counted


@register(
    "active_boundary",
    aliases=("abl",),
    tags=("contour", "distance"),
    support=("labels", "ignore", "2-D", "3-D"),
    recommended=Recommended(include_background=None, batch=None),
    exempt={
        "gradcheck": "neighbors and the choice of voxels carry no gradient, so the gradient is not the derivative",
        "second_derivatives": "neighbors carry no gradient, so that there is none of the gradient either",
        "perfect_prediction_is_zero": Exempt(
            "next to the right boundary smoothed directions still cost something", cases=("ignored",)
        ),
        "perfect_prediction_is_the_minimum": Exempt(
            "it compares distances and no classes; a prediction without boundary costs 0", cases=("ignored",)
        ),
        "flips": "a boundary lies in the voxel before a change, which is another one after a flip",
    },
)
class ActiveBoundaryLoss(SegLoss):
    r"""Predicted boundaries move one voxel at a time towards the nearest boundary of the target.

    Formula:
        \overline{\frac{\min\{M_i, d\}}{d}\, \mathrm{CE}\big(\{\mathrm{KL}(p_{i + \delta} \| p_i)\}_\delta,\
        \arg\min_\delta M_{i + \delta}\big)}

    When:
        Alongside cross-entropy and Lovász-Softmax, as published, to refine predictions that are nearly right. It never
        reads which class lies on which side, so it does not train alone; in 3-D it visits 26 neighbors of each voxel of
        the predicted boundary.

    The mean runs over the voxels of the predicted boundary, then over samples. M is the distance to the boundary of the
    target, of all classes together; d is ``max_dist``. The predicted boundary are the ``max_ratio`` voxels of a sample
    that differ most from the next ones (KL divergence), and their neighbors. For each, a cross-entropy with smoothed
    labels over its neighbors (8 in 2-D, 26 in 3-D) raises the divergence towards the neighbor nearest to the target's
    boundary. Neighbors carry no gradient.

    Differences from the authors' code: M is exact (theirs is the distance minus 1 in whole voxels) and knows the
    ``spacing``. The share holds per sample and exactly (theirs is per batch, by steps of a factor of 1.2). Voxels
    without a neighbor nearer to the boundary leave the mean. Without any boundary the value is 0 (theirs is None).
    Ignored voxels are no boundary (there they all are).

    Args:
        max_ratio: share of the voxels that the predicted boundary has at most, before its neighbors join; at least one.
        max_dist: distance from which on the weight no longer grows, in the unit of the ``spacing``, in voxels without one.
        label_smoothing: of the directions, in [0, 1).
        reading: see `SegLoss`; ``reduction="none"`` gives one value per sample.

    Raises:
        ValueError: ``sigmoid=True`` or a single channel; a share or a smoothing out of range; ``max_dist`` not above 0.

    Example:
        >>> import torch
        >>> from monai_segloss import ActiveBoundaryLoss
        >>> label = torch.zeros(1, 1, 12).long()
        >>> label[..., 8:] = 1  # its boundary is voxel 7, the predicted one is voxel 3
        >>> logits = torch.full((1, 2, 12), -1.0)
        >>> logits[:, 0, :4], logits[:, 1, 4:] = 1.0, 1.0
        >>> loss = ActiveBoundaryLoss(softmax=True, to_onehot_y=True, max_ratio=0.05)
        >>> round(loss(logits, label).item(), 4)
        0.1595

    Reference:
        Wang, Zhang, Cui et al., Active boundary loss for semantic segmentation, AAAI 2022, arXiv:2102.02696.

        The order of the divergence is that of the authors' code.
    """

    formula_arguments = ()

    def __init__(
        self,
        *,
        max_ratio: float = 0.01,
        max_dist: float = 20.0,
        label_smoothing: float = 0.2,
        **reading: Unpack[ReadingArgs],
    ) -> None:
        super().__init__(**reading)
        if self.reader.sigmoid:
            raise ValueError("sigmoid=True: the active boundary loss is defined for one class per voxel.")
        self.max_ratio, self.label_smoothing = within(0, 1, max_ratio=max_ratio, label_smoothing=label_smoothing)
        if not self.max_ratio:
            raise ValueError("max_ratio must be above 0.")
        if self.label_smoothing == 1:
            raise ValueError("label_smoothing must be below 1.")
        if not 0 < max_dist < math.inf:
            raise ValueError(f"max_dist must be above 0, got {max_dist!r}.")
        self.max_dist = float(max_dist)

    def loss(self, batch: SegBatch) -> Unreduced:
        if batch.classes == 1:
            raise ValueError("input has a single channel: the active boundary loss is defined for one class per voxel.")
        log_p, mask = no_second_derivative(batch.log_prob, "ActiveBoundaryLoss"), valid(batch)
        counted = torch.ones_like(log_p[:, :1], dtype=torch.bool) if mask is None else mask
        distance = distance_to(target_boundary(batch.labels[:, None], counted), batch.spacing)
        value, slope = value_and_slope(
            log_p.detach(), distance, counted, self.max_ratio, self.max_dist, self.label_smoothing
        )
        linear = (slope * log_p).flatten(1).sum(1, keepdim=True)
        return Unreduced.table(value + (linear - linear.detach()), batch.voxels)
