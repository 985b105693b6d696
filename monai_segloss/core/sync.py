"""Sums over the processes of a DistributedDataParallel run, with the gradient that goes with them."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


class _AllReduceSum(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor) -> Tensor:
        x = x.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(x, op=dist.ReduceOp.SUM)
        return x

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        grad = grad.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(grad, op=dist.ReduceOp.SUM)
        return grad


def is_distributed() -> bool:
    """Whether a process group of more than one process runs."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def sum_over_processes(x: Tensor) -> Tensor:
    """The sum of ``x`` over all processes, the same on each; ``x`` itself where there is only one.

    The backward pass sums the gradients of all processes too: every process computes the same loss from the summed
    statistics, DistributedDataParallel then averages, and the result is the gradient of the loss of the whole batch.
    """
    return _AllReduceSum.apply(x) if is_distributed() else x


def average_over_processes(x: Tensor) -> Tensor:
    """The mean of ``x`` over all processes, without a gradient of its own."""
    if not is_distributed():
        return x
    mean = x.detach().clone(memory_format=torch.contiguous_format)
    dist.all_reduce(mean, op=dist.ReduceOp.SUM)
    return mean / dist.get_world_size()


def broadcast(x: Tensor) -> None:
    """Give ``x`` in place the values that it has in the first process."""
    if is_distributed():
        dist.broadcast(x, src=0)
