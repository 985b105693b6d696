"""MONAI's supervised trainer for losses that need more than a label, and what belongs to it."""

from monai_segloss.engine.checkpoint import ResumableCheckpoint
from monai_segloss.engine.deep_supervision import DeepSupervision
from monai_segloss.engine.errors import DataError, NotFiniteError
from monai_segloss.engine.matching import match_targets
from monai_segloss.engine.metrics import DicePerCase, HausdorffDistanceInMm, MetricsReport, SurfaceDiceInMm
from monai_segloss.engine.repeating import EarlyStop, EpochSeed
from monai_segloss.engine.settings import SettingError, check_keys, check_network, check_settings, explain_errors
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
    "SegLossTrainer",
    "SegmentationFromLogitsd",
    "SettingError",
    "SurfaceDiceInMm",
    "VolumeReader",
    "check_keys",
    "check_network",
    "check_settings",
    "explain_errors",
    "match_targets",
]
