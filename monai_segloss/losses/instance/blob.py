from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from monai_segloss.core.card import FormulaArgs, SegLoss, Unpack, non_negative, register
from monai_segloss.core.exact import widest_dtype
from monai_segloss.core.formula import MapSpec, SegBatch, Stat, Term, Unreduced
from monai_segloss.kernels.components import Segments
from monai_segloss.losses.boundary.neighborhood import require_spatial
from monai_segloss.losses.instance.instances import (
    COMPONENTS,
    component_sums,
    components,
    first_class,
    instance_table,
    refuse_fractions,
)
from monai_segloss.losses.region.dice_form import DiceForm, dice
from monai_segloss.losses.voxel.cross_entropy import cross_entropy

OUTSIDE = (Stat("fp"), Stat("ce_neg"))
"""What the voxels outside of a class give; they are in the domain of every component of the class."""


@register(
    "blob",
    aliases=("blob_loss",),
    tags=("instances", "lesions", "imbalance", "overlap", "likelihood"),
    support=("labels", "regions", "ignore", "2-D", "3-D"),
    exempt={
        "compiles": "components are found on the CPU, by connected-components-3d or SciPy",
        "shards_equal_the_batch": "under DDP each process takes the mean over its own samples and classes with components",
    },
)
class BlobLoss(SegLoss):
    r"""Dice and cross-entropy of every connected component by itself, alongside the global Dice + cross-entropy.

    Formula: \lambda_g L(p, g; \Omega) + \lambda_b\, \frac{1}{K} \sum_{n=1}^{K} L\left(p, B_n; \Omega \setminus
    \bigcup_{m \ne n} B_m\right),\quad L = \lambda_{Dice}\,\mathrm{Dice} + \lambda_{CE}\,\mathrm{CE}

    When: Many lesions of unequal size, where Dice sees only the large ones. Finding components costs CPU time in each
    step unless the loader sends them; with one lesion per patch it adds little to dice_ce.

    L is `DiceCELoss` on the whole volume Omega, and Dice + binary cross-entropy on a component. A component's domain
    leaves out the other components of its class, which count neither as hit nor as error. The authors' code multiplies
    the network's output by the mask instead; with logits a masked voxel is then p = 1/2 and still costs. Each class is
    taken against the rest. Diagonal neighbors are connected. The mean runs over the components of a (sample, class),
    then over those with components. With one class per voxel the background (channel 0) has no components;
    ``include_background`` is about the global Dice.

    A keyword ``components`` of the call takes precomputed ids, whole numbers with 0 outside: (B, C, *S), the components
    of each channel numbered from 1, or (B, 1, *S) or (B, *S), where a voxel has the id within its class.

    The paper has Dice and other losses in place of L; its weights 2 : 1 are taken from memory.

    Args:
        lambda_global, lambda_blob: factors of the global term and of the term of the components.
        lambda_dice, lambda_ce: factors of Dice and cross-entropy in both.
        batch: of the global Dice.
        weight: one factor per class, background included.

    Raises:
        ValueError: a target of fractions; ids that are no whole numbers, or 0 inside of a class.

    Example:
        >>> import torch
        >>> from monai_segloss import BlobLoss
        >>> loss = BlobLoss(softmax=True, to_onehot_y=True, lambda_global=0.0, lambda_ce=0.0)
        >>> round(loss(torch.zeros(1, 2, 4), torch.tensor([[[1, 0, 1, 1]]])).item(), 4)
        0.4643

    Reference: Kofler et al., blob loss: instance imbalance aware loss functions for semantic segmentation, IPMI 2023,
    arXiv:2205.08209; Kundu et al., Instance awareness of multi-class semantic segmentation loss functions, 2026
    (several classes), arXiv:2604.24276.
    """

    scalar_only = True

    def __init__(
        self,
        *,
        lambda_global: float = 2.0,
        lambda_blob: float = 1.0,
        lambda_dice: float = 1.0,
        lambda_ce: float = 1.0,
        **common: Unpack[FormulaArgs],
    ) -> None:
        super().__init__(**common)
        self.dice = DiceForm(False, False, self.smooth_nr, self.smooth_dr)
        self.lambda_global, self.lambda_blob = non_negative(lambda_global=lambda_global, lambda_blob=lambda_blob)
        self.lambda_dice, self.lambda_ce = non_negative(lambda_dice=lambda_dice, lambda_ce=lambda_ce)

    @property
    def needs(self) -> tuple[MapSpec, ...]:
        return (COMPONENTS,)

    def loss(self, batch: SegBatch) -> Mapping[str, Term]:
        require_spatial(batch)
        refuse_fractions(batch)
        batch, weight = batch.full_precision, self.weights(batch.classes)
        batch.request(*self.dice.statistics, *cross_entropy(batch, weight).statistics, *OUTSIDE)
        view = batch.class_view(self.include_background, self.batch)
        segments = Segments.of(components(batch))
        overlap, likelihood = (
            Unreduced(*instance_table(segments, values, batch, weight))
            for values in blob_values(batch, segments, self.smooth_nr, self.smooth_dr)
        )
        whole, blob = self.lambda_global, self.lambda_blob
        return {
            "dice": Term(whole * self.lambda_dice, self.dice.unreduced(view, view.foreground(weight))),
            "cross_entropy": Term(whole * self.lambda_ce, cross_entropy(batch, weight).summed()),
            "blob_dice": Term(blob * self.lambda_dice, overlap),
            "blob_cross_entropy": Term(blob * self.lambda_ce, likelihood),
        }


def blob_values(batch: SegBatch, segments: Segments, smooth_nr: float, smooth_dr: float) -> tuple[Tensor, Tensor]:
    """Dice loss and binary cross-entropy of each component (T,), on all voxels but those of its class's others."""
    first, size = first_class(batch), segments.sizes.to(widest_dtype(batch.logits.device))
    tp, fn, log_p = component_sums(lambda v: (v.p, v.q, v.lp), batch, segments)
    fp, ce_neg = (batch.sum(stat)[:, first:].flatten()[segments.owner].to(size.dtype) for stat in OUTSIDE)
    classes = batch.classes - first
    of_class = size.new_zeros(batch.logits.shape[0] * classes).index_add(0, segments.owner, size)
    outside = batch.voxels.to(size.dtype).expand(-1, classes).flatten() - of_class
    return dice(tp, fp + fn, smooth_nr, smooth_dr), (ce_neg - log_p) / (size + outside[segments.owner])
