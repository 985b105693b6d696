"""What a loss gives on a class without a voxel, on one that fills the volume, and where every voxel is ignored."""

from __future__ import annotations

import torch
from figures import BOX, EDGE, SURE, _box, _loss, _one_hot
from torch import Tensor

from monai_segloss import LossInfo
from monai_segloss.testing.stand_in import prepared

DIGITS = 1e-6
"""Smaller values are shown as 0."""


def edge_cases(info: LossInfo) -> str:
    """The values in one sentence, computed now."""
    nothing, box = torch.zeros(1, 1, EDGE, EDGE, EDGE, dtype=torch.long), _box(EDGE, BOX, 0)
    everything = 1 - nothing
    found, more = _value(info, nothing, nothing), _value(info, nothing, box)
    empty = f"{found} where it is predicted nowhere, {more} where in 5 % of the voxels"
    found, most = _value(info, everything, everything), _value(info, everything, 1 - box)
    full = f"{found} where it is predicted everywhere, {most} where in 95 %"
    text = f"With p = 0.98, a class without a voxel gives {empty}. One that fills the volume gives {full}."
    if "ignore" not in info.support:
        return f"{text} Ignored voxels are refused."
    return f"{text} If every voxel is ignored: {_value(info, box, box, ignored=True)}."


def _value(info: LossInfo, label: Tensor, predicted: Tensor, ignored: bool = False) -> str:
    z = (SURE * (_one_hot(predicted) - 0.5)).requires_grad_()
    same = z if "softmax" in info.reading else 2 * z
    more = {"mask": torch.zeros_like(label, dtype=torch.bool)} if ignored else {}
    value = prepared(_loss(info), same)(same, label, spacing=(1.0, 1.0, 1.0), **more)
    (slope,) = torch.autograd.grad(value, z)
    found = f"{float(value.detach()):.2g}" if abs(float(value.detach())) > DIGITS else "0"
    return found if slope.any() else f"{found} (no gradient)"
