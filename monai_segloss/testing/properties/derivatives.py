"""Derivatives in whatever a caller hands over, once and twice, and what is not a number among it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

import torch
from torch import Tensor

from monai_segloss.core.registry import LossInfo
from monai_segloss.testing.cases import Case
from monai_segloss.testing.contract import on
from monai_segloss.testing.harness import Violation, assert_close, fed, fresh, gradient, make, require, value
from monai_segloss.testing.properties.arguments import OTHER, another, apart


@on("soft_labels", "soft_regions", "ignored_2d", "regions_masked", "ten_soft_classes")
def tensor_arguments(info: LossInfo, case: Case) -> None:
    """The derivative in each tensor of the call is that of the value; what is read as a constant has none at all."""
    constant = {
        "mask",
        "spacing",
        "points",
        "components",
        "labeled",
        *(spec.key for spec in make(info, case).needs),
    }
    for reduction in ("mean", "sum"):
        loss, sent = make(info, case, reduction=reduction), _sent(info, case)

        def at(loss=loss, **tensors: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
            return fresh(loss)(tensors.pop("input"), tensors.pop("target"), **tensors)

        leaves = {name: x.clone().requires_grad_(x.is_floating_point()) for name, x in sent.items()}
        wanted = [name for name, x in leaves.items() if x.requires_grad]
        slopes = torch.autograd.grad(at(**leaves), [leaves[name] for name in wanted], allow_unused=True)
        for name, slope in zip(wanted, slopes, strict=True):
            if name in constant:
                require(slope is None, f"{name} is a constant but has a gradient")
                continue
            if name in ("input", "target") and "gradcheck" in info.exempt:
                continue
            way, h = _inwards(sent[name]), 1e-5
            one, two, three = (at(**{**sent, name: sent[name] + k * h * way}) for k in (0, 1, 2))
            found = torch.zeros(()) if slope is None else (slope * way).nan_to_num().sum()
            right = (4 * two - 3 * one - three) / (2 * h)
            assert_close(found.double(), right, f"d/d{name}, {reduction}", rtol=1e-4, atol=1e-6)


@on("labels_2d", "regions", "soft_labels")
def constructor_tensors(info: LossInfo, case: Case) -> None:
    """Tensors given to the constructor are copied and constant; parameters of an activation have their gradient."""
    for name in {"weight", "pos_weight", "alpha", "frequencies", "dist_matrix", "bounds"} & set(info.parameters):
        given = torch.tensor(OTHER[name](case), dtype=torch.float64).requires_grad_()
        try:
            loss = make(info, case, **{name: given})
            found = value(loss, case)
        except (TypeError, ValueError):  # a number of that name, or excluded by the activation
            continue
        require(not found.requires_grad, f"{name} is a constant but has a gradient")
        given.detach().fill_(torch.nan)
        assert_close(value(loss, case), found, f"{name} changed afterwards", rtol=1e-12)
    if case.activation == "softmax" and not fed(info):
        heat = torch.tensor(1.5, dtype=torch.float64, requires_grad=True)
        loss = make(info, case, softmax=False, other_act=lambda z, heat=heat: torch.softmax(z * heat, 1))
        (slope,) = torch.autograd.grad(value(loss, case).sum(), heat, allow_unused=True)
        plain = make(info, case, softmax=False, other_act=lambda z: torch.softmax(z, 1))
        _, slopes = gradient(plain, case, 1.5 * case.input)
        found = torch.zeros_like(heat) if slope is None else slope
        assert_close(found, (slopes * case.input).sum(), "a parameter of other_act", rtol=1e-6)


def _inwards(x: Tensor) -> Tensor:
    """A direction that leads into [0, 1]."""
    return torch.rand_like(x) * torch.where(x > 0.5, -1, 1)


def _sent(info: LossInfo, case: Case) -> dict[str, Tensor]:
    """All tensors that the call takes, as floating point where it can be: learned maps, some of their entries 0."""
    random = torch.Generator().manual_seed(0)
    sent: dict[str, Any] = {"input": case.input, "target": case.target, **case.call}
    sent["spacing"] = torch.linspace(1, 2, case.input.ndim - 2, dtype=torch.float64)
    shape = case.valid.shape
    for name in make(info, case).accepts:
        entries = torch.rand(shape, generator=random, dtype=torch.float64)
        if name in ("weight_map", "image", "threshold"):
            sent[name] = entries.masked_fill(entries < 0.2, 0) if name == "weight_map" else entries
    for spec in make(info, case).needs:
        masks = case.onehot() > 0.5
        sent[spec.key] = spec.make(masks & case.valid, sent["spacing"], case.valid).double()
    return sent


@on("labels_2d", "ignored", "regions_masked", "soft_labels", "ten_classes")
def second_derivatives(info: LossInfo, case: Case) -> None:
    """The derivative of the gradient is right; where it is exempt it is refused in a sentence, and never a part of it."""
    loss, input = make(info, case), case.input
    way, h = torch.randn_like(input), 1e-6
    leaf = input.clone().requires_grad_()
    (slope,) = torch.autograd.grad(value(loss, case, leaf).sum(), leaf, create_graph=True)
    try:
        found = torch.autograd.grad((slope * way).sum(), leaf)[0] if slope.requires_grad else torch.zeros_like(leaf)
    except RuntimeError as error:
        refused = f"{info.cls.__name__} has no second derivative" in str(error)
        raise (Violation if refused else ValueError)(str(error)) from error
    if "second_derivatives" in info.exempt:
        raise ValueError("the second derivative is not refused")
    (up, down) = (gradient(loss, case, input + step * way)[1] for step in (h, -h))
    assert_close(found, (up - down) / (2 * h), "second derivative", rtol=1e-4, atol=1e-6)


@on("empty_class", "empty_region")
def nothing_hides(info: LossInfo, case: Case) -> None:
    """NaN or infinity in a logit that counts shows in the value; where it does not, it is in no gradient either."""
    for arguments in _settings(info, case):
        try:
            loss = make(info, case, **arguments)
            value(loss, case)
        except ValueError:  # settings that do not go together
            continue
        for sample, channel in product(range(2), range(case.classes)):
            for junk in (torch.nan, torch.inf, -torch.inf) if not arguments else (torch.nan,):
                input = case.input.clone()
                input[(sample, channel, *(1,) * (input.ndim - 2))] = junk
                found, slope = gradient(loss, case, input)
                where = f"{junk} in channel {channel} of sample {sample}, {arguments}"
                bad = int((~slope.isfinite()).sum())
                require(not bad or not found.isfinite().all(), f"{where}: {found} with {bad} bad entries")


def _settings(info: LossInfo, case: Case) -> Iterator[dict[str, Any]]:
    """The example, each argument with another value, and no class labeled."""
    yield {}
    if {"labeled", "include_background"} <= set(info.parameters):
        yield {"labeled": [], "include_background": False}
    for name, parameter in info.parameters.items():
        if not apart(name, parameter.default):
            yield {name: another(name, parameter.default, case)}
