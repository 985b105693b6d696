"""Probabilities of a network on disk, where nnU-Net and `segloss compare` read them."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform
from torch import Tensor

from monai_segloss.datalist import Labels, case_name
from monai_segloss.files import atomic


class SaveProbabilitiesd(MapTransform):
    """Write the outputs of the network (C, X, Y, Z) as ``CASE.npz``, as nnU-Net does, and hand them on as they are.

    The file holds ``probabilities``, float32 (C, Z, Y, X): softmax of classes, background first, or sigmoid of each region.

    Args:
        keys: of the outputs, logits.
        labels: of the data set.
        output_dir: folder, made if missing.
        allow_missing_keys: skip a key that is not there.
    """

    def __init__(
        self, keys: KeysCollection, labels: Labels, output_dir: str | Path, allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.labels, self.output_dir = labels, Path(str(output_dir))

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The dictionary as it came."""
        d = dict(data)
        for key in self.key_iterator(d):
            logits = torch.as_tensor(d[key]).as_subclass(Tensor).float()
            found = logits.sigmoid() if self.labels.regions else logits.softmax(0)
            name = case_name(getattr(d[key], "meta", None))
            with atomic(self.output_dir / f"{name}.npz") as part, open(part, "wb") as stream:
                np.savez_compressed(stream, probabilities=found.cpu().numpy().transpose(0, 3, 2, 1))
        return d
