"""`SegLoss`, the one base class, and the arguments that losses share."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, TypedDict, Unpack, final, get_args, get_origin

import torch
from torch import Tensor, nn

from monai_segloss.core import check
from monai_segloss.core.arguments import checked, numbers
from monai_segloss.core.batch import SegBatch
from monai_segloss.core.companions import Companions
from monai_segloss.core.counts import Stat
from monai_segloss.core.derivatives import refuse_vmap
from monai_segloss.core.errors import Renamed, adopt_renamed, nearest, renamed_in
from monai_segloss.core.exact import widest_dtype
from monai_segloss.core.maps import MapSpec, refusal
from monai_segloss.core.reading import Reader
from monai_segloss.core.reduce import REDUCTIONS, Term, Unreduced, reduce
from monai_segloss.core.taps import is_tap

Weight = Sequence[float] | float | Tensor


class InputArgs(TypedDict, total=False):
    """How ``input`` and ``target`` are read and the value reduced, as network and data set are: arguments of every loss."""

    to_onehot_y: bool
    sigmoid: bool
    softmax: bool
    other_act: Callable[[Tensor], Tensor] | None
    ignore_index: int | None
    reduction: str


class ReadingArgs(InputArgs, total=False):
    """Arguments of every loss."""

    neighbors: int


class FormulaArgs(ReadingArgs, total=False):
    """How classes and samples are scored: arguments of the losses whose formula has a place for them."""

    include_background: bool
    batch: bool
    smooth_nr: float
    smooth_dr: float
    weight: Weight | None


DEFAULTS: dict[str, Any] = {
    "include_background": True,
    "to_onehot_y": False,
    "sigmoid": False,
    "softmax": False,
    "other_act": None,
    "reduction": "mean",
    "smooth_nr": 1e-5,
    "smooth_dr": 1e-5,
    "batch": False,
    "weight": None,
    "ignore_index": None,
    "neighbors": 1,
}
"""Defaults of the shared arguments, MONAI's where MONAI has them."""

KINDS = {name: type(x).__name__ for name, x in DEFAULTS.items()} | {"ignore_index": "int | None"}
"""Their types, as in an annotation."""

READING = tuple(InputArgs.__annotations__)
"""Arguments that data set and surface decide, so that no configuration of a loss holds them."""
OF_EVERY_LOSS = tuple(ReadingArgs.__annotations__)
FORMULA_ARGUMENTS = tuple(name for name in FormulaArgs.__annotations__ if name not in OF_EVERY_LOSS)


