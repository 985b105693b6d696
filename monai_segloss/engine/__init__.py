"""MONAI's supervised trainer for losses that need more than a label, and what belongs to it."""

from monai_segloss.engine.checkpoint import ResumableCheckpoint
from monai_segloss.engine.deep_supervision import DeepSupervision
from monai_segloss.engine.trainer import SegLossTrainer

__all__ = ["DeepSupervision", "ResumableCheckpoint", "SegLossTrainer"]
