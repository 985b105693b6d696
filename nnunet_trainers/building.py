"""From a loss by name and the facts of a data set to the loss that is trained, and to its record."""

from __future__ import annotations

import importlib.metadata
import json
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch

from monai_segloss.config import LossConfig
from monai_segloss.core.module import READING, SegLoss
from monai_segloss.core.registry import LossInfo, find

if TYPE_CHECKING:
    from nnunetv2.utilities.label_handling.label_handling import LabelManager
    from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager

PACKAGES = ("monai-segloss", "nnunetv2", "torch")
TRIAL_EDGE = 8


@dataclass(frozen=True)
class DatasetProperties:
    """What plan and data set say about a training.

    Args:
        regions: overlapping regions with a sigmoid; otherwise labels with a softmax.
        ignore_label: label of the voxels that must not count, or None.
        batch_dice: whether the plan wants overlap scores over the whole batch.
        dimensions: 2 or 3.
        soft_labels: the target holds a fraction of each class or region.
    """

    regions: bool = False
    ignore_label: int | None = None
    batch_dice: bool = False
    dimensions: int = 3
    soft_labels: bool = False

    @property
    def ignores_by_channel(self) -> bool:
        """Whether the last channel of the target marks what to ignore, as nnU-Net has it for regions."""
        return self.regions and self.ignore_label is not None


def properties(
    labels: LabelManager, configuration: ConfigurationManager, soft_labels: bool = False
) -> DatasetProperties:
    """The facts of a training, out of nnU-Net's managers."""
    dimensions, batch_dice = len(configuration.patch_size), bool(configuration.batch_dice)
    return DatasetProperties(bool(labels.has_regions), labels.ignore_label, batch_dice, dimensions, soft_labels)


def create_loss(config: LossConfig, data: DatasetProperties) -> SegLoss:
    """The loss of a configuration for a data set; a mask for regions and soft labels comes with the call."""
    reading: dict[str, Any] = {"sigmoid": True} if data.regions else {"softmax": True}
    if not data.regions and not data.soft_labels:
        reading |= {"to_onehot_y": True, "ignore_index": data.ignore_label}
    return resolve(config, data).build(**reading)


def resolve(config: LossConfig, data: DatasetProperties) -> LossConfig:
    """The configuration with what the data set and the card add; what it says itself stands."""
    asked = {"regions": data.regions, "batch_dice": data.batch_dice, "soft_labels": data.soft_labels}
    if config.loss is not None:
        return LossConfig(loss=config.loss, arguments=find(config.loss).recommend(config.arguments, **asked))
    terms = {name: _info(name, term).recommend(term, **asked) for name, term in config.terms.items()}
    return LossConfig.model_validate({"terms": terms, "balance": config.balance})


def refuse_unsupported(config: LossConfig, data: DatasetProperties) -> None:
    """Raise NotImplementedError where a loss cannot do what the data set asks for."""
    asked = ["regions" if data.regions else "labels", f"{data.dimensions}-D"]
    asked += [] if data.ignore_label is None else ["ignore"]
    for info in _every_info(config):
        if data.soft_labels and "soft labels" not in info.support:
            raise NotImplementedError(
                f"loss {info.key!r} does not support soft labels: leave softlabels out of the name of the trainer and "
                "soft_labels out of the plans, or take another loss"
            )
        missing = [what for what in asked if what not in info.support]
        if missing:
            raise NotImplementedError(
                f"loss {info.key!r} does not support {' and '.join(missing)}, as this data set has it"
            )


def refuse(config: LossConfig, data: DatasetProperties, classes: int, device: torch.device) -> None:
    """Refuse before any work what the loss cannot do, and arguments for another number of classes: call it on a few voxels.

    Raises:
        NotImplementedError: see `refuse_unsupported`.
        ValueError: what the loss says, for example of a list of class weights that is too long.
    """
    refuse_unsupported(config, data)
    logits = torch.zeros((1, classes, *[TRIAL_EDGE] * data.dimensions), device=device)
    if data.soft_labels:
        target = torch.full_like(logits, 1 / classes)
    else:
        target = torch.zeros_like(logits if data.regions else logits[:, :1], dtype=torch.int16)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        loss = create_loss(config, data).to(device)
        image = {"image": logits[:, :1]} if "image" in loss.taps else {}
        loss(logits, target, mask=None, spacing=(1.0,) * data.dimensions, full_resolution=not loss.brings, **image)


def record(config: LossConfig, data: DatasetProperties) -> dict[str, Any]:
    """The loss with every argument, defaults included, and how it reads the data set, as plain JSON."""
    full = resolve(config, data)
    one = full.loss is not None
    loss: dict[str, Any] = (
        {"loss": find(str(full.loss)).key, "arguments": full.arguments} if one else {"terms": full.terms}
    )
    loss |= {} if full.balance is None else {"balance": full.balance}
    facts = asdict(data)
    del facts["soft_labels"]  # the trainer records which ones
    return with_defaults({**loss, "data": facts})


def with_defaults(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record with today's defaults for the arguments that it lacks, as one of an earlier version does, as plain JSON."""
    if "loss" in record:
        return plain({**record, "arguments": {**_defaults(find(record["loss"])), **record["arguments"]}})
    terms = record["terms"].items()
    return plain({**record, "terms": {name: {**_defaults(_info(name, term)), **term} for name, term in terms}})


def plain(value: Mapping[str, Any]) -> dict[str, Any]:
    """A value as plain JSON types; tensors and arrays become lists, what JSON lacks becomes text."""
    found: dict[str, Any] = json.loads(
        json.dumps(value, default=lambda x: x.tolist() if hasattr(x, "tolist") else str(x))
    )
    return found


def versions() -> dict[str, str]:
    """Versions of the packages that decide about the result."""
    return {name: importlib.metadata.version(name) for name in PACKAGES}


def _every_info(config: LossConfig) -> Iterator[LossInfo]:
    """The entries of a loss, of its terms, and of the losses that these are built on."""
    for name, term in (config.terms or {str(config.loss): config.arguments}).items():
        info = _info(name, term)
        yield info
        base = term.get("base", info.parameters["base"].default) if "base" in info.parameters else None
        if base:  # {}: none
            content = {"loss": base} if isinstance(base, str) else {"terms": base}
            yield from _every_info(LossConfig.model_validate(content))


def _info(name: str, term: Mapping[str, Any]) -> LossInfo:
    return find(term.get("loss", name))


def _defaults(info: LossInfo) -> dict[str, Any]:
    return {name: parameter.default for name, parameter in info.parameters.items() if name not in READING}
