"""Soft labels in nnU-Net: preprocessed like the image, augmented with it, handed to losses that support them."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from nnunet_data import CASES, QUIET, SHORT, Workspace, add_configurations, assert_equal, dataset, run, weights
from torch import Tensor
from typer.testing import CliRunner

from monai_segloss.cli import app
from monai_segloss.core.errors import LossShapeError
from monai_segloss.core.maps import MapSpec
from monai_segloss.datalist.soft_labels import FRACTIONS, RATERS, SoftLabelError
from nnunet_trainers import plans as in_plans
from nnunet_trainers import soft_preprocessing
from nnunet_trainers.maps import SOFT_LABEL, Layout
from nnunet_trainers.recording import OtherConfigurationError
from nnunet_trainers.soft_labels import Source

pytest_plugins = "nnunet_fixtures"
pytestmark = [pytest.mark.slow, *QUIET]
DICE_CE = f"nnUNetTrainerDiceCE_softlabels_seed1_{SHORT}"


class Killed(BaseException):
    """What ends a program in the middle."""


def raw(space: Workspace, kind: str = "labels") -> Path:
    return space.root / "raw" / dataset(kind)


def write_raters(space: Workspace, kind: str = "labels", shifts: tuple[int, ...] = (0, 1)) -> None:
    """One rater per shift of the hard label along the first axis."""
    for label in sorted((raw(space, kind) / "labelsTr").iterdir()):
        image = nibabel.load(label)
        hard = np.asarray(image.dataobj)
        for shift in shifts:
            file = raw(space, kind) / RATERS / f"rater_{shift}" / label.name
            file.parent.mkdir(parents=True, exist_ok=True)
            nibabel.save(nibabel.Nifti1Image(np.roll(hard, shift, 0), image.affine), file)


def preprocess(space: Workspace, kind: str = "labels", configuration: str = "3d_fullres") -> list[bool]:
    work = soft_preprocessing.preprocessor(space.plans(kind), configuration, raw(space, kind))
    return list(soft_preprocessing.run(work))


def with_soft_labels(space: Workspace, kind: str = "labels", shifts: tuple[int, ...] = (0, 1)) -> None:
    write_raters(space, kind, shifts)
    assert preprocess(space, kind) == [True] * CASES


def batches(trainer: Any) -> list[tuple[dict[str, Any], list[Tensor]]]:
    """A batch of the training and one of the validation as nnU-Net knows them, and their soft labels by scale."""
    if not trainer.was_initialized:
        trainer.initialize()
    found = []
    for loader in trainer.get_dataloaders():
        batch = trainer.hand_over(next(loader))
        found.append((batch, [scale[SOFT_LABEL] for scale in trainer.loss.extra_inputs]))
    return found


def one_hot(target: Tensor, kind: str) -> Tensor:
    """What a single rater who agrees with the hard label says."""
    if kind.startswith("regions"):
        return target[:, :2].float()
    return torch.stack([target[:, 0] == label for label in range(3)], 1).float()


@pytest.mark.parametrize(
    ("kind", "configuration"),
    [("labels", "tiny"), ("labels", "tiny_2d"), ("ignore", "tiny"), ("regions", "tiny"), ("regions_ignore", "tiny")],
)
def test_one_rater_who_is_the_hard_label_arrives_as_it_at_every_scale(
    space: Workspace, kind: str, configuration: str
) -> None:
    """Through loader, augmentation and scales; where augmentation interpolates, the larger share is the hard label."""
    with_soft_labels(space, kind, shifts=(0,))
    for augmented, (batch, soft) in zip(
        (True, False), batches(space.trainer(DICE_CE, kind, configuration)), strict=True
    ):
        assert len(soft) == len(batch["target"]) > 1
        for target, shares in zip(batch["target"], soft, strict=True):
            wanted = one_hot(target, kind)
            valid = torch.ones_like(target[:, :1], dtype=torch.bool)
            if kind == "ignore":
                valid = target != 3
            elif kind == "regions_ignore":
                valid = target[:, -1:] == 0
            assert shares.shape == wanted.shape
            if not kind.startswith("regions"):
                torch.testing.assert_close(shares.sum(1), torch.ones_like(shares[:, 0]))
            off = ((shares > 0.5) != (wanted > 0.5)) & valid
            assert off.float().mean() < (0.01 if augmented else 1e-9)
            assert augmented or torch.equal(shares * valid, wanted * valid)
            assert (shares * valid)[:, -1].sum() > 0


def test_two_raters_arrive_as_their_mean(space: Workspace) -> None:
    with_soft_labels(space)
    _, (batch, soft) = batches(space.trainer(DICE_CE))
    assert soft[0].unique().tolist() == [0, 0.5, 1]
    assert (batch["target"][0] == 1).any(), "the target of nnU-Net's own metric is the hard label"


def test_the_loss_takes_the_soft_label_and_leaves_out_what_is_ignored(space: Workspace) -> None:
    with_soft_labels(space, "ignore")
    trainer = space.trainer(DICE_CE, "ignore")
    seen: list[dict[str, Any]] = []
    trainer.initialize()
    trainer.loss.loss.register_forward_pre_hook(
        lambda _, args, more: seen.append({"target": args[1], **more}), with_kwargs=True
    )
    (batch, soft), _ = batches(trainer)
    trainer.loss.extra_inputs = [{SOFT_LABEL: each} for each in soft]
    trainer.loss([torch.zeros_like(each) for each in soft], batch["target"])
    assert len(seen) == sum(weight != 0 for weight in trainer.loss.weights) > 1
    for call, target, shares in zip(seen, batch["target"], soft, strict=False):
        assert torch.equal(call["target"], shares)
        assert torch.equal(call["mask"], target != 3)
        assert not call["mask"].all()


def test_a_hard_label_as_soft_label_has_the_same_loss(space: Workspace) -> None:
    """On the same outputs, at all scales."""
    with_soft_labels(space, "ignore", shifts=(0,))
    soft, hard = (space.trainer(f"nnUNetTrainerDiceCE{each}_{SHORT}", "ignore") for each in ("_softlabels", ""))
    _, (batch, shares) = batches(soft)
    hard.initialize()
    outputs = [torch.randn_like(each) for each in shares]
    soft.loss.extra_inputs = [{SOFT_LABEL: each} for each in shares]
    torch.testing.assert_close(soft.loss(outputs, batch["target"]), hard.loss(outputs, batch["target"]))


# -- preprocessing ------------------------------------------------------------------------------------------------


def ramp(shape: tuple[int, ...]) -> np.ndarray:
    """A fraction that is linear along each axis, so that linear interpolation gives it back."""
    z, y, x = (axis / (n - 1) for axis, n in zip(np.indices(shape), shape, strict=True))
    return ((z + 2 * y + 4 * x) / 21).astype(np.float32)


def test_axes_crop_and_resampling_are_those_of_the_image(space: Workspace) -> None:
    """The plan transposes the axes and takes every voxel apart; each case is cropped to where its image is not 0."""
    case, shape = "case_00", (24, 20, 20)
    for file in (raw(space) / "imagesTr").iterdir():
        image = nibabel.load(file)
        array = np.zeros(image.shape, np.float32)
        array[2:18, 3:19, 4:20] = 1 + np.random.default_rng(0).random((16, 16, 16))
        nibabel.save(nibabel.Nifti1Image(array, image.affine), file)
    label = nibabel.load(raw(space) / "labelsTr" / f"{case}.nii.gz")
    for number in range(CASES):
        for each in (1, 2):  # stored x, y, z
            file = raw(space) / FRACTIONS / f"case_{number:02d}_{each:04d}.nii.gz"
            file.parent.mkdir(exist_ok=True)
            nibabel.save(nibabel.Nifti1Image(each * ramp(shape).T, label.affine), file)
    content = json.loads(space.plans().read_text())
    content |= {"transpose_forward": [1, 0, 2], "transpose_backward": [1, 0, 2]}
    fine = {"inherits_from": "3d_fullres", "spacing": [0.5, 0.75, 0.8], "data_identifier": "nnUNetPlans_fine"}
    content["configurations"]["fine"] = fine
    space.plans().write_text(json.dumps(content))
    image = preprocessed_image(space, case, "fine")
    assert preprocess(space, configuration="fine") == [True] * CASES
    source = Source(*parts(space, "fine"))
    soft = source.open(case, properties(space, case, "fine"))[:]
    assert soft.shape == (2, *image.shape[1:])
    crop = [(4, 20), (3, 19), (2, 18)]
    assert image.shape[1:] == tuple(round(16 * s / t) for s, t in zip((1, 1.5, 1), (0.5, 0.75, 0.8), strict=True))
    ticks = []
    for axis in (1, 0, 2):  # of the image
        low, high = crop[axis]
        n = image.shape[1:][(1, 0, 2).index(axis)]
        ticks.append(low - 0.5 + (np.arange(n) + 0.5) * (high - low) / n)
    y, z, x = np.meshgrid(*ticks, indexing="ij")
    wanted = (z / (shape[0] - 1) + 2 * y / (shape[1] - 1) + 4 * x / (shape[2] - 1)) / 21
    inner = (slice(2, -2),) * 3
    np.testing.assert_allclose(soft[0][inner], wanted[inner], atol=1e-5)
    np.testing.assert_allclose(soft[1][inner], 2 * wanted[inner], atol=1e-5)


def parts(space: Workspace, configuration: str) -> tuple[Any, Any, Any, Path]:
    work = soft_preprocessing.preprocessor(space.plans(), configuration, raw(space))
    return work.plans, work.configuration, work.manager, space.plans().parent


def properties(space: Workspace, case: str, configuration: str = "3d_fullres") -> dict[str, Any]:
    content = json.loads(space.plans().read_text())["configurations"]
    file = space.plans().parent / content[configuration]["data_identifier"] / f"{case}.pkl"
    found: dict[str, Any] = pickle.loads(file.read_bytes())
    return found


def preprocessed_image(space: Workspace, case: str, configuration: str) -> np.ndarray:
    """What nnU-Net makes of the image of a case; it writes all of them."""
    from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
    from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    manager = PlansManager(str(space.plans()))
    chosen = manager.get_configuration(configuration)
    folder = space.plans().parent / chosen.data_identifier
    folder.mkdir(exist_ok=True)
    for label in (raw(space) / "labelsTr").iterdir():
        name = label.name.removesuffix(".nii.gz")
        images = [str(raw(space) / "imagesTr" / f"{name}_0000.nii.gz")]
        worker = DefaultPreprocessor(verbose=False)
        about = str(space.plans().parent / "dataset.json")
        worker.run_case_save(str(folder / name), images, str(label), manager, chosen, about)
    return nnUNetDatasetBlosc2(str(folder), [case]).load_case(case)[0][:]


def test_only_what_is_missing_or_changed_is_written(space: Workspace) -> None:
    with_soft_labels(space)
    folder = space.plans().parent / "soft_labels" / "nnUNetPlans_3d_fullres"
    assert sorted(each.name for each in folder.iterdir()) == [f"case_{n:02d}.b2nd" for n in range(CASES)]
    assert preprocess(space) == [False] * CASES
    (folder / "case_02.b2nd").write_bytes((folder / "case_02.b2nd").read_bytes()[:100])  # as a full disk leaves it
    assert preprocess(space) == [False, False, True, False]
    rater = raw(space) / RATERS / "rater_1"
    (rater / "case_01.nii.gz").write_bytes((rater / "case_03.nii.gz").read_bytes())
    assert preprocess(space) == [False, True, False, False]


def test_a_killed_preprocessing_leaves_no_half_of_a_file(space: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    write_raters(space)

    def half(array: Any, urlpath: str, **more: Any) -> None:
        Path(urlpath).write_bytes(b"half")
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr("nnunet_trainers.soft_preprocessing.blosc2.asarray", half)
        with pytest.raises(Killed):
            preprocess(space)
    assert not list((space.plans().parent / "soft_labels").rglob("*.b2nd"))
    assert preprocess(space) == [True] * CASES


def test_what_no_rater_labeled_takes_the_nearest_and_must_be_ignored(space: Workspace) -> None:
    with_soft_labels(space, "ignore", shifts=(0,))
    work = soft_preprocessing.preprocessor(space.plans("ignore"), "3d_fullres", raw(space, "ignore"))
    hard = np.asarray(nibabel.load(raw(space, "ignore") / "labelsTr" / "case_00.nii.gz").dataobj).T
    file = space.plans("ignore").parent / "nnUNetPlans_3d_fullres" / "case_00.pkl"
    shares = work._fractions("case_00", pickle.loads(file.read_bytes()))
    edge = np.flatnonzero((hard != 3).any((1, 2)))[0]
    np.testing.assert_array_equal(shares[:, edge - 1], shares[:, edge])
    rater = raw(space, "ignore") / RATERS / "rater_0" / "case_00.nii.gz"
    image = nibabel.load(rater)
    array = np.asarray(image.dataobj).copy()
    array[..., -3:] = 3
    nibabel.save(nibabel.Nifti1Image(array, image.affine), rater)
    with pytest.raises(
        SoftLabelError, match=r"case_00: 1200 voxels have the ignore label in the map of every rater, and not"
    ):
        preprocess(space, "ignore")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a, affine: (a[1:], affine), r"case_01.nii.gz has the shape .*its image"),
        (lambda a, affine: (a, np.diag([1.0, 2, 1.5, 1])), "has the spacing .*its image"),
        (
            lambda a, affine: (a, affine + np.eye(4)[3] * np.array([[5.0], [0], [0], [0]])),
            "lies elsewhere than its image",
        ),
        (lambda a, affine: (np.where(a == 2, 7, a).astype(np.uint8), affine), "its soft label holds the label 7"),
    ],
)
def test_a_soft_label_that_does_not_fit_its_image_is_refused(space: Workspace, change: Any, message: str) -> None:
    write_raters(space, shifts=(0,))
    file = raw(space) / RATERS / "rater_0" / "case_01.nii.gz"
    image = nibabel.load(file)
    nibabel.save(nibabel.Nifti1Image(*change(np.asarray(image.dataobj), image.affine)), file)
    with pytest.raises(SoftLabelError, match=message) as caught:
        preprocess(space)
    assert str(caught.value).startswith("case_01: ")
    assert "\n" not in str(caught.value)


def test_the_command_preprocesses_and_says_what_it_did(space: Workspace) -> None:
    arguments = ["nnunet", "soft-labels", "1", "-np", "1"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 1
    assert f"has neither {RATERS} nor {FRACTIONS}" in " ".join(result.output.split())
    write_raters(space)
    result = CliRunner().invoke(app, [*arguments, "3d_fullre"])
    assert "has no configuration '3d_fullre'; did you mean '3d_fullres'" in " ".join(result.output.split())
    for written in (CASES, 0):
        result = CliRunner().invoke(app, arguments)
        said = " ".join(result.output.split())
        assert result.exit_code == 0, said
        assert f"3d_fullres: {RATERS}: 2 raters, cases: {CASES} by 2; {written} of {CASES} written" in said


# -- the trainer --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["Blob", "LovaszSoftmax"])
def test_a_loss_that_does_not_support_them_is_refused(space: Workspace, name: str) -> None:
    with_soft_labels(space)
    with pytest.raises(NotImplementedError, match="does not support soft labels: leave softlabels out") as caught:
        space.trainer(f"nnUNetTrainer{name}_softlabels_{SHORT}").initialize()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "loss",
    [
        {"terms": {"dice": 1, "blob": 1}, "soft_labels": True},
        {"loss": "conv_mcd", "arguments": {"base": "lovasz_softmax"}, "soft_labels": True},
    ],
)
def test_so_is_a_term_or_base_of_it(space: Workspace, loss: dict[str, Any]) -> None:
    add_configurations(space.plans(), {"soft": {"inherits_from": "tiny", "segloss": loss}})
    with pytest.raises(NotImplementedError, match=r"'(blob|lovasz_softmax)' does not support soft labels"):
        space.trainer("nnUNetTrainerSegLoss", configuration="soft").initialize()


def test_soft_labels_that_are_missing_or_of_other_images_are_refused_with_the_command(space: Workspace) -> None:
    command = "run segloss nnunet soft-labels Dataset001_labels"
    with pytest.raises(SoftLabelError, match=rf"4 of 4 cases \(case_00 first\) have no .* label: {command}"):
        space.trainer(DICE_CE).initialize()
    with_soft_labels(space)
    (space.plans().parent / "soft_labels" / "nnUNetPlans_3d_fullres" / "case_01.b2nd").unlink()
    with pytest.raises(SoftLabelError, match=rf"1 of 4 cases \(case_01 first\) have no .* label: {command}"):
        space.trainer(DICE_CE).initialize()
    preprocess(space)
    content = json.loads(space.plans().read_text())
    content["configurations"]["3d_fullres"]["spacing"] = [1.0, 1.0, 1.0]
    space.plans().write_text(json.dumps(content))
    with pytest.raises(
        SoftLabelError, match=f"case_00 has a soft label that was made for another image grid: {command}"
    ):
        space.trainer(DICE_CE).initialize()


def test_the_plans_ask_for_them_too(space: Workspace) -> None:
    with_soft_labels(space)
    options = ["--loss", "dice", "--soft-labels"]
    result = CliRunner().invoke(app, ["nnunet", "plan", "1", "tiny", "soft", *options])
    assert result.exit_code == 0, result.output
    trainer = space.trainer("nnUNetTrainerSegLoss", configuration="tiny_soft")
    trainer.initialize()
    record = trainer.configuration_record()
    assert record["soft_labels"] == trainer.extra_inputs.soft.digest()
    assert record["arguments"]["soft_label"] is True, "Dice whose minimum is the soft label"
    plain = space.trainer("nnUNetTrainerDice_softlabels")
    assert plain.configuration_record()["arguments"] == record["arguments"]
    assert "soft_labels" not in space.trainer("nnUNetTrainerDice").configuration_record()


def test_another_value_in_the_plans_is_refused() -> None:
    with pytest.raises(ValueError, match="soft_labels must be true or false, got 'yes'"):
        in_plans.planned({"segloss": {"loss": "dice", "soft_labels": "yes"}}, "tiny_soft")


def test_a_killed_run_goes_on_and_not_with_other_soft_labels(space: Workspace) -> None:
    with_soft_labels(space)
    name = "nnUNetTrainerDiceCE_softlabels_seed1_2epochs_2iterations"
    trainer = run(space.trainer(name))
    whole, record = weights(trainer), trainer.configuration_record()
    shutil.rmtree(trainer.output_folder)
    trainer = space.trainer(name)
    end = trainer.on_epoch_end

    def dying() -> None:
        end()
        raise Killed

    trainer.on_epoch_end = dying
    with pytest.raises(Killed):
        trainer.run_training()
    resumed = space.trainer(name, resume=True)
    resumed.load_checkpoint(str(Path(resumed.output_folder) / "checkpoint_latest.pth"))
    assert resumed.current_epoch == 1
    assert_equal(whole, weights(run(resumed)))
    for rater in (raw(space) / RATERS).iterdir():
        (rater / "case_00.nii.gz").write_bytes((rater / "case_01.nii.gz").read_bytes())
    preprocess(space)
    with pytest.raises(
        OtherConfigurationError, match=rf'soft_labels is "{record["soft_labels"]}" there and "\w+" here'
    ):
        space.trainer(name, fold=1).initialize()


def test_a_step_of_others_is_told_that_soft_labels_are_missing(space: Workspace) -> None:
    with_soft_labels(space)
    trainer = space.trainer(DICE_CE)
    trainer.initialize()
    batch = next(trainer.get_dataloaders()[1])
    output = trainer.network(batch["data"])
    with pytest.raises(LossShapeError, match=r"packed the soft label after it; .*hand_over"):
        trainer.loss(output, batch["target"])
    plain = trainer.hand_over(batch)["target"]
    assert torch.isfinite(trainer.loss(output, plain))
    with pytest.raises(LossShapeError, match=r"soft labels of this batch are missing; .*hand_over"):
        trainer.loss(output, plain)


def test_a_base_class_that_leaves_them_out_is_told(space: Workspace) -> None:
    with_soft_labels(space)
    trainer = space.trainer(DICE_CE)
    trainer.initialize()
    stock = super(type(trainer), trainer).get_tr_and_val_datasets
    trainer.get_tr_and_val_datasets = lambda: tuple(each.dataset for each in stock())
    with pytest.raises(LossShapeError, match=r"image has 1 channels, expected 1 and 2 of the soft label: another base"):
        trainer.get_dataloaders()


def size_of_class(masks: Tensor) -> Tensor:
    """A map that says at each voxel of a class how many the class has."""
    return masks * masks.flatten(2).sum(2)[..., None, None]


def test_maps_of_soft_labels_are_those_of_their_larger_half() -> None:
    """As the loss makes them itself of a soft label."""
    spec = MapSpec("own", size_of_class, exclusive=True)
    layout = Layout((spec,), 2, False, False, (1.0, 1.0), soft_labels=True, image_channels=1)
    hard = torch.tensor([[[1, 1, 2], [2, 0, 3]]])  # 3 is ignored
    soft = torch.tensor([[[0.6, 0.7, 0.6], [0, 0.1, 0.9]], [[0.1, 0, 0.4], [0.6, 0.5, 0]]])
    target, found = layout.split(layout.pack(hard, soft)[None])
    assert torch.equal(target[0], hard.to(torch.int16))
    assert found["own"][0].tolist() == [[[3, 3, 3], [1, 0, 0]]]
    torch.testing.assert_close(found[SOFT_LABEL][0, 1:], soft)
    torch.testing.assert_close(found[SOFT_LABEL][0, 0], torch.tensor([[0.3, 0.3, 0], [0.4, 0.4, 0.1]]))
