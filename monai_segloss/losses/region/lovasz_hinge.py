"""Lovász hinge loss: the Jaccard loss on margins.  Yu & Blaschko, ICML 2015; Berman et al., CVPR 2018."""

from __future__ import annotations

from typing import Unpack

from torch import Tensor

from monai_segloss.core import check
from monai_segloss.core.batch import SegBatch
from monai_segloss.core.counts import activate
from monai_segloss.core.exempt import Exempt
from monai_segloss.core.module import ReadingArgs, SegLoss
from monai_segloss.core.recommend import Recommended
from monai_segloss.core.reduce import Unreduced
from monai_segloss.core.registry import register
from monai_segloss.losses.region.lovasz_softmax import lovasz, voxels_behind


def margins(batch: SegBatch) -> tuple[Tensor, Tensor]:
    """Score and target of each binary problem, (B, K, *S): a channel, or with one class per voxel a foreground class."""
    named = isinstance(batch.activation, str)
    scores = batch.masked_logits if named else activate(batch.masked_logits, batch.activation)
    g = check.hard(batch.one_hot)
    if batch.multilabel:
        return scores, g
    return scores[:, 1:] - scores[:, :1], g[:, 1:]


@register(
    "lovasz_hinge",
    tags=("overlap", "sorting", "margin"),
    support=("labels", "regions", "ignore", "2-D", "3-D"),
    recommended=Recommended(include_background=None, batch=None),
    exempt={
        "shards_equal_the_batch": "ranks are those of the voxels of one process; sorting over processes is not done",
        "probabilities_need_no_activation": "the hinge is taken on logits; without an activation the input is the score",
        "perfect_prediction_is_zero": Exempt(
            "a class must lie below the background by the margin, also at voxels of a third class",
            cases=("labels_3d", "labels_2d", "five_classes", "empty_class", "ignored"),
        ),
        "other_act_equals_activation": "the result of other_act is the score of the hinge, not a probability",
    },
)
class LovaszHingeLoss(SegLoss):
    r"""Lovász extension of the Jaccard loss of the hinge errors: takes logits, not probabilities.

    Formula:
        \sum_i \max(m_{(i)}, 0)\,[J(i) - J(i - 1)],\quad m = 1 - z\,(2 g - 1)\ \text{descending}

    When:
        Binary problems, to raise IoU after training with cross-entropy. The scores are margins and no probabilities
        afterwards: calibrate, or threshold at 0.

    The mean runs over foreground classes: one number for the batch, or (`per_image`) per sample.

    ``softmax=True`` and ``sigmoid=True`` say what the logits mean and are not applied. Without either, and for
    ``other_act``, the input or its result is the score. Feeding it probabilities is the classic mistake. One class per
    voxel: each foreground class against the rest, by z_c - z_0, its logit minus that of the background. That is convex,
    and where nothing is lost the largest logit is that of the right class. By z_c alone nothing would train z_0; by the
    largest of the other logits a class could stay behind another. Sigmoid: every channel. Hard labels only. Under
    DistributedDataParallel each process ranks its own voxels, not those of the whole batch.

    Args:
        per_image: rank the voxels of each sample by themselves; False: those of the batch together.

    Raises:
        ValueError: a target of fractions.

    Example:
        >>> import torch
        >>> from monai_segloss import LovaszHingeLoss
        >>> loss = LovaszHingeLoss(softmax=True, to_onehot_y=True)
        >>> logits = torch.tensor([[[0.0, 0.0, 0.0, 0.0], [-2.0, 0.5, 0.5, 2.0]]])
        >>> round(loss(logits, torch.tensor([[[0, 0, 1, 1]]])).item(), 4)
        0.6667

    Reference:
        Yu & Blaschko, Learning submodular losses with the Lovász hinge, ICML 2015, arXiv:1512.07797; Berman, Rannen
        Triki & Blaschko, The Lovász-Softmax loss, CVPR 2018, arXiv:1705.08790.
    """

    formula_arguments = ()

    def __init__(self, *, per_image: bool = True, **reading: Unpack[ReadingArgs]) -> None:
        super().__init__(**reading)
        self.reader.probabilities = False
        self.per_image = bool(per_image)

    def loss(self, batch: SegBatch) -> Unreduced:
        z, g = margins(batch)
        table, _ = lovasz(batch, z, g, 1.0, self.per_image)
        return Unreduced.table(table.mean(1, keepdim=True), voxels_behind(batch, self.per_image))
