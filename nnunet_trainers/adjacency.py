"""Contacts of classes in the preprocessed labels of the training cases of a fold."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from monai_segloss.core.prior import PriorError
from monai_segloss.prior.adjacency import Adjacency, count_contacts
from nnunet_trainers.prior import Planned, labels


def adjacency_for_plans(
    plans: Path, configuration: str, fold: str, radius: int, say: Callable[[str], None] = print
) -> Adjacency:
    """Count contacts for a fold, as ``segloss prior adjacency`` does; the data set lies alongside its plans.

    Voxels have the spacing of the configuration, and contacts in slices count where its patches are slices.

    Raises:
        PriorError: the data set has regions or no such fold; there are no cases.
    """
    trainer = Planned(plans, configuration, fold if fold == "all" else int(fold), torch.device("cpu"))
    manager = trainer.label_manager
    if manager.has_regions:
        raise PriorError("adjacency is of one class per voxel, and this data set has regions, which overlap.")
    names = {label: name for name, label in trainer.dataset_json["labels"].items()}
    return count_contacts(
        labels(trainer),
        [str(names[label]) for label in manager.all_labels],
        radius,
        len(trainer.configuration_manager.patch_size),
        say,
    )
