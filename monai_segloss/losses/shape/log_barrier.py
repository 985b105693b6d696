from __future__ import annotations

import torch

from monai_segloss.core.arguments import constant
from monai_segloss.core.card import ReadingArgs, Unpack, register
from monai_segloss.core.formula import SegBatch, Unreduced
from monai_segloss.losses.compound.scheduled import term_schedule
from monai_segloss.losses.shape.barriers import barriers
from monai_segloss.losses.shape.bounds import BoundedInUnits, Bounds, sizes
from monai_segloss.schedules import TermWeight
from monai_segloss.schedules.base import whole


@register(
    "log_barrier",
    tags=("size", "shape", "weak labels", "schedule"),
    exempt={"perfect_prediction_is_zero": "a barrier has no zero: within its bounds a value lies above or below 0"},
)
class LogBarrierLoss(BoundedInUnits):
    r"""Log-barrier extension that keeps the size of each class within bounds, steeper in each epoch.

    Formula: \psi_t(V / u - 1) + \psi_t((l - V) / u),\quad \psi_t(z) = -\tfrac{1}{t} \log(-z)\ \mathrm{if}\ z \le -1/t^2,\
    \mathrm{else}\ t z - \tfrac{1}{t} \log \tfrac{1}{t^2} + \tfrac{1}{t}

    When: As size_penalty, with a gradient within the bounds too, towards their middle. It says nothing about where the
    class is. Bounds of whole cases need images of whole cases.

    One value per (sample, class), which may be negative. V, l and u are shares of the voxels that count, and each
    constraint is relative to the upper bound, but for an upper bound of 0 or none. A lower bound of 0 always holds and has
    no term. Where bounds are closer than 2 u / t^2 both terms are linear and their slopes cancel, so they are refused. The
    authors' code counts voxels; at z = 0 its value is NaN. Call set_epoch, as the trainers do.

    Args:
        bounds: of the size, in mm^3 (mm^2 in 2-D) or as a share, see ``unit``: [lower, upper] of all scored classes or one
            such pair per class, where None is no bound; or the file of ``segloss prior bounds``. None: those of the label
            of each image, widened by ``margin``.
        t: steepness, a number, a schedule, its name or its mapping form; ``"geometric"`` is 5, and in each epoch 1.1 times
            as much, up to 1000 (the paper's, from memory; the limit is ours).
        include_background: whether channel 0 is scored; None: where channels are independent.

    Raises:
        ValueError: bounds, or a margin, that are too narrow for ``t`` in the first epoch.

    Example:
        >>> import torch
        >>> from monai_segloss import LogBarrierLoss
        >>> loss = LogBarrierLoss(softmax=True, to_onehot_y=True, bounds=[None, 1.0], unit="share")
        >>> round(loss(torch.zeros(1, 2, 4), torch.zeros(1, 1, 4)).item(), 4)  # -log(1 / 2) / 5
        0.1386

    Reference: Kervadec et al., Constrained deep networks: Lagrangian optimization via log-barrier extensions, EUSIPCO
    2022, arXiv:1904.04205.
    """

    def __init__(
        self,
        *,
        bounds: Bounds = None,
        unit: str = "mm",
        margin: float = 0.1,
        on_patches: bool = False,
        t: TermWeight = "geometric",
        include_background: bool | None = None,
        **common: Unpack[ReadingArgs],
    ) -> None:
        super().__init__(bounds, unit, margin, on_patches, include_background, common)
        self.schedule = term_schedule("t", t)
        self._t = constant(0.0)
        self.set_epoch(0)
        first = float(self._t)
        label = torch.tensor([1 - self.margin, 1 + self.margin])
        lower, upper = (label if self.limits is None else self.limits.cpu()).unbind(-1)
        both = (lower > 0) & upper.isfinite()
        if first <= 0 or bool((both & ((upper - lower) * first**2 <= 2 * upper)).any()):
            raise ValueError(
                f"t is {first:g} in the first epoch, where the slopes of {'margin' if self.limits is None else 'bounds'} "
                f"that are closer than 2 / t^2 of the upper one cancel: raise t, or widen them."
            )

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, counted from 0, that the steepness follows."""
        whole(0, epoch=epoch)
        self._t.fill_(self.schedule(int(epoch)))

    def loss(self, batch: SegBatch) -> Unreduced:
        share, limits = sizes(self, batch)
        return Unreduced.table(barriers(share, limits, self._t.to(share)), batch.voxels)
