from __future__ import annotations

from torch import Tensor

from monai_segloss.core.card import Exempt, ReadingArgs, SegLoss, Unpack, register
from monai_segloss.core.formula import MapSpec, SegBatch, Unreduced, quotient, scored_map
from monai_segloss.losses.boundary.neighborhood import class_view
from monai_segloss.maps.skeleton import tube_settings, tubed_skeleton_map

ORDER = Exempt(
    "thinning visits the voxels in an order, and the centerline of an even width lies to one side",
    cases=("labels_2d", "regions", "regions_masked"),
)


@register(
    "skeleton_recall",
    tags=("tubular", "skeleton", "topology", "overlap"),
    support=("labels", "regions", "ignore", "2-D", "3-D"),
    exempt={
        "flips": ORDER,
        "reductions_agree": Exempt("a class that a sample has no voxel of leaves the mean", cases=("ignored",)),
    },
)
class SkeletonRecallLoss(SegLoss):
    r"""Share of the tube around the centerline of each class that the prediction misses.

    Formula: 1 - \frac{\sum K p + s_n}{\sum K + s_d},\quad K = (\mathrm{skeleton}(g) \oplus r) \cap g

    When: Thin connected structures, at the cost of Dice: nothing differentiable is skeletonized. Never alone: more of a
    class is never worse; see dice_ce_skeleton_recall.

    The mean runs over samples and classes without the background, with sigmoid over all channels. A class that a sample
    has no voxel of leaves the mean. Skeletons are those of scikit-image (Zhang in 2-D, Lee in 3-D) and need the extra
    ``skeleton``; an ignored voxel is in no class. nnU-Net's augmentation workers make the tubes, elsewhere the loss
    does, or the caller sends them as the keyword ``tubed_skeleton`` (`monai_segloss.transforms.TubedSkeletonMapd`),
    whose name has the settings that are not the defaults.

    Args:
        radius: of the tube in steps over faces, a whole number.
        radius_mm: of the tube in mm, in place of ``radius``.
        per_class: a skeleton of each class; False: of all together, cut by each, as published. A class within another
            may then be left without a tube.

    Example:
        >>> import torch
        >>> from monai_segloss import SkeletonRecallLoss
        >>> label = torch.zeros(1, 1, 9, 12).long()
        >>> label[..., 2:7, 2:10] = 1
        >>> loss = SkeletonRecallLoss(softmax=True, to_onehot_y=True)
        >>> [round(loss(x * torch.ones(1, 2, 9, 12) * torch.tensor([[[[-1.0]], [[1.0]]]]), label).item(), 3) for x in (0, 1)]
        [0.5, 0.119]

    Reference: Kirchhoff, Rokuss et al., Skeleton recall loss for connectivity conserving and resource efficient
    segmentation of thin tubular structures, ECCV 2024, arXiv:2404.03010.
    """

    def __init__(
        self,
        *,
        radius: int = 2,
        radius_mm: float | None = None,
        per_class: bool = True,
        batch: bool = False,
        smooth_nr: float = 1e-5,
        smooth_dr: float = 1e-5,
        **reading: Unpack[ReadingArgs],
    ) -> None:
        super().__init__(batch=batch, smooth_nr=smooth_nr, smooth_dr=smooth_dr, **reading)
        settings = tube_settings(radius, radius_mm, per_class)
        self.tube = MapSpec.of(
            "tubed_skeleton",
            tubed_skeleton_map,
            settings,
            exclusive=True,
            on_cpu=True,
            in_mm=settings["radius_mm"] is not None,
        )

    @property
    def needs(self) -> tuple[MapSpec, ...]:
        return (self.tube,)

    def loss(self, batch: SegBatch) -> Unreduced:
        view = class_view(batch, None, self.batch)
        tube = scored_map(self.tube, view)
        missed, total = (view.reduce_batch(batch.total(x)) for x in (tube * (1 - view.prob), tube))
        return Unreduced.table(skeleton_recall(missed, total, self.smooth_nr, self.smooth_dr), total)


def skeleton_recall(missed: Tensor, total: Tensor, smooth_nr: float, smooth_dr: float) -> Tensor:
    """1 - sum K p / sum K, (B | 1, K), from what the prediction misses of the tubes."""
    return quotient(missed + (smooth_dr - smooth_nr), total + smooth_dr)
