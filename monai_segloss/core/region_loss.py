"""A loss that is a function of a table of sums: one value per sample and class."""

from __future__ import annotations

from abc import abstractmethod

from torch import Tensor

from monai_segloss.core.batch import AREA, ClassView, SegBatch
from monai_segloss.core.counts import Stat
from monai_segloss.core.module import SegLoss
from monai_segloss.core.reduce import Unreduced


class RegionLoss(SegLoss):
    """A loss of sums over voxels: `table` gives a value per sample and class, the loss is their mean.

    A card sets `sums` and implements `table`.  ``batch`` adds the sums of the samples up first.
    """

    sums: tuple[Stat, ...] = AREA
    """Statistics that the table is made of."""

    @abstractmethod
    def table(self, view: ClassView) -> Tensor:
        """The formula on the statistics of the scored classes, (B | 1, C)."""

    def view(self, batch: SegBatch) -> ClassView:
        """The scored classes of the batch."""
        return batch.class_view(self.include_background, self.batch)

    def voxel_count(self, view: ClassView) -> Tensor:
        """Voxels that each entry of the table sums over, (B | 1, C | 1); entries with 0 leave the mean."""
        return view.voxel_count

    def statistics(self, batch: SegBatch) -> tuple[Stat, ...]:
        return self.sums

    def loss(self, batch: SegBatch) -> Unreduced:
        view = self.view(batch)
        return Unreduced.table(self.table(view), self.voxel_count(view), self.weights(view.classes))
