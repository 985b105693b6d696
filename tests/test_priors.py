"""Priors: label patches, training that is killed and goes on, files, and what losses refuse."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_reference import compare
from torch import nn

import monai_segloss
from monai_segloss import BottleneckMatchLoss, InverseFormLoss, LatentShapeLoss, NetworkShape, WeightedSum
from monai_segloss.core.companions import Frozen
from monai_segloss.core.prior import Prior, PriorError, read_prior, save_prior
from monai_segloss.core.taps import Tap
from monai_segloss.losses.learned import boundary_dice
from monai_segloss.prior import objectives, train
from monai_segloss.prior.boundaries import soft_boundary, tiles
from monai_segloss.prior.networks import (
    LabelAutoEncoder,
    TransformRegressor,
    loaded,
    strides_of,
    strides_to,
    untrained,
)
from monai_segloss.prior.patches import Augmentation, Labels, Patches, View, rotation
from monai_segloss.prior.train import train_prior
from monai_segloss.testing import cases

SHAPE = NetworkShape(3, (16, 16, 16), spacing=(1.5, 1.0, 1.0), taps={"bottleneck": Tap("", 8, (4, 4, 4))})
KEYS = ["latent_shape", "inverse_form", "bottleneck_match"]
COMMON: dict[str, Any] = {"softmax": True, "to_onehot_y": True}


def volume(case: str) -> np.ndarray:
    """Labels of a ball with a core, somewhere in the middle."""
    rng = np.random.default_rng(int(case))
    center = 10 + rng.uniform(-2, 2, 3)
    distance = np.sqrt(sum((axis - c) ** 2 for axis, c in zip(np.indices((20, 20, 20)), center, strict=True)))
    return (distance < 7).astype(np.int16) + (distance < 4)


def labels(count: int = 6, **other: Any) -> Labels:
    given = {"cases": tuple(map(str, range(count))), "load": volume, "channels": ((0,), (1,), (2,))}
    return Labels(**{**given, **other})


def quietly(text: str) -> None:
    """Tell nobody."""


# -- patches --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(5, 5, 5), (4, 6, 7)])
def test_a_patch_without_augmentation_is_a_crop(size: tuple[int, ...]) -> None:
    found = labels(load=lambda case: np.arange(1000).reshape(10, 10, 10))
    anywhere = Augmentation(probability=0)
    for view in Patches(found, size, anywhere).draw(12, 0, torch.Generator().manual_seed(0)):
        corner = (view.centre - (torch.tensor(size) - 1) / 2).long().tolist()
        cut = view.labels[tuple(slice(c, c + n) for c, n in zip(corner, size, strict=True))]
        assert torch.equal(view.take(), cut)


def test_a_patch_larger_than_the_volume_holds_all_of_it() -> None:
    (view,) = Patches(labels(1), (24, 20, 30)).draw(1, 0, torch.Generator().manual_seed(0))
    patch = view.take()
    assert patch.shape == (24, 20, 30)
    assert (patch > 0).sum() == (volume("0") > 0).sum()


def test_a_quarter_turn_and_a_mirror_image() -> None:
    image = torch.from_numpy(np.random.default_rng(0).integers(0, 9, (7, 7, 7)))
    middle = torch.full((3,), 3.0, dtype=torch.float64)
    turned = View(image, (7, 7, 7), rotation(torch.tensor([math.pi / 2, 0, 0]).double()), middle).take()
    assert torch.equal(turned, torch.rot90(image, 1, (1, 2))) or torch.equal(turned, torch.rot90(image, -1, (1, 2)))
    mirrored = View(image, (7, 7, 7), torch.diag(torch.tensor([-1.0, 1, 1]).double()), middle).take()
    assert torch.equal(mirrored, image.flip(0))
    moved = View(image, (3, 3, 3), torch.eye(3).double(), middle).take(
        move=(torch.eye(3).double(), torch.tensor([1.0, 0, -1]).double())
    )
    assert torch.equal(moved, image[3:6, 2:5, 1:4])


def test_augmentation_turns_scales_and_mirrors() -> None:
    always = Augmentation(rotation=0.5, mirror=(0, 2), probability=1.0)
    patches = Patches(labels(), (8, 8, 8), always)
    matrices = torch.stack([v.matrix for v in patches.draw(64, 0, torch.Generator().manual_seed(0))])
    scales = matrices.norm(dim=1)
    assert 0.7 <= scales.min() < 0.85
    assert 1.25 < scales.max() <= 1.4
    assert (torch.diagonal(matrices, dim1=1, dim2=2).sign() == -1).double().mean(0)[1] == 0
    assert 0.3 < (torch.linalg.det(matrices) < 0).double().mean() < 0.7
    flat = Patches(labels(), (8, 8, 8), replace(always, flat=True)).draw(16, 0, torch.Generator().manual_seed(0))
    assert all(abs(view.matrix[0, 0]) == 1 and not view.matrix[0, 1:].any() for view in flat)


def test_ignored_voxels_are_in_no_channel() -> None:
    one_hot, valid = labels(ignored=(2,)).onehot(torch.from_numpy(volume("0"))[None])
    assert not one_hot[:, 2].any()
    assert torch.equal(one_hot.sum(1, keepdim=True), valid)
    regions = labels(channels=((1, 2), (2,)), regions=True)
    whole, core = regions.onehot(torch.from_numpy(volume("0"))[None])[0][0]
    assert (whole >= core).all()
    assert whole.sum() > core.sum() > 0


def test_slices_of_volumes() -> None:
    (view,) = Patches(labels(1), (8, 8)).draw(1, 0, torch.Generator().manual_seed(0))
    assert view.take().shape == (8, 8)


# -- networks -------------------------------------------------------------------------------------------------------


def test_an_auto_encoder_gives_the_grid_back() -> None:
    for size in ((16, 16), (9, 13, 5), (20, 256, 224)):
        made = LabelAutoEncoder(3, strides_of(size))
        if math.prod(size) < 1e5:
            assert made(torch.rand(1, 3, *size)).shape == (1, 3, *size)
    assert strides_of((20, 256, 224)) == [[2, 2, 2], [2, 2, 2], [1, 2, 2], [1, 2, 2]]


def test_a_label_unet_has_the_grid_of_a_bottleneck() -> None:
    strides = strides_to((20, 40, 41), (5, 5, 6))
    assert strides == [[1, 2, 2], [2, 2, 2], [2, 2, 2]]
    with pytest.raises(PriorError, match=r"\(20, 40\) cannot be halved to the bottleneck's grid \(6, 5\)"):
        strides_to((20, 40), (6, 5))


def test_a_regressor_has_four_hundred_thousand_parameters() -> None:
    made = TransformRegressor(3, 24)
    assert 0.35e6 < sum(p.numel() for p in made.parameters()) < 0.45e6
    assert made(torch.rand(2, 2, 24, 24, 24)).shape == (2, 9)
    assert TransformRegressor(2, 32)(torch.rand(2, 2, 32, 32)).shape == (2, 5)


def test_a_frozen_network_stays_as_it_is() -> None:
    inner = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    frozen = nn.ModuleList([Frozen(inner)])
    before = [x.clone() for x in inner.state_dict().values()]
    frozen.train().requires_grad_(True).half()
    x = torch.rand(2, 1, 5, 5, requires_grad=True)
    frozen[0](x).square().sum().backward()
    assert not inner.training
    assert x.grad is not None
    assert x.grad.any()
    assert not list(frozen.parameters())
    assert all(not b.requires_grad and b.dtype in (torch.float32, torch.int64) for b in inner.buffers())
    assert all(torch.equal(a, b) for a, b in zip(before, inner.state_dict().values(), strict=True))


# -- training -------------------------------------------------------------------------------------------------------


class Killed(BaseException):
    """What ends the training in a test."""


@pytest.mark.parametrize("kind", ["autoencoder", "inverse-form"])
def test_a_killed_training_goes_on_to_the_same_file(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps, whole, broken = 80, tmp_path / "whole.safetensors", tmp_path / "broken.safetensors"
    before = torch.get_rng_state()
    train_prior(kind, SHAPE, labels(), whole, steps, say=quietly)
    assert torch.equal(torch.get_rng_state(), before), "the random numbers of the caller changed"
    cls = objectives.OBJECTIVES[kind]
    real, seen = cls.loss, []

    def dying(self: Any, network: nn.Module, step: int, *rest: Any) -> Any:
        seen.append(step)
        if len(seen) == 66:
            raise Killed
        return real(self, network, step, *rest)

    monkeypatch.setattr(cls, "loss", dying)
    with pytest.raises(Killed):
        train_prior(kind, SHAPE, labels(), broken, steps, say=quietly)
    assert [file.name for file in tmp_path.iterdir() if "broken" in file.name] == ["broken.safetensors.training"]
    said: list[str] = []
    torch.manual_seed(99)
    train_prior(kind, SHAPE, labels(), broken, steps, say=said.append)
    assert said[0] == f"prior {kind}: goes on at step 50 of {steps}"
    assert broken.read_bytes() == whole.read_bytes()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["broken.safetensors", "whole.safetensors"]


def test_the_state_of_other_settings_is_not_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "prior.safetensors"
    monkeypatch.setattr(train, "save_prior", lambda *_: (_ for _ in ()).throw(Killed))
    with pytest.raises(Killed):
        train_prior("autoencoder", SHAPE, labels(), file, 50, say=quietly)
    monkeypatch.undo()
    said: list[str] = []
    train_prior("autoencoder", SHAPE, labels(5), file, 50, say=said.append)
    assert not any("goes on" in each for each in said)


def test_an_auto_encoder_learns_and_says_how_well(tmp_path: Path) -> None:
    said: list[str] = []
    figures = []
    for steps in (12, 250):
        file = tmp_path / f"{steps}.safetensors"
        header = train_prior("autoencoder", SHAPE, labels(), file, steps, say=said.append).header
        figures.append(header.quality["dice"])
    assert figures[1] > max(0.6, figures[0])
    assert "about" in said[0]
    assert f"reconstruction Dice {figures[1]:.3f} on held-back training cases" in said[-1]
    assert header.cases == ("1", "2", "3", "4", "5")
    assert header.held_back == ("0",)
    assert json.loads(json.dumps(asdict(header)))["training"]["steps"] == 250


def test_a_regressor_that_is_no_better_than_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PriorError, match=r"refused.*translation .* voxels \(mean predictor .*more steps"):
        train_prior("inverse-form", SHAPE, labels(), tmp_path / "prior.safetensors", 1, say=quietly)
    assert not list(tmp_path.iterdir())
    trained = train_prior("inverse-form", SHAPE, labels(), tmp_path / "prior.safetensors", 120, say=quietly)
    quality = trained.header.quality
    assert quality["translation_voxels"] < 0.9 * quality["translation_voxels_of_mean_predictor"]


@pytest.mark.parametrize(
    ("found", "kind", "file", "sentence"),
    [
        ({"cases": ()}, "autoencoder", "a.safetensors", "no training cases"),
        ({}, "encoder", "a.safetensors", "kind must be one of autoencoder, label-unet, inverse-form, got 'encoder'"),
        ({}, "autoencoder", "a.pth", r"ends with .safetensors, got '.*a.pth'"),
        ({"load": lambda case: np.zeros((9, 9, 9))}, "inverse-form", "a.safetensors", "too few boundaries"),
    ],
)
def test_what_cannot_be_trained_is_said(
    found: dict[str, Any], kind: str, file: str, sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(PriorError, match=sentence):
        train_prior(kind, SHAPE, labels(**found), tmp_path / file, 5, say=quietly)


# -- files ----------------------------------------------------------------------------------------------------------


def test_a_file_gives_the_prior_back(tmp_path: Path) -> None:
    file = tmp_path / "folder" / "prior.safetensors"
    made = untrained("autoencoder", SHAPE, False)
    prior = Prior(replace(made.header, cases=("a", "b"), quality={"dice": 0.9}), made.weights)
    save_prior(prior, file)
    found = read_prior(file)
    assert found.header == prior.header
    x = torch.rand(1, 3, 16, 16, 16)
    assert torch.equal(loaded(found)(x), loaded(prior)(x))
    assert [each.name for each in file.parent.iterdir()] == ["prior.safetensors"]


def test_files_that_hold_no_prior(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    with pytest.raises(PriorError, match=r"prior: there is no file '.*none.safetensors'"):
        read_prior(tmp_path / "none.safetensors")
    torch.save({"a": torch.ones(1)}, tmp_path / "pickle.pth")
    save_file({"a": torch.ones(1)}, tmp_path / "other.safetensors")
    (tmp_path / "text.safetensors").write_text("no")
    for name in ("pickle.pth", "other.safetensors", "text.safetensors"):
        with pytest.raises(PriorError, match=rf"prior: '.*{name}' is no file of `segloss prior train`"):
            read_prior(tmp_path / name)
    made = untrained("autoencoder", SHAPE, False)
    save_prior(Prior(made.header, dict(list(made.weights.items())[1:])), tmp_path / "part.safetensors")
    loss = LatentShapeLoss(prior=str(tmp_path / "part.safetensors"), **COMMON)
    with pytest.raises(PriorError, match="its weights do not fit its header"):
        loss.prepare(SHAPE)


def test_safetensors_is_asked_for_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    sentence = "needs the package safetensors: pip install safetensors"
    with pytest.raises(PriorError, match=sentence):
        read_prior(tmp_path / "prior.safetensors")
    never = labels(load=lambda case: pytest.fail("labels were read"))
    with pytest.raises(PriorError, match=sentence):
        train_prior("autoencoder", SHAPE, never, tmp_path / "prior.safetensors", 5)


OTHERS = {
    "classes 3, here 4": {"classes": 4},
    r"patch \(16, 16, 16\), here \(16, 16\)": {"size": (16, 16), "spacing": None},
    r"patch \(16, 16, 16\), here \(16, 16, 24\)": {"size": (16, 16, 24)},
    r"spacing \(1.5, 1.0, 1.0\), here \(3.0, 1.0, 1.0\)": {"spacing": (3.0, 1.0, 1.0)},
}


@pytest.mark.parametrize("sentence", OTHERS)
def test_a_prior_of_another_training_is_refused(sentence: str, tmp_path: Path) -> None:
    file = tmp_path / "prior.safetensors"
    save_prior(untrained("autoencoder", SHAPE, False), file)
    loss = LatentShapeLoss(prior=str(file), **COMMON)
    with pytest.raises(PriorError, match=f"^prior: it was trained for {sentence}"):
        loss.prepare(replace(SHAPE, **OTHERS[sentence]))


def test_a_prior_of_another_kind_or_target_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "prior.safetensors"
    save_prior(untrained("inverse-form", SHAPE, False), file)
    with pytest.raises(PriorError, match="is of the kind 'inverse-form', expected 'autoencoder'"):
        LatentShapeLoss(prior=str(file), **COMMON).prepare(SHAPE)
    save_prior(untrained("autoencoder", SHAPE, True), file)
    with pytest.raises(PriorError, match="targets regions, here labels"):
        LatentShapeLoss(prior=str(file), **COMMON).prepare(SHAPE)
    with pytest.raises(PriorError, match="prior: there is no file 'none'"):
        LatentShapeLoss(prior="none", **COMMON)


# -- losses ---------------------------------------------------------------------------------------------------------


def test_a_loss_whose_prior_was_forgotten_says_how_to_make_one() -> None:
    loss = LatentShapeLoss(**COMMON)
    loss.prepare(SHAPE)
    x, y = torch.rand(1, 3, 16, 16, 16), torch.zeros(1, 1, 16, 16, 16)
    with pytest.raises(
        RuntimeError, match=r"wants a prior of the kind 'autoencoder'.*segloss prior train DATASET --kind"
    ):
        loss(x, y)
    assert loss(x, y, full_resolution=False) > 0


def test_a_prior_file_changes_the_value_and_is_part_of_the_state(tmp_path: Path) -> None:
    torch.manual_seed(0)
    x, y = torch.randn(1, 3, 16, 16, 16), torch.randint(0, 3, (1, 1, 16, 16, 16))
    found = []
    for i in range(2):
        file = tmp_path / f"{i}.safetensors"
        save_prior(untrained("autoencoder", SHAPE, False), file)
        loss = LatentShapeLoss(prior=str(file), **COMMON)
        loss.prepare(SHAPE)
        found.append(loss(x, y))
        assert loss.prior_kind is None
    assert found[0] != found[1]
    other = LatentShapeLoss(prior=str(tmp_path / "0.safetensors"), **COMMON)
    other.prepare(SHAPE)
    other.load_state_dict(loss.state_dict())
    assert torch.equal(other(x, y), found[1])


def test_terms_of_a_sum_take_their_priors() -> None:
    loss = WeightedSum({"dice": 1, "latent_shape": {"weight": 1, "base": {}}}, **COMMON)
    assert loss.brings
    loss.prepare(SHAPE)
    assert loss.prior_kind == "autoencoder"
    loss.take_prior(untrained("autoencoder", SHAPE, False))
    assert loss.prior_kind is None
    x, y = torch.randn(1, 3, 16, 16, 16), torch.randint(0, 3, (1, 1, 16, 16, 16))
    assert loss(x, y) > 0
    assert set(loss.last) == {"dice", "latent_shape/latent_shape"}


def taken(key: str, **arguments: Any) -> Any:
    """A loss of its own term alone, with an untrained prior."""
    loss = monai_segloss.create(key, base={}, **COMMON, **arguments)
    loss.prepare(SHAPE)
    torch.manual_seed(0)
    loss.take_prior(untrained(loss.prior_kind, SHAPE, False))
    return loss


@pytest.mark.parametrize("key", KEYS)
def test_gradients_reach_the_prediction_and_no_frozen_network(key: str) -> None:
    loss = taken(key).train()
    x = torch.randn(1, 3, 16, 16, 16, requires_grad=True)
    taps = {"bottleneck": x.new_ones(1, 8, 4, 4, 4) * x.mean((2, 3, 4), keepdim=True)[:, :1]} if loss.taps else {}
    y = torch.from_numpy(volume("0")[None, None, :16, :16, :16])
    loss(x, y, **taps).backward()
    assert x.grad is not None
    assert x.grad.abs().max() > 0
    assert not any(module.training for module in loss.frozen.modules())
    assert not list(loss.parameters())
    assert not any(weight.requires_grad for weight in loss.frozen.buffers())


def test_identities_of_the_latent_shape() -> None:
    y = torch.from_numpy(volume("0")[:16, :16, :16])[None, None]
    loss = taken("latent_shape")
    perfect = 80.0 * torch.nn.functional.one_hot(y[:, 0].long(), 3).movedim(-1, 1)
    assert loss(perfect, y) == 0
    assert loss(perfect.roll(3, 2), y) > 0
    for weight in loss.frozen.buffers():
        weight.zero_()
    assert loss(perfect.roll(3, 2), y) == 0


def test_the_regressor_measures_shifts(tmp_path: Path) -> None:
    """Identical boundaries cost about what the file says; shifts cost more, the farther the more."""
    file = tmp_path / "prior.safetensors"
    quality = train_prior("inverse-form", SHAPE, labels(), file, 400, say=quietly).header.quality
    loss = InverseFormLoss(base={}, weight_transform=1, prior=str(file), **COMMON)
    loss.prepare(SHAPE)
    y = torch.from_numpy(volume("0")[2:18, 2:18, 2:18])[None, None]
    perfect = 80.0 * torch.nn.functional.one_hot(y[:, 0].long(), 3).movedim(-1, 1)
    costs = [np.mean([float(loss(perfect.roll(n, axis), y)) for axis in (2, 3, 4)]) for n in range(3)]
    assert costs[0] < 2 * quality["norm_of_identical"]
    assert costs[0] < costs[1] < costs[2]
    assert loss(perfect, torch.zeros_like(y)) == 0, "a class that is not there has no boundary"


def test_tiles_overlap_and_reach_the_end() -> None:
    x = torch.arange(2 * 13 * 6.0).reshape(1, 2, 13, 6)
    found = tiles(x, 8)
    assert found.shape == (1, 2, 3, 8, 8)
    assert torch.equal(found[0, 0, 1, :, :6], x[0, 0, 4:12])
    assert torch.equal(found[0, 0, 2, :, :6], x[0, 0, 5:])
    assert not found[..., 6:].any()


def test_the_edge_of_an_image_and_ignored_voxels_are_no_boundary() -> None:
    mask = torch.zeros(1, 1, 6, 6)
    mask[..., :3] = 1
    valid = torch.ones(1, 1, 6, 6, dtype=torch.bool)
    assert soft_boundary(mask)[0, 0].tolist() == [[0, 0, 1, 0, 0, 0]] * 6
    valid[..., 3] = False
    assert not soft_boundary(mask, valid).any()


def test_a_bottleneck_equal_to_the_labels_costs_nothing() -> None:
    loss = taken("bottleneck_match")
    y = torch.from_numpy(volume("0")[None, None, :16, :16, :16])
    one_hot = torch.nn.functional.one_hot(y[:, 0].long(), 3).movedim(-1, 1).float()
    code = loss.frozen(one_hot)
    x = torch.randn(1, 3, 16, 16, 16)
    assert float(loss(x, y, bottleneck=7 * code)) == pytest.approx(0, abs=1e-5)
    assert float(loss(x, y, bottleneck=-code)) == pytest.approx(4, abs=1e-3)
    u = torch.randn_like(code)
    cosine = torch.nn.functional.cosine_similarity(u.flatten(1), code.flatten(1))
    assert float(loss(x, y, bottleneck=u)) == pytest.approx(2 - 2 * float(cosine), rel=1e-4)
    with pytest.raises(ValueError, match="takes bottleneck from the network, and bottleneck did not come"):
        loss(x, y)
    with pytest.raises(ValueError, match=r"bottleneck has shape .*, the label U-Net gives .*: its prior is for"):
        loss(x, y, bottleneck=code[:, :4])


@pytest.mark.parametrize(("roi_factor", "sigma"), [(1.0, 5.0), (3.0, 2.0)])
@pytest.mark.parametrize("wrong", [8, 11, 15])
def test_a_plane_costs_the_less_the_farther_it_is_from_the_contour(wrong: int, roi_factor: float, sigma: float) -> None:
    """Of a half space, on planes 0 to 7 of 1.5 mm, one more plane is predicted; the farthest one costs nothing."""
    own = {"weight_bottleneck": 0, "weight_boundary": 1, "roi_factor": roi_factor, "sigma": sigma}
    loss = taken("bottleneck_match", **own)
    y = torch.zeros(1, 1, 16, 16, 16).long()
    y[:, :, :8] = 1
    predicted = y.clone()
    predicted[:, :, wrong] = 1
    z = 80.0 * torch.nn.functional.one_hot(predicted[:, 0], 3).movedim(-1, 1)
    i = np.arange(16)
    a = (roi_factor * (i < 8) + 1) * np.exp(-((1.5 * (i - 7)) ** 2) / (2 * sigma**2))
    a = (a - a.min()) / (a.max() - a.min())
    expected = a[wrong] / (2 * a[:8].sum() + a[wrong])
    found = loss(z, y, bottleneck=torch.zeros(1, 8, 4, 4, 4), spacing=(1.5, 1.0, 1.0))
    assert float(found) == pytest.approx(expected / 2, rel=1e-4, abs=1e-6), "the mean with a class that is not there"
    assert (expected == 0) == (wrong == 15)
    assert [spec.key for spec in loss.needs] == ["sdm_maurer"]
    assert BottleneckMatchLoss(**COMMON).needs == ()


def test_weights_of_a_class_without_a_contour_are_one() -> None:
    for mask in (torch.zeros(1, 1, 4, 4).bool(), torch.ones(1, 1, 4, 4).bool()):
        assert boundary_dice.boundary_weights(torch.zeros(1, 1, 4, 4), mask, 1.0, 5.0).eq(1).all()


MUTANTS = {
    "not scaled": lambda d, inside, w, s: (w * inside + 1) * torch.exp(-(d**2) / (2 * s**2)),
    "F outside": lambda d, inside, w, s: real_weights(d, ~inside, w, s),
    "sigma, not its square": lambda d, inside, w, s: real_weights(d, inside, w, s**0.5),
}
real_weights = boundary_dice.boundary_weights


@pytest.mark.parametrize("name", MUTANTS)
def test_the_reference_kills_wrong_weights(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    info, case = monai_segloss.find("bottleneck_match"), cases.get("ignored")
    compare(info, case, weight_boundary=1.0)
    monkeypatch.setattr(boundary_dice, "boundary_weights", MUTANTS[name])
    with pytest.raises(AssertionError):
        compare(info, case, weight_boundary=1.0)


def test_a_label_unet_is_for_one_bottleneck(tmp_path: Path) -> None:
    file = tmp_path / "prior.safetensors"
    save_prior(untrained("label-unet", SHAPE, False), file)
    loss = BottleneckMatchLoss(prior=str(file), **COMMON)
    other = replace(SHAPE, taps={"bottleneck": Tap("", 16, (4, 4, 4))})
    with pytest.raises(PriorError, match=r"bottleneck 8 channels at \(4, 4, 4\), here 16 channels at \(4, 4, 4\)"):
        loss.prepare(other)


def test_the_command_knows_every_kind() -> None:
    from monai_segloss.cli import prior
    from monai_segloss.core.prior import KINDS

    assert prior.KINDS == KINDS
