"""Weights of terms that change with the epoch, counted from 0."""

from monai_segloss.schedules.base import SCHEDULES, Means, Schedule, TermWeight, schedule
from monai_segloss.schedules.ramps import Constant, Cosine, Geometric, Increase, Linear, Rebalance, WarmUp
from monai_segloss.schedules.relative import Pause, Ratio, Rest

__all__ = [
    "SCHEDULES",
    "Constant",
    "Cosine",
    "Geometric",
    "Increase",
    "Linear",
    "Means",
    "Pause",
    "Ratio",
    "Rebalance",
    "Rest",
    "Schedule",
    "TermWeight",
    "WarmUp",
    "schedule",
]
