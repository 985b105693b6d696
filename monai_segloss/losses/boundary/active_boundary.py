"""Active boundary loss: predicted boundaries move towards those of the target.  Wang et al., AAAI 2022."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import product
from typing import Unpack

import torch
from torch import Tensor

from monai_segloss.core.batch import SegBatch
from monai_segloss.core.check import within
from monai_segloss.core.derivatives import no_second_derivative
from monai_segloss.core.exempt import Exempt
from monai_segloss.core.module import ReadingArgs, SegLoss
from monai_segloss.core.recommend import Recommended
from monai_segloss.core.reduce import Scores
from monai_segloss.core.registry import register
from monai_segloss.kernels.distance import distance_to
from monai_segloss.losses.boundary.neighborhood import dilation, neighbor, valid

Offset = tuple[int, ...]
FLAT = 1e-5
"""A divergence between neighbors of at most this is no boundary."""


def directions(shape: tuple[int, ...]) -> list[Offset]:
    """Offsets to all neighbors, diagonal ones included, along the axes that have several voxels."""
    steps = [(-1, 0, 1) if n > 1 else (0,) for n in shape]
    return [offset for offset in product(*steps) if any(offset)]


def at(x: Tensor, offset: Offset, fill: float | None = None) -> Tensor:
    """Value at an offset from each voxel; beyond the image ``fill``, or the last value again."""
    for axis, step in enumerate(offset, start=2):
        if step:
            x = neighbor(x, axis, step, fill)
    return x


def divergence(log_p: Tensor, log_q: Tensor) -> Tensor:
    """KL(p || q) over the classes, (B, 1, *S)."""
    return (log_p.exp() * (log_p - log_q)).sum(1, keepdim=True)


def ahead(x: Tensor) -> list[Offset]:
    """One voxel ahead along each axis."""
    n = x.ndim - 2
    return [tuple(int(axis == other) for other in range(n)) for axis in range(n)]


def predicted_boundary(log_p: Tensor, counted: Tensor, max_ratio: float) -> Tensor:
    """The share of voxels that differ most from the next ones, and their neighbors, (B, 1, *S) bool."""
    difference = torch.zeros_like(log_p[:, :1])
    for offset in ahead(log_p):
        difference = difference + divergence(log_p, at(log_p, offset)) * (counted & at(counted, offset, False))
    flat = difference.flatten(1)
    most = math.ceil(max_ratio * flat.shape[1])
    ranked = flat.topk(min(most + 1, flat.shape[1])).values
    rank = (max_ratio * counted.flatten(1).sum(1, keepdim=True)).ceil().long()
    limit = ranked.gather(1, rank.clamp_max(ranked.shape[1] - 1)) * (rank < flat.shape[1])
    edge = difference > limit.clamp_min(FLAT).reshape(-1, *(1,) * (log_p.ndim - 1))
    return (dilation(edge.to(log_p.dtype), (1,) * (log_p.ndim - 2)) > 0) & counted


def target_boundary(labels: Tensor, counted: Tensor) -> Tensor:
    """Voxels of another class than the next one along some axis, (B, 1, *S) bool."""
    edge = torch.zeros_like(counted)
    for offset in ahead(labels):
        edge = edge | (at(labels, offset) != labels) & at(counted, offset, False)
    return edge & counted


def value_and_slope(
    log_p: Tensor, distance: Tensor, counted: Tensor, max_ratio: float, max_dist: float, smoothing: float
) -> tuple[Tensor, Tensor]:
    """The loss of each sample (B, 1), and its derivative in the logarithms of the probabilities (B, C, *S).

    Both are sums over the voxels of the predicted boundary and over directions, so that no direction has to keep its
    neighbors' probabilities.

    Args:
        log_p: logarithms of the probabilities (B, C, *S).
        distance: of each voxel to the boundary of the target, (B, 1, *S).
        counted: which voxels count, (B, 1, *S) bool.
        max_ratio, max_dist, smoothing: see `ActiveBoundaryLoss`.
    """
    found: tuple[Tensor, Tensor] = torch.ops.segloss.active_boundary(
        log_p, distance, counted, max_ratio, max_dist, smoothing
    )
    return found


# One operation for the compiler, which does not know how many voxels a boundary has.
@torch.library.custom_op("segloss::active_boundary", mutates_args=())
def _value_and_slope(
    log_p: Tensor, distance: Tensor, counted: Tensor, max_ratio: float, max_dist: float, smoothing: float
) -> tuple[Tensor, Tensor]:
    samples, shape = log_p.shape[0], log_p.shape[2:]
    value, slope = log_p.new_zeros(samples, 1), torch.zeros(log_p.shape, dtype=log_p.dtype, device=log_p.device)
    offsets = directions(tuple(shape))
    if not offsets:
        return value, slope
    edge = Voxels.of(predicted_boundary(log_p, counted, max_ratio)[:, 0])
    own, far = edge.values(distance)[:, 0], []
    for offset in offsets:
        ahead = edge.moved(offset, counted)
        far.append(ahead.values(distance)[:, 0].masked_fill(~ahead.known, torch.inf))
    nearest, target = torch.stack(far).min(0)
    moving = nearest < own
    edge, own, target = edge.only(moving), own[moving].to(log_p.dtype), target[moving]

    owner = edge.sample == torch.arange(samples, device=log_p.device)[:, None]
    weight = own.clamp_max(max_dist) / max_dist / owner.sum(1)[edge.sample]
    log_own = edge.values(log_p)
    logits = torch.empty((len(offsets), len(own)), dtype=log_p.dtype, device=log_p.device)
    around = [edge.moved(offset, counted) for offset in offsets]
    for logit, ahead in zip(logits, around, strict=True):
        log_ahead = ahead.values(log_p)
        logit.copy_((log_ahead.exp() * (log_ahead - log_own)).sum(1) * ahead.known)
    logits = logits.log_softmax(0)
    index = torch.arange(len(offsets), device=log_p.device)[:, None]
    wanted = (index == target).to(log_p.dtype) * (1 - smoothing) + smoothing / len(offsets)
    value -= (owner * (weight * (wanted * logits).sum(0))).sum(1, keepdim=True)
    pull = torch.zeros_like(log_own)
    for push, ahead in zip(weight * (wanted - logits.exp()), around, strict=True):
        pull += (push * ahead.known)[:, None] * ahead.values(log_p).exp()
    slope.flatten(2)[edge.sample, :, edge.place] = pull
    return value, slope


@_value_and_slope.register_fake
def _(
    log_p: Tensor, distance: Tensor, counted: Tensor, max_ratio: float, max_dist: float, smoothing: float
) -> tuple[Tensor, Tensor]:
    return log_p.new_empty(log_p.shape[0], 1), log_p.new_empty(log_p.shape)


@dataclass(frozen=True)
class Voxels:
    """Some voxels of a batch: their sample and place, (M,) each, in images of a shape; ``known`` whether they count."""

    sample: Tensor
    place: Tensor
    known: Tensor
    shape: tuple[int, ...]

    @classmethod
    def of(cls, mask: Tensor) -> Voxels:
        """Those of a mask (B, *S)."""
        sample, place = mask.flatten(1).nonzero().unbind(1)
        return cls(sample, place, torch.ones_like(place, dtype=torch.bool), tuple(mask.shape[1:]))

    def only(self, kept: Tensor) -> Voxels:
        """Those where ``kept`` (M,) is true."""
        return Voxels(self.sample[kept], self.place[kept], self.known[kept], self.shape)

    def values(self, x: Tensor) -> Tensor:
        """Their values in (B, C, *S), (M, C)."""
        return x.flatten(2)[self.sample, :, self.place]

    def moved(self, offset: Offset, counted: Tensor) -> Voxels:
        """Their neighbors in a direction, and the voxels themselves where it leads out of the image.

        A neighbor is known if it lies in the image and counts, (B, 1, *S).
        """
        inside, stride, shift = torch.ones_like(self.known), 1, 0
        for step, length in zip(reversed(offset), reversed(self.shape), strict=True):
            if step:
                ahead = self.place // stride % length + step
                inside &= (ahead >= 0) & (ahead < length)
            stride, shift = stride * length, shift + step * stride
        there = Voxels(self.sample, self.place + shift * inside, inside, self.shape)
        return replace(there, known=inside & there.values(counted)[:, 0])


@register(
    "active_boundary",
    family="boundary",
    summary="Predicted boundaries move one voxel at a time towards the nearest boundary of the target.",
    when="Beside cross-entropy and Lovász-Softmax, as published, to refine predictions that are nearly right. It never "
    "reads which class lies on which side, so it does not train alone; in 3-D it visits 26 neighbors of each voxel of "
    "the predicted boundary.",
    formula=r"\overline{\frac{\min\{M_i, d\}}{d}\, \mathrm{CE}\big(\{\mathrm{KL}(p_{i + \delta} \| p_i)\}_\delta,\ "
    r"\arg\min_\delta M_{i + \delta}\big)}",
    paper="Wang, Zhang, Cui et al., Active boundary loss for semantic segmentation, AAAI 2022",
    doi="arXiv:2102.02696",
    aliases=("abl",),
    tags=("contour", "distance"),
    support=("labels", "ignore", "2-D", "3-D"),
    recommended=Recommended(include_background=None, batch=None),
    exempt={
        "gradcheck": "neighbors and the choice of voxels carry no gradient, so the gradient is not the derivative",
        "second_derivatives": "neighbors carry no gradient, so that there is none of the gradient either",
        "perfect_prediction_is_zero": Exempt(
            "beside the right boundary smoothed directions still cost something", cases=("ignored",)
        ),
        "perfect_prediction_is_the_minimum": Exempt(
            "it compares distances and no classes; a prediction without boundary costs 0", cases=("ignored",)
        ),
        "flips": "a boundary lies in the voxel before a change, which is another one after a flip",
    },
)
class ActiveBoundaryLoss(SegLoss):
    """Active boundary loss: mean over the voxels of the predicted boundary of min(M, d)/d CE(directions), then over samples.

    M is the distance to the boundary of the target, of all classes together, d = ``max_dist``.  The predicted boundary are
    the ``max_ratio`` voxels of a sample that differ most from the next ones (KL divergence), and their neighbors.  For each,
    a cross-entropy with smoothed labels over its neighbors (8 in 2-D, 26 in 3-D) raises the divergence KL(neighbor || voxel)
    towards the neighbor nearest to the target's boundary.  Neighbors carry no gradient.

    Differences from the authors' code: M is exact (theirs is the distance minus 1 in whole voxels) and knows the
    ``spacing``; the share holds per sample and exactly (theirs is per batch, by steps of a factor of 1.2); voxels without a
    neighbor nearer to the boundary leave the mean; without any boundary the value is 0 (theirs is None); ignored
    voxels are no boundary (there they all are).

    Args:
        max_ratio: share of the voxels that the predicted boundary has at most, before its neighbors join; at least one.
        max_dist: distance from which on the weight no longer grows, in the unit of the ``spacing``, in voxels without one.
        label_smoothing: of the directions, in [0, 1).
        reading: see `SegLoss`; ``reduction="none"`` gives one value per sample.

    Raises:
        ValueError: ``sigmoid=True`` or a single channel; a share or a smoothing out of range; ``max_dist`` not above 0.

    Example:
        >>> import torch
        >>> from monai_segloss import ActiveBoundaryLoss
        >>> label = torch.zeros(1, 1, 12).long()
        >>> label[..., 8:] = 1  # its boundary is voxel 7, the predicted one is voxel 3
        >>> logits = torch.full((1, 2, 12), -1.0)
        >>> logits[:, 0, :4], logits[:, 1, 4:] = 1.0, 1.0
        >>> loss = ActiveBoundaryLoss(softmax=True, to_onehot_y=True, max_ratio=0.05)
        >>> round(loss(logits, label).item(), 4)
        0.1595

    Reference:
        C. Wang et al., AAAI 2022, arXiv:2102.02696.  The order of the divergence is that of the authors' code.
    """

    scoring = ()

    def __init__(
        self,
        *,
        max_ratio: float = 0.01,
        max_dist: float = 20.0,
        label_smoothing: float = 0.2,
        **reading: Unpack[ReadingArgs],
    ) -> None:
        super().__init__(**reading)
        if self.reader.sigmoid:
            raise ValueError("sigmoid=True: the active boundary loss is defined for one class per voxel.")
        self.max_ratio, self.label_smoothing = within(0, 1, max_ratio=max_ratio, label_smoothing=label_smoothing)
        if not self.max_ratio:
            raise ValueError("max_ratio must be above 0.")
        if self.label_smoothing == 1:
            raise ValueError("label_smoothing must be below 1.")
        if not 0 < max_dist < math.inf:
            raise ValueError(f"max_dist must be above 0, got {max_dist!r}.")
        self.max_dist = float(max_dist)

    def loss(self, batch: SegBatch) -> Scores:
        if batch.classes == 1:
            raise ValueError("input has a single channel: the active boundary loss is defined for one class per voxel.")
        log_p, mask = no_second_derivative(batch.log_prob, "ActiveBoundaryLoss"), valid(batch)
        counted = torch.ones_like(log_p[:, :1], dtype=torch.bool) if mask is None else mask
        distance = distance_to(target_boundary(batch.labels[:, None], counted), batch.spacing)
        value, slope = value_and_slope(
            log_p.detach(), distance, counted, self.max_ratio, self.max_dist, self.label_smoothing
        )
        linear = (slope * log_p).flatten(1).sum(1, keepdim=True)
        return Scores.table(value + (linear - linear.detach()), batch.voxels)
