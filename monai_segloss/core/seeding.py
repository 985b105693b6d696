"""Seeds for every random generator that a training uses."""

from __future__ import annotations

import random

import numpy as np
import torch


def derive(seed: int, *purpose: int, count: int = 1) -> list[int]:
    """``count`` independent 32-bit seeds for a purpose, such as an epoch and a process."""
    return [int(each) for each in np.random.SeedSequence((seed, *purpose)).generate_state(count)]


def seed_everything(seed: int, *purpose: int) -> None:
    """Seed Python, NumPy and torch (all devices) for a purpose."""
    first, second, third = derive(seed, *purpose, count=3)
    random.seed(first)
    np.random.seed(second)
    torch.manual_seed(third)
