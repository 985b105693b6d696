"""From the label maps of several raters to one soft label."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from copy import deepcopy
from typing import Any

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, Transform
from monai.utils import TransformBackends
from torch import Tensor

from monai_segloss.core.check import is_label


class RaterLabels(Transform):
    """The share of the raters who gave each class at each voxel, a soft label.

    Put it after loading and before the spatial transforms, which then interpolate it linearly like the image.

    Args:
        num_classes: labels run from 0, the background, to ``num_classes`` - 1.
        ignore_index: voxels of this label a rater left out: the share is that among the others, and 0 for every class where
            all left it out.

    Raises:
        ValueError: of the call, another label, with the number of its voxels.

    Example:
        >>> import torch
        >>> from monai_segloss.transforms import RaterLabels
        >>> RaterLabels(num_classes=2)(torch.tensor([[0, 1, 1], [0, 0, 1]])).tolist()
        [[1.0, 0.5, 0.0], [0.0, 0.5, 1.0]]
    """

    backend = (TransformBackends.TORCH,)

    def __init__(self, num_classes: int, ignore_index: int | None = None) -> None:
        if num_classes < 2:
            raise ValueError(f"num_classes must be at least 2, got {num_classes!r}.")
        self.num_classes, self.ignore_index = num_classes, ignore_index

    def __call__(self, img: Any) -> Tensor:
        """Label maps (raters, *S) to a soft label (classes, *S); a MetaTensor gives a MetaTensor."""
        maps = torch.as_tensor(img).as_subclass(Tensor)
        left_out = torch.zeros_like(maps, dtype=torch.bool)
        if self.ignore_index is not None:
            left_out = is_label(maps, self.ignore_index)
        votes = torch.stack([(maps == label) & ~left_out for label in range(self.num_classes)])
        strange = ~left_out & ~votes.any(0)
        if bool(strange.any()):
            raise ValueError(
                f"RaterLabels: the label {float(maps[strange][0]):g} came, at {int(strange.sum())} voxels; expected 0 to "
                f"{self.num_classes - 1}."
            )
        shares = votes.sum(1) / (~left_out).sum(0).clamp(min=1)
        return MetaTensor(shares, meta=deepcopy(img.meta)) if isinstance(img, MetaTensor) else shares


class RaterLabelsd(MapTransform):
    """`RaterLabels` of a dictionary; ``LoadImaged`` makes the channels of a list of files.

    Args:
        keys: of the label maps (raters, *S), which the soft labels replace.
        mask_key: key for the voxels (1, *S) that at least one rater labeled, which losses take as ``mask``; None: no mask.
        allow_missing_keys: skip a key that is not there.
        options: as for `RaterLabels`.
    """

    backend = RaterLabels.backend

    def __init__(
        self, keys: KeysCollection, mask_key: str | None = None, allow_missing_keys: bool = False, **options: Any
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        if mask_key is not None and len(self.keys) > 1:
            raise ValueError(f"mask_key is {mask_key!r}: give it for one key at a time, got {self.keys}.")
        self.mask_key, self.converter = mask_key, RaterLabels(**options)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The dictionary with soft labels in place of label maps."""
        d = dict(data)
        for key in self.key_iterator(d):
            d[key] = self.converter(d[key])
            if self.mask_key is not None:
                d[self.mask_key] = d[key].sum(0, keepdim=True) > 0
        return d
