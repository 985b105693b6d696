"""Classes, regions and ignored voxels in the bundle: one configuration for all of them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import nibabel
import nnunet_data
import numpy as np
import pytest
import torch
from bundle_runs import inference, workflow
from monai.data import MetaTensor
from monai.losses import DiceLoss as DiceOfMonai
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from torch import Tensor

import monai_segloss
from monai_segloss.datalist import Labels
from monai_segloss.engine import (
    CheckedLabeld,
    DeepSupervision,
    LossMapsd,
    RegionChannelsd,
    SegmentationFromLogitsd,
    match_targets,
)
from monai_segloss.testing.stand_in import prepared

CLASSES = Labels(("organ", "lesion"), ignore=3)
REGIONS = Labels(("whole", "core"), regions=((1, 2), (2,)), order=(1, 2), ignore=3)
KINDS = ["ignore", "regions", "regions_ignore"]
SIZE = (5, 6, 7)

bundle = pytest.mark.filterwarnings("ignore:parsing config_file")


def label_map(seed: int = 0) -> MetaTensor:
    numbers = torch.randint(0, 4, (1, *SIZE), generator=torch.Generator().manual_seed(seed)).float()
    return MetaTensor(numbers, affine=torch.diag(torch.tensor([1.0, 2.0, 3.0, 1.0])))


def sample(label: Tensor) -> dict[str, Any]:
    image = torch.zeros(1, *label.shape[1:])
    return {
        "image": MetaTensor(image, affine=label.affine.clone()) if isinstance(label, MetaTensor) else image,
        "label": label,
    }


def test_ignored_voxels_become_a_mask() -> None:
    label = label_map()
    out = CheckedLabeld("label", CLASSES)(sample(label))
    assert torch.equal(out["mask"] == 0, label == 3)
    assert torch.equal(out["label"].float(), torch.where(label == 3, 0, label))
    assert torch.equal(out["mask"].affine, label.affine)
    assert "mask" not in CheckedLabeld("label", Labels(("a", "b", "c")))(sample(label))
    assert float(label.max()) == 3  # the input stays


@pytest.mark.parametrize(
    ("label", "labels", "message"),
    [
        (torch.full((1, 2, 2, 2), 4.0), CLASSES, "the label holds the value 4; dataset.json has the labels 0, 1, 2, 3"),
        (torch.full((1, 2, 2, 2), -1.0), CLASSES, "holds the value -1"),
        (torch.full((1, 2, 2, 2), 0.5), CLASSES, "holds the value 0.5"),
        (torch.full((1, 2, 2, 2), 0.99), CLASSES, r"holds the value 0\.9900000095367432; dataset"),
        (torch.full((1, 2, 2, 2), 1.0015), CLASSES, r"holds the value 1\.0015000104904175; dataset"),
        (torch.full((1, 2, 2, 2), 1e30), CLASSES, "holds the value 1000000015047466219876688855040; dataset"),
        (torch.full((1, 2, 2, 2), -0.01), CLASSES, r"holds the value -0\.00999"),
        (torch.full((1, 2, 2, 2), float("nan")), CLASSES, "holds the value nan"),
        (torch.full((1, 2, 2, 2), 3.0), CLASSES, "has no annotated voxel"),
        (torch.full((1, 2, 2, 2), 5.0), Labels(("a",), ((1, 4),), (1,)), "has the labels 0, 1, 4"),
        (torch.full((1, 2, 2, 2), 200.0), Labels(tuple(map(str, range(117)))), "has the labels 0 to 117"),
    ],
)
def test_a_label_map_that_is_none_is_refused(label: Tensor, labels: Labels, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CheckedLabeld("label", labels)(sample(label))


@pytest.mark.parametrize("off", [1e-7, -1e-7, 9e-4, -9e-4])
@pytest.mark.parametrize("labels", [CLASSES, Labels(tuple(map(str, range(299))), ignore=300)])
def test_labels_stored_as_fractions_by_rounding(off: float, labels: Labels) -> None:
    whole = torch.tensor(labels.values)[None, :, None, None].double()
    exact, found = (CheckedLabeld("label", labels)(sample(x)) for x in (whole, whole + off))
    assert torch.equal(found["label"], exact["label"])
    assert torch.equal(found["mask"], exact["mask"])


@pytest.mark.parametrize("axes", [2, 3])
def test_a_label_of_two_axes_is_compared_with_its_image(axes: int) -> None:
    affine = torch.diag(torch.tensor([2.0, 3.0, 1.0, 1.0]).double())
    label = MetaTensor(torch.zeros(1, *SIZE[:axes]), affine=affine)
    image = MetaTensor(torch.zeros(1, *SIZE[:axes]), affine=affine.clone())
    assert CheckedLabeld("label", CLASSES)({"image": image, "label": label})["label"].shape == label.shape
    image.affine[1, 3] += 5
    with pytest.raises(ValueError, match="lies 5 mm away from its image"):
        CheckedLabeld("label", CLASSES)({"image": image, "label": label})


def test_a_label_elsewhere_than_its_image_is_refused() -> None:
    with pytest.raises(ValueError, match=r"has shape \(5, 6, 7\), its image \(5, 6, 8\)"):
        CheckedLabeld("label", CLASSES)({"image": torch.zeros(1, 5, 6, 8), "label": label_map()})
    data = sample(label_map())
    data["image"].affine[0, 3] += 0.4  # less than half of a voxel
    CheckedLabeld("label", CLASSES)(data)
    data["image"].affine[0, 3] += 0.4
    with pytest.raises(ValueError, match=r"lies 0\.8 mm away from its image: their headers differ"):
        CheckedLabeld("label", CLASSES)(data)
    CheckedLabeld("label", CLASSES, image_key=None)(data)


def test_regions_are_channels_and_come_back_in_their_order() -> None:
    data = CheckedLabeld("label", REGIONS)(sample(label_map()))
    channels = RegionChannelsd("label", REGIONS)(data)["label"]
    assert torch.equal(channels[0] > 0, (data["label"] > 0)[0])
    assert torch.equal(channels[1] > 0, (data["label"] == 2)[0])
    logits = channels.float() * 2 - 1
    back = SegmentationFromLogitsd("pred", REGIONS)({"pred": logits})["pred"]
    assert torch.equal(back, data["label"].int())
    assert torch.equal(back.affine, logits.affine)
    reverse = Labels(REGIONS.names, REGIONS.regions, (2, 1))
    assert set(SegmentationFromLogitsd("pred", reverse)({"pred": logits})["pred"].unique().tolist()) == {0, 1, 2}
    of_classes = SegmentationFromLogitsd("pred", CLASSES)({"pred": torch.eye(3)[:, :, None]})["pred"]
    assert of_classes.flatten().tolist() == [0, 1, 2]


def test_regions_as_nnunet_writes_them() -> None:
    """Where probabilities are above 1/2, a later region over an earlier one."""
    manager = LabelManager({"background": 0, "whole": [1, 2], "core": [2]}, regions_class_order=[1, 2])
    logits = torch.randn(2, *SIZE, generator=torch.Generator().manual_seed(1))
    ours = SegmentationFromLogitsd("pred", REGIONS)({"pred": logits})["pred"]
    assert torch.equal(ours[0], torch.as_tensor(manager.convert_logits_to_segmentation(logits)).int())


@pytest.mark.parametrize("info", monai_segloss.list_losses(), ids=lambda info: info.key)
def test_every_loss_that_knows_regions_reads_them(info: Any) -> None:
    written = info.cls(**{**info.reading, **info.recommended.resolve()})
    if "regions" not in info.support:
        with pytest.raises(ValueError, match=f"loss: '{info.key}' does not support regions, as dataset.json has it"):
            match_targets(written, REGIONS)
        return
    loss = match_targets(written, REGIONS)
    assert type(loss) is info.cls
    edge = max(info.size, 8)
    logits = torch.randn(2, 2, edge, edge, edge, generator=torch.Generator().manual_seed(2), requires_grad=True)
    label = (torch.rand(2, 2, edge, edge, edge, generator=torch.Generator().manual_seed(3)) > 0.8).float()
    mask = torch.ones(2, 1, edge, edge, edge)
    loss = prepared(loss, logits)
    value = loss(logits, {"label": label, "mask": mask}, **_spacing(info))
    assert math.isfinite(value.item())
    value.backward()
    kept = prepared(info.cls(**loss.arguments), logits)
    torch.testing.assert_close(value, kept(logits, label, **_spacing(info)), rtol=1e-6, atol=0)


def _spacing(info: Any) -> dict[str, Any]:
    return {"spacing": (1.0, 1.0, 2.0)}


def test_sums_and_wrappers_read_regions_too() -> None:
    terms = {
        "dice": 1,
        "ce": {"loss": "cross_entropy", "weight": 0.5},
        "later": {"loss": "dice", "include_background": False},
    }
    loss = monai_segloss.WeightedSum(terms, softmax=True, to_onehot_y=True, include_background=False)
    wrapped = match_targets(DeepSupervision(loss, (1, 0.5)), REGIONS)
    assert wrapped.weights == (1, 0.5)
    inner = wrapped.loss
    assert (inner.reader.sigmoid, inner.reader.softmax, inner.reader.to_onehot_y) == (True, False, False)
    assert all(getattr(term, "include_background", True) for term in inner.terms.values())
    assert match_targets(loss, CLASSES) is loss


def test_a_loss_that_cannot_read_the_targets_is_refused() -> None:
    no_ignore = Labels(REGIONS.names, REGIONS.regions, REGIONS.order)
    wrong = DiceOfMonai(softmax=True, to_onehot_y=True, include_background=False)
    message = (
        "DiceLoss has softmax=True and to_onehot_y=True and include_background=False, but dataset.json has regions"
    )
    with pytest.raises(ValueError, match=message):
        match_targets(wrong, no_ignore)
    right = DiceOfMonai(sigmoid=True)
    assert match_targets(right, no_ignore) is right
    with pytest.raises(ValueError, match=r"loss: DiceLoss takes no mask, and dataset\.json has an ignore label"):
        match_targets(right, CLASSES)


@pytest.mark.parametrize(
    "info", [info for info in monai_segloss.list_losses() if info.needs], ids=lambda info: info.key
)
@pytest.mark.parametrize("regions", [False, True])
def test_maps_made_ahead_are_those_that_the_loss_makes(info: Any, regions: bool) -> None:
    labels = REGIONS if regions else CLASSES
    loss = match_targets(info.cls(**{**info.reading, **info.recommended.resolve()}), labels)
    data = RegionChannelsd("label", labels)(CheckedLabeld("label", labels)(sample(label_map())))
    before = set(data)
    out = LossMapsd(loss, None if regions else 3, "all")(data)
    assert set(out) - before == {spec.key for spec in loss.needs} != set()
    assert set(LossMapsd(loss, 3, "none")(data)) == before
    made = {spec.key for spec in loss.needs if spec.on_cpu}
    assert set(LossMapsd(loss, None if regions else 3)(data)) - before == made
    batch = {name: out[name][None] for name in ("label", "mask", *(spec.key for spec in loss.needs))}
    logits = torch.randn(1, labels.channels, *SIZE, generator=torch.Generator().manual_seed(4))
    alone = loss(logits, {"label": batch["label"], "mask": batch["mask"]}, spacing=(1.0, 2.0, 3.0))
    assert loss(logits, batch, spacing=(1.0, 2.0, 3.0)).item() == pytest.approx(alone.item(), rel=1e-6)
    with pytest.raises(ValueError, match="maps must be 'on_cpu', 'all' or 'none', got 'gpu'"):
        LossMapsd(loss, 3, "gpu")


@pytest.mark.parametrize("which", ["all", "none"])
def test_a_loss_that_measures_warns_of_a_sheared_grid(which: str) -> None:
    affine = torch.diag(torch.tensor([1.0, 2.0, 3.0, 1.0]).double())
    affine[1, 2] = 3.0 * math.tan(math.radians(2))
    label = MetaTensor(label_map().as_tensor(), affine=affine)
    data = CheckedLabeld("label", CLASSES)(sample(label))
    reading = {"softmax": True, "to_onehot_y": True}
    with pytest.warns(UserWarning, match=r"axes that are not at right angles .* set spacing"):
        LossMapsd(monai_segloss.BoundaryLoss(**reading), 3, which)(data)
    LossMapsd(monai_segloss.DiceLoss(**reading), 3, which)(data)  # warnings are errors here


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def dataset(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return nnunet_data.write_raw(tmp_path_factory.mktemp(kind), kind)


@bundle
@pytest.mark.parametrize("loss", ["dice_ce", "blob", "boundary"])
def test_the_bundle_learns_evaluates_and_infers(loss: str, kind: str, tmp_path: Path, dataset: Path) -> None:
    learning = {"epochs": 8, "num_samples": 4, "learning_rate": 0.02} if loss == "dice_ce" else {"epochs": 1}
    with workflow(tmp_path, dataset, precompute_maps="all", loss_key=loss, **learning) as flow:
        assert flow.check_properties() == []
        flow.run()
        assert math.isfinite(flow.trainer.state.output[0]["loss"])
        best = flow.evaluator.state.best_metric
    with workflow(tmp_path, dataset, "evaluate.json", loss_key=loss) as flow:
        flow.run()
        assert flow.evaluator.state.metrics["val_mean_dice"] == pytest.approx(best, abs=1e-6)
    report = json.loads((tmp_path / "eval" / "metrics.json").read_text())
    names = {"ball", "core"} if kind == "ignore" else {"whole", "core"}
    assert all(set(table) == names for table in report["classes"].values())
    assert set(report["mean"]) == {"val_mean_dice", "val_hd95", "val_surface_dice"}
    assert report["units"] == {"val_hd95": "mm", "val_surface_dice": "share within 1.0 mm"}
    inference(tmp_path, dataset, images_dir=str(dataset / "imagesTr")).run()
    files = sorted((tmp_path / "predictions").iterdir())
    assert len(files) == nnunet_data.CASES
    predicted = np.asarray(nibabel.load(files[-1]).dataobj)
    assert set(np.unique(predicted)) <= {0, 1, 2}
    if loss == "dice_ce":
        assert best > 0.6
        _, label = nnunet_data.volume(nnunet_data.CASES - 1)  # also where nobody annotated
        found, there = predicted > 0, label > 0
        assert 2 * (found & there).sum() / (found.sum() + there.sum()) > 0.7


@bundle
def test_what_is_ignored_costs_nothing_in_metrics(tmp_path: Path) -> None:
    dataset = nnunet_data.write_raw(tmp_path, "ignore")
    with workflow(tmp_path / "run", dataset) as flow:
        batch = next(iter(flow.parser.get_parsed_content("validate#dataloader")))
        after = flow.parser.get_parsed_content("validate#postprocessing")
        ignored = batch["mask"][0] == 0
        assert 0 < int(ignored.sum()) < ignored.numel()
        results = []
        for noise in (0, 100):
            logits = torch.nn.functional.one_hot(batch["label"][0, 0].long(), 3).movedim(-1, 0).float()
            logits[2:] += noise * ignored
            out = after({"pred": MetaTensor(logits), "label": batch["label"][0], "mask": batch["mask"][0]})
            results.append(out["pred"])
        assert torch.equal(*results)
        assert torch.equal(results[0][1:], out["label"][1:])
