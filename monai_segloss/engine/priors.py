"""Priors from the labels of a datalist, for a bundle whose loss wants one."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from monai.transforms import Compose
from numpy.typing import NDArray

from monai_segloss.core.sync import is_distributed
from monai_segloss.core.taps import NetworkShape
from monai_segloss.datalist import Datalist
from monai_segloss.prior import patches
from monai_segloss.prior.supply import file_of, found_or_made, refuse_leak, supply

ADVICE = "leave the argument prior out, and one is made of the training cases"


class DatalistPrior:
    """Gives a loss the priors that it wants: those in the folder of the run, made there of the training cases' labels.

    Nothing is read or made for a loss that wants none.  A training of a prior that was killed goes on.  Of several processes
    the first one makes it, and the others wait.

    Args:
        datalist: of the data set.
        fold: whose training cases a prior sees, see `Datalist.train_items`.
        transforms: from an item to the label (1, *S) of the training, before its random transforms, and to ``"mask"`` where
            voxels are ignored.
        folder: of the run.
        augmentation: of the labels, as the random transforms of the training have it; None: see `Augmentation`.
        steps: of the training of a prior; None: as many as usual.
        resume: take a prior that is there as it is; otherwise one of other settings is made again.

    Raises (when called):
        PriorError: a prior was trained for other classes, another patch or spacing, or on validation cases, or cannot be
            trained.
    """

    def __init__(
        self,
        datalist: Datalist,
        fold: int | str,
        transforms: Sequence[Callable[..., Any]],
        folder: str | Path,
        augmentation: patches.Augmentation | None = None,
        steps: int | None = None,
        resume: bool = False,
    ) -> None:
        self.datalist, self.fold, self.transforms = datalist, fold, transforms
        self.folder, self.augmentation, self.steps, self.resume = Path(folder), augmentation, steps, resume

    def __call__(self, loss: Any, shape: NetworkShape, device: torch.device) -> None:
        """Give a prepared loss its priors.

        Args:
            loss: prepared for `shape`.
            shape: of the network.
            device: to train a prior on.
        """
        rank = dist.get_rank() if is_distributed() else 0
        say = partial(print, flush=True)

        def made(kind: str) -> Path:
            if self.resume and file_of(kind, self.folder).is_file():
                if rank == 0:
                    say(f"prior {kind}: {file_of(kind, self.folder)}, from before")
                return file_of(kind, self.folder)
            more = (self.folder, self.steps, self.augmentation, device, rank, say)
            return found_or_made(kind, shape, self.labels(), *more)

        supply(loss, made)
        refuse_leak(loss, *self.datalist.split_names(self.fold), self.fold, ADVICE)

    def labels(self) -> patches.Labels:
        """The labels of the training cases, each read once and then kept compressed."""
        known, transform = self.datalist.labels, Compose(list(self.transforms))
        items, kept = (
            self.datalist.named(self.datalist.train_items(self.fold)),
            dict[str, tuple[bytes, tuple[int, ...]]](),
        )

        def load(case: str) -> NDArray[np.integer]:
            if case not in kept:
                found = transform(dict(items[case]))
                label = torch.as_tensor(found["label"]).numpy()[0].astype(np.uint16)
                if known.ignore is not None:
                    label[torch.as_tensor(found["mask"]).numpy()[0] == 0] = known.ignore
                kept[case] = zlib.compress(label.tobytes(), 1), label.shape
            packed, shape = kept[case]
            return np.frombuffer(zlib.decompress(packed), np.uint16).reshape(shape).astype(np.int32)

        channels = known.regions or tuple((label,) for label in range(known.channels))
        ignored = () if known.ignore is None else (known.ignore,)
        return patches.Labels(tuple(items), load, channels, bool(known.regions), ignored)
