"""Maps: what a loss takes alongside the target, declared so that loaders can make it ahead of time."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from torch import Tensor

from monai_segloss.core import check
from monai_segloss.core.errors import LossShapeError

if TYPE_CHECKING:
    from monai_segloss.core.batch import ClassView, SegBatch

T = TypeVar("T")


@dataclass(frozen=True)
class MapSpec:
    """A map that a loss names in ``needs``: taken from the caller if sent, else made by the loss itself.

    Args:
        key: keyword of the call, and key in a batch; one key is one map, see `map_key`.
        function: of the module level, from masks (B, C', *S) bool to the map (B, C', *S), 0 where nothing counts.  Alongside
            the masks it takes what it needs of the arguments of `make`, by name; its settings are keyword-only.
        exclusive: the map is 0 outside of its class, so that for labels one channel holds the maps of all classes.
        on_cpu: made on the CPU, which is best done in the worker processes of a loader.
        in_mm: measured with the spacing.
        settings: of the function, by name.
    """

    key: str
    function: Callable[..., Tensor]
    exclusive: bool = False
    on_cpu: bool = False
    in_mm: bool = True
    settings: tuple[tuple[str, Any], ...] = ()
    takes: frozenset[str] = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        known = inspect.signature(self.function).parameters.values()
        object.__setattr__(self, "takes", frozenset(p.name for p in known if p.kind is not p.KEYWORD_ONLY))

    @classmethod
    def of(
        cls,
        name: str,
        function: Callable[..., Tensor],
        settings: Mapping[str, Any],
        *,
        exclusive: bool = False,
        on_cpu: bool = False,
        in_mm: bool = True,
    ) -> MapSpec:
        """A function of `monai_segloss.maps` with settings, under the key that follows from both."""
        plain = {each: tuple(x) if isinstance(x, list) else x for each, x in settings.items()}  # compares and hashes
        return cls(map_key(name, function, settings), function, exclusive, on_cpu, in_mm, tuple(plain.items()))

    def make(
        self, masks: Tensor, spacing: Tensor | None = None, valid: Tensor | None = None, exclusive: bool = False
    ) -> Tensor:
        """The map (B, C', *S).

        Args:
            masks: (B, C', *S) bool, of the classes.
            spacing: (ndim,) or (B, ndim) in array axis order; None: 1.
            valid: (B, 1, *S) bool, the voxels that count; None: all.
            exclusive: no voxel is in two masks, as in those of labels; some functions are quicker then.
        """
        facts = {"spacing": spacing, "valid": valid, "exclusive": exclusive}
        given = {name: fact for name, fact in facts.items() if name in self.takes}
        return self.function(masks, **given, **dict(self.settings))

    def packed(self, masks: Tensor, spacing: Tensor | None, valid: Tensor | None, exclusive: bool) -> Tensor:
        """`make` in as few channels as hold it, (B, C' | 1, *S)."""
        found = self.make(masks, spacing, valid, exclusive)
        return found.sum(1, keepdim=True) if self.channels(masks.shape[1], exclusive) < found.shape[1] else found

    def channels(self, classes: int, exclusive: bool) -> int:
        """Channels of the packed map of so many classes."""
        return 1 if self.exclusive and exclusive else classes


def map_key(name: str, function: Callable[..., Tensor], settings: Mapping[str, Any]) -> str:
    """Key of a map: its name, followed by the settings that are not the defaults of the function, in its order.

    A word that is the first argument says what kind of map it is and stands by itself, another setting follows its name; a
    flag is its name.

    Example:
        >>> from monai_segloss.maps import signed_distance_map
        >>> map_key("sdm", signed_distance_map, {"mode": "kervadec"})
        'sdm'
        >>> map_key("sdm", signed_distance_map, {"mode": "maurer", "normalize": True, "clip": (2.5, 10)})
        'sdm_maurer_clip_2p5_10_normalize'
    """
    parts = [name]
    for i, option in enumerate(options(function)):
        value = settings.get(option.name, option.default)
        if value == option.default:
            continue
        if isinstance(option.default, bool):
            parts.append(option.name if value else f"not_{option.name}")
        elif i == 0 and isinstance(value, str):
            parts.append(value)
        else:
            parts += [option.name, *map(_word, value if isinstance(value, (list, tuple)) else (value,))]
    return "_".join(parts)


def options(function: Callable[..., Tensor]) -> list[inspect.Parameter]:
    """The settings of a function of maps."""
    return [p for p in inspect.signature(function).parameters.values() if p.kind is p.KEYWORD_ONLY]


def _word(value: object) -> str:
    """A setting as part of a name: 2.5 is 2p5."""
    text = repr(float(value)).removesuffix(".0") if isinstance(value, (int, float)) else str(value).lower()
    return text.translate({ord("."): "p", ord("-"): "m", ord("+"): None})


def refusal(name: str, known: tuple[str, ...]) -> str:
    """What to say of a map that a loss does not know."""
    if not known:
        return "; it takes none."
    related = any(key.startswith(f"{name}_") or name.startswith(f"{key}_") for key in known)
    why = ": a key holds the settings of its map, so that no other one is taken for it" if related else ""
    return f"; it takes {', '.join(known)}{why}."


def share_maps(batch: SegBatch, needs: Iterable[MapSpec]) -> None:
    """Let the terms of a sum make a map that several of them need only once in a call."""
    wanted = list(needs)
    for spec in wanted:
        if wanted.count(spec) > 1:
            batch.shared.setdefault(spec, {})


def cached(spec: MapSpec, batch: SegBatch, first: int, make: Callable[[], T]) -> T:
    """What ``make`` finds for the channels from ``first`` on; kept for the other terms, see `share_maps`, or not at all."""
    kept = batch.shared.get(spec)
    if kept is None:
        return make()
    if first not in kept:
        kept[first] = make()
    return kept[first]


def scored_map(spec: MapSpec, view: ClassView) -> Tensor:
    """A map of the scored classes (B, C', *S), as the caller sent it or made here: no gradient, 0 where ignored."""
    batch = view.batch
    if batch.ndim < 3:
        raise LossShapeError(f"input has shape {tuple(batch.logits.shape)}; the map {spec.key} needs spatial axes.")
    sent = batch.maps.get(spec.key)
    if sent is None:
        return cached(spec, batch, view.first, lambda: _made(spec, view))
    valid = None if batch.mask is None else batch.mask[:, None]
    if spec.exclusive and view.classes > 1 and sent.ndim == batch.ndim and sent.shape[1] == 1:  # packed, see `packed`
        sent = check.voxel_shape(spec.key, sent, batch.logits)[:, None] * _masks(view)
    sent = check.scored_shape(spec.key, sent, batch.logits, view.first).detach().to(batch.masked_logits.dtype)
    return sent if valid is None else sent.masked_fill(~valid, 0)


def _made(spec: MapSpec, view: ClassView) -> Tensor:
    batch = view.batch
    spacing = batch.required_spacing if spec.in_mm else None
    valid = None if batch.mask is None else batch.mask[:, None]
    return spec.make(_masks(view), spacing, valid, batch.has_labels).to(batch.masked_logits.dtype)


def _masks(view: ClassView) -> Tensor:
    masks = view.batch.one_hot[:, view.first :]
    return masks > 0.5 if masks.is_floating_point() else masks.bool()
