"""Cross-entropy with the weight map of U-Net, which keeps instances apart.  Ronneberger et al., MICCAI 2015."""

from __future__ import annotations

from typing import Unpack

import torch
from torch import Tensor

from monai_segloss.core import check
from monai_segloss.core.batch import SegBatch
from monai_segloss.core.maps import MapSpec
from monai_segloss.core.module import ReadingArgs, Weight
from monai_segloss.core.recommend import Recommended
from monai_segloss.core.registry import register
from monai_segloss.core.voxel_sum import VoxelLoss, VoxelSum
from monai_segloss.losses.boundary.neighborhood import require_spatial
from monai_segloss.losses.boundary.voxel_weights import weighed_cross_entropy
from monai_segloss.losses.instance.instances import TOUCHING, components, inside
from monai_segloss.maps.border import border_weight_map


@register(
    "border_weighted_ce",
    aliases=("unet_ce", "border_weighted_cross_entropy"),
    tags=("likelihood", "instances", "distance"),
    recommended=Recommended(include_background=None, batch=None),
)
class BorderWeightedCELoss(VoxelLoss):
    r"""Cross-entropy with the weight map of U-Net: background between two close instances weighs more.

    Formula:
        \frac{1}{N} \sum_i w_i\, \mathrm{CE}_i,\quad w = w_c + w_0 \exp\left(-\frac{(d_1 + d_2)^2}{2 \sigma^2}\right)

    When:
        Instances that must not merge, such as cells or vertebrae. Useless with one instance per image. The two nearest
        instances are looked up on the CPU in each step: send the map with the data where images are not augmented in
        space.

    CE is `CrossEntropyLoss`. d_1 and d_2 are the distances of a voxel to the nearest and the second nearest instance of
    the sample, of whatever foreground class, in mm. Instances are the connected components of each class, over faces.
    With fewer than two instances w = w_c. An ignored voxel is in no instance. The divisor is the number of voxels (the
    paper sums). With sigmoid, or a single channel, each region has its own instances and weights its binary
    cross-entropy.

    Keywords of the call, all optional:

    - ``components_faces``, (B, C, *S) or (B, 1, *S): ids of the instances, 1 or more inside of a class
      (`monai_segloss.transforms.ComponentMapd` with ``faces=True``);
    - ``components``, in its place: annotated instances, which may touch;
    - ``weight_map``, (B, 1, *S), with sigmoid also (B, C, *S): w itself (`monai_segloss.transforms.BorderWeightMapd`,
      which of regions makes one map for all of them together).

    Args:
        border_weight: w_0.
        sigma: width of the border in mm; the paper has 5 pixels.
        background_only: leave the inside of instances, where d_1 is 0, at w_c.
        weight: w_c of each class, or one for all; None is 1.  With sigmoid w_c inside of a region, 1 outside.
        balanced: w_c is the number of voxels of the sample over (those of the class times the number of classes there).
        reading: see `SegLoss`; ``reduction="none"`` gives one value per voxel.

    Raises:
        ValueError: ``sigma`` not above 0; ``balanced`` with ``weight``, or one of them with a ``weight_map``, which has
            w_c in it; ids that are no whole numbers or 0 inside of a class.

    Example:
        >>> import torch
        >>> from monai_segloss import BorderWeightedCELoss
        >>> loss = BorderWeightedCELoss(sigma=2.0, softmax=True, to_onehot_y=True, reduction="none")
        >>> values = loss(torch.zeros(1, 2, 8), torch.tensor([[[1, 1, 0, 0, 1, 0, 0, 0]]]), spacing=(1.0,)) / 0.6931
        >>> [round(x, 2) for x in values.flatten().tolist()]
        [1.0, 1.0, 4.25, 4.25, 1.0, 1.44, 1.02, 1.0]

    Reference:
        Ronneberger, Fischer & Brox, U-Net: convolutional networks for biomedical image segmentation, MICCAI 2015,
        arXiv:1505.04597, equations 1 and 2.
    """

    formula_arguments = ("weight",)
    own_pass = True
    accepts = ("components", "weight_map")

    def __init__(
        self,
        *,
        border_weight: float = 10.0,
        sigma: float = 5.0,
        background_only: bool = True,
        weight: Weight | None = None,
        balanced: bool = False,
        **reading: Unpack[ReadingArgs],
    ) -> None:
        super().__init__(weight=weight, **reading)
        self.border_weight, self.sigma = check.non_negative(border_weight=border_weight, sigma=sigma)
        if not self.sigma:
            raise ValueError("sigma must be above 0.")
        if balanced and weight is not None:
            raise ValueError("balanced=True sets the weight of each class: leave weight out.")
        self.background_only, self.balanced = bool(background_only), bool(balanced)

    @property
    def needs(self) -> tuple[MapSpec, ...]:
        return (TOUCHING,)

    def voxel_sum(self, batch: SegBatch) -> VoxelSum:
        w = self.weight_map(batch).to(batch.masked_logits.dtype)
        return weighed_cross_entropy(batch, w, None)

    def weight_map(self, batch: SegBatch) -> Tensor:
        """w (B, 1, *S) with one class per voxel, else of each channel (B, C, *S)."""
        weight = self.weights(batch.classes)
        sent = batch.class_map("weight_map")
        if sent is not None:
            if weight is not None or self.balanced:
                raise ValueError("weight_map has the weights of the classes in it: leave out weight and balanced.")
            channels = sent.unbind(1) if batch.multilabel else (sent,)
            return torch.stack([check.voxel_map("weight_map", x, batch.logits, batch.mask) for x in channels], 1)
        require_spatial(batch)
        mask, ids = inside(batch), components(batch, TOUCHING)
        factors = None if weight is None else weight.expand(batch.classes).tolist()
        if not batch.multilabel:
            return self._of_instances(batch, mask, ids, factors)
        regions = zip(torch.split(mask, 1, 1), torch.split(ids, 1, 1), factors or [None] * batch.classes, strict=True)
        return torch.cat([self._of_instances(batch, m, i, None if f is None else [1.0, f]) for m, i, f in regions], 1)

    def _of_instances(self, batch: SegBatch, mask: Tensor, ids: Tensor, factors: list[float] | None) -> Tensor:
        return border_weight_map(
            mask,
            batch.required_spacing,
            None if batch.mask is None else batch.mask[:, None],
            w0=self.border_weight,
            sigma=self.sigma,
            class_weight="balanced" if self.balanced else factors,
            background_only=self.background_only,
            instances=ids,
        )
