"""The CPU: its threads, and mixed precision there, the network in bfloat16 as in float16 on GPUs, the loss in float32."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

VARIABLE = "segloss_cpu_autocast"
DTYPES = {"": torch.float32, "float32": torch.float32, "bfloat16": torch.bfloat16}


def record(device: torch.device) -> dict[str, str]:
    """The number format of the network on the CPU, float32 unless the environment asks for another; elsewhere nnU-Net's.

    Raises:
        ValueError: autocast on the CPU does not know it.
    """
    if device.type != "cpu":
        return {}
    found = os.environ.get(VARIABLE, "")
    if found not in DTYPES:
        raise ValueError(f"environment variable {VARIABLE} is {found!r}; expected 'bfloat16', or nothing for float32")
    return {"autocast": found or "float32"}


def limit_threads(device: torch.device) -> None:
    """On the CPU as many threads as OMP_NUM_THREADS says, where nnU-Net would take all cores."""
    threads = os.environ.get("OMP_NUM_THREADS", "")
    if device.type == "cpu" and threads.isdecimal() and int(threads):
        torch.set_num_threads(int(threads))


def autocast(network: nn.Module, device: torch.device) -> None:
    """Let every call of the network run under autocast and return float32, weights and gradients staying as they are."""
    dtype = DTYPES[record(device).get("autocast", "")]
    if dtype != torch.float32:
        network.forward = functools.partial(_forward, network.forward, dtype)


def _forward(forward: Callable[..., Any], dtype: torch.dtype, *arguments: Any, **options: Any) -> Any:
    with torch.autocast("cpu", dtype):
        output = forward(*arguments, **options)
    return output.float() if isinstance(output, Tensor) else [each.float() for each in output]
