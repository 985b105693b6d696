"""Files, losses and networks that are not finite: refused by name before they become a result."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import itk
import nibabel
import nnunet_data
import numpy as np
import pytest
import torch
from bundle_runs import CONFIGS, SMALL, inference, monai_bundle, workflow
from ignite.engine import Events
from torch import Tensor, nn

from monai_segloss.datalist import Labels
from monai_segloss.engine import (
    CheckedOutputd,
    DataError,
    LoadVolumed,
    NotFiniteError,
    SegmentationFromLogitsd,
    VolumeReader,
)

pytestmark = [
    pytest.mark.filterwarnings("ignore:parsing config_file"),
    pytest.mark.filterwarnings("ignore:builtin type .* has no __module__ attribute"),  # ITK's own wrapping
]
WRONG = [np.nan, np.inf, -np.inf, 1e39]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return nnunet_data.write_raw(tmp_path_factory.mktemp("finite"), "labels", cases=3)


@pytest.mark.parametrize("value", WRONG)
@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd", ".mha"])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_file_that_holds_no_numbers_is_refused(value: float, ending: str, channels: int, tmp_path: Path) -> None:
    voxels = np.zeros((4, 5, 6, channels))
    voxels[1, 2, 3, -1] = voxels[3, 0, 0, 0] = value
    file = tmp_path / f"a{ending}"
    if ending == ".nii.gz":
        nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), file)
    else:
        content = np.ascontiguousarray(np.moveaxis(voxels, -1, 0).T)
        itk.imwrite(
            itk.image_from_array(content, is_vector=True) if channels > 1 else itk.image_from_array(content[..., 0]),
            str(file),
        )
    message = rf"a{ending} holds 2 of {120 * channels} values that are NaN or infinite"
    for key in ("image", "label"):
        with pytest.raises(DataError, match=message):
            LoadVolumed(key)({key: [str(file)]})
    good = tmp_path / "good.nii.gz"
    nibabel.save(nibabel.Nifti1Image(np.zeros((4, 5, 6)), np.eye(4)), good)
    with pytest.raises(DataError, match=message):
        VolumeReader().read([good, file])


def spoiled(source: Path, folder: Path, kind: str) -> Path:
    """A copy of a data set in which one file has one NaN voxel."""
    shutil.copytree(source, folder)
    file = next(iter(sorted((folder / kind).iterdir())))
    image = nibabel.load(file)
    voxels = np.asarray(image.dataobj).astype(np.float32)
    voxels[3, 4, 5] = np.nan
    nibabel.save(nibabel.Nifti1Image(voxels, image.affine), file)
    return folder


@pytest.mark.parametrize("kind", ["imagesTr", "labelsTr"])
def test_a_training_does_not_begin_with_such_a_file(kind: str, dataset: Path, tmp_path: Path) -> None:
    data = spoiled(dataset, tmp_path / "data", kind)
    with workflow(tmp_path / "run", data, epochs=1) as flow:
        assert ended(flow.run, DataError).startswith(f"{data / kind / 'case_00'}")
    assert not (tmp_path / "run" / "models").exists()


def ended(run: Callable[[], Any], kind: type[Exception]) -> str:
    """What an error of a kind says, at the end of MONAI's chain."""
    with pytest.raises((RuntimeError, kind)) as caught:
        run()
    error: BaseException | None = caught.value
    while error is not None and not isinstance(error, kind):
        error = error.__cause__
    return str(error)


class TurnsNaN(nn.Module):
    """A loss that has no value from its ``after``-th call on; or whose gradient has none."""

    def __init__(self, after: int, gradient: bool = False) -> None:
        super().__init__()
        self.after, self.gradient, self.calls = after, gradient, 0

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        self.calls += 1
        value = input.square().mean()
        if self.calls <= self.after:
            return value
        # the square root of 0: its value is 0, its gradient infinite times 0
        return value + (input * 0).sum().sqrt() if self.gradient else value * float("nan")


