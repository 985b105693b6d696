"""Whole cases for a loss that has no meaning on patches: a plan must have them, and augmentation leaves them alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import nn

from monai_segloss.core.whole_cases import PatchError, refuse_patches, wants_no_mirroring, wants_whole_cases
from monai_segloss.losses.shape.bounds import CaseBounds
from nnunet_trainers.plans import downsampling


class WholeCases(nnUNetTrainer):
    """nnU-Net's trainer; where the loss is about whole cases, these are trained as they lie."""

    def refuse_patches(self, loss: nn.Module) -> None:
        """Refuse a plan whose patches are smaller than a case of the fold, for a loss that wants whole cases.

        Raises:
            PatchError: they are, or nnU-Net centers them on annotated voxels.
        """
        if not wants_whole_cases(loss):
            return
        if self.label_manager.has_ignore_label:
            raise PatchError(
                "the loss is about whole cases, and with an ignore label nnU-Net centers patches on annotated voxels, so "
                "that they cut the cases: say on_patches=true among its arguments to train on patches all the same."
            )
        folder, split = self.preprocessed_dataset_folder, self.do_split()
        data = infer_dataset_class(folder)(folder, sorted({str(case) for part in split for case in part}))
        shapes = [data.load_case(case)[1].shape[1:] for case in data.identifiers]
        largest = [max(edges) for edges in zip(*shapes, strict=True)]
        refuse_patches(loss, self.configuration_manager.patch_size, largest, _how(self, largest))

    def case_bounds(self) -> CaseBounds | None:
        """The bounds of each case, where the loss was given a file that has them; after ``initialize`` made the loss.

        Raises:
            ValueError: the file lacks a case of the data set.
        """
        found = CaseBounds.of(self.loss)
        if found is not None:
            found.refuse_unknown(sorted({str(case) for part in self.do_split() for case in part}))
        return found

    def configure_rotation_dummyDA_mirroring_and_inital_patch_size(self) -> Any:  # noqa: N802
        """nnU-Net's own; for whole cases no rotation, no patch around a class, and mirroring where the loss bears it."""
        found = super().configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        if self.loss is None or not wants_whole_cases(self.loss):
            return found
        _, flat, _, mirror = found
        self.oversample_foreground_percent = 0.0
        self.inference_allowed_mirroring_axes = None if wants_no_mirroring(self.loss) else mirror
        self.print_to_log_file("segloss: whole cases, so no rotation, no scaling and no oversampling of the foreground")
        return (0.0, 0.0), flat, list(self.configuration_manager.patch_size), self.inference_allowed_mirroring_axes

    def get_training_transforms(self, *arguments: Any, **options: Any) -> Any:
        """nnU-Net's augmentation; of whole cases none that scales or rotates."""
        transforms = super().get_training_transforms(*arguments, **options)
        for each in transforms.transforms if wants_whole_cases(self.loss) else ():
            if isinstance(each, SpatialTransform):
                each.p_scaling = each.p_rotation = 0
        return transforms


def _how(trainer: nnUNetTrainer, largest: Sequence[int]) -> str:
    patch = trainer.configuration_manager.patch_size
    name = trainer.configuration_name
    if len(patch) < len(largest):
        return f"train a 3-D configuration instead of {name!r}"
    steps = downsampling(trainer.configuration_manager.network_arch_init_kwargs.get("strides") or (), len(patch))
    wanted = [-(-n // step) * step for n, step in zip(largest, steps, strict=True)]
    size = ",".join(map(str, wanted))
    return f"add a configuration with `segloss nnunet plan DATASET {name} NAME --patch-size {size} --batch-size N ...`"
