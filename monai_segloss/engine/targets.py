"""From label maps to what a loss reads, and from the outputs of a network back: classes, regions, ignored voxels."""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Mapping
from copy import deepcopy
from typing import Any

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from torch import Tensor

from monai_segloss.core.check import countable
from monai_segloss.core.spacing import affine_spacing, known_spacing, voxel_lengths
from monai_segloss.datalist import Labels
from monai_segloss.engine.errors import DataError, NotFiniteError, not_finite
from monai_segloss.maps import class_masks

WHICH = ("on_cpu", "all", "none")
ROUNDING = 1e-3
"""Largest distance of a stored label to its whole number, as a file's scale and 32 bits leave it."""
SHEAR = 1e-3
"""Largest cosine between two axes of a grid that count as perpendicular."""


class CheckedLabeld(MapTransform):
    """Label maps that hold what the data set says, with the ignored voxels in a mask of their own.

    Where the data set has an ignore label, these voxels become 0 in the label and the key ``mask`` is added: 1 where a voxel
    counts.  Losses of this package take it with the label, and metrics leave its zeros out.  Numbers that a file stores as
    fractions by rounding, as 0.9999999, are the whole numbers that they stand for.

    Args:
        keys: of the label maps (1, *S).
        labels: of the data set.
        image_key: of the image that must lie on the same grid; None: no comparison.
        mask_key: of the new mask.
        allow_missing_keys: skip a key that is not there.

    Raises:
        DataError: a value that the data set does not know or that is further than 0.001 from a whole number, or another
            shape or place in space than the image's.
    """

    def __init__(
        self,
        keys: KeysCollection,
        labels: Labels,
        image_key: str | None = "image",
        mask_key: str = "mask",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.labels, self.image_key, self.mask_key = labels, image_key, mask_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The dictionary with the label as integers and, where there is an ignore label, the mask."""
        d = dict(data)
        for key in self.key_iterator(d):
            label = d[key]
            if self.image_key is not None:
                _refuse_other_grid(d[self.image_key], label)
            numbers = self._numbers(label)
            if self.labels.ignore is not None:
                ignored = numbers == self.labels.ignore
                if bool(ignored.all()):
                    raise DataError(f"{_name(label)} has no annotated voxel: all of them have the ignore label.")
                d[self.mask_key] = _like((~ignored).to(torch.uint8), label)
                numbers = numbers.masked_fill(ignored, 0)
            d[key] = _like(numbers, label)
        return d

    def _numbers(self, label: Any) -> Tensor:
        plain, known = countable(torch.as_tensor(label).as_subclass(Tensor)), self.labels.values
        numbers = plain.round() if plain.is_floating_point() else plain
        strange = plain[~(((plain - numbers).abs() <= ROUNDING) & torch.isin(numbers, torch.tensor(known).to(numbers)))]
        if strange.numel():
            value, *_ = strange.tolist()
            shown = f"{value:.0f}" if float(value).is_integer() else repr(value)
            raise DataError(
                f"{_name(label)} holds the value {shown}; dataset.json has the labels {_short(set(known))}. "
                f"{strange.numel()} voxels hold none of them."
            )
        return numbers.to(torch.uint8 if max(known) < 256 else torch.int32)


class CheckedOutputd(MapTransform):
    """Outputs of the network as they are; what is NaN or infinite ends the run, where the largest output would hide it.

    Args:
        keys: of the outputs.
        allow_missing_keys: skip a key that is not there.

    Raises:
        NotFiniteError: an output with NaN or infinite values, with the name of the case.
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The dictionary as it came."""
        d = dict(data)
        for key in self.key_iterator(d):
            _refuse_not_finite(d[key])
        return d


class RegionChannelsd(MapTransform):
    """Label maps (1, *S) as one channel of 0 and 1 per region (R, *S); without regions they stay.

    Put it after the random transforms, so that these move one channel.

    Args:
        keys: of the label maps.
        labels: of the data set.
        allow_missing_keys: skip a key that is not there.
    """

    def __init__(self, keys: KeysCollection, labels: Labels, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.labels = labels

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The dictionary with the regions in place of the label."""
        d = dict(data)
        for key in self.key_iterator(d) if self.labels.regions else ():
            plain = torch.as_tensor(d[key]).as_subclass(Tensor)[0]
            masks = [torch.isin(plain, torch.tensor(region).to(plain)) for region in self.labels.regions]
            d[key] = _like(torch.stack(masks).to(torch.uint8), d[key])
        return d


class SegmentationFromLogitsd(MapTransform):
    """Outputs of the network (C, *S) as a label map (1, *S).

    Classes: the largest output.  Regions: those of a probability above 1/2, written one over the other in the order of the
    data set (``regions_class_order``), as nnU-Net does.

    Args:
        keys: of the outputs, logits.
        labels: of the data set.
        allow_missing_keys: skip a key that is not there.

    Raises:
        NotFiniteError: an output with NaN or infinite values, with the name of the case.
    """

    def __init__(self, keys: KeysCollection, labels: Labels, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.labels = labels

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The dictionary with the label map in place of the outputs."""
        d = dict(data)
        for key in self.key_iterator(d):
            _refuse_not_finite(d[key])
            plain = torch.as_tensor(d[key]).as_subclass(Tensor)
            found = plain.argmax(0, keepdim=True).int()
            if self.labels.regions:
                found = torch.zeros_like(found)
                for channel, value in zip(plain, self.labels.order, strict=True):
                    found[0][channel > 0] = value
            d[key] = _like(found, d[key])
        return d


class LossMapsd(MapTransform):
    """The maps that a loss names in ``needs``, made by the very functions that the loss would call, one per patch.

    Put it after every transform that moves the label; `SegLossTrainer` hands the maps on.  It goes with `CheckedLabeld`,
    whose mask it reads; `monai_segloss.transforms.map_transforms` has a transform per map, with options and metadata.  The
    spacing is that of the label's affine; without one distances count voxels, which a warning says.  Another warning says
    that the axes of the label are not at right angles, as under a gantry tilt: maps and losses measure along the axes.

    Args:
        loss: whatever the trainer trains with; a loss without ``needs`` adds nothing.
        num_classes: the label (1, *S) holds 0 to ``num_classes`` - 1; None: one channel per region (R, *S).
        which: ``"on_cpu"``: maps that only the CPU can make, which worker processes then make ahead of the training
            step; ``"all"``; ``"none"``: the loss makes its maps itself.
        key: of the label.
        mask_key: of the voxels that count, if there.

    Raises:
        ValueError: another ``which``.
    """

    def __init__(
        self, loss: Any, num_classes: int | None, which: str = "on_cpu", key: str = "label", mask_key: str = "mask"
    ) -> None:
        super().__init__(key)
        if which not in WHICH:
            raise ValueError(f"maps must be 'on_cpu', 'all' or 'none', got {which!r}.")
        self.specs = tuple(
            spec for spec in getattr(loss, "needs", ()) if which == "all" or (which == "on_cpu" and spec.on_cpu)
        )
        self.num_classes, self.mask_key = num_classes, mask_key
        self.measures = any(spec.in_mm for spec in getattr(loss, "needs", ()))

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The dictionary with a float32 map per need under its key."""
        d = dict(data)
        label = d[self.keys[0]]
        if self.measures and isinstance(label, MetaTensor) and sheared(label.affine):
            warnings.warn(
                f"{_name(label)} has axes that are not at right angles (a gantry tilt?): the loss takes distances for those "
                "of right angles. Resample: set spacing.",
                stacklevel=2,
            )
        if not self.specs:
            return d
        plain = countable(torch.as_tensor(label).as_subclass(Tensor))[None]
        valid = None
        if self.mask_key in d:
            valid = torch.as_tensor(d[self.mask_key]).as_subclass(Tensor)[None] > 0
        labels = self.num_classes is not None
        masks = plain > 0 if self.num_classes is None else class_masks(plain, self.num_classes, True)
        masks = masks if valid is None else masks & valid
        axes = plain.ndim - 2
        spacing = None
        if any(spec.in_mm for spec in self.specs):
            lengths = affine_spacing(label, plain)
            spacing = known_spacing(None if lengths is None else torch.tensor(lengths, dtype=torch.float64), axes)
        for spec in self.specs:
            background = labels and spec.exclusive  # which has no place in the channel of all classes
            d[spec.key] = spec.packed(masks[:, 1:] if background else masks, spacing, valid, labels)[0].float()
        return d


def sheared(affine: Tensor) -> bool:
    """Whether two axes of a grid are not perpendicular, as the slices under a gantry tilt."""
    axes = torch.nn.functional.normalize(affine.detach().cpu().double()[:-1, :-1], dim=0)
    return float((axes.T @ axes).triu(1).abs().max()) > SHEAR


def _like(x: Tensor, other: Any) -> Tensor:
    return MetaTensor(x, meta=deepcopy(other.meta)) if isinstance(other, MetaTensor) else x


def _name(x: Any, otherwise: str = "the label") -> str:
    return str(x.meta.get("filename_or_obj", otherwise)) if isinstance(x, MetaTensor) else otherwise


def _refuse_not_finite(output: Any) -> None:
    plain = torch.as_tensor(output).as_subclass(Tensor)
    wrong = not_finite(plain)
    if wrong:
        raise NotFiniteError(
            f"the network gives {wrong} of {plain.numel()} values that are NaN or infinite for "
            f"{_name(output, 'an image')}: its weights are broken, or the image is not normalized as in training."
        )


def _short(values: set[int]) -> str:
    """``0, 1, 2``, or the two ends of many."""
    ordered = sorted(values)
    return ", ".join(map(str, ordered)) if len(ordered) < 9 else f"{ordered[0]} to {ordered[-1]}"


def _refuse_other_grid(image: Any, label: Any) -> None:
    if image.shape[1:] != label.shape[1:]:
        raise DataError(f"{_name(label)} has shape {tuple(label.shape[1:])}, its image {tuple(image.shape[1:])}.")
    if isinstance(image, MetaTensor) and isinstance(label, MetaTensor):
        axes, rank = image.ndim - 1, image.affine.shape[-1] - 1  # two axes in space have an affine of three as well
        corners = torch.cartesian_prod(
            *(torch.tensor([0.0, size - 1]).double() for size in image.shape[1:]),
            *(torch.tensor([each]).double() for each in (*[0.0] * (rank - axes), 1.0)),
        )
        apart = float(((image.affine - label.affine).double() @ corners.T).norm(dim=0).max())
        voxel = float(voxel_lengths(image.affine, axes).min())
        if apart > voxel / 2:
            raise DataError(f"{_name(label)} lies {apart:.3g} mm away from its image: their headers differ.")
