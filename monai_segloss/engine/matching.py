"""One loss, as written for labels, on whatever targets a data set has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from monai_segloss import list_losses
from monai_segloss.core.module import SegLoss
from monai_segloss.core.registry import LossInfo, find
from monai_segloss.datalist import Labels
from monai_segloss.engine.deep_supervision import DeepSupervision
from monai_segloss.losses import WeightedSum

OF_LABELS = ("softmax", "use_softmax", "to_onehot_y")
"""Arguments that mean one class per voxel, here and in MONAI."""


def match_targets(loss: Any, labels: Labels) -> Any:
    """The loss for the labels of a data set; for regions it reads one sigmoid per channel and scores every channel.

    A configuration thus names one loss for both: where every voxel has one class the loss stays as it is, and so it does
    where it reads regions already.  Ignored voxels need no setting, they come as a mask.

    Args:
        loss: a loss of this package, a `DeepSupervision` of one, or another callable.
        labels: of the data set.

    Raises:
        ValueError: regions or ignored voxels, and a loss that does not know them.

    Example:
        >>> from monai_segloss import DiceLoss
        >>> from monai_segloss.datalist import Labels
        >>> regions = Labels(("whole", "core"), regions=((1, 2), (2,)), order=(1, 2))
        >>> match_targets(DiceLoss(softmax=True, to_onehot_y=True, include_background=False), regions)
        DiceLoss(include_background=True, sigmoid=True)
    """
    if isinstance(loss, DeepSupervision):
        return DeepSupervision(match_targets(loss.loss, labels), loss.weights)
    asked = (["regions"] if labels.regions else []) + ([] if labels.ignore is None else ["ignore"])
    for info in _infos(loss):
        missing = [what for what in asked if what not in info.support]
        if missing:
            raise ValueError(f"loss: {info.key!r} does not support {' and '.join(missing)}, as dataset.json has it.")
    if not labels.regions:
        return _refuse_mask(loss, labels)
    if not isinstance(loss, SegLoss) or not _infos(loss):
        return _refuse_labels(_refuse_mask(loss, labels))
    return type(loss)(**_of_regions(loss))


def _infos(loss: Any) -> list[LossInfo]:
    own = [info for info in list_losses() if info.cls is type(loss)]
    if own or not isinstance(loss, WeightedSum):
        return own
    return [info for term in loss.terms.values() for info in _infos(term)]


def _of_regions(loss: SegLoss) -> dict[str, Any]:
    arguments = {name: value for name, value in loss.arguments.items() if name not in OF_LABELS}
    if arguments.get("other_act") is None:
        arguments["sigmoid"] = True
    if "terms" in arguments:  # a sum without a class of its own
        arguments["terms"] = {name: _term(name, value) for name, value in arguments["terms"].items()}
        takes = any("include_background" in info.parameters for info in _infos(loss))
    else:
        takes = "include_background" in _infos(loss)[0].parameters
    return {**arguments, "include_background": True} if takes else arguments


def _term(name: str, value: Any) -> Any:
    if not isinstance(value, Mapping) or "schedule" in value:
        return value
    known = find(str(value.get("loss", name))).parameters
    kept = {argument: each for argument, each in value.items() if argument not in OF_LABELS}
    return {**kept, **({"include_background": True} if "include_background" in known else {})}


def _refuse_mask(loss: Any, labels: Labels) -> Any:
    if labels.ignore is not None and not isinstance(loss, SegLoss):
        raise ValueError(f"loss: {type(loss).__name__} takes no mask, and dataset.json has an ignore label.")
    return loss


def _refuse_labels(loss: Any) -> Any:
    wrong = [f"{name}=True" for name in OF_LABELS if getattr(loss, name, False) is True]
    wrong += ["include_background=False"] if getattr(loss, "include_background", True) is False else []
    if wrong:
        raise ValueError(
            f"loss: {type(loss).__name__} has {' and '.join(wrong)}, but dataset.json has regions: one channel per region, "
            "each with a sigmoid."
        )
    return loss
