"""What the transforms of maps share: from a label, as array or in a dictionary, to a map with its metadata."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Hashable, Mapping, Sequence
from copy import deepcopy
from numbers import Integral
from typing import Any, ClassVar

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, Transform
from monai.utils import TransformBackends, ensure_tuple
from torch import Tensor

from monai_segloss.core.arguments import plain
from monai_segloss.core.check import countable, is_label
from monai_segloss.core.errors import nearest
from monai_segloss.core.maps import MapSpec
from monai_segloss.core.maps import options as keywords
from monai_segloss.core.spacing import affine_spacing
from monai_segloss.maps import class_masks

Spacing = str | Sequence[float] | None


class LabelMap(Transform):
    """Base of the transforms of arrays: a label (1, *S), or masks (C, *S), to a map.

    Args:
        num_classes: the array holds labels from 0 to ``num_classes`` - 1, 0 the background; None: one channel per mask.
        include_background: of labels, whether class 0 has a channel; the default depends on the map.
        spacing: in the order of the array axes, in mm: numbers, which hold for whatever comes (the nominal spacing of the
            patch, also where augmentation has scaled it); ``"auto"``: from the affine of a MetaTensor, and 1 with a
            warning without one; None: 1.
        ignore_index: voxels of this label do not count: no boundary is made there and the map is 0.
        options: of the function of the map.

    Raises:
        TypeError, ValueError: an option that the function does not take, or a wrong value; of the call, a label outside of
            ``num_classes`` that is not ignored, a fraction as of a label that was interpolated, labels in place of masks.
    """

    backend = (TransformBackends.TORCH,)
    make: ClassVar[Callable[..., Tensor]]
    """From masks (B, C, *S) to the map."""
    key: ClassVar[str] = ""
    """The name of the map, which is the keyword that losses know it by where no option is changed."""
    keyed: ClassVar[bool] = True
    """Whether options are part of that keyword, see `monai_segloss.core.maps.map_key`."""
    background: ClassVar[bool] = True
    """Whether the background of labels has a channel by default."""
    instances: ClassVar[bool] = False
    """Whether the channel of the background stays empty."""

    def __init__(
        self,
        num_classes: int | None = None,
        include_background: bool | None = None,
        spacing: Spacing = "auto",
        ignore_index: int | None = None,
        **options: Any,
    ) -> None:
        known = [option.name for option in keywords(self.make)]
        for name in options:
            if name not in known:
                hint = nearest(name, known) or "."
                raise TypeError(f"{type(self).__name__}() got an unexpected argument {name!r}{hint}")
        options = plain(options)
        self.num_classes, self.ignore_index, self.options = num_classes, ignore_index, options
        self.spec = MapSpec.of(self.key, self.make, options)
        self.name = self.spec.key if self.keyed else self.key
        self.include_background = self.background if include_background is None else include_background
        self.spacing = _lengths(plain(spacing))
        least = 1 if self.include_background else 2
        if num_classes is not None and (not isinstance(num_classes, Integral) or num_classes < least):
            raise ValueError(f"num_classes must be None or a whole number of at least {least}, got {num_classes!r}.")
        if num_classes is not None or not any(isinstance(x, list | tuple) for x in options.values()):
            # a wrong option is said before any work; how many masks have a number each only the array knows
            channels = 1 if num_classes is None else num_classes - (not self.include_background)
            self.spec.make(torch.zeros(1, channels, 1, 1, dtype=torch.bool), exclusive=num_classes is not None)

    def __call__(self, img: Any) -> Tensor:
        """The map of one array, channel first; a MetaTensor gives a MetaTensor with the same metadata."""
        plain = countable(torch.as_tensor(img).as_subclass(Tensor))
        if self.num_classes is not None and plain.shape[0] != 1:
            raise ValueError(
                f"{type(self).__name__}: an array of shape {tuple(plain.shape)} came; with num_classes={self.num_classes} "
                "expected labels of shape (1, *spatial). For one channel per class leave num_classes out."
            )
        valid = None
        if self.ignore_index is not None:
            valid = ~is_label(plain, self.ignore_index).any(0)[None, None]
        self._reject_unknown_labels(plain, valid)
        mask = plain[None] if self.num_classes is None else self._masks(plain)
        found = self.spec.make(mask, self._spacing(img, plain.ndim - 1), valid, self.num_classes is not None)[0]
        if not isinstance(img, MetaTensor):
            return found
        return MetaTensor(found, meta=deepcopy(img.meta))

    def _reject_unknown_labels(self, plain: Tensor, valid: Tensor | None) -> None:
        top = 1 if self.num_classes is None else self.num_classes - 1
        strange = ~((plain >= 0) & (plain <= top))
        if self.num_classes is not None and plain.is_floating_point():
            strange |= plain != plain.floor()
        if valid is not None:
            strange &= valid[0]
        if not bool(strange.any()):
            return
        what = f"{type(self).__name__}: the value {_full(plain[strange][0])} came, at {int(strange.sum())} voxels; "
        if self.num_classes is None:
            raise ValueError(f"{what}expected masks of 0 and 1. For labels give num_classes.")
        raise ValueError(
            f"{what}with num_classes={self.num_classes} expected labels 0 to {top}: name an ignored one as ignore_index, "
            "and resample labels with mode='nearest' (under lazy=True as overrides of Compose)."
        )

    def _masks(self, labels: Tensor) -> Tensor:
        assert self.num_classes is not None
        mask = class_masks(labels[None], self.num_classes, self.include_background)
        if self.instances and self.include_background:
            mask[:, 0] = False
        return mask

    def _spacing(self, img: Any, axes: int) -> Tensor | None:
        if "spacing" not in self.spec.takes or self.spacing is None:
            return None
        if isinstance(self.spacing, str):
            lengths = affine_spacing(img, img[None])
            if lengths is not None:
                return torch.tensor(lengths, dtype=torch.float64)
            what = "has an affine without lengths" if isinstance(img, MetaTensor) else "is no MetaTensor"
            warnings.warn(
                f"{type(self).__name__}: spacing='auto' but the label {what}, so that voxels count as 1 mm; give the "
                "spacing.",
                stacklevel=3,
            )
            return None
        if len(self.spacing) != axes:
            raise ValueError(f"spacing is {self.spacing}; expected {axes} positive numbers.")
        return torch.tensor(self.spacing, dtype=torch.float64)


def _lengths(spacing: Any) -> tuple[float, ...] | str | None:
    """``spacing`` with its numbers checked, or the word."""
    if spacing is None or (isinstance(spacing, str) and spacing == "auto"):
        return spacing
    try:
        found = tuple(float(x) for x in ensure_tuple(spacing))
    except (TypeError, ValueError):
        found = ()
    if not found or not all(0 < x < math.inf for x in found):
        raise ValueError(f"spacing must be positive numbers, 'auto' or None, got {spacing!r}.")
    return found


def _full(value: Tensor) -> str:
    """A value with all its digits: 0.9999999 is not 1."""
    number = float(value)
    return f"{number:.0f}" if number.is_integer() else repr(number)


class LabelMapd(MapTransform):
    """Base of the transforms of dictionaries: the map of each key goes under a key of its own, the label stays.

    Args:
        keys: of the labels.
        output_keys: one per key; by default the name that losses know the map by, ``sdm`` or with options ``sdm_surface``,
            for several keys ``<key>_<name>``.
        allow_missing_keys: skip a key that is not there.
        options: as for the transform of the array.
    """

    backend = LabelMap.backend
    of: ClassVar[type[LabelMap]] = LabelMap

    def __init__(
        self,
        keys: KeysCollection,
        output_keys: KeysCollection | None = None,
        allow_missing_keys: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.converter = self.of(**options)
        name = self.converter.name
        default = (name,) if len(self.keys) == 1 else tuple(f"{key}_{name}" for key in self.keys)
        self.output_keys = default if output_keys is None else ensure_tuple(output_keys)
        if len(self.output_keys) != len(self.keys) or len(set(self.output_keys)) != len(self.keys):
            raise ValueError(f"output_keys is {self.output_keys}; expected one of its own for each of {self.keys}.")

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The dictionary with the maps."""
        d = dict(data)
        for key, output in self.key_iterator(d, self.output_keys):
            d[output] = self.converter(d[key])
        return d
