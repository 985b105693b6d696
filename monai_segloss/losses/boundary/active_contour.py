from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor

from monai_segloss.core.card import Exempt, ReadingArgs, SegLoss, Unpack, non_negative, one_of, register
from monai_segloss.core.formula import SegBatch, Term, Unreduced
from monai_segloss.kernels.recomputed import by_class, totals
from monai_segloss.losses.boundary.intensities import FITS, homogeneity, image_of
from monai_segloss.losses.boundary.neighborhood import Spacing, by_spacing, class_view, mean_table, scored_maps, valid


@register(
    "active_contour",
    aliases=("ac",),
    tags=("contour", "smoothness"),
    exempt={
        "perfect_prediction_is_zero": "a perfect prediction pays for the length of the contour of the target",
        "perfect_prediction_is_the_minimum": Exempt(
            "a shorter contour may be worth some wrong voxels", cases=("labels_3d", "five_classes", "regions")
        ),
        "flips": "forward differences along several axes meet in one voxel, another one after a flip",
    },
)
class ActiveContourLoss(SegLoss):
    r"""Length of the predicted contour plus the misclassified region, after the active contour model.

    Formula: \lambda_l \overline{\sqrt{|\nabla p|^2 + \epsilon}} + \lambda_r \big(\mu\, \overline{p\,(c_1 - g)^2} +
    \overline{(1 - p)(c_2 - g)^2}\big)

    When: To smooth contours of compact organs. Published alone; unstable from scratch, so start from trained weights or
    add it to cross-entropy. The best prediction is smoother than the target: it shortens thin structures. With
    ``fit="image"`` it needs no target and does not know which class is which: add it to a loss that does.

    With ``fit="image"`` g is the image I, as in the active contours without edges that the loss is named after: c_1 and c_2
    are the means of I under p and under 1 - p, so that the region term is the variance inside and outside. It is the mean
    over the channels of I, which is the keyword ``image`` of the call, (B, channels, *S); trainers hand the input of the
    network over. Scale it: the term grows with the square of its contrast.

    One value per (sample, class). The gradient is per unit of the ``spacing`` of the call and taken at one voxel for
    all axes. The authors' code, and copies of it, mix differences of diagonal neighbors, and count 2-D images of one
    size only. Where a neighbor is ignored there is no contour. With c_in = 1 and c_out = 0 the region is linear: p off
    the target and 1 - p on it. ``last`` holds both terms.

    Args:
        w_length, w_region: factors of the two terms.
        mu: factor of the region inside of the prediction, p (c_in - g)^2, and of nothing else; 1 in the authors' code.
        c_in, c_out: value of the target that belongs inside and outside.
        eps: added below the root, whose slope is infinite at 0, and to the voxels under p and 1 - p where their mean is
            taken; above 0.
        include_background: whether channel 0 is scored; None: where channels are independent.  With two classes and
            softmax it makes no difference, as long as ``mu`` is 1.
        fit: what is fitted: ``"target"``, as in the paper's trainings, or ``"image"``.

    Raises:
        ValueError: ``c_in`` or ``c_out`` alongside ``fit="image"``, which takes means instead.

    Example:
        >>> import torch
        >>> from monai_segloss import ActiveContourLoss
        >>> label = torch.tensor([0, 0, 1, 1, 1, 1]).expand(1, 1, 6, 6)
        >>> logits = 50.0 * torch.cat((1 - 2 * label, 2 * label - 1), 1)
        >>> loss = ActiveContourLoss(softmax=True, to_onehot_y=True)
        >>> round(loss(logits, label).item(), 4)  # one step of 1 in a row of 5, and eps
        0.2001

    Reference: Chen, Williams, Vallabhaneni et al., Learning active contour models for medical image segmentation, CVPR
    2019, doi:10.1109/CVPR.2019.01190; Chan & Vese, Active contours without edges, IEEE TIP 10, 2001,
    doi:10.1109/83.902291 (with the image).

    Where ``mu`` stands in the formula is from memory of the authors' code and was not verified against the paper.
    """

    def __init__(
        self,
        *,
        w_length: float = 1.0,
        w_region: float = 1.0,
        mu: float = 1.0,
        c_in: float = 1.0,
        c_out: float = 0.0,
        eps: float = 1e-8,
        include_background: bool | None = None,
        fit: str = "target",
        **common: Unpack[ReadingArgs],
    ) -> None:
        super().__init__(include_background=include_background, **common)
        one_of(FITS, fit=fit)
        if fit == "image" and (c_in, c_out) != (1, 0):
            raise ValueError(
                f"c_in={c_in}, c_out={c_out}: with fit='image' they are the means of the image; leave them out."
            )
        self.fit = fit
        self.background = include_background
        self.w_length, self.w_region = non_negative(w_length=w_length, w_region=w_region)
        self.mu, self.c_in, self.c_out, self.eps = non_negative(mu=mu, c_in=c_in, c_out=c_out, eps=eps)
        if not self.eps:
            raise ValueError("eps must be above 0.")

    @property
    def taps(self) -> tuple[str, ...]:
        return ("image",) if self.fit == "image" else ()

    def loss(self, batch: SegBatch) -> Mapping[str, Term]:
        p, g = scored_maps(batch, class_view(batch, self.background))

        def contours(spacing: Spacing, p: Tensor, counted: Tensor | None) -> Tensor:
            return by_class(partial(contour_length, spacing, self.eps), 1, p, counted)

        def misplaced_voxels(rows: slice, p: Tensor, g: Tensor, counted: Tensor | None) -> Tensor:
            x = region(p, g.to(p.dtype), counted, self.c_in, self.c_out, self.mu)
            return totals(rows, None, x)[..., 0]

        length, size = by_spacing(contours, batch, p, valid(batch)).unbind(2)
        if self.fit == "image":
            misplaced = variances(p, image_of(batch).to(p.dtype), valid(batch), self.mu, self.eps)
        else:
            misplaced = by_class(misplaced_voxels, 0, p, g, valid(batch))
        return {
            "length": Term(self.w_length, Unreduced.table(length / size.clamp_min(1), batch.voxels)),
            "region": Term(self.w_region, mean_table(misplaced, batch)),
        }


