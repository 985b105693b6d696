"""The maps as MONAI transforms: spacing, metadata, caching, workers, keys."""

from __future__ import annotations

import importlib.util
import pickle
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import CacheDataset, DataLoader, MetaTensor
from monai.transforms import Compose, RandFlipd, RandSpatialCropd, Spacingd
from monai.utils import set_determinism
from torch import Tensor

import monai_segloss
from monai_segloss import maps, transforms
from monai_segloss.core.maps import MapSpec
from monai_segloss.core.spacing import affine_spacing, voxel_lengths
from monai_segloss.datalist import Labels
from monai_segloss.engine import CheckedLabeld, LossMapsd, metrics
from monai_segloss.transforms import (
    BorderWeightMapd,
    ComponentCellMapd,
    ComponentMapd,
    ContourMap,
    DistanceFieldd,
    LabelMap,
    LabelMapd,
    SignedDistanceMap,
    SignedDistanceMapd,
)

PAIRS = [
    (each, getattr(transforms, f"{name}d"))
    for name, each in vars(transforms).items()
    if isinstance(each, type) and issubclass(each, LabelMap) and each is not LabelMap
]
INSTALLED = [pair for pair in PAIRS if "Skeleton" not in pair[0].__name__ or importlib.util.find_spec("skimage")]
STEPS = (3.0, 1.0, 0.5)


def label(classes: int = 3, shape: tuple[int, ...] = (6, 7, 8), seed: int = 0) -> MetaTensor:
    """Labels with a spacing of their own along each axis, and a rotated affine."""
    coarse = torch.randint(0, classes, (1, 3, 4, 4), generator=torch.Generator().manual_seed(seed))
    x = coarse.repeat_interleave(2, 1).repeat_interleave(2, 2).repeat_interleave(2, 3)[:, : shape[0], : shape[1]]
    turn = torch.tensor([[0.8, -0.6, 0.0], [0.6, 0.8, 0.0], [0.0, 0.0, 1.0]]).double()
    affine = torch.eye(4).double()
    affine[:3, :3] = turn @ torch.diag(torch.tensor(STEPS).double())
    affine[:3, 3] = 5.0
    return MetaTensor(x, affine=affine, meta={"filename_or_obj": "case.nii.gz"})


def test_every_map_is_there_twice() -> None:
    assert len(PAIRS) == 10
    for array, dictionary in PAIRS:
        assert dictionary.of is array
        assert array.key


@pytest.mark.parametrize(("array", "dictionary"), INSTALLED, ids=lambda x: x.__name__)
def test_maps_of_labels_and_of_their_masks_agree(array: type[LabelMap], dictionary: type[LabelMapd]) -> None:
    given = label()
    background = array.background
    of_label = dictionary("label", num_classes=3)({"label": given})[array.key]
    masks = maps.class_masks(given.as_tensor()[None], 3, background)[0]
    if array.instances:
        masks[0] = False
    of_masks = array()(MetaTensor(masks.float(), meta=given.meta))
    torch.testing.assert_close(of_label, of_masks)
    assert isinstance(of_label, MetaTensor)
    assert of_label.shape[1:] == given.shape[1:]


@pytest.mark.parametrize(("array", "dictionary"), INSTALLED, ids=lambda x: x.__name__)
def test_metadata_stays_and_the_label_too(array: type[LabelMap], dictionary: type[LabelMapd]) -> None:
    data = {"label": label(), "image": torch.zeros(1)}
    before = data["label"].clone()
    out = dictionary("label", output_keys="out", num_classes=3)(data)
    assert set(data) == {"label", "image"}
    assert torch.equal(out["label"], before)
    assert torch.equal(out["out"].affine, before.affine)
    assert out["out"].meta["filename_or_obj"] == "case.nii.gz"
    out["out"].meta["filename_or_obj"] = "other"
    assert out["label"].meta["filename_or_obj"] == "case.nii.gz"
    again = pickle.loads(pickle.dumps(dictionary("label", num_classes=3)))
    assert torch.equal(again(data)[array.key], out["out"])


