"""Weights of the background between instances that almost touch.  Ronneberger, Fischer & Brox, MICCAI 2015."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from monai_segloss.core.check import non_negative
from monai_segloss.core.exact import exact
from monai_segloss.kernels.components import connected_components
from monai_segloss.kernels.two_nearest import two_nearest
from monai_segloss.maps.masks import as_mask


@torch.no_grad()
def border_weight_map(
    mask: Tensor,
    spacing: Tensor | None = None,
    valid: Tensor | None = None,
    *,
    w0: float = 10.0,
    sigma: float = 5.0,
    class_weight: str | Sequence[float] | None = None,
    background_only: bool = True,
    instances: Tensor | None = None,
) -> Tensor:
    """w_c + w0 exp(-(d1 + d2)^2 / (2 sigma^2)), d1 and d2 the distances to the nearest and the second nearest instance.

    The weight of the border needs two instances; where a sample has fewer it is 0.  Computed on the CPU
    (`monai_segloss.kernels.two_nearest`): a map for the workers of a loader, made after everything that moves, scales or
    crops.

    Args:
        mask: (B, C, *S), one channel per class with instances, background left out; the connected components of a class,
            over faces, are its instances.
        spacing: (ndim,) or (B, ndim) in array axis order, in mm; None is 1, so that ``sigma`` is in voxels as in the paper.
        valid: (B, 1 | C, *S) bool; other voxels are in no instance and have weight 0.
        w0: largest weight of a border.
        sigma: its width in mm.
        class_weight: w_c: None is 1, ``"balanced"`` the voxels of the sample over (those of the class times the number of
            classes there), or one number for the background and each class.
        background_only: leave the inside of instances, where d1 is 0, at w_c.
        instances: (B, 1 | C, *S) ids above 0 of instances, each channel by itself, in place of the components.

    Returns:
        (B, 1, *S) float32.

    Example:
        >>> import torch
        >>> from monai_segloss.maps import border_weight_map
        >>> border_weight_map(torch.tensor([[[1, 0, 0, 1]]]), sigma=1.0).mul(1000).round().tolist()
        [[[1000.0, 1111.0, 1111.0, 1000.0]]]
    """
    (w0,) = non_negative(w0=w0)
    if not non_negative(sigma=sigma)[0]:
        raise ValueError("sigma must be above 0.")
    counted = torch.ones_like(mask[:, :1], dtype=torch.bool) if valid is None else valid[:, :1]
    mask = as_mask(mask) & counted
    ids = connected_components(mask, faces=True) if instances is None else instances.long()
    ids = ids if instances is None or valid is None else ids.masked_fill(~counted, 0)
    rows = [
        torch.stack(two_nearest(sample, None if spacing is None else spacing if spacing.ndim == 1 else spacing[b]))
        for b, sample in enumerate(ids)
    ]
    total, device = exact(torch.stack(rows)).sum(1)[:, None], mask.device
    ids, mask, counted = ids.cpu(), mask.cpu(), counted.cpu()
    del rows
    border = total.square_().neg_().div_(2 * sigma**2).exp_().mul_(w0)
    if background_only:
        border = border.masked_fill((ids > 0).any(1, keepdim=True), 0)
    out = _class_weights(mask, counted, class_weight) + border
    return out.masked_fill(~counted, 0).float().to(device)


def _class_weights(mask: Tensor, counted: Tensor, how: str | Sequence[float] | None) -> Tensor:
    """w_c of each voxel, (B | 1, 1, *S) float64."""
    if how is None:
        return torch.ones((), dtype=torch.float64)
    masks = torch.cat((counted & ~mask.any(1, keepdim=True), mask), 1)
    shape = (1, -1, *(1,) * (mask.ndim - 2))
    if isinstance(how, str):
        if how != "balanced":
            raise ValueError(f"class_weight must be None, 'balanced' or one number per class, got {how!r}.")
        volume = exact(masks.flatten(2).sum(2))
        present = (volume > 0).sum(1, keepdim=True)
        weight = volume.sum(1, keepdim=True) / (present * volume).clamp_min(1)
        weight = weight.view(*weight.shape, *shape[2:])
    else:
        if len(how) != masks.shape[1]:
            raise ValueError(f"class_weight has {len(how)} values for the background and {mask.shape[1]} classes.")
        numbers = non_negative(**{f"class_weight_{i}": x for i, x in enumerate(how)})
        weight = torch.tensor(numbers, dtype=torch.float64).view(shape)
    return (weight * masks).sum(1, keepdim=True)