def contour_length(spacing: Spacing, eps: float, rows: slice, u: Tensor, counted: Tensor | None) -> Tensor:
    """Sum of sqrt(|grad u|^2 + eps) per (sample, class) by forward differences, and of how many, (B, K, 2).

    All differences of a voxel are taken at that voxel; the last one along each axis has none.  A difference with an
    ignored voxel is 0.
    """
    axes = [axis for axis in range(2, u.ndim) if u.shape[axis] > 1]

    def first(x: Tensor, ahead: int = 0) -> Tensor:
        """All but the last voxels of each axis, or those one further along one."""
        for axis in axes:
            x = x.narrow(axis, int(axis == ahead), x.shape[axis] - 1)
        return x

    here = first(u)
    kept = torch.ones_like(here[:, :1]) if counted is None else first(counted).to(u.dtype)
    square = torch.zeros_like(here)
    for axis in axes:
        difference = (first(u, axis) - here) / spacing[axis - 2]
        if counted is not None:
            difference = difference * (first(counted, axis) & first(counted))
        square = square + difference**2
    return totals(rows, None, (square + eps).sqrt() * kept, kept.expand_as(square))


def region(u: Tensor, v: Tensor, counted: Tensor | None, inside: float, outside: float, mu: float) -> Tensor:
    """mu u (c_in - v)^2 + (1 - u) (c_out - v)^2 per voxel, (B, K, *S)."""
    x = mu * u * (inside - v) ** 2 + (1 - u) * (outside - v) ** 2
    return x if counted is None else x * counted


def variances(u: Tensor, image: Tensor, counted: Tensor | None, mu: float, eps: float) -> Tensor:
    """Sum over voxels of mu u (c_1 - I)^2 + (1 - u) (c_2 - I)^2 per (sample, class), (B, K), the mean over channels of I."""
    kept = torch.ones_like(u[:, :1]) if counted is None else counted.to(u.dtype)
    inside, outside = (homogeneity(x, image, kept, eps) for x in (u, (1 - u) * kept))
    return (mu * inside + outside) / image.shape[1]
