"""Every loss on a device without float64, such as MPS, in an emulation on the CPU."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

import monai_segloss
from monai_segloss.core import counts, exact
from monai_segloss.core.registry import LossInfo
from monai_segloss.testing import cases
from monai_segloss.testing.harness import assert_close, fresh, make, supported

LOSSES = monai_segloss.list_losses()


class NoFloat64(TorchFunctionMode):
    """Refuses float64 as MPS does.

    What is float64 stands for a tensor on the host: it comes from numbers, from a factory without the device of a tensor,
    or through `exact.exact`, goes back through a conversion, and meets no other floating-point tensor with axes.
    """

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        found = function(*args, **kwargs)
        given = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        made = [x for x in tree_leaves(found) if isinstance(x, Tensor) and x.dtype == torch.float64]
        host = any(x.dtype == torch.float64 for x in given)
        elsewhere = isinstance(kwargs.get("device"), torch.device)
        if made and not host and not self.moving and (given or elsewhere):
            raise TypeError(
                "Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64."
            )
        floating = [x for x in given if x.is_floating_point() and x.ndim]
        if made and len({x.dtype for x in floating}) > 1 and function is not Tensor.to:
            raise RuntimeError(f"{function}: expected all tensors to be on the same device.")
        return found

    moving = False


@contextmanager
def without_float64(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    mode = NoFloat64()

    def exactly(x: Tensor) -> Tensor:
        mode.moving = True
        try:
            return x.to(torch.float64)
        finally:
            mode.moving = False

    monkeypatch.setattr(exact, "WITHOUT_FLOAT64", {"cpu"})
    original = exact.exact
    for name, module in list(sys.modules.items()):
        if name.startswith("monai_segloss.") and getattr(module, "exact", None) is original:
            monkeypatch.setattr(module, "exact", exactly)
    monkeypatch.setattr(counts, "BACKENDS", {})
    with mode:
        yield


def inputs(info: LossInfo) -> list[cases.Case]:
    names = ("labels_3d", "five_classes", "regions", "ignored", "regions_masked", "soft_labels")
    found = supported(info, *names)
    return [cases.replace(case, input=case.input.float()) for case in found]


@pytest.mark.parametrize("info", LOSSES, ids=lambda info: info.key)
def test_value_and_gradient_without_float64(info: LossInfo, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = {"weight": lambda n: [1.0 + 0.5 * c for c in range(n)]} if "weight" in info.parameters else {}
    for case in inputs(info):
        kept = {name: given(case.classes) for name, given in weights.items()} if case.name == "labels_3d" else {}
        kept = {} if kept and "include_background" in info.parameters else kept
        expected = ran(make(info, case, **kept), case)
        with without_float64(monkeypatch):
            found = ran(make(info, case, **kept).float(), case)
        monkeypatch.undo()
        for one, other in zip(found, expected, strict=True):
            assert_close(one, other, case.name, rtol=2e-5, atol=1e-6)


def ran(loss: Any, case: cases.Case) -> tuple[Tensor, Tensor]:
    """Value and gradient."""
    leaf = case.input.detach().clone().requires_grad_()
    target = case.target.float() if case.target.dtype == torch.float64 else case.target
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        value = fresh(loss)(leaf, target, **case.call)
        value.sum().backward()
    assert leaf.grad is not None
    return value.detach(), leaf.grad


def test_the_emulation_refuses_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.ones(3)
    with without_float64(monkeypatch):
        for call in (x.double, lambda: x.sum(dtype=torch.float64), lambda: x.new_zeros(3, dtype=torch.float64)):
            with pytest.raises(TypeError, match="MPS"):
                call()
        with pytest.raises(TypeError, match="MPS"):
            torch.zeros(3, dtype=torch.float64, device=x.device)
        with pytest.raises(RuntimeError, match="same device"):
            torch.zeros(3, dtype=torch.float64) + x
