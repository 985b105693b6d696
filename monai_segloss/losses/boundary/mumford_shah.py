"""Mumford-Shah loss: classes of homogeneous intensity.  Kim & Ye, IEEE TIP 2020."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Unpack

import torch
from torch import Tensor

from monai_segloss.core import check
from monai_segloss.core.batch import SegBatch
from monai_segloss.core.check import non_negative
from monai_segloss.core.errors import LossShapeError
from monai_segloss.core.exact import products
from monai_segloss.core.exempt import Exempt
from monai_segloss.core.module import ReadingArgs, SegLoss
from monai_segloss.core.recommend import Recommended
from monai_segloss.core.reduce import Term, Unreduced
from monai_segloss.core.registry import register
from monai_segloss.losses.boundary.neighborhood import Spacing, by_spacing, valid


def homogeneity(u: Tensor, image: Tensor, counted: Tensor, eps: float) -> Tensor:
    """Sum over channels, classes and voxels of |I - mu_c|^2 u_c, (B, 1); mu_c = sum I u_c / (sum u_c + eps).

    ``u`` is (B, K, *S) and ``image`` (B, channels, *S), both 0 where not ``counted`` (B, 1, *S).  The image is counted from
    its mean, so that its offset costs no digits.
    """
    u, image, counted = u.flatten(2), image.flatten(2), counted.flatten(2)
    shift = image.sum(2, keepdim=True) / counted.sum(2, keepdim=True).clamp_min(1)
    image = (image - shift) * counted
    mass, product = u.sum(2)[..., None], products(u, image)
    mean = (product - eps * shift[..., 0][:, None]) / (mass + eps)
    square = (u * (image**2).sum(1, keepdim=True)).sum(2)
    values = square + (mean * (mean * mass - 2 * product)).sum(2)
    return values.sum(1, keepdim=True)


def variation(spacing: Spacing, u: Tensor, counted: Tensor | None) -> Tensor:
    """Sum over classes and pairs of neighbors of |difference| / spacing, (B, 1), but for pairs with an ignored voxel."""
    total = u.new_zeros(u.shape[0], 1)
    for axis, step in enumerate(spacing, start=2):
        n = u.shape[axis] - 1
        difference = (u.narrow(axis, 1, n) - u.narrow(axis, 0, n)).abs() / step
        if counted is not None:
            difference = difference * (counted.narrow(axis, 1, n) & counted.narrow(axis, 0, n))
        total = total + difference.flatten(1).sum(1, keepdim=True)
    return total


@register(
    "mumford_shah",
    tags=("contour", "smoothness", "unsupervised"),
    recommended=Recommended(include_background=True, batch=None),
    exempt={
        "perfect_prediction_is_zero": Exempt(
            "a perfect prediction pays for the total variation of the target",
            cases=("labels_3d", "five_classes", "regions", "regions_masked"),
        )
    },
)
class MumfordShahLoss(SegLoss):
    r"""Each class is a region of nearly constant intensity of the image, with a short boundary.

    Formula:
        \frac{1}{N} \Big(\sum_c \sum_i |I_i - \mu_c|^2\, p_{ci} + \lambda\, \mathrm{TV}(p)\Big),\quad \mu_c =
        \frac{\sum_i I_i\, p_{ci}}{\sum_i p_{ci} + \epsilon}

    When:
        Alongside cross-entropy on images of which few have labels: with the image it needs no target. It does not know
        which class is which, and supposes that intensities tell the classes apart. Without an image the target takes
        its place, which only checks a training with labels.

    The mean runs over samples. I is the keyword ``image`` of the call, (B, channels, *S), whose channels add up. Scale
    it: the value grows with the square of its contrast. Without it I is the target, one channel per class. mu_c is the
    mean intensity under the prediction and carries a gradient. The total variation sums absolute differences along the
    axes per unit of the ``spacing`` of the call. Ignored voxels enter neither term. The authors' code sums over the
    batch and has no eps, so a class without any probability is NaN there.

    Args:
        w_tv: factor of the total variation.
        eps: added to the mass of a class.
        common: see `SegLoss`; ``reduction="none"`` gives one value per sample.

    Example:
        >>> import torch
        >>> from monai_segloss import MumfordShahLoss
        >>> image = torch.tensor([[[1.0, 1.0, 5.0, 5.0]]])
        >>> logits = 50.0 * torch.tensor([[[1.0, 1.0, -1.0, -1.0], [-1.0, -1.0, 1.0, 1.0]]])
        >>> loss, label = MumfordShahLoss(softmax=True, to_onehot_y=True), torch.zeros(1, 1, 4)
        >>> values = (loss(z, label, image=image).item() for z in (logits, 0 * logits))
        >>> [round(x, 4) for x in values]  # two classes of one value each; a variance of 4
        [0.0005, 4.0]

    Reference:
        Kim & Ye, Mumford-Shah loss functional for image segmentation with deep learning, IEEE TIP 29, 2020,
        arXiv:1904.02872.
    """

    formula_arguments = ("include_background",)
    accepts = ("image",)

    def __init__(
        self,
        *,
        w_tv: float = 1e-3,
        eps: float = 1e-6,
        include_background: bool = True,
        **common: Unpack[ReadingArgs],
    ) -> None:
        super().__init__(include_background=include_background, **common)
        self.w_tv, self.eps = non_negative(w_tv=w_tv, eps=eps)
        if not self.eps:
            raise ValueError("eps must be above 0.")

    def loss(self, batch: SegBatch) -> Mapping[str, Term]:
        p, counted = batch.class_view(self.include_background).prob, valid(batch)
        kept = torch.ones_like(p[:, :1]) if counted is None else counted.to(p.dtype)
        data = homogeneity(p * kept, image_of(batch).to(p.dtype), kept, self.eps)
        tv = by_spacing(variation, batch, p, counted)
        spread, rough = (Unreduced.table(x / batch.voxels.clamp_min(1), batch.voxels) for x in (data, tv))
        return {"homogeneity": Term(1.0, spread), "variation": Term(self.w_tv, rough)}


def image_of(batch: SegBatch) -> Tensor:
    """The image sent, else the target, (B, channels, *S), 0 where ignored."""
    if "image" not in batch.maps:
        return batch.one_hot
    image, shape = batch.maps["image"], batch.logits.shape
    if image.ndim == batch.ndim - 1:
        image = image[:, None]
    if image.ndim != batch.ndim or image.shape[0] != shape[0] or image.shape[2:] != shape[2:]:
        wanted = f"({shape[0]}, channels, {', '.join(map(str, shape[2:]))})"
        raise LossShapeError(f"image has shape {tuple(batch.maps['image'].shape)}; expected {wanted}.")
    if image.device != batch.logits.device:
        raise ValueError(f"image is on {image.device} but input on {batch.logits.device}; move one of them.")
    image = check.no_wider(image, batch.logits)
    return image if batch.mask is None else image.masked_fill(~batch.mask[:, None], 0)
