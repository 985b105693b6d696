"""Where a target lies in memory, and how thin it is, changes no map and no loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import monai_segloss
from monai_segloss import maps
from monai_segloss.kernels import components, distance
from monai_segloss.kernels.two_nearest import two_nearest
from monai_segloss.testing.stand_in import prepared

THIN = [(2, 1, 1), (16, 1, 1), (1, 5, 4), (3, 1, 6), (5, 6, 1), (1, 1, 1), (4, 5, 6), (1, 2), (7, 1), (6, 5)]


def scattered(x: Tensor) -> Tensor:
    """Every second voxel of every axis of a larger tensor."""
    wide = x.new_zeros([2 * n for n in x.shape])
    part = wide[tuple(slice(None, None, 2) for _ in x.shape)]
    return part.copy_(x)


def backwards(x: Tensor) -> Tensor:
    """Axes in memory from the last to the first."""
    order = list(range(x.ndim))[::-1]
    return x.permute(order).contiguous().permute(order)


def channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last_3d if x.ndim == 5 else torch.channels_last)


def transposed(x: Tensor) -> Tensor:
    return x.transpose(2, -1).contiguous().transpose(2, -1)


def flipped(x: Tensor) -> Tensor:
    return backwards(x.flip(2)).flip(2)


def odd_strides(x: Tensor) -> Tensor:
    """Strides of axes of one voxel, that neither torch nor NumPy minds, as a view has them."""
    strides = [1 if n == 1 else s for n, s in zip(x.shape, x.contiguous().stride(), strict=True)]
    return x.contiguous().as_strided(x.shape, strides)


LAYOUTS: list[Callable[[Tensor], Tensor]] = [scattered, backwards, channels_last, transposed, flipped, odd_strides]
STEPS = {2: torch.tensor([2.0, 0.5]), 3: torch.tensor([3.0, 1.0, 0.5])}


def nearest(mask: Tensor, spacing: Tensor) -> Tensor:
    return maps.nearest_component(mask.int(), spacing)


def two(mask: Tensor, spacing: Tensor) -> Tensor:
    return torch.stack([torch.stack(two_nearest(sample.int(), spacing)) for sample in mask])


MAPS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "components": lambda mask, spacing: maps.connected_components(mask),
    "components over faces": lambda mask, spacing: maps.component_map(mask, faces=True),
    "cells": maps.component_cell_map,
    "nearest": nearest,
    "two nearest": two,
    "sdm": maps.signed_distance_map,
    "surface": lambda mask, spacing: maps.signed_distance_map(mask, spacing, mode="surface"),
    "field": maps.distance_field,
    "penalty": maps.distance_penalty_map,
    "region-wise": maps.region_wise_map,
    "of labels": lambda mask, spacing: maps.distance_field(mask, spacing, side="inside", exclusive=True),
    "border": maps.border_weight_map,
    "contour": lambda mask, spacing: maps.contour_map(mask),
    "skeleton": lambda mask, spacing: maps.skeleton_map(mask),
    "tube": lambda mask, spacing: maps.tubed_skeleton_map(mask, spacing, radius_mm=1.0),
}


def masks(shape: tuple[int, ...]) -> list[Tensor]:
    """One sample, whose classes a view may join with it, several, and one volume that stands for all."""
    mask = torch.rand((2, 3, *shape), generator=torch.Generator().manual_seed(1)) < 0.6
    mask[0, 0] = True
    return [mask[:1], mask[:, :1], mask, mask[:1, :1].expand(mask.shape)]


@pytest.mark.parametrize("backend", ["fast", "edt", "scipy"])
@pytest.mark.parametrize("shape", THIN, ids=str)
def test_maps(shape: tuple[int, ...], backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if backend != "fast":
        monkeypatch.setattr(distance, "library", lambda: None)
    if backend == "scipy":
        monkeypatch.setattr(distance, "_transform", lambda: distance.transform_by_scipy)
        monkeypatch.setattr(components, "_labeler", lambda: components.label_by_scipy)
    spacing = STEPS[len(shape)]
    for mask in masks(shape):
        for name, make in MAPS.items():
            expected = make(mask.clone(memory_format=torch.contiguous_format), spacing)
            for layout in (torch.Tensor.view_as, *LAYOUTS):
                same = mask.view_as(mask) if layout is torch.Tensor.view_as else layout(mask)
                assert torch.equal(make(same, spacing), expected), f"{name} of a mask that is {layout.__name__}"


def of_masks(info: monai_segloss.LossInfo) -> bool:
    """Whether a loss looks at components or distances: it asks for maps, or says so in its tags."""
    return bool(info.needs) or info.family in ("boundary", "instance") or "hausdorff_dt" in info.key


@pytest.mark.parametrize("info", [x for x in monai_segloss.list_losses() if of_masks(x)], ids=lambda info: info.key)
def test_losses(info: monai_segloss.LossInfo) -> None:
    """Value and gradient of thin and of whole volumes, labels and regions."""
    for shape in THIN:
        if f"{len(shape)}-D" not in info.support or any(1 < n < info.size for n in shape):
            continue
        seed = torch.Generator().manual_seed(2)
        logits = torch.randn((1, 3, *shape), generator=seed, dtype=torch.float64)
        for reading in ({"softmax": True, "to_onehot_y": True}, {"sigmoid": True}):
            if ("labels" if "softmax" in reading else "regions") not in info.support:
                continue
            labels = torch.randint(0, 3, (1, 1, *shape), generator=seed)
            target = labels if "softmax" in reading else torch.cat([labels > 0, labels > 1, labels == 1], 1)
            loss = prepared(info.cls(**info.example, **reading), logits)
            kept = {"spacing": STEPS[len(shape)].tolist()}
            expected = outcome(loss, logits, target, kept)
            for layout in LAYOUTS:
                found = outcome(loss, layout(logits), layout(target), kept)
                assert alike(found, expected), f"{shape} {layout.__name__}: {found} instead of {expected}"


def outcome(loss: Any, logits: Tensor, target: Tensor, kept: dict[str, Any]) -> tuple[Tensor, Tensor] | str:
    """Value and gradient, or what was said where the shape has no such loss."""
    leaf = logits.detach().requires_grad_()
    try:
        value = loss(leaf, target, **kept)
    except ValueError as error:
        return str(error)
    (slope,) = torch.autograd.grad(value, leaf)
    return value.detach(), slope


def alike(found: tuple[Tensor, Tensor] | str, expected: tuple[Tensor, Tensor] | str) -> bool:
    if isinstance(found, str) or isinstance(expected, str):
        return found == expected
    return all(torch.allclose(a, b, rtol=1e-9, atol=1e-12) for a, b in zip(found, expected, strict=True))
