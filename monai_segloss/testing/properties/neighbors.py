"""With `neighbors` a loss is that of the worst logits in the windows, which NumPy finds here voxel shift by voxel shift."""

from __future__ import annotations

import itertools
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from monai_segloss.core.registry import LossInfo
from monai_segloss.testing.cases import Case
from monai_segloss.testing.contract import on
from monai_segloss.testing.harness import assert_close, gradient, make, require
from monai_segloss.testing.stand_in import features

Array = NDArray[np.float64]


@on("ignored_2d", "regions_masked")
def neighbors_are_of_the_same_class(info: LossInfo, case: Case) -> None:
    """`neighbors=3` gives the loss of the worst logits in each window, and ignored voxels are no neighbors."""
    loss, plain = make(info, case, neighbors=3), make(info, case)
    if loss.brings:  # the network's features, which are not those of the worst logits
        given = features(case.input, loss.taps)
        loss, plain = partial(loss, **given), partial(plain, **given)  # type: ignore[assignment]
    worst = torch.from_numpy(worst_logits(case.input.numpy(), case.onehot().numpy(), case.valid.numpy(), 3))
    found, slope = gradient(loss, case)
    expected, at_worst = gradient(plain, case, worst)
    assert_close(found, expected, "the value at the worst logits", rtol=1e-9)
    require(slope.isfinite().all(), "the gradient is not finite")
    space = tuple(range(2, slope.ndim))  # each slope goes to one of the voxels of its channel
    assert_close(slope.sum(space), at_worst.sum(space), "the gradient of a channel", rtol=1e-7, atol=1e-12)
    void = ~case.valid.expand_as(case.input)
    require(not slope[void].any(), "an ignored voxel has a gradient")
    again, other = gradient(loss, case, case.input.masked_fill(void, torch.nan))
    assert_close(again, found, "the value depends on ignored logits", rtol=1e-12)
    assert_close(other, slope, "the gradient depends on ignored logits", rtol=1e-9, atol=1e-13)


def worst_logits(z: Array, g: Array, valid: NDArray[np.bool_], width: int) -> Array:
    """The definition: of the voxels in the window that count and are of the same side of one half, the worst logit.

    Args:
        z, g: logits and target (B, C, *S).
        valid: (B, 1, *S).
        width: of the window.
    """
    inside, counted = g >= 0.5, np.broadcast_to(valid, z.shape)
    worst, r, axes = z.copy(), width // 2, z.ndim - 2
    edge = [(0, 0), (0, 0), *[(r, r)] * axes]
    around, side, there = np.pad(z, edge), np.pad(inside, edge), np.pad(counted, edge)
    for offset in itertools.product(range(width), repeat=axes):
        window: tuple[Any, ...] = (..., *(slice(o, o + n) for o, n in zip(offset, z.shape[2:], strict=True)))
        other, same = around[window], (side[window] == inside) & there[window] & counted
        worst = np.where(same, np.where(inside, np.minimum(worst, other), np.maximum(worst, other)), worst)
    return worst
