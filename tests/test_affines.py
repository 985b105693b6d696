"""A spacing read from an affine is that of the voxels, or it is refused; ``spacing`` always wins."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from monai.data import MetaTensor, list_data_collate
from monai.transforms import (
    EnsureChannelFirst,
    Flip,
    LoadImage,
    Orientation,
    ResizeWithPadOrCrop,
    Rotate,
    Rotate90,
    Spacing,
    SpatialCrop,
    SqueezeDim,
    Transpose,
)
from torch import Tensor

import monai_segloss
from monai_segloss.core.spacing import SpacingError, affine_spacing
from monai_segloss.transforms import SignedDistanceMapd

STEPS = (1.0, 2.0, 5.0)
SIZES = (9, 8, 7)
LOSSES = monai_segloss.list_losses()


@pytest.fixture
def label(tmp_path: Path) -> MetaTensor:
    """A label (1, 9, 8, 7) as MONAI reads it."""
    array = np.zeros(SIZES, np.uint8)
    array[2:6, 2:5, 1:4] = 1
    nibabel.save(nibabel.Nifti1Image(array, np.diag([*STEPS, 1.0])), tmp_path / "label.nii.gz")
    return EnsureChannelFirst()(LoadImage()(tmp_path / "label.nii.gz"))


def read(*labels: Tensor) -> list[list[float]]:
    batch = list_data_collate([{"label": x} for x in labels])["label"]
    return affine_spacing(batch, batch)  # type: ignore[return-value]


KEPT: list[tuple[Callable[[MetaTensor], Tensor], tuple[float, ...]]] = [
    (lambda x: x, STEPS),
    (Orientation("SRA", labels=None), (5.0, 1.0, 2.0)),
    (Flip(1), STEPS),
    (Rotate90(k=1, spatial_axes=(0, 2)), (5.0, 2.0, 1.0)),
    (lambda x: Orientation("ASR", labels=None)(Flip((0, 2))(x)), (2.0, 5.0, 1.0)),
    (SpatialCrop(roi_slices=[slice(0, 7), slice(0, 8), slice(0, 7)]), STEPS),
    (lambda x: x[:, :, 2:7, 1:5], STEPS),
    (lambda x: SqueezeDim(3)(x[..., :1]), STEPS[:2]),
    (lambda x: x[..., 2], STEPS[:2]),
    (Spacing((2.0, 2.0, 2.0), mode="nearest"), (2.0, 2.0, 2.0)),
    (ResizeWithPadOrCrop((12, 12, 12)), STEPS),
]
MOVED: list[Callable[[MetaTensor], Tensor]] = [
    lambda x: x.permute(0, 3, 1, 2),
    lambda x: x.transpose(1, 3),
    Transpose((0, 3, 1, 2)),
    lambda x: Orientation("SRA", labels=None)(x).transpose(1, 2),
    lambda x: x[:, 3],
    lambda x: x[:, :, 3],
]


@pytest.mark.parametrize("change", range(len(KEPT)))
def test_what_transforms_do_to_the_spacing(label: MetaTensor, change: int) -> None:
    make, expected = KEPT[change]
    found = make(label)
    assert read(found, found) == [pytest.approx(expected, rel=1e-6)] * 2


def test_a_rotation_by_an_angle_is_believed(label: MetaTensor) -> None:
    assert read(Rotate((0.2, 0.0, 0.0), mode="nearest")(label))[0] == pytest.approx(STEPS, rel=0.3)


@pytest.mark.parametrize("change", range(len(MOVED)))
def test_exchanged_axes_are_refused_and_spacing_wins(label: MetaTensor, change: int) -> None:
    moved = MOVED[change](label)
    with pytest.raises(
        SpacingError, match=r"target has the spatial shape \(.*\), its affine belongs to \(.*pass spacing="
    ):
        read(moved, moved)
    target = moved[None]
    logits = torch.randn(1, 2, *target.shape[2:], generator=torch.Generator().manual_seed(0))
    loss = monai_segloss.HausdorffDTLoss(softmax=True, to_onehot_y=True)
    steps = (5.0, 2.0, 1.0)[: target.ndim - 2]
    assert loss(logits, target, spacing=steps) == loss(logits, target.as_tensor(), spacing=steps)
    with pytest.raises(SpacingError):
        loss(logits, target)


NARROW = torch.diag(torch.tensor([6e-17, 1.0, 1.0, 1.0], dtype=torch.float64))


@pytest.mark.parametrize("affine", [NARROW, 1e-5 * torch.eye(4), torch.diag(torch.tensor([1.0, 2e3, 1.0, 1.0]))])
@pytest.mark.parametrize("info", LOSSES, ids=lambda info: info.key)
def test_lengths_of_no_scanner(info: monai_segloss.LossInfo, affine: Tensor) -> None:
    """A loss that measures refuses them, another one has its value; with ``spacing`` both go on."""
    edge = max(8, info.size)
    labels = torch.zeros(1, 1, edge, edge, dtype=torch.long)
    labels[..., 2:5, 1:4], labels[..., 6:, 6:] = 1, 1
    logits = torch.randn(1, 2, edge, edge, generator=torch.Generator().manual_seed(0))
    target = labels if "labels" in info.support else torch.cat([labels, 1 - labels], 1)
    loss = info.cls(**info.example, **(info.reading if target is labels else {"sigmoid": True}))
    given = MetaTensor(target, affine=affine)
    plain = loss(logits, target, spacing=(1.0, 1.0))
    assert loss(logits, given, spacing=(1.0, 1.0)) == plain
    if torch.equal(loss(logits, target, spacing=(1.0, 40.0)), plain):  # it measures nothing
        assert loss(logits, given) == plain
        return
    with pytest.raises(SpacingError, match=r"outside of 0\.0001 to 1000 mm"):
        loss(logits, given)


def test_maps_refuse_them_too() -> None:
    made = SignedDistanceMapd("label", output_keys="sdm")
    with pytest.raises(SpacingError, match="6e-17 x 1 mm"):
        made({"label": MetaTensor(torch.ones(1, 4, 4), affine=NARROW)})


def test_an_affine_that_nobody_gave_says_nothing(label: MetaTensor) -> None:
    """A cache that keeps plain tensors, and a later transform that makes MetaTensors again, of 1 mm."""
    again = Flip(0)(label.as_tensor())
    logits = torch.randn(1, 2, *SIZES, generator=torch.Generator().manual_seed(0))
    loss = monai_segloss.BoundaryLoss(softmax=True, to_onehot_y=True)
    with pytest.warns(UserWarning, match="no voxel spacing came"):
        loss(logits, again[None])
    image = MetaTensor(logits, affine=label.affine)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert loss(image, again[None]) == loss(logits, again[None], spacing=STEPS)
        label.affine = torch.eye(4)
        assert loss(logits, label[None]) == loss(logits, label[None], spacing=(1.0, 1.0, 1.0))  # the file says so
