from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from monai_segloss.core.card import ReadingArgs, SegLoss, Unpack, check, non_negative, register
from monai_segloss.core.counts import activate
from monai_segloss.core.formula import FORMULAS, SegBatch, Term, Unreduced, Voxels, exact, no_second_derivative
from monai_segloss.kernels.filters import gaussian, smooth
from monai_segloss.kernels.recomputed import by_name, sums, voxel_parts
from monai_segloss.kernels.slabs import by_slabs
from monai_segloss.losses.boundary.neighborhood import require_spatial
from monai_segloss.losses.voxel.cross_entropy import cross_entropy

ROUNDING = 1e-14
"""A variance below this is the rounding of a constant, in float64."""


@register(
    "structural_similarity",
    aliases=("ssl",),
    tags=("windows", "boundary", "likelihood"),
    exempt={
        "gradcheck": "the weights e and f of the voxels carry no gradient, so the gradient is not the derivative",
        "second_derivatives": "the weights e and f carry no gradient, so that there is none of the gradient either",
        "shards_equal_the_batch": "the largest e, which decides what counts, is that of a process",
    },
)
class StructuralSimilarityLoss(SegLoss):
    r"""Cross-entropy, and cross-entropy weighted by how far the local structure of prediction and target differs.

    Formula: \lambda_{CE}\,\mathrm{CE} + \lambda_s \frac{\sum_i e_i f_i\, \mathrm{BCE}_i}{\sum_i f_i},\quad e =
    \left|\frac{g - \mu_g + C}{\sigma_g + C} - \frac{p - \mu_p + C}{\sigma_p + C}\right|,\quad f = 1\{e > \beta\,
    e_{max}\}

    When: Thin structures and boundaries, as a refinement of cross-entropy. Details of the paper could not be checked
    and no code of the authors exists; treat it as a variant of its own, and compare with dice_ce.

    mu and sigma are mean and standard deviation of a channel in a Gaussian window; e_max is the largest e of the batch.
    BCE is the binary cross-entropy of each channel. e and f carry no gradient. Ignored voxels leave the windows; beyond
    the edge of the image its last voxels repeat.

    The formula was not verified against the paper: the window, the repeated edge, the missing gradient of e and the
    largest e over the batch are choices of this library. A popular copy swaps the means of prediction and target.

    Args:
        window: edge of the window in voxels, an odd number.
        sigma: standard deviation of the window in voxels.
        stability: C, added to numerator and denominator.
        threshold: beta, share of the largest e from which a voxel counts.
        lambda_ce, lambda_structural: factors of the two terms, at least 0.

    Example:
        >>> import torch
        >>> from monai_segloss import StructuralSimilarityLoss
        >>> loss = StructuralSimilarityLoss(softmax=True, to_onehot_y=True)
        >>> round(loss(torch.zeros(1, 2, 6), torch.tensor([[[0, 0, 0, 1, 1, 1]]])).item(), 4)
        0.6858

    Reference: Zhao et al., Correlation maximized structural similarity loss for semantic segmentation, 2019,
    arXiv:1910.08711.
    """

    scalar_only = True

    def __init__(
        self,
        *,
        window: int = 3,
        sigma: float = 1.5,
        stability: float = 0.01,
        threshold: float = 0.1,
        lambda_ce: float = 0.5,
        lambda_structural: float = 0.5,
        **reading: Unpack[ReadingArgs],
    ) -> None:
        super().__init__(**reading)
        check.odd_window(window=window)
        self.sigma, self.stability, self.threshold = non_negative(sigma=sigma, stability=stability, threshold=threshold)
        if not self.sigma or not self.stability:
            raise ValueError(f"sigma and stability must be above 0, got {sigma!r} and {stability!r}.")
        self.kernel = gaussian(int(window), self.sigma)
        self.lambda_ce, self.lambda_structural = non_negative(lambda_ce=lambda_ce, lambda_structural=lambda_structural)

    def loss(self, batch: SegBatch) -> Mapping[str, Term]:
        require_spatial(batch)
        batch = batch.full_precision
        z = no_second_derivative(
            batch.masked_logits, "StructuralSimilarityLoss"
        )  # e and f are constants of the first one
        z, activation = by_name(z, batch.activation)
        g = batch.one_hot
        e, f = self.differences(g, activate(z.detach(), activation), batch.mask)
        maps = [x.flatten(2) for x in (z, g, e, f)]

        def table(_: slice, z: Tensor, g: Tensor, e: Tensor, f: Tensor) -> Tensor:
            v = Voxels(z, g.to(z.dtype), activation)
            return (e * f * (FORMULAS["ce"](v, 0) + FORMULAS["ce_neg"](v, 0))).sum(2)

        total = sums(table, voxel_parts(z.flatten(2), by_sample=True), (len(z),), *maps)
        structural = Unreduced(total, f.flatten(2).sum(2, dtype=total.dtype))
        return {
            "cross_entropy": Term(self.lambda_ce, cross_entropy(batch).summed()),
            "structural": Term(self.lambda_structural, structural),
        }

    @torch.no_grad()
    def differences(self, g: Tensor, p: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """e (B, C, *S), 0 where ignored, and where f is 1, bool."""
        e = by_slabs(self.difference, len(self.kernel) // 2, mask, p, g)
        return e, e > self.threshold * e.max()

    def difference(self, p: Tensor, g: Tensor, mask: Tensor | None) -> Tensor:
        """e of maps (B, C, *S), 0 where ignored.  In float64: a variance is a difference of squares."""
        counted = None if mask is None else exact(mask[:, None])
        at = [structure(exact(x), counted, self.kernel, self.stability) for x in (g, p)]
        e = at[0].sub_(at[1]).abs_()
        return (e if counted is None else e.mul_(counted)).to(p.dtype).to(p.device)


def structure(x: Tensor, counted: Tensor | None, kernel: tuple[float, ...], stability: float) -> Tensor:
    """(x - mu + c) / (s + c) with mean and standard deviation in the window of each voxel, (B, C, *S).

    Only voxels that are ``counted`` (B, 1, *S) enter a window.
    """
    mean, variance = window_mean(x, counted, kernel), window_mean(x * x, counted, kernel)
    variance -= mean * mean
    torch.nn.functional.threshold(variance, ROUNDING, 0, inplace=True)
    return x.sub(mean).add_(stability).div_(variance.sqrt_().add_(stability))


def window_mean(x: Tensor, counted: Tensor | None, kernel: tuple[float, ...]) -> Tensor:
    """Mean of the counted voxels in the window of each."""
    if counted is None:
        return smooth(x, kernel)
    return smooth(x * counted, kernel).div_(smooth(counted, kernel).clamp_min(torch.finfo(x.dtype).tiny))
