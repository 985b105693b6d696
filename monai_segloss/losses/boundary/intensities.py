"""Intensities of the image inside of regions of the prediction, which losses of level sets share."""

from __future__ import annotations

from torch import Tensor

from monai_segloss.core.batch import SegBatch
from monai_segloss.core.check import no_wider
from monai_segloss.core.errors import LossShapeError
from monai_segloss.core.exact import products

FITS = ("target", "image")
"""What a loss of level sets may fit."""


def homogeneity(u: Tensor, image: Tensor, counted: Tensor, eps: float) -> Tensor:
    """Sum over channels and voxels of |I - mu_c|^2 u_c per class, (B, K); mu_c = sum I u_c / (sum u_c + eps).

    ``u`` is (B, K, *S) and ``image`` (B, channels, *S), both 0 where not ``counted`` (B, 1, *S).  The image is counted from
    its mean, so that its offset costs no digits.
    """
    u, image, counted = u.flatten(2), image.flatten(2), counted.flatten(2)
    shift = image.sum(2, keepdim=True) / counted.sum(2, keepdim=True).clamp_min(1)
    image = (image - shift) * counted
    mass, product = u.sum(2)[..., None], products(u, image)
    mean = (product - eps * shift[..., 0][:, None]) / (mass + eps)
    square = (u * (image**2).sum(1, keepdim=True)).sum(2)
    return square + (mean * (mean * mass - 2 * product)).sum(2)


def image_of(batch: SegBatch) -> Tensor:
    """The image of the call, (B, channels, *S), 0 where ignored.

    Raises:
        ValueError: it did not come, or is on another device or grid (LossShapeError) than input.
    """
    shape = batch.logits.shape
    wanted = f"({shape[0]}, channels, {', '.join(map(str, shape[2:]))})"
    if "image" not in batch.maps:
        raise ValueError(f"fit='image': the image did not come; hand it over as image=..., of shape {wanted}.")
    image = batch.maps["image"]
    if image.ndim == batch.ndim - 1:
        image = image[:, None]
    if image.ndim != batch.ndim or image.shape[0] != shape[0] or image.shape[2:] != shape[2:]:
        raise LossShapeError(f"image has shape {tuple(batch.maps['image'].shape)}; expected {wanted}.")
    if image.device != batch.logits.device:
        raise ValueError(f"image is on {image.device} but input on {batch.logits.device}; move one of them.")
    image = no_wider(image, batch.logits)
    return image if batch.mask is None else image.masked_fill(~batch.mask[:, None], 0)