def test_the_spacing_is_that_of_the_affine_in_the_order_of_the_axes() -> None:
    given = label()
    masks = maps.class_masks(given.as_tensor()[None], 3)
    expected = maps.signed_distance_map(masks, torch.tensor(STEPS))[0]
    found = SignedDistanceMap(num_classes=3)(given)
    torch.testing.assert_close(found.as_tensor(), expected)
    nominal = SignedDistanceMap(num_classes=3, spacing=(1.0, 2.0, 4.0))(given)
    torch.testing.assert_close(nominal.as_tensor(), maps.signed_distance_map(masks, torch.tensor([1.0, 2.0, 4.0]))[0])
    voxels = SignedDistanceMap(num_classes=3, spacing=None)(given)
    torch.testing.assert_close(voxels.as_tensor(), maps.signed_distance_map(masks)[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_everything_reads_one_spacing_from_an_affine(dtype: torch.dtype) -> None:
    """The loss, the transforms of the loader and the metrics measure in the same millimeters, to the last bit."""
    given, found = label(), []
    given.affine = given.affine.to(dtype)

    class Needy:
        needs = (MapSpec("x", lambda masks, spacing, valid: found.append(spacing) or masks, on_cpu=True),)

    LossMapsd(Needy(), 3)({"label": given})
    found.append(SignedDistanceMap()._spacing(given, 3))
    found.append(torch.tensor(metrics._spacing(given[None])[0], dtype=torch.float64))
    found.append(torch.tensor(affine_spacing(given[None], given[None]), dtype=torch.float64))
    assert found[0].dtype == torch.float64
    torch.testing.assert_close(found[0], torch.tensor(STEPS, dtype=torch.float64))
    assert all(torch.equal(other, found[0]) for other in found[1:])
    assert voxel_lengths(torch.stack([torch.eye(4), 2 * torch.eye(4)]), 2).tolist() == [[1, 1], [2, 2]]


def test_a_two_dimensional_image_with_an_affine_of_three() -> None:
    x = MetaTensor(torch.tensor([[[0, 0, 1], [0, 0, 1]]]), affine=torch.diag(torch.tensor([5.0, 0.5, 1.0, 1.0])))
    assert SignedDistanceMap(num_classes=2, include_background=False)(x)[0, 0].tolist() == [1.0, 0.5, 0.0]


def test_without_metadata_it_says_that_a_voxel_is_a_millimeter() -> None:
    plain = label().as_tensor()
    with pytest.warns(UserWarning, match="no MetaTensor"):
        found = SignedDistanceMap(num_classes=3)(plain)
    assert type(found) is Tensor
    torch.testing.assert_close(found, SignedDistanceMap(num_classes=3, spacing=None)(plain.numpy()))
    ContourMap(num_classes=3)(plain)  # measures nothing, so it has nothing to say
    LossMapsd(monai_segloss.BlobLoss(), 3)({"label": plain})
    with pytest.warns(UserWarning, match="no voxel spacing came"):
        LossMapsd(monai_segloss.BoundaryLoss(), 3, "all")({"label": plain})


@pytest.mark.parametrize(
    "affine",
    [torch.zeros(4, 4), torch.diag(torch.tensor([1.0, 0.0, 1.0, 1.0])), torch.eye(3)],
    ids=["0", "flat", "3x3"],
)
def test_an_affine_without_lengths_is_none(affine: Tensor) -> None:
    """As in the loss: no voxel is 0 mm long, and distances are no NaN."""
    given = MetaTensor(label().as_tensor(), affine=affine)
    expected = SignedDistanceMap(num_classes=3, spacing=None)(given).as_tensor()
    with pytest.warns(UserWarning, match="affine"):
        found = SignedDistanceMap(num_classes=3)(given)
    torch.testing.assert_close(found.as_tensor(), expected)
    with pytest.warns(UserWarning, match="no voxel spacing came"):
        (made,) = LossMapsd(monai_segloss.BoundaryLoss(), 3, "all")({"label": given})["sdm"][None]
    torch.testing.assert_close(made, expected)


def test_resampling_changes_the_distances_and_not_their_scale() -> None:
    chain = Compose(
        [Spacingd("label", pixdim=(1.0, 1.0, 1.0), mode="nearest"), SignedDistanceMapd("label", num_classes=3)]
    )
    coarse = SignedDistanceMapd("label", num_classes=3)({"label": label()})["sdm"]
    fine = chain({"label": label()})["sdm"]
    assert fine.shape[1] > coarse.shape[1]
    assert fine.pixdim.tolist() == pytest.approx([1.0, 1.0, 1.0])
    assert float(fine.max()) == pytest.approx(float(coarse.max()), abs=4.0)


def test_lazy_transforms_are_applied_first() -> None:
    steps = [Spacingd("label", pixdim=(1.0, 1.0, 1.0), mode="nearest"), SignedDistanceMapd("label", num_classes=3)]
    for lazy in ({}, {"lazy": True, "overrides": {"label": {"mode": "nearest"}}}):
        found = Compose(steps, **lazy)({"label": label()})
        torch.testing.assert_close(found["sdm"], SignedDistanceMap(num_classes=3)(found["label"]))
        assert found["sdm"].shape[1:] == found["label"].shape[1:] != label().shape[1:]


def test_labels_that_lazy_transforms_interpolate_are_refused() -> None:
    """MONAI 1.6 forgets the mode of a lazy transform: a label of fractions was in no class."""
    linear, lazy = (
        Compose([Spacingd("label", pixdim=(1.0, 1.0, 1.0), mode=mode)], lazy=mode == "nearest")({"label": label()})
        for mode in ("bilinear", "nearest")
    )
    assert bool((linear["label"] != linear["label"].round()).any())
    for found in (linear["label"], lazy["label"]):
        whole = bool((found == found.round()).all())  # lazy in a MONAI that keeps the mode
        refused = pytest.raises(ValueError, match=r"mode='nearest'.*overrides of Compose")
        with nullcontext() if whole else refused:
            SignedDistanceMap(num_classes=3)(found)


def chain() -> Compose:
    """A map made once per volume, and one made of each patch."""
    keys = ["label", "sdm"]
    return Compose(
        [
            SignedDistanceMapd("label", num_classes=3),
            RandSpatialCropd(keys, roi_size=(4, 4, 4), random_size=False),
            RandFlipd(keys, prob=0.5, spatial_axis=0),
            SignedDistanceMapd("label", output_keys="of_patch", num_classes=3),
            DistanceFieldd("label", num_classes=3),
        ]
    )


@pytest.mark.parametrize("workers", [0, 2])
def test_cached_and_in_workers(workers: int) -> None:
    data = [{"label": label(seed=i)} for i in range(4)]
    set_determinism(0)
    try:
        cached = CacheDataset(data, chain(), progress=False, num_workers=1)
        loader = DataLoader(cached, batch_size=2, num_workers=workers)
        batches = list(loader)
    finally:
        set_determinism(None)
    assert len(batches) == 2
    for batch in batches:
        assert batch["sdm"].shape == (2, 3, 4, 4, 4)
        assert batch["label"].meta["filename_or_obj"] == ["case.nii.gz"] * 2
        for b in range(2):
            mask = maps.class_masks(batch["label"][b][None].as_tensor(), 3)
            expected = maps.signed_distance_map(mask, torch.tensor(STEPS))[0]
            torch.testing.assert_close(batch["of_patch"][b].as_tensor(), expected)
        inside = maps.class_masks(batch["label"].as_tensor(), 3)
        assert (batch["sdm"].as_tensor()[inside] <= 0).all(), "a map of the volume moves with its label"


def test_several_keys_and_missing_ones() -> None:
    data = {"a": label(seed=1), "b": label(seed=2)}
    out = SignedDistanceMapd(["a", "b"], num_classes=3)(data)
    assert {"a_sdm", "b_sdm"} <= set(out)
    assert not torch.equal(out["a_sdm"], out["b_sdm"])
    found = SignedDistanceMapd(["a", "c"], output_keys=["x", "y"], allow_missing_keys=True, num_classes=3)(data)
    assert "x" in found
    assert "y" not in found
    with pytest.raises(KeyError):
        SignedDistanceMapd("c", num_classes=3)(data)


def test_ignored_voxels_make_no_boundary() -> None:
    x = torch.zeros(1, 1, 20, dtype=torch.int64)
    x[..., 8:], x[..., 14:16] = 1, 255
    found = SignedDistanceMap(num_classes=2, spacing=None, ignore_index=255)(x)
    whole = SignedDistanceMap(num_classes=2, spacing=None)(torch.where(x == 255, 1, x))
    assert torch.equal(found, whole.masked_fill(x == 255, 0))


def test_a_label_that_the_type_cannot_hold_is_not_ignored() -> None:
    """torch compares uint8 with 256 as with 0, the background."""
    given = label().to(torch.uint8)
    assert torch.equal(SignedDistanceMap(3, ignore_index=256)(given), SignedDistanceMap(3)(given))
    with pytest.raises(ValueError, match="value 255 came"):
        SignedDistanceMap(3, ignore_index=-1)(torch.where(given == 1, 255, given))


def test_labels_of_numpy_of_any_width_and_spacing_of_numpy() -> None:
    given = label()
    expected = SignedDistanceMap(3, spacing=STEPS)(given.as_tensor())
    for dtype in (np.uint16, np.uint32, np.int8, np.float32):
        found = SignedDistanceMap(3, spacing=np.asarray(STEPS))(given.numpy().astype(dtype))
        assert torch.equal(found, expected)
        checked = CheckedLabeld("label", Labels(("a", "b")), image_key=None)({"label": given.numpy().astype(dtype)})
        assert checked["label"].dtype == torch.uint8
        assert torch.equal(checked["label"].long(), given.as_tensor().long())


def test_what_a_transform_makes_a_loss_takes() -> None:
    given = label()
    batch = {"label": given.as_tensor()[None]}
    logits = torch.randn(1, 3, *given.shape[1:], generator=torch.Generator().manual_seed(0))
    reading: dict[str, Any] = {"softmax": True, "to_onehot_y": True}
    steps = ComponentCellMapd("label", num_classes=3)(ComponentMapd("label", num_classes=3)({"label": given}))
    for key, name in (("blob", "components"), ("cc_dice_ce", "cells")):
        loss = monai_segloss.create(key, **reading)
        sent = loss(logits, {**batch, name: steps[name].as_tensor()[None]})
        torch.testing.assert_close(sent, loss(logits, batch["label"], spacing=STEPS))
    weighted = BorderWeightMapd("label", num_classes=3)({"label": given})
    monai_segloss.create("cross_entropy", **reading)(logits, {**batch, "weight_map": weighted["weight_map"][None]})


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda: SignedDistanceMap(3, modes="none"), TypeError, "'modes'; did you mean 'mode'"),
        (lambda: SignedDistanceMap(3, mode="nine"), ValueError, "mode must be one of"),
        (lambda: SignedDistanceMap(3, spacing="mm"), ValueError, "spacing.*'mm'"),
        (lambda: SignedDistanceMap(3, spacing=(1.0, 2.0))(label()), ValueError, "expected 3 positive"),
        (lambda: SignedDistanceMap(3, spacing=(1.0, 2.0, 0.0)), ValueError, "spacing must be positive numbers"),
        (lambda: SignedDistanceMap(3, spacing=("1 mm",)), ValueError, "spacing must be positive numbers"),
        (lambda: SignedDistanceMap(mode="nine"), ValueError, "mode must be one of"),
        (lambda: SignedDistanceMap("3"), ValueError, "num_classes must be .* at least 1, got '3'"),  # type: ignore[arg-type]
        (lambda: SignedDistanceMap(1, include_background=False), ValueError, "num_classes .* at least 2"),
        (lambda: SignedDistanceMap(2)(label()), ValueError, "value 2 came.*num_classes=2 expected labels 0 to 1"),
        (lambda: SignedDistanceMap(3)(0.7 * label()), ValueError, r"value \d\.\d+ came.*mode='nearest'"),
        (lambda: SignedDistanceMap(3)(torch.nan * label()), ValueError, "value nan came"),
        (lambda: SignedDistanceMap()(label()), ValueError, "value 2 came.*For labels give num_classes"),
        (lambda: SignedDistanceMap(3)(torch.zeros(2, 4, 4)), ValueError, r"\(2, 4, 4\).*num_classes=3"),
        (lambda: ContourMap(3, width=0), ValueError, "width"),
        (lambda: SignedDistanceMapd(["a", "b"], output_keys=["x"]), ValueError, "output_keys"),
        (lambda: SignedDistanceMapd(["a", "b"], output_keys=["x", "x"]), ValueError, "output_keys"),
    ],
)
def test_what_is_wrong_is_said(call: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        call()


def test_numpy_comes_in_and_float32_goes_out() -> None:
    x = np.zeros((1, 4, 5), dtype=np.uint8)
    x[0, 2:] = 1
    found = SignedDistanceMap(num_classes=2, spacing=(0.4, 1.0))(x)
    assert found.dtype == torch.float32
    assert found[1, :, 0].tolist() == pytest.approx([0.8, 0.4, 0.0, -0.4])
