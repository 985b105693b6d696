from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from monai_segloss.core.card import ReadingArgs, SegLoss, Unpack, check, register
from monai_segloss.core.formula import SegBatch, Unreduced
from monai_segloss.kernels.persistence import betti_numbers
from monai_segloss.losses.boundary.neighborhood import class_view, scored_maps
from monai_segloss.losses.topology import persistence


@register(
    "persistence_matching",
    aliases=("topoloss",),
    tags=("topology", "persistence"),
    support=("labels", "regions", "ignore", "2-D", "3-D"),
    cost=persistence.COST,
)
class PersistenceMatchingLoss(SegLoss):
    r"""Squared distance of the components, holes and cavities of the prediction from those of the target.

    Formula: \sum_{k \le \beta} \left((1 - b_k)^2 + d_k^2\right) + \sum_{k > \beta} \tfrac12 (b_k - d_k)^2

    When: Right numbers of components and holes: a weight of 1e-4 to 5e-3 alongside Dice, from when that has found the
    structure on (schedule ``warm_up``). Seconds per step on the CPU in 3-D.

    Feature k of a class is born at the probability b_k and dies at d_k, as the threshold falls from 1 to 0. The beta most
    persistent ones of a dimension, as many as the target has, are drawn to (1, 0), the others together; one that is not
    there costs 1/2. Features that match may lie elsewhere. The sum runs over dimensions and tiles, the mean over samples
    and classes without the background, with sigmoid over all channels. The foreground is connected over corners, without
    ignored voxels. At the coarser scales of deep supervision the loss is 0. It needs gudhi (extra ``topology``).

    Args:
        dimensions: out of 0 (components), 1 (tunnels; in a slice holes), 2 (cavities); None: all.
        patch_size: edge of the tiles into which the image is cut, in voxels; in 3-D at most 64.
        every: compute it in each so manieth training step, with that factor: as much on average at a part of the time.

    Example:
        >>> import torch
        >>> from monai_segloss import PersistenceMatchingLoss
        >>> ring, broken = torch.ones(2, 1, 1, 5, 5)
        >>> ring[..., (0, 4), :] = ring[..., 2, 2] = 0
        >>> broken[:] = ring.where(torch.arange(25).view(5, 5) != 17, 0.4)  # closed at 0.4, not at 1
        >>> [round(PersistenceMatchingLoss()(p, ring).item(), 2) for p in (ring, broken)]
        [0.0, 0.36]

    Reference: Hu et al., Topology-preserving deep image segmentation, NeurIPS 2019, arXiv:1906.05404.
    """

    bounds = persistence.BOUNDS
    tells_scales_apart = True

    def __init__(
        self,
        *,
        dimensions: Sequence[int] | None = None,
        patch_size: int = 64,
        every: int = 1,
        **reading: Unpack[ReadingArgs],
    ) -> None:
        super().__init__(**reading)
        self.steps, self.dimensions = persistence.Steps(every), persistence.of_dimensions(dimensions)
        self.patch_size = persistence.whole(2, patch_size=patch_size)

    def loss(self, batch: SegBatch) -> Unreduced:
        view, factor = class_view(batch, None), self.steps(batch)
        p, g = scored_maps(batch, view)

        def of_tile(p: Tensor, g: Tensor) -> Tensor:
            return persistence_matching(persistence.features(p, factor, self.dimensions), betti_numbers(g))

        return persistence.unreduced(
            persistence.in_tiles(of_tile, self.patch_size, p, check.hard(g)), p, factor, view.voxel_count
        )


def persistence_matching(found: persistence.Features, betti: Tensor) -> Tensor:
    """(1 - b)^2 + d^2 of as many features as the target has, (b - d)^2 / 2 of the others, (N,)."""
    b, d = found.birth, found.death
    return found.cost(betti, betti, (1 - b) ** 2 + d**2, (b - d) ** 2 / 2, 1 / 2)
