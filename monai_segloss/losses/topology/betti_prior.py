from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from monai_segloss.core.card import Exempt, LossShapeError, ReadingArgs, Unpack, register
from monai_segloss.core.formula import SegBatch, Unreduced
from monai_segloss.losses.shape.bounds import Bounded
from monai_segloss.losses.topology import persistence
from monai_segloss.losses.topology.topologies import NAMES, required_axes, scored_unions, topologies, whole_numbers

TARGET = "the numbers of features are those of the prior and not of the target"
HARD = ("labels_3d", "labels_2d", "two_classes", "five_classes", "one_class", "regions", "empty_class", "ignored")


@register(
    "betti_prior",
    tags=("topology", "persistence", "prior", "shape"),
    exempt={"perfect_prediction_is_the_minimum": Exempt(TARGET, HARD), "perfect_prediction_is_zero": TARGET},
    cost=persistence.COST,
)
class BettiPriorLoss(Bounded):
    r"""How far the features of each class, or union of classes, are from numbers that are known beforehand.

    Formula: \sum_{k \le l} \left(1 - \Delta_k^2\right) + \sum_{k > u} \Delta_k^2

    When: Organs whose numbers of components, tunnels and cavities anatomy fixes, as a small term alongside Dice, or to
    adapt a trained network to an image without a label. Only for whole objects: a patch may cut one into pieces.

    Delta_k is the persistence b - d of feature k, the largest first, see `PersistenceMatchingLoss`. l and u are the
    smallest and the largest number of features that are known, in the papers one number. Features between them cost
    nothing. One that is wanted and not there costs 1, without a gradient. The sum runs over dimensions, the mean over
    samples and entries of ``betti``. The target tells only which voxels are ignored; they are outside of all classes.
    Voxels of a class are connected over corners, those of the background over faces, as in `segloss prior bounds`. At the
    coarser scales of deep supervision the loss is 0. It needs gudhi (extra ``topology``).

    A keyword ``bounds`` of the call has the numbers of each sample, (B, entries, axes, 2). It comes before ``betti``.
    Bounds that are not whole are rounded outwards.

    Args:
        betti: components, tunnels (in a slice holes) and cavities, those left out being 0. Each is a number or [lower,
            upper], where None is no bound: (1, [0, 2]). They are of all scored classes, or by the labels of classes and
            unions, {"1": (1, 0), "1+2": (1, 1)}, of which the mean then is. Or the file of ``segloss prior bounds``,
            which has them of each scored class.
        squared: as Clough et al.; False: 1 - Delta and Delta, as Byrne et al.
        every: see `PersistenceMatchingLoss`.
        on_patches: whether to train on patches that are smaller than the cases, which trainers refuse otherwise; then
            ``betti`` must have the numbers of what a patch shows.

    Raises:
        ValueError: a class that ``input`` has not, cavities in a slice, a file of images with another number of axes, or
            with sigmoid a union.

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
    argument = "betti"
    tells_scales_apart = True

    def __init__(
        self,
        *,
        betti: Mapping[str, Sequence[Any]] | Sequence[Any] | str = (1,),
        squared: bool = True,
        every: int = 1,
        on_patches: bool = False,
        **reading: Unpack[ReadingArgs],
    ) -> None:
        unions, numbers = (None, betti) if isinstance(betti, str) else topologies(betti)
        super().__init__(numbers, "betti", on_patches, reading)
        self.unions, self.axes = unions, None if isinstance(numbers, str) else required_axes(numbers)
        self.steps, self.squared = persistence.Steps(every), bool(squared)

    def own(self, axes: tuple[int, ...]) -> Tensor | None:
        """Those of a file as they are, since holes of a slice are no tunnels; others as far as the image has axes."""
        limits, (count,) = self.limits, axes
        if limits is None:
            return None
        if self.axes is None:
            measured = limits.shape[-2]
            if measured != count:
                raise LossShapeError(
                    f"betti has {measured} numbers for each class, as of images of {measured} axes, but input has {count} "
                    "spatial axes."
                )
            return limits
        if self.axes > count:
            raise ValueError(
                f"betti asks for {NAMES[self.axes - 1]}, but an image of {count} axes has no {NAMES[self.axes - 1]}."
            )
        return limits[..., :count, :]

    def loss(self, batch: SegBatch) -> Unreduced:
        factor, p = self.steps(batch), scored_unions(self.unions, batch)
        limits = self.given(batch, p.shape[1], (batch.ndim - 2,))
        if limits is None:
            raise ValueError("betti has bounds of single cases only: send those of the batch as the keyword bounds.")
        least, most = whole_numbers(limits.expand(len(p), *limits.shape[1:]))
        found = persistence.features(p.flatten(0, 1), factor)
        table = betti_prior(found, least, most, 2 if self.squared else 1).view(p.shape[:2])
        return persistence.unreduced(table, p, factor, batch.voxels)


def betti_prior(found: persistence.Features, least: Tensor, most: Tensor, power: int) -> Tensor:
    """1 - Delta^2 of the most persistent features, the least that are wanted, Delta^2 of those beyond the most, (N,)."""
    delta = (found.birth - found.death) ** power
    return found.cost(least, most, 1 - delta, delta, 1.0)
