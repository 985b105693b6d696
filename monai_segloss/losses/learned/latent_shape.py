from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Unpack

from torch import Tensor

from monai_segloss.core.batch import SegBatch
from monai_segloss.core.companions import float_features
from monai_segloss.core.module import FormulaArgs
from monai_segloss.core.reduce import Unreduced
from monai_segloss.core.registry import register
from monai_segloss.losses.learned.guided import Base
from monai_segloss.losses.learned.with_prior import WithPrior
from monai_segloss.prior.networks import LabelAutoEncoder, LabelEncoder
from monai_segloss.schedules import TermWeight

LEARNED = "a network trained on labels tells"


@register(
    "latent_shape",
    tags=("prior", "auto-encoder", "shape"),
    exempt={
        "flips": f"{LEARNED} a shape from its mirror image",
        "class_order": f"{LEARNED} the classes apart",
    },
)
class LatentShapeLoss(WithPrior):
    r"""A segmentation loss plus the distance of prediction and target in the code of a label auto-encoder.

    Formula: L_{base} + \lambda \frac{1}{K} \lVert f(p) - f(y) \rVert^2

    When: Shapes that vary little between patients, with gaps and islands that a sum over voxels hardly notices.

    The encoder f is trained beforehand on the labels of the training cases, by ``segloss prior train --kind autoencoder`` or
    by the trainer, and frozen.  It is given all channels: the probabilities p and the one-hot target y.  The paper
    sums over a code of 64 numbers of a whole image; here the code is a coarse grid, since patches are cropped and rotated,
    and the mean is taken, so that lambda does not depend on its size K.  The paper's weight decay is the optimizer's.

    Args:
        base: segmentation loss: a registry key, or terms as `WeightedSum` has them.
        weight_latent: lambda, a number or a schedule; the paper's is 0.01.
        prior: file of the auto-encoder; None: the trainer makes one.
        common: see `SegLoss`, for ``base``; ``reduction="none"`` is refused.

    Raises:
        PriorError: there is no such file, or its prior is for other classes, another patch or spacing.
        RuntimeError: a call before `prepare`, or without a prior.

    Example:
        >>> from monai_segloss import LatentShapeLoss
        >>> loss = LatentShapeLoss(softmax=True, to_onehot_y=True)
        >>> loss.prior_kind, loss.term_weights
        ('autoencoder', {'dice_ce': 1.0, 'latent_shape': 0.01})

    Reference: Oktay et al., Anatomically constrained neural networks (ACNNs), IEEE TMI 2018, arXiv:1705.08302.
    """

    kind = "autoencoder"

    def __init__(
        self,
        *,
        base: Base = "dice_ce",
        weight_latent: TermWeight = 0.01,
        prior: str | None = None,
        **common: Unpack[FormulaArgs],
    ) -> None:
        super().__init__(base, {"latent_shape": ("weight_latent", weight_latent)}, prior, common)

    def part(self, network: LabelAutoEncoder) -> LabelEncoder:
        return network.encoder

    def own_terms(self, batch: SegBatch) -> Mapping[str, Callable[[], Unreduced]]:
        return {"latent_shape": lambda: Unreduced.table(self._distance(batch), batch.voxels)}

    def _distance(self, batch: SegBatch) -> Tensor:
        p = batch.prob if batch.mask is None else batch.prob * batch.mask[:, None]
        y = batch.one_hot.to(p.dtype)
        assert self.frozen is not None
        return code_distance(*(self.frozen(float_features(x, self.frozen)) for x in (p, y)))


def code_distance(p: Tensor, y: Tensor) -> Tensor:
    """Mean squared difference of two codes (B, K, *S), (B, 1)."""
    return ((p - y) ** 2).flatten(1).mean(1, keepdim=True)
