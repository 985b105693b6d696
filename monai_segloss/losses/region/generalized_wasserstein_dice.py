"""Generalized Wasserstein Dice loss: confusing near classes costs less.  Fidon et al., BrainLes 2017."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, Unpack

import torch
from torch import Tensor

from monai_segloss.core.arguments import numbers
from monai_segloss.core.batch import SegBatch
from monai_segloss.core.counts import Stat
from monai_segloss.core.module import FormulaArgs, SegLoss
from monai_segloss.core.recommend import Recommended
from monai_segloss.core.reduce import Unreduced
from monai_segloss.core.registry import register
from monai_segloss.kernels.confusion import soft_confusion
from monai_segloss.losses.region.dice import one_minus_ratio

MODES = ("default", "GDL")
G = Stat("g")


def wasserstein_dice(
    confusion: Tensor, g: Tensor, m: Tensor, pooled: bool, smooth_nr: float = 1e-5, smooth_dr: float = 1e-5
) -> Tensor:
    """(sum_l a_l W_l + dr - nr) / (2 sum_l b_l (G_l - W_l) + sum_l a_l W_l + dr), (B | 1, 1).

    W_l = sum_c M[l, c] T[l, c] is the cost of the voxels of class l.  Default: a = 1, b = 1 but 0 for the background;
    ``pooled``: a = b = 1 / (G_l + 1).
    """
    cost = (m * confusion).sum(2)
    a = 1 / (g + 1) if pooled else torch.ones_like(g)
    b = a if pooled else torch.cat((a.new_zeros(a.shape[0], 1), a[:, 1:]), 1)
    error = (a * cost).sum(1, keepdim=True)
    return one_minus_ratio(2 * (b * (g - cost)).sum(1, keepdim=True), error, smooth_nr, smooth_dr)


Matrix = Sequence[Sequence[float]] | Tensor


def distance_matrix(value: Any) -> Tensor:
    """The distances between classes, checked, divided by the largest."""
    try:
        m = numbers("dist_matrix", value, "numbers of at least 0, C x C", axes=2)
    except TypeError as error:
        raise ValueError(str(error)) from None
    if m.ndim != 2 or m.shape[0] != m.shape[1] or m.shape[0] < 2:
        raise ValueError(f"dist_matrix must be C x C for at least 2 classes but has shape {tuple(m.shape)}.")
    if not bool(((m >= 0) & m.isfinite()).all()) or not bool((m > 0).any()):
        raise ValueError(f"dist_matrix must hold finite distances of at least 0, not all 0, got {m.tolist()}.")
    if bool(m.diagonal().any()):
        raise ValueError(f"dist_matrix must be 0 on its diagonal, got {m.diagonal().tolist()}.")
    m = m / m.max()
    if not bool((m[1:, 0] == 1).all()):
        warnings.warn(
            "dist_matrix: the background is not the largest distance from every class, so that missing a class altogether "
            "still counts as part of a true positive.",
            stacklevel=4,
        )
    return m


@register(
    "generalized_wasserstein_dice",
    positional="dist_matrix weighting_mode reduction smooth_nr smooth_dr",
    aliases=("gwdl",),
    tags=("overlap", "hierarchy"),
    support=("labels", "soft labels", "ignore", "2-D", "3-D"),
    recommended=Recommended(include_background=None),
    exempt={"probabilities_need_no_activation": "without an activation it takes the softmax, as MONAI's class does"},
)
class GeneralizedWassersteinDiceLoss(SegLoss):
    r"""Dice in which confusing two classes costs the distance between them.

    Formula:
        1 - \frac{2 \sum_{i: y_i \ne 0} (1 - W_i) + s_n}{2 \sum_{i: y_i \ne 0} (1 - W_i) + \sum_i W_i + s_d},\quad W_i =
        \sum_c M_{y_i c}\,p_{ic}

    When:
        Classes with an order or a hierarchy, for example tumor parts, whose confusion is not equally bad. One class per
        voxel. A sample without foreground costs nearly 1 whatever is predicted: use batch=True where there are many.

    One value per sample, mean over samples; softmax and labels unless told otherwise. It works on the C x C soft
    confusion matrix of a sample; MONAI's class keeps a distance per class and voxel. The background is built in: its
    voxels are no true positives, but errors on them count. Probabilities go in with ``other_act``, a one-hot or soft
    target with ``to_onehot_y=False``.

    Args:
        dist_matrix: distance M[l, c] of predicting c where l is true, (C, C), 0 on the diagonal, the background at the
            largest distance from every class; divided by its maximum.  None: all classes at distance 1.
        weighting_mode: ``"default"``, or ``"GDL"``: each class weighs 1 / (G + 1), background too.
        common: see `SegLoss`; with ``batch=True`` the confusion matrix is that of the batch.

    Raises:
        ValueError: ``sigmoid=True``; a matrix that is not square, not 0 on its diagonal, negative, or of another number of
            classes than the input; an unknown ``weighting_mode``.

    Example:
        >>> import torch
        >>> from monai_segloss import GeneralizedWassersteinDiceLoss
        >>> m = [[0.0, 1.0, 1.0], [1.0, 0.0, 0.5], [1.0, 0.5, 0.0]]
        >>> loss = GeneralizedWassersteinDiceLoss(m)
        >>> round(loss(torch.zeros(1, 3, 6), torch.tensor([[[0, 0, 0, 1, 2, 2]]])).item(), 4)
        0.5385

    Reference:
        Fidon et al., Generalised Wasserstein Dice score for imbalanced multi-class segmentation using holistic
        convolutional networks, BrainLes 2017, arXiv:1707.00478; Tilborghs et al., 2020 (GDL), arXiv:2007.15546.
    """

    formula_arguments = ("batch", "smooth_nr", "smooth_dr")

    def __init__(  # type: ignore[misc]
        self,
        *,
        dist_matrix: Matrix | None = None,
        weighting_mode: str = "default",
        to_onehot_y: bool = True,
        **common: Unpack[FormulaArgs],
    ) -> None:
        if not common.get("sigmoid") and common.get("other_act") is None:
            common["softmax"] = True
        super().__init__(to_onehot_y=to_onehot_y, **common)
        if self.reader.sigmoid:
            raise ValueError("sigmoid=True: the generalized Wasserstein Dice loss is defined for one class per voxel.")
        if weighting_mode not in MODES:
            raise ValueError(f"weighting_mode must be one of {', '.join(map(repr, MODES))}, got {weighting_mode!r}.")
        self.pooled = weighting_mode == "GDL"
        self.register_buffer("dist_matrix", None if dist_matrix is None else distance_matrix(dist_matrix))
        self.dist_matrix: Tensor | None

    def statistics(self, batch: SegBatch) -> tuple[Stat, ...]:
        return (G,)

    def loss(self, batch: SegBatch) -> Unreduced:
        view = batch.class_view(over_batch=self.batch)
        g = view.sums(G)[0]
        g = g if batch.target.requires_grad else g.detach()  # no gradient in the logits, which need not be looked for
        confusion = view.reduce_batch(soft_confusion(batch.logits, batch.target, batch.activation, batch.mask))
        table = wasserstein_dice(confusion, g, self._distances(confusion), self.pooled, self.smooth_nr, self.smooth_dr)
        return Unreduced.table(table, view.voxel_count)

    def _distances(self, confusion: Tensor) -> Tensor:
        classes = confusion.shape[1]
        if classes < 2:
            raise ValueError("input has 1 channel; the generalized Wasserstein Dice loss needs one channel per class.")
        if self.dist_matrix is None:
            return 1 - torch.eye(classes, dtype=confusion.dtype, device=confusion.device)
        if self.dist_matrix.shape[0] != classes:
            raise ValueError(
                f"dist_matrix is for {self.dist_matrix.shape[0]} classes but input has {classes} channels."
            )
        return self.dist_matrix.to(confusion)
