from __future__ import annotations

from monai_segloss.core.card import Exempt, ReadingArgs, Unpack, VoxelLoss, register
from monai_segloss.core.formula import SegBatch, VoxelSum
from monai_segloss.losses.boundary.neighborhood import require_spatial
from monai_segloss.losses.boundary.voxel_weights import per_volume, weighed_cross_entropy
from monai_segloss.losses.topology.rules import BOUNDS, Pairs, critical_weights, refuse_sigmoid, rules, whole_radius


@register(
    "topological_interaction",
    tags=("anatomy", "adjacency", "likelihood", "topology"),
    support=("labels", "soft labels", "ignore", "2-D", "3-D"),
    exempt={
        "perfect_prediction_is_the_minimum": Exempt("without a rule it is always 0", ("two_classes",)),
        "shards_equal_the_batch": "under DDP each process divides by its own voxels of V",
    },
)
class TopologicalInteractionLoss(VoxelLoss):
    r"""Cross-entropy where predicted classes touch that must not.

    Formula: \frac{1}{|V|} \sum_{i \in V} \mathrm{CE}_i,\quad V = \{i : (\hat y_i, \hat y_j) \in F, j \in \Omega_i\}

    When: A structure inside of another, as a lumen in its wall, or two that never touch, alongside dice_ce. It needs
    predictions that are right in most places: let its weight grow from 0.

    F are the pairs that must not touch, and y the most probable class. V, on both sides of a forbidden contact, carries
    no gradient. Beyond the image and at ignored voxels there is nothing, so that a structure that is cut off breaks no
    rule. One class per voxel only. The authors' code sums over V, which grows with the image; ``normalize=False``
    divides by all voxels.

    Args:
        inclusion: pairs [a, b]: around a there is nothing but a and b.
        exclusion: pairs [a, b]: the two do not touch.  Without both arguments: every two foreground classes.
        radius: of the box Omega, in voxels.
        faces: only what so many steps over faces lead to: 6 neighbors in 3-D and 4 in 2-D, in the place of 26 and 8.
        normalize: divide by the voxels of V in the batch, else by all voxels.

    Raises:
        ValueError: ``sigmoid=True``; a class without a channel.

    Example:
        >>> import torch
        >>> from monai_segloss import TopologicalInteractionLoss
        >>> label = torch.tensor([[[0, 0, 1, 1, 2]]])
        >>> logits = torch.eye(3)[torch.tensor([0, 0, 2, 1, 2])].T[None]  # at one voxel 2 in the place of 1
        >>> loss = TopologicalInteractionLoss(exclusion=[[0, 2]], softmax=True, to_onehot_y=True)
        >>> round(loss(logits, label).item(), 4)  # the mean over that voxel and the one before
        1.0514

    Reference: Gupta et al., Learning topological interactions for multi-class medical image segmentation, ECCV 2022,
    arXiv:2207.09654.
    """

    own_pass = True
    bounds = BOUNDS

    def __init__(
        self,
        *,
        inclusion: Pairs | None = None,
        exclusion: Pairs | None = None,
        radius: int = 1,
        faces: bool = False,
        normalize: bool = True,
        **reading: Unpack[ReadingArgs],
    ) -> None:
        super().__init__(**reading)
        refuse_sigmoid(self.reader.sigmoid)
        self.rules = rules(inclusion, exclusion)
        self.radius, self.faces, self.normalize = whole_radius(radius), bool(faces), bool(normalize)

    def voxel_sum(self, batch: SegBatch) -> VoxelSum:
        require_spatial(batch)
        batch = batch.full_precision
        critical = critical_weights(batch, *self.rules, self.radius, self.faces)
        weight = per_volume(critical, batch.voxels.sum()) if self.normalize else critical
        return weighed_cross_entropy(batch, weight, None)