@pytest.mark.parametrize("gradient", [False, True])
def test_a_training_that_is_no_longer_finite_ends_and_keeps_its_checkpoints(
    gradient: bool, dataset: Path, tmp_path: Path
) -> None:
    """Two iterations an epoch: the fourth call is the last of the second epoch, which nothing but its weights tells."""
    loss = {"loss": {"_target_": f"{__name__}.TurnsNaN", "after": 3, "gradient": gradient}, "batch_size": 1}
    with workflow(tmp_path, dataset, **loss, epochs=1) as flow:
        flow.run()
    before = {file.name: file.read_bytes() for file in (tmp_path / "models").iterdir()}
    assert set(before) == {"model.pt", "last.pt"}
    saved: list[bytes] = []

    def keep() -> None:
        saved.extend((tmp_path / "models" / name).read_bytes() for name in sorted(before))

    with workflow(tmp_path, dataset, **loss, epochs=3) as flow:
        flow.trainer.add_event_handler(Events.EPOCH_COMPLETED(once=1), keep)
        said = ended(flow.run, NotFiniteError)
    if gradient:
        assert said.startswith("after epoch 2 the network holds NaN or infinite values, the first in 'model.")
    else:
        assert said.startswith("the loss is nan in epoch 2, iteration 2 of 2, on case_0")
    assert [(tmp_path / "models" / name).read_bytes() for name in sorted(before)] == saved
    assert flow.evaluator.state.epoch == 1
    weights = torch.load(tmp_path / "models" / "last.pt", weights_only=True)["model"]
    assert all(bool(x.isfinite().all()) for x in weights.values())


def broken_weights(folder: Path, dataset: Path) -> None:
    with workflow(folder, dataset, epochs=1) as flow:
        flow.run()
    path = folder / "models" / "model.pt"
    saved = torch.load(path, weights_only=True)
    next(iter(saved["model"].values())).fill_(float("nan"))
    torch.save(saved, path)


def test_a_network_without_numbers_is_neither_evaluated_nor_used(dataset: Path, tmp_path: Path) -> None:
    broken_weights(tmp_path, dataset)
    with workflow(tmp_path, dataset, "evaluate.json") as flow:
        assert "values that are NaN or infinite for" in ended(flow.run, NotFiniteError)
    assert not (tmp_path / "eval" / "metrics.json").exists()
    flow = inference(tmp_path, dataset, images_dir=str(dataset / "imagesTr"))
    assert "case_00_0000.nii.gz: its weights are broken" in ended(flow.run, NotFiniteError)
    assert not (tmp_path / "predictions").exists()
    last = tmp_path / "models" / "last.pt"
    saved = torch.load(last, weights_only=True)
    next(iter(saved["model"].values())).fill_(float("inf"))
    torch.save(saved, last)
    with workflow(tmp_path, dataset, epochs=2, resume=True) as flow:
        assert "last.pt holds a network with NaN or infinite values" in ended(flow.run, NotFiniteError)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_outputs_are_checked_where_they_become_labels(value: float) -> None:
    output = torch.zeros(2, 3, 4, 5)
    output[1, 0, 0, 0] = value
    for transform in (CheckedOutputd("pred"), SegmentationFromLogitsd("pred", Labels(("organ",)))):
        with pytest.raises(
            NotFiniteError, match="the network gives 1 of 120 values that are NaN or infinite for an im"
        ):
            transform({"pred": output})
    assert CheckedOutputd("pred")({"pred": torch.zeros(2, 3)})["pred"].shape == (2, 3)


@pytest.mark.real
@pytest.mark.parametrize("what", ["image", "rate"])
def test_the_command_ends_with_a_sentence_and_an_error(what: str, dataset: Path, tmp_path: Path) -> None:
    data = spoiled(dataset, tmp_path / "data", "imagesTr") if what == "image" else dataset
    options: dict[str, Any] = {"dataset_dir": data, "bundle_root": tmp_path, "epochs": 3, **SMALL}
    options["learning_rate"] = 1e-3 if what == "image" else 1e30
    done = monai_bundle("run", config_file=CONFIGS / "train.json", **options)
    assert done.returncode == 1
    start = "The data are wrong: " if what == "image" else "The run has ended: "
    assert done.stdout.strip().splitlines()[-1].startswith(start), done.stdout[-2000:]
    assert "best_metric" not in done.stdout
    assert not (tmp_path / "models").exists()
