from __future__ import annotations

from torch import Tensor

from monai_segloss.core.card import FormulaArgs, Recommended, RegionLoss, Unpack, register
from monai_segloss.core.formula import ClassView
from monai_segloss.losses.region.generalized_form import GeneralizedForm


@register(
    "generalized_dice",
    positional="include_background to_onehot_y sigmoid softmax other_act w_type reduction smooth_nr smooth_dr batch "
    "soft_label",
    aliases=("gdl", "generalised_dice"),
    tags=("overlap", "imbalance"),
    recommended=Recommended(include_background=True),
)
class GeneralizedDiceLoss(RegionLoss):
    r"""One Dice for all labels together, each weighted by one over its squared volume.

    Formula: 1 - \frac{2 \sum_l w_l\,TP_l + s_n}{\sum_l w_l\,(2\,TP_l + FP_l + FN_l) + s_d},\quad w_l = G_l^{-2}

    When: Labels of very different volume. A class of few voxels gets nearly all of the weight, so that with w_type
    'square' large classes are hardly trained where a class is tiny; 'simple' is milder.

    One value per sample, mean over samples. The weights of a sample are divided by the largest of them, which changes
    no ratio. Undivided (``scale_free=False``, MONAI's form) they are so small that the smoothing rules: with the
    default 1e-5 two classes of a million voxels each, both predicted wholly wrong, cost 0.286 instead of 1.

    An absent class has the largest weight of its sample. A sample with none of the scored classes gives 0 without
    gradient (with uniform weights: 1, nearly without); scoring the background prevents it. Regions (sigmoid) that are
    all absent have no such help: use ``batch=True``.

    Args:
        w_type: weight of a class of volume G: ``"square"`` 1/G^2, ``"simple"`` 1/G, ``"uniform"`` 1.
        soft_label: L1 form of the counts, for soft labels.
        scale_free: divide the weights of a sample by their largest.

    Example:
        >>> import torch
        >>> from monai_segloss import GeneralizedDiceLoss
        >>> loss = GeneralizedDiceLoss(softmax=True, to_onehot_y=True)
        >>> round(loss(torch.zeros(1, 2, 4), torch.tensor([[[0, 0, 0, 1]]])).item(), 4)
        0.625

    Reference: Sudre et al., Generalised Dice overlap as a deep learning loss function for highly unbalanced
    segmentations, DLMIA 2017, arXiv:1707.03237.
    """

    formula_arguments = ("include_background", "batch", "smooth_nr", "smooth_dr")

    def __init__(
        self,
        *,
        w_type: str = "square",
        soft_label: bool = False,
        scale_free: bool = True,
        **common: Unpack[FormulaArgs],
    ) -> None:
        super().__init__(**common)
        self.form = GeneralizedForm.of(w_type, scale_free, self.smooth_nr, self.smooth_dr, soft_label)
        self.sums = self.form.statistics

    def table(self, view: ClassView) -> Tensor:
        return self.form.table(view)
