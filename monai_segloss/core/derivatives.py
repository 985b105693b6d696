"""Derivatives of operations that have their own: once more, or refused; and what `torch.func` cannot do with a loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def pulled(definition: Callable[..., Tensor], grad: Tensor, *at: Tensor) -> tuple[Tensor, ...]:
    """The gradient in each of ``at`` with a graph, where ``definition(*at)`` has the gradient ``grad``."""
    pull: Any = torch.func.vjp(definition, *at)[1]
    found: tuple[Tensor, ...] = pull(grad)
    return found


def under_vmap() -> bool:
    """Whether `torch.vmap` runs, also as part of another transform: then a tensor has no single value."""
    functorch = torch._C._functorch
    if torch.compiler.is_compiling() or functorch.peek_interpreter_stack() is None:
        return False
    return any(each.key() == functorch.TransformType.Vmap for each in functorch.get_interpreter_stack() or ())


def under_transform() -> bool:
    """Whether a transform of `torch.func` runs, whose tensors must not be kept."""
    return not torch.compiler.is_compiling() and torch._C._functorch.peek_interpreter_stack() is not None


def refuse_vmap() -> None:
    """A loss looks at values before it computes.

    Raises:
        RuntimeError: inside of `torch.vmap`.
    """
    if under_vmap():
        raise RuntimeError(
            "vmap cannot map a loss, which looks at the values of its target: call it with the whole batch and "
            "reduction='none', or in a loop over samples."
        )


def no_second_derivative(x: Tensor, name: str) -> Tensor:
    """``x``, of which the loss ``name`` has a first derivative only: a second one is refused, never taken for 0.

    Example:
        >>> import torch
        >>> from monai_segloss.core.derivatives import no_second_derivative
        >>> x = torch.tensor(3.0, requires_grad=True)
        >>> (slope,) = torch.autograd.grad(no_second_derivative(x, "square") ** 2, x, create_graph=True)
        >>> slope.item()
        6.0
        >>> torch.autograd.grad(slope, x)
        Traceback (most recent call last):
        RuntimeError: square has no second derivative: parts of its gradient are computed without a graph.
    """
    if torch.compiler.is_compiling() or not torch.is_grad_enabled():
        return x
    found: Tensor = _OnceDifferentiable.apply(x, name)
    return found


class _OnceDifferentiable(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, name: str) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, str], output: Tensor) -> None:
        ctx.save_for_backward(inputs[0])
        ctx.name = inputs[1]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return (
            _NoSecondDerivative.apply(grad, ctx.saved_tensors[0], ctx.name) if torch.is_grad_enabled() else grad
        ), None


class _NoSecondDerivative(torch.autograd.Function):
    """The gradient as it is, which depends on ``x`` in a way that nobody knows."""

    generate_vmap_rule = True

    @staticmethod
    def forward(grad: Tensor, x: Tensor, name: str) -> Tensor:
        return grad.view_as(grad)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, str], output: Tensor) -> None:
        ctx.name = inputs[2]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        raise RuntimeError(f"{ctx.name} has no second derivative: parts of its gradient are computed without a graph.")
