from __future__ import annotations

from collections.abc import Mapping

from monai_segloss.core.card import ReadingArgs, SegLoss, Unpack, check, non_negative, one_of, register
from monai_segloss.core.formula import SegBatch, Term, Unreduced
from monai_segloss.kernels.filters import gaussian
from monai_segloss.losses.structural.class_shares import class_shares
from monai_segloss.losses.voxel.cross_entropy import cross_entropy

WINDOWS, DISTANCES = ("mean", "gaussian"), ("l1", "l2")


@register(
    "nacl",
    positional="classes dim kernel_size kernel_ops distance_type alpha sigma",
    aliases=("neighbor_aware_calibration",),
    tags=("calibration", "likelihood", "windows"),
    support=("labels", "soft labels", "ignore", "2-D", "3-D"),
    exempt={
        "probabilities_need_no_activation": "without an activation it takes the softmax, as MONAI's class does",
        "constructor_tensors": "the penalty is of the input itself: parameters of other_act have no part in it",
        "perfect_prediction_is_the_minimum": "the penalty grows with certainty: logits are drawn to shares of classes",
        "perfect_prediction_is_zero": "the penalty grows with certainty: logits are drawn to shares of classes",
    },
)
class NACLLoss(SegLoss):
    r"""Cross-entropy, and a penalty that draws the logits to the shares of the classes around each voxel.

    Formula: \mathrm{CE} + \alpha\, \frac{1}{N C} \sum_{i,c} \left|s_{ic} - z_{ic}\right|,\quad s_{ic} =
    \frac{\sum_{j \in \Omega(i)} g_{jc}}{|\Omega(i)|}

    When: Overconfident networks whose boundaries are uncertain: less sure everywhere, least where classes meet.
    Calibration improves at about the same Dice; the probabilities can no longer be close to 0 and 1.

    Softmax and labels unless told otherwise, as MONAI's class of this name. z are the logits, also with ``other_act``.
    Omega is a window of voxels, whatever their spacing; only its voxels that are in the image and count are in it.

    Args:
        classes, dim: number of classes and of axes, which MONAI's class must be told; None: those of ``input``.
        kernel_size: edge of the window in voxels, an odd number.
        kernel_ops: weights in the window, ``"mean"`` (all the same) or ``"gaussian"``.
        distance_type: ``"l1"``, or ``"l2"``: the square in place of the absolute value.
        alpha: factor of the penalty, at least 0.
        sigma: standard deviation of the Gaussian window in voxels.
        zero_padding: voxels that are not in the window are of no class, as in MONAI: the logits of a corner are then
            drawn to shares that sum to 8/27.

    Raises:
        ValueError: ``sigmoid=True`` or a single channel: defined for one class per voxel; other ``classes`` or ``dim``.

    Example:
        >>> import torch
        >>> from monai_segloss import NACLLoss
        >>> loss = NACLLoss()
        >>> value = loss(torch.zeros(1, 2, 6), torch.tensor([[[0, 0, 0, 1, 1, 1]]]))
        >>> round(value.item(), 4), {k: round(v.item(), 4) for k, v in loss.last.items()}
        (0.7431, {'cross_entropy': 0.6931, 'penalty': 0.5})

    Reference: Murugesan et al., Trust your neighbours: penalty-based constraints for model calibration, MICCAI 2023,
    arXiv:2303.06268.
    """

    scalar_only = True
    in_float32 = True

    def __init__(  # type: ignore[misc]
        self,
        *,
        classes: int | None = None,
        dim: int | None = None,
        kernel_size: int = 3,
        kernel_ops: str = "mean",
        distance_type: str = "l1",
        alpha: float = 0.1,
        sigma: float = 1.0,
        zero_padding: bool = False,
        to_onehot_y: bool = True,
        **reading: Unpack[ReadingArgs],
    ) -> None:
        if not reading.get("sigmoid") and reading.get("other_act") is None:
            reading["softmax"] = True
        super().__init__(to_onehot_y=to_onehot_y, **reading)
        check.one_class_per_voxel("NACLLoss", self.reader.sigmoid)
        check.odd_window(kernel_size=kernel_size)
        one_of(WINDOWS, kernel_ops=kernel_ops)
        one_of(DISTANCES, distance_type=distance_type)
        (self.alpha, sigma), self.square = non_negative(alpha=alpha, sigma=sigma), distance_type == "l2"
        if not sigma:
            raise ValueError(f"sigma must be above 0, got {sigma!r}.")
        size = int(kernel_size)
        self.kernel = gaussian(size, sigma) if kernel_ops == "gaussian" else (1 / size,) * size
        self.told, self.zero_padding = {"classes": classes, "dim": dim}, bool(zero_padding)

    def loss(self, batch: SegBatch) -> Mapping[str, Term]:
        check.one_class_per_voxel("NACLLoss", batch.multilabel)
        for (name, told), found in zip(self.told.items(), (batch.classes, batch.ndim - 2), strict=True):
            if told not in (None, found):
                raise ValueError(f"{name} is {told!r} but input has shape {tuple(batch.logits.shape)}.")
        batch = batch.full_precision
        gap = class_shares(batch, self.kernel, self.zero_padding) - batch.masked_logits
        penalty = batch.total(gap**2 if self.square else gap.abs())
        return {
            "cross_entropy": Term(1.0, cross_entropy(batch).summed()),
            "penalty": Term(self.alpha, Unreduced(penalty, batch.voxels)),
        }
