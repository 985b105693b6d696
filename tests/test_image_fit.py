"""Losses of level sets on the image: closed forms, and the image of the batch in nnU-Net and the bundle, at each scale."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nnunet_data
import pytest
import torch
from boundary_shapes import READING
from bundle_runs import workflow
from nnunet_data import QUIET, Workspace, add_configurations, run
from references import REFERENCES
from torch import Tensor
from torch.nn.functional import avg_pool3d

import monai_segloss
from monai_segloss import ActiveContourLoss, WeightedSum
from monai_segloss.bundle import generic_overlay
from monai_segloss.config import LossConfig
from monai_segloss.core.registry import find
from monai_segloss.engine import DeepSupervision
from monai_segloss.testing import cases
from monai_segloss.testing.contract import PROPERTIES

pytest_plugins = "nnunet_fixtures"
pytestmark = [pytest.mark.filterwarnings("ignore:parsing config_file"), *QUIET]
KEYS = ["active_contour", "mumford_shah"]
SUM = {"terms": {"dice_ce": 1, "mumford_shah": {"weight": 0.1, "fit": "image"}}}


def halves(n: int = 6) -> Tensor:
    """An image (1, 1, n, n) of 1 and 5."""
    image = torch.ones(1, 1, n, n, dtype=torch.float64)
    image[..., n // 2 :] = 5
    return image


@pytest.mark.parametrize("channels", [1, 2])
def test_the_region_term_is_the_variance_inside_and_outside(channels: int) -> None:
    """Half of it a second channel takes away that has none; its offset costs no digits."""
    image = torch.cat((halves(), torch.full_like(halves(), 1e6))[:channels], 1)
    loss = ActiveContourLoss(fit="image", w_length=0, sigmoid=True)
    truth = torch.zeros(1, 1, 6, 6)
    split = 100 * (halves() - 3)
    for z, expected in ((split, 0.0), (-split, 0.0), (0 * split, 4.0), (0 * split + 100, 4.0), (0 * split - 100, 4.0)):
        assert float(loss(z, truth, image=image)) == pytest.approx(expected / channels, abs=1e-6)
    inside = torch.where(torch.arange(6) < 5, 100.0, -100.0).expand(1, 1, 6, 6).double()  # 18 of 1 and 12 of 5
    assert float(loss(inside, truth, image=image)) == pytest.approx(30 / 36 * 4**2 * 0.6 * 0.4 / channels)
    mu = ActiveContourLoss(fit="image", w_length=0, mu=2.0, sigmoid=True)
    assert float(mu(inside, truth, image=image)) == pytest.approx(2 * 30 / 36 * 4**2 * 0.6 * 0.4 / channels)


@pytest.mark.parametrize("key", KEYS)
def test_an_image_of_several_channels_with_ignored_voxels(key: str) -> None:
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(2, 3, 6, 7, generator=generator, dtype=torch.float64, requires_grad=True)
    image = torch.randn(2, 4, 6, 7, generator=generator, dtype=torch.float64)
    truth = torch.zeros(2, 1, 6, 7).long()
    mask = torch.rand(2, 1, 6, 7, generator=generator) < 0.8
    loss = monai_segloss.create(key, fit="image", **READING)
    given: dict[str, Any] = {"labels": True, "spacing": (2.0, 0.5), "fit": "image"}
    expected = REFERENCES[key](z.detach().numpy(), truth.numpy(), "softmax", mask.numpy(), image=image.numpy(), **given)
    found = loss(z, truth, image=torch.where(mask, image, torch.nan), mask=mask, spacing=(2.0, 0.5))
    assert found.item() == pytest.approx(float(expected), rel=1e-9)
    assert torch.autograd.grad(found, z)[0].isfinite().all()


@pytest.mark.parametrize("key", KEYS)
def test_the_contract_holds_with_the_image(key: str) -> None:
    """A few of its properties; values and gradients are compared with the reference for every other argument."""
    info = find(key)
    with_image = type(info)(**{**vars(info), "example": {"fit": "image"}})
    for name in (
        "gradcheck",
        "reductions_agree",
        "ignored_voxels_change_nothing",
        "everything_ignored_gives_zero",
    ):
        PROPERTIES[name](with_image)


def test_what_is_fitted_is_said() -> None:
    case = cases.get("labels_3d")
    x, y, image = case.input, case.target, torch.zeros(2, 1, *case.input.shape[2:])
    for key in KEYS:
        with pytest.raises(ValueError, match="fit must be one of 'target', 'image', got 'label'"):
            monai_segloss.create(key, fit="label")
        loss = monai_segloss.create(key, fit="image", **READING)
        assert (loss.taps, loss.brings) == (("image",), False)
        with pytest.raises(
            ValueError, match=r"fit='image': the image did not come; .*image=.*\(2, channels, 4, 5, 6\)"
        ):
            loss(x, y)
        with pytest.raises(ValueError, match=r"image has shape \(2, 1, 4, 5, 5\); expected \(2, channels, 4, 5, 6\)"):
            loss(x, y, image=image[..., :5])
        with pytest.raises(TypeError, match="does not know the map 'image'; it takes none"):
            monai_segloss.create(key, fit="target", **READING)(x, y, image=image)
    with pytest.raises(ValueError, match=r"c_in=0\.5, c_out=0\.0: with fit='image' they are the means of the image"):
        ActiveContourLoss(fit="image", c_in=0.5)


def test_deep_supervision_averages_the_image() -> None:
    torch.manual_seed(0)
    outputs = [torch.randn(2, 2, n, n, n) for n in (8, 4)]
    image, label = torch.randn(2, 3, 8, 8, 8), torch.zeros(2, 1, 8, 8, 8)
    loss = ActiveContourLoss(fit="image", **READING)
    found = DeepSupervision(loss)(outputs, {"label": label, "image": image})
    coarse = loss(outputs[1], label[..., ::2, ::2, ::2], image=avg_pool3d(image, 2))
    torch.testing.assert_close(found, loss(outputs[0], label, image=image) + coarse / 2)


def seen_images(monkeypatch: pytest.MonkeyPatch, cls: type) -> list[Tensor]:
    """The images that reach losses of a class from now on."""
    found: list[Tensor] = []
    real = cls.loss

    def noting(self: Any, batch: Any) -> Any:
        found.append(batch.maps["image"].clone())
        return real(self, batch)

    monkeypatch.setattr(cls, "loss", noting)
    return found


def test_the_bundle_hands_the_image_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = seen_images(monkeypatch, ActiveContourLoss)
    dataset = nnunet_data.write_raw(tmp_path / "data", "labels")
    asked = {"loss_key": "active_contour", "loss_arguments": {"fit": "image"}}
    with workflow(tmp_path / "run", dataset, epochs=1, **asked) as flow:
        flow.run()
        batch = flow.trainer.state.batch
        assert torch.equal(seen[-1], torch.stack([each["image"] for each in batch]).as_tensor())
        assert seen[-1].std() > 0.5
        assert {"loss_length", "loss_region"} <= flow.trainer.state.metrics.keys()


def test_an_overlay_for_another_bundle_hands_it_over_too() -> None:
    found = generic_overlay(LossConfig(loss="mumford_shah", arguments={"fit": "image"}))
    assert found.content["train#trainer#_target_"] == "monai_segloss.engine.SegLossTrainer"
    assert "SegLossTrainer" in json.dumps(generic_overlay(LossConfig.model_validate(SUM)).content)


@pytest.mark.slow
def test_each_scale_gets_its_image(space: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = seen_images(monkeypatch, monai_segloss.MumfordShahLoss)
    add_configurations(space.plans(), {"tiny_image": {"inherits_from": "tiny", "segloss": SUM}})
    trainer = space.trainer("nnUNetTrainerSegLoss_1epochs_2iterations", configuration="tiny_image")
    steps, given = trainer.train_step, []

    def noting(batch: dict[str, Any]) -> Any:
        seen.clear()
        given.append(batch["data"])
        return steps(batch)

    trainer.train_step = noting
    validating = trainer.on_validation_epoch_start
    scales: list[Tensor] = []
    trainer.on_validation_epoch_start = lambda: (scales.extend(seen), validating())
    assert isinstance(run(trainer).loss.loss, WeightedSum)
    assert [tuple(x.shape[2:]) for x in scales] == [(16,) * 3, (8,) * 3, (4,) * 3][: len(scales)]
    assert len(scales) > 1
    for i, image in enumerate(scales):
        torch.testing.assert_close(image, avg_pool3d(given[-1], 2**i))


@pytest.mark.real
def test_the_command_trains_on_the_image(space: Workspace) -> None:
    (space.root / "sum.json").write_text(json.dumps(SUM))
    space.run("segloss", "nnunet", "plan", "1", "tiny", "image", "--config", "sum.json")
    name = "nnUNetTrainerSegLoss_1epochs_3iterations"
    said = space.run("nnUNetv2_train", "1", "tiny_image", "0", "-tr", name, "-device", "cpu")
    assert "segloss tap image: 1 channels, at each scale" in said
    assert "'mumford_shah/homogeneity': " in said
    assert (space.model(name, configuration="tiny_image") / "fold_0" / "checkpoint_final.pth").is_file()
