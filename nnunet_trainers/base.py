"""The one generic trainer: nnU-Net's own with another loss, recorded settings, seeds and safe checkpoints."""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from batchgenerators.dataloading.nondet_multi_threaded_augmenter import NonDetMultiThreadedAugmenter
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
from torch import nn

from monai_segloss.config import LossConfig
from monai_segloss.core import seeding
from monai_segloss.core.hashing import weights_hash
from monai_segloss.core.registry import find
from monai_segloss.files import atomic, write_json
from monai_segloss.schedules.means import TermMeans
from nnunet_trainers import building, cascade, diverged, network, partial_labels, plans, precision, recording, resuming
from nnunet_trainers.deep_supervision import NnUNetLoss
from nnunet_trainers.extra_inputs import ExtraInputs
from nnunet_trainers.naming import TrainerName, numeric_parameters
from nnunet_trainers.soft_labels import Source
from nnunet_trainers.whole_cases import WholeCases

GPU = torch.device("cuda")
INITIALIZATION, EPOCHS, WORKERS = range(3)


class SegLossTrainer(WholeCases):
    """nnU-Net's trainer with the loss ``key`` of the registry; everything else is nnU-Net's.

    A subclass is a declaration: a docstring and the key. Settings that are numbers come with the name of the class as
    ``settings`` (see `nnunet_trainers.naming`), others from the plans (see ``nnUNetTrainerSegLoss``).

    Raises (in ``initialize``):
        NotImplementedError, ValueError: the loss cannot do what data set or plan ask for, or is for other ones.
        OtherConfigurationError: another fold of this model, or the plan, has another configuration.
    """

    key: ClassVar[str] = ""
    settings: ClassVar[TrainerName] = TrainerName("")

    # nnU-Net rebuilds a trainer from these argument names, so there can be no others.
    def __init__(
        self,
        plans: dict[str, Any],
        configuration: str,
        fold: int,
        dataset_json: dict[str, Any],
        device: torch.device = GPU,
    ) -> None:
        super().__init__(plans, configuration, fold, dataset_json, device)
        wanted = self.settings
        if wanted.lr is not None:
            self.initial_lr = wanted.lr
        if wanted.epochs is not None:
            self.num_epochs = wanted.epochs
        if wanted.iterations is not None:
            self.num_iterations_per_epoch = wanted.iterations
            self.num_val_iterations_per_epoch = max(1, wanted.iterations // 5)
        self.save_every = resuming.save_every(self.num_epochs)
        self.terms, self.opponents = TermMeans(), TermMeans()
        self.continued: list[dict[str, Any]] = []
        self.extra_inputs = ExtraInputs()

    # -- what is trained ----------------------------------------------------------------------------------------

    @classmethod
    def name_parameters(cls) -> dict[str, type[int] | type[float]]:
        """The arguments of the loss that the name of a trainer can set."""
        return numeric_parameters(find(cls.key).cls)

    @classmethod
    def named_loss(cls) -> LossConfig | None:
        """The loss that the name of this trainer stands for; None where the name does not say.

        Raises:
            ValueError: a value that the loss does not accept.
        """
        return LossConfig(loss=cls.key, arguments=dict(cls.settings.arguments))

    def loss_config(self) -> LossConfig:
        """The loss to train."""
        named = self.named_loss()
        assert named is not None
        return named

    def planned_loss(self) -> LossConfig | None:
        """The loss in the plans configuration, if there is one.

        Raises:
            ValueError: what stands there is no loss configuration.
        """
        return plans.planned(self.configuration_manager.configuration, self.configuration_name)[0]

    @property
    def properties(self) -> building.DatasetProperties:
        """What plan, data set and name say about this training."""
        asked = plans.planned(self.configuration_manager.configuration, self.configuration_name)[1]
        soft_labels = self.settings.soft_labels or asked
        return building.properties(self.label_manager, self.configuration_manager, soft_labels)

    def configuration_record(self) -> dict[str, Any]:
        """All settings of this trainer, defaults included, as plain JSON."""
        return {
            "trainer": type(self).__name__,
            **building.record(self.loss_config(), self.properties),
            "lr": self.initial_lr,
            **({"optimizer": self.settings.optimizer} if self.settings.optimizer else {}),
            "seed": self.settings.seed,
            "epochs": self.num_epochs,
            "iterations": self.num_iterations_per_epoch,
            **(precision.record(self.device) | self._input_record),
            **({recording.CONTINUED: self.continued} if self.continued else {}),
            "versions": building.versions(),
        }

    def initialize(self) -> None:
        """Build network, optimizer and loss as nnU-Net does, after everything that could be refused was."""
        building.refuse(self.loss_config(), self.properties, self.label_manager.num_segmentation_heads, self.device)
        self._refuse_other_loss_in_plans()
        self.refuse_patches(building.create_loss(self.loss_config(), self.properties))
        resuming.refuse_other_folds(self)
        cascade.refuse_missing_stage(self)
        if self.settings.seed is not None:
            seeding.seed_everything(self.settings.seed, INITIALIZATION)
        precision.limit_threads(self.device)
        super().initialize()
        precision.autocast(self.network, self.device)
        network.optimize(self, self.loss)
        self.print_to_log_file(f"segloss first weights: {weights_hash(self.network)}")
        self.extra_inputs = self.loss.source = ExtraInputs.of(self)
        self.print_to_log_file(f"segloss configuration: {json.dumps(self.configuration_record())}")

    def _build_loss(self) -> nn.Module:
        # Weights of a single scale are 0/0 there; our loss knows what to do then.
        with np.errstate(invalid="ignore"):
            theirs = super()._build_loss()
        loss = building.create_loss(self.loss_config(), self.properties).to(self.device)
        taps = network.prepare(self, loss)
        spacing, data = self.configuration_manager.spacing, self.properties
        more = (data.ignores_by_channel, taps, None if data.ignores_by_channel else data.ignore_label)
        if not isinstance(theirs, DeepSupervisionWrapper):
            return NnUNetLoss(loss, [spacing], None, *more)
        # A scale of 1/2 has voxels twice as large.
        scales = self._get_deep_supervision_scales()
        spacings = [[s / f for s, f in zip(spacing, scale, strict=True)] for scale in scales]
        return NnUNetLoss(loss, spacings, theirs.weight_factors, *more)

    def _do_i_compile(self) -> bool:
        return bool(super()._do_i_compile()) and not network.refuses_compilation(self)

    # -- what the loss takes alongside the target -----------------------------------------------------------------

    @cached_property
    def _input_record(self) -> dict[str, str]:  # as it was when the run began, whatever becomes of the files
        takes = "labeled" in getattr(building.create_loss(self.loss_config(), self.properties), "accepts", ())
        soft = {plans.SOFT_LABELS: Source.of(self).digest()} if self.properties.soft_labels else {}
        return (partial_labels.record(partial_labels.places(self)) if takes else {}) | soft

    def get_training_transforms(self, *arguments: Any, **options: Any) -> Any:
        """nnU-Net's augmentation; at its end the workers make the maps that the loss needs."""
        return self.extra_inputs.insert(super().get_training_transforms(*arguments, **options))

    def get_validation_transforms(self, *arguments: Any, **options: Any) -> Any:
        """The same for the online validation."""
        return self.extra_inputs.insert(super().get_validation_transforms(*arguments, **options))

    def hand_over(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Give the loss what belongs to this batch with the target, for its next call; the batch as nnU-Net knows it."""
        batch, self.loss.extra_inputs = network.with_image(self, *self.extra_inputs.split(batch, self.device))
        return batch

    # -- what is refused ----------------------------------------------------------------------------------------

    def _refuse_other_loss_in_plans(self) -> None:
        planned = self.planned_loss()
        if planned is not None:
            there, here = (building.record(each, self.properties) for each in (planned, self.loss_config()))
            recording.refuse_other(there, here, f"the plan of {self.configuration_name!r}")

    def get_tr_and_val_datasets(self) -> tuple[Any, Any]:
        """nnU-Net's data sets, with soft labels if asked for; in a cascade the first stage has predicted all their cases."""
        found = super().get_tr_and_val_datasets()
        cascade.refuse_missing_stage(self, [case for each in found for case in each.identifiers])
        return self.extra_inputs.datasets(found)

    # -- seeds --------------------------------------------------------------------------------------------------

    def get_dataloaders(self) -> tuple[Any, Any]:
        """nnU-Net's loaders; with a seed their workers are started again with seeds of their own."""
        loaders = super().get_dataloaders()
        if self.settings.seed is not None:
            for number, loader in enumerate(loaders):
                if isinstance(loader, NonDetMultiThreadedAugmenter):
                    purpose = (WORKERS, number, self.local_rank, self.current_epoch)
                    loader._finish()
                    loader.seeds = seeding.derive(self.settings.seed, *purpose, count=loader.num_processes)
                    next(loader)
        return loaders

    def on_epoch_start(self) -> None:
        """Seed each epoch by itself, so that a resumed run continues as if it had never stopped."""
        if self.settings.seed is not None:
            seeding.seed_everything(self.settings.seed, EPOCHS, self.current_epoch, self.local_rank)
        super().on_epoch_start()

    def on_train_epoch_start(self) -> None:
        """Tell the loss the epoch."""
        super().on_train_epoch_start()
        self.loss.set_epoch(self.current_epoch)

    def train_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        """nnU-Net's step, with the maps of the batch for the loss and its terms for the log; then that of its opponents."""
        result = super().train_step(self.hand_over(batch))
        self.opponents.add(diverged.guarded(self, self.loss.loss.update))
        self.terms.add(self.loss.last)
        return result

    def validation_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        """nnU-Net's step, with the maps of the batch for the loss."""
        return super().validation_step(self.hand_over(batch))

    def on_train_epoch_end(self, train_outputs: list[dict[str, Any]]) -> None:
        """Log mean (at full resolution) and weight of each term, and the opponents' own losses, also to other loggers.

        Raises:
            DivergedError: loss or network are no longer finite, in all processes.
        """
        super().on_train_epoch_end(train_outputs)
        means = self.terms.take()
        logged = {"terms": means, "weights": self.loss.term_weights, "opponents": self.opponents.take()}
        for key, values in {f"train_loss_{name}": values for name, values in logged.items()}.items():
            if values:
                self.print_to_log_file(key, {name: round(value, 4) for name, value in values.items()})
            for logger in self.logger.loggers:
                for name, value in values.items():
                    logger.log(f"{key}/{name}", value, self.current_epoch)
        diverged.refuse(self, [each["loss"] for each in train_outputs], means)
        self.loss.end_epoch(means)

    # -- what is kept ---------------------------------------------------------------------------------------------

    def on_train_start(self) -> None:
        """Begin as nnU-Net does, without what a killed process left half-written."""
        if self.local_rank == 0:
            for left in Path(self.output_folder).glob("*.tmp"):
                left.unlink()
        super().on_train_start()

    def _save_debug_information(self) -> None:
        super()._save_debug_information()
        # Weights & Biases takes no other value for a key that a resumed run has.
        since = f"_from_epoch_{self.current_epoch}" if self.current_epoch else ""
        self.logger.update_config({recording.KEY + since: self.configuration_record()})
        if self.local_rank == 0:
            path = Path(self.output_folder) / "debug.json"
            content = json.loads(path.read_text(encoding="utf-8"))
            write_json(path, {**content, recording.KEY: self.configuration_record()}, indent=4)  # as nnU-Net writes it

    def save_checkpoint(self, filename: str) -> None:
        """Write nnU-Net's checkpoint, with our configuration and the state of the loss, under its name at the end."""
        if self.local_rank != 0 or self.disable_checkpointing:
            super().save_checkpoint(filename)
            return
        with atomic(Path(filename)) as part:
            super().save_checkpoint(str(part))
            checkpoint = torch.load(part, map_location="cpu", weights_only=False)
            state = {"configuration": self.configuration_record(), "loss_state": self.loss.state_dict()}
            torch.save({**checkpoint, recording.KEY: state}, part)

    def load_checkpoint(self, filename_or_checkpoint: str) -> None:
        """Load a checkpoint of this very configuration, the state of the loss included."""
        if not self.was_initialized:
            self.initialize()
        ours = resuming.read_checkpoint(filename_or_checkpoint)
        self.continued = resuming.history(self, ours, filename_or_checkpoint)
        super().load_checkpoint(filename_or_checkpoint)
        self.loss.load_state_dict(ours["loss_state"])
