"""The figure of a loss: how it behaves against the probability of the true class, and against the overlap.

Left, every voxel of a volume with 5 % foreground has the same probability p of its true class.  Right, a confident
prediction (p = 0.98) of the right size is shifted off its target step by step; the overlap is their hard Dice coefficient.
Networks that a loss brings are untrained.
"""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

import monai_segloss
from monai_segloss import LossInfo
from monai_segloss.testing.stand_in import prepared

EDGE, BOX = 24, 9
SURE = 4.0
VALUE, SLOPE = "#1b6ca8", "#c8553d"


def figure(info: LossInfo) -> str:
    """SVG."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    settings = {"svg.hashsalt": "segloss", "svg.fonttype": "none", "font.size": 9, "axes.grid": True, "grid.alpha": 0.3}
    with mpl.rc_context(settings):
        fig, (left, right) = plt.subplots(1, 2, figsize=(8, 2.8), layout="constrained")
        _draw(left, *_against_probability(info), "probability of the true class")
        _draw(right, *_against_overlap(info), "overlap (Dice of the hard prediction)")
        out = io.StringIO()
        fig.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
        plt.close(fig)
    return out.getvalue()


def _draw(axes, x: np.ndarray, value: np.ndarray, slope: np.ndarray, label: str) -> None:  # type: ignore[no-untyped-def]
    axes.plot(x, value, color=VALUE)
    axes.set_xlabel(label)
    axes.set_ylabel("loss", color=VALUE)
    other = axes.twinx()
    other.plot(x, slope, color=SLOPE, linestyle="--")
    other.set_ylabel("norm of the gradient", color=SLOPE)
    other.set_ylim(bottom=0)
    other.grid(False)


def _against_probability(info: LossInfo) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    label = _box(EDGE, 9, 0)
    points = np.linspace(0.02, 0.98, 49)

    def logits(p: float) -> Tensor:
        return float(np.log(p / (1 - p))) * (_one_hot(label) - 0.5)

    return points, *_curve(info, label, logits, points)


def _against_overlap(info: LossInfo) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    label = _box(EDGE, BOX, 0)
    shifts = np.arange(BOX + 1)
    value, slope = _curve(info, label, lambda k: SURE * (_one_hot(_box(EDGE, BOX, int(k))) - 0.5), shifts)
    return 1 - shifts / BOX, value, slope


def _curve(
    info: LossInfo, label: Tensor, logits: Callable[[float], Tensor], points: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    values, slopes = [], []
    for point in points:
        z = logits(float(point)).requires_grad_()
        same = z if "softmax" in info.reading else 2 * z  # the same p for softmax and sigmoid
        value = prepared(_loss(info), same)(same, label, spacing=(1.0, 1.0, 1.0))
        (slope,) = torch.autograd.grad(value, z)
        values.append(float(value.detach()))
        slopes.append(float(slope.norm()))
    return np.array(values), np.array(slopes)


def _loss(info: LossInfo) -> monai_segloss.SegLoss:
    return info.cls(**{**info.reading, **info.example, **info.recommended.resolve()})


def _box(edge: int, size: int, shift: int) -> Tensor:
    label = torch.zeros(1, 1, edge, edge, edge, dtype=torch.long)
    start = (edge - 2 * size) // 2
    middle = slice((edge - size) // 2, (edge - size) // 2 + size)
    label[0, 0, start + shift : start + shift + size, middle, middle] = 1
    return label


def _one_hot(label: Tensor) -> Tensor:
    return torch.cat([label == 0, label == 1], 1).double()
