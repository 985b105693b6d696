from __future__ import annotations

from collections.abc import Sequence

import torch

from monai_segloss.core.card import FormulaArgs, SegLoss, Unpack, register
from monai_segloss.core.formula import MapSpec, SegBatch, Unreduced
from monai_segloss.losses.instance.instances import COMPONENTS, clipping, components, first_class, refuse_fractions
from monai_segloss.losses.instance.inverse_weights import inverse_weights
from monai_segloss.losses.instance.weighted_statistics import weighted_statistics
from monai_segloss.losses.region.dice_form import dice


@register(
    "inverse_weighted_dice",
    aliases=("iw_dice", "iwdl"),
    tags=("instances", "lesions", "imbalance", "overlap"),
    support=("labels", "regions", "ignore", "2-D", "3-D"),
    exempt={"compiles": "components are found on the CPU, by connected-components-3d or SciPy"},
)
class InverseWeightedDiceLoss(SegLoss):
    r"""Squared Dice with weights by which every component, and the background, weighs the same.

    Formula: 1 - \frac{2 \sum_i w_i p_i g_i + s_n}{\sum_i w_i (p_i^2 + g_i^2) + s_d},\quad w_i = \frac{N}{(K +
    1)\,|L_{j(i)}|}

    When: Lesions of very unequal size, where Dice sees only the large ones. Without a cross-entropy next to it training
    is as unstable as with Dice alone; compare with blob.

    The mean runs over samples and classes. Each class against the rest: its K components and the voxels outside of it
    weigh N / (K + 1) each, N the number of valid voxels of the sample. With one class per voxel the background (channel
    0), where it is scored, is one component. Code by the authors clips the weights to (1, 2e5).

    A keyword ``components`` of the call takes precomputed ids, see `BlobLoss`.

    Args:
        clip: lowest and highest weight, (low, high); None does not clip.

    Raises:
        ValueError: a target of fractions; ids that are no whole numbers, or 0 inside of a class.

    Example:
        >>> import torch
        >>> from monai_segloss import InverseWeightedDiceLoss
        >>> loss = InverseWeightedDiceLoss(softmax=True, to_onehot_y=True)
        >>> round(loss(torch.zeros(1, 2, 4), torch.tensor([[[0, 0, 0, 1]]])).item(), 4)
        0.3333

    Reference: Shirokikh et al., Universal loss reweighting to balance lesion size inequality in 3D medical image
    segmentation, MICCAI 2020, arXiv:2007.10033.
    """

    def __init__(self, *, clip: Sequence[float] | None = None, **common: Unpack[FormulaArgs]) -> None:
        super().__init__(**common)
        self.clip = clipping(clip)

    @property
    def needs(self) -> tuple[MapSpec, ...]:
        return (COMPONENTS,)

    def loss(self, batch: SegBatch) -> Unreduced:
        refuse_fractions(batch)
        view, ids = batch.class_view(self.include_background, self.batch), components(batch)
        if first_class(batch):
            ids = torch.cat(((batch.one_hot[:, :1] > 0.5).long(), ids), 1)
        weights = inverse_weights(batch, ids[:, view.first :], self.clip)
        tp, error = weighted_statistics(("tp", "se"), view, weights)
        table = dice(tp, error, self.smooth_nr, self.smooth_dr)
        return Unreduced.table(table, view.voxel_count, self.weights(view.classes))
