"""Priors made by a bundle: of which labels, how often, in which process, and what is refused."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import nibabel
import nnunet_data
import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from bundle_runs import workflow
from monai.networks.nets import UNet
from monai.transforms import EnsureChannelFirstd
from torch import nn

from monai_segloss import LatentShapeLoss, datalist
from monai_segloss.core.prior import PriorError, read_prior
from monai_segloss.engine import CheckedLabeld, DatalistPrior, DeepSupervision, LoadVolumed, prepared
from monai_segloss.prior import supply

pytestmark = pytest.mark.filterwarnings("ignore:parsing config_file")
FILE = "prior_autoencoder.safetensors"
LATENT = {"loss_key": "latent_shape", "prior_steps": 20, "surface_metrics": False}
WORLD = 2


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return nnunet_data.write_raw(tmp_path_factory.mktemp("priors"), "labels")


def train(folder: Path, dataset: Path, **settings: Any) -> Any:
    """The loss of a training of the bundle."""
    with workflow(folder, dataset, **{**LATENT, "epochs": 1, **settings}) as flow:
        flow.run()
        return flow.trainer.loss_function


def cause(error: BaseException) -> str:
    """What was said first."""
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error)


def names(dataset: Path, which: str) -> list[str]:
    """Cases of fold 0."""
    items = getattr(datalist.read(dataset), f"{which}_items")(0)
    return [datalist.case_name({"filename_or_obj": item["image"][0]}) for item in items]


def test_a_bundle_makes_the_prior_of_its_training_cases_once(
    tmp_path: Path, dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    loss = train(tmp_path, dataset)
    said, file = capsys.readouterr().out, tmp_path / "models" / FILE
    for text in ("the loss wants one; it is trained on the labels of 3", "10 more steps, about", "reconstruction Dice"):
        assert f"prior autoencoder: {text}" in said
    header, weights = read_prior(file).header, read_prior(file).weights
    assert sorted((*header.cases, *header.held_back)) == names(dataset, "train")
    assert (header.patch, header.spacing, header.training["mirror"]) == ((16, 16, 16), None, [0, 1, 2])
    assert torch.equal(loss.frozen.module[0].weight, weights["encoder.0.weight"])
    stamp = file.stat().st_mtime_ns
    train(tmp_path, dataset, epochs=2, resume=True, prior_steps=5)
    assert f"prior autoencoder: {file}, from before" in capsys.readouterr().out
    train(tmp_path, dataset)  # not resumed, but of the same settings
    assert file.stat().st_mtime_ns == stamp
    with pytest.raises(RuntimeError) as other:
        train(tmp_path, dataset, epochs=2, resume=True, patch_size=[24, 24, 24])
    assert "it was trained for patch (16, 16, 16), here (24, 24, 24)" in cause(other.value)
    train(tmp_path, dataset, prior_steps=12)
    assert read_prior(file).header.training["steps"] == 12


def test_a_label_of_the_validation_changes_nothing(tmp_path: Path, dataset: Path) -> None:
    spoilt = tmp_path / "spoilt"
    shutil.copytree(dataset, spoilt)
    found = []
    for which in ("val", "train"):
        file = spoilt / "labelsTr" / f"{names(dataset, which)[0]}.nii.gz"
        image = nibabel.load(file)
        nibabel.save(nibabel.Nifti1Image(np.roll(np.asarray(image.dataobj), 3, 1), image.affine), file)
        found.append(made(tmp_path / which, spoilt).read_bytes())
    plain = made(tmp_path / "plain", dataset).read_bytes()
    assert found[0] == plain
    assert found[1] != plain


def maker(folder: Path, dataset: Path, **settings: Any) -> DatalistPrior:
    """As in the bundle, with the least of transforms."""
    known = datalist.read(dataset)
    steps = [
        LoadVolumed(["image", "label"]),
        EnsureChannelFirstd(["image", "label"]),
        CheckedLabeld("label", known.labels, image_key=None),
    ]
    return DatalistPrior(known, 0, steps, folder, **{"steps": 12, **settings})


def small_network() -> nn.Module:
    return UNet(spatial_dims=3, in_channels=1, out_channels=3, channels=[4, 8], strides=[2], num_res_units=1)


def made(folder: Path, dataset: Path, **settings: Any) -> Path:
    """The file of a prior for a loss inside of another module."""
    loss = DeepSupervision(LatentShapeLoss(softmax=True, to_onehot_y=True))
    prepared(loss, small_network(), 1, (16, 16, 16), prior=maker(folder, dataset, **settings))
    assert loss.prior_kind is None
    return folder / FILE


@pytest.mark.parametrize("kind", ["regions", "ignore", "regions_ignore"])
def test_the_labels_of_other_targets(kind: str, tmp_path: Path) -> None:
    raw = nnunet_data.write_raw(tmp_path, kind, cases=2)
    found = maker(tmp_path, raw).labels()
    regions, ignored = kind.startswith("regions"), "ignore" in kind
    assert found.channels == (((1, 2), (2,)) if regions else ((0,), (1,), (2,)))
    assert (found.regions, found.ignored) == (regions, (3,) if ignored else ())
    (case,) = found.cases
    stored = np.asarray(nibabel.load(raw / "labelsTr" / f"{case}.nii.gz").dataobj)
    assert np.array_equal(found.load(case), stored)
    assert np.array_equal(found.load(case), stored), "read from memory"
    assert set(np.unique(stored)) == {0, 1, 2, *found.ignored}


def test_what_is_refused(tmp_path: Path, dataset: Path) -> None:
    file = made(tmp_path, dataset)
    loss = LatentShapeLoss(prior=str(file), softmax=True, to_onehot_y=True)
    other = maker(tmp_path / "other", dataset)
    other.fold = 1
    with pytest.raises(
        PriorError, match=r"it was trained with case_0\d, which fold 1 validates; leave the argument prior"
    ):
        prepared(loss, small_network(), 1, (16, 16, 16), prior=other)
    assert not (tmp_path / "other").exists()
    with pytest.raises(PriorError, match="loss: it wants a prior of the kind 'autoencoder'"):
        prepared(LatentShapeLoss(softmax=True, to_onehot_y=True), small_network(), 1, (16, 16, 16))


def test_cases_of_one_name_are_told_apart(tmp_path: Path, dataset: Path) -> None:
    known = datalist.read(dataset)
    items = tuple({**item, "image": ["somewhere/image.nii.gz"]} for item in known.training)
    found = DatalistPrior(datalist.Datalist(items, (), (), 1, known.labels), "all", [], tmp_path).labels()
    assert found.cases == ("case_00", "case_01", "case_02", "case_03"), "by the files of their labels"


def in_a_process(rank: int, folder: str, dataset: str) -> None:
    """One of two processes: a loss with a prior, next to a wrapped network; which of them made the file is noted."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=WORLD)
    real, making = supply.train_prior, []

    def slowly(*given: Any) -> Any:
        time.sleep(2)  # the other process is there long before
        making.append(rank)
        return real(*given)

    supply.train_prior = slowly
    try:
        torch.manual_seed(rank)
        network = nn.parallel.DistributedDataParallel(small_network())
        loss = LatentShapeLoss(softmax=True, to_onehot_y=True)
        prepared(loss, network, 1, (16, 16, 16), prior=maker(Path(folder), Path(dataset)))
        image, label = torch.randn(1, 1, 16, 16, 16), torch.ones(1, 1, 16, 16, 16)
        loss(network(image), label).backward()
        slopes = [p.grad for p in network.parameters() if p.grad is not None]
        torch.save((making, loss.frozen.state_dict(), slopes), f"{folder}/rank{rank}.pt")
    finally:
        dist.destroy_process_group()


@pytest.mark.nightly
def test_one_process_makes_it_and_the_other_waits(tmp_path: Path, dataset: Path) -> None:
    mp.spawn(in_a_process, (str(tmp_path), str(dataset)), nprocs=WORLD)
    first, second = (torch.load(tmp_path / f"rank{rank}.pt") for rank in range(WORLD))
    assert (first[0], second[0]) == ([0], [])
    assert first[1].keys() == second[1].keys() != set()
    assert all(torch.equal(first[1][name], x) for name, x in second[1].items())
    assert torch.equal(first[1]["module.0.weight"], read_prior(tmp_path / FILE).weights["encoder.0.weight"])
    assert all(torch.equal(a, b) for a, b in zip(first[2], second[2], strict=True))
    assert any(slope.any() for slope in first[2])
