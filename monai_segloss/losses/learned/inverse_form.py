from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Unpack

import torch
from torch import Tensor, nn

from monai_segloss.core.batch import SegBatch
from monai_segloss.core.companions import float_features
from monai_segloss.core.module import FormulaArgs
from monai_segloss.core.reduce import Unreduced, quotient
from monai_segloss.core.registry import register
from monai_segloss.losses.learned.guided import Base
from monai_segloss.losses.learned.with_prior import WithPrior
from monai_segloss.prior.boundaries import pairs, soft_boundary, tiles
from monai_segloss.prior.networks import TransformRegressor
from monai_segloss.schedules import TermWeight


@register(
    "inverse_form",
    tags=("prior", "boundary", "shape"),
    exempt={
        "shards_equal_the_batch": "under DDP each process takes the mean over its own samples and classes with boundaries",
        "flips": "a regressor that was trained on tiles knows a mirrored tile by training alone",
        "perfect_prediction_is_zero": "between identical boundaries a regressor finds its own noise",
    },
)
class InverseFormLoss(WithPrior):
    r"""A segmentation loss plus the transformation that takes the predicted boundary to the true one.

    Formula: L_{base} + \lambda\,\mathrm{mean}_{tiles} \lVert \hat\theta(b(p), b(y)) \rVert_2

    When: Boundaries that are in the wrong place by a few voxels, which cross-entropy counts alike wherever they are.

    From the paper: a frozen network regresses the transformation between two boundary tiles, as deviation from the identity,
    and its norm is the loss.  From us: volumes; the boundary b of a class, p minus its erosion, which needs no head;
    overlapping tiles of the patch as it is, of which those without a boundary on either side are left out; a small
    convolutional regressor of translations, scales and rotations, trained on boundaries of the training labels by
    ``segloss prior train --kind inverse-form`` or by the trainer; each parameter in units of the largest one of that
    training: a sixth of a tile, 0.2 in the logarithm, 20 degrees.  The paper's boundary and edge-attention terms are left
    out; its weights of cross-entropy, 1, and of this term, 0.3, are those of ``base`` and ``weight_transform``.

    Identical boundaries cost the regressor's noise, which its file has as ``norm_of_identical``.

    Args:
        base: segmentation loss: a registry key, or terms as `WeightedSum` has them.
        weight_transform: lambda, a number or a schedule.
        prior: file of the regressor; None: the trainer makes one.
        common: see `SegLoss`, for ``base``; ``reduction="none"`` is refused.

    Raises:
        PriorError: there is no such file, or its prior is for other classes, another patch or spacing.
        RuntimeError: a call before `prepare`, or without a prior.

    Example:
        >>> from monai_segloss import InverseFormLoss
        >>> loss = InverseFormLoss(softmax=True, to_onehot_y=True)
        >>> loss.prior_kind, loss.term_weights
        ('inverse-form', {'dice_ce': 1.0, 'inverse_form': 0.3})

    Reference: Borse et al., InverseForm: A loss function for structured boundary-aware segmentation, CVPR 2021,
    arXiv:2104.02745.
    """

    kind = "inverse-form"

    def __init__(
        self,
        *,
        base: Base = "dice_ce",
        weight_transform: TermWeight = 0.3,
        prior: str | None = None,
        **common: Unpack[FormulaArgs],
    ) -> None:
        super().__init__(base, {"inverse_form": ("weight_transform", weight_transform)}, prior, common)

    def part(self, network: TransformRegressor) -> nn.Module:
        return network.layers

    def own_terms(self, batch: SegBatch) -> Mapping[str, Callable[[], Unreduced]]:
        return {"inverse_form": lambda: self._transforms(batch)}

    def _transforms(self, batch: SegBatch) -> Unreduced:
        """Mean norm over the tiles of each sample and class; those without tiles leave the mean."""
        assert self.frozen is not None
        assert self.header is not None
        first = 0 if batch.multilabel else 1
        valid = None if batch.mask is None else batch.mask[:, None]
        masks = (batch.prob[:, first:], batch.one_hot[:, first:].to(batch.masked_logits.dtype))
        p, y = (tiles(soft_boundary(x, valid), self.header.network["tile"]) for x in masks)
        found = pairs(p, y)
        both = torch.stack((p, y), 3).flatten(0, 2)
        if torch.compiler.is_compiling():  # shapes that depend on the data would break the graph
            norms = self._norms(both).reshape(found.shape) * found
        else:
            norms = p.new_zeros(found.shape).masked_scatter(found, self._norms(both[found.flatten()]))
        table, count = norms.sum(2), found.sum(2).to(p.dtype)
        return Unreduced.table(quotient(table, count) + 0 * masks[0].flatten(2).sum(2), count)

    def _norms(self, both: Tensor) -> Tensor:
        assert self.frozen is not None
        theta = self.frozen(float_features(both, self.frozen))
        return torch.linalg.vector_norm(theta, dim=1).to(both.dtype)
