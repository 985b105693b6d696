"""Bounds of what is measured on each class, such as its size: of the label, in numbers, of a file, or of a case."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from monai_segloss.core.arguments import LARGEST, constant, shown
from monai_segloss.core.batch import SegBatch
from monai_segloss.core.check import one_of, within
from monai_segloss.core.counts import Stat
from monai_segloss.core.errors import LossShapeError
from monai_segloss.core.module import SegLoss
from monai_segloss.files import read_json
from monai_segloss.prior.bounds import FORMAT

UNITS = ("mm", "share")
Bounds = Sequence[Any] | str | Tensor | None


class Bounded(SegLoss):
    """A loss that keeps a quantity of each scored class within bounds; a card says which quantity.

    A keyword ``bounds`` of the call has those of each sample, (B, classes, 2), with the axes before the last axis where the
    quantity has axes; it comes before the argument.

    Args:
        on_patches: whether to train with bounds that are given on patches that are smaller than the cases, which trainers
            refuse otherwise; then they must be bounds of what a patch shows.
    """

    argument: ClassVar[str] = "bounds"
    """Of the constructor, which has the bounds."""
    limits: Tensor | None
    accepts = ("bounds",)

    def __init__(self, bounds: Bounds, quantity: str, on_patches: bool, common: Mapping[str, Any]) -> None:
        """Read the bounds.

        Args:
            bounds: pairs of numbers, the file of ``segloss prior bounds``, or None.
            quantity: its name in a file.
            on_patches: see there.
            common: arguments of every loss.
        """
        super().__init__(**common)
        self.on_patches = bool(on_patches)
        self.by_case: dict[str, Tensor] = {}
        cases: tuple[str, ...] = ()
        if isinstance(bounds, str):
            bounds, self.by_case, cases = read_bounds(bounds, quantity, self.argument)
        self.from_labels = {self.argument: (cases, "bounds")} if cases else {}
        self.register_buffer("limits", None if bounds is None else pairs(bounds, self.argument))

    @property
    def whole_cases(self) -> bool:  # type: ignore[override]
        return (self.limits is not None or bool(self.by_case)) and not self.on_patches

    def own(self, axes: tuple[int, ...]) -> Tensor | None:
        """Bounds of the constructor, of a quantity with such axes."""
        return self.limits

    def given(self, batch: SegBatch, classes: int, axes: tuple[int, ...] = ()) -> Tensor | None:
        """Bounds that are not those of the label, (B | 1, classes, *axes, 2), in their unit; no bound is infinite."""
        sent, whole = batch.maps.get("bounds"), (classes, *axes, 2)
        limits, name = (self.own(axes), self.argument) if sent is None else (sent, "bounds")
        if limits is None:
            return None
        if limits.is_meta:
            raise ValueError(f"{name} is on meta and has no values.")
        samples = () if sent is None else batch.logits.shape[:1]
        known = dict.fromkeys((*samples, *each) for each in ((2,), (*axes, 2), whole))
        if tuple(limits.shape) not in known:
            wanted = " or ".join(map(str, known))
            raise LossShapeError(
                f"{name} has shape {tuple(limits.shape)}; with {classes} scored classes expected {wanted}."
            )
        limits = limits.to(device=batch.logits.device, dtype=batch.voxels.dtype)
        own = limits.shape[len(samples) :]
        rows = samples or (1,)
        return limits.reshape(*rows, *[1] * (len(whole) - len(own)), *own).expand(*rows, *whole)


class BoundedInUnits(Bounded):
    """A loss that keeps a size or a moment of each scored class within bounds, in mm or as a share.

    Args:
        bounds: [lower, upper] of all scored classes, or one such pair per class, where None is no bound; or the file of
            ``segloss prior bounds``. None: the label of each image, widened by ``margin``.
        unit: of bounds that are given: ``"mm"`` or ``"share"`` of the voxels that count.
        margin: how far a class may differ from its label, as a share of it; from 0 to 1. Without influence on bounds that
            are given.
    """

    quantity: str = "size"
    """Its name in a file, without the unit."""

    def __init__(
        self,
        bounds: Bounds,
        unit: str,
        margin: float,
        on_patches: bool,
        background: bool | None,
        common: Mapping[str, Any],
    ) -> None:
        one_of(UNITS, unit=unit)
        (share,) = within(0, 1, margin=margin)
        super().__init__(bounds, f"{self.quantity}_{unit}", on_patches, {"include_background": background, **common})
        self.background, self.unit, self.margin = background, unit, share


def pairs(bounds: Any, argument: str = "bounds") -> Tensor:
    """Pairs (..., 2) as float64; None in them is no bound.

    Args:
        bounds: numbers, or a tensor.
        argument: that has them.

    Raises:
        TypeError, ValueError: these are no pairs of numbers, or a lower bound is above the upper one.
    """
    wanted = "[lower, upper] or one such pair per class"
    try:
        if isinstance(bounds, Tensor) and (bounds.is_meta or bounds.is_complex() or bounds.is_quantized):
            raise TypeError
        x = constant(bounds if isinstance(bounds, Tensor) else _numbers(bounds, 0))
    except (TypeError, ValueError, OverflowError, RuntimeError, NotImplementedError):
        raise TypeError(f"{argument} must be {wanted}, got {shown(bounds)}.") from None
    if not x.ndim or x.shape[-1] != 2 or bool(x.isnan().any()):
        raise ValueError(f"{argument} must be {wanted}, got {shown(bounds)}.")
    lower, upper = x.unbind(-1)
    if not bool(((lower <= upper) & (lower < LARGEST) & (upper > -LARGEST)).all()):
        raise ValueError(f"{argument} must have each lower one no larger than its upper one, got {shown(bounds)}.")
    return x


def _numbers(value: Any, place: int) -> Any:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_numbers(each, i) for i, each in enumerate(value)]
    if value is None:
        return math.inf if place else -math.inf
    if isinstance(value, (bool, str)):
        raise TypeError
    return value


def read_bounds(
    file: str, name: str, argument: str = "bounds"
) -> tuple[list[Any] | None, dict[str, Tensor], tuple[str, ...]]:
    """The bounds of a quantity in a file: one entry per class, those of each case that has its own, and the cases measured.

    Args:
        file: of ``segloss prior bounds``; or written by hand, ``{"format": "segloss bounds", "by_case": {CASE: {NAME:
            bounds}}}`` with bounds as the argument has them.
        name: of the quantity, with its unit if it has one.
        argument: that has the file.

    Raises:
        ValueError: there is no such file, or it holds no bounds of this quantity.
    """
    if not Path(file).is_file():
        raise ValueError(f"{argument}: there is no file {file!r}.")
    try:
        content = read_json(Path(file))
        if content["format"] != FORMAT:
            raise KeyError("format")
        by_case = {str(case): pairs(each[name], argument) for case, each in content.get("by_case", {}).items()}
        classes = content.get("classes")
        found = None if by_case and classes is None else [each[name]["bounds"] for each in content["classes"].values()]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{argument}: {file!r} is no file of `segloss prior bounds` with {name}: {error}.") from None
    return found, by_case, tuple(map(str, content.get("cases", ())))


@dataclass(frozen=True)
class CaseBounds:
    """Bounds of each case.

    Args:
        by_case: of the cases that have their own.
        others: of all others; None: there are none.
    """

    by_case: Mapping[str, Tensor]
    others: Tensor | None

    @classmethod
    def of(cls, loss: nn.Module) -> CaseBounds | None:
        """Those that a loss, or a part of it, was given; None without any.

        Raises:
            ValueError: two parts have bounds of cases, which one call cannot have.
        """
        found = [each for each in loss.modules() if isinstance(each, Bounded) and each.by_case]
        if len(found) > 1:
            raise ValueError("bounds: two terms have bounds of each case; only one can.")
        return cls(found[0].by_case, found[0].limits) if found else None

    def refuse_unknown(self, cases: Sequence[str]) -> None:
        """Raise ValueError where a case has no bounds."""
        missing = [case for case in cases if case not in self.by_case]
        if self.others is None and missing:
            raise ValueError(f"bounds: the file has none of {len(missing)} cases, the first is {missing[0]!r}.")

    def rows(self, keys: Sequence[str]) -> Tensor:
        """Of the cases of a batch, (B, ...)."""
        found = [self.by_case.get(key, self.others) for key in keys]
        known = [each for each in found if each is not None]
        return torch.stack(torch.broadcast_tensors(*known))  # type: ignore[no-untyped-call]


def sizes(loss: BoundedInUnits, batch: SegBatch) -> tuple[Tensor, Tensor]:
    """Size of each scored class (B, K) and its bounds (B, K, 2), both as shares of the voxels that count."""
    view = batch.class_view(batch.multilabel if loss.background is None else loss.background)
    hit, extra, label = view.sums(Stat("tp"), Stat("fp"), Stat("g"))
    voxels = batch.voxels.clamp_min(1)
    share, label = (hit + extra) / voxels, label / voxels
    limits = loss.given(batch, view.classes)
    if limits is None:
        limits = torch.stack((label * (1 - loss.margin), label * (1 + loss.margin)), -1)
    elif loss.unit == "mm":
        limits = limits / (voxels * cell(batch))[..., None]
    return share, limits.expand(*share.shape, 2)


def cell(batch: SegBatch) -> Tensor:
    """Volume of a voxel, (1, 1) or (B, 1), in mm to the power of the axes that have several voxels."""
    steps = batch.required_spacing.to(device=batch.logits.device, dtype=batch.voxels.dtype)
    long = [i for i, n in enumerate(batch.logits.shape[2:]) if n > 1]
    return steps[..., long].prod(-1).reshape(-1, 1)
