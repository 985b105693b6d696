from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from monai_segloss.core.card import Exempt, FormulaArgs, SegLoss, Unpack, non_negative, register
from monai_segloss.core.counts import Voxels
from monai_segloss.core.formula import FORMULAS, MapSpec, SegBatch, Term, Unreduced
from monai_segloss.kernels.components import Segments
from monai_segloss.losses.boundary.neighborhood import require_spatial
from monai_segloss.losses.instance.instances import (
    CELLS,
    cells,
    component_sums,
    instance_table,
    refuse_fractions,
)
from monai_segloss.losses.region.dice_form import DiceForm, dice
from monai_segloss.losses.voxel.cross_entropy import cross_entropy


@register(
    "cc_dice_ce",
    aliases=("cc_dicece",),
    tags=("instances", "lesions", "imbalance", "overlap", "likelihood"),
    support=("labels", "regions", "ignore", "2-D", "3-D"),
    exempt={
        "compiles": "components and their cells are found on the CPU",
        "shards_equal_the_batch": "under DDP each process takes the mean over its own samples and classes with components",
        "flips": Exempt(
            "a voxel between two components belongs to the first one, and a flip changes which one that is",
            cases=("labels_3d", "labels_2d", "ignored", "regions", "regions_masked"),
        ),
    },
)
class CCDiceCELoss(SegLoss):
    r"""Dice + cross-entropy in the Voronoi cell of every connected component, alongside the global Dice + cross-entropy.

    Formula: L(p, g; \Omega) + \lambda\, \frac{1}{K} \sum_{n=1}^{K} L(p, g; V_n),\quad V_n = \{x : d(x, C_n) \le d(x,
    C_m)\ \forall m\},\quad L = \lambda_{Dice}\,\mathrm{Dice} + \lambda_{CE}\,\mathrm{CE}

    When: Small lesions among large ones, and where each lesion must be found: every component weighs the same, and a
    false positive is charged to the nearest one. Components and cells cost CPU time in each step.

    L is `DiceCELoss` on the whole volume Omega, and Dice + binary cross-entropy on a cell. A cell is what lies nearer
    to a component than to the others of its class, by exact Euclidean distance in the ``spacing`` of the call (1
    without one); a voxel between two belongs to the one that comes first. The Dice of a cell has no smoothing. A
    (sample, class) without components is left out of the term of the cells; code by the authors takes the whole volume
    as one cell there. Diagonal neighbors are connected. Each class is taken against the rest; with one class per voxel
    the background has no components.

    A keyword ``components`` of the call takes precomputed ids, see `BlobLoss`; a keyword ``cells`` (B, C, *S), or (B,
    1, *S) where one class has components, the id of the nearest component of a class at every voxel.

    Args:
        lambda_global, lambda_cc: factors of the global term and of the term of the cells.
        lambda_dice, lambda_ce: factors of Dice and cross-entropy in both.
        include_background, batch, smooth_nr, smooth_dr: of the global Dice.
        weight: one factor per class, background included.

    Raises:
        ValueError: a target of fractions; ids that are no whole numbers, or 0 inside of a class.

    Example:
        >>> import torch
        >>> from monai_segloss import CCDiceCELoss
        >>> loss = CCDiceCELoss(softmax=True, to_onehot_y=True, lambda_global=0.0, lambda_ce=0.0)
        >>> round(loss(torch.zeros(1, 2, 6), torch.tensor([[[1, 0, 0, 0, 1, 1]]])).item(), 4)
        0.5143

    Reference: Bouteille et al., Learning to look closer: a new instance-wise loss for small cerebral lesion
    segmentation, ISBI 2026, arXiv:2511.17146.
    """

    accepts = ("components",)
    scalar_only = True

    def __init__(
        self,
        *,
        lambda_global: float = 1.0,
        lambda_cc: float = 1.0,
        lambda_dice: float = 1.0,
        lambda_ce: float = 1.0,
        **common: Unpack[FormulaArgs],
    ) -> None:
        super().__init__(**common)
        self.dice = DiceForm(False, False, self.smooth_nr, self.smooth_dr)
        self.lambda_global, self.lambda_cc = non_negative(lambda_global=lambda_global, lambda_cc=lambda_cc)
        self.lambda_dice, self.lambda_ce = non_negative(lambda_dice=lambda_dice, lambda_ce=lambda_ce)

    @property
    def needs(self) -> tuple[MapSpec, ...]:
        return (CELLS,)

    def loss(self, batch: SegBatch) -> Mapping[str, Term]:
        require_spatial(batch)
        refuse_fractions(batch)
        batch, weight = batch.full_precision, self.weights(batch.classes)
        batch.request(*self.dice.statistics, *cross_entropy(batch, weight).statistics)
        view = batch.class_view(self.include_background, self.batch)
        segments = cells(batch)
        overlap, likelihood = (
            Unreduced(*instance_table(segments, values, batch, weight)) for values in cell_values(batch, segments)
        )
        whole, cell = self.lambda_global, self.lambda_cc
        return {
            "dice": Term(whole * self.lambda_dice, self.dice.unreduced(view, view.foreground(weight))),
            "cross_entropy": Term(whole * self.lambda_ce, cross_entropy(batch, weight).summed()),
            "cc_dice": Term(cell * self.lambda_dice, overlap),
            "cc_cross_entropy": Term(cell * self.lambda_ce, likelihood),
        }


def cell_values(batch: SegBatch, segments: Segments) -> tuple[Tensor, Tensor]:
    """Dice loss without smoothing and binary cross-entropy of each cell (T,)."""
    hit, extra, missed, likelihood = component_sums(cell_sums, batch, segments)
    return dice(hit, extra + missed, 0, 0), likelihood / segments.sizes


def cell_sums(v: Voxels) -> tuple[Tensor, ...]:
    """What the voxels of a cell add up, (1, C, n) each."""
    tp, fp, fn, ce, ce_neg = (FORMULAS[name](v, 0) for name in ("tp", "fp", "fn", "ce", "ce_neg"))
    return tp, fp, fn, ce + ce_neg
