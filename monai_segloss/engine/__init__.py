"""MONAI's supervised trainer for losses that need more than a label, and what belongs to it."""

from typing import Any

from monai_segloss.core.errors import renamed
from monai_segloss.engine.around import parameters, prepared
from monai_segloss.engine.checkpoint import ResumableCheckpoint
from monai_segloss.engine.deep_supervision import DeepSupervision
from monai_segloss.engine.errors import DataError, NotFiniteError
from monai_segloss.engine.matching import match_targets
from monai_segloss.engine.metrics import DicePerCase, HausdorffDistanceInMm, MetricsReport, SurfaceDiceInMm
from monai_segloss.engine.priors import DatalistPrior
from monai_segloss.engine.probabilities import SaveProbabilitiesd
from monai_segloss.engine.recording import TrainingRecord
from monai_segloss.engine.repeating import EarlyStop, EpochSeed
from monai_segloss.engine.spacing import KnownSpacing
from monai_segloss.engine.targets import (
    CheckedLabeld,
    CheckedOutputd,
    LossMapsd,
    RegionChannelsd,
    SegmentationFromLogitsd,
)
from monai_segloss.engine.trainer import SegLossTrainer
from monai_segloss.engine.volumes import LoadVolumed, VolumeReader

__all__ = [
    "CheckedLabeld",
    "CheckedOutputd",
    "DataError",
    "DatalistPrior",
    "DeepSupervision",
    "DicePerCase",
    "EarlyStop",
    "EpochSeed",
    "HausdorffDistanceInMm",
    "KnownSpacing",
    "LoadVolumed",
    "LossMapsd",
    "MetricsReport",
    "NotFiniteError",
    "RegionChannelsd",
    "ResumableCheckpoint",
    "SaveProbabilitiesd",
    "SegLossTrainer",
    "SegmentationFromLogitsd",
    "SurfaceDiceInMm",
    "TrainingRecord",
    "VolumeReader",
    "match_targets",
    "parameters",
    "prepared",
]

MOVED = ("SettingError", "check_keys", "check_network", "check_settings", "explain_errors")
"""What stands in `monai_segloss.bundle.settings`; configurations have it under its old name."""


def __getattr__(name: str) -> Any:
    if name not in MOVED:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from monai_segloss.bundle import settings

    renamed(f"{__name__}.{name}", f"{settings.__name__}.{name}")
    return getattr(settings, name)
