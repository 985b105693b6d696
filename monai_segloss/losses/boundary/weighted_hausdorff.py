"""Weighted Hausdorff distance to a set of points.  Ribera et al., CVPR 2019."""

from __future__ import annotations

from itertools import product
from typing import Unpack

import torch
from torch import Tensor

from monai_segloss.core.batch import ClassView, SegBatch
from monai_segloss.core.check import one_of, within
from monai_segloss.core.errors import LossShapeError
from monai_segloss.core.maps import MapSpec, scored_map
from monai_segloss.core.module import ReadingArgs, SegLoss
from monai_segloss.core.recommend import Recommended
from monai_segloss.core.reduce import Unreduced
from monai_segloss.core.registry import register
from monai_segloss.kernels.distance import distance_to
from monai_segloss.kernels.points import EPS, centers, generalized_mean_distance, subsample
from monai_segloss.losses.boundary.distances import target_field
from monai_segloss.losses.boundary.neighborhood import class_view, require_spatial
from monai_segloss.maps.contour import contour_map

POINTS = ("contour", "centers")


def weighted_hausdorff(p: Tensor, d: Tensor, reach: Tensor) -> Tensor:
    """sum p d / (sum p + eps) over the voxels of one map (*S), plus the mean reach of its points, a number."""
    return (p * d).sum() / (p.sum() + EPS) + reach


@register(
    "weighted_hausdorff",
    aliases=("whd", "average_hausdorff"),
    tags=("distance", "points"),
    recommended=Recommended(batch=None),
    exempt={
        "compiles": "how many points there are is known only when they have been found",
        "second_derivatives": "value and gradient come from one pass over the table of distances, which is not kept",
    },
)
class WeightedHausdorffLoss(SegLoss):
    r"""Average distance of the predicted mass to the target, and of points of the target to the prediction.

    Formula:
        \frac{\sum_i p_i\, d(i, Y)}{\sum_i p_i + \epsilon} + \frac{1}{|Y|} \sum_{y \in Y} M_{a,i}\left[p_i\, d(i, y) +
        (1 - p_i)\, d_{max}\right],\quad M_{a,i}[x_i] = \left(\frac{1}{N} \sum_i x_i^a\right)^{1/a}

    When:
        To locate objects from points, for which it was made; alongside Dice as a Hausdorff loss whose second half sees
        what is missed. Slow: each point is compared with every voxel. The authors say that patents cover it.

    The value is in mm. M_a is a generalized mean over the voxels i, near their least value; d_max is the largest
    distance in the image. The paper has points Y in place of a segmentation. Here Y is made from each class of the
    target:

    - ``"contour"``: the target as a whole: d(i, Y) is 0 inside of it, and outside the nearest voxel of a mask lies on
      its contour, over which the second sum runs. It is then 0 where all is right, but the inside is never asked for.
    - ``"centers"``: the centers of the connected components, to locate objects; best where p is 1 there and 0
      elsewhere.

    A keyword ``points`` of the call takes other points, above 0 in (B, C, *S), which replace those of the target in
    both sums. ``target_field_outside`` takes the precomputed d(i, Y) of contours
    (`monai_segloss.transforms.DistanceFieldd`). A class without points, such as an absent one, costs 0. Ignored voxels
    have no mass and make no contour.

    Time grows with voxels times points; memory does not, and a second derivative is refused. Written from the formula
    of the paper alone: the authors' code is licensed CC-BY-NC-SA, and they say that US patents cover it. Whether they
    cover this loss is not known here; ask before commercial use.

    Args:
        points: as above.
        exponent: a, from -100 to below 0.  The paper has -1, whose mean is far from the least value in large images; the
            authors' later code has -9.
        max_points: of a class and sample in the second sum; of more, every n-th one in the order of the array.
        include_background: whether channel 0 is scored; None: where channels are independent.

    Raises:
        ValueError: another ``points``; an ``exponent`` or ``max_points`` out of range.

    Example:
        >>> import torch
        >>> from monai_segloss import WeightedHausdorffLoss
        >>> label = torch.tensor([[[0, 1, 0, 0, 0]]])
        >>> logits = 80.0 * torch.tensor([[[0, 0, 1, 1, 1], [1, 1, 0, 0, 0]]])  # one voxel too many, 2 mm away
        >>> loss = WeightedHausdorffLoss(softmax=True, to_onehot_y=True)
        >>> round(loss(logits, label, spacing=(2.0,)).item(), 4)
        1.0

    Reference:
        Ribera, Güera, Chen & Delp, Locating objects without bounding boxes, CVPR 2019, arXiv:1806.07564, equation 9.
    """

    formula_arguments = ("include_background",)
    accepts = point_maps = ("points",)

    def __init__(
        self,
        *,
        points: str = "contour",
        exponent: float = -9.0,
        max_points: int = 256,
        include_background: bool | None = None,
        **reading: Unpack[ReadingArgs],
    ) -> None:
        super().__init__(include_background=include_background, **reading)
        one_of(POINTS, points=points)
        (self.exponent,) = within(-100.0, 0.0, exponent=exponent)
        if not self.exponent:
            raise ValueError("exponent must be below 0.")
        if not 1 <= max_points < float("inf") or max_points != int(max_points):
            raise ValueError(f"max_points must be a whole number of at least 1, got {max_points!r}.")
        self.points, self.max_points, self.background = points, int(max_points), include_background

    @property
    def needs(self) -> tuple[MapSpec, ...]:
        return (target_field("outside"),) if self.points == "contour" else ()

    def loss(self, batch: SegBatch) -> Unreduced:
        require_spatial(batch)
        batch = batch.full_precision
        view = class_view(batch, self.background)
        p = view.prob
        counted = torch.ones_like(p[:, :1], dtype=torch.bool) if batch.mask is None else batch.mask[:, None]
        p = p * counted
        points, d = self.target(view, counted)
        rows = batch.required_spacing.to(p).expand(len(p), -1)
        table = []
        for b, c in product(range(len(p)), range(p.shape[1])):
            index = subsample(points[b, c], self.max_points)
            if not len(index):  # an absent class
                table.append(p[b, c].sum() * 0)
                continue
            reach = generalized_mean_distance(p[b, c], index, rows[b], counted[b, 0], self.exponent)
            table.append(weighted_hausdorff(p[b, c], d[b, c], reach))
        return Unreduced.table(torch.stack(table).view(p.shape[:2]), batch.voxels)

    @torch.no_grad()
    def target(self, view: ClassView, counted: Tensor) -> tuple[Tensor, Tensor]:
        """The points, and the distance of each voxel to them, (B, C', *S)."""
        batch = view.batch
        sent = batch.class_map("points")
        if sent is not None and sent.shape[1] not in (batch.classes, view.classes):
            raise LossShapeError(f"points has shape {tuple(sent.shape)}; expected {tuple(batch.logits.shape)}.")
        if sent is None and self.points == "contour":
            mask = batch.one_hot[:, view.first :]
            return contour_map(mask, counted) > 0, scored_map(target_field("outside"), view)
        if sent is None:
            points = centers((batch.one_hot[:, view.first :] > 0.5) & counted)
        else:
            points = (sent[:, -view.classes :] > 0) & counted
        return points, distance_to(points, batch.required_spacing).to(batch.masked_logits.dtype)
