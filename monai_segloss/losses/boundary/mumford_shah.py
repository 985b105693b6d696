from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from monai_segloss.core.card import Exempt, ReadingArgs, Recommended, SegLoss, Unpack, non_negative, one_of, register
from monai_segloss.core.formula import SegBatch, Term, Unreduced
from monai_segloss.kernels.recomputed import by_class
from monai_segloss.losses.boundary.intensities import FITS, homogeneity, image_of
from monai_segloss.losses.boundary.neighborhood import Spacing, by_spacing, valid


@register(
    "mumford_shah",
    tags=("contour", "smoothness", "unsupervised"),
    recommended=Recommended(include_background=True),
    exempt={
        "perfect_prediction_is_zero": Exempt(
            "a perfect prediction pays for the total variation of the target",
            cases=("labels_3d", "five_classes", "regions", "regions_masked"),
        )
    },
)
class MumfordShahLoss(SegLoss):
    r"""Each class is a region of nearly constant intensity of the image, with a short boundary.

    Formula: \frac{1}{N} \Big(\sum_c \sum_i |I_i - \mu_c|^2\, p_{ci} + \lambda\, \mathrm{TV}(p)\Big),\quad \mu_c =
    \frac{\sum_i I_i\, p_{ci}}{\sum_i p_{ci} + \epsilon}

    When: Alongside cross-entropy on images of which few have labels: with the image it needs no target. It does not know
    which class is which, and supposes that intensities tell the classes apart. Fitted to the target it only checks a
    training with labels.

    The mean runs over samples. I is the keyword ``image`` of the call, (B, channels, *S), whose channels add up; trainers
    hand the input of the network over where ``fit`` is ``"image"``. Scale it: the value grows with the square of its
    contrast. The target as I has one channel per class. mu_c is the mean intensity under the prediction and carries a
    gradient. The total variation sums absolute differences along the axes per unit of the ``spacing`` of the call. Ignored
    voxels enter neither term. The authors' code sums over the batch and has no eps, so a class without any probability is
    NaN there.

    Args:
        fit: what I is: ``"image"``, as in the paper, or ``"target"``; None: the image where the call has one.
        w_tv: factor of the total variation.
        eps: added to the mass of a class.
        reduction: ``"none"`` gives one value per sample.

    Example:
        >>> import torch
        >>> from monai_segloss import MumfordShahLoss
        >>> image = torch.tensor([[[1.0, 1.0, 5.0, 5.0]]])
        >>> logits = 50.0 * torch.tensor([[[1.0, 1.0, -1.0, -1.0], [-1.0, -1.0, 1.0, 1.0]]])
        >>> loss, label = MumfordShahLoss(softmax=True, to_onehot_y=True), torch.zeros(1, 1, 4)
        >>> values = (loss(z, label, image=image).item() for z in (logits, 0 * logits))
        >>> [round(x, 4) for x in values]  # two classes of one value each; a variance of 4
        [0.0005, 4.0]

    Reference: Kim & Ye, Mumford-Shah loss functional for image segmentation with deep learning, IEEE TIP 29, 2020,
    arXiv:1904.02872.
    """

    def __init__(
        self,
        *,
        fit: str | None = None,
        w_tv: float = 1e-3,
        eps: float = 1e-6,
        include_background: bool = True,
        **common: Unpack[ReadingArgs],
    ) -> None:
        super().__init__(include_background=include_background, **common)
        if fit is not None:
            one_of(FITS, fit=fit)
        self.fit = fit
        self.w_tv, self.eps = non_negative(w_tv=w_tv, eps=eps)
        if not self.eps:
            raise ValueError("eps must be above 0.")

    @property
    def accepts(self) -> tuple[str, ...]:  # type: ignore[override]
        return ("image",) if self.fit is None else ()

    @property
    def taps(self) -> tuple[str, ...]:
        return ("image",) if self.fit == "image" else ()

    def loss(self, batch: SegBatch) -> Mapping[str, Term]:
        p, counted = batch.class_view(self.include_background).prob, valid(batch)
        kept = torch.ones_like(p[:, :1]) if counted is None else counted.to(p.dtype)
        u = p if counted is None else p * kept
        given = self.fit == "image" or (self.fit is None and "image" in batch.maps)
        image = image_of(batch) if given else batch.one_hot
        data = homogeneity(u, image.to(p.dtype), kept, self.eps).sum(1, keepdim=True)

        def variations(spacing: Spacing, p: Tensor, counted: Tensor | None) -> Tensor:
            table = by_class(lambda _, p, counted: variation(spacing, p, counted), None, p, counted)
            return table.sum(1, keepdim=True)

        tv = by_spacing(variations, batch, p, counted)
        spread, rough = (Unreduced.table(x / batch.voxels.clamp_min(1), batch.voxels) for x in (data, tv))
        return {"homogeneity": Term(1.0, spread), "variation": Term(self.w_tv, rough)}


def variation(spacing: Spacing, u: Tensor, counted: Tensor | None) -> Tensor:
    """Sum over pairs of neighbors of |difference| / spacing, (B, K), but for pairs with an ignored voxel."""
    total = u.new_zeros(u.shape[:2])
    for axis, step in enumerate(spacing, start=2):
        n = u.shape[axis] - 1
        difference = (u.narrow(axis, 1, n) - u.narrow(axis, 0, n)).abs() / step
        if counted is not None:
            difference = difference * (counted.narrow(axis, 1, n) & counted.narrow(axis, 0, n))
        total = total + difference.flatten(2).sum(2)
    return total