class SegLoss(Companions, nn.Module, ABC):
    """A segmentation loss: read, `loss`, reduce.  A card implements `loss` and nothing else.

    Keyword arguments, of every loss:
        to_onehot_y: the target holds labels (B, 1, *S) or (B, *S) instead of one channel per class.
        sigmoid, softmax, other_act: how ``input`` becomes probabilities, one of them at most; none: it holds probabilities.
        ignore_index: voxels of this label have no influence on value and gradient.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``; ``none`` broadcasts against (B, C, *S).
        neighbors: odd width, in voxels, of a window in which each voxel takes the worst logit of its class; 1: its own.

    Of the tensors of a call ``input``, ``target``, ``weight_map``, ``image`` and ``threshold`` have gradients; mask,
    spacing, labeled classes, points, components and maps made from the target are constants.  So are tensors given to the
    constructor, which keeps copies.

    Keyword arguments where the formula has a place for them (`formula_arguments` names those of a class):
        include_background: whether channel 0 is scored; it drops after the activation.
        batch: sum the statistics over the batch, and over the processes of DistributedDataParallel, before the formula.
        smooth_nr: added to the numerator of a ratio.
        smooth_dr: added to the denominator of a ratio.
        weight: one factor per scored class, or one for all; not normalized.

    Raises:
        TypeError, ValueError: an argument of another type, or out of its range.
    """

    formula_arguments: ClassVar[tuple[str, ...]] = FORMULA_ARGUMENTS
    """Names of those of the second kind that the class takes; as its constructor says, or stated where that says more."""
    accepts: ClassVar[tuple[str, ...]] = ()
    """Maps a caller may send as keyword or in a target mapping."""
    point_maps: ClassVar[tuple[str, ...]] = ()
    """Those of them that mark single voxels, which a coarser grid must keep."""
    bounds: ClassVar[Mapping[str, float]] = {}
    """Largest values of arguments, where these are less than `arguments.LARGEST`."""
    scalar_only: ClassVar[bool] = False
    """Whether the loss is one number by nature, so that ``reduction="none"`` is refused."""
    whole_cases: bool = False
    """Whether the value has a meaning on whole cases only, as they lie: not on patches, nor rotated or scaled."""
    mirrored: bool = True
    """Whether it keeps its meaning on mirrored images."""
    in_float32: ClassVar[bool] = False
    """Whether the formula computes with the logits of all voxels in float32, so that a sum hands that copy to all terms."""
    scoring, marks, scalar = Renamed("formula_arguments"), Renamed("point_maps"), Renamed("scalar_only")
    include_background: bool
    batch: bool
    smooth_nr: float
    smooth_dr: float
    class_weight: Tensor | None
    weight_of_all: bool = False
    """Whether the class weights may hold that of a background which is not scored, because other terms score it."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        adopt_renamed(cls, SegLoss)
        if "__init__" in vars(cls) and "formula_arguments" not in vars(cls):
            cls.formula_arguments = _formula_arguments(cls.__init__, cls.formula_arguments)

    def __init__(self, **arguments: Any) -> None:
        super().__init__()
        allowed = self._known(arguments)
        for name in OF_EVERY_LOSS:
            if name in arguments:
                arguments[name] = checked(name, arguments[name], KINDS[name])
        given = {name: arguments.get(name, DEFAULTS[name]) for name in allowed}
        reduction = str(getattr(given.pop("reduction"), "value", arguments.get("reduction", "mean")))
        if reduction not in REDUCTIONS:
            raise ValueError(f'Unsupported reduction: {reduction}, available options are ["mean", "sum", "none"].')
        if self.scalar_only and reduction == "none":
            raise ValueError(f"{type(self).__name__} is one number for the batch: reduction must be 'mean' or 'sum'.")
        self.reduction = reduction
        self.reader = Reader(**{name: given.pop(name) for name in OF_EVERY_LOSS if name != "reduction"})
        weight = given.pop("weight", None)
        self.register_buffer("class_weight", None if weight is None else class_weight(weight))
        for name, value in given.items():
            smooth = name.startswith("smooth")
            setattr(self, name, check.non_negative(**{name: float(value)})[0] if smooth else bool(value))
        self.last: dict[str, Tensor] = {}
        self.arguments: dict[str, Any] = dict(arguments)

    @classmethod
    def _known(cls, arguments: Iterable[str]) -> tuple[str, ...]:
        """Names of the shared arguments of the class; those that are given must be among them."""
        allowed = (*cls.formula_arguments, *OF_EVERY_LOSS)
        for name in arguments:
            if name not in allowed:
                raise TypeError(f"{cls.__name__}() got an unexpected argument {name!r}{nearest(name, allowed) or '.'}")
        return allowed

    @property
    def needs(self) -> tuple[MapSpec, ...]:
        """Maps the loss cannot do without; it makes them itself where the caller does not send them."""
        return ()

    def statistics(self, batch: SegBatch) -> tuple[Stat, ...]:
        """Statistics that `loss` will ask for: naming them lets the terms of a sum share one pass."""
        return ()

    @abstractmethod
    def loss(self, batch: SegBatch) -> Unreduced | Mapping[str, Term]:
        """The formula."""

    @final  # type: ignore[misc]
    def forward(
        self,
        input: Tensor,
        target: Tensor | Mapping[str, Tensor],
        *,
        mask: Tensor | None = None,
        spacing: Any = None,
        full_resolution: bool = True,
        **maps: Tensor,
    ) -> Tensor:
        """Value of the loss.

        Args:
            input: logits or probabilities (B, C, *S), any floating type.
            target: labels (B, 1, *S) or (B, *S) with ``to_onehot_y``, else (B, C, *S) one-hot, soft labels or regions;
                or a mapping with the key ``label`` and, where the caller has them, ``mask`` and maps.
            mask: (B, 1, *S) or (B, *S), true where a voxel counts.
            spacing: voxel spacing in array axis order, (ndim,) or (B, ndim), for losses that measure distances.
            full_resolution: whether ``input`` has the resolution of the image; at the coarser scales of deep supervision
                terms that need the network, all of the image, or the sizes of components, are left out.
            maps: maps by name, see `accepts` and `needs`, and what the loss takes from the network, see `taps`.

        Raises:
            ValueError: where shapes (also an AssertionError), devices, labels or values do not fit.
            TypeError: where a type is wrong or a map is not one that the loss knows.
            RuntimeError: inside of `torch.vmap`.
        """
        refuse_vmap()
        kind = input.device.type if isinstance(input, Tensor) and not input.is_meta else "cpu"
        with torch.autocast(device_type=kind, enabled=False):
            batch = self.reader.read(input, target, mask, spacing, maps)
            batch.full_resolution = full_resolution
            self._check_maps(batch)
            batch = batch.with_neighbors(self.reader.neighbors)
            batch.request(*self.statistics(batch))
            value, terms = reduce(self.loss(batch), self.reduction, batch.ndim)
        if terms:
            self.last = terms
        return value

    def extra_repr(self) -> str:
        """The arguments as given."""
        return ", ".join(f"{name}={_shown(value)}" for name, value in self.arguments.items())

    def _check_maps(self, batch: SegBatch) -> None:
        if not batch.maps:
            return
        known = (*self.accepts, *(spec.key for spec in self.needs))
        for name in batch.maps:
            if name not in known and not is_tap(name, self.taps):
                raise TypeError(f"{type(self).__name__} does not know the map {name!r}{refusal(name, known)}")

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> SegLoss:
        """Move the module; its buffers keep their precision under `half`, and on a device without float64 lose it."""

        def keep_float64(x: Tensor) -> Tensor:
            try:
                moved = fn(x)
            except TypeError:
                moved = fn(x.float())
            return moved if x.dtype != torch.float64 else moved.to(widest_dtype(moved.device))

        return super()._apply(keep_float64, recurse)  # type: ignore[no-untyped-call]

    def weights(self, classes: int) -> Tensor | None:
        """Class weights for ``classes`` scored channels, checked."""
        if self.class_weight is None or self.class_weight.ndim == 0:
            return self.class_weight
        if self.weight_of_all and self.class_weight.shape[0] == classes + 1:
            return self.class_weight[1:]
        if self.class_weight.shape[0] != classes:
            raise ValueError(
                f"The length of the `weight` sequence should be the same as the number of classes: it has "
                f"{self.class_weight.shape[0]} values for {classes} scored classes. "
                "If `include_background=False`, the weight should not include the background category class 0."
            )
        return self.class_weight


def _formula_arguments(init: Callable[..., None], inherited: tuple[str, ...]) -> tuple[str, ...]:
    """Shared arguments that a constructor names, and the inherited ones that the TypedDict of its ``**`` argument has."""
    parameters = inspect.signature(init).parameters
    rest = next((p.annotation for p in parameters.values() if p.kind is p.VAR_KEYWORD), None)
    try:
        rest = eval(rest, init.__globals__) if isinstance(rest, str) else rest
    except NameError:  # a name inside of a function
        return inherited
    if get_origin(rest) is not Unpack:
        return inherited
    passed_on = get_args(rest)[0].__annotations__
    return tuple(name for name in FORMULA_ARGUMENTS if name in parameters or (name in passed_on and name in inherited))


def _shown(value: Any) -> str:
    """A function by its name: its address is another one in the process that goes on with a training."""
    function = callable(value) and not isinstance(value, nn.Module)
    return getattr(value, "__name__", type(value).__name__) if function else repr(value)


def class_weight(weight: Weight, name: str = "weight") -> Tensor:
    """Class weights as a float64 tensor, each at least 0; ``name`` is that of the argument."""
    x = numbers(name, weight, "a number or one per class")
    if not x.numel():
        raise ValueError(f"{name} must be a number or one per class, got none.")
    return x


__getattr__ = renamed_in(__name__, ScoringArgs=FormulaArgs)
