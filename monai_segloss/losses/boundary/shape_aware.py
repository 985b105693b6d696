"""Shape-aware loss: cross-entropy of wrong voxels, scaled by how far the predicted contour is off.  Al Arif et al., 2017."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Unpack

import torch
from torch import Tensor

from monai_segloss.core.batch import SegBatch
from monai_segloss.core.check import non_negative, one_of
from monai_segloss.core.maps import MapSpec, scored_map
from monai_segloss.core.module import ReadingArgs, SegLoss
from monai_segloss.core.recommend import Recommended
from monai_segloss.core.reduce import Term, Unreduced
from monai_segloss.core.registry import register
from monai_segloss.losses.boundary.distances import predicted_masks, signed_distance
from monai_segloss.losses.boundary.neighborhood import valid
from monai_segloss.losses.voxel.cross_entropy import cross_entropy
from monai_segloss.maps.masks import inner_boundary

DOMAINS = ("mismatch", "all")


def contour_error(distance: Tensor, predicted: Tensor, target: Tensor, counted: Tensor | None) -> tuple[Tensor, Tensor]:
    """Mean distance of the predicted contour to the target, (B, K), and where both have a contour, (B, K) bool.

    Args:
        distance: of each voxel to the boundary of the target, (B, K, *S).
        predicted, target: masks (B, K, *S).
        counted: the voxels that count, (B, 1, *S), or None for all.
    """
    contour = inner_boundary(predicted, counted)
    size = contour.flatten(2).sum(2)
    mean = (distance * contour).flatten(2).sum(2) / size.clamp_min(1)
    known = (size > 0) & inner_boundary(target, counted).flatten(2).any(2)
    return mean * known, known


@register(
    "shape_aware",
    tags=("likelihood", "distance", "contour"),
    recommended=Recommended(include_background=None, batch=None),
)
class ShapeAwareLoss(SegLoss):
    r"""Cross-entropy, plus that of the wrong voxels times the mean distance of the predicted contour in mm.

    Formula:
        \frac{1}{N} \sum_i \mathrm{CE}_i\, (1 + w\, E\, [\hat y_i \neq y_i]),\quad E = \mathrm{mean}_{x \in \partial
        \hat S}\, d(x, \partial S)

    When:
        To fine-tune a network that is nearly right: samples whose contour is far off weigh more. The distance carries
        no gradient and grows with the image and the unit, so from scratch it dwarfs the cross-entropy; ramp w_shape up.

    CE is `CrossEntropyLoss`. E, one number per sample without gradient, is the mean distance in mm of the voxels on the
    contour of the prediction to the boundary of the target, then the mean over the foreground classes of which both
    have a contour; 0 where none has. The prediction is the class of the largest probability. Where channels are
    independent each is a loss of its own, cut at 1/2, with its own E and binary cross-entropy. Neither the border of
    the image nor an ignored voxel is a contour. ``last`` holds both terms.

    A keyword ``sdm_inner`` of the call takes precomputed maps (`monai_segloss.transforms.SignedDistanceMapd` with
    ``mode="inner"``), of floating point, (B, C, *S) or of the foreground classes only. Else they are made in the call,
    with its ``spacing``, that of a MetaTensor, or 1 and a warning.

    Args:
        w_shape: factor of the second term, per mm.
        domain: the voxels of the second term: where prediction and target differ, ``"mismatch"``, or ``"all"``, which makes
            the loss (1 + w E) CE, as surveys print it.
        reading: see `SegLoss`; ``reduction="none"`` gives one value per voxel.

    Raises:
        TypeError: ``sdm_inner`` of integers.
        ValueError: an unknown ``domain``.

    Example:
        >>> import torch
        >>> from monai_segloss import ShapeAwareLoss
        >>> label = torch.tensor([[[0, 0, 0, 0, 1, 1, 1, 1]]])
        >>> start = torch.tensor([-1.0, -1, 1, 1, 1, 1, 1, 1])  # two voxels too early: E is 2 x 3 mm
        >>> loss = ShapeAwareLoss(softmax=True, to_onehot_y=True)
        >>> value = loss(torch.stack([-start, start])[None], label, spacing=(3.0,))
        >>> {name: round(term.item(), 4) for name, term in loss.last.items()}  # 2 of 8 voxels are wrong
        {'cross_entropy': 0.6269, 'shape': 3.1904}

    Reference:
        Al Arif, Knapp & Slabaugh, Shape-aware deep convolutional neural network for vertebrae segmentation, MSKI at
        MICCAI 2017, doi:10.1007/978-3-319-74113-0_2.

        The formula is from what surveys say of the paper and was not verified against it; the form for several classes
        is this library's. Surveys print it with another sign and cite Z. Hayder et al., arXiv:1612.03129, which is
        another method.
    """

    formula_arguments = ()

    def __init__(self, *, w_shape: float = 1.0, domain: str = "mismatch", **reading: Unpack[ReadingArgs]) -> None:
        super().__init__(**reading)
        (self.w_shape,) = non_negative(w_shape=w_shape)
        one_of(DOMAINS, domain=domain)
        self.everywhere = domain == "all"
        self.map = signed_distance(mode="inner")

    @property
    def needs(self) -> tuple[MapSpec, ...]:
        return (self.map,)

    def loss(self, batch: SegBatch) -> Mapping[str, Term]:
        value = cross_entropy(batch).per_voxel()
        parts = {"cross_entropy": (1.0, value), "shape": (self.w_shape, value * self.factor(batch))}
        whole = self.reduction == "none"
        return {
            name: Term(weight, Unreduced(x if whole else x.flatten(2).sum(2), batch.voxels))
            for name, (weight, x) in parts.items()
        }

    @torch.no_grad()
    def factor(self, batch: SegBatch) -> Tensor:
        """E where it belongs: (B, 1, *S) with one class per voxel, else of each channel (B, C, *S)."""
        counted, exclusive = valid(batch), not batch.multilabel
        view = batch.class_view(not exclusive)
        distance = scored_map(self.map, view).abs()
        predicted, target = predicted_masks(batch.prob, exclusive), batch.one_hot > 0.5
        error, known = contour_error(distance, predicted[:, view.first :], target[:, view.first :], counted)
        wrong = predicted != target
        if exclusive:
            error = error.sum(1, keepdim=True) / known.sum(1, keepdim=True).clamp_min(1)
            wrong = wrong.any(1, keepdim=True)
        error = error.reshape(*error.shape, *(1,) * (batch.ndim - 2))
        return error * (torch.ones_like(wrong) if self.everywhere else wrong)
