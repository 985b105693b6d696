"""What torch does to a function: its transforms, inference mode, compilation with graph breaks."""

from __future__ import annotations

import warnings
from dataclasses import replace

import torch
from torch import Tensor

from monai_segloss.core.registry import LossInfo
from monai_segloss.testing.cases import Case
from monai_segloss.testing.contract import on
from monai_segloss.testing.harness import assert_close, gradient, make, refused, value


@on("labels_2d", "ignored", "regions_masked", "ten_classes")
def functional_gradient(info: LossInfo, case: Case) -> None:
    """`torch.func.grad` and `torch.func.jacrev`, which maps over backward passes, give the gradient."""
    loss = make(info, case)
    _, expected = gradient(loss, case)
    for transform in (torch.func.grad, torch.func.jacrev):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "There is a performance drop")  # of torch, which maps over a loop
            found = transform(lambda z, loss=loss, case=case: value(loss, case, z).sum())(case.input)
        assert_close(found, expected, f"{transform.__name__}", rtol=1e-9, atol=1e-12)


@on("ignored_2d", "regions_masked", "soft_labels", "ten_classes")
def inference_tensors(info: LossInfo, case: Case) -> None:
    """Labels, masks and logits made under `torch.inference_mode` are read like others, there and in training."""
    expected, slope = gradient(make(info, case).eval(), case)
    with torch.inference_mode():
        made = replace(
            case,
            input=case.input.clone(),
            target=case.target.clone(),
            mask=None if case.mask is None else case.mask.clone(),
        )
        loss = make(info, case, **({"weight": 1.0} if "weight" in info.parameters else {})).eval()
        assert_close(value(loss, made), expected, "in inference mode", rtol=1e-12)
    found, other = gradient(loss, made, case.input)
    assert_close(found, expected, "labels of inference", rtol=1e-12)
    assert_close(other, slope, "gradient, labels of inference", rtol=1e-9, atol=1e-12)
    assert_close(value(loss, made), expected, "logits of inference", rtol=1e-12)


@on("labels_2d", "regions")
def vmap_is_refused(info: LossInfo, case: Case) -> None:
    """`torch.vmap` over samples, or over their gradients, is refused in a sentence."""
    loss = make(info, case)

    def one(z: Tensor, y: Tensor, loss=loss) -> Tensor:  # type: ignore[no-untyped-def]
        return loss(z[None], y[None]).sum()

    for f in (one, torch.func.grad(one)):
        refused((RuntimeError, "vmap cannot map a loss"), torch.vmap(f), case.input, case.target)


@on("ignored_2d", support="labels ignore 2-D", about=lambda info: "compiles" in info.exempt)
def compiles_in_parts(info: LossInfo, case: Case) -> None:
    """`torch.compile` that may break the graph: what cannot be in one graph still runs, with the same value and gradient."""
    loss = make(info, case)
    expected, slope = gradient(loss, case)
    torch.compiler.reset()
    with warnings.catch_warnings():  # of torch's own look at each tensor where a graph breaks
        warnings.filterwarnings("ignore", r"The \.grad attribute of a Tensor that is not a leaf")
        found, other = gradient(torch.compile(loss, backend="eager"), case)
    assert_close(found, expected, "compiled", rtol=1e-9)
    assert_close(other, slope, "gradient, compiled", rtol=1e-7, atol=1e-12)
