"""Reading: MONAI's input arguments, once, from ``(input, target)`` to a `SegBatch` that every loss shares."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from monai_segloss.core import check
from monai_segloss.core.batch import SegBatch
from monai_segloss.core.counts import Activation
from monai_segloss.core.neighbors import window
from monai_segloss.core.spacing import SpacingError, affine_spacing, spacing_rows
from monai_segloss.core.spacing import spacing as check_spacing

ROUNDING = 1e-2
"""How far probabilities in half precision, or interpolated ones, may lie outside of [0, 1]."""


class Reader:
    """Reads ``(input, target)`` as MONAI's arguments say.

    The order is fixed: check, then zero the logits of ignored voxels, then activate all channels, then resolve ignored
    labels; a background channel drops last, in `SegBatch.class_view`, never before a softmax.  With ``neighbors`` each logit
    gives way to the worst one of its class in the window before the activation, see `SegBatch.with_neighbors`.

    Args:
        to_onehot_y: the target holds labels (B, 1, *S) or (B, *S).
        sigmoid: apply a sigmoid to ``input``.
        softmax: apply a softmax over the channels of ``input``.
        other_act: any other function from ``input`` to probabilities.
        ignore_index: voxels of this label have no influence; for a target of one channel per class, the voxels of that
            channel.
        neighbors: odd width of the window, in voxels; 1: each voxel by itself.
    """

    def __init__(
        self,
        to_onehot_y: bool = False,
        sigmoid: bool = False,
        softmax: bool = False,
        other_act: Callable[[Tensor], Tensor] | None = None,
        ignore_index: int | None = None,
        neighbors: int = 1,
    ) -> None:
        if other_act is not None and not callable(other_act):
            raise TypeError(f"other_act must be None or callable but is {type(other_act).__name__}.")
        if int(sigmoid) + int(softmax) + int(other_act is not None) > 1:
            raise ValueError("Incompatible values: more than 1 of [sigmoid=True, softmax=True, other_act is not None].")
        self.to_onehot_y, self.sigmoid, self.softmax = to_onehot_y, sigmoid, softmax
        if ignore_index is not None and ignore_index != ignore_index // 1:
            raise ValueError(f"ignore_index must be a whole number or None, got {ignore_index!r}.")
        self.other_act, self.ignore_index = other_act, None if ignore_index is None else int(ignore_index)
        self.neighbors = window(neighbors)
        self.probabilities = True  # whether a loss takes the input as such where no activation is given
        self._seen: set[tuple[Any, ...]] = set()
        self._looked = False

    def activation(self, channels: int) -> Activation:
        """What turns ``input`` into probabilities."""
        if self.softmax and channels == 1:
            warnings.warn("single channel prediction, `softmax=True` ignored.", stacklevel=6)
            return "none"
        return "softmax" if self.softmax else "sigmoid" if self.sigmoid else self.other_act or "none"

    def read(
        self,
        input: Tensor,
        target: Tensor | Mapping[str, Tensor],
        mask: Tensor | None = None,
        spacing: Any = None,
        maps: Mapping[str, Tensor] | None = None,
    ) -> SegBatch:
        """Check and read one batch; see `SegLoss.forward` for the arguments."""
        maps = {name: plain(x) for name, x in (maps or {}).items() if x is not None}
        if isinstance(target, Mapping):
            target, mask, maps = _unpack(target, mask, maps)
        doubt = None
        if spacing is None:
            try:
                spacing = affine_spacing(target, input)
            except SpacingError as error:  # a loss without lengths does not mind
                doubt = error
        input, target = plain(input), plain(target)
        check.tensors(input, target)
        target = check.no_wider(target, input)
        for name, x in maps.items():
            check.tensor(name, x)
        labels = self.to_onehot_y and input.shape[1] > 1
        if self.to_onehot_y and input.shape[1] == 1:
            warnings.warn("single channel prediction, `to_onehot_y=True` ignored.", stacklevel=5)
        target = check.labels_shape(input, target) if labels else check.channels_shape(input, target)
        valid = None if mask is None else check.mask(plain(mask), input)
        ignored = self._ignored(target, labels)
        if ignored is not None:
            valid = ~ignored if valid is None else valid & ~ignored
            if not labels and target.shape[1] == 1:
                target = torch.where(ignored[:, None], target.new_zeros(()), target)
        self._check_values(target, labels, input.shape[1], valid)
        lengths = check_spacing(plain(spacing), input)
        activation = self.activation(input.shape[1])
        if activation == "none" and self.probabilities:
            self._look_for_logits(input)
        return SegBatch(input, target, valid, activation, doubt or lengths, maps, spacing_rows(spacing))

    def _ignored(self, target: Tensor, labels: bool) -> Tensor | None:
        if self.ignore_index is None:
            return None
        if labels:
            return check.is_label(target, self.ignore_index)
        if target.shape[1] == 1:
            return check.is_label(target[:, 0], self.ignore_index)
        return target[:, self.ignore_index] > 0 if 0 <= self.ignore_index < target.shape[1] else None

    def _look_for_logits(self, input: Tensor) -> None:
        """Warn where what is read as probabilities cannot be; in the first batch of a loss only, which costs nothing."""
        if self._looked or torch.compiler.is_compiling():
            return
        self._looked = True
        found = _beyond_probability(input)
        if found is not None:
            warnings.warn(
                f"input holds {found:g} but no activation is given, so that it is read as probabilities: pass softmax=True "
                "or sigmoid=True for logits.",
                stacklevel=6,
            )

    def _check_values(self, target: Tensor, labels: bool, classes: int, valid: Tensor | None) -> None:
        """On the CPU always; on other devices once per shape, so that a training step never waits for the device."""
        if torch.compiler.is_compiling():
            check.values_in_graph(target, labels, classes, valid)
            return
        if target.device.type != "cpu":
            key = (target.shape, target.dtype, labels, classes)
            if key in self._seen:
                return
            self._seen.add(key)
        check.values(target, labels, classes, valid, self.ignore_index)


def plain(x: Tensor) -> Tensor:
    """``x`` as autograd can keep it: without a subclass such as MONAI's MetaTensor, copied if made in inference mode."""
    if torch.compiler.is_compiling() or not isinstance(x, Tensor):
        return x
    x = x if type(x) is Tensor else x.as_subclass(Tensor)
    return x.clone() if x.is_inference() and not torch.is_inference_mode_enabled() else x


def _beyond_probability(input: Tensor) -> float | None:
    """A value that no probability has, if there is one; rounding aside."""
    low, high = (float(x) for x in input.detach().aminmax())
    worst = low if low < 1 - high else high
    return worst if not -ROUNDING <= worst <= 1 + ROUNDING else None


def _unpack(
    target: Mapping[str, Tensor], mask: Tensor | None, maps: dict[str, Tensor]
) -> tuple[Tensor, Tensor | None, dict[str, Tensor]]:
    if "label" not in target:
        raise ValueError(f"target is a mapping with keys {sorted(target)}; expected a key 'label'.")
    clash = sorted(set(target) & set(maps) | ({"mask"} if mask is not None and "mask" in target else set()))
    if clash:
        raise ValueError(f"target and the keyword arguments both give {clash}; give each once.")
    rest = {name: plain(x) for name, x in target.items() if name not in ("label", "mask") and x is not None}
    return target["label"], target.get("mask", mask), {**maps, **rest}
