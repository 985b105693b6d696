"""What the spacing of voxels does to memory, and what an axis of one voxel does to lengths."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import monai_segloss
from monai_segloss.kernels import balls as kernel
from monai_segloss.testing import cases
from monai_segloss.testing.harness import assert_close, fresh, make
from monai_segloss.testing.properties.arguments import TOLD, another
from monai_segloss.testing.stand_in import prepared

LOSSES = monai_segloss.list_losses()
ACROSS = {("moment_constraint", "bounds"), ("nacl", "zero_padding")}
"""Arguments that say something about the axis across a slice: bounds along each axis, and zeros beyond the image."""


class Largest(TorchDispatchMode):
    """Elements of the largest tensor that any operation makes."""

    elements = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = function(*args, **(kwargs or {}))
        made = [x.numel() for x in tree_leaves(found) if isinstance(x, Tensor)]
        self.elements = max([self.elements, *made])
        return found


@pytest.mark.parametrize("info", LOSSES, ids=lambda info: info.key)
def test_memory_does_not_grow_with_fine_voxels(info: monai_segloss.LossInfo) -> None:
    """A volume of 8^3 voxels of micro-CT, of a microscope, and of very flat voxels."""
    edge = max(8, info.size)
    logits = torch.randn(1, 3, edge, edge, edge, generator=torch.Generator().manual_seed(0))
    labels = torch.zeros(1, 1, edge, edge, edge, dtype=torch.long)
    labels[..., 2:5, 1:6, 2:7], labels[..., 5:, 5:, 5:] = 1, 2
    target = labels if "labels" in info.support else torch.cat([labels == c for c in range(3)], 1)
    loss = info.cls(**info.example, **({} if target is labels else {"sigmoid": True}), **reading(info))
    loss = prepared(loss, logits)
    for spacing in ((0.02,) * 3, (1e-4,) * 3, (1e3, 1e-3, 1e-3)):
        with Largest() as most:
            value = loss(logits.requires_grad_(), target, spacing=spacing)
            value.backward()
        assert value.isfinite()
        assert most.elements <= 64 * logits.numel() + 2**19, f"{most.elements} elements at a spacing of {spacing}"


def reading(info: monai_segloss.LossInfo) -> dict[str, bool]:
    return info.reading if "labels" in info.support else {}


def test_voxels_of_a_ball() -> None:
    """Counted, or from its volume where there are too many to count."""
    rng = np.random.default_rng(0)
    for n, radius in itertools.product((1, 2, 3), (0.4, 1, 3, 5, 9, 12.5, 18)):
        for steps in ((1.0,) * n, (3.0, 1.0, 0.5)[:n], (0.7,) * n, tuple(rng.uniform(0.4, 3, n))):
            axes = [np.arange(-int(radius / s) - 1, int(radius / s) + 2) * s for s in steps]
            expected = int((np.sqrt(sum(axis**2 for axis in np.ix_(*axes))) <= radius * (1 + 5e-7)).sum())
            assert float(kernel.Balls(torch.zeros(1, 1, *(4,) * n), radius, steps).voxels()) == expected


def test_a_ball_of_many_voxels_has_its_volume(monkeypatch: pytest.MonkeyPatch) -> None:
    for steps in ((0.05, 0.05, 0.05), (0.1, 0.02, 0.07)):
        balls = kernel.Balls(torch.zeros(1, 1, 4, 4, 4), 9.0, steps)
        found = []
        for most in (0, 2**40):
            monkeypatch.setattr(kernel, "CHORDS", most)
            found.append(float(balls.voxels()))
        assert found[0] == pytest.approx(found[1], rel=1e-4)


@pytest.mark.parametrize(
    "info",
    [x for x in LOSSES if "slice_equals_volume" not in x.exempt and not x.cls(**x.example).brings],
    ids=lambda info: info.key,
)
def test_a_slice_is_its_volume_whatever_the_arguments(info: monai_segloss.LossInfo) -> None:
    """Also where a class is absent, and where slices are thick or thin."""
    if not {"2-D", "3-D"} <= set(info.support):
        return
    name = "labels_2d" if "labels" in info.support else "one_class"
    case = cases.enlarged(cases.get(name, info.size), info.min_error_width)
    absent = torch.where(case.target == case.classes - 1, 0, case.target)
    for argument, parameter in info.parameters.items():
        if argument in (*monai_segloss.core.module.READING, *TOLD, "use_softmax", "axis"):
            continue
        if (info.key, argument) in ACROSS:
            continue
        try:
            loss = make(info, case, **{argument: another(argument, parameter.default, case)})
            flat = [fresh(loss)(case.input, y, spacing=(1.5, 0.75)) for y in (case.target, absent)]
        except ValueError:  # an argument that the reading of this case excludes
            continue
        for thickness in (5.0, 0.2):
            for y, expected in zip((case.target, absent), flat, strict=True):
                found = fresh(loss)(case.input[:, :, None], y[:, :, None], spacing=(thickness, 1.5, 0.75))
                assert_close(found, expected, f"{argument}={loss.arguments[argument]!r}, slices of {thickness} mm")
