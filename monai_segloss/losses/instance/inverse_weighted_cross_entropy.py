"""Cross-entropy in which every component weighs the same.  Shirokikh et al., MICCAI 2020."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

from monai_segloss.core.batch import SegBatch
from monai_segloss.core.maps import MapSpec
from monai_segloss.core.module import ReadingArgs, SegLoss
from monai_segloss.core.recommend import Recommended
from monai_segloss.core.reduce import Unreduced
from monai_segloss.core.registry import register
from monai_segloss.losses.instance.instances import COMPONENTS, clipping, components, refuse_fractions
from monai_segloss.losses.instance.inverse_weights import inverse_weights
from monai_segloss.losses.voxel.cross_entropy import cross_entropy


@register(
    "inverse_weighted_cross_entropy",
    aliases=("iw_cross_entropy", "iwce"),
    tags=("instances", "lesions", "imbalance", "likelihood"),
    support=("labels", "regions", "ignore", "2-D", "3-D"),
    recommended=Recommended(include_background=None, batch=None),
    exempt={"compiles": "components are found on the CPU, by connected-components-3d or SciPy"},
)
class InverseWeightedCrossEntropyLoss(SegLoss):
    r"""Cross-entropy with weights by which every component, and the background, weighs the same.

    Formula:
        \frac{1}{N} \sum_i w_i\,(-\log p_{i,y_i}),\quad w_i = \frac{N}{(K + 1)\,|L_{j(i)}|}

    When:
        Lesions of very unequal size. A lesion of one voxel weighs as much as the whole background, so label noise and
        false positives get loud; compare with blob.

    L_j are the K components of a sample, L_0 its background, N its valid voxels (those of the training patch). One
    class per voxel: the components of all classes, K in all, share the background. Sigmoid or a single channel: each
    channel by itself, binary cross-entropy, mean over channels too. The weights of a sample sum to N, so a uniform
    prediction costs log C. Code by the authors clips the weights to (1, 2e5), which lifts the background, whose weight
    is below 1, and breaks this sum.

    A keyword ``components`` of the call takes precomputed ids, see `BlobLoss`. ``reduction="none"``: (B, 1, *S), with
    sigmoid (B, C, *S).

    Args:
        clip: lowest and highest weight, (low, high); None does not clip.

    Raises:
        ValueError: a target of fractions; ids that are no whole numbers, or 0 inside of a class.

    Example:
        >>> import torch
        >>> from monai_segloss import InverseWeightedCrossEntropyLoss
        >>> loss = InverseWeightedCrossEntropyLoss(softmax=True, to_onehot_y=True)
        >>> round(loss(torch.tensor([[[0.0] * 4, [0.0, 0, 0, 2]]]), torch.tensor([[[0, 0, 0, 1]]])).item(), 4)
        0.41

    Reference:
        Shirokikh et al., Universal loss reweighting to balance lesion size inequality in 3D medical image segmentation,
        MICCAI 2020, arXiv:2007.10033.
    """

    formula_arguments = ()

    def __init__(self, *, clip: Sequence[float] | None = None, **reading: Unpack[ReadingArgs]) -> None:
        super().__init__(**reading)
        self.clip = clipping(clip)

    @property
    def needs(self) -> tuple[MapSpec, ...]:
        return (COMPONENTS,)

    def loss(self, batch: SegBatch) -> Unreduced:
        refuse_fractions(batch)
        weights = inverse_weights(batch, components(batch), self.clip, joint=not batch.multilabel)
        values = weights * cross_entropy(batch).per_voxel()
        if self.reduction != "none":
            values = batch.total(values)
        return Unreduced(values, batch.voxels)
