"""Tasks alongside the segmentation: a head, a target made of the labels or the image, and a distance between the two."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from monai_segloss.core.batch import ClassView, SegBatch
from monai_segloss.core.check import non_negative, one_of
from monai_segloss.core.counts import mask_logits
from monai_segloss.core.errors import LossShapeError, nearest
from monai_segloss.core.exempt import Exempt
from monai_segloss.core.maps import MapSpec, scored_map
from monai_segloss.core.module import FormulaArgs
from monai_segloss.core.reduce import Unreduced
from monai_segloss.core.taps import NetworkShape
from monai_segloss.losses.boundary.distances import signed_distance, target_field
from monai_segloss.losses.compound.balance import BalanceConfig
from monai_segloss.losses.learned.guided import Base, Guided
from monai_segloss.losses.learned.heads import HEADS, head
from monai_segloss.maps.contour import contour_map
from monai_segloss.maps.distance import SIDES, normalized
from monai_segloss.maps.skeleton import skeleton_map
from monai_segloss.schedules import TermWeight
from monai_segloss.schedules.base import whole

TARGETS = ("contour", "distance", "signed_distance", "skeleton", "reconstruction")
LOSSES = ("cross_entropy", "square", "absolute")
KINDS = {"cross_entropy": "classification", "square": "regression", "absolute": "laplace"}
"""What the loss of a task is for `UncertaintyWeighting`."""
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "sigmoid": torch.sigmoid, "tanh": torch.tanh, "linear": lambda z: z,
}  # fmt: skip
USUAL = {
    "contour": ("cross_entropy", "sigmoid"),
    "skeleton": ("cross_entropy", "sigmoid"),
    "distance": ("square", "sigmoid"),
    "signed_distance": ("square", "tanh"),
    "reconstruction": ("square", "linear"),
}
"""Loss and activation of a target where none are given."""
SETTINGS = {
    "contour": ("width", "both_sides"),
    "distance": ("side", "d_max", "normalize"),
    "signed_distance": ("d_max", "normalize"),
}
"""Settings that a target has."""


NO_TASK = "the tasks alongside the segmentation are told by heads, here untrained"
BY_CLASS = {
    "class_order": "a head has weights of its own for each class",
    "perfect_prediction_is_zero": NO_TASK,
}
SHARDS = {
    "shards_equal_the_batch": "under DDP each process takes the mean over its own samples and classes with distances"
}
UNTRAINED = {"perfect_prediction_is_the_minimum": NO_TASK}
AROUND = "a decoder's convolutions and means reach over voxels that do not count"
SEVERAL = (
    "labels_3d", "labels_2d", "two_classes", "five_classes", "many_classes", "one_class", "regions", "empty_region",
    "regions_masked", "soft_labels", "soft_regions", "empty_class", "one_voxel", "ignored", "ignored_2d", "ignored_sample",
    "extreme",
)  # fmt: skip
DECODED: dict[str, str | Exempt] = {
    **BY_CLASS,
    "flips": "the weights of a decoder's convolutions are not symmetric",
    "ignored_voxels_change_nothing": AROUND,
    "everything_ignored_gives_zero": Exempt(AROUND, cases=SEVERAL),
}
"""Exemptions of the cards."""


@dataclass(frozen=True)
class Task:
    """A task alongside the segmentation.

    Args:
        target: one of `TARGETS`, of each foreground class, or of the image for ``"reconstruction"``.
        head: one of `HEADS`: a 1x1 convolution on the decoder (``"linear"``), a decoder of its own from the bottleneck with
            skips (``"decoder"``) or without (``"free_decoder"``), or from the middle of the network's decoder on
            (``"late_decoder"``).
        loss: ``"cross_entropy"`` (contour, skeleton), ``"square"`` or ``"absolute"``; "" is the usual one of the target.
        activation: of the head, ``"sigmoid"``, ``"tanh"`` or ``"linear"``; "" is the usual one of the target.
        width: of a contour, in voxels.
        both_sides: of a contour, inside and outside of the class.
        side: where distances are: ``"inside"``, ``"outside"`` or on ``"both"`` sides of the boundary.
        d_max: distances in mm beyond it are cut, and all divided by it.
        normalize: divide them by the largest of the sample and class instead.
    """

    target: str
    head: str = "linear"
    loss: str = ""
    activation: str = ""
    width: int = 1
    both_sides: bool = False
    side: str = "inside"
    d_max: float = 10.0
    normalize: bool = False

    def __post_init__(self) -> None:
        one_of(TARGETS, target=self.target)
        one_of(tuple(HEADS), head=self.head)
        usual = USUAL[self.target]
        for name, word, known in (("loss", usual[0], LOSSES), ("activation", usual[1], tuple(ACTIVATIONS))):
            if not getattr(self, name):
                object.__setattr__(self, name, word)
            one_of(known, **{name: getattr(self, name)})
        if self.loss == "cross_entropy" and (usual[0] != self.loss or self.activation != "sigmoid"):
            raise ValueError(f"loss 'cross_entropy' wants a target of 0 and 1 and a sigmoid, not {self.target!r}.")
        whole(1, width=self.width)
        one_of(SIDES, side=self.side)
        if not non_negative(d_max=self.d_max)[0]:
            raise ValueError("d_max must be above 0.")

    @property
    def taps(self) -> tuple[str, ...]:
        """What the task takes from the network."""
        return (*HEADS[self.head], *(("image",) if self.target == "reconstruction" else ()))

    @property
    def map(self) -> MapSpec | None:
        """The map of the labels that is its target, but for the scale of distances."""
        if self.target == "contour":
            settings = {"width": self.width, "both_sides": self.both_sides}
            return MapSpec.of("contour", contour_map, settings, in_mm=False)
        if self.target == "skeleton":
            return MapSpec.of("skeleton", skeleton_map, {}, on_cpu=True, in_mm=False)
        if self.target == "signed_distance":
            return signed_distance(mode="surface")
        return target_field(self.side) if self.target == "distance" else None  # type: ignore[arg-type]

    def wanted(self, view: ClassView) -> tuple[Tensor, Tensor]:
        """The target (B, K, *S), and whether a sample has it, (B, K | 1): distances of an absent class have no meaning."""
        batch, spec = view.batch, self.map
        if spec is None:
            return _image(batch), torch.ones_like(batch.voxels)
        y = scored_map(spec, view)
        if "distance" not in self.target:
            return y, torch.ones_like(batch.voxels)
        known = (y != 0).flatten(2).any(2).to(y.dtype)
        if self.normalize:
            return normalized(y), known
        return (y / self.d_max).clamp(-1, 1), known

    def difference(self, z: Tensor, y: Tensor) -> Tensor:
        """How far the head is from the target at each voxel."""
        if self.loss == "cross_entropy":
            return F.binary_cross_entropy_with_logits(z, y, reduction="none")
        p = ACTIVATIONS[self.activation](z)
        return (p - y) ** 2 if self.loss == "square" else (p - y).abs()


def task(name: str, value: Any) -> tuple[TermWeight, Task]:
    """Weight and task from their plain form: a weight, or ``{"weight": weight, setting: value, ...}``.

    The target is that of the name, or ``"target"``.
    """
    settings = dict(value) if isinstance(value, Mapping) and "schedule" not in value else {"weight": value}
    weight = settings.pop("weight", 1.0)
    target = settings.pop("target", name)
    if not isinstance(target, str) or target not in TARGETS:
        said = nearest(target, TARGETS) if isinstance(target, str) else ""
        raise ValueError(f"tasks: no target is called {target!r}{said or '.'} There are {', '.join(TARGETS)}.")
    known = ("head", "loss", "activation", *SETTINGS.get(target, ()))
    for each in settings:
        if each not in known:
            raise ValueError(
                f"tasks: {name} has no setting {each!r}{nearest(str(each), known) or '.'} It has {', '.join(known)}."
            )
    try:
        return weight, Task(target, **settings)
    except (TypeError, ValueError) as error:
        raise ValueError(f"tasks: {name}: {error}") from None


class WithTasks(Guided):
    """A segmentation loss plus tasks by name, each with an argument of the card for its weight.

    Args:
        base: see `Guided`.
        tasks: name -> argument, weight and task.
        common, balance: see `Guided`.
        more: further terms of the card, name -> argument and weight.
    """

    def __init__(
        self,
        base: Base,
        tasks: Mapping[str, tuple[str, TermWeight, Task]],
        common: FormulaArgs,
        balance: BalanceConfig | None = None,
        more: Mapping[str, tuple[str, TermWeight]] = MappingProxyType({}),
    ) -> None:
        weights = {name: (argument, weight) for name, (argument, weight, _) in tasks.items()} | dict(more)
        self.tasks = {name: each for name, (_, _, each) in tasks.items()}
        kinds = {name: KINDS[each.loss] for name, each in self.tasks.items()}
        super().__init__(base, weights, common, balance, kinds)
        self.own_taps = tuple(dict.fromkeys(tap for each in self.tasks.values() for tap in each.taps))
        self.own_needs = tuple(spec for each in self.tasks.values() for spec in [each.map] if spec is not None)

    def build(self, shape: NetworkShape) -> None:
        for name, each in self.tasks.items():
            channels = shape.image_channels if each.map is None else shape.classes - self._first(shape.classes)
            self.heads[name] = head(each.head, shape, channels)

    def own_terms(self, batch: SegBatch) -> Mapping[str, Callable[[], Unreduced]]:
        return {name: partial(self.score, name, batch) for name in self.tasks}

    def score(self, name: str, batch: SegBatch, z: Tensor | None = None) -> Unreduced:
        """Mean over the voxels of each (sample, class) that has a target, then over these.

        Args:
            z: what the head gives, where it is known.
        """
        y, known = self.tasks[name].wanted(self.foreground(batch))
        values = self.tasks[name].difference(self.output(name, batch) if z is None else z, y)
        return Unreduced.table(batch.total(values) / batch.voxels.clamp_min(1), known * batch.voxels)

    def output(self, name: str, batch: SegBatch) -> Tensor:
        """What the head of a task gives, before its activation; 0 where ignored."""
        z: Tensor = self.heads[name](batch.maps, batch.logits.shape[2:], batch.mask)
        return mask_logits(z, batch.mask)

    def foreground(self, batch: SegBatch) -> ClassView:
        """The classes that have tasks."""
        return batch.class_view(include_background=not self._first(batch.classes))

    def _first(self, classes: int) -> int:
        """Channel of the first class that is no background: regions have none."""
        return 0 if classes == 1 or (self.reader.sigmoid and not self.reader.to_onehot_y) else 1


def _image(batch: SegBatch) -> Tensor:
    image = batch.maps["image"]
    if image.shape[0] != batch.logits.shape[0] or image.shape[2:] != batch.logits.shape[2:]:
        wanted = (batch.logits.shape[0], "channels", *batch.logits.shape[2:])
        raise LossShapeError(f"image has shape {tuple(image.shape)}; expected {wanted}.")
    return mask_logits(image.detach(), batch.mask).to(batch.masked_logits.dtype)
