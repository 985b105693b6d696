from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from monai_segloss.core.card import Exempt, ReadingArgs, SegLoss, Unpack, register
from monai_segloss.core.formula import SegBatch, Unreduced
from monai_segloss.losses.topology import persistence
from monai_segloss.losses.topology.topologies import maps_and_numbers, topologies

TARGET = "the numbers of features are those of the prior and not of the target"
HARD = ("labels_3d", "labels_2d", "two_classes", "five_classes", "one_class", "regions", "empty_class", "ignored")


@register(
    "betti_prior",
    tags=("topology", "persistence", "prior", "shape"),
    exempt={"perfect_prediction_is_the_minimum": Exempt(TARGET, HARD), "perfect_prediction_is_zero": TARGET},
    cost=persistence.COST,
)
class BettiPriorLoss(SegLoss):
    r"""How far the features of each class, or union of classes, are from numbers that are known beforehand.

    Formula: \sum_{k \le \beta} \left(1 - \Delta_k^2\right) + \sum_{k > \beta} \Delta_k^2

    When: Organs whose numbers of components, tunnels and cavities anatomy fixes, as a small term alongside Dice, or to
    adapt a trained network to an image without a label. Only for whole objects: a patch has other numbers.

    Delta_k is the persistence b - d of feature k, the largest first, see `PersistenceMatchingLoss`. One that is wanted
    and not there costs 1, without a gradient. The sum runs over dimensions, the mean over samples and entries of
    ``betti``. The target tells only which voxels are ignored; they are outside of all classes. At the coarser scales of
    deep supervision the loss is 0. It needs gudhi (extra ``topology``).

    Args:
        betti: components, tunnels (in a slice holes) and cavities, those left out being 0: of all scored classes, or by
            the labels of classes and unions, {"1": (1, 0), "1+2": (1, 1)}, of which the mean then is.
        squared: as Clough et al.; False: 1 - Delta and Delta, as Byrne et al.
        every: see `PersistenceMatchingLoss`.

    Raises:
        ValueError: a class that ``input`` has not, cavities in a slice, or with sigmoid a union.

    Example:
        >>> import torch
        >>> from monai_segloss import BettiPriorLoss
        >>> ring = torch.ones(1, 1, 5, 5)
        >>> ring[..., 0, :] = ring[..., 4, :] = ring[..., 2, 2] = 0
        >>> [BettiPriorLoss(betti=(1, holes))(ring, ring).item() for holes in (0, 1, 2)]
        [1.0, 0.0, 1.0]

    Reference: Clough et al., A topological loss function for deep-learning based image segmentation using persistent
    homology, IEEE TPAMI 44(12), 2022, arXiv:1910.01877; Byrne et al., IEEE TMI 2022,
    arXiv:2107.12689 (unions, and no squares).
    """

    bounds = persistence.BOUNDS
    tells_scales_apart = True

    def __init__(
        self,
        *,
        betti: Mapping[str, Sequence[int]] | Sequence[int] = (1,),
        squared: bool = True,
        every: int = 1,
        **reading: Unpack[ReadingArgs],
    ) -> None:
        super().__init__(**reading)
        self.steps, self.betti, self.squared = persistence.Steps(every), topologies(betti), bool(squared)

    def loss(self, batch: SegBatch) -> Unreduced:
        factor, (p, betti) = self.steps(batch), maps_and_numbers(self.betti, batch)
        found = persistence.features(p.flatten(0, 1), factor)
        table = betti_prior(found, betti, 2 if self.squared else 1).view(p.shape[:2])
        return persistence.unreduced(table, p, factor, batch.voxels)


def betti_prior(found: persistence.Features, betti: Tensor, power: int) -> Tensor:
    """1 - Delta^2 of the most persistent features, as many as are wanted, Delta^2 of the others, (N,)."""
    delta = (found.birth - found.death) ** power
    return found.cost(betti, 1 - delta, delta, 1.0)
