from __future__ import annotations

from monai_segloss.core.card import ReadingArgs, Unpack, VoxelLoss, register
from monai_segloss.core.formula import SegBatch, VoxelSum
from monai_segloss.losses.boundary.neighborhood import class_view, scored_maps
from monai_segloss.losses.boundary.voxel_weights import per_volume, weighed_cross_entropy
from monai_segloss.losses.topology.soft_skeletons import BOUNDS, Skeletons


@register("cl_ce", aliases=("centerline_ce",), tags=("likelihood", "tubular", "skeleton", "topology"))
class ClCELoss(VoxelLoss):
    r"""Cross-entropy at the centerlines of target and prediction.

    Formula: \frac{1}{N} \sum_i \left(S(g)_i + S(p)_i\right) \mathrm{CE}_i

    When: Tubes whose connection counts, alongside Dice or cross-entropy with the weight 1, as a `WeightedSum`. Never
    alone: voxels off the centerlines cost nothing.

    CE is `CrossEntropyLoss`. S is the soft skeleton as in `SoftclDiceLoss`, of all classes but the background together.
    With sigmoid, or a single channel, the skeletons of a channel weigh its binary cross-entropy. The mean runs over all
    voxels and not over those of the skeletons, and the gradient goes through S(p), as published; ``normalize`` and
    ``detach`` are choices of this library. The formula is that of the authors' code, not verified against the paper.

    Args:
        iter_: the number of erosions; take at least half of the width of the widest tube, in voxels.
        normalize: divide each of both sums by the volume of its skeleton in the batch, in place of the voxels.
        detach: no gradient through S(p), which saves half of the time.
        use_spacing: see `SoftclDiceLoss`.

    Example:
        >>> import torch
        >>> from monai_segloss import ClCELoss
        >>> label = torch.zeros(1, 1, 5, 8).long()
        >>> label[..., 2, :] = 1
        >>> round(ClCELoss(softmax=True, to_onehot_y=True)(torch.zeros(1, 2, 5, 8), label).item() / 0.6931, 3)
        0.2

    Reference: Acebes et al., The centerline-cross entropy loss for vessel-like structure segmentation: better topology
    consistency without sacrificing accuracy, MICCAI 2024, doi:10.1007/978-3-031-72111-3_67.
    """

    own_pass = in_float32 = True
    bounds = BOUNDS

    def __init__(
        self,
        *,
        iter_: int = 3,
        normalize: bool = False,
        detach: bool = False,
        use_spacing: bool = False,
        **reading: Unpack[ReadingArgs],
    ) -> None:
        super().__init__(**reading)
        self.skeletons, self.normalize, self.detach = Skeletons(iter_, bool(use_spacing)), bool(normalize), bool(detach)

    def voxel_sum(self, batch: SegBatch) -> VoxelSum:
        p, g = scored_maps(batch, class_view(batch, None))
        lines = [
            self.skeletons.of_target(batch, g.to(p.dtype)),
            self.skeletons(batch, p.detach() if self.detach else p),
        ]
        if not batch.multilabel:
            lines = [each.sum(1, keepdim=True) for each in lines]
        if self.normalize:
            lines = [per_volume(each, batch.voxels.sum() * each.shape[1]) for each in lines]
        return weighed_cross_entropy(batch, lines[0] + lines[1], None)
