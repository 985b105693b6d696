from __future__ import annotations

from monai_segloss.core.card import ReadingArgs, SegLoss, Unpack, non_negative, register
from monai_segloss.core.formula import SegBatch, Unreduced
from monai_segloss.losses.boundary.neighborhood import class_view, scored_maps
from monai_segloss.losses.shape.bounds import cell
from monai_segloss.losses.shape.perimeters import perimeters


@register(
    "perimeter",
    tags=("shape", "contour"),
    exempt={"flips": "forward differences along several axes meet in one voxel, another one after a flip"},
)
class PerimeterLoss(SegLoss):
    r"""Squared difference between the perimeter of each class in the prediction and in the label.

    Formula: \frac{(P(p) - P(g))^2}{N},\quad P(u) = \sum_i \left(\sqrt{|\nabla u_i|^2 + \epsilon} - \sqrt{\epsilon}\right)

    When: Alongside Dice, against ragged contours and wrong holes. Never alone: equal perimeters cost nothing wherever they
    are. The border of an image is no perimeter.

    One value per (sample, class). P is the length of contours in 2-D and the area of surfaces in 3-D, in units of the
    ``spacing`` of the call; N is the volume of the voxels that count. The paper counts the voxels of contours that are
    found by pooling; this is the length of the gradient, as in `CompactnessLoss`, which depends less on the direction of a
    contour. The authors' code returns one value per class.

    Args:
        isotropic: the length of a gradient is its Euclidean norm; False: the sum of its components, which is exact for
            edges along the axes.
        eps: below the root of the norm, above 0.
        include_background: whether channel 0 is scored; None: where channels are independent.

    Example:
        >>> import torch
        >>> from monai_segloss import PerimeterLoss
        >>> p, g = torch.zeros(2, 1, 1, 8, 8)
        >>> p[..., 2:6, 2:6], g[..., 3:5, 3:5] = 1, 1
        >>> round(PerimeterLoss(isotropic=False)(p, g).item(), 4)  # 16 and 8, in 64 voxels
        1.0

    Reference: El Jurdi et al., A surprisingly effective perimeter-based loss for medical image segmentation, MIDL 2021,
    PMLR 143.
    """

    def __init__(
        self,
        *,
        isotropic: bool = True,
        eps: float = 1e-8,
        include_background: bool | None = None,
        **common: Unpack[ReadingArgs],
    ) -> None:
        super().__init__(include_background=include_background, **common)
        self.background = include_background
        self.isotropic = bool(isotropic)
        (self.eps,) = non_negative(eps=eps)
        if not self.eps:
            raise ValueError("eps must be above 0.")

    def loss(self, batch: SegBatch) -> Unreduced:
        batch = batch.full_precision
        p, g = scored_maps(batch, class_view(batch, self.background))
        length, _ = perimeters(batch, p, self.eps, self.isotropic)
        wanted, _ = perimeters(batch, g.to(p.dtype), self.eps, self.isotropic)
        return Unreduced.table((length - wanted) ** 2 / (batch.voxels.clamp_min(1) * cell(batch)), batch.voxels)
