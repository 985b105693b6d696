"""What reaches a loss alongside the target of a batch: maps of the workers, soft labels, facts of its cases."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from monai_segloss.core.errors import LossShapeError
from monai_segloss.losses.shape.bounds import CaseBounds
from nnunet_trainers import maps, network, partial_labels, soft_labels

if TYPE_CHECKING:
    from nnunet_trainers.base import SegLossTrainer

HAND_OVER = (
    "a train_step or loop of your own begins with `batch = trainer.hand_over(batch)`, see 'A training step of your own' in "
    "docs/how-to/nnunet.md"
)


@dataclass(frozen=True)
class ExtraInputs:
    """Where it comes from; nothing for most losses.

    Args:
        layout: of the maps that the workers pack after the target.
        labeled: classes that each case has labels of.
        soft: the preprocessed soft labels.
        bounds: of each case.
    """

    layout: maps.Layout | None = None
    labeled: partial_labels.LabeledClasses | None = None
    soft: soft_labels.Source | None = None
    bounds: CaseBounds | None = None

    @classmethod
    def of(cls, trainer: SegLossTrainer) -> ExtraInputs:
        """Those of a trainer and its loss; a note in its log where there is something to say."""
        cases = trainer.dataset_class.get_identifiers(trainer.preprocessed_dataset_folder)
        folders, takes = partial_labels.places(trainer), "labeled" in trainer.loss.accepts
        labeled, note = partial_labels.look_up(folders, trainer.dataset_json["labels"], cases, takes)
        soft = soft_labels.Source.of(trainer) if trainer.properties.soft_labels else None
        if note:
            trainer.print_to_log_file(note)
        if soft is not None:
            trainer.print_to_log_file(f"soft labels of {len(cases)} cases: {soft.folder}")
        return cls(_layout(trainer), labeled, soft, trainer.case_bounds())

    def datasets(self, found: tuple[Any, Any]) -> tuple[Any, Any]:
        """nnU-Net's data sets, whose images carry the soft labels if there are any."""
        if self.soft is None:
            return found
        training, validation = (soft_labels.SoftLabelDataset(each, self.soft) for each in found)
        return training, validation

    def insert(self, transforms: Any) -> Any:
        """nnU-Net's transforms, with the packing of the maps if there are any."""
        return transforms if self.layout is None else maps.insert(transforms, self.layout)

    def split(self, batch: dict[str, Any], device: torch.device) -> tuple[dict[str, Any], list[Mapping[str, Tensor]]]:
        """The batch as nnU-Net knows it, and what belongs to it alongside the target, by scale, on the device."""
        targets = batch["target"]
        scales: list[dict[str, Tensor]] = [{} for _ in targets] if isinstance(targets, list) else [{}]
        if self.layout is not None:
            batch, scales = maps.split_batch(batch, self.layout, device)
        for name, facts in self._facts.items():
            rows = facts.rows(list(batch["keys"]))
            scales = [{**scale, name: rows} for scale in scales]
        return batch, [{name: each.to(device, non_blocking=True) for name, each in scale.items()} for scale in scales]

    def refuse_unsplit(self, target: Tensor) -> None:
        """Raise LossShapeError where a batch comes to the loss without `split`, whose parts it then lacks.

        Args:
            target: of the highest resolution; one without packed maps is no fault, since the loss makes its own.
        """
        if self.layout is not None and target.shape[1] == sum(self.layout.packed_channels):
            channels = self.layout.target_channels
            raise LossShapeError(
                f"target has {target.shape[1]} channels, expected {channels}: the augmentation workers packed "
                f"{self.layout.names} after it; {HAND_OVER}"
            )
        if self.soft is not None:
            raise LossShapeError(f"the soft labels of this batch are missing; {HAND_OVER}")
        if self.labeled is not None:
            raise LossShapeError(f"the labeled classes of this batch ({self.labeled.path}) are missing; {HAND_OVER}")
        if self.bounds is not None:
            raise LossShapeError(f"the bounds of the cases of this batch are missing; {HAND_OVER}")

    @property
    def _facts(self) -> dict[str, partial_labels.LabeledClasses | CaseBounds]:
        known = {"labeled": self.labeled, "bounds": self.bounds}
        return {name: facts for name, facts in known.items() if facts is not None}


def _layout(trainer: SegLossTrainer) -> maps.Layout | None:
    wanted, data = maps.worker_maps(trainer.loss.needs), trainer.properties
    if not wanted and not data.soft_labels:
        return None
    classes = trainer.label_manager.num_segmentation_heads - (not data.regions)
    spacing = tuple(map(float, trainer.configuration_manager.spacing))
    channels = network.image_channels(trainer)
    return maps.Layout(wanted, classes, data.regions, data.ignores_by_channel, spacing, data.soft_labels, channels)
