"""Region mutual information between neighborhoods of prediction and target.  Zhao et al., NeurIPS 2019."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Unpack

import torch
from torch import Tensor
from torch.nn import functional as F

from monai_segloss.core.batch import SegBatch
from monai_segloss.core.check import non_negative
from monai_segloss.core.counts import Stat
from monai_segloss.core.errors import LossShapeError
from monai_segloss.core.exact import exact, rounded
from monai_segloss.core.module import ReadingArgs, SegLoss
from monai_segloss.core.recommend import Recommended
from monai_segloss.core.reduce import Term, Unreduced
from monai_segloss.core.registry import register
from monai_segloss.losses.boundary.neighborhood import require_spatial


def region_mutual_information(g: Tensor, p: Tensor, ridge: float) -> Tensor:
    """Half the log determinant of what of ``g`` a linear function of ``p`` leaves unexplained, per dimension.

    Args:
        g, p: neighborhoods (..., points, R) in float64.
        ridge: added to the diagonals.

    Returns:
        (...): 0.5 logdet(S_g - S_gp (S_p + e I)^-1 S_gp' + e I) / R, S sums of products and not their means.
    """
    g, p = (x - x.mean(-2, keepdim=True) for x in (g, p))
    eye = torch.eye(g.shape[-1]).to(g)
    across = p.mT @ g
    explained = across.mT @ torch.cholesky_solve(across, torch.linalg.cholesky_ex(p.mT @ p + ridge * eye).L)
    left = torch.linalg.cholesky_ex(g.mT @ g - explained + ridge * eye).L
    return (left * eye).sum(-1).log().sum(-1) / g.shape[-1]


def neighborhoods(x: Tensor, radius: int, pool: int) -> Tensor:
    """All windows of ``radius`` voxels per axis of the pooled maps (B, C, *S), as vectors (B, C, points, R).

    An axis that is shorter after pooling is one window.
    """
    space = x.ndim - 2
    if pool > 1:
        x = (F.max_pool1d, F.max_pool2d, F.max_pool3d)[space - 1](x, pool, stride=pool, padding=pool // 2)
    edges = [min(radius, n) for n in x.shape[2:]]
    for axis, edge in enumerate(edges, start=2):
        x = x.unfold(axis, edge, 1)
    return x.flatten(2 + space).flatten(2, 1 + space)


@register(
    "region_mutual_information",
    aliases=("rmi",),
    tags=("windows", "boundary", "likelihood"),
    size=12,
    recommended=Recommended(include_background=None, batch=None),
    exempt={
        "perfect_prediction_is_zero": "a log determinant has no natural zero: the value at the optimum is negative",
        "shards_equal_the_batch": "the cross-entropy divides by one voxel more than there are, as the authors' code does",
        "flips": "the grid of the max pooling begins at the first voxel",
    },
)
class RegionMutualInformationLoss(SegLoss):
    r"""Cross-entropy, and a lower bound of the mutual information of 3 x 3 neighborhoods of prediction and target.

    Formula:
        \lambda_{CE} \frac{\sum_{i,c} \mathrm{BCE}_{i,c}}{N + 1} + \lambda_r \sum_c \frac{1}{2 R^d}
        \log\det\left(\Sigma_g - \Sigma_{gp} (\Sigma_p + \epsilon I)^{-1} \Sigma_{gp}^\top + \epsilon I\right)

    When:
        Fine structure that cross-entropy blurs. Its value is negative at the optimum and grows with the image, so it is
        no criterion for early stopping; images need at least pool * radius voxels per axis.

    The bound is summed over classes and averaged over samples. Each point of the max-pooled map becomes the vector of
    its R = radius^d neighbors. The bound is half the log determinant of the target's covariance that is left when the
    prediction's is known, divided by R. The covariances are sums over points and not means, as in the authors' code, so
    the value depends on the image's size. All of it is computed in float64. With sigmoid the cross-entropy is summed
    over channels. Ignored voxels have probability and target 0 in their neighbors' vectors.

    The authors' code needs CUDA and functions that torch no longer has; theirs is the ridge of 5e-4 (1e-6 in the paper,
    from memory). An axis with fewer than ``radius`` voxels after pooling is one window, so a slice gives what its image
    gives. A map that is a single point has no information and no gradient.

    Args:
        radius: edge of the neighborhood, in voxels after pooling.
        pool: edge and stride of the max pooling; 1 does not pool.
        ridge: epsilon on the diagonals, above 0.
        lambda_ce, lambda_rmi: factors of the two terms, at least 0.
        reading: see `SegLoss`; one number for the batch, so ``reduction="none"`` is refused.

    Example:
        >>> import torch
        >>> from monai_segloss import RegionMutualInformationLoss
        >>> loss = RegionMutualInformationLoss(softmax=True, to_onehot_y=True)
        >>> label = torch.zeros(1, 1, 18, 18, dtype=torch.long)
        >>> label[0, 0, 4:12, 5:14] = 1
        >>> round(loss(torch.zeros(1, 2, 18, 18), label).item(), 4)
        0.5643

    Reference:
        Zhao et al., Region mutual information loss for semantic segmentation, NeurIPS 2019, arXiv:1910.12037.
    """

    formula_arguments = ()
    scalar_only = True

    def __init__(
        self,
        *,
        radius: int = 3,
        pool: int = 3,
        ridge: float = 5e-4,
        lambda_ce: float = 0.5,
        lambda_rmi: float = 0.5,
        **reading: Unpack[ReadingArgs],
    ) -> None:
        super().__init__(**reading)
        for name, value in {"radius": radius, "pool": pool}.items():
            if not 1 <= value < math.inf or value != int(value):
                raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}.")
        self.radius, self.pool = int(radius), int(pool)
        (self.ridge,) = non_negative(ridge=ridge)
        if not self.ridge:
            raise ValueError("ridge must be above 0: without it the covariance of a constant has no determinant.")
        self.lambda_ce, self.lambda_rmi = non_negative(lambda_ce=lambda_ce, lambda_rmi=lambda_rmi)

    def loss(self, batch: SegBatch) -> Mapping[str, Term]:
        require_spatial(batch)
        if self.pool > 1 and batch.ndim > 5:
            raise LossShapeError(f"input has shape {tuple(batch.logits.shape)}; pool={self.pool} pools 3 axes at most.")
        batch = batch.full_precision
        which = (Stat("ce"), Stat("ce_neg")) if batch.multilabel else (Stat("ce"),)
        batch.request(*which)
        ce = torch.stack([batch.sum(stat) for stat in which]).sum(0)
        p, g = batch.prob, batch.one_hot.to(batch.masked_logits.dtype)
        if batch.mask is not None:
            p = p * batch.mask[:, None]
        g, p = (neighborhoods(x, self.radius, self.pool) for x in (g, p))
        table = rounded(region_mutual_information(exact(g), exact(p), self.ridge), ce.device).to(ce.dtype)
        counted = Unreduced.table(table, batch.voxels)
        return {
            "cross_entropy": Term(self.lambda_ce, Unreduced(ce, batch.voxels.sum() + 1)),
            "rmi": Term(self.lambda_rmi, Unreduced(counted.total, counted.count / batch.classes)),
        }
